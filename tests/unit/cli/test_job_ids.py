"""`bettong jobs`: which job an id means that is not written out, and how far behind a stream is said to be."""

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


def test_what_is_too_short_for_an_id_is_left_to_the_server_to_refuse(server: Server) -> None:
    assert jobs._path(server, "") == "/v1/api/jobs/"
    assert jobs._path(server, "../x") == "/v1/api/jobs/..%2Fx"


def test_a_running_stream_is_shown_with_what_waits_for_it() -> None:
    running = {"ended_at": None, "progress": {"messages_in": 5, "lag": 1200}}

    assert jobs._waiting(running) == "1,200 messages"
    assert jobs._waiting({**running, "progress": {"messages_in": 5, "lag": None}}) == ""
    assert jobs._waiting({**running, "ended_at": "2026-11-30T20:00:00"}) == ""


@pytest.mark.parametrize("command", ["show", "logs", "rejects", "cancel"])
def test_whoever_names_no_job_is_told_where_the_ids_are(command: str) -> None:
    done = CliRunner().invoke(jobs.jobs, [command])

    assert done.exit_code == 2
    assert "Say which job, by its id or its first characters. bettong jobs list has them." in done.output
