"""The external inference path forwards bytes both ways, and logs are read back as pages."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import httpx
import orjson
import pyarrow as pa
import pytest
from builders import log_rows

from bettong.domain.logs import topic_of
from bettong.engine.tokens import TokenVerifier
from bettong.logstore.writer import SegmentLogWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from platform_kit import Api, Platform

    Answering = Callable[[httpx.Request], httpx.Response]


class Replica:
    """Stands where the replica's port is, and remembers what reached it."""

    def __init__(self, answering: Answering) -> None:
        self.seen: list[httpx.Request] = []
        self._answering = answering

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        await request.aread()
        self.seen.append(request)
        answer = self._answering(request)
        return httpx.Response(answer.status_code, headers=answer.headers, content=_streamed(answer.content))


async def _streamed(content: bytes) -> AsyncIterator[bytes]:
    yield content


def running(api: Api, platform: Platform, answering: Answering) -> tuple[str, Replica]:
    """The external path of a pipeline of bob's that runs, and the replica behind it."""
    workspace = platform.workspace("bob")
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))
    row, _ = platform.services.deployments.deploy(
        platform.principal("bob"), "rental", {}, pipeline_version_id=version.id
    )
    replica = Replica(answering)
    api.app.state.forwarder._transport = httpx.MockTransport(replica)
    return f"/v1/api/pipelines/infer/{row.label}/rental", replica


def test_a_request_reaches_the_replica_as_it_is_with_a_token_that_the_replica_takes(
    api: Api, platform: Platform
) -> None:
    def answering(_: httpx.Request) -> httpx.Response:
        return httpx.Response(
            200, content=b"ARROW1...", headers={"content-type": "application/vnd.apache.arrow.file", "x-extra": "1"}
        )

    path, replica = running(api, platform, answering)
    headers = {"Content-Type": "application/vnd.apache.arrow.file", "Accept": "*/*", "X-Request-Id": "r-7"}
    answered = api.send("bob", "POST", f"{path}?dataset[]=*&dataset.separator=.", content=b"rows", headers=headers)

    (seen,) = replica.seen
    assert (answered.status_code, answered.content) == (200, b"ARROW1...")
    assert answered.headers["content-type"] == "application/vnd.apache.arrow.file"
    assert answered.headers["x-request-id"] == "r-7"
    assert str(seen.url) == "http://127.0.0.1:41000/pipelines/rental?dataset[]=*&dataset.separator=."
    assert (seen.content, seen.headers["content-type"]) == (b"rows", headers["Content-Type"])
    assert seen.headers["x-request-id"] == "r-7"
    proven = TokenVerifier(platform.signer.public_key).verify(seen.headers["authorization"].encode())
    assert proven.email == "bob@example.org"


def test_an_error_of_the_engine_comes_back_untouched(api: Api, platform: Platform) -> None:
    body = {"code": 400, "status": "error", "error": "tensor values may not be null", "source": "engine"}
    path, _ = running(api, platform, lambda _: httpx.Response(400, json=body))

    answered = api.send("bob", "POST", path, json=[])

    assert (answered.status_code, answered.json()) == (400, body)


@pytest.mark.parametrize(("fault", "status"), [(httpx.ConnectError("refused"), 503), (httpx.ReadTimeout("late"), 504)])
def test_a_replica_that_does_not_answer_is_told_in_the_engines_shape(
    api: Api, platform: Platform, fault: Exception, status: int
) -> None:
    def answering(_: httpx.Request) -> httpx.Response:
        raise fault

    path, _ = running(api, platform, answering)
    answered = api.send("bob", "POST", path, json=[])

    assert (answered.status_code, answered.json()["code"], answered.json()["source"]) == (status, status, "engine")
    assert ("retry-after" in answered.headers) is (status == 503)


def test_what_does_not_run_is_404_in_the_engines_shape(api: Api, platform: Platform) -> None:
    path, replica = running(api, platform, lambda _: httpx.Response(200))
    platform.services.deployments.undeploy(platform.principal("bob"), deployment_id=1)

    for gone in (path, "/v1/api/pipelines/infer/rental-99/rental", "/v1/api/pipelines/infer/x/y"):
        answered = api.send("bob", "POST", gone, json=[])
        assert (answered.status_code, answered.json()["status"]) == (404, "error")
    assert replica.seen == []


def test_another_name_behind_a_running_label_is_404(api: Api, platform: Platform) -> None:
    path, replica = running(api, platform, lambda _: httpx.Response(200))

    assert api.send("bob", "POST", f"{path}x", json=[]).status_code == 404
    assert replica.seen == []


# --- logs -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def topic(platform: Platform) -> str:
    """A log of three rows, of a pipeline of bob's."""
    workspace = platform.workspace("bob")
    platform.pipeline("bob", workspace)
    name = topic_of(workspace, "rental")
    writer = SegmentLogWriter(platform.home / "logs", name, topic_of(workspace, "rental", failures=True), "engine-1")
    writer.append(log_rows([1_000, 2_000, 3_000]))
    writer.close()
    return name


def numbers(records: list[dict[str, Any]]) -> list[int]:
    return [r["in"]["number"] for r in records]


def test_pages_of_a_log_follow_each_other_by_their_cursor(api: Api, platform: Platform, topic: str) -> None:
    asked = {"pipeline_name": "rental", "workspace_id": 1, "page_size": 2}

    first = api.send("bob", "POST", "/v1/api/pipelines/get_logs", json=asked)
    cursor = first.headers["x-iteration-cursor"]
    rest = api.send("bob", "POST", "/v1/api/pipelines/get_logs", json={**asked, "cursor": cursor})

    assert (numbers(first.json()), first.headers["x-iteration-status"]) == ([2, 1], "RecordLimited")
    assert (numbers(rest.json()), rest.headers["x-iteration-status"]) == ([0], "All")
    assert "x-iteration-cursor" not in rest.headers


def test_a_topic_answers_arrow_with_its_status_in_the_schema(api: Api, topic: str) -> None:
    answered = api.send(
        "bob",
        "POST",
        f"/v1/logs/topic/{topic}/records?page_size=2&order=desc&dataset[]=*&dataset.separator=.",
        json={},
        headers={"Accept": "application/vnd.apache.arrow.file"},
    )

    with pa.ipc.open_file(io.BytesIO(answered.content)) as file:
        table = file.read_all()
    status = orjson.loads(table.schema.metadata[b"status"])
    assert table["in.number"].to_pylist() == [2, 1]
    assert status == {"status": "RecordLimited", "next": {"cursor": answered.headers["x-iteration-cursor"]}}


def test_records_are_nested_or_flat_and_hold_the_columns_asked_for(api: Api, topic: str) -> None:
    path = f"/v1/logs/topic/{topic}/records?dataset[]=time&dataset[]=out"

    nested = api.send("bob", "POST", path, json={}).json()
    flat = api.send("bob", "POST", f"{path}&dataset.separator=.", json={}).json()

    assert nested[0] == {"time": 1000, "out": {"forecast": [0.0]}}
    assert flat[0] == {"time": 1000, "out.forecast": [0.0]}


def test_an_empty_log_is_an_empty_page(api: Api, platform: Platform, topic: str) -> None:
    failures = topic.replace("-inference", "-failures")
    arrow = {"Accept": "application/vnd.apache.arrow.file"}

    assert api.send("bob", "POST", f"/v1/logs/topic/{failures}/records", json={}).json() == []
    answered = api.send("bob", "POST", f"/v1/logs/topic/{failures}/records", json={}, headers=arrow)
    with pa.ipc.open_file(io.BytesIO(answered.content)) as file:
        assert file.read_all().num_rows == 0


def test_a_topic_tells_its_size_and_a_pipeline_its_topic(api: Api, topic: str) -> None:
    told = api.send("bob", "GET", f"/v1/logs/topic/{topic}").json()
    api.check_shape("/v1/logs/topic/{topic}", told)

    assert told["partitions"] == {"engine-1": {"start": 0, "end": 3}}
    assert told["bytes"] > 0
    assert api.ok("bob", "/v1/api/plateau/get_topic_name", {"pipeline_name": "rental"}) == {"topic_name": topic}


@pytest.mark.parametrize(
    "query", ["page_size=0", "page_size=10001", "order=up", "time.start=2024-10-29T20:52:00", "dataset[]=nonsense"]
)
def test_a_log_query_that_does_not_hold_is_400(api: Api, topic: str, query: str) -> None:
    answered = api.send("bob", "POST", f"/v1/logs/topic/{topic}/records?{query}", json={})

    assert (answered.status_code, answered.json()["error"]) == (400, "bad_input")


def test_a_query_over_logs_comes_back_as_an_arrow_stream(api: Api, platform: Platform, topic: str) -> None:
    query = {"query": """select count(*) as rows, max("in.number") as highest from logs('rental')"""}

    answer = api.send("ann", "POST", "/v1/api/logs/sql", json=query)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert pa.ipc.open_stream(answer.content).read_all().num_rows == 1


@pytest.mark.parametrize("workspace", [None, 1, 999])
def test_to_a_stranger_the_log_in_a_query_is_not_found_as_one_that_is_not_there(
    api: Api, topic: str, workspace: int | None
) -> None:
    asked = [("rental", "from logs('rental')"), ("nothing", "from logs('nothing')")]
    asked.append(("rental", "select 1 from logs('rental', valid := false)"))
    told = [
        (name, api.send("eve", "POST", "/v1/api/logs/sql", json={"query": query, "workspace_id": workspace}))
        for name, query in asked
    ]

    assert [answer.status_code for _, answer in told] == [404, 404, 404]
    assert len({answer.json()["msg"].replace(f"'{name}'", "it") for name, answer in told}) == 1


@pytest.mark.parametrize(
    ("query", "status", "words"),
    [
        (
            "select 1",
            400,
            "Only a SELECT over logs('pipeline-name') is taken, and this query names no log. Such as: select",
        ),
        (
            "selec 1",
            400,
            "Only a SELECT over logs('pipeline-name') is taken, and this query names no log. Such as: select",
        ),
        ("read_csv('/etc/passwd')", 400, "Only a SELECT over logs('pipeline-name') is taken"),
        ("delete from logs('rental')", 400, "is taken, and this query is none. Such as: select count(*) from logs("),
        ("create table t as from logs('rental')", 400, "is taken, and this query is none."),
        ("(/* a */ select cout(* from logs('rental')", 400, "The query is no SQL: syntax error"),
        ("from logs('retnal')", 404, "no pipeline 'retnal' that you may see. Did you mean 'rental'?"),
        ("select * from logs('rental'), read_text('/etc/passwd')", 400, "table function 'read_text'"),
        ("select * from logs('rental'), range(100000000)", 413, "more than 1,000,000 rows"),
        ("x" * 100_001, 400, "has 100001 characters"),
        (" ".join(f"from logs('p{n}')" for n in range(11)), 400, "names 11 logs"),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused_in_words(
    api: Api, topic: str, query: str, status: int, words: str
) -> None:
    answer = api.send("ann", "POST", "/v1/api/logs/sql", json={"query": query})

    assert answer.status_code == status
    assert words in answer.json()["msg"]
