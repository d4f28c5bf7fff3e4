"""What a replay job is made of: the version, the logs, and what the version takes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from platform_kit import INPUTS

from bettong.domain.jobs import JobKind
from bettong.domain.replay_requests import ReplayRequest
from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from platform_kit import Platform

    from bettong.domain.pipelines import PipelineVersion

START, END = "2026-01-01T00:00:00+00:00", "2026-01-02T00:00:00+01:00"


@pytest.fixture
def workspace(platform: Platform) -> int:
    return platform.workspace("bob")


def request_of(platform: Platform, version: PipelineVersion, *, who: str = "bob", **asked: Any) -> ReplayRequest:
    """What the job keeps that is made for this."""
    whole = {"pipeline_id": version.pipeline_id, "start": START, "end": END, **asked}
    made = platform.services.jobs.make(platform.principal(who), JobKind.REPLAY, whole)
    return ReplayRequest.from_document(made.request)


def deploy(platform: Platform, version: PipelineVersion) -> None:
    platform.services.deployments.deploy(platform.principal("bob"), "rental", pipeline_version_id=version.id)


def test_a_replay_names_the_logs_of_its_pipeline_and_what_the_version_takes(platform: Platform, workspace: int) -> None:
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))

    request = request_of(platform, version)

    assert request.pipeline_version == version.version
    assert request.topic == f"workspace-{workspace}-pipeline-rental-inference"
    assert request.failures_topic == f"workspace-{workspace}-pipeline-rental-failures"
    assert request.takes == INPUTS
    assert not request.by_request
    assert request.window.start.isoformat() == START
    assert request.window.end.isoformat() == END
    assert (request.window.tolerance, request.window.limit, request.window.failed) == (1e-6, None, False)
    assert request.window.inputs


def test_what_is_asked_is_kept(platform: Platform, workspace: int) -> None:
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))

    window = request_of(platform, version, limit=9, tolerance=0, failed=True, inputs=False).window

    assert (window.limit, window.tolerance, window.failed, window.inputs) == (9, 0.0, True, False)


def test_without_a_name_it_is_the_newest_version_with_a_model_that_is_not_the_deployed_one(
    platform: Platform, workspace: int
) -> None:
    model = platform.model("bob", workspace)
    platform.pipeline("bob", workspace, model)
    candidate = platform.pipeline("bob", workspace, model)
    deployed = platform.pipeline("bob", workspace, model)
    platform.pipeline("bob", workspace)  # as build_pipeline() makes one: it has no steps
    deploy(platform, deployed)

    assert request_of(platform, deployed).pipeline_version == candidate.version
    assert request_of(platform, deployed, pipeline_version=deployed.version).pipeline_version == deployed.version


def test_an_undeployed_version_is_the_one_whose_answers_are_there(platform: Platform, workspace: int) -> None:
    model = platform.model("bob", workspace)
    candidate, deployed = (platform.pipeline("bob", workspace, model) for _ in range(2))
    deploy(platform, deployed)
    platform.services.deployments.undeploy(platform.principal("bob"), pipeline_id=deployed.pipeline_id)

    assert request_of(platform, deployed).pipeline_version == candidate.version


def test_without_another_version_it_is_refused(platform: Platform, workspace: int) -> None:
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))
    deploy(platform, version)

    with pytest.raises(BadInput, match="'rental' has no version with a model beside the deployed one"):
        request_of(platform, version)


def test_a_version_of_another_pipeline_is_refused(platform: Platform, workspace: int) -> None:
    model = platform.model("bob", workspace)
    version, other = (platform.pipeline("bob", workspace, model, name=name) for name in ("rental", "sales"))

    with pytest.raises(BadInput, match=f"not one of pipeline {version.pipeline_id}"):
        request_of(platform, version, pipeline_version=other.version)


def test_a_model_that_is_not_ready_is_refused(platform: Platform, workspace: int) -> None:
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace, ready=False))

    with pytest.raises(BadInput, match="is not ready"):
        request_of(platform, version)


def test_who_may_not_see_the_log_makes_no_replay(platform: Platform, workspace: int) -> None:
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))

    with pytest.raises(NotFound):
        request_of(platform, version, who="eve")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"start": "yesterday"}, "The replay's 'start' is no time"),
        ({"end": None}, "The replay's 'end' is no time"),
        ({"end": START}, "Give a start that is before the end"),
    ],
)
def test_a_window_that_is_none_is_refused(
    platform: Platform, workspace: int, changes: dict[str, Any], words: str
) -> None:
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))

    with pytest.raises(BadInput, match=words):
        request_of(platform, version, **changes)


def test_splits_have_their_requests_sent_as_they_came(platform: Platform, workspace: int) -> None:
    model = platform.model("bob", workspace)
    ref = {"name": model.name, "version": model.version, "sha": model.sha}
    split = {"RandomSplit": {"hash_key": "session", "weights": [{"model": ref, "weight": 1.0}]}}
    version = platform.services.pipelines.create(platform.principal("bob"), "split", workspace, {"steps": [split]})

    request = request_of(platform, version)

    assert request.by_request
    assert request.keys == ("session",)
    assert request.takes == pa.schema(INPUTS)
