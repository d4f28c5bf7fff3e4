"""Deployments: pipelines that take inferences."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wallaroo import _wait, metrics
from wallaroo._endpoint import InferenceEndpoint
from wallaroo._html import ObjectList, Row, fields, show_time, text_fields
from wallaroo.model_config import ModelConfig
from wallaroo.object import (
    CommunicationError,
    DeploymentError,
    EntityNotFoundError,
    Object,
    WaitForDeployError,
    WaitForError,
    WallarooAPIError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from wallaroo.client import Client
    from wallaroo.metrics import PipelineMetrics
    from wallaroo.model_version import ModelVersion

STATUS_TIMEOUT_S = 5.0
POLLS_WITH_ERROR = 2  # an error that is gone by the next look was none
_FAILED = "Deployment failed. See status for details."


class Deployment(Object):
    """What is wanted for one pipeline name; a redeploy updates it, and its id and address stay."""

    def __init__(self, client: Client, record: Mapping[str, Any]) -> None:
        super().__init__(client, record)
        self._inference = InferenceEndpoint(client, self.name(), self._fetch)

    def id(self) -> int:
        return int(self._get("id"))

    def name(self) -> str:
        return str(self._get("name"))

    def pipeline_name(self) -> str:
        return str(self._get("pipeline_name"))

    def deployed(self) -> bool:
        return bool(self._get("deployed"))

    def engine_config(self) -> dict[str, Any]:
        config: dict[str, Any] = self._get("engine_config")
        return config

    def model_configs(self) -> list[ModelConfig]:
        return [ModelConfig(self._client, record) for record in self._get("model_configs")]

    def pipeline_versions(self) -> list[str]:
        """The UUID of the version it is to serve, in a list."""
        version = self._get("pipeline_version")
        return [version] if version else []

    def deploy(self) -> Deployment:
        """Deploy the same version again; it serves afterwards."""
        request = {
            "deploy_id": self.name(),
            "engine_config": self.engine_config(),
            "pipeline_id": self._get("pipeline_id"),
            "pipeline_version_pk_id": self._get("pipeline_version_pk_id"),
        }
        start(self._client, self.name(), request, wait=True)
        return self._changed()

    def undeploy(self) -> Deployment:
        stop(self._client, {"deployment_id": self.id()}, self._get("label"))
        return self._changed()

    def status(self) -> dict[str, Any]:
        """Raises EntityNotFoundError when it is not deployed."""
        return status(self._client, self._get("label"))

    def metrics(self) -> PipelineMetrics:
        """As `Pipeline.metrics`."""
        return metrics.get(self._client, {"label": self._get("label")}, self.pipeline_name())

    def wait_for_running(self, timeout: float | None = None) -> Deployment:
        """Raises WaitForDeployError."""
        wait_until_serving(self._client, self._get("label"), self._get("generation"), timeout)
        return self._changed()

    def wait_for_undeployed(self) -> Deployment:
        """Raises WaitForError."""
        wait_until_gone(self._client, self._get("label"))
        return self._changed()

    def infer(self, tensor: Any, timeout: int | float | None = None, **dataset: Any) -> Any:
        """As `Pipeline.infer`."""
        return self._inference.infer(tensor, timeout, **dataset)

    def infer_from_file(
        self, filename: str | Path, data_format: str | None = None, timeout: int | float | None = None, **dataset: Any
    ) -> Any:
        """As `Pipeline.infer_from_file`."""
        return self._inference.infer_from_file(filename, data_format, timeout, **dataset)

    def replace_model(self, model_version: ModelVersion) -> Deployment:
        """Deploy a new version of the pipeline that has this one model as its step."""
        from wallaroo import _pipeline_lookup

        owner = _pipeline_lookup.get(self._client, self.pipeline_name(), None, self._get("workspace_id"))
        owner.clear().add_model_step(model_version).deploy(deployment_config=self.engine_config())
        return self._changed()

    def replace_configured_model(self, config: ModelConfig) -> Deployment:
        from wallaroo import model_version

        return self.replace_model(model_version.by_id(self._client, config.model_version_id()))

    def url(self) -> str:
        """The replicas' own address while they run, the server's forwarding path otherwise."""
        self.rehydrate()
        self._inference.learn(self._record)
        return str(self._get("url") or self._get("external_url"))

    def internal_url(self) -> str:
        return self.url()

    def _changed(self) -> Deployment:
        self._inference.forget()
        self.rehydrate()
        return self

    def _fetch(self) -> Mapping[str, Any]:
        record: Mapping[str, Any] = self._client._transport.post("/v1/api/deployments/get", {"id": self._record["id"]})
        return record

    def _rows(self) -> Sequence[Row]:
        return [
            ("name", self.name()),
            ("id", self.id()),
            ("deployed", self.deployed()),
            ("pipeline_version", ", ".join(self.pipeline_versions())),
            ("created", show_time(self._client, self._time("created_at"))),
            ("last_updated", show_time(self._client, self._time("updated_at"))),
        ]

    def _repr_html_(self) -> str:
        return fields(self._rows())

    def __repr__(self) -> str:
        return text_fields("Deployment", self._rows())


class DeploymentList(ObjectList[Deployment]):
    columns = ("name", "id", "deployed", "pipeline_version", "created", "last_updated")
    empty = "(no deployments)"

    def _row(self, item: Deployment) -> Sequence[Any]:
        return [value for _, value in item._rows()]


def list_all(client: Client) -> DeploymentList:
    records = client._transport.post("/v1/api/deployments/list", {})["deployments"]
    return DeploymentList(client, (Deployment(client, record) for record in records))


def get(client: Client, key: Mapping[str, Any]) -> Deployment:
    """By `{"id"}` or `{"name", "workspace_id"?}`. Raises EntityNotFoundError."""
    try:
        return Deployment(client, client._transport.post("/v1/api/deployments/get", key))
    except WallarooAPIError as error:
        if error.code == 404:
            text = f"Deployment not found: {dict(key)}. list_deployments() shows those that you may see."
            raise EntityNotFoundError("Deployment", dict(key), text) from None
        raise


def status(client: Client, label: str) -> dict[str, Any]:
    """What runs of a deployment just now. Raises EntityNotFoundError when it is not deployed."""
    try:
        answer: dict[str, Any] = client._transport.post(
            "/v1/api/status/get_deployment", {"name": label}, timeout_s=STATUS_TIMEOUT_S
        )
    except WallarooAPIError as error:
        if error.code == 404:
            raise EntityNotFoundError("Deployment", {"name": label}) from None
        raise
    return answer


def start(client: Client, name: str, request: Mapping[str, Any], wait: bool) -> int:
    """Deploy; with `wait`, return when the new version answers. Returns the deployment's id.

    Raises:
        DeploymentError: the platform refuses it.
        WaitForDeployError: the new version did not come up; one that served before goes on serving.
    """
    try:
        answer = client._transport.post("/v1/api/pipelines/deploy", request)
    except WallarooAPIError as error:
        raise DeploymentError(f"Failed to deploy. {error.error}") from None
    if not answer:
        raise DeploymentError("Failed to deploy.")
    if wait:
        wait_until_serving(client, f"{name}-{answer['id']}", answer["generation"])
    else:
        client._screen.write(f"Deployment initiated for {name}. Please check pipeline status.\n")
    return int(answer["id"])


def stop(client: Client, request: Mapping[str, Any], label: str | None) -> None:
    """Undeploy, and return when nothing of it runs; harmless when nothing does."""
    screen = client._screen
    if label:
        screen.write(f"Waiting for undeployment - this will take up to {client.timeout:g}s ")
    client._transport.post("/v1/api/pipelines/undeploy", request, timeout_s=client.timeout + STATUS_TIMEOUT_S)
    if label:
        _wait_until_gone(client, label)


def wait_until_serving(client: Client, label: str, generation: int, timeout_s: float | None = None) -> None:
    """Return once `generation`, or a later one, serves; the next inference then opens a new connection to it.

    Raises:
        WaitForDeployError: it failed, or did not come up in time; carries the last status.
    """
    limit_s = client.timeout if timeout_s is None else timeout_s
    screen, watch = client._screen, Watch(generation)
    waiting = _wait.LongWait(
        screen, client._clock, f"Deployment '{label}' is starting - this will take up to {limit_s:g}s."
    )

    def look() -> bool | None:
        waiting.goes_on()
        return watch.on(_status_or_none(client, label)) or None

    if not look():
        screen.write(f"Waiting for deployment - this will take up to {limit_s:g}s ")
        if not _wait.poll(look, timeout_s=limit_s, clock=client._clock, screen=screen):
            screen.write("\n")
            raise WaitForDeployError(watch.in_words(limit_s), watch.status)
    screen.write(" ok\n")
    waiting.is_over(f"Deployment '{label}' is running")
    client._transport.drop_inference_connections()


def wait_until_gone(client: Client, label: str) -> None:
    """Raises WaitForError when it still runs after the client's timeout."""
    client._screen.write(f"Waiting for undeployment - this will take up to {client.timeout:g}s ")
    _wait_until_gone(client, label)


class Watch:
    """Decides from one status after another whether a generation serves.

    The top status is not enough: while a new version rolls in, the old one is `Running` all along.
    """

    def __init__(self, generation: int) -> None:
        self.status: dict[str, Any] | None = None
        self._generation = generation
        self._errors = 0

    def on(self, status: dict[str, Any] | None) -> bool:
        """Whether the generation serves. None: the platform did not say just now.

        Raises:
            WaitForDeployError: it cannot come up, and the version before goes on serving.
        """
        if status is None:
            return False
        self.status = status
        target, running = status["target"], status["status"] == "Running"
        if target["generation"] < self._generation:
            return False
        if target["serving"] and running:
            return True
        self._errors = self._errors + 1 if target.get("error") else 0
        if self._errors > POLLS_WITH_ERROR and running and target["generation"] > 1:
            raise WaitForDeployError(f"{_FAILED} {target['error']} The version deployed before keeps serving.", status)
        return False

    def in_words(self, limit_s: float) -> str:
        """Why the wait ended without it."""
        error = (self.status or {}).get("target", {}).get("error")
        return f"{_FAILED} {error or f'It does not serve after {limit_s:g} seconds.'}"


def _wait_until_gone(client: Client, label: str) -> None:
    last: list[dict[str, Any]] = []

    def look() -> bool | None:
        try:
            last[:] = [status(client, label)]
        except EntityNotFoundError:
            return True
        except CommunicationError:
            return None
        return None

    if not _wait.poll(look, timeout_s=client.timeout, clock=client._clock, screen=client._screen):
        client._screen.write("\n")
        raise WaitForError(f"Undeployment did not finish within {client.timeout:g} seconds.", last[0] if last else None)
    client._screen.write(" ok\n")


def _status_or_none(client: Client, label: str) -> dict[str, Any] | None:
    try:
        return status(client, label)
    except (EntityNotFoundError, CommunicationError):
        return None  # not there yet, or the server is away for a moment
    except WallarooAPIError as error:
        if error.code < 500:
            raise
        return None
