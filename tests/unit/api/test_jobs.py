"""Jobs over the API: what is checked before there is one, who sees it, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from bettong.domain.jobs import JobKind, JobState
from bettong.errors import Forbidden, NotFound
from bettong.jobs.retention import keep_within

if TYPE_CHECKING:
    from platform_kit import Api, Platform

API = "/v1/api/jobs"
DETAILS = {"database": "d", "password": "marker-5c1"}


@dataclass
class Things:
    """What bob has, for a batch inference from one table in memory to another."""

    workspace: int
    pipeline: int
    version: str
    connection: str

    def batch(self, **more: Any) -> dict[str, Any]:
        end = {"connection_id": self.connection}
        asked = {"source": {**end, "query": "days"}, "sink": {**end, "table": "forecasts"}}
        return {"pipeline_id": self.pipeline, **asked, **more}


@pytest.fixture
def things(platform: Platform) -> Things:
    workspace = platform.workspace("bob")
    bob = platform.principal("bob")
    version = platform.pipeline("bob", workspace, platform.model("bob", workspace))
    connection = platform.services.connections.create(bob, "warehouse", "memory", DETAILS)
    return Things(workspace, version.pipeline_id, version.version, connection.id)


def test_a_job_is_made_with_everything_that_it_names_resolved(api: Api, platform: Platform, things: Things) -> None:
    job = api.ok("bob", f"{API}/infer_batch", things.batch(keys=["day"], max_rejects=0.05))["job"]

    assert (job["kind"], job["state"], job["workspace_id"], job["pipeline_name"]) == (
        "infer_batch",
        "pending",
        things.workspace,
        "rental",
    )
    assert job["request"]["pipeline_version"] == things.version
    assert job["request"]["max_rejects"] == 0.05
    assert job["guarantee"].startswith("at least once")
    assert (job["attempts"], job["progress"], job["result"], job["error"]) == (0, None, None, "")
    kept = platform.stores.jobs.get(job["id"])
    assert (kept.kind, kept.state, kept.connection_ids) == (
        JobKind.INFER_BATCH,
        JobState.PENDING,
        (things.connection,),
    )
    assert DETAILS["password"] not in str(kept)


def test_each_connection_of_a_job_is_audited_with_what_it_is_for(api: Api, platform: Platform, things: Things) -> None:
    job = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]
    platform.services.jobs.equipment(platform.stores.jobs.get(job["id"]))

    events = api.ok("bob", "/v1/api/connections/audit", {"id": things.connection})["events"]
    said = [event["detail"] for event in events if event["action"] == "connection.job"]
    assert said == [
        f"infer_batch job {job['id']} runs, with it as sink (attempt 0)",
        f"infer_batch job {job['id']} runs, with it as source (attempt 0)",
        f"infer_batch job {job['id']} was made, with it as sink",
        f"infer_batch job {job['id']} was made, with it as source",
    ]
    assert api.ok("bob", "/v1/api/connections/used_by", {"id": things.connection})["jobs"][0]["id"] == job["id"]


def test_what_cannot_be_done_is_refused_before_there_is_a_job(api: Api, platform: Platform, things: Things) -> None:
    bob = platform.principal("bob")
    stored_only = platform.services.connections.create(bob, "mailbox", "IMAP", {}).id
    unready = platform.pipeline(
        "bob", things.workspace, platform.model("bob", things.workspace, "other", ready=False), name="unready"
    )
    refused = {
        "driver knows it": things.batch(source={"connection_id": stored_only, "query": "x"}),
        "is not ready": things.batch(pipeline_id=unready.pipeline_id),
        "Upsert needs key columns": things.batch(
            sink={"connection_id": things.connection, "table": "t", "mode": "upsert"}
        ),
        "or which share of them, such as 0.05": things.batch(max_rejects=1.5),
        "'max_rejects' is no number": things.batch(max_rejects="few"),
        "which the pipeline does not take": things.batch(map={"amout": "n"}),
        "'source' is missing": {"pipeline_id": things.pipeline, "sink": things.batch()["sink"]},
        "not one of pipeline": things.batch(pipeline_id=unready.pipeline_id, pipeline_version=things.version),
    }

    answers = {words: api.post("bob", f"{API}/infer_batch", body) for words, body in refused.items()}
    streamed = {"pipeline_id": things.pipeline, "source": {"connection_id": things.connection, "topic": "t"}}
    stream = api.post("bob", f"{API}/infer_stream", {**streamed, "sink": {"connection_id": things.connection}})

    assert {words: a.status_code for words, a in answers.items()} == dict.fromkeys(refused, 400)
    assert [words for words, a in answers.items() if words not in a.json()["msg"]] == []
    assert (stream.status_code, "which cannot consume" in stream.json()["msg"]) == (400, True)
    assert api.ok("bob", f"{API}/list")["jobs"] == []


def test_the_deployed_version_is_taken_unless_another_is_named(api: Api, platform: Platform, things: Things) -> None:
    bob = platform.principal("bob")
    newer = platform.pipeline("bob", things.workspace, platform.model("bob", things.workspace, "newer")).version

    newest = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]
    platform.services.deployments.deploy(bob, "rental", {}, pipeline_version=things.version)
    deployed = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]
    named = api.ok("bob", f"{API}/infer_batch", things.batch(pipeline_version=newer))["job"]

    versions = [job["request"]["pipeline_version"] for job in (newest, deployed, named)]
    assert versions == [newer, things.version, newer]


def test_a_version_that_is_none_is_repeated_with_those_that_there_are(
    api: Api, platform: Platform, things: Things
) -> None:
    newer = platform.pipeline("bob", things.workspace, platform.model("bob", things.workspace, "newer")).version

    far = api.post("bob", f"{API}/infer_batch", things.batch(pipeline_version="nope"))
    near = api.post("bob", f"{API}/infer_batch", things.batch(pipeline_version=newer[:-1]))

    assert (far.status_code, near.status_code) == (404, 404)
    assert far.json()["msg"] == (
        f"There is no pipeline version 'nope' that you may see. There are: '{newer}', '{things.version}'."
    )
    assert near.json()["msg"].endswith(f"Did you mean '{newer}'?")


def test_jobs_are_listed_newest_first_by_kind_workspace_and_state(api: Api, things: Things) -> None:
    first = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]
    second = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]
    cancelled = api.send("bob", "POST", f"{API}/{first['id']}/cancel", json={}).json()["job"]

    def listed(**asked: Any) -> list[str]:
        return [job["id"] for job in api.ok("bob", f"{API}/list", asked)["jobs"]]

    assert cancelled["state"] == "cancelled"
    assert listed() == [second["id"], first["id"]]
    assert listed(unended=True) == [second["id"]]
    assert listed(workspace_id=things.workspace, limit=1) == [second["id"]]
    assert listed(kind="replay") == []


def test_jobs_are_listed_in_pages_also_when_they_end_meanwhile(api: Api, things: Things) -> None:
    made = [api.ok("bob", f"{API}/infer_batch", things.batch())["job"]["id"] for _ in range(5)]

    pages: list[list[str]] = []
    after: dict[str, str] = {}
    while True:
        page = api.ok("bob", f"{API}/list", {"unended": True, "limit": 2, **after})
        pages.append([job["id"] for job in page["jobs"]])
        if not page["more"]:
            break
        after = {"after": pages[-1][-1]}
        api.send("bob", "POST", f"{API}/{pages[-1][-1]}/cancel", json={})

    newest_first = made[::-1]
    assert pages == [newest_first[:2], newest_first[2:4], newest_first[4:]]
    for who, job_id in (("bob", "0" * 36), ("eve", made[0])):
        lost = api.post(who, f"{API}/list", {"after": job_id})
        assert (lost.status_code, "List from the start again" in lost.json()["msg"]) == (404, True)


def test_members_see_and_cancel_a_job_and_strangers_find_none(api: Api, things: Things) -> None:
    job = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]
    paths = [("GET", ""), ("GET", "/log"), ("GET", "/rejects"), ("GET", "/result"), ("POST", "/cancel")]

    def statuses(who: str, job_id: str) -> set[int]:
        return {api.send(who, method, f"{API}/{job_id}{path}").status_code for method, path in paths}

    hidden = api.send("eve", "GET", f"{API}/{job['id']}").json()["msg"]
    absent = api.send("eve", "GET", f"{API}/{'0' * 36}").json()["msg"]
    assert statuses("eve", job["id"]) == {404}
    assert (
        hidden
        == absent.replace("0" * 36, job["id"])
        == (f"There is no job '{job['id']}' that you may see. List the jobs to see which there are.")
    )
    assert api.ok("eve", f"{API}/list") == {"jobs": [], "more": False}
    api.ok("bob", "/v1/api/workspaces/add_user", {"workspace_id": things.workspace, "email": "eve@example.org"})
    assert statuses("eve", job["id"]) == {200}


def test_its_log_is_read_on_from_where_one_stopped(api: Api, platform: Platform, things: Things) -> None:
    job_id = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]["id"]
    platform.stores.jobs.append_log(job_id, ["one", "two", "three"])

    def read(query: str) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = api.send("bob", "GET", f"{API}/{job_id}/log{query}").json()["lines"]
        return lines

    everything = read("")
    assert [line["text"] for line in everything] == ["one", "two", "three"]
    assert [line["text"] for line in read(f"?after={everything[0]['seq']}")] == ["two", "three"]
    assert [line["text"] for line in read("?limit=1")] == ["three"]
    assert api.send("bob", "GET", f"{API}/{job_id}/log?limit=0").status_code == 400


def test_its_rejects_come_as_an_arrow_stream(api: Api, platform: Platform, things: Things) -> None:
    job_id = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]["id"]
    rows = pa.table({"day": [3], "reason": ["no number"]})
    folder = platform.home / "jobs" / job_id
    folder.mkdir(parents=True)
    with pa.ipc.new_stream(str(folder / "rejects-1.arrow"), rows.schema) as writer:
        writer.write_table(rows)

    answer = api.send("bob", "GET", f"{API}/{job_id}/rejects")

    assert answer.headers["content-type"] == "application/vnd.apache.arrow.stream"
    assert pa.ipc.open_stream(answer.content).read_all().equals(rows)
    assert pa.ipc.open_stream(api.send("bob", "GET", f"{API}/{job_id}/result").content).read_all().num_rows == 0


def test_rows_that_went_because_all_took_too_much_are_said_to_have_gone(
    api: Api, platform: Platform, things: Things
) -> None:
    job_id = api.ok("bob", f"{API}/infer_batch", things.batch())["job"]["id"]
    platform.stores.jobs.ask_cancel(job_id)
    folder = platform.home / "jobs"
    (folder / job_id).mkdir(parents=True)
    (folder / job_id / "rejects-1.arrow").write_bytes(b"rows")
    keep_within(platform.stores.jobs, folder, datetime.now(UTC) + timedelta(days=1), most_bytes=1)

    answer = api.send("bob", "GET", f"{API}/{job_id}/rejects")

    assert (answer.status_code, "have the operator keep more: BETTONG_JOB_BYTES" in answer.json()["msg"]) == (404, True)


@pytest.mark.parametrize("job_id", ["..", "..%2f..%2ftoken", "nowhere", "0" * 65, "%2e%2e"])
def test_what_is_no_id_of_a_job_leads_nowhere(api: Api, job_id: str) -> None:
    assert api.send("ann", "GET", f"{API}/{job_id}/rejects").status_code == 404


def test_a_job_has_the_rights_that_its_maker_has_when_it_runs(api: Api, platform: Platform, things: Things) -> None:
    api.ok("bob", "/v1/api/workspaces/add_user", {"workspace_id": things.workspace, "email": "eve@example.org"})
    link = {"workspace_id": things.workspace, "connection_id": things.connection}
    api.ok("bob", "/v1/api/connections/add_to_workspace", link)
    job = platform.stores.jobs.get(api.ok("eve", f"{API}/infer_batch", things.batch())["job"]["id"])
    jobs = platform.services.jobs

    assert jobs.equipment(job) == {role: ("memory", DETAILS) for role in ("source", "sink")}
    assert jobs.titles(job) == {role: "memory 'warehouse'" for role in ("source", "sink")}
    api.ok("bob", "/v1/api/connections/remove_from_workspace", link)
    with pytest.raises(NotFound, match=r"as its source was deleted, or is no longer linked .* Link it again"):
        jobs.equipment(job)
    api.ok("bob", "/v1/api/workspaces/remove_user", {"workspace_id": things.workspace, "email": "eve@example.org"})
    with pytest.raises(Forbidden, match="no longer a member"):
        jobs.equipment(job)
    api.ok("ann", "/v1/api/users/deactivate", {"email": "eve@example.org"})
    with pytest.raises(Forbidden, match="deactivated"):
        jobs.equipment(job)
