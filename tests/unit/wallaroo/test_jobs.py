"""Jobs from a notebook: looked at, waited for, cancelled, and shown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from unit.wallaroo.stub import CREATED, UUIDS, Reply, StubPlatform, error

from wallaroo._wait import Clock, Screen
from wallaroo.job import Job, JobProgress, make
from wallaroo.object import CommunicationError, EntityNotFoundError, JobError, RequestRefused, WaitForError

if TYPE_CHECKING:
    from unit.wallaroo.stub import FakeClock

    from wallaroo import Client

ID = UUIDS[0]
ROOT = "/v1/api/jobs"


def record(state: str = "running", done: int = 0, total: int | None = 200, **more: Any) -> dict[str, Any]:
    progress = {"rows_read": done, "rows_written": done, "rows_rejected": 0, "rows_total": total}
    return {
        "id": ID,
        "kind": "infer_batch",
        "state": state,
        "workspace_id": 1,
        "pipeline_name": "rental",
        "created_by": "ann",
        "created_at": CREATED,
        "started_at": CREATED,
        "ended_at": CREATED if state in ("succeeded", "failed", "cancelled") else None,
        "attempts": 1,
        "cancel_asked": False,
        "guarantee": "exactly once: each batch and its checkpoint are kept in one transaction",
        "progress": progress,
        "result": {"rows": done} if state == "succeeded" else None,
        "error": "",
        "request": {"keys": ["day"]},
        **more,
    }


def says(*records: dict[str, Any]) -> list[Reply]:
    return [Reply({"job": each}) for each in records]


@pytest.fixture
def job(client: Client) -> Job:
    return Job(client, {"id": ID})


def test_a_wait_shows_how_far_it_is_and_returns_the_job(
    job: Job, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(f"{ROOT}/{ID}", *says(record("pending"), record(done=50), record("succeeded", 200)))

    assert job.wait() is job

    shown = capsys.readouterr().out
    assert "25%  50 of 200 rows" in shown
    assert "100%  200 of 200 rows  succeeded" in shown
    assert job.result() == {"rows": 200}
    asked = len(platform.calls(f"{ROOT}/{ID}"))
    assert job.progress().share == 1.0
    assert len(platform.calls(f"{ROOT}/{ID}")) == asked  # an ended job is asked no more


def test_a_job_that_fails_while_it_is_waited_for_raises_its_reason(job: Job, platform: StubPlatform) -> None:
    failed = record("failed", error="The rows have no column 'amout'. Name another.")
    platform.on(f"{ROOT}/{ID}", *says(record(), failed))

    with pytest.raises(JobError, match=r"failed: The rows have no column 'amout'. Name another."):
        job.wait()

    assert (job.state(), job.error()) == ("failed", "The rows have no column 'amout'. Name another.")


def test_a_wait_for_a_batch_that_could_not_do_some_rows_ends_with_a_warning(
    job: Job, platform: StubPlatform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = {"rows_read": 5_000, "rows_written": 4_999, "rows_rejected": 1, "rows_total": 5_000}
    platform.on(f"{ROOT}/{ID}", *says(record("succeeded", progress=counts)))
    words = "1 of 5,000 rows was rejected: job.rejects() has it, with its reason."

    assert job.wait().state() == "succeeded"
    assert capsys.readouterr().out.endswith(f"succeeded\nWarning: {words}\n")
    assert words in repr(job)

    monkeypatch.setattr(job._client, "_screen", Screen(shown=False, logged=True))
    job.wait()
    assert capsys.readouterr().err == f"Warning: job {ID}: {words}\n"


def stream(state: str = "running", **more: Any) -> dict[str, Any]:
    """A stream that has answered five of ten messages, and dead-lettered the others, unless `more` says otherwise."""
    counts = {"messages_in": 10, "predictions_out": 5, "dead_lettered": 5, "rejected": 0, "answered_before": 0}
    told = {"dead_letter": "live-failed", "last_reason": "Row 0 lacks the column 'x'.", "waiting_for": None, "lag": 3}
    progress = {"rows_read": 10, "rows_written": 5, "rows_rejected": 5, **counts, **told, **more}
    return record(state, kind="infer_stream", progress=progress)


def test_a_stream_tells_what_became_of_its_messages_where_they_went_and_why(
    job: Job, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(f"{ROOT}/{ID}", *says(stream(), stream("cancelled")))
    told = "5 answered, 5 dead-lettered to 'live-failed', 0 rejected"
    assert f"running  {told.replace(', ', '  ')}  3 waiting" in repr(job)
    warning = "5 of 10 messages were dead-lettered to 'live-failed'. The last: Row 0 lacks the column 'x'."

    assert job.wait().state() == "cancelled"

    assert capsys.readouterr().out.endswith(f"Warning: {warning}\n")
    assert warning in repr(job)
    platform.on(f"{ROOT}/list", {"jobs": [stream()], "more": False})
    assert f"<td>{told}, 3 waiting</td>".replace("'", "&#x27;") in job._client.list_jobs()._repr_html_()


def test_a_stream_that_keeps_its_rejects_says_where_they_are(
    job: Job, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = {"dead_letter": None, "dead_lettered": 0, "rejected": 1}
    platform.on(f"{ROOT}/{ID}", *says(stream("cancelled", **kept)))

    job.wait()

    assert "Warning: 1 of 10 messages was rejected: job.rejects() has it. The last: Row 0" in capsys.readouterr().out


@pytest.mark.parametrize(("refused", "why"), [(False, ""), (True, ", which refuses the login,")])
def test_a_stream_that_waits_says_for_what_and_since_when_and_no_lag(
    refused: bool, why: str, job: Job, platform: StubPlatform
) -> None:
    away = {"what": "REDIS 'broker' (source)", "login_refused": refused, "since": "2026-11-30T23:08:43+00:00"}
    platform.on(f"{ROOT}/{ID}", *says(stream(waiting_for=away, lag=None)))

    assert f"0 rejected  waiting for REDIS 'broker' (source){why} since 23:08:43 UTC" in repr(job)
    ended = JobProgress(stream(waiting_for=away)["progress"], "failed")
    assert "waiting" not in str(ended)


def test_what_a_maker_should_know_is_told_when_a_job_is_made(
    client: Client, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(f"{ROOT}/infer_stream", {"job": record(warning="Topic 'orders' is answered already.")})

    make(client, "infer_stream", {})

    assert capsys.readouterr().out == "Warning: Topic 'orders' is answered already.\n"


def test_a_job_that_did_everything_is_not_warned_about(
    client: Client, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    for known in (record("succeeded", 200), stream("cancelled", dead_lettered=0)):
        platform.on(f"{ROOT}/{ID}", *says(known))
        waited = Job(client, {"id": ID}).wait()
        assert "job.rejects()" not in repr(waited)

    assert "Warning" not in capsys.readouterr().out


def test_a_cancelled_job_is_no_error(job: Job, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/{ID}/cancel", {"job": record(cancel_asked=True)})
    platform.on(f"{ROOT}/{ID}", *says(record(), record("cancelled", 10)))

    assert job.cancel().wait().state() == "cancelled"


def test_a_wait_that_is_too_short_says_so_and_leaves_the_job_alone(
    job: Job, platform: StubPlatform, clock: FakeClock
) -> None:
    platform.on(f"{ROOT}/{ID}", *says(record(done=10)))

    with pytest.raises(WaitForError, match="has not ended within 5 s; it goes on") as late:
        job.wait(timeout=5)

    assert late.value.status == {"rows_read": 10, "rows_written": 10, "rows_rejected": 0, "rows_total": 200}
    assert platform.calls(f"{ROOT}/{ID}/cancel") == []


def test_a_platform_that_restarts_meanwhile_is_waited_for_and_one_that_is_gone_is_not(
    job: Job, platform: StubPlatform, clock: FakeClock, capsys: pytest.CaptureFixture[str]
) -> None:
    away = [error(503, "Starting."), Reply(hang_up=True)]
    platform.on(f"{ROOT}/{ID}", *says(record()), *away, *says(record("succeeded", 200)))
    assert job.wait().state() == "succeeded"

    assert "The platform does not answer; waiting for it" in capsys.readouterr().out

    gone = Job(job._client, {"id": ID})
    platform.on(f"{ROOT}/{ID}", Reply(hang_up=True))
    began_s = clock.now_s()
    with pytest.raises(CommunicationError):
        gone.wait()
    assert 120 <= clock.now_s() - began_s < 130


def test_an_interrupted_wait_leaves_the_job_alone_and_says_how_to_find_it(
    job: Job, platform: StubPlatform, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(f"{ROOT}/{ID}", *says(record(done=10)))

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(job._client, "_clock", Clock(lambda: 0.0, interrupt))
    with pytest.raises(KeyboardInterrupt) as interrupted:
        job.wait()

    assert [frame.name for frame in interrupted.traceback][1:] == ["quiet"]  # one of ours, however deep it waited
    assert interrupted.value.__context__ is None or interrupted.value.__suppress_context__
    assert capsys.readouterr().out.endswith(f"wl.get_job('{ID}') finds it, its cancel() stops it.\n")
    assert platform.calls(f"{ROOT}/{ID}/cancel") == []


def test_a_script_is_told_in_which_state_a_job_without_rows_ended(
    job: Job,
    platform: StubPlatform,
    clock: FakeClock,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    platform.on(f"{ROOT}/{ID}", *says(*[record(progress=None)] * 12, record("cancelled", progress=None)))
    monkeypatch.setattr(job._client, "_screen", Screen(shown=False, logged=True))

    job.wait()

    assert f"Job {ID} cancelled after " in capsys.readouterr().err


def test_a_stream_says_how_much_waits_as_long_as_it_runs_and_its_broker_can_tell() -> None:
    counts = {"rows_read": 7, "rows_written": 7, "rows_rejected": 0, "lag": 1200}

    assert str(JobProgress(counts, "running")) == "running  7 rows  1,200 waiting"
    assert "waiting" not in str(JobProgress({**counts, "lag": None}, "running"))
    assert "waiting" not in str(JobProgress(counts, "cancelled"))


def test_rows_that_were_only_rejected_are_not_shown_as_done() -> None:
    counts = {"rows_read": 50, "rows_written": 0, "rows_rejected": 50, "rows_total": None}

    assert str(JobProgress(counts, "succeeded")).endswith("0 rows  50 rejected")
    assert str(JobProgress({"rows_written": 1}, "failed")) == "failed  1 row"


def test_a_job_that_is_none_is_not_waited_for(job: Job, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/{ID}", error(404, "There is no such job."))

    with pytest.raises(EntityNotFoundError):
        job.wait()


def test_progress_is_a_dict_that_shows_itself(job: Job, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/{ID}", *says(record(done=100)))

    progress = job.progress()

    assert (progress["rows_read"], progress["rows_total"], progress.share) == (100, 200, 0.5)
    assert str(progress) == f"[{'#' * 15}{'.' * 15}]  50%  100 of 200 rows"
    assert progress._repr_html_() == '<progress value="0.5000" max="1"></progress> running, 100 of 200 rows'
    endless = JobProgress({"rows_read": 7, "rows_rejected": 2, "rows_total": None}, "running")
    assert (str(endless), endless.share) == ("running  7 rows  2 rejected", None)
    stream = JobProgress({"messages_in": 1200, "predictions_out": 1199, "group": "g"}, "running")
    assert str(stream) == "running  1,200 messages in  1,199 predictions out"


def test_its_log_its_rejects_and_its_rows_are_read_from_the_platform(job: Job, platform: StubPlatform) -> None:
    rows = pa.table({"day": [3], "reason": ["no number"]})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    platform.on(f"{ROOT}/{ID}/log", {"lines": [{"seq": 1, "at": CREATED, "text": "Attempt 1 begins."}]})
    platform.on(f"{ROOT}/{ID}/rejects", Reply(bytes(sink.getvalue())))
    platform.on(f"{ROOT}/{ID}/result", Reply(bytes(sink.getvalue())))

    assert job.logs() == ["Attempt 1 begins."]
    assert job.rejects().to_dict("records") == [{"day": 3, "reason": "no number"}]
    assert job.rows(as_="arrow").equals(rows)


def test_rejects_of_a_stream_with_dead_letters_say_where_they_went(
    client: Client, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, pa.schema([])):
        pass
    platform.on(f"{ROOT}/{ID}/rejects", Reply(bytes(sink.getvalue())))

    assert len(Job(client, stream()).rejects()) == 0

    assert "are in topic 'live-failed', each with the reason in its header bettong-error" in capsys.readouterr().out


def test_jobs_are_listed_and_found_by_their_id(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/list", {"jobs": [record(done=10)], "more": True})
    platform.on(f"{ROOT}/{ID}", *says(record()))

    listed = client.list_jobs(unended=True, kind="infer_batch", limit=1)

    assert platform.calls(f"{ROOT}/list")[-1].json == {"unended": True, "limit": 1, "kind": "infer_batch"}
    assert "10 of 200 rows" in repr(listed)
    assert repr(listed).endswith("(there are older ones: pass a higher limit, or limit=None for all)")
    assert "<td>infer_batch</td><td>rental</td><td>running</td>" in listed._repr_html_()
    assert client.get_job(ID).guarantee().startswith("exactly once")


def test_the_first_characters_of_an_id_will_do(client: Client, platform: StubPlatform) -> None:
    first, second = "7d2c1111-0000-4000-8000-000000000001", "7d2c2222-0000-4000-8000-000000000002"
    pages = [{"jobs": [{**record(), "id": name}], "more": name == first} for name in (first, second)]
    platform.on(f"{ROOT}/list", *pages * 4)

    assert client.get_job("7d2c1").id() == first
    assert client.get_job("7d2c2").id() == second
    with pytest.raises(ValueError, match=r"The ids of 2 jobs begin with '7d2c'\. Give more of it: wl\.list_jobs\(\)"):
        client.get_job("7d2c")
    with pytest.raises(EntityNotFoundError, match=r"^Job not found: \{'id': 'nope'\}\. wl\.list_jobs\(\) shows those"):
        client.get_job("nope")


def test_an_id_that_is_none_is_repeated_with_what_to_do(client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/{ID}", error(404, "There is no such job."))

    with pytest.raises(EntityNotFoundError, match=rf"^Job not found: \{{'id': '{ID}'\}}\. wl\.list_jobs\(\) shows"):
        client.get_job(ID)
    with pytest.raises(
        EntityNotFoundError, match=r"'730'\}\. Give at least the first 4 characters of its id; wl\.list"
    ):
        client.get_job("730")
    with pytest.raises(TypeError, match="The id is of type int"):
        client.get_job(7305)  # type: ignore[arg-type]


def test_a_refusal_says_what_was_refused(job: Job, client: Client, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/list", error(400, "Field 'kind' is not 'replay'."))
    platform.on(f"{ROOT}/{ID}/rejects", error(404, "They are kept no longer."))

    with pytest.raises(RequestRefused, match=r"^Failed to list jobs: Field 'kind'"):
        client.list_jobs(kind="nope")
    with pytest.raises(RequestRefused, match=rf"^Failed to read the rows of job {ID}: They are kept no longer\.$"):
        job.rejects()


def test_a_list_of_jobs_goes_on_from_page_to_page_as_far_as_is_asked(client: Client, platform: StubPlatform) -> None:
    pages = [{"jobs": [{**record(), "id": name} for name in names], "more": True} for names in ("ab", "cd")]
    platform.on(f"{ROOT}/list", *pages, {"jobs": [{**record(), "id": "e"}], "more": False})

    found = client.list_jobs(limit=None)

    assert [job.id() for job in found] == ["a", "b", "c", "d", "e"]
    assert [call.json.get("after") for call in platform.calls(f"{ROOT}/list")] == [None, "b", "d"]
    assert not found.more
    platform.on(f"{ROOT}/list", pages[0])
    assert [job.id() for job in client.list_jobs(limit=2, after=found[-1])] == ["a", "b"]
    assert platform.calls(f"{ROOT}/list")[-1].json["after"] == "e"


def test_a_job_shows_itself_with_what_one_wants_to_know(job: Job, platform: StubPlatform) -> None:
    platform.on(f"{ROOT}/{ID}", *says(record("failed", 10, error="<the reason>")))

    assert "&lt;the reason&gt;" in job._repr_html_()
    assert "<td>Guarantee</td><td>exactly once" in job._repr_html_()
    for text in (ID, "rental", "failed", "10 of 200 rows", "<the reason>"):
        assert text in repr(job)
