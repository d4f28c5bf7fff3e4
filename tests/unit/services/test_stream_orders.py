"""What a stream's job keeps of what it was asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from driver_doubles import MEMORY
from platform_kit import open_platform

from bettong.domain.drivers import Capability
from bettong.domain.jobs import JobKind
from bettong.domain.stream_requests import StreamRequest, TableEnd, TopicEnd
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from platform_kit import Platform

BROKER = replace(MEMORY, types=("BROKER",), capabilities=frozenset({Capability.CONSUME, Capability.PRODUCE}))
DATABASE = replace(MEMORY, types=("DATABASE",), capabilities=frozenset({Capability.WRITE, Capability.TRANSACTION}))
FILES = replace(MEMORY, types=("FILES",), capabilities=frozenset({Capability.READ, Capability.WRITE}))


@pytest.fixture
def platform(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    with open_platform(tmp_path) as opened:
        kinds = {info.types[0]: info for info in (BROKER, DATABASE, FILES)}
        monkeypatch.setattr(opened.drivers, "info", lambda kind: kinds.get(kind.upper()))
        yield opened


@pytest.fixture
def ids(platform: Platform) -> dict[str, str]:
    """A connection of each kind."""
    ann = platform.principal("ann")
    made = {kind: platform.services.connections.create(ann, kind, kind, {}) for kind in ("broker", "database", "files")}
    return {kind: connection.id for kind, connection in made.items()}


def a_pipeline(platform: Platform) -> int:
    workspace = platform.workspace("ann")
    return platform.pipeline("ann", workspace, platform.model("ann", workspace)).pipeline_id


def make(platform: Platform, ids: dict[str, str], pipeline_id: int | None = None, **changes: Any) -> Any:
    asked = {
        "pipeline_id": pipeline_id or a_pipeline(platform),
        "source": {"connection_id": ids["broker"], "topic": "orders"},
        "sink": {"connection_id": ids["broker"], "into": "predictions"},
        **changes,
    }
    return platform.services.jobs.make(platform.principal("ann"), JobKind.INFER_STREAM, asked)


def test_a_job_keeps_what_its_version_takes_and_gives_and_a_group_of_its_own(
    platform: Platform, ids: dict[str, str]
) -> None:
    job = make(platform, ids, keep=["id"])

    kept = StreamRequest.from_document(job.request)
    assert kept.columns.takes.names == ["count"]
    assert {"time", "in.count", "out.forecast", "anomaly.count"} <= set(kept.columns.gives.names)
    assert (kept.columns.keys, kept.columns.by_request) == ((), False)
    assert kept.group == f"bettong-{job.workspace_id}-rental"
    assert kept.sink == TopicEnd(ids["broker"], "predictions")
    assert job.request["guarantee"].startswith("at least once")
    assert job.connection_ids == (ids["broker"],)


def test_a_database_is_given_rows_of_a_table(platform: Platform, ids: dict[str, str]) -> None:
    job = make(platform, ids, sink={"connection_id": ids["database"], "into": "sales.predictions"})

    assert StreamRequest.from_document(job.request).sink == TableEnd(ids["database"], "sales.predictions")
    assert job.request["guarantee"].startswith("exactly once")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": "files"}, "The source is a connection of type FILES, which cannot consume"),
        ({"sink": "files"}, "The sink is a connection of type FILES, which takes no messages and keeps no rows"),
        ({"dead_letter": "database"}, "The dead_letter is a connection of type DATABASE, which cannot produce"),
    ],
)
def test_a_connection_that_cannot_do_its_part_is_named(
    changes: dict[str, str], words: str, platform: Platform, ids: dict[str, str]
) -> None:
    ends = {"source": "topic", "sink": "into", "dead_letter": "topic"}
    asked: dict[str, Any] = {role: {"connection_id": ids[kind], ends[role]: "name"} for role, kind in changes.items()}

    with pytest.raises(BadInput, match=words):
        make(platform, ids, **asked)


def test_whoever_starts_a_second_stream_of_a_topic_and_group_is_told_that_they_share_it(
    platform: Platform, ids: dict[str, str]
) -> None:
    pipeline = a_pipeline(platform)
    source: dict[str, Any] = {"connection_id": ids["broker"], "topic": "orders"}
    first = make(platform, ids, pipeline)
    apart = make(platform, ids, pipeline, source={**source, "group": "all"})
    elsewhere = make(platform, ids, pipeline, source={**source, "topic": "returns"})
    second = make(platform, ids, pipeline)

    assert [job.request["warning"] for job in (first, apart, elsewhere)] == ["", "", ""]
    warning = second.request["warning"]
    assert f"by another stream already: {first.id[:8]} of pipeline 'rental'. Each message goes to one" in warning
    assert f"as group 'bettong-{first.workspace_id}-rental'" in warning
    assert "group=" in warning
    jobs, ann = platform.services.jobs, platform.principal("ann")
    assert [line.text for line in jobs.log(ann, second.id)] == [f"Warning: {warning}"]
    for job in (first, second):
        jobs.cancel(ann, job.id)
    assert make(platform, ids, pipeline).request["warning"] == ""
