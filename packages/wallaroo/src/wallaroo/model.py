"""Models: the versions under one name in one workspace."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wallaroo import _times
from wallaroo._html import ObjectList, Row, fields, show_time, text_fields
from wallaroo.model_version import ModelVersion, ModelVersionList, from_entry
from wallaroo.object import EntityNotFoundError, Object, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from wallaroo.client import Client
    from wallaroo.workspace import Workspace

_ROOT = "/v1/api/models"


class Model(Object):
    """Made from a ModelEntry of the wire: the family, its versions and its workspace."""

    def __init__(self, client: Client, entry: Mapping[str, Any]) -> None:
        super().__init__(client, {**entry["model"], "workspace": entry["workspace"]})
        self._versions = ModelVersionList(client, from_entry(client, entry))

    def id(self) -> int:
        return int(self._get("id"))

    def name(self) -> str:
        return str(self._get("name"))

    def owner_id(self) -> str:
        return str(self._get("owner_id"))

    def last_update_time(self) -> datetime | None:
        return self._time("updated_at")

    def created_at(self) -> datetime | None:
        return self._time("created_at")

    def workspace(self) -> Workspace:
        from wallaroo.workspace import Workspace

        return Workspace(self._client, self._get("workspace"))

    def versions(self) -> ModelVersionList:
        """Newest first."""
        return self._versions

    def _rows(self) -> Sequence[Row]:
        return [
            ("Name", self.name()),
            ("# of Versions", len(self._versions)),
            ("Owner ID", self.owner_id()),
            ("Last Updated", show_time(self._client, self.last_update_time())),
            ("Created At", show_time(self._client, self.created_at())),
            ("Workspace id", self._get("workspace")["id"]),
            ("Workspace name", self._get("workspace")["name"]),
        ]

    def _repr_html_(self) -> str:
        return fields(self._rows())

    def __repr__(self) -> str:
        return text_fields("Model", self._rows())


class ModelList(ObjectList[Model]):
    columns = (
        "Name",
        "# of Versions",
        "Owner ID",
        "Last Updated",
        "Created At",
        "Workspace id",
        "Workspace name",
    )
    empty = "(no models)"

    def _row(self, item: Model) -> Sequence[Any]:
        return [value for _, value in item._rows()]


def list_all(client: Client, scope: Mapping[str, Any]) -> ModelList:
    """The models of a workspace; {"workspace_id", "workspace_name"} name it, both None mean all visible ones."""
    answer = client._transport.post(f"{_ROOT}/list", scope)
    return ModelList(client, (Model(client, entry) for entry in answer["models"]))


def versions_of(client: Client, name: str, workspace_id: int) -> ModelVersionList:
    """The versions of a model, newest first; empty when there is no such model."""
    request = {"model_id": name, "workspace_id": workspace_id}
    try:
        entries = client._transport.post(f"{_ROOT}/list_versions_for_model", request)["models"]
    except WallarooAPIError as error:
        if error.code != 404:
            raise
        entries = []
    return ModelVersionList(client, (version for entry in entries for version in from_entry(client, entry)))


def get(client: Client, name: str, version: str | None, workspace_id: int) -> ModelVersion:
    """The newest version of a model, or the one of that UUID.

    Raises:
        EntityNotFoundError: there is no such model, or no such version of it, in the workspace.
    """
    versions = versions_of(client, name, workspace_id)
    params = {"name": name, "version": version}
    if not versions:
        raise EntityNotFoundError(
            "Model",
            params,
            f"Error: A model with the name {name} does not exist. list_models() shows those of the current workspace; "
            "set_current_workspace() chooses another.",
        )
    if version is None:
        return versions[0]
    for candidate in versions:
        if candidate.version() == version:
            return candidate
    raise EntityNotFoundError(
        "Model version",
        params,
        f"Error: A model with the version {version} not found in this workspace. "
        f"Model '{name}' has {len(versions)}; without a version, get_model() gives the newest.",
    )


def by_name(client: Client, name: str, version: str, scope: Mapping[str, Any]) -> ModelVersion:
    """Raises EntityNotFoundError when no workspace of the scope has that version."""
    for family in list_all(client, scope):
        if family.name() == name:
            for candidate in family.versions():
                if candidate.version() == version:
                    return candidate
    params = {"model_name": name, "model_version": version}
    raise EntityNotFoundError(
        "ModelVersion",
        params,
        f"ModelVersion not found: {params}. A version is named by its UUID; list_models() of a workspace shows models, "
        "and versions() of a model its versions.",
    )


def search(
    client: Client,
    scope: Mapping[str, Any],
    search_term: str | None,
    uploaded_time_start: datetime | None,
    uploaded_time_end: datetime | None,
) -> ModelVersionList:
    """Versions whose name, file, SHA or version has the term in it, whatever its case."""
    request = {
        **scope,
        "search_term": search_term,
        "uploaded_time_start": uploaded_time_start and _times.as_utc_text(uploaded_time_start),
        "uploaded_time_end": uploaded_time_end and _times.as_utc_text(uploaded_time_end),
    }
    entries = client._transport.post(f"{_ROOT}/search", request)["models"]
    return ModelVersionList(client, (version for entry in entries for version in from_entry(client, entry)))
