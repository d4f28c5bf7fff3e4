"""Inference logs for those who may see them: a log belongs to a pipeline, a pipeline to a workspace."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from bettong.domain.logs import challengers_topic_of, topic_of
from bettong.domain.near_names import offer, shown
from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from bettong.domain.identity import Principal
    from bettong.domain.logs import LogPage, LogQuery, TopicInfo
    from bettong.domain.pipelines import Pipeline
    from bettong.domain.ports import LogReader, PipelineStore, WorkspaceStore

MAX_PAGE_ROWS = 10_000
MAX_PAGE_BYTES = 10 * 2**20
_TOPIC = re.compile(r"workspace-(\d{1,18})-pipeline-(.+)-(?:inference|failures|challengers)")


class LogService:
    """Reads logs on behalf of a caller. What the caller may not see is not found, in the same words as what is not."""

    def __init__(self, reader: LogReader, pipelines: PipelineStore, workspaces: WorkspaceStore) -> None:
        self._reader, self._pipelines, self._workspaces = reader, pipelines, workspaces

    def page(self, principal: Principal, query: LogQuery) -> LogPage:
        """One page of a topic; a pipeline that has logged nothing has an empty one.

        A limit above 10,000 rows or 10 MiB counts as that much: the page's status and cursor tell that more follows.

        Raises:
            NotFound: no pipeline that the caller may see has this topic.
            BadInput: the limit, the times or the cursor cannot be used.
        """
        self._check(principal, query.topic)
        limit, max_bytes = min(query.limit, MAX_PAGE_ROWS), min(query.max_bytes, MAX_PAGE_BYTES)
        return self._reader.page(replace(query, limit=limit, max_bytes=max_bytes))

    def info(self, principal: Principal, topic: str) -> TopicInfo:
        """Rows per partition and bytes on disk. Raises NotFound as `page` does."""
        self._check(principal, topic)
        return self._reader.info(topic)

    def topic_name(
        self,
        principal: Principal,
        *,
        pipeline_id: int | None = None,
        pipeline_name: str | None = None,
        workspace_id: int | None = None,
        failures: bool = False,
    ) -> str:
        """The topic of a pipeline, named by its id, or by its name with or without its workspace.

        Raises:
            NotFound: the caller may see no such pipeline.
            BadInput: neither id nor name is given, or the name stands for pipelines in several workspaces.
        """
        if pipeline_id is not None:
            pipeline = self._by_id(principal, pipeline_id)
        elif pipeline_name is not None:
            pipeline = self._by_name(principal, pipeline_name, workspace_id)
        else:
            raise BadInput("No pipeline was named.", "Send pipeline_pk_id, or pipeline_name with workspace_id.")
        return topic_of(pipeline.workspace_id, pipeline.name, failures=failures)

    def _check(self, principal: Principal, topic: str) -> None:
        match = _TOPIC.fullmatch(topic)
        if match:
            workspace_id, name = int(match[1]), match[2]
            seen = principal.may_see(workspace_id) and self._pipelines.by_name(workspace_id, name) is not None
            # a number may be written in several ways, a topic in one
            topics = (
                topic_of(workspace_id, name),
                topic_of(workspace_id, name, failures=True),
                challengers_topic_of(workspace_id, name),
            )
            if seen and topic in topics:
                return
        raise NotFound("There is no log topic of this name.", "Ask for a pipeline's topic with plateau/get_topic_name.")

    def _by_id(self, principal: Principal, pipeline_id: int) -> Pipeline:
        try:
            pipeline = self._pipelines.get(pipeline_id)
        except NotFound:
            raise _no_pipeline() from None
        if not principal.may_see(pipeline.workspace_id):
            raise _no_pipeline()
        return pipeline

    def _by_name(self, principal: Principal, name: str, workspace_id: int | None) -> Pipeline:
        if workspace_id is not None and principal.may_see(workspace_id):
            found = self._pipelines.by_name(workspace_id, name)
            if found is not None:
                return found
        seen = self._pipelines.all(None if principal.is_admin else principal.workspace_ids)
        there = [pipeline for pipeline in seen if workspace_id in (None, pipeline.workspace_id)]
        named = [pipeline for pipeline in there if pipeline.name == name]
        if not named:
            where = "" if workspace_id is None else " in this workspace"
            near = offer(name, sorted({pipeline.name for pipeline in there}))
            raise NotFound(
                f"There is no pipeline {shown(name)}{where} that you may see.",
                f"{near} Look at list_pipelines(), also for the workspace of the one you mean.".lstrip(),
            )
        if len(named) > 1:
            where = ", ".join(f"'{self._workspaces.get(p.workspace_id).name}' ({p.workspace_id})" for p in named)
            raise BadInput(f"Pipeline '{name}' is in several workspaces: {where}.", "Send its workspace_id too.")
        return named[0]


def _no_pipeline() -> NotFound:
    return NotFound("There is no such pipeline.", "List pipelines with pipelines/list_pipelines.")
