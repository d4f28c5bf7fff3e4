"""Uploading a model file, and waiting until the platform has made something of it that runs."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wallaroo import _wait, engine_config, model_version
from wallaroo._names import check_dns_name
from wallaroo._wait import LongWait
from wallaroo.engine_config import Acceleration, Architecture
from wallaroo.framework import Framework, FrameworkConfig, config_to_wire
from wallaroo.model_config import schema_to_wire
from wallaroo.object import ModelConversionTimeoutError, ModelUploadError, WallarooAPIError

if TYPE_CHECKING:
    import pyarrow as pa

    from wallaroo.client import Client
    from wallaroo.engine_config import AnyAcceleration
    from wallaroo.model_version import ModelVersion

LOAD_TIMEOUT_S = 30 * 60.0
DOT_EVERY_S = 5.0
_LINES = {
    "pending_load_native": "Model is pending loading to a native runtime",
    "attempting_load_native": "Model is attempting loading to a native runtime",
    "pending_load_container": "Model is pending loading to a container runtime",
    "attempting_load_container": "Model is attempting loading to a container runtime",
}


def metadata_of(
    name: str,
    path: str | Path,
    framework: Framework,
    input_schema: pa.Schema | None,
    output_schema: pa.Schema | None,
    arch: Architecture,
    accel: AnyAcceleration,
    framework_config: FrameworkConfig | None,
    workspace_id: int,
) -> dict[str, Any]:
    """What an upload says about itself, checked before anything is sent.

    Raises:
        InvalidNameError, InvalidAccelerationError, ModelOptimizationConfigError: as their names say.
        ValueError: `framework` is no Framework, or a schema that it needs is missing.
        FileNotFoundError: there is no file at `path`, or it is a folder.
    """
    check_dns_name(name)
    if not isinstance(framework, Framework):
        raise ValueError(
            f"framework is {framework!r}. Pass a member of wallaroo.framework.Framework, "
            "such as Framework.ONNX or Framework.PYTHON."
        )
    schemas = {"input_schema": input_schema, "output_schema": output_schema}
    for parameter, schema in schemas.items():
        if schema is None and framework.needs_schemas:
            raise ValueError(
                f"parameter '{parameter}' required for this framework. Pass a pyarrow.Schema with the name and type "
                f"of each column: {parameter}=pa.schema([pa.field('count', pa.int32())])."
            )
    _check_file(path)
    engine_config.check_pair(arch, accel)
    return {
        "name": name,
        "visibility": "private",
        "workspace_id": workspace_id,
        "conversion": {
            "arch": arch.value,
            "accel": engine_config.to_wire(accel),
            "framework": framework.value,
            "framework_config": config_to_wire(framework, framework_config),
            "requirements": [],  # no python_version: the platform knows which interpreters it has
        },
        **{parameter: schema_to_wire(parameter, schema) for parameter, schema in schemas.items()},
    }


def _check_file(path: str | Path) -> None:
    if Path(path).is_file():
        return
    if Path(path).is_dir():
        raise FileNotFoundError(f"'{path}' is a folder. Zip what is in it, and pass the path of the zip.")
    looked_from = "" if Path(path).is_absolute() else f" It was looked for from the working folder, '{Path.cwd()}'."
    raise FileNotFoundError(f"There is no model file at '{path}'.{looked_from}")


def route_of(framework: Framework) -> str:
    return "/v1/api/models/upload" if framework.native else "/v1/api/models/upload_and_convert"


def upload(
    client: Client, framework: Framework, path: str | Path, metadata: dict[str, Any], wait: bool
) -> ModelVersion:
    """Send the file; with `wait`, return once the version is ready or failed. A failed one is returned as well.

    Raises:
        ModelUploadError: the platform refused the file.
        ModelConversionTimeoutError: it was neither ready nor failed after 30 minutes.
    """
    waiting = LongWait(
        client._screen,
        client._clock,
        f"Model '{metadata['name']}' is being uploaded and loaded - this will take up to {LOAD_TIMEOUT_S / 60:g}min.",
    )
    try:
        answer = client._transport.upload(route_of(framework), metadata, Path(path))
    except WallarooAPIError as error:
        raise ModelUploadError(error.code, error.status, error.error, error.source, error.response) from None
    version = model_version.by_id(client, answer["insert_models"]["returning"][0]["models"][0]["id"])
    if wait:
        wait_until_loaded(client, version, waiting)
    return version


def wait_until_loaded(client: Client, version: ModelVersion, waiting: LongWait) -> None:
    """Show each step of loading; afterwards the status is final. What went wrong is said on stderr, not raised."""
    progress = LoadProgress()
    screen = client._screen

    def look() -> str | None:
        waiting.goes_on()
        status = version.status() if progress.started else str(version._get("status"))
        screen.write(progress.on(status))
        return status if status in model_version.TERMINAL else None

    status = _wait.poll(look, timeout_s=LOAD_TIMEOUT_S, clock=client._clock, screen=screen, dot_every_s=DOT_EVERY_S)
    if status is None:
        raise ModelConversionTimeoutError(
            f"model '{version.name()}' is {version.status()} after {LOAD_TIMEOUT_S / 60:g} minutes. "
            "Look at get_upload_logs(), and ask for status() again later."
        )
    waiting.is_over(f"Model '{version.name()}' {'is ready' if status == 'ready' else 'has failed'}")
    if status == "error":
        sys.stderr.write(
            f"{_wait.red('ERROR!')}\n"
            f"There was an error during model conversion: {version.error_summary()}\n"
            f"See wl.get_model({version.name()!r}).get_upload_logs() for the whole log.\n"
        )


class LoadProgress:
    """The words for each status as it is reached. A model that is ready at once needs none."""

    def __init__(self) -> None:
        self._status: str | None = None

    @property
    def started(self) -> bool:
        return self._status is not None

    def on(self, status: str) -> str:
        """What to write now that the status is this one; "" while it stays the same."""
        if status == self._status:
            return ""
        before, self._status = self._status, status
        opening = (
            f"Waiting for model loading - this will take up to {LOAD_TIMEOUT_S / 60:g}min.\n"
            if before is None and status not in model_version.TERMINAL
            else ""
        )
        return opening + self._ending(before, status) + (f"{_LINES[status]}." if status in _LINES else "")

    def _ending(self, before: str | None, status: str) -> str:
        if before not in _LINES:
            return "Ready\n" if before is not None and status == "ready" else ""
        result = ""
        if before.startswith("attempting"):
            result = {"ready": "Successful", "error": "", "pending_load_container": "Incompatible"}.get(status, "")
        return f"{result}\n" + ("Ready\n" if status == "ready" else "")


def curl_command(base_url: str, path: str | Path, framework: Framework, metadata: dict[str, Any]) -> str:
    """A command that uploads the same file without this package; the token is left for the reader to fill in."""
    parts = [
        "curl --progress-bar -X POST",
        '-H "Authorization: Bearer $TOKEN"',
        f"-F {shlex.quote(f'metadata={json.dumps(metadata)};type=application/json')}",
        f"-F {shlex.quote(f'file=@{path};type=application/octet-stream')}",
        shlex.quote(base_url.rstrip("/") + route_of(framework)),
    ]
    return " ".join(parts)


def default_pair(
    client: Client, arch: Architecture | None, accel: AnyAcceleration | None
) -> tuple[Architecture, AnyAcceleration]:
    return arch or client._default_arch(), accel or Acceleration._None
