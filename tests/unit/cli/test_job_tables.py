"""`bettong jobs show`, `list` and `rejects` of a stream: what became of its messages, and what it waits for."""

from __future__ import annotations

from typing import Any

from bettong.cli import jobs

DEAD: dict[str, Any] = {
    "predictions_out": 5,
    "dead_lettered": 5,
    "rejected": 0,
    "dead_letter": "live-failed",
    "last_reason": "No 'x'.",
}


def stream(ended_at: str | None = None, **progress: Any) -> dict[str, Any]:
    return {"id": "7d2c1111", "ended_at": ended_at, "progress": {"messages_in": 10, **progress}}


def test_what_became_of_messages_is_told_apart() -> None:
    assert jobs._rows(stream(**DEAD)) == "5 answered, 5 dead-lettered to 'live-failed', 0 rejected"
    kept = stream(predictions_out=1_200, rejected=3, answered_before=7)
    assert jobs._rows(kept) == "1,200 answered, 3 rejected, 7 answered before"


def test_rejects_of_a_stream_with_dead_letters_say_where_they_went() -> None:
    assert jobs._no_rejects(stream(**DEAD)) == (
        "Job 7d2c1111 keeps no rejects: messages that it cannot answer go to topic 'live-failed', 5 so far, each with "
        "the reason in its header bettong-error. The last: No 'x'."
    )
    assert jobs._no_rejects(stream(**{**DEAD, "dead_letter": None})) == "Job 7d2c1111 has so far no rejects."
    assert jobs._no_rejects(stream("2026-11-30T20:00:00")) == "Job 7d2c1111 has no rejects."


def test_a_stream_that_waits_says_for_what_and_since_when() -> None:
    away = {"what": "REDIS 'broker' (source)", "login_refused": False, "since": "2026-11-30T23:08:43+00:00"}

    assert jobs._waiting(stream(waiting_for=away)) == "for REDIS 'broker' (source) since 23:08:43 UTC"
    assert jobs._progress(stream(waiting_for=away)).endswith(
        "rejected, waiting for REDIS 'broker' (source) since 23:08:43 UTC"
    )
    refused = {**away, "login_refused": True}
    assert jobs._waiting(stream(waiting_for=refused)).startswith(
        "for REDIS 'broker' (source), which refuses the login, since"
    )
    assert jobs._waiting(stream("2026-11-30T23:20:00", waiting_for=away)) == ""


def test_a_running_stream_is_shown_with_what_waits_for_it() -> None:
    assert jobs._waiting(stream(lag=1_200)) == "1,200 messages"
    assert jobs._progress(stream(lag=1_200)) == "0 answered, 0 rejected"
    assert jobs._waiting(stream(lag=None)) == ""
    assert jobs._waiting(stream("2026-11-30T20:00:00", lag=7)) == ""
