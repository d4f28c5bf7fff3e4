"""Jobs on a real server, in real processes: what is killed goes on, what is cancelled stops, nothing is given away."""

from __future__ import annotations

import base64
import json
import os
import signal
from typing import TYPE_CHECKING
from urllib.parse import quote

import psutil
import pytest
from job_kit import PASSWORD, JobPlatform, alive, eventually, job_platform
from platforms import bettong, processes_of

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JobPlatform]:
    """One platform for the tests that leave its server alone."""
    with job_platform(tmp_path_factory.mktemp("shared")) as made:
        yield made


@pytest.fixture
def platform(shared: JobPlatform, tmp_path: Path) -> JobPlatform:
    """The shared one, with gates of the test's own."""
    shared.gates = tmp_path
    return shared


@pytest.fixture
def own(tmp_path: Path) -> Iterator[JobPlatform]:
    """A platform of the test's own, to break."""
    with job_platform(tmp_path) as made:
        yield made


def deployments_of_jobs(platform: JobPlatform) -> list[str]:
    return sorted(path.name for path in (platform.home / "deployments").iterdir() if path.name.startswith("job-"))


def test_a_job_does_its_work_in_a_process_of_its_own_and_leaves_its_rows(platform: JobPlatform) -> None:
    job_id = platform.make()
    platform.let(0, 1)
    _, attempt, pid = platform.done_to(1)

    running = eventually(
        lambda: (j := platform.job(job_id))["progress"] and j["progress"]["rows_read"] == 2 and j, "told"
    )
    assert (running["state"], running["guarantee"], attempt) == ("running", "each step once", 1)
    assert (running["progress"]["rows_written"], running["progress"]["rows_total"]) == (2, 6)
    assert "bettong.jobs._child" in psutil.Process(pid).cmdline()
    assert platform.rows(job_id, "rejects").to_pylist() == [{"step": 1, "reason": "an odd number"}]  # while it runs
    assert deployments_of_jobs(platform) == [f"job-{job_id[:8]}"]

    platform.let(2, 3, 4, 5)
    ended = platform.ended(job_id)

    columns = ["time", "in.tensor", "out.variable", "anomaly.count"]
    assert (ended["state"], ended["result"]) == ("succeeded", {"rows": 6, "attempt": 1, "columns": columns})
    assert platform.rows(job_id, "result").column("step").to_pylist() == list(range(6))
    assert platform.log(job_id) == ["Attempt 1 begins.", "begins at step 0 of 6", "It is done."]
    assert deployments_of_jobs(platform) == []
    assert not alive(pid)


def test_what_a_job_asks_is_in_no_inference_log(platform: JobPlatform) -> None:
    platform.let(*range(6))

    platform.ended(platform.make())

    assert [path for path in (platform.home / "logs").rglob("*") if path.is_file()] == []


def test_a_killed_process_is_replaced_and_the_job_goes_on_from_its_last_place(platform: JobPlatform) -> None:
    job_id = platform.make()
    platform.let(0, 1, 2)
    _, _, pid = platform.done_to(2)
    eventually(lambda: (platform.job(job_id)["progress"] or {}).get("rows_read") == 3, "its place was kept")

    os.kill(pid, signal.SIGKILL)
    platform.let(3, 4, 5)
    ended = platform.ended(job_id)

    assert (ended["state"], ended["attempts"]) == ("succeeded", 2)
    assert [(step, attempt) for step, attempt, _ in platform.steps()] == [
        (0, 1),
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
        (5, 2),
    ]
    assert "The job's process ended by signal 9. Trying again in 2 s." in platform.log(job_id)
    assert platform.rows(job_id, "result").column("step").to_pylist() == list(range(6))


def test_each_attempt_of_a_job_names_the_job_in_the_audit_of_its_connection(platform: JobPlatform) -> None:
    platform.let(*range(6))
    job_id = platform.make(misfortune={"1": "unavailable"})
    platform.ended(job_id)

    events = platform.post("connections/audit", {"id": platform.connection_id})["events"]
    own = [event for event in events if job_id in event["detail"]]

    assert {event["action"] for event in own} == {"connection.job"}
    assert sorted(event["detail"] for event in own) == [
        f"infer_batch job {job_id} runs, with it as {role} (attempt {attempt})"
        for role in ("sink", "source")
        for attempt in (1, 2)
    ] + [f"infer_batch job {job_id} was made, with it as {role}" for role in ("sink", "source")]
    assert {event["origin"] for event in own if "runs" in event["detail"]} == {"job"}


def test_a_process_that_dies_at_the_same_place_each_time_fails_its_job_after_three_attempts(
    platform: JobPlatform,
) -> None:
    platform.let(*range(6))

    ended = platform.ended(platform.make(misfortune={"0": "always_killed"}))

    assert (ended["state"], ended["attempts"], platform.steps()) == ("failed", 3, [])
    assert "ended by signal 9. It was tried 3 times in a row without getting further" in ended["error"]
    assert deployments_of_jobs(platform) == []


def test_what_is_unavailable_is_tried_again_and_bad_input_is_not(platform: JobPlatform) -> None:
    platform.let(*range(6))

    slept = platform.ended(platform.make(misfortune={"1": "unavailable"}))
    bad = platform.ended(platform.make(misfortune={"1": "bad_input"}))

    assert (slept["state"], slept["attempts"]) == ("succeeded", 2)
    assert (bad["state"], bad["attempts"]) == ("failed", 1)
    assert bad["error"] == "The rows have no column 'amout'. Name another."


def test_a_fault_of_nobodys_making_is_told_by_its_place_and_never_by_its_text(platform: JobPlatform) -> None:
    platform.let(*range(6))

    ended = platform.ended(platform.make(misfortune={"2": "bug"}))

    assert ended["state"] == "failed"
    assert "The job failed unexpectedly (ValueError in job_kinds.py, line " in ended["error"]
    assert "correct-horse" not in json.dumps(ended)


def test_a_cancelled_job_stops_where_it_is_safe_and_keeps_what_it_did(platform: JobPlatform) -> None:
    job_id = platform.make()
    platform.let(0, 1)
    _, _, pid = platform.done_to(1)

    asked = platform.post(f"jobs/{job_id}/cancel")["job"]
    ended = platform.ended(job_id)

    assert (asked["state"], asked["cancel_asked"]) == ("running", True)
    assert (ended["state"], ended["result"]["rows"]) == ("cancelled", 2)
    assert platform.rows(job_id, "result").column("step").to_pylist() == [0, 1]
    assert deployments_of_jobs(platform) == []
    assert not alive(pid)
    assert platform.post(f"jobs/{job_id}/cancel")["job"] == ended  # again is no error


def test_two_batches_run_at_once_and_a_third_waits_or_is_cancelled_before_it_began(platform: JobPlatform) -> None:
    first, second, third = (platform.make() for _ in range(3))
    eventually(lambda: platform.job(second)["state"] == "running", "two run")

    assert platform.job(third)["state"] == "pending"
    assert platform.post(f"jobs/{third}/cancel")["job"]["state"] == "cancelled"
    platform.let(*range(6))
    assert {platform.ended(job)["state"] for job in (first, second)} == {"succeeded"}
    assert platform.log(third) == []


def test_a_stranger_finds_no_job_and_whoever_sees_the_workspace_sees_it(platform: JobPlatform) -> None:
    job_id = platform.make()
    stranger = platform.stranger()

    for method, path in (
        ("GET", ""),
        ("POST", "/cancel"),
        ("GET", "/log"),
        ("GET", "/rejects"),
        ("GET", "/result"),
    ):
        answer = platform.call(method, f"jobs/{job_id}{path}", {}, token=stranger)
        assert (answer.status_code, answer.json()["error"]) == (404, "not_found")
    assert platform.call("POST", "jobs/list", {}, token=stranger).json() == {"jobs": [], "more": False}
    assert platform.call("POST", "jobs/infer_batch", platform.request(), token=stranger).status_code == 404
    assert job_id in {job["id"] for job in platform.post("jobs/list", {"unended": True})["jobs"]}
    platform.let(*range(6))
    platform.ended(job_id)


@pytest.mark.parametrize(
    ("gone", "words"),
    [
        ("membership", "ida-0@example.org, with whose rights this job runs, is no longer a member of its workspace."),
        ("account", "The user who made this is deactivated, or gone."),
        ("connection", "The connection that this job has as its source was deleted, or is no longer linked"),
    ],
)
def test_a_running_job_is_ended_when_what_it_stands_on_goes(platform: JobPlatform, gone: str, words: str) -> None:
    workspace = platform.workspace_id
    email = f"ida-{('membership', 'account', 'connection').index(gone)}@example.org"
    token = platform.stranger(email)
    platform.post("workspaces/add_user", {"workspace_id": workspace, "email": email})
    path = str(platform.folder / "rows.db")
    connection = platform.post("connections/create", {"name": gone, "type": "SQLITE", "details": {"database": path}})
    platform.post("connections/add_to_workspace", {"workspace_id": workspace, "connection_id": connection["id"]})
    end = {"connection_id": connection["id"]}
    asked = platform.request(source={**end, "query": "select * from rows"}, sink={**end, "table": "prices"})
    job_id = platform.post("jobs/infer_batch", asked, token=token)["job"]["id"]
    platform.let(0, 1)
    _, _, pid = platform.done_to(1)

    if gone == "membership":
        platform.post("workspaces/remove_user", {"workspace_id": workspace, "email": email})
    elif gone == "account":
        platform.post("users/deactivate", {"email": email})
    else:
        platform.call("POST", "connections/delete", {"name": gone, "force": True})
    ended = platform.ended(job_id)
    platform.let(2, 3, 4, 5)

    assert (ended["state"], ended["attempts"]) == ("failed", 1)
    assert ended["error"].startswith(words)
    assert "make it anew" in ended["error"] or "make the job anew" in ended["error"]
    assert not alive(pid)
    assert [step for step, _, _ in platform.steps()] == [0, 1]
    assert deployments_of_jobs(platform) == []


def test_the_deployment_of_a_job_takes_requests_of_nobody_else(platform: JobPlatform) -> None:
    job_id = platform.make()
    platform.let(0)
    platform.done_to(0)
    port = int((platform.home / "deployments" / f"job-{job_id[:8]}" / "port").read_text())
    access = platform.post("auth/token")["access_token"]

    rows = [{"tensor": [1.0, 2.0, 3.0]}]
    answer = platform.call("POST", f"http://127.0.0.1:{port}/infer", rows, token=access)

    assert (answer.status_code, answer.text) == (401, "Jwt verification fails")
    platform.post(f"jobs/{job_id}/cancel")
    platform.ended(job_id)


def test_a_job_whose_deployment_dies_has_another_one_and_loses_nothing(platform: JobPlatform) -> None:
    job_id = platform.make()
    platform.let(0)
    platform.done_to(0)
    label = f"job-{job_id[:8]}"
    hosts = [p for p in processes_of(platform.home) if p.pid == _host_pid(platform, label)]
    replicas = [child for host in hosts for child in host.children()]

    for process in (*hosts, *replicas):
        process.kill()
    platform.let(1, 2, 3, 4, 5)
    ended = platform.ended(job_id)

    assert hosts
    assert replicas
    assert (ended["state"], ended["attempts"]) == ("succeeded", 1)
    assert [step for step, _, _ in platform.steps()] == list(range(6))


def _host_pid(platform: JobPlatform, label: str) -> int:
    log = (platform.home / "deployments" / label / "host.log").read_text().splitlines()
    return next(int(line["pid"]) for line in map(json.loads, log) if "pid" in line)


def test_a_killed_server_takes_the_process_along_and_the_next_one_goes_on(own: JobPlatform) -> None:
    job_id = own.make()
    own.let(0, 1)
    _, _, pid = own.done_to(1)
    eventually(lambda: (own.job(job_id)["progress"] or {}).get("rows_read") == 2, "its place was kept")
    host = _host_pid(own, f"job-{job_id[:8]}")

    own.kill()
    eventually(lambda: not alive(pid), "the process of the job ended with the server")
    own.let(2, 3, 4, 5)
    assert [step for step, _, _ in own.steps()] == [0, 1]  # nobody goes on without a server
    own.start()
    ended = own.ended(job_id)

    assert (ended["state"], ended["attempts"]) == ("succeeded", 2)
    assert [(step, attempt) for step, attempt, _ in own.steps()] == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 2), (5, 2)]
    assert "Attempt 2 begins: the platform was restarted." in own.log(job_id)
    assert not alive(host)  # the deployment was found again and stopped at the end
    assert deployments_of_jobs(own) == []


def test_a_stopped_server_lets_go_at_a_safe_place_and_what_it_stopped_comes_back(own: JobPlatform) -> None:
    job_id = own.make()
    own.let(0, 1)
    own.done_to(1)

    own.stop()
    left = processes_of(own.home)
    own.let(2, 3, 4, 5)
    own.start()
    ended = own.ended(job_id)

    assert left == []
    assert (ended["state"], ended["attempts"]) == ("succeeded", 2)
    assert [step for step, _, _ in own.steps()] == list(range(6))


def test_deployments_whose_jobs_ended_under_a_dead_server_are_stopped_at_the_next_start(own: JobPlatform) -> None:
    job_id = own.make()
    own.let(0)
    own.done_to(0)
    host = _host_pid(own, f"job-{job_id[:8]}")
    own.kill()
    with_nobody = own.cancelled_in_the_database(job_id)

    own.start()
    eventually(lambda: not alive(host), "the leftover is stopped")

    assert with_nobody == "cancelled"
    eventually(lambda: deployments_of_jobs(own) == [], "its folder is gone")


def test_no_secret_of_a_connection_is_on_disk_or_in_an_argument(own: JobPlatform) -> None:
    job_id = own.make(misfortune={"3": "bug"})
    own.let(0, 1, 2)
    _, _, pid = own.done_to(2)
    process = psutil.Process(pid)
    seen = " ".join([*process.cmdline(), *process.environ().values()])
    own.let(3)
    own.ended(job_id)

    forms = [PASSWORD, quote(PASSWORD), base64.b64encode(PASSWORD.encode()).decode(), json.dumps(PASSWORD)[1:-1]]
    files = [path for path in own.home.rglob("*") if path.is_file()]
    found = [path for path in files if any(form.encode() in path.read_bytes() for form in forms)]
    assert found == []
    assert not any(form in seen for form in forms)
    folder = own.home / "jobs" / job_id
    modes = {path.stat().st_mode & 0o077 for path in (folder, *folder.iterdir())}
    assert modes == {0}


def test_the_command_line_lists_shows_and_cancels(platform: JobPlatform) -> None:
    job_id = platform.make()
    platform.let(0)
    platform.done_to(0)

    listed = bettong("jobs", "list", "--unended", home=platform.home).stdout
    newest = bettong("jobs", "list", "-n", "1", home=platform.home)
    cancelled = bettong("jobs", "cancel", job_id, home=platform.home).stdout
    platform.ended(job_id)
    shown = bettong("jobs", "show", job_id, home=platform.home).stdout
    said = bettong("jobs", "logs", job_id, home=platform.home).stdout
    nothing = bettong("jobs", "show", "0" * 8, home=platform.home, check=False)

    assert job_id in listed
    assert (newest.stdout.count("infer_batch"), job_id in newest.stdout) == (1, True)
    assert newest.stderr == "There are older ones: bettong jobs list -n 10\n"
    assert cancelled == f"Job {job_id}: asked to stop.\n"
    assert "state      cancelled" in shown
    assert "It was cancelled." in said
    assert (nothing.returncode, "There is no job '00000000' that you may see." in nothing.stderr) == (1, True)
