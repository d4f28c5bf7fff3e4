"""Metrics of the control plane: who is told what, as text for scrapers and as JSON for notebooks."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from exposition_parser import parse

from bettong.domain.metrics import Counted, DeploymentMetrics, ReplicaMetrics
from bettong.errors import Unavailable

if TYPE_CHECKING:
    import pytest
    from exposition_parser import Family
    from platform_kit import Api, Platform

SINCE = datetime(2026, 1, 1, tzinfo=UTC)
PIPELINE = "/v1/api/metrics/pipeline"


def deployed(platform: Platform, who: str, name: str, requests: int) -> DeploymentMetrics:
    """A deployment of `who`, in a workspace of that name, that has answered so many requests."""
    workspace = platform.workspace(who, name)
    version = platform.pipeline(who, workspace, platform.model(who, workspace), name=name)
    row, _ = platform.services.deployments.deploy(platform.principal(who), name, {}, pipeline_version_id=version.id)
    counted = Counted(requests={200: requests}, worker_restarts={"forecast": 1})
    replica = ReplicaMetrics("engine-1-a-0", 77, 1, 0, counted)
    metrics = DeploymentMetrics(row.label, name, SINCE, SINCE, 0, counted, (replica,))
    platform.runtime.counted[row.label] = metrics
    return metrics


def scraped(api: Api, who: str) -> dict[str, Family]:
    answered = api.send(who, "GET", "/v1/api/metrics")
    assert answered.status_code == 200
    assert answered.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answered.text)


def test_a_scraper_is_told_of_the_deployments_that_it_may_see(api: Api, platform: Platform) -> None:
    deployed(platform, "bob", "rental", 3)
    deployed(platform, "eve", "fraud", 5)

    assert scraped(api, "bob")["bettong_requests_total"].total() == 3
    assert scraped(api, "eve")["bettong_requests_total"].total() == 5
    assert scraped(api, "ann")["bettong_requests_total"].total() == 8
    assert "fraud" not in api.send("bob", "GET", "/v1/api/metrics").text


def test_the_server_itself_is_for_administrators(api: Api, platform: Platform) -> None:
    platform.model("bob", platform.workspace("bob"), ready=False)
    api.send("bob", "GET", "/v1/api/config")
    api.send("bob", "GET", "/v1/api/config")
    api.send(None, "GET", "/v1/api/config")

    told, told_bob = scraped(api, "ann"), api.send("bob", "GET", "/v1/api/metrics").text

    requests = told["bettong_http_requests_total"]
    assert requests.value("bettong_http_requests_total", method="GET", route="/v1/api/config", status="200") == 2
    assert requests.value("bettong_http_requests_total", method="GET", route="(none)", status="401") == 1
    assert told["bettong_packaging_queue"].total() == 1
    assert told["process_resident_memory_bytes"].total() > 2**20
    assert told["process_cpu_seconds_total"].total() > 0
    assert told_bob == "", "nothing is deployed that is his"


def test_what_a_stranger_asks_for_makes_no_label_of_its_own(api: Api) -> None:
    for n in range(5):
        api.send("bob", "GET", f"/v1/api/nowhere-{n}")
        api.send("bob", f"ODD{n}", "/v1/api/config")
        api.send("bob", "POST", f"/v1/logs/topic/t-{n}/records", json={})

    labels = {dict(labels)["route"] for _, labels in scraped(api, "ann")["bettong_http_requests_total"].samples}
    methods = {dict(labels)["method"] for _, labels in scraped(api, "ann")["bettong_http_requests_total"].samples}

    assert labels <= {"(none)", "/v1/api/config", "/v1/logs/topic/{topic}/records", "/v1/api/metrics"}
    assert methods == {"GET", "POST", "other"}


def test_a_deployment_that_does_not_answer_is_told_as_down_and_hides_no_other(
    api: Api, platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, other = deployed(platform, "bob", "rental", 3), deployed(platform, "bob", "fraud", 4)
    answer = platform.runtime.metrics

    def metrics(deployment_id: int, label: str) -> DeploymentMetrics | None:
        if label == silent.label:
            raise Unavailable("Its host does not answer.")
        return answer(deployment_id, label)

    monkeypatch.setattr(platform.runtime, "metrics", metrics)

    told = scraped(api, "bob")

    assert told["bettong_deployment_up"].total(deployment=silent.label) == 0
    assert told["bettong_deployment_up"].total(deployment=other.label) == 1
    assert told["bettong_requests_total"].total() == 4


def test_a_notebook_gets_the_counters_by_pipeline_or_label(api: Api, platform: Platform) -> None:
    metrics = deployed(platform, "bob", "rental", 3)
    pipeline = api.ok("bob", "/v1/api/deployments/list")["deployments"][0]["pipeline_id"]

    assert api.ok("bob", PIPELINE, {"pipeline_id": pipeline}) == metrics.to_document()
    assert api.ok("bob", PIPELINE, {"label": metrics.label}) == metrics.to_document()


def test_what_is_not_deployed_counts_nothing(api: Api, platform: Platform) -> None:
    metrics = deployed(platform, "bob", "rental", 3)
    pipeline = api.ok("bob", "/v1/api/deployments/list")["deployments"][0]["pipeline_id"]
    api.ok("bob", "/v1/api/pipelines/undeploy", {"pipeline_id": pipeline})

    for request in ({"pipeline_id": pipeline}, {"label": metrics.label}, {"pipeline_id": 999}, {"label": "no-1"}):
        assert api.post("bob", PIPELINE, request).status_code == 404
    assert api.post("bob", PIPELINE, {}).status_code == 400


def test_a_deployment_whose_processes_are_gone_for_a_moment_is_worth_another_try(api: Api, platform: Platform) -> None:
    metrics = deployed(platform, "bob", "rental", 3)
    platform.runtime.counted.clear()

    answered = api.post("bob", PIPELINE, {"label": metrics.label})

    assert (answered.status_code, answered.headers["retry-after"]) == (503, "1")
