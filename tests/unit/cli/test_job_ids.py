"""`bettong jobs`: which job an id means that is not written out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import click
import pytest
from click.testing import CliRunner

from bettong.cli import jobs

if TYPE_CHECKING:
    from bettong.cli.calls import Server

FIRST, SECOND = "7d2c1111-0000-4000-8000-000000000001", "7d2c2222-0000-4000-8000-000000000002"


class Listing:
    """A server that has these two jobs, and tells of one at a time."""

    def post(self, path: str, body: Any = None) -> Any:
        if "after" not in body:
            return {"jobs": [{"id": FIRST}], "more": True}
        assert body["after"] == FIRST
        return {"jobs": [{"id": SECOND}], "more": False}


@pytest.fixture
def server() -> Server:
    return cast("Server", Listing())


def test_the_first_characters_of_an_id_name_the_only_job_that_has_them(server: Server) -> None:
    assert jobs._path(server, "7d2c1") == f"/v1/api/jobs/{FIRST}"
    assert jobs._path(server, "7d2c2") == f"/v1/api/jobs/{SECOND}"
    assert jobs._path(server, SECOND) == f"/v1/api/jobs/{SECOND}"


def test_characters_that_several_ids_have_name_none_of_them(server: Server) -> None:
    with pytest.raises(click.ClickException, match="The ids of 2 jobs begin with '7d2c'"):
        jobs._path(server, "7d2c")


def test_what_is_too_short_for_an_id_is_repeated_with_what_it_takes(server: Server) -> None:
    with pytest.raises(click.ClickException, match=r"'730' is too short for an id\. Give 4 characters of it at least"):
        jobs._path(server, "730")
    assert jobs._path(server, "../x") == "/v1/api/jobs/..%2Fx"


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("running", None, f"Job {FIRST}: asked to stop.\n"),
        ("pending", "cancelled", f"Job {FIRST}: cancelled.\n"),
        (
            "running",
            "succeeded",
            f"Job {FIRST} had already succeeded at 2026-11-30T23:05:12; there was nothing to cancel.\n",
        ),
        ("failed", "failed", f"Job {FIRST} had already failed at 2026-11-30T23:05:12; there was nothing to cancel.\n"),
        (
            "cancelled",
            "cancelled",
            f"Job {FIRST} had already been cancelled at 2026-11-30T23:05:12; there was nothing to cancel.\n",
        ),
    ],
)
def test_a_cancel_says_what_had_become_of_the_job(
    before: str, after: str | None, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(state: str) -> dict[str, Any]:
        ended = None if state in ("pending", "running") else "2026-11-30T23:05:12.345+00:00"
        return {"job": {"id": FIRST, "state": state, "ended_at": ended}}

    class One:
        def get(self, path: str) -> Any:
            return told(before)

        def post(self, path: str, body: object = None) -> Any:
            assert path.endswith("/cancel")
            return told(after or before)

    monkeypatch.setattr(jobs, "Server", One)

    assert CliRunner().invoke(jobs.jobs, ["cancel", FIRST]).output == said


@pytest.mark.parametrize(
    ("there", "said"),
    [
        (0, "There are no jobs.\n"),
        (1, "No job runs or waits. 1 has ended: bettong jobs list\n"),
        (30, "No job runs or waits. 30 have ended: bettong jobs list\n"),
    ],
)
def test_a_list_of_what_runs_says_how_many_have_ended_where_nothing_does(
    there: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Ended:
        def post(self, path: str, body: Any = None) -> Any:
            return {"jobs": [] if body["unended"] else [{"id": FIRST, "ended_at": "x"}] * there, "more": False}

    monkeypatch.setattr(jobs, "Server", Ended)

    assert CliRunner().invoke(jobs.jobs, ["list", "--unended"]).output == said


@pytest.mark.parametrize("command", ["show", "logs", "rejects", "cancel"])
def test_whoever_names_no_job_is_told_where_the_ids_are(command: str) -> None:
    done = CliRunner().invoke(jobs.jobs, [command])

    assert done.exit_code == 2
    assert "Say which job, by its id or its first characters. bettong jobs list has them." in done.output
