"""The session of a notebook with one platform. Its methods say what they take and give; the work is done elsewhere."""

from __future__ import annotations

import os
import weakref
from typing import TYPE_CHECKING, Any, Literal

from wallaroo import (
    _embedded,
    _pipeline_lookup,
    _upload,
    _wait,
    connection,
    connection_reports,
    deployment,
    job,
    logs,
    model,
    sql,
    user,
    workspace,
)
from wallaroo._transport import Transport
from wallaroo.auth import Auth, AuthError, NoAuth, TokenAuth, read_credentials
from wallaroo.engine_config import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime
    from pathlib import Path

    import httpx
    import pandas as pd
    import pyarrow as pa

    from wallaroo.connection import Connection, ConnectionList
    from wallaroo.connection_reports import DriverList
    from wallaroo.deployment import Deployment, DeploymentList
    from wallaroo.engine_config import AnyAcceleration
    from wallaroo.framework import Framework, FrameworkConfig
    from wallaroo.job import Job, JobList
    from wallaroo.model import ModelList
    from wallaroo.model_version import ModelVersion, ModelVersionList
    from wallaroo.pipeline import Pipeline, PipelineList
    from wallaroo.pipeline_version import PipelineVersionList
    from wallaroo.user import User
    from wallaroo.workspace import Workspace, WorkspaceList

DEFAULT_TIMEOUT_S = 45.0
DEFAULT_TIME_FORMAT = "%Y-%d-%b %H:%M:%S"


class Client:
    """A session with the platform at `api_endpoint`, or with the one of this machine when no endpoint is given.

    Args:
        api_endpoint: `http://HOST:PORT`; else the environment's WALLAROO_URL; else the platform of this machine, found
            or started, which is said in one line.
        request_timeout: seconds for a call, and for deploy and undeploy; else WALLAROO_REQUEST_TIMEOUT; else 45.
        auth_type: `token` (a credentials file named by WALLAROO_SDK_CREDENTIALS) or `none`; else
            WALLAROO_SDK_AUTH_TYPE. The platform of this machine needs neither.
        gql_client: taken for old notebooks' sake; nothing is done with it.
        interactive: whether waits are shown; by default they are in notebooks and terminals. Elsewhere an upload or a
            deploy of more than a few seconds leaves two lines on stderr; False leaves none.
        time_format: how lists show dates.
        config: facts of the platform, instead of asking for them.

    Raises:
        ValueError: no platform is named and none can be had on this machine, or a login is given without the platform
            that it is for, or the endpoint is no address.
        AuthError: there is no token, or it does not hold, or this release does not know the `auth_type`.
        CommunicationError: the platform does not answer.
    """

    def __init__(
        self,
        api_endpoint: str | None = None,
        request_timeout: float | None = None,
        auth_type: str | None = None,
        gql_client: object = None,
        interactive: bool | None = None,
        time_format: str = DEFAULT_TIME_FORMAT,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        environ = os.environ
        endpoint = api_endpoint or environ.get("WALLAROO_URL")
        login = auth_type or environ.get("WALLAROO_SDK_AUTH_TYPE")
        timeout = request_timeout if request_timeout is not None else environ.get("WALLAROO_REQUEST_TIMEOUT")
        self.timeout = DEFAULT_TIMEOUT_S if timeout is None else float(timeout)
        self.time_format = time_format
        hosted = bool(environ.get("JUPYTER_SVC_SERVICE_HOST") or environ.get("JUPYTERHUB_HOST"))
        self._interactive = hosted or _wait.watched() if interactive is None else interactive
        self._clock = _wait.Clock()
        self._screen = _wait.Screen(self._interactive, logged=interactive is None and not self._interactive)
        self._config = config
        self._workspace: Workspace | None = None
        self._last_inference_ms: dict[tuple[int | None, str], int] = {}
        platform: _embedded.Embedded | None = None
        if endpoint is not None:
            self._transport = Transport(endpoint, self.timeout)
        elif given := _login_given(auth_type, environ):
            raise ValueError(
                f'{given}, but no platform: pass api_endpoint="http://HOST:PORT" to Client(), or set WALLAROO_URL. '
                "To use the platform of this machine, leave the login out."
            )
        else:
            platform = _embedded.find_or_start()
            self._transport = Transport(platform.url, self.timeout, platform)
        self._end = weakref.finalize(self, self._transport.close)
        if platform:
            self._log_in(TokenAuth(platform.token(), self._transport.exchange, self._clock))
            print(platform.in_words)
        else:
            self._log_in(self._named_auth(login or "token"))

    def __repr__(self) -> str:
        return f"Client(api_endpoint={self.api_endpoint!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the session's connections. One that is not closed ends them when it is collected, or at exit."""
        self._end()

    def logout(self) -> None:
        """Forget the access token in hand; the API token stays where it is, and the next call logs in with it."""
        self._transport.auth.forget()

    @property
    def api_endpoint(self) -> str:
        return self._transport.shown_endpoint

    def get_urls(self) -> dict[str, str]:
        """Addresses for programs and people: `api`, and `docs`, where the API describes itself."""
        return {"api": self.api_endpoint, "docs": f"{self.api_endpoint}/docs"}

    @property
    def httpx_client(self) -> httpx.Client:
        """For calls that have no method here: paths are of this platform, and the login goes to it and nowhere else."""
        return self._transport.open_http()

    @property
    def auth(self) -> Auth:
        """The login: `auth_header()`, `user_id()`, `user_email()`."""
        return self._transport.auth

    # Workspaces

    def list_workspaces(self) -> WorkspaceList:
        """The workspaces that the caller may see."""
        return workspace.list_all(self)

    def create_workspace(self, workspace_name: str) -> Workspace:
        """Raises InvalidNameError, or RequestRefused with the server's reason."""
        return workspace.create(self, workspace_name)

    def get_workspace(self, name: str, create_if_not_exist: bool | None = False) -> Workspace:
        """Raises EntityNotFoundError when there is none and it was not to be created."""
        return workspace.get(self, name, bool(create_if_not_exist))

    def set_current_workspace(self, workspace: Workspace) -> Workspace:
        """Where this session's uploads, builds and look-ups happen from now on. Raises TypeError for anything else."""
        if not isinstance(workspace, _Workspace):
            raise TypeError(
                f"Workspace type was expected, not {type(workspace).__name__}. Get one with get_workspace(name)."
            )
        self._workspace = workspace
        return workspace

    def get_current_workspace(self) -> Workspace:
        """The one set, or the caller's default workspace."""
        if self._workspace is None:
            self._workspace = workspace.default(self)
        return self._workspace

    # Models

    def upload_model(
        self,
        name: str,
        path: str | Path,
        framework: Framework,
        input_schema: pa.Schema | None = None,
        output_schema: pa.Schema | None = None,
        convert_wait: bool | None = True,
        arch: Architecture | None = None,
        accel: AnyAcceleration | None = None,
        framework_config: FrameworkConfig | None = None,
    ) -> ModelVersion:
        """A new version of the model `name` in the current workspace.

        With `convert_wait`, returns once it is ready or failed: a failed version is returned, not raised, with its
        `error_summary()`.

        Raises:
            InvalidNameError, InvalidAccelerationError, ModelOptimizationConfigError, ValueError, FileNotFoundError:
                before anything is sent.
            ModelUploadError: the platform refuses the file.
            ModelConversionTimeoutError: it was neither ready nor failed after 30 minutes.
        """
        metadata = self._upload_metadata(
            name, path, framework, input_schema, output_schema, arch, accel, framework_config
        )
        return _upload.upload(self, framework, path, metadata, bool(convert_wait))

    def generate_upload_model_api_command(
        self,
        base_url: str,
        name: str,
        path: str | Path,
        framework: Framework,
        input_schema: pa.Schema | None = None,
        output_schema: pa.Schema | None = None,
        arch: Architecture | None = None,
        accel: AnyAcceleration | None = None,
        framework_config: FrameworkConfig | None = None,
    ) -> str:
        """A curl command that makes the same upload, after the same checks."""
        metadata = self._upload_metadata(
            name, path, framework, input_schema, output_schema, arch, accel, framework_config
        )
        return _upload.curl_command(base_url, path, framework, metadata)

    def list_models(self, workspace_id: int | None = None, workspace_name: str | None = None) -> ModelList:
        """The models of a workspace, of the current one by default."""
        scope = workspace.scope(workspace_id, workspace_name)
        if workspace_id is None and workspace_name is None:
            scope["workspace_id"] = self.get_current_workspace().id()
        return model.list_all(self, scope)

    def get_model(self, name: str, version: str | None = None) -> ModelVersion:
        """The newest version, or the one of that UUID, in the current workspace. Raises EntityNotFoundError."""
        return model.get(self, name, version, self.get_current_workspace().id())

    def model_by_name(
        self,
        model_name: str,
        model_version: str,
        workspace_id: int | None = None,
        workspace_name: str | None = None,
    ) -> ModelVersion:
        """Raises EntityNotFoundError."""
        return model.by_name(self, model_name, model_version, workspace.scope(workspace_id, workspace_name))

    def model_version_by_name(self, model_class: str, model_name: str) -> ModelVersion:
        """The version with the UUID `model_name` of the model called `model_class`. Raises EntityNotFoundError."""
        return self.model_by_name(model_class, model_name)

    def search_models(
        self,
        search_term: str | None = None,
        uploaded_time_start: datetime | None = None,
        uploaded_time_end: datetime | None = None,
        workspace_id: int | None = None,
        workspace_name: str | None = None,
    ) -> ModelVersionList:
        """Versions whose name, file, SHA or version has the term in it, whatever its case."""
        scope = workspace.scope(workspace_id, workspace_name)
        return model.search(self, scope, search_term, uploaded_time_start, uploaded_time_end)

    search_model_versions = search_models

    # Pipelines and deployments

    def build_pipeline(self, pipeline_name: str) -> Pipeline:
        """The pipeline of this name in the current workspace, with one more, empty, version."""
        return _pipeline_lookup.build(self, pipeline_name, self.get_current_workspace().id())

    def get_pipeline(self, name: str, version: str | None = None) -> Pipeline:
        """A pipeline of the current workspace, its local steps empty. Raises EntityNotFoundError."""
        return _pipeline_lookup.get(self, name, version, self.get_current_workspace().id())

    def pipelines_by_name(
        self, pipeline_name: str, workspace_id: int | None = None, workspace_name: str | None = None
    ) -> PipelineList:
        """Raises EntityNotFoundError when there is none."""
        return _pipeline_lookup.by_name(self, pipeline_name, workspace.scope(workspace_id, workspace_name))

    def list_pipelines(self, workspace_id: int | None = None, workspace_name: str | None = None) -> PipelineList:
        """Every pipeline the caller may see, or a workspace's."""
        return _pipeline_lookup.list_all(self, workspace.scope(workspace_id, workspace_name))

    def search_pipelines(
        self,
        search_term: str | None = None,
        deployed: bool | None = None,
        created_start: datetime | None = None,
        created_end: datetime | None = None,
        updated_start: datetime | None = None,
        updated_end: datetime | None = None,
        workspace_id: int | None = None,
        workspace_name: str | None = None,
    ) -> PipelineVersionList:
        """The versions of pipelines that fit; `deployed` None takes both."""
        scope = workspace.scope(workspace_id, workspace_name)
        created, updated = (created_start, created_end), (updated_start, updated_end)
        return _pipeline_lookup.search(self, scope, search_term, deployed, created, updated)

    search_pipeline_versions = search_pipelines

    def list_deployments(self) -> DeploymentList:
        """Every deployment the caller may see."""
        return deployment.list_all(self)

    def deployment_by_name(self, deployment_name: str) -> Deployment:
        """Raises EntityNotFoundError."""
        return deployment.get(self, {"name": deployment_name})

    # Inference logs, by topic

    def get_topic_name(self, pipeline_pk_id: int) -> str:
        """The topic of a pipeline's log; that of failed inferences ends in `-failures`. Raises EntityNotFoundError."""
        return logs.topic_of(self, pipeline_pk_id)

    def get_logs(
        self,
        topic: str,
        limit: int | None = None,
        start_datetime: datetime | None = None,
        end_datetime: datetime | None = None,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
        arrow: bool = False,
    ) -> Any:
        """One page of a topic, as `Pipeline.logs` gives it. Raises EntityNotFoundError."""
        query = logs.LogQuery(limit, start_datetime, end_datetime, dataset, dataset_exclude, dataset_separator)
        return logs.topic(self, topic, query, arrow)

    def sql(
        self, query: str, workspace: Workspace | str | None = None, *, as_: Literal["pandas", "arrow"] = "pandas"
    ) -> Any:
        """The rows of a SELECT over inference logs, which the platform runs with DuckDB.

        A table is `logs('pipeline-name')`, or `logs('pipeline-name', valid := false)` for failed inferences. Its
        columns have dots in their names, so they stand in double quotes: `select "in.count" from logs('rental')`. Rows
        come in no order unless the query says one.

        Args:
            workspace: of the pipelines that the query names; the current one by default.
            as_: "pandas" for a DataFrame, "arrow" for a Table.

        Raises:
            RequestRefused: the query does not run, and why; a pipeline is not there; or it would take more time, memory
                or rows than a query may.
            ValueError: `as_` is something else.
        """
        return sql.run(self, query, workspace, as_)

    def get_raw_logs(
        self,
        topic: str,
        start: datetime | None = None,
        end: datetime | None = None,
        limit: int = logs.DEFAULT_RAW_LIMIT,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
        verbose: bool = False,
    ) -> list[dict[str, Any]]:
        """Rows of a topic as dicts, metadata included: the newest first, or with dates the oldest of that time first.

        Raises:
            EntityNotFoundError: there is no such topic.
            ValueError: one date without the other, or a `limit` that is not between 1 and 1,000,000.
        """
        query = logs.LogQuery(None, start, end, dataset, dataset_exclude, dataset_separator)
        tables = logs.raw(self, topic, query, limit=limit, verbose=verbose)
        return [row for table in tables for row in table.to_pylist()]

    def get_raw_pipeline_inference_logs(
        self,
        topic: str,
        start: datetime | None = None,
        end: datetime | None = None,
        model_name: str | None = None,
        limit: int = logs.DEFAULT_RAW_LIMIT,
        verbose: bool = False,
    ) -> list[dict[str, Any]]:
        """As `get_raw_logs`; with `model_name`, the rows that this model answered last."""
        query = logs.LogQuery(None, start, end)
        tables = logs.raw(self, topic, query, limit=limit, model_name=model_name, verbose=verbose)
        return [row for table in tables for row in table.to_pylist()]

    def get_pipeline_inference_dataframe(
        self,
        topic: str,
        start: datetime | None = None,
        end: datetime | None = None,
        model_name: str | None = None,
        limit: int = logs.DEFAULT_RAW_LIMIT,
        verbose: bool = False,
    ) -> pd.DataFrame:
        """The same rows as a DataFrame; a column that only some of them have is missing (NaN) in the others."""
        import pandas as pd

        query = logs.LogQuery(None, start, end)
        tables = logs.raw(self, topic, query, limit=limit, model_name=model_name, verbose=verbose)
        return pd.concat([table.to_pandas() for table in tables], ignore_index=True) if tables else pd.DataFrame()

    # Connections

    def list_connections(self, limit: int | None = None, after: str | Connection | None = None) -> ConnectionList:
        """Every connection the caller may see, in order of creation, without details.

        Args:
            limit: at most so many, 1 to 10,000. A shorter answer is the last page.
            after: go on after this connection, or the one with this id.
        """
        return connection.list_all(self, limit=limit, after=after)

    def get_connection(self, name: str) -> Connection:
        """Raises EntityNotFoundError, or RequestRefused with the server's reason."""
        return connection.get(self, name)

    def create_connection(self, name: str, connection_type: str, details: Mapping[str, Any] | None) -> Connection:
        """Raises RequestRefused: the name is taken, the details are no dict, or the server says why else."""
        return connection.create(self, name, connection_type, details)

    def drivers(self) -> DriverList:
        """What connections of which types can do here: test, browse, read, write. Other types are stored only."""
        return connection_reports.drivers(self)

    # Jobs

    def list_jobs(
        self,
        unended: bool = False,
        kind: str | None = None,
        limit: int | None = 100,
        after: str | Job | None = None,
    ) -> JobList:
        """The jobs that the caller may see, newest first.

        Args:
            unended: only those that are pending or running.
            kind: "infer_batch", "infer_stream" or "replay".
            limit: how many at most; None lists all.
            after: go on after this job, or the one with this id.
        """
        return job.list_all(self, unended=unended, kind=kind, limit=limit, after=after)

    def get_job(self, job_id: str) -> Job:
        """The job with this id, or the only one whose id begins so; four characters are the least.

        Raises:
            EntityNotFoundError: the caller may see none.
            ValueError: the ids of several jobs begin so.
        """
        return job.get(self, job_id)

    # People

    def list_users(self) -> list[User]:
        return user.query(self)

    def get_user_by_email(self, email: str) -> User | None:
        return user.by_email(self, email)

    def get_email_by_id(self, id: str) -> str | None:
        """The address of a user, None when there is none of this id."""
        return next((found.email() for found in user.query(self, [id])), None)

    def invite_user(self, email: str, password: str | None = None) -> User:
        """The user of this address, invited if there was none. Raises UserLimitError."""
        return user.invite(self, email, password)

    def activate_user(self, email: str) -> None:
        """Raises EntityNotFoundError."""
        user.set_enabled(self, email, True)

    def deactivate_user(self, email: str) -> None:
        """Raises EntityNotFoundError; nobody deactivates himself."""
        user.set_enabled(self, email, False)

    def _upload_metadata(
        self,
        name: str,
        path: str | Path,
        framework: Framework,
        input_schema: pa.Schema | None,
        output_schema: pa.Schema | None,
        arch: Architecture | None,
        accel: AnyAcceleration | None,
        framework_config: FrameworkConfig | None,
    ) -> dict[str, Any]:
        return _upload.metadata_of(
            name,
            path,
            framework,
            input_schema,
            output_schema,
            *_upload.default_pair(self, arch, accel),
            framework_config,
            self.get_current_workspace().id(),
        )

    def _default_arch(self) -> Architecture:
        """Raises ValueError when the platform's facts have no `default_arch`."""
        if self._config is None:
            self._config = self._transport.get("/v1/api/config")
        if "default_arch" not in self._config:
            raise ValueError("The platform's config has no 'default_arch'. Pass arch=Architecture.X86 or ARM.")
        return Architecture(self._config["default_arch"])

    def _named_auth(self, auth_type: str) -> Auth:
        if auth_type == "none":
            return NoAuth()
        if auth_type == "token":
            token = read_credentials(os.environ.get("WALLAROO_SDK_CREDENTIALS"))
            return TokenAuth(token, self._transport.exchange, self._clock)
        raise AuthError(
            f"This release has no login of type '{auth_type}'. Use auth_type='token' with WALLAROO_SDK_CREDENTIALS, "
            "or leave endpoint and auth_type out to use the platform of this machine."
        )

    def _log_in(self, auth: Auth) -> None:
        """Prove the login now, so that a wrong token is noticed here and not in the middle of work."""
        try:
            auth.auth_header()
        except BaseException:
            self.close()
            raise
        self._transport.auth = auth


def _login_given(auth_type: str | None, environ: Mapping[str, str]) -> str | None:
    """Where a login comes from, in words; None when there is none."""
    if auth_type:
        return "An auth_type is given"
    variables = ("WALLAROO_SDK_AUTH_TYPE", "WALLAROO_SDK_CREDENTIALS")
    return next((f"{name} is set" for name in variables if environ.get(name)), None)


_Workspace = workspace.Workspace
