"""One uploaded model file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wallaroo import engine_config, model_config
from wallaroo._html import ObjectList, Row, fields, show_time, text_fields
from wallaroo.engine_config import Architecture
from wallaroo.model_config import ModelConfig
from wallaroo.object import Object, RequiredAttributeMissing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    import pyarrow as pa

    from wallaroo.client import Client
    from wallaroo.dynamic_batching_config import DynamicBatchingConfig
    from wallaroo.engine_config import AnyAcceleration
    from wallaroo.pipeline import Pipeline
    from wallaroo.workspace import Workspace

TERMINAL = ("ready", "error")


class ModelVersion(Object):
    """A version of a model. Its status moves until it is `ready` or `error`; the rest stays."""

    def id(self) -> int:
        return int(self._get("id"))

    def uid(self) -> str:
        """The key of this version in deployment configs and logs."""
        return f"{self.name()}-{self.id()}"

    def name(self) -> str:
        return str(self._get("name"))

    def version(self) -> str:
        return str(self._file("version"))

    def models_pk_id(self) -> int:
        return int(self._get("models_pk_id"))

    def sha(self) -> str:
        """SHA-256 of the uploaded bytes, 64 hexadecimal digits."""
        return str(self._file("sha"))

    def file_name(self) -> str:
        return str(self._file("file_name"))

    def status(self) -> str:
        """Asked for again at each call until it is final."""
        if self._get("status") not in TERMINAL:
            self.rehydrate()
        return str(self._get("status"))

    def error_summary(self) -> str | None:
        """What broke, in words, when the status is `error`."""
        self.status()
        summary: str | None = self._get("error_summary")
        return summary

    def image_path(self) -> str | None:
        path: str | None = self._get("image_path")
        return path

    def arch(self) -> Architecture:
        return Architecture(self._get("arch") or Architecture.X86)

    def accel(self) -> AnyAcceleration:
        return engine_config.from_wire(self._get("accel"))

    def last_update_time(self) -> datetime | None:
        return self._time("updated_at")

    def tags(self) -> list[tuple[int, str]]:
        """Pairs of id and text; this release has no tags, so there are none."""
        return []

    def workspace(self) -> Workspace:
        from wallaroo.workspace import Workspace

        return Workspace(self._client, self._get("workspace"))

    def config(self) -> ModelConfig:
        return ModelConfig(self._client, self._get("config"))

    def configure(
        self,
        runtime: str | None = None,
        tensor_fields: Sequence[str] | None = None,
        filter_threshold: float | None = None,
        input_schema: pa.Schema | None = None,
        output_schema: pa.Schema | None = None,
        batch_config: str | None = None,
        dynamic_batching_config: DynamicBatchingConfig | None = None,
    ) -> ModelVersion:
        """Keep one more configuration, the one in force from now on. `runtime` is taken for old notebooks' sake."""
        config = model_config.configure(
            self._client,
            self,
            tensor_fields,
            filter_threshold,
            input_schema,
            output_schema,
            batch_config,
            dynamic_batching_config,
        )
        self._record["config"] = config._record
        return self

    def get_upload_logs(self, limit: int | None = None) -> ModelUploadLogs:
        """The lines of the packaging log, the last `limit` of them."""
        request = {"model_version_id": self.id(), **({} if limit is None else {"lines": limit})}
        return ModelUploadLogs(self._client._transport.post("/v1/api/models/get_upload_logs", request)["logs"])

    def deploy(self, pipeline_name: str, deployment_config: Mapping[str, Any] | None = None) -> Pipeline:
        """A pipeline of this one step, deployed."""
        pipeline = self._client.build_pipeline(pipeline_name)
        return pipeline.add_model_step(self).deploy(deployment_config=deployment_config)

    def _file(self, name: str) -> Any:
        info = self._get("file_info")
        if name not in info:
            raise RequiredAttributeMissing("ModelVersion", name)
        return info[name]

    def _fetch(self) -> Mapping[str, Any]:
        request = {"model_version_id": self._record["id"]}
        answer = self._client._transport.post("/v1/api/models/get_version_by_id", request)["model_version"]
        return {**answer["model_version"], "config": answer["config"]}

    def _workspace_rows(self) -> tuple[object, object]:
        workspace = self._get("workspace")
        return workspace["id"], workspace["name"]

    def _rows(self) -> Sequence[Row]:
        status = self.status()
        workspace_id, workspace_name = self._workspace_rows()
        return [
            ("Name", self.name()),
            ("Version", self.version()),
            ("File Name", self.file_name()),
            ("SHA", self.sha()),
            ("Status", status),
            ("Error Summary", self.error_summary()),
            ("Image Path", self.image_path()),
            ("Architecture", self.arch()),
            ("Acceleration", self.accel()),
            ("Updated At", show_time(self._client, self.last_update_time())),
            ("Workspace id", workspace_id),
            ("Workspace name", workspace_name),
        ]

    def _repr_html_(self) -> str:
        return fields(self._rows())

    def __repr__(self) -> str:
        return text_fields("ModelVersion", self._rows())


class ModelVersionList(ObjectList[ModelVersion]):
    columns = (
        "name",
        "version",
        "file_name",
        "image_path",
        "arch",
        "accel",
        "last_update_time",
        "workspace_id",
        "workspace_name",
    )
    empty = "(no model versions)"

    def _row(self, item: ModelVersion) -> Sequence[Any]:
        return (
            item.name(),
            item.version(),
            item.file_name(),
            item.image_path(),
            item.arch(),
            item.accel(),
            self._date(item.last_update_time()),
            *item._workspace_rows(),
        )


class ModelUploadLogs(list[str]):
    """Lines of a packaging log; shows as text."""

    def __repr__(self) -> str:
        return "\n".join(self) if self else "(no logs yet)"


def from_entry(client: Client, entry: Mapping[str, Any]) -> Iterable[ModelVersion]:
    """The versions of a ModelEntry of the wire, newest first."""
    workspace = {"id": entry["workspace"]["id"], "name": entry["workspace"]["name"]}
    for item in entry["model_versions"]:
        yield ModelVersion(client, {"workspace": workspace, **item["model_version"], "config": item["config"]})


def by_id(client: Client, version_id: int) -> ModelVersion:
    version = ModelVersion(client, {"id": version_id})
    version.rehydrate()
    return version
