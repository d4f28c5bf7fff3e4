"""Pipelines: steps that are edited here, stored as versions there, and deployed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wallaroo import (
    _api_spec,
    _batch,
    _pipeline_views,
    _stream_inference,
    _times,
    deployment,
    deployment_config,
    engine_config,
    export,
    logs,
    metrics,
    model,
    pipeline_version,
    replay,
)
from wallaroo._endpoint import InferenceEndpoint
from wallaroo._html import Row, fields, text_fields
from wallaroo._names import check_dns_name
from wallaroo._pipeline_views import PipelineList
from wallaroo._step_editing import StepEditing
from wallaroo._steps import ModelStep, Step, from_json
from wallaroo._wait import quiet_when_interrupted
from wallaroo.object import CommunicationError, EntityNotFoundError, Object, WallarooAPIError
from wallaroo.pipeline_version import PipelineVersion, PipelineVersionList

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import httpx

    from wallaroo.client import Client
    from wallaroo.connection import Connection
    from wallaroo.engine_config import AnyAcceleration, Architecture
    from wallaroo.job import Job
    from wallaroo.metrics import PipelineMetrics
    from wallaroo.model_version import ModelVersion
    from wallaroo.replay import Replay, ReplayList
    from wallaroo.workspace import Workspace

__all__ = ["ModelStep", "Pipeline", "PipelineList"]

_ROOT = "/v1/api/pipelines"


class Pipeline(StepEditing, Object):
    """Made from a PipelineEntry of the wire.

    `steps()` are local: empty after `get_pipeline`, changed by `add_…`, `replace_with_…`, `remove_step` and `clear`,
    stored as a new version by `deploy` and `create_version`. The table shows what the platform has: the steps of the
    last deployment, not the edited ones.
    """

    def __init__(self, client: Client, entry: Mapping[str, Any], version: PipelineVersion | None = None) -> None:
        super().__init__(client, entry)
        self._steps: list[Step] = []
        self._version = version
        self._inference = InferenceEndpoint(client, self.name(), self._deployment_record)

    def id(self) -> int:
        return int(self._own("id"))

    def name(self) -> str:
        return str(self._own("name"))

    def owner_id(self) -> str:
        return str(self._own("owner_id"))

    def create_time(self) -> datetime | None:
        return _times.parse(self._own("created_at"))

    def last_update_time(self) -> datetime | None:
        """Moves at every new version and every change of the deployment."""
        self.rehydrate()
        return _times.parse(self._own("updated_at"))

    def workspace(self) -> Workspace:
        from wallaroo.workspace import Workspace

        return Workspace(self._client, self._get("workspace"))

    def versions(self) -> PipelineVersionList:
        """Newest first."""
        request = {"pipeline_id": self.name(), "workspace_id": self._workspace_id}
        answer = self._client._transport.post(f"{_ROOT}/list_pipeline_versions", request)
        return pipeline_version.from_entries(self._client, answer["pipeline_versions"])

    def tags(self) -> list[Any]:
        return list(self._get("tags"))

    def definition(self) -> str:
        """The local steps as text."""
        return json.dumps([step.to_json() for step in self._steps])

    def create_version(self) -> PipelineVersion:
        """Store the local steps as a new version, without deploying it."""
        steps = [step.to_json() for step in self._steps]
        created = pipeline_version.create(
            self._client, self.name(), self._workspace_id, {"id": self.name(), "steps": steps}
        )
        self.rehydrate()
        return PipelineVersion(
            self._client,
            {"pk_id": created["pipeline_variant_pk_id"], "version": created["pipeline_variant_version"]},
            self._get("workspace"),
        )

    def get_pipeline_configuration(self, version: str | None = None) -> dict[str, Any]:
        """The stored definition of a version, of the newest by default. Raises EntityNotFoundError."""
        stored = self.versions()
        wanted = stored[0].name() if version is None and stored else version
        for candidate in stored:
            if candidate.name() == wanted:
                return candidate.definition()
        raise EntityNotFoundError("PipelineVersion", {"pipeline": self.name(), "version": version})

    def deploy(
        self,
        pipeline_name: str | None = None,
        deployment_config: Mapping[str, Any] | None = None,
        wait_for_status: bool = True,
    ) -> Pipeline:
        """Store the steps as a new version and serve it; the next inference reaches it.

        Without local steps, those of the version given to `get_pipeline`, or of the newest version that has any, are
        taken. On a running pipeline the address stays, and the version before serves until the new one does.

        Raises:
            DeploymentError: the platform refuses it, for instance because a model is not ready.
            WaitForDeployError: the new version did not come up.
            InvalidAccelerationError: the config has an architecture and an acceleration that do not go together.
            TypeError: the config is none, for instance a builder without `.build()`.
        """
        name = self.name() if pipeline_name is None else check_dns_name(pipeline_name)
        self._steps = self._steps or self._stored_steps()
        config = self._complete_config(deployment_config or {})
        version = self.create_version()
        request = {
            "deploy_id": name,
            "engine_config": config,
            "pipeline_id": self.id(),
            "pipeline_version_pk_id": version.id(),
            "model_ids": list(dict.fromkeys(version.id() for version in self._models())),
        }
        try:
            deployment.start(self._client, name, request, wait_for_status)
        finally:
            self._inference.forget()
            self._inference.learn(self._deployment_record())
        return self

    def undeploy(self) -> Pipeline:
        """Free what the deployment holds; makes no version. Harmless when nothing is deployed."""
        record = self._deployment_record()
        label = record["label"] if record and record["deployed"] else None
        deployment.stop(self._client, {"pipeline_id": self.id()}, label)
        self._inference.forget()
        self.rehydrate()
        return self

    def status(self) -> dict[str, Any]:
        """What runs of it just now; a dict that says so when it is not deployed."""
        record = self._deployment_record()
        if record:
            try:
                return deployment.status(self._client, record["label"])
            except EntityNotFoundError:
                pass  # undeployed: said below
        return {"status": f"Pipeline {self.name()} is not deployed"}

    def metrics(self) -> PipelineMetrics:
        """What its deployment has counted: a table per step, `.to_pandas()` and `.plot()`.

        Raises:
            RuntimeError: the pipeline is not deployed.
        """
        return metrics.get(self._client, {"pipeline_id": self.id()}, self.name())

    def url(self) -> str:
        """Where it takes inferences: the replicas' own address while they run. Raises RuntimeError before a deploy."""
        record = self._deployment_record()
        if not record:
            raise self._no_url()
        self._inference.learn(record)
        return str(record["url"] or record["external_url"])

    def get_external_url(self) -> str:
        """The address on the server, which forwards to the replicas."""
        request = {"workspace_id": self._workspace_id, "pipeline_name": self.name()}
        return str(self._client._transport.post("/v1/api/admin/get_pipeline_external_url", request)["url"])

    def generate_api_spec(self, path: str | Path | None = None) -> Path:
        """Write the inference endpoint as OpenAPI 3.1.1, with the columns of the deployed models' schemas.

        Args:
            path: the file, or an existing folder for `{pipeline}.yaml`; the working folder by default.

        Returns:
            The file written.

        Raises:
            RuntimeError: the pipeline was never deployed, and so has no endpoint yet.
        """
        record = self._deployment_record()
        if not record:
            raise self._no_url()
        definition = self.get_pipeline_configuration(record["pipeline_version"])
        models = [self._stored_model(each) for each in pipeline_version.first_references(definition)]
        inputs = models[0].config().input_schema() if models else None
        outputs = models[-1].config().output_schema() if models else None
        version = str(record["pipeline_version"])
        spec = _api_spec.document(self.name(), version, self.get_external_url(), inputs, outputs)
        target = Path(path or ".")
        if target.is_dir():
            target /= f"{self.name()}.yaml"
        target.write_text(_api_spec.as_text(spec), encoding="utf-8")
        return target

    def infer(
        self,
        tensor: Any,
        timeout: int | float | None = None,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
    ) -> Any:
        """Predictions for rows.

        Args:
            tensor: a pandas DataFrame or an Arrow Table, one row per prediction. The legacy form, a dict of columns as
                lists, is sent as it is, and its answer comes back as it is.
            timeout: seconds, 15 by default.
            dataset: groups or columns of the answer, all by default; `"metadata"` must be named to be had.
            dataset_exclude: groups or columns to leave out.
            dataset_separator: text between the levels of a column's name, "." by default; "" gives nested values.

        Returns:
            The same kind as `tensor`, rows in the same order; a DataFrame's columns are time, in.*, out.*, the rest.

        Raises:
            InferenceError: the engine or the model refuses it, and says why.
            InferenceTimeoutError: no answer in time, or nothing listens.
            RuntimeError: the pipeline is not deployed.
            TypeError, ValueError: `tensor` cannot be sent, or the answer cannot be read.
        """
        return self._inference.infer(tensor, timeout, dataset, dataset_exclude, dataset_separator)

    def infer_from_file(
        self,
        filename: str | Path,
        data_format: str | None = None,
        timeout: int | float | None = None,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
    ) -> Any:
        """`infer` on a `.json` file of records or an `.arrow` file; `data_format` says what another file is."""
        return self._inference.infer_from_file(
            filename,
            data_format,
            timeout,
            dataset=dataset,
            dataset_exclude=dataset_exclude,
            dataset_separator=dataset_separator,
        )

    async def async_infer(
        self,
        tensor: Any,
        async_client: httpx.AsyncClient,
        timeout: int | float | None = None,
        retries: int = 1,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
    ) -> Any:
        """`infer` over a client of the caller's. A lost connection is tried again `retries` times."""
        return await self._inference.async_infer(
            tensor, async_client, timeout, retries, dataset, dataset_exclude, dataset_separator
        )

    async def parallel_infer(
        self,
        tensor: Any,
        batch_size: int | None = 1,
        timeout: int | float | None = None,
        num_parallel: int | None = None,
        retries: int = 1,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
    ) -> Any:
        """`infer` on batches of rows, `num_parallel` at a time (twice the replicas by default), joined in order.

        The rows of a batch that failed come back as inputs with the reason in a column `error`.

        Raises:
            ValueError: `tensor` is neither a DataFrame nor a Table, or `batch_size` is no positive number.
        """
        return await self._inference.parallel_infer(
            tensor,
            batch_size,
            timeout,
            num_parallel,
            retries,
            dataset=dataset,
            dataset_exclude=dataset_exclude,
            dataset_separator=dataset_separator,
        )

    def logs(
        self,
        limit: int | None = None,
        start_datetime: datetime | None = None,
        end_datetime: datetime | None = None,
        valid: bool | None = None,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
        arrow: bool = False,
    ) -> Any:
        """One page of the inference log: the newest rows first, or with dates, the oldest of that time first.

        Args:
            limit: rows, 100 without dates; at most 10,000 are given, and `export_logs` gives more.
            start_datetime, end_datetime: both or none, aware; a naive one counts as UTC, with a warning.
            valid: False reads the inferences that failed.
            dataset, dataset_exclude, dataset_separator: as in `infer`.
            arrow: give an Arrow Table instead of a DataFrame.

        Raises:
            ValueError: one date without the other, or a `limit` below 1.
        """
        query = logs.LogQuery(limit, start_datetime, end_datetime, dataset, dataset_exclude, dataset_separator)
        return logs.read(self._client, self._topic(valid), query, self._last_inference_ms(valid), arrow)

    def challenger_logs(
        self,
        limit: int | None = None,
        start_datetime: datetime | None = None,
        end_datetime: datetime | None = None,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
        arrow: bool = False,
    ) -> Any:
        """What challengers gave for which answers did not wait (`shadow_wait(False)`); read as `logs` is.

        A row has `in.*` and `out_{challenger}.*`, under the time of the answer; with `dataset=["*", "metadata"]` also
        `metadata.request_id`, by which it fits a row of `logs`. It comes once the challengers are done.
        """
        query = logs.LogQuery(limit, start_datetime, end_datetime, dataset, dataset_exclude, dataset_separator)
        topic = f"{self._topic(None).removesuffix('-inference')}-challengers"
        return logs.read(self._client, topic, query, None, arrow)

    def export_logs(
        self,
        directory: str | Path = "logs",
        file_prefix: str | None = None,
        data_size_limit: str = "100MiB",
        limit: int | None = None,
        start_datetime: datetime | None = None,
        end_datetime: datetime | None = None,
        valid: bool | None = None,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
        arrow: bool = False,
    ) -> None:
        """Write the log to `{directory}/{file_prefix}-{n}.json` (JSON Lines) or `.arrow`, one file per schema.

        Without dates the newest rows come first, with them the oldest. It ends at `limit` rows, or with the page that
        reaches `data_size_limit`; a warning then says so. Files of these names are overwritten.

        Raises:
            ValueError: one date without the other, or a `data_size_limit` that is none.
        """
        query = logs.LogQuery(limit, start_datetime, end_datetime, dataset, dataset_exclude, dataset_separator)
        where = export.Export(directory, file_prefix or self.name(), data_size_limit, arrow)
        export.run(self._client, self._topic(valid), query, self._last_inference_ms(valid), where)

    def infer_batch(
        self,
        *,
        source: Connection,
        sink: Connection,
        table: str,
        query: str = "",
        map: Mapping[str, str | Sequence[str]] | None = None,
        keys: Sequence[str] = (),
        mode: str = "append",
        outputs: Mapping[str, str] | None = None,
        lineage: bool = False,
        max_rejects: float = 1000,
        parameters: Sequence[Any] = (),
        version: PipelineVersion | str | None = None,
    ) -> Job:
        """Answer every row of a source on the platform, and write the answers to a table of another connection, or of
        the same. It goes on when this notebook is closed, and after a restart of the platform.

        Args:
            source, query: where rows come from: SQL, a table, a path, whatever the type reads; "" means what the
                details name.
            sink, table: where answers go. A table that is not there is made.
            map: by column of the model the column of the source, or a list of columns that are its list. Columns of the
                same name need none.
            keys: columns that tell rows apart, which are written beside the answers. With them a database is read in
                their order, and a job that was interrupted goes on without a lost or doubled row.
            mode: "append", "replace" (what was in the table goes), or "upsert" (rows of the same `keys` are replaced).
            outputs: by column of the table the column of the answer, such as `{"week": "forecast[0]"}`; by default each
                one under its own name.
            lineage: write `job_id`, `pipeline_version` and `model_version` in every row.
            max_rejects: with more rows rejected, the job ends at once and has failed: how many, or as a float below 1
                which share, such as 0.05. Rejected rows stop no others otherwise; `job.rejects()` has them with their
                reasons. A job that could do no row at all has failed, too.
            parameters: bound to the query's placeholders, never formatted in.
            version: one of this pipeline's versions or its name; by default the deployed one, else that of the local
                steps, else the newest.

        Raises:
            RequestRefused: the platform refuses it, and says why.
            TypeError: a connection is none, or `keys` is a text.
        """
        if version is None and self._steps and not (self._deployment_record() or {}).get("deployed"):
            version = self.create_version()
        name = version.name() if isinstance(version, PipelineVersion) else version
        return _batch.start(
            self._client,
            self.id(),
            name,
            source=source,
            query=query,
            parameters=parameters,
            sink=sink,
            table=table,
            mode=mode,
            map=map,
            keys=keys,
            outputs=outputs,
            lineage=lineage,
            max_rejects=max_rejects,
        )

    def infer_stream(
        self,
        source: Connection,
        topic: str,
        sink: Connection,
        into: str,
        group: str | None = None,
        dead_letter: str | tuple[Connection, str] | None = None,
        keep: Sequence[str] = (),
        *,
        mode: str | None = None,
        max_messages: int | None = None,
        max_rejects: int | None = None,
        stop_when_idle_s: float | None = None,
        version: PipelineVersion | str | None = None,
    ) -> Job:
        """Answer the messages of a topic on the platform, as they come, until the job is cancelled.

        A message is a JSON object with the pipeline's columns, an array of such, or Arrow. Its prediction has its key
        and its headers. Messages that wait are asked about together; each is committed once its prediction is there.

        Args:
            source, topic: a connection to a broker, and where the messages are.
            sink, into: a broker with a topic, or a database with a table, which is made when it is not there.
            group: the consumer group; those of one group share the messages. By default one of this pipeline.
            dead_letter: where messages go that cannot be answered, with the reason: a topic of the source, or
                `(connection, topic)`. None: the job keeps them (`job.rejects()`), and stops when there are many.
            keep: fields of a message that its prediction has, too.
            mode: of a table: "append" (default), or "upsert" on `bettong_source`.
            max_messages: the most that are asked about together; 500 by default.
            max_rejects: how many messages the job keeps; 1,000 by default.
            stop_when_idle_s: end once no message came for so many seconds.
            version: one of this pipeline's versions or its name; by default the deployed one, else the newest.

        Raises:
            RequestRefused: the platform refuses it, and says why.
            TypeError: a connection is none, or `keep` is a text.
        """
        return _stream_inference.start(
            self._client,
            self.id(),
            source=source,
            topic=topic,
            sink=sink,
            into=into,
            group=group,
            dead_letter=dead_letter,
            keep=keep,
            version=version,
            mode=mode,
            max_messages=max_messages,
            max_rejects=max_rejects,
            stop_when_idle_s=stop_when_idle_s,
        )

    @quiet_when_interrupted
    def replay(
        self,
        start: datetime,
        end: datetime,
        version: PipelineVersion | str | None = None,
        limit: int | None = None,
        tolerance: float = 1e-6,
        *,
        failed: bool = False,
        inputs: bool = True,
        wait: bool = True,
    ) -> Replay:
        """Run logged inputs through another version, which no caller sees, and compare its answers with those given.

        The platform starts the version beside the deployment for as long as it takes. Nothing is logged.

        Args:
            start, end: of the log; `start` is included, `end` is not. A naive one counts as UTC, with a warning.
            version: one of this pipeline's versions or its name; by default the newest one that has a model and is not
                the deployed one. The deployed one may be named: it shows what differs by itself.
            limit: take the oldest so many rows.
            tolerance: numbers are equal when |after − before| <= tolerance + tolerance · |before|.
            failed: replay failed requests too, and see whether they pass now.
            inputs: keep the inputs beside the answers.
            wait: return when it has ended; else at once, with a Replay to `wait()` for.

        Returns:
            `.agreement`, `.rows()`, `.plot()`, `.to_parquet(path)`.

        Raises:
            JobError: it failed; for instance because no logged row has the inputs that the version takes.
            RequestRefused: the platform refuses it, and says why.
        """
        named = version.name() if isinstance(version, PipelineVersion) else version
        if named is not None and not isinstance(named, str):
            raise TypeError(f"version is a {type(version).__name__}. Give one of versions(), or its name.")
        request = {
            "pipeline_id": self.id(),
            "pipeline_version": named,
            "start": replay.moment("start", start),
            "end": replay.moment("end", end),
            "limit": limit,
            "tolerance": tolerance,
            "failed": failed,
            "inputs": inputs,
        }
        logs.wait_until_logged(self._client, self._topic(None), self._last_inference_ms(None))
        return replay.start(self._client, request, wait)

    def replays(self) -> ReplayList:
        """The replays of this pipeline that there are, newest first, also those of other people."""
        return replay.of_pipeline(self._client, self.id(), self._workspace_id)

    def get_topic_name(self) -> str:
        request = {"workspace_id": self._workspace_id, "pipeline_name": self.name()}
        return str(self._client._transport.post("/v1/api/plateau/get_pipeline_topic_name", request)["topic_name"])

    def get_sidekick_pod_logs(
        self,
        sidekick_name: str,
        start_datetime: datetime | None = None,
        end_datetime: datetime | None = None,
        limit: int = 100,
    ) -> list[str]:
        """Lines that a model's own code wrote, of the runtime that `status()` lists under this name."""
        request = {
            "pipeline_name": self.name(),
            "sidekick_name": sidekick_name,
            "workspace_name": self._get("workspace")["name"],
            "start_datetime": start_datetime and _times.as_utc_text(start_datetime),
            "end_datetime": end_datetime and _times.as_utc_text(end_datetime),
            "limit": limit,
        }
        return list(self._client._transport.post(f"{_ROOT}/get_sidekick_pod_logs", request)["logs"])

    @property
    def _workspace_id(self) -> int:
        return int(self._get("workspace")["id"])

    def _own(self, name: str) -> Any:
        return self._get("pipeline")[name]

    def _no_url(self) -> RuntimeError:
        return RuntimeError(f"Pipeline {self.name()} has not been deployed and has no url. Call deploy() first.")

    def _topic(self, valid: bool | None) -> str:
        topic = str(self._get("plateau_topic"))
        return f"{topic.removesuffix('-inference')}-failures" if valid is False else topic

    def _last_inference_ms(self, valid: bool | None) -> int | None:
        if valid is False:
            return None
        return self._client._last_inference_ms.get((self._workspace_id, self.name()))

    def _deployment_record(self) -> Mapping[str, Any] | None:
        self.rehydrate()
        record: Mapping[str, Any] | None = self._get("deployment")
        return record

    def _stored_steps(self) -> list[Step]:
        stored = [self._version] if self._version else self.versions()
        for version in stored:
            definition = version.definition()
            if any(pipeline_version.references(definition)):
                return [from_json(document, self._stored_model) for document in definition["steps"]]
        return []

    def _stored_model(self, reference: Mapping[str, str]) -> ModelVersion:
        return model.get(self._client, reference["name"], reference["version"], self._workspace_id)

    def _models(self) -> list[ModelVersion]:
        """Those that the local steps name, in order."""
        return [version for step in self._steps for version in step.models]

    def _complete_config(self, config: Mapping[str, Any]) -> deployment_config.DeploymentConfig:
        arch: Architecture | None = None
        accel: AnyAcceleration | None = None
        if models := self._models():
            arch, accel = models[0].arch(), models[0].accel()
        complete = deployment_config.complete(
            config, arch or self._client._default_arch(), accel or engine_config.Acceleration._None
        )
        return complete.guarantee_workspace_id(self._client.get_current_workspace().id())

    def _fetch(self) -> Mapping[str, Any]:
        own, workspace = self._record["pipeline"], self._record["workspace"]
        request = {"pipeline_name": own["name"], "workspace_id": workspace["id"]}
        entry: Mapping[str, Any] = self._client._transport.post(f"{_ROOT}/get_pipeline_by_name", request)
        return entry

    def _current_rows(self) -> list[Row]:
        try:
            self.rehydrate()
        except (CommunicationError, WallarooAPIError):
            return list({**_pipeline_views.rows(self._record), "deployed": "(unknown)"}.items())
        return list(_pipeline_views.rows(self._record).items())

    def _repr_html_(self) -> str:
        return fields(self._current_rows(), name_tag="th")

    def __repr__(self) -> str:
        return text_fields("Pipeline", self._current_rows())
