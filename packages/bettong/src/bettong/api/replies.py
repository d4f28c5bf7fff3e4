"""What callers get, as the API pages show it. `wire` builds these shapes; tests hold every answer against them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Reply(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class Done(Reply):
    """Nothing to tell."""


class Problem(Reply):
    """What went wrong (`msg`), as a number, as a stable word (`error`), and what to do next."""

    msg: str
    code: int
    error: str
    next_step: str
    request_id: str


class Health(Reply):
    status: Literal["ok"]
    instance: str
    version: str


class Config(Reply):
    default_arch: str
    version: str
    features: list[str]


class Features(Reply):
    features: dict[str, Any]
    name: str
    is_auth_enabled: bool


class Token(Reply):
    access_token: str
    expires_in: int
    user_id: str
    email: str
    username: str
    is_admin: bool
    workspace_ids: list[int]


class LogRules(Reply):
    bytes_per_topic: int
    days: int
    max_row_bytes: int
    sql_timeout_s: int
    sql_memory_bytes: int
    on_full: str


class PlatformStatus(Reply):
    version: str
    instance: str
    url: str
    home: str
    started_at: str
    warnings: list[str]
    unreadable_connections: list[str]
    deployments: int
    sandbox: str
    log: LogRules


# --- users and workspaces -------------------------------------------------------------------------------------------


class UserRecord(Reply):
    id: str
    email: str
    username: str
    enabled: bool
    emailVerified: bool
    createdTimestamp: int
    is_admin: bool


class Users(Reply):
    users: dict[str, UserRecord]


class UserId(Reply):
    id: str


class NewToken(Reply):
    token: str
    user_id: str
    user_email: str


class WorkspaceRecord(Reply):
    id: int
    name: str
    archived: bool
    created_at: str
    created_by: str


class WorkspaceItem(WorkspaceRecord):
    models: list[int]
    pipelines: list[int]
    users: list[str]


class WorkspaceModel(Reply):
    name: str
    versions: int
    owner_id: str
    last_update_time: str
    created_at: str


class WorkspacePipeline(Reply):
    name: str
    create_time: str


class WorkspaceDetail(WorkspaceItem):
    model_entries: list[WorkspaceModel]
    pipeline_entries: list[WorkspacePipeline]


class Workspaces(Reply):
    workspaces: list[WorkspaceItem]


class WorkspaceId(Reply):
    workspace_id: int


class MemberRecord(Reply):
    user_id: str
    email: str
    user_type: str


class Members(Reply):
    users: list[MemberRecord]


class Affected(Reply):
    affected_rows: int


# --- connections ----------------------------------------------------------------------------------------------------


class ConnectionId(Reply):
    id: str


class ConnectionRecord(Reply):
    id: str
    name: str
    type: str
    created_at: str
    workspace_names: list[str]
    version: int
    use_only: bool
    last_used_at: str | None
    details: dict[str, Any] | None = None


class Connections(Reply):
    connections: list[ConnectionRecord]


# --- models ---------------------------------------------------------------------------------------------------------


class Uploaded(Reply):
    id: int


class UploadedModels(Reply):
    models: list[Uploaded]


class Returning(Reply):
    returning: list[UploadedModels]


class UploadAnswer(Reply):
    insert_models: Returning


class WorkspaceRef(Reply):
    id: int
    name: str


class ConversionRecord(Reply):
    framework: str
    python_version: str
    requirements: list[str]
    framework_config: dict[str, Any] | None
    arch: str
    accel: str


class FileInfo(Reply):
    version: str
    sha: str
    file_name: str
    size: int


class ModelVersionRecord(Reply):
    id: int
    name: str
    models_pk_id: int
    visibility: str
    workspace_id: int
    workspace: WorkspaceRef
    conversion: ConversionRecord
    arch: str
    accel: str
    status: str
    file_info: FileInfo
    image_path: str | None
    task_id: str | None
    created_on_version: str
    created_by: str
    created_at: str
    updated_at: str
    deployed: bool
    error_summary: str | None


class DynamicBatchingRecord(Reply):
    max_batch_delay_ms: int
    batch_size_target: int
    batch_size_limit: int | None


class ModelConfigRecord(Reply):
    id: int
    model_version_id: int
    runtime: str
    tensor_fields: list[str] | None
    filter_threshold: float | None
    input_schema: str | None
    output_schema: str | None
    batch_config: str | None
    dynamic_batching_config: DynamicBatchingRecord | None


class ConfiguredVersion(Reply):
    config: ModelConfigRecord
    model_version: ModelVersionRecord


class VersionWithConfig(Reply):
    model_version: ModelVersionRecord
    config: ModelConfigRecord


class VersionAnswer(Reply):
    model_version: VersionWithConfig


class ModelRecord(Reply):
    id: int
    name: str
    owner_id: str
    workspace_id: int
    created_at: str
    updated_at: str


class ModelEntry(Reply):
    model: ModelRecord
    model_versions: list[ConfiguredVersion]
    workspace: WorkspaceRecord


class Models(Reply):
    models: list[ModelEntry]


class ShortVersion(Reply):
    sha: str
    models_pk_id: int
    model_version: str
    owner_id: str
    model_id: str
    id: int
    file_name: str
    image_path: str | None
    status: str


class ModelDetail(Reply):
    id: int
    name: str
    owner_id: str
    models: list[ShortVersion]
    workspace: WorkspaceRef
    created_at: str
    updated_at: str
    versions: list[ConfiguredVersion]


class ModelConfigAnswer(Reply):
    model_config_: ModelConfigRecord

    model_config = ConfigDict(
        protected_namespaces=(),
        alias_generator=lambda name: name.removesuffix("_"),  # pydantic keeps `model_config` for itself
    )


class Lines(Reply):
    logs: list[str]


# --- pipelines and deployments --------------------------------------------------------------------------------------


class CreatedPipeline(Reply):
    pipeline_pk_id: int
    pipeline_variant_pk_id: int
    pipeline_variant_version: str


class PipelineRecord(Reply):
    id: int
    name: str
    owner_id: str
    created_at: str
    updated_at: str


class PipelineVersionRecord(Reply):
    pk_id: int
    id: str
    pipeline_id: int
    workspace_id: int
    version: str
    steps: list[dict[str, Any]]
    definition: dict[str, Any]
    created_at: str
    updated_at: str
    created_by: str
    deployed: bool
    tags: list[Any]


class DeploymentRecord(Reply):
    id: int
    name: str
    label: str
    deployed: bool
    pipeline_id: int
    pipeline_name: str
    workspace_id: int
    generation: int
    pipeline_version: str | None
    pipeline_version_pk_id: int | None
    engine_config: dict[str, Any]
    model_configs: list[ModelConfigRecord]
    models: list[ModelVersionRecord]
    url: str | None
    external_url: str
    created_at: str
    updated_at: str


class PipelineEntry(Reply):
    pipeline: PipelineRecord
    plateau_topic: str
    workspace: WorkspaceRecord
    versions: list[str]
    pipeline_version: PipelineVersionRecord | None
    deployed: bool | None
    deployed_steps: list[str]
    arch: str | None
    accel: str | None
    tags: list[Any]
    published: bool
    deployment: DeploymentRecord | None


class Pipelines(Reply):
    pipelines: list[PipelineEntry]


class PipelineVersions(Reply):
    pipeline_versions: list[PipelineEntry]


class PipelineVersionAnswer(Reply):
    pipeline_id: str
    version: str
    definition: dict[str, Any]
    pipeline_version: PipelineVersionRecord


class Deployed(Reply):
    id: int
    generation: int
    pipeline_version: str


class Deployments(Reply):
    deployments: list[DeploymentRecord]


class Pod(Reply):
    ip: str | None
    name: str
    status: str
    reason: str | None
    details: list[str]
    labels: dict[str, str]


class PipelineState(Reply):
    id: str
    status: str
    version: str


class PipelineStates(Reply):
    pipelines: list[PipelineState]


class ModelState(Reply):
    model_version_id: int
    name: str
    sha: str
    status: str
    version: str
    execution_provider: str | None = Field(None, description="Of a native model: what onnxruntime runs it on.")


class ModelStates(Reply):
    models: list[ModelState]


class Engine(Pod):
    pipeline_statuses: PipelineStates
    model_statuses: ModelStates


class Sidekick(Pod):
    statuses: str


class Target(Reply):
    generation: int
    pipeline_version: str | None
    serving: bool
    error: str | None


class DeploymentStatus(Reply):
    """Computed from live probes of every process of the deployment."""

    status: Literal["Starting", "Running", "Error"]
    details: list[str]
    engines: list[Engine]
    engine_lbs: list[Pod]
    sidekicks: list[Sidekick]
    target: Target


class Url(Reply):
    url: str


# --- metrics --------------------------------------------------------------------------------------------------------


class Histogram(Reply):
    """`counts[n]` values are above `edges[n - 1]` and up to `edges[n]`; the last ones are above every edge."""

    counts: list[int]
    sum: int


class Counted(Reply):
    requests: dict[str, int] = Field(description="Answers by HTTP status.")
    rejected: int = Field(description="Of those with 503, the ones that met a replica at its limit.")
    log_rows: int
    log_bytes: int
    batch_rows: Histogram = Field(description="Rows of each answered inference, over `row_edges`.")
    duration: Histogram = Field(description="Nanoseconds of each inference that was taken, over `time_edges_ns`.")
    stages: dict[str, Histogram] = Field(description="The same of parsing, log and encoding.")
    steps: dict[str, Histogram] = Field(description="The same of each step, by its model's name.")
    worker_restarts: dict[str, int]


class ReplicaMetrics(Reply):
    name: str
    pid: int
    in_flight: int
    waiting: int
    counted: Counted


class PipelineMetrics(Reply):
    """What a deployment has counted since its host began; `total` has replicas that are gone, too."""

    label: str
    pipeline: str
    since: str
    at: str
    time_edges_ns: list[int]
    row_edges: list[int]
    replica_restarts: int
    total: Counted
    replicas: list[ReplicaMetrics]


# --- logs -----------------------------------------------------------------------------------------------------------


class Rows(Reply):
    """One row of a log: nested records, or flat ones when `dataset.separator` is set."""

    model_config = ConfigDict(extra="allow")


class Partition(Reply):
    start: int
    end: int


class Topic(Reply):
    partitions: dict[str, Partition]
    bytes: int
    max_bytes: int


class TopicName(Reply):
    topic_name: str
