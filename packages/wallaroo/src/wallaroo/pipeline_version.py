"""A stored definition of a pipeline."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from wallaroo import _steps, deployment
from wallaroo._html import ObjectList, Row, fields, text_fields
from wallaroo.object import Object

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

    from wallaroo.client import Client
    from wallaroo.deployment import Deployment
    from wallaroo.model_config import ModelConfig
    from wallaroo.pipeline import Pipeline


class PipelineVersion(Object):
    """Made from a PipelineVersionRecord of the wire and the workspace of its pipeline."""

    def __init__(self, client: Client, record: Mapping[str, Any], workspace: Mapping[str, Any]) -> None:
        super().__init__(client, record)
        self._workspace = workspace

    def id(self) -> int:
        return int(self._get("pk_id"))

    def name(self) -> str:
        """The UUID of the version."""
        return str(self._get("version"))

    def pipeline_name(self) -> str:
        return str(self._get("id"))

    def definition(self) -> dict[str, Any]:
        document: dict[str, Any] = self._get("definition")
        return document

    def create_time(self) -> datetime | None:
        return self._time("created_at")

    def last_update_time(self) -> datetime | None:
        return self._time("updated_at")

    def pipeline(self) -> Pipeline:
        from wallaroo import _pipeline_lookup

        return _pipeline_lookup.get(self._client, self.pipeline_name(), None, self._workspace["id"])

    def deployments(self) -> list[Deployment]:
        """The deployments that have this version as their target."""
        return [d for d in deployment.list_all(self._client) if d._get("pipeline_version_pk_id") == self.id()]

    def model_configs(self) -> list[ModelConfig]:
        return [config for found in self.deployments() for config in found.model_configs()]

    def deploy(
        self,
        deployment_name: str,
        model_configs: Sequence[ModelConfig],
        config: Mapping[str, Any] | None = None,
        wait_for_status: bool = True,
    ) -> Deployment:
        """Deploy exactly this version. Raises as `Pipeline.deploy` does."""
        request = {
            "deploy_id": deployment_name,
            "engine_config": dict(config or {}),
            "pipeline_id": self._get("pipeline_id"),
            "pipeline_version_pk_id": self.id(),
            "model_configs": [model_config.id() for model_config in model_configs],
        }
        deployment_id = deployment.start(self._client, deployment_name, request, wait_for_status)
        return deployment.get(self._client, {"id": deployment_id})

    def models(self) -> list[str]:
        """The names of the models in its steps, in order."""
        return [reference["name"] for reference in references(self.definition())]

    def _fetch(self) -> Mapping[str, Any]:
        answer = self._client._transport.post("/v1/api/pipelines/get_version", {"version": self._record["version"]})
        record: Mapping[str, Any] = answer["pipeline_version"]
        return record

    def _rows(self) -> Sequence[Row]:
        return [
            ("name", self.pipeline_name()),
            ("version", self.name()),
            ("creation_time", self.create_time()),
            ("last_updated_time", self.last_update_time()),
            ("deployed", self._get("deployed")),
            ("tags", ", ".join(map(str, self._get("tags")))),
            ("steps", ", ".join(first["name"] for first in first_references(self.definition()))),
        ]

    def _repr_html_(self) -> str:
        return fields(self._rows(), name_tag="th")

    def __repr__(self) -> str:
        return text_fields("PipelineVersion", self._rows())


class PipelineVersionList(ObjectList[PipelineVersion]):
    columns = (
        "name",
        "version",
        "creation_time",
        "last_updated_time",
        "deployed",
        "workspace_id",
        "workspace_name",
        "tags",
        "steps",
    )
    empty = "(no pipeline versions)"

    def _row(self, item: PipelineVersion) -> Sequence[Any]:
        cells = dict(item._rows())
        dates = {
            "creation_time": self._date(item.create_time()),
            "last_updated_time": self._date(item.last_update_time()),
            "workspace_id": item._workspace["id"],
            "workspace_name": item._workspace["name"],
        }
        return [{**cells, **dates}[column] for column in self.columns]


def references(definition: Mapping[str, Any]) -> Iterable[Mapping[str, str]]:
    """The models `{"name", "version", "sha"}` that a definition's steps name, in order."""
    for step in definition.get("steps", []):
        yield from _steps.references(step)


def first_references(definition: Mapping[str, Any]) -> Iterable[Mapping[str, str]]:
    """The first model of each step that names any: what a table shows of the steps."""
    for step in definition.get("steps", []):
        yield from islice(_steps.references(step), 1)


def from_entries(client: Client, entries: Iterable[Mapping[str, Any]]) -> PipelineVersionList:
    """The version in each PipelineEntry of the wire; entries without one are left out."""
    return PipelineVersionList(
        client,
        (
            PipelineVersion(client, entry["pipeline_version"], entry["workspace"])
            for entry in entries
            if entry["pipeline_version"]
        ),
    )


def create(client: Client, name: str, workspace_id: int, definition: Mapping[str, Any]) -> Mapping[str, Any]:
    """A version with this definition, and the pipeline if there was none."""
    request = {"pipeline_id": name, "workspace_id": workspace_id, "definition": definition}
    answer: Mapping[str, Any] = client._transport.post("/v1/api/pipelines/create", request)
    return answer
