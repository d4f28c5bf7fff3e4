"""The API pages. Everything they load comes from this server, so that they work without a network."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from starlette.responses import FileResponse, HTMLResponse, RedirectResponse, Response
from swagger_ui_bundle import swagger_ui_path

from bettong.errors import NotFound

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

_ASSETS = {
    "swagger-ui.css": "text/css",
    "swagger-ui-bundle.js": "text/javascript",
    "favicon-32x32.png": "image/png",
}
_START = """window.ui = SwaggerUIBundle({
  url: "openapi.json",
  dom_id: "#pages",
  deepLinking: true,
  persistAuthorization: false,
  validatorUrl: null,
});
"""
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>bettong API</title>
<link rel="icon" href="docs/assets/favicon-32x32.png">
<link rel="stylesheet" href="docs/assets/swagger-ui.css">
</head>
<body>
<div id="pages"></div>
<noscript>These pages need JavaScript. The same is in openapi.json.</noscript>
<script src="docs/assets/swagger-ui-bundle.js"></script>
<script src="docs/assets/start.js"></script>
</body>
</html>
"""
_POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'"


def install(app: FastAPI) -> None:
    """Serve `/docs`, its assets and the redirect of the reference system's path. The pages need no token."""
    app.add_route("/docs", _page, include_in_schema=False)
    app.add_route("/docs/assets/{name}", _asset, include_in_schema=False)
    app.add_route("/v1/api/docs", _redirect, include_in_schema=False)


def as_openapi_30(node: Any) -> Any:
    """An OpenAPI 3.1 document in the words of 3.0.3, which the viewer reads: there null is an option and no type."""
    if isinstance(node, list):
        return [as_openapi_30(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: as_openapi_30(value) for key, value in node.items()}
    options = found.get("anyOf")
    if isinstance(options, list) and {"type": "null"} in options:
        kept = [option for option in options if option != {"type": "null"}]
        del found["anyOf"]
        found |= {"anyOf": kept} if len(kept) > 1 or "$ref" in kept[0] else kept[0]
        found["nullable"] = True
    if "const" in found:
        found["enum"] = [found.pop("const")]
    return found


async def _page(request: Request) -> Response:
    return HTMLResponse(_PAGE, headers={"content-security-policy": _POLICY})


async def _asset(request: Request) -> Response:
    name = request.path_params["name"]
    if name == "start.js":
        return Response(_START, media_type="text/javascript")
    if name not in _ASSETS:
        raise NotFound("There is no such file here.", "Open /docs.")
    return FileResponse(Path(swagger_ui_path) / name, media_type=_ASSETS[name])


async def _redirect(request: Request) -> Response:
    return RedirectResponse("/docs")
