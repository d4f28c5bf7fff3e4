"""What the rooms promise each other. Every Protocol here has one contract suite under tests/contract."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import pyarrow as pa

    from bettong.domain.connections import Connection, SealedDetails
    from bettong.domain.deployments import Deployment, DeploymentSpec, ModelSpec, Observed
    from bettong.domain.identity import AuditEvent, Member, Role, User, Workspace
    from bettong.domain.jobs import Job, JobKind, JobLine, JobState
    from bettong.domain.logs import LogPage, LogQuery, LogShape, TopicInfo
    from bettong.domain.metrics import DeploymentMetrics
    from bettong.domain.models import Model, ModelConfig, ModelStatus, ModelVersion, NewModelVersion
    from bettong.domain.pipelines import Pipeline, PipelineVersion
    from bettong.domain.tensors import Graph


# --- stores: each call is one short transaction; an unknown id raises NotFound, a taken name Conflict ---------------


class UserStore(Protocol):
    def add(self, email: str, username: str, *, is_admin: bool) -> User: ...
    def get(self, user_id: str) -> User: ...
    def by_email(self, email: str) -> User | None:
        """E-mail addresses are compared without case."""

    def all(self) -> list[User]: ...
    def set_enabled(self, user_id: str, enabled: bool) -> User: ...
    def add_token(self, user_id: str, token_hash: bytes, label: str) -> None:
        """Keep the SHA-256 of an API token, never the token. The same hash again is no error."""

    def by_token(self, token_hash: bytes) -> User | None:
        """The enabled user whose token hashes to this, else None."""


class WorkspaceStore(Protocol):
    def add(self, name: str, owner_id: str) -> Workspace:
        """Conflict when the name is taken, also by one of another case. The owner becomes its first member."""

    def get(self, workspace_id: int) -> Workspace: ...
    def by_name(self, name: str) -> Workspace | None: ...
    def all(self) -> list[Workspace]:
        """Oldest first."""

    def ids_of(self, user_id: str) -> frozenset[int]:
        """The workspaces a user is a member of."""

    def members(self, workspace_id: int) -> list[Member]:
        """In order of joining."""

    def add_member(self, workspace_id: int, user_id: str, role: Role) -> None:
        """Conflict when already a member."""

    def remove_member(self, workspace_id: int, user_id: str) -> int:
        """How many memberships were removed: 1 or 0."""


class ModelStore(Protocol):
    def add_version(self, new: NewModelVersion, status: ModelStatus, created_by: str) -> ModelVersion:
        """Make the model of this name in the workspace if there is none, then the version and its first config."""

    def model(self, model_id: int) -> Model: ...
    def model_by_name(self, workspace_id: int, name: str) -> Model | None: ...
    def models(self, workspace_ids: Iterable[int] | None) -> list[Model]:
        """Of these workspaces, or all for None; oldest first."""

    def version(self, version_id: int) -> ModelVersion: ...
    def version_by_uuid(self, version: str) -> ModelVersion | None: ...
    def versions(self, model_ids: Iterable[int]) -> list[ModelVersion]:
        """Newest first."""

    def unfinished(self) -> list[ModelVersion]:
        """Versions whose status is not terminal, oldest first: the packaging queue."""

    def set_status(
        self,
        version_id: int,
        status: ModelStatus,
        *,
        error_summary: str | None = None,
        environment: str | None = None,
        image_path: str | None = None,
    ) -> ModelVersion: ...
    def append_upload_log(self, version_id: int, lines: Sequence[str]) -> None: ...
    def upload_log(self, version_id: int, limit: int | None) -> list[str]:
        """The last `limit` lines, oldest first; all for None."""

    def add_config(self, config: ModelConfig) -> ModelConfig:
        """Keep a new row (its id is given here); the newest of a version counts."""

    def configs(self, version_ids: Iterable[int]) -> dict[int, ModelConfig]:
        """The newest config per version id."""


class PipelineStore(Protocol):
    def add(self, workspace_id: int, name: str, owner_id: str) -> Pipeline: ...
    def get(self, pipeline_id: int) -> Pipeline: ...
    def by_name(self, workspace_id: int, name: str) -> Pipeline | None: ...
    def all(self, workspace_ids: Iterable[int] | None) -> list[Pipeline]:
        """Of these workspaces, or all for None; oldest first."""

    def add_version(self, pipeline_id: int, definition: dict[str, Any], created_by: str) -> PipelineVersion:
        """Also moves the pipeline's updated_at."""

    def version(self, version_id: int) -> PipelineVersion: ...
    def version_by_uuid(self, version: str) -> PipelineVersion | None: ...
    def versions(self, pipeline_ids: Iterable[int]) -> list[PipelineVersion]:
        """Newest first."""

    def touch(self, pipeline_id: int) -> None:
        """Move updated_at to now."""


class DeploymentStore(Protocol):
    def get(self, deployment_id: int) -> Deployment: ...
    def of_pipeline(self, pipeline_id: int) -> Deployment | None: ...
    def all(self, workspace_ids: Iterable[int] | None) -> list[Deployment]: ...
    def wanted(self) -> list[Deployment]:
        """Those that should be running."""

    def target(
        self, pipeline_id: int, name: str, workspace_id: int, version_id: int, engine_config: dict[str, Any]
    ) -> Deployment:
        """Ask for a pipeline version: makes the row at the first call, sets deployed, adds one to generation."""

    def reseal(self, before: Deployment, engine_config: dict[str, Any]) -> bool:
        """Replace the config of a deployment. False, and nothing done, when it is no longer as it was `before`."""

    def set_port(self, deployment_id: int, port: int) -> None: ...
    def set_undeployed(self, deployment_id: int) -> Deployment: ...


class ConnectionStore(Protocol):
    """Keeps connections and their sealed details. Never sees a plain detail."""

    def add(self, connection: Connection, sealed: bytes) -> None: ...
    def by_name(self, name: str, workspace_ids: Iterable[int] | None = None) -> Connection | None:
        """`workspace_ids` limits the workspace_names that are told, not the search; None tells all."""

    def by_id(self, connection_id: str, workspace_ids: Iterable[int] | None = None) -> Connection | None: ...
    def all(
        self, *, seen_by: str | None, workspace_ids: Iterable[int], limit: int | None = None, after: str | None = None
    ) -> list[Connection]:
        """In order of creation: those that user `seen_by` created or that are linked to one of `workspace_ids`;
        `seen_by` None means an administrator, who sees every one. At most `limit` of them, those that follow the
        connection with the id `after`. Raises NotFound when that one is not among them."""

    def linked_to(
        self,
        workspace_id: int,
        workspace_ids: Iterable[int] | None,
        *,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[Connection]:
        """Those linked to the workspace, oldest link first; `limit` and `after` as in `all`."""

    def workspaces_of(self, connection_id: str) -> frozenset[int]: ...
    def link(self, connection_id: str, workspace_id: int) -> str:
        """The id of the link; linking again returns the first one's."""

    def unlink(self, connection_id: str, workspace_id: int) -> None:
        """No error when there is no such link."""

    def delete(self, connection_id: str) -> None:
        """Drops the links too. No error when it is gone already."""

    def set_use_only(self, connection_id: str, use_only: bool) -> None: ...
    def touch(self, connection_id: str) -> None:
        """Move last_used_at to now."""

    def sealed(self, connection_id: str, version: int | None = None) -> SealedDetails:
        """Of that version, or of the one in force."""

    def versions(self, connection_id: str) -> list[SealedDetails]:
        """Those that are kept, newest first."""

    def add_version(self, connection_id: str, sealed: bytes, *, version: int, created_by: str) -> None:
        """Put a version in force, and forget all but the last `KEPT_VERSIONS`. Conflict when the one in force is not
        the one before it: somebody else was faster."""

    def purge(self, connection_id: str) -> int:
        """Forget every version but the one in force; how many were forgotten."""

    def all_sealed(self) -> list[SealedDetails]:
        """The version in force of every connection, oldest connection first."""

    def sealed_page(self, *, after: int, limit: int) -> list[SealedDetails]:
        """At most `limit` of all versions of all connections, behind the place `after`."""

    def reseal(self, before: SealedDetails, sealed: bytes) -> bool:
        """Replace what a version is sealed as. False, and nothing done, when it is no longer as it was `before`."""


class AuditStore(Protocol):
    def record(self, event: AuditEvent) -> None:
        """On disk when this returns."""

    def of_subject(self, subject_kind: str, subject_id: str, *, limit: int | None = None) -> list[AuditEvent]:
        """Newest first, at most `limit`."""


class FactStore(Protocol):
    """Single named values of the platform, such as the key canary."""

    def get(self, name: str) -> bytes | None: ...
    def put(self, name: str, value: bytes) -> None: ...


class JobStore(Protocol):
    """Keeps jobs and hands each to one server at a time.

    A claim lasts for a lease, which its server renews. `attempt` is the `attempts` of the job as it was claimed: a
    call with an older one changes nothing and returns None, so a server that was thought dead does no harm.
    """

    def add(self, job: Job) -> None: ...
    def get(self, job_id: str) -> Job: ...
    def all(
        self,
        workspace_ids: Iterable[int] | None,
        *,
        kinds: Iterable[JobKind] | None = None,
        unended: bool = False,
        connection_id: str | None = None,
        limit: int | None = None,
        after: str | None = None,
    ) -> list[Job]:
        """Of these workspaces, or of all for None; newest first. `connection_id`: those that read or write it.

        At most `limit` of them, from behind the one with the id `after`, whatever kind and state that has.

        Raises:
            NotFound: these workspaces have no job with the id `after`.
        """

    def claim(
        self, server: str, *, lease_s: float, kinds: Iterable[JobKind] | None = None, besides: Iterable[str] = ()
    ) -> Job | None:
        """The oldest job that is pending, or runs without anyone at it, now RUNNING with one attempt more; None when
        there is none. None of `besides`. Of several servers that claim at once each gets another job."""

    def renew(self, job_id: str, attempt: int, *, lease_s: float) -> Job | None:
        """The job as it is now, `cancel_asked` included; None when it ended or another server has it."""

    def release(self, server: str) -> int:
        """Let go of what `server` had, for others to claim at once: its last run's at its start, all at its end.
        How many jobs that were."""

    def report(
        self, job_id: str, attempt: int, *, progress: Mapping[str, Any] | None = None, position: str | None = None
    ) -> Job | None:
        """Keep how far it is; what is None stays as it was. The job, or None as `renew`."""

    def finish(
        self,
        job_id: str,
        attempt: int,
        state: JobState,
        *,
        result: Mapping[str, Any] | None = None,
        error: str = "",
    ) -> Job | None:
        """End it, for good. The job, or None as `renew`."""

    def ask_cancel(self, job_id: str) -> Job:
        """A pending job is CANCELLED at once, a running one has `cancel_asked`; one that ended stays as it is."""

    def append_log(self, job_id: str, lines: Sequence[str]) -> None: ...
    def log(self, job_id: str, *, after: int = 0, limit: int | None = None) -> list[JobLine]:
        """The last `limit` lines (None: all) of those with a `seq` above `after`, oldest first."""

    def ended_before(self, moment: datetime) -> list[str]:
        """Ids of the jobs that ended before that, in the order in which they did."""

    def forget(self, job_id: str) -> None:
        """Have no trace of a job that has ended: neither it, nor its log, nor which connections it used. One that has
        not ended stays; one that is gone is no error."""


# --- secrets, artifacts, packaging ----------------------------------------------------------------------------------


class Keyring(Protocol):
    def seal(self, plain: bytes, *, bound_to: str) -> bytes:
        """Encrypt with the first key. Opens only with the same `bound_to`."""

    def open(self, sealed: bytes, *, bound_to: str) -> bytes:
        """Raises KeyUnavailable (an Unavailable) naming the key id when no key of the ring opens it."""


class ArtifactStore(Protocol):
    def put(self, source: BinaryIO, *, max_bytes: int) -> tuple[str, int]:
        """Keep a stream; (SHA-256 hex, bytes). The same bytes are kept once. TooLarge beyond `max_bytes`."""

    def fetch(self, sha: str, to: Path) -> Path:
        """Write the artifact to the file `to`, checked against its SHA-256; returns `to`."""

    def exists(self, sha: str) -> bool: ...


Report = "Callable[[str], None]"  # takes one line of an upload log


class Packager(Protocol):
    """From an upload to something loadable."""

    def check(self, version: ModelVersion, report: Callable[[str], None]) -> Path:
        """Fetch, check and unpack the artifact; the folder. BadInput says what is wrong with it."""

    def build(self, version: ModelVersion, folder: Path, report: Callable[[str], None]) -> Path:
        """Build or find the environment for the artifact's requirements; its folder."""

    def graph_of(self, version: ModelVersion, report: Callable[[str], None] = lambda _: None) -> Graph:
        """Check a native model's file and read its graph; BadInput says what is wrong with it."""

    def folder_of(self, version: ModelVersion) -> Path:
        """Where the unpacked artifact of a ready version lies; unpacks it again when it is gone."""

    def environment_of(self, version: ModelVersion) -> Path:
        """The built environment of a ready version."""


class Trial(Protocol):
    """Loads a model once, sandboxed, to see whether it will load in a deployment."""

    def try_model(self, model: ModelSpec, report: Callable[[str], None]) -> None:
        """Raises ModelFailed with the model's own last words when it does not load."""


# --- engine, runtimes, logs -----------------------------------------------------------------------------------------


class Runtime(Protocol):
    """Starts, watches and stops the engines of deployments."""

    def deploy(self, spec: DeploymentSpec) -> None:
        """Bring `spec` up, or roll a running deployment over to it. Returns when it is under way, not when it serves.
        When the new generation does not load, the old one keeps serving and `observe` says why."""

    def undeploy(self, deployment_id: int, label: str) -> None:
        """Drain and stop. When this returns nothing of the deployment runs. No error when nothing did."""

    def observe(self, deployment_id: int, label: str) -> Observed | None:
        """The deployment by a live probe; None when nothing of it runs."""

    def metrics(self, deployment_id: int, label: str) -> DeploymentMetrics | None:
        """What its replicas have counted, those that are gone included; None when nothing of it runs."""


class LogWriter(Protocol):
    """One per replica process and topic pair; not shared between processes."""

    @property
    def problem(self) -> str | None:
        """What is wrong with the log, in words: full, or rows that it had no room for."""

    def append(self, rows: pa.RecordBatch, *, failed: bool = False) -> int:
        """The rows have been handed to the operating system (`write(2)` returned) when this returns the bytes of them.

        Columns are flat (`time, in.*, out.*, anomaly.*, metadata.*`). A failed inference goes to the failures topic.
        Raises StorageFull when the disk is.
        """

    def append_request(self, shape: LogShape, time_ms: int, shared: Sequence[Any], rows: pa.RecordBatch) -> int:
        """The same for the rows of one answered request, without repeating what they share.

        `rows` has the columns of `shape.by_row`, at least one row; `shared` the values of `shape.shared`.
        """

    def append_row(self, shape: LogShape, time_ms: int, shared: Sequence[Any], values: Sequence[Any]) -> int:
        """The same for one row of numbers, without an Arrow array of it.

        `values` has a numpy array for each column of `shape.by_row`, which are numbers or lists of numbers: of the
        column's type, of shape (1,) or (1, values).
        """

    def close(self) -> None: ...


class LogReader(Protocol):
    def page(self, query: LogQuery) -> LogPage:
        """One page, newest or oldest rows first; NotFound is never raised: an unknown topic is empty."""

    def info(self, topic: str) -> TopicInfo: ...
