"""What callers send. Unknown keys are ignored; types are not guessed: a text is no number."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

Id = Annotated[int, Field(ge=0, le=2**31 - 1)]
Text = Annotated[str, Field(max_length=4096, pattern=r"^[^\x00]*$")]
Name = Annotated[str, Field(max_length=1024, pattern=r"^[^\x00]*$")]
Blob = Annotated[str, Field(max_length=4 * 2**20)]
Time = Annotated[AwareDatetime, Field(strict=False, description="ISO-8601 with offset.")]


class Body(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", protected_namespaces=())


class Empty(Body):
    pass


# --- users and workspaces -------------------------------------------------------------------------------------------


class UsersQuery(Body):
    user_ids: list[Name] | None = None


class Invite(Body):
    email: Name
    password: Text | None = Field(None, description="Refused: this release has no login by password.")
    roles: list[Name] | None = None


class Email(Body):
    email: Name


class TokenCreate(Body):
    email: Name
    label: Annotated[str, Field(max_length=256, pattern=r"^[^\x00]*$")] = Field(
        "", description="What the token is for, in the administrator's words."
    )


class WorkspacesList(Body):
    user_id: Name | None = None


class WorkspaceGet(Body):
    id: Id | None = None
    name: Name | None = None


class WorkspaceCreate(Body):
    workspace_name: Name


class WorkspaceId(Body):
    workspace_id: Id


class MemberAdd(Body):
    workspace_id: Id
    email: Name | None = None
    user_id: Name | None = None
    user_type: Literal["OWNER", "COLLABORATOR"] | None = None


class MemberRemove(Body):
    workspace_id: Id
    email: Name | None = None
    user_id: Name | None = None


class Scope(Body):
    workspace_id: Id | None = None
    workspace_name: Name | None = None


# --- connections ----------------------------------------------------------------------------------------------------


class ConnectionCreate(Body):
    name: Name
    type: Name
    details: Any = Field(None, description="A JSON object, or null. Sealed before it is stored.")


class ConnectionGet(Body):
    name: Name
    reveal: bool | None = Field(None, description="Whether to answer with `details`: audited.")


class ConnectionGetById(Body):
    id: Name
    reveal: bool | None = Field(None, description="Whether to answer with `details`: audited.")


class ConnectionsList(Body):
    workspace_id: Id | None = None
    limit: int | None = Field(None, ge=1, le=10_000, description="At most so many; without it, all.")
    after: Name | None = Field(None, description="The id of the connection that the list goes on after.")


class ConnectionLink(Body):
    workspace_id: Id
    connection_id: Name


class ConnectionDelete(Body):
    name: Name
    force: bool = Field(False, description="Also while jobs that have not ended use it: they fail.")


# --- models ---------------------------------------------------------------------------------------------------------


class FrameworkConfig(Body):
    """Options of a framework: `model_path`, and whatever else the builder of a CUSTOM model reads."""

    framework: Name
    config: dict[str, Any] | None = None


class Conversion(Body):
    framework: Name
    python_version: Name | None = None
    requirements: list[Text] | None = None
    arch: Name | None = None
    accel: Any = Field(None, description="A text, or an object for accelerators with settings.")
    framework_config: FrameworkConfig | None = None


class UploadMeta(Body):
    name: Name
    workspace_id: Id
    visibility: Literal["private", "public"] = "private"
    conversion: Conversion
    input_schema: Blob | None = Field(None, description="Base64 of a serialised Arrow schema.")
    output_schema: Blob | None = Field(None, description="Base64 of a serialised Arrow schema.")


class ModelVersionId(Body):
    model_version_id: Id


class ModelGet(Body):
    id: Id


class ModelVersionsList(Body):
    model_id: Name | None = Field(None, description="The model's name.")
    models_pk_id: Id | None = None
    workspace_id: Id | None = None


class ModelVersionsForModel(Body):
    model_id: Name = Field(description="The model's name.")
    workspace_id: Id


class DynamicBatchingConfig(Body):
    """A batch of several callers' requests goes at its target size, or when the oldest has waited the delay."""

    max_batch_delay_ms: int | None = Field(None, description="10 unless given.")
    batch_size_target: int | None = Field(None, description="Rows; 4 unless given.")
    batch_size_limit: int | None = Field(None, description="Rows; at least the target. None unless given.")


class ModelConfigInsert(Body):
    model_version_id: Id
    tensor_fields: list[Name] | None = None
    filter_threshold: Annotated[float, Field(allow_inf_nan=False)] | None = None
    input_schema: Blob | None = Field(None, description="Base64; left out, the schema stays as it was.")
    output_schema: Blob | None = Field(None, description="Base64; left out, the schema stays as it was.")
    batch_config: Name | None = None
    dynamic_batching_config: DynamicBatchingConfig | None = None
    continuous_batching_config: Any = None
    openai_config: Any = None


class ModelConfigGet(Body):
    model_id: Id = Field(description="The id of the model version.")


class UploadLogsGet(Body):
    model_version_id: Id
    lines: Annotated[int, Field(ge=1, le=1_000_000)] | None = None


class ModelsSearch(Scope):
    search_term: Text | None = None
    uploaded_time_start: Time | None = None
    uploaded_time_end: Time | None = None


# --- pipelines and deployments --------------------------------------------------------------------------------------


class PipelineCreate(Body):
    pipeline_id: Name = Field(description="The pipeline's name.")
    workspace_id: Id
    definition: dict[str, Any] | None = None


class PipelineByName(Body):
    pipeline_name: Name
    workspace_id: Id


class PipelineVersionsList(Body):
    pipeline_id: Name = Field(description="The pipeline's name.")
    workspace_id: Id


class PipelineVersionGet(Body):
    version: Name


class PipelinesSearch(Scope):
    search_term: Text | None = None
    deployed: bool | None = None
    created_start: Time | None = None
    created_end: Time | None = None
    updated_start: Time | None = None
    updated_end: Time | None = None


class Deploy(Body):
    deploy_id: Name = Field(description="The pipeline's name.")
    engine_config: dict[str, Any] | None = None
    pipeline_version_pk_id: Id | None = None
    pipeline_version: Name | None = None
    pipeline_id: Id | None = None


class Undeploy(Body):
    pipeline_id: Id | None = None
    deployment_id: Id | None = None


class DeploymentGet(Body):
    id: Id | None = None
    name: Name | None = None
    workspace_id: Id | None = None


class DeploymentStatusGet(Body):
    name: Name = Field(description="`{name}-{deployment id}`.")


class MetricsGet(Body):
    pipeline_id: Id | None = None
    label: Name | None = Field(None, description="Of a deployment: `{name}-{deployment id}`.")


class SidekickLogsGet(Body):
    pipeline_name: Name
    sidekick_name: Name
    workspace_name: Name
    limit: Annotated[int, Field(ge=1, le=100_000)] | None = None
    start_datetime: Text | None = None
    end_datetime: Text | None = None


# --- logs and the platform ------------------------------------------------------------------------------------------


class LogsGet(Body):
    pipeline_name: Name
    workspace_id: Id
    order: Literal["asc", "desc"] = "desc"
    cursor: Text | None = None
    page_size: Annotated[int, Field(ge=1, le=10_000)] = 1000
    start_time: Time | None = None
    end_time: Time | None = None


class LogsQuery(Body):
    query: Blob
    workspace_id: Id | None = None


class LogsCursor(Body):
    cursor: Text | None = None


class PipelineTopicGet(Body):
    pipeline_name: Name
    workspace_id: Id | None = None


class TopicGet(Body):
    workspace_id: Id | None = None
    pipeline_name: Name | None = None
    pipeline_pk_id: Id | None = None


class Stop(Body):
    keep_deployments: bool = False
