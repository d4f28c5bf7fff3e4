"""The API pages work offline, and the document they show is complete."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from platform_kit import Api

OPEN = {"/v1/api/health"}


def operations(api: Api) -> list[tuple[str, dict[str, Any]]]:
    document = api.send(None, "GET", "/openapi.json").json()
    return [(path, operation) for path, methods in document["paths"].items() for operation in methods.values()]


def test_the_page_loads_everything_from_this_server(api: Api) -> None:
    page = api.send(None, "GET", "/docs")
    assert page.status_code == 200
    assert not re.findall(r"https?://", page.text)

    named = re.findall(r'(?:href|src)="([^"]+)"', page.text)
    assert len(named) == 4
    for asset in named:
        answered = api.send(None, "GET", f"/{asset}")
        assert answered.status_code == 200, asset
        assert answered.content
    start = api.send(None, "GET", "/docs/assets/start.js").text
    assert "validatorUrl: null" in start
    assert not re.findall(r"https?://", start)


def test_no_other_file_is_served_beside_the_assets(api: Api) -> None:
    for name in ("index.html", "..%2f..%2f__init__.py", "swagger-ui.js.map"):
        assert api.send(None, "GET", f"/docs/assets/{name}").status_code == 404


def test_the_reference_systems_path_leads_to_the_page(api: Api) -> None:
    answered = api.send(None, "GET", "/v1/api/docs")

    assert (answered.status_code, answered.headers["location"]) == (307, "/docs")


def test_every_route_says_what_it_does_and_what_it_answers(api: Api) -> None:
    found = operations(api)
    assert len(found) > 50
    for path, operation in found:
        assert operation["summary"], path
        fine = next(r for status, r in operation["responses"].items() if status.startswith("2"))
        if "204" not in operation["responses"]:
            assert any(content.get("schema") for content in fine["content"].values()), path
        assert (path in OPEN) is ("security" not in operation), path
        assert "422" not in operation["responses"], path


def test_the_document_is_one_that_the_viewer_reads(api: Api) -> None:
    text = api.send(None, "GET", "/openapi.json").text

    assert '"openapi":"3.0.3"' in text.replace(" ", "")
    assert '"type":"null"' not in text.replace(" ", "")
    refs = set(re.findall(r'"#/components/schemas/(\w+)"', text))
    assert refs <= set(api.send(None, "GET", "/openapi.json").json()["components"]["schemas"])
