"""Making pipelines, and finding them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wallaroo import _times, pipeline_version
from wallaroo._names import check_pipeline_name
from wallaroo.object import EntityNotFoundError, WallarooAPIError
from wallaroo.pipeline import Pipeline, PipelineList

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from wallaroo.client import Client
    from wallaroo.pipeline_version import PipelineVersionList

_ROOT = "/v1/api/pipelines"


def build(client: Client, name: str, workspace_id: int) -> Pipeline:
    """The pipeline of this name with one more, empty, version; made if there was none.

    Raises:
        InvalidNameError, RuntimeError: the name cannot be a pipeline's.
    """
    check_pipeline_name(name)
    pipeline_version.create(client, name, workspace_id, {"id": name, "steps": []})
    return get(client, name, None, workspace_id)


def get(client: Client, name: str, version: str | None, workspace_id: int) -> Pipeline:
    """Raises EntityNotFoundError when the workspace has no such pipeline, or the pipeline no such version."""
    params = {"name": name, "version": version}
    request = {"pipeline_name": name, "workspace_id": workspace_id}
    try:
        found = Pipeline(client, client._transport.post(f"{_ROOT}/get_pipeline_by_name", request))
    except WallarooAPIError as error:
        if error.code != 404:
            raise
        raise EntityNotFoundError(
            "Pipeline",
            params,
            f"Pipeline {name} not found in this workspace. list_pipelines() shows those of every workspace; "
            "set_current_workspace() chooses another.",
        ) from None
    if version is None:
        return found
    stored = found.versions()
    for candidate in stored:
        if candidate.name() == version:
            return Pipeline(client, found._record, candidate)
    raise EntityNotFoundError(
        "Pipeline",
        params,
        f"Pipeline version {version} not found in this workspace. Pipeline '{name}' has {len(stored)}: see its "
        "versions().",
    )


def list_all(client: Client, scope: Mapping[str, Any]) -> PipelineList:
    """The visible pipelines; {"workspace_id", "workspace_name"} limit them to a workspace."""
    answer = client._transport.post(f"{_ROOT}/list_pipelines", scope)
    return PipelineList(client, (Pipeline(client, entry) for entry in answer["pipelines"]))


def by_name(client: Client, name: str, scope: Mapping[str, Any]) -> PipelineList:
    """Raises EntityNotFoundError when there is none."""
    found = PipelineList(client, (pipeline for pipeline in list_all(client, scope) if pipeline.name() == name))
    if not found:
        params = {"pipeline_name": name}
        raise EntityNotFoundError(
            "Pipeline", params, f"Pipeline not found: {params}. list_pipelines() shows those that you may see."
        )
    return found


def search(
    client: Client,
    scope: Mapping[str, Any],
    search_term: str | None,
    deployed: bool | None,
    created: tuple[datetime | None, datetime | None],
    updated: tuple[datetime | None, datetime | None],
) -> PipelineVersionList:
    """The newest version of each pipeline that fits; `created` and `updated` are (start, end)."""
    times = dict(
        zip(("created_start", "created_end", "updated_start", "updated_end"), (*created, *updated), strict=True)
    )
    request = {
        **scope,
        "search_term": search_term,
        "deployed": deployed,
        **{name: moment and _times.as_utc_text(moment) for name, moment in times.items()},
    }
    answer = client._transport.post(f"{_ROOT}/search", request)
    return pipeline_version.from_entries(client, answer["pipelines"])
