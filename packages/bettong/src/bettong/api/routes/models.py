"""Models: uploads, versions, configs."""

from typing import Annotated, Any

from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from bettong.api import replies
from bettong.api.answers import Answer
from bettong.api.auth import Caller, Uses
from bettong.api.requests import (
    FrameworkConfig,
    ModelConfigGet,
    ModelConfigInsert,
    ModelGet,
    ModelsSearch,
    ModelVersionId,
    ModelVersionsForModel,
    ModelVersionsList,
    Scope,
    UploadLogsGet,
    UploadMeta,
)
from bettong.api.strict_json import StrictRoute, may_be_absent, parse
from bettong.api.wire import configured_version, model_config, model_detail, model_entry, short_versions
from bettong.domain.batching import DynamicBatching
from bettong.domain.identity import Principal
from bettong.errors import BadInput, UnsupportedFormat
from bettong.services.models import Sought, Upload
from bettong.services.platform import Services

router = APIRouter(prefix="/v1/api/models", route_class=StrictRoute, tags=["models"])


def _multipart() -> dict[str, Any]:
    """How an upload is described: by hand, because its parts are read as a stream."""
    meta = UploadMeta.model_json_schema()
    parts = meta.pop("$defs")
    meta["properties"]["conversion"] = parts["Conversion"]
    parts["Conversion"]["properties"]["framework_config"] = parts["FrameworkConfig"]
    schema = {
        "type": "object",
        "required": ["metadata", "file"],
        "properties": {"metadata": meta, "file": {"type": "string", "format": "binary"}},
    }
    form = {"schema": schema, "encoding": {"metadata": {"contentType": "application/json"}}}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": form}}}


@router.post(
    "/upload_and_convert",
    summary="Upload a model that runs in an environment of its own",
    status_code=202,
    response_model=replies.UploadAnswer,
    openapi_extra=_multipart(),
)
async def upload_and_convert(request: Request, caller: Caller, services: Uses) -> Answer:
    """The version waits for packaging when this answers; its status tells how that goes."""
    return await _upload(request, caller, services, status=202)


@router.post("/upload", summary="Upload a model", response_model=replies.UploadAnswer, openapi_extra=_multipart())
async def upload(request: Request, caller: Caller, services: Uses) -> Answer:
    """The route for natively run frameworks, which are mostly ready when it answers. Those that this release does not
    run are refused with 415."""
    return await _upload(request, caller, services, status=200)


@router.post("/get_version_by_id", summary="A model version", response_model=replies.VersionAnswer)
@router.post("/get_model_version_by_id", summary="A model version", response_model=replies.VersionAnswer)
def get_version_by_id(caller: Caller, services: Uses, body: ModelVersionId) -> Answer:
    version = configured_version(services.models.version(caller, body.model_version_id))
    return Answer({"model_version": {"model_version": version["model_version"], "config": version["config"]}})


@router.post("/list", summary="Models with their versions", response_model=replies.Models)
def list_models(caller: Caller, services: Uses, body: Annotated[Scope, may_be_absent(Scope)]) -> Answer:
    """Of one workspace, or of all that the caller may see."""
    found = services.models.all(caller, body.workspace_id, body.workspace_name)
    return Answer({"models": [model_entry(f) for f in found]})


@router.post("/get", summary="A model with its versions", response_model=replies.ModelDetail)
def get(caller: Caller, services: Uses, body: ModelGet) -> Answer:
    return Answer(model_detail(services.models.get(caller, body.id)))


@router.post("/list_versions", summary="The versions of a model", response_model=list[replies.ShortVersion])
def list_versions(caller: Caller, services: Uses, body: ModelVersionsList) -> Answer:
    """By the model's name (`model_id`), in one workspace or in all, or by its id (`models_pk_id`). Newest first."""
    if body.models_pk_id is not None:
        return Answer(short_versions([services.models.get(caller, body.models_pk_id)]))
    if body.model_id is None:
        raise BadInput("Neither 'model_id' nor 'models_pk_id' was given.", "Send one of them.")
    return Answer(short_versions(services.models.named(caller, body.model_id, body.workspace_id)))


@router.post("/list_versions_for_model", summary="A model of a workspace by name", response_model=replies.Models)
def list_versions_for_model(caller: Caller, services: Uses, body: ModelVersionsForModel) -> Answer:
    found = services.models.named(caller, body.model_id, body.workspace_id)
    return Answer({"models": [model_entry(f) for f in found]})


@router.post("/insert_model_config", summary="Configure a version", response_model=replies.ModelConfigAnswer)
def insert_model_config(caller: Caller, services: Uses, body: ModelConfigInsert) -> Answer:
    """Adds a config; the newest one counts, from the next deployment on."""
    unused = ("continuous_batching_config", "openai_config")
    if asked := [name for name in unused if getattr(body, name) is not None]:
        raise BadInput(f"This release does not act on {', '.join(asked)}.", "Leave it out of configure().")
    batching = body.dynamic_batching_config
    config = services.models.configure(
        caller,
        body.model_version_id,
        tensor_fields=None if body.tensor_fields is None else tuple(body.tensor_fields),
        filter_threshold=body.filter_threshold,
        input_schema=body.input_schema,
        output_schema=body.output_schema,
        batch_config=body.batch_config,
        dynamic_batching=None if batching is None else DynamicBatching.of(batching.model_dump()),
    )
    return Answer({"model_config": model_config(config)})


@router.post("/get_config_by_id", summary="The config of a version", response_model=replies.ModelConfigAnswer)
def get_config_by_id(caller: Caller, services: Uses, body: ModelConfigGet) -> Answer:
    return Answer({"model_config": model_config(services.models.config(caller, body.model_id))})


@router.post("/get_upload_logs", summary="What packaging a version said", response_model=replies.Lines)
def get_upload_logs(caller: Caller, services: Uses, body: UploadLogsGet) -> Answer:
    return Answer({"logs": services.models.upload_log(caller, body.model_version_id, body.lines)})


@router.post("/search", summary="Search model versions", response_model=replies.Models)
def search(caller: Caller, services: Uses, body: Annotated[ModelsSearch, may_be_absent(ModelsSearch)]) -> Answer:
    """The term is found anywhere, in any case, in names, SHAs, versions and file names."""
    sought = Sought(body.search_term, body.uploaded_time_start, body.uploaded_time_end)
    found = services.models.search(caller, sought, body.workspace_id, body.workspace_name)
    return Answer({"models": [model_entry(f) for f in found]})


async def _upload(request: Request, caller: Principal, services: Services, *, status: int) -> Answer:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise UnsupportedFormat("An upload is not multipart/form-data.", "Send the parts 'metadata' (JSON) and 'file'.")
    async with request.form(max_files=2, max_fields=8, max_part_size=8 * 2**20) as form:
        file = form.get("file")
        if not isinstance(file, UploadFile):
            raise BadInput("The upload has no part 'file' with a file name.", "Send the model as 'file'.")
        meta = await _meta(form.get("metadata"))
        version = await run_in_threadpool(services.models.upload, caller, _described(meta, file), file.file)
    await run_in_threadpool(services.models.settled, version)
    return Answer({"insert_models": {"returning": [{"models": [{"id": version.id}]}]}}, status)


async def _meta(part: UploadFile | str | None) -> UploadMeta:
    if part is None:
        raise BadInput("The upload has no part 'metadata'.", "Send it as application/json; see /docs.")
    text = part.encode() if isinstance(part, str) else await part.read()
    try:
        return UploadMeta.model_validate(parse(text))
    except ValidationError as faults:
        located = [{**fault, "loc": ("metadata", *fault["loc"])} for fault in faults.errors(include_input=False)]
        raise RequestValidationError(located) from None
    except ValueError:
        raise BadInput("The part 'metadata' is not valid JSON.", "Send a JSON object; see /docs.") from None


def _described(meta: UploadMeta, file: UploadFile) -> Upload:
    conversion = meta.conversion
    accel = conversion.accel
    return Upload(
        name=meta.name,
        workspace_id=meta.workspace_id,
        framework=conversion.framework,
        file_name=file.filename or "",
        visibility=meta.visibility,
        python_version=conversion.python_version or "",
        requirements=tuple(conversion.requirements or ()),
        arch=conversion.arch,
        accel=accel if isinstance(accel, str) else None if accel is None else "with settings",
        input_schema=meta.input_schema,
        output_schema=meta.output_schema,
        framework_config=_config_for(conversion.framework, conversion.framework_config),
    )


def _config_for(framework: str, config: FrameworkConfig | None) -> dict[str, Any]:
    if config is None:
        return {}
    if config.framework != framework:
        raise BadInput("The framework_config is for another framework than the model's.", "Send the model's own.")
    return config.config or {}
