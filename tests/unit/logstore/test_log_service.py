"""Who may read which log, and how a pipeline's topic is found."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, cast

import pytest
from builders import log_rows

from bettong.domain.identity import Principal, Workspace
from bettong.domain.logs import LogQuery, PageStatus, topic_of
from bettong.domain.pipelines import Pipeline
from bettong.errors import BadInput, NotFound
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.writer import SegmentLogWriter
from bettong.services.logs import MAX_PAGE_ROWS, LogService

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bettong.domain.ports import PipelineStore, WorkspaceStore

NOW = datetime(2026, 1, 1, tzinfo=UTC)
MEMBER = Principal("u1", "member@example.com", is_admin=False, workspace_ids=frozenset({1}))
STRANGER = Principal("u2", "stranger@example.com", is_admin=False, workspace_ids=frozenset({2}))
ADMIN = Principal("u0", "admin@example.com", is_admin=True, workspace_ids=frozenset())


@dataclass
class Pipelines:
    """What the service asks of the pipeline store."""

    kept: list[Pipeline]

    def get(self, pipeline_id: int) -> Pipeline:
        for pipeline in self.kept:
            if pipeline.id == pipeline_id:
                return pipeline
        raise NotFound("no such pipeline")

    def by_name(self, workspace_id: int, name: str) -> Pipeline | None:
        return next((p for p in self.kept if (p.workspace_id, p.name) == (workspace_id, name)), None)

    def all(self, workspace_ids: Iterable[int] | None) -> list[Pipeline]:
        return [p for p in self.kept if workspace_ids is None or p.workspace_id in workspace_ids]


class Workspaces:
    """What the service asks of the workspace store."""

    def get(self, workspace_id: int) -> Workspace:
        return Workspace(workspace_id, f"w{workspace_id}", False, "u0", NOW)


@pytest.fixture
def service(tmp_path: Path) -> LogService:
    pipelines = Pipelines(
        [
            Pipeline(7, "rental", 1, "u1", NOW, NOW),
            Pipeline(8, "rental", 2, "u2", NOW, NOW),
            Pipeline(9, "fraud-inference", 1, "u1", NOW, NOW),
        ]
    )
    writer = SegmentLogWriter(tmp_path, topic_of(1, "rental"), topic_of(1, "rental", failures=True), "engine-a")
    writer.append(log_rows(range(10_001)))
    writer.append(log_rows([5]), failed=True)
    writer.close()
    return LogService(
        SegmentLogReader(tmp_path), cast("PipelineStore", pipelines), cast("WorkspaceStore", Workspaces())
    )


@pytest.mark.parametrize("principal", [MEMBER, ADMIN])
def test_members_and_administrators_read_a_log(service: LogService, principal: Principal) -> None:
    assert service.page(principal, LogQuery(topic_of(1, "rental"), limit=3)).table.num_rows == 3
    assert service.page(principal, LogQuery(topic_of(1, "rental", failures=True))).table.num_rows == 1
    assert service.info(principal, topic_of(1, "rental")).partitions == {"engine-a": 10_001}


def test_a_page_has_ten_thousand_rows_at_most_and_says_that_more_follow(service: LogService) -> None:
    page = service.page(MEMBER, LogQuery(topic_of(1, "rental"), limit=1_000_000, columns=("time",), max_bytes=2**60))

    assert (page.table.num_rows, page.status) == (MAX_PAGE_ROWS, PageStatus.RECORD_LIMITED)
    rest = service.page(MEMBER, LogQuery(topic_of(1, "rental"), limit=1_000_000, cursor=page.cursor))
    assert (rest.table.num_rows, rest.status) == (1, PageStatus.ALL)


def test_to_a_stranger_a_log_does_not_exist_in_the_same_words_as_one_that_is_not_there(service: LogService) -> None:
    with pytest.raises(NotFound) as hidden:
        service.page(STRANGER, LogQuery(topic_of(1, "rental")))
    with pytest.raises(NotFound) as absent:
        service.page(STRANGER, LogQuery(topic_of(2, "nothing")))

    assert str(hidden.value) == str(absent.value)
    with pytest.raises(NotFound):
        service.info(STRANGER, topic_of(1, "rental"))


@pytest.mark.parametrize(
    "topic",
    ["", "rental", "workspace-01-pipeline-rental-inference", "workspace-1-pipeline-rental", "../workspace-1",
     "workspace-1-pipeline-rental-inference/", "workspace-١-pipeline-rental-inference"],
)  # fmt: skip
def test_a_topic_has_one_spelling(service: LogService, topic: str) -> None:
    with pytest.raises(NotFound):
        service.page(ADMIN, LogQuery(topic))


def test_a_pipeline_that_has_logged_nothing_has_an_empty_log(service: LogService) -> None:
    assert service.page(MEMBER, LogQuery(topic_of(1, "fraud-inference"))).table.num_rows == 0


def test_a_topic_is_found_by_id_and_by_name(service: LogService) -> None:
    assert service.topic_name(MEMBER, pipeline_id=7) == topic_of(1, "rental")
    assert service.topic_name(MEMBER, pipeline_name="rental") == topic_of(1, "rental")
    assert service.topic_name(ADMIN, pipeline_name="rental", workspace_id=2) == topic_of(2, "rental")
    assert service.topic_name(MEMBER, pipeline_id=7, failures=True) == topic_of(1, "rental", failures=True)


def test_a_name_in_several_workspaces_needs_its_workspace(service: LogService) -> None:
    with pytest.raises(BadInput, match=r"'w1' \(1\), 'w2' \(2\)"):
        service.topic_name(ADMIN, pipeline_name="rental")
    with pytest.raises(BadInput):
        service.topic_name(ADMIN)


def test_a_name_that_is_not_there_is_repeated_with_a_near_one_that_the_caller_may_see(service: LogService) -> None:
    with pytest.raises(NotFound, match=r"no pipeline 'retnal' that you may see\. Did you mean 'rental'\?"):
        service.topic_name(MEMBER, pipeline_name="retnal")
    with pytest.raises(NotFound, match=r"no pipeline 'retnal' in this workspace .* Did you mean 'rental'\?"):
        service.topic_name(MEMBER, pipeline_name="retnal", workspace_id=1)
    with pytest.raises(NotFound) as hidden:
        service.topic_name(STRANGER, pipeline_name="retnal", workspace_id=1)
    assert "rental" not in str(hidden.value)


def test_a_pipeline_that_one_may_not_see_has_no_topic(service: LogService) -> None:
    for principal, asked in (
        (STRANGER, {"pipeline_id": 7}),
        (STRANGER, {"pipeline_id": 99}),
        (STRANGER, {"pipeline_name": "rental", "workspace_id": 1}),
        (STRANGER, {"pipeline_name": "fraud-inference"}),
    ):
        with pytest.raises(NotFound, match=r"no such pipeline|no pipeline '"):
            service.topic_name(principal, **asked)
