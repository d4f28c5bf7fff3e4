"""What every audit and fact store promises."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from bettong.domain.identity import AuditEvent

if TYPE_CHECKING:
    from bettong.storage.stores import Stores


def reveal(subject_id: str, minute: int = 0) -> AuditEvent:
    at = datetime(2026, 1, 1, 0, minute, 0, 123456, tzinfo=UTC)
    return AuditEvent(at, "u-ann", "ann@example.com", "127.0.0.1", "reveal", "connection", subject_id, "warehouse")


def test_events_of_a_subject_are_told_newest_first_and_whole(stores: Stores) -> None:
    first, second = reveal("c-1"), reveal("c-1", minute=1)
    for event in (first, reveal("c-2"), second):
        stores.audit.record(event)

    assert stores.audit.of_subject("connection", "c-1") == [second, first]
    assert stores.audit.of_subject("connection", "c-1", limit=1) == [second]
    assert stores.audit.of_subject("workspace", "c-1") == []


def test_an_event_tells_what_it_was_for(stores: Stores) -> None:
    stores.audit.record(replace(reveal("c-1"), detail="job 7"))

    assert [event.detail for event in stores.audit.of_subject("connection", "c-1")] == ["job 7"]


def test_a_fact_is_what_was_put_last(stores: Stores) -> None:
    assert stores.facts.get("canary") is None

    stores.facts.put("canary", b"one")
    stores.facts.put("canary", b"\x00two\xff")
    stores.facts.put("other", b"")

    assert stores.facts.get("canary") == b"\x00two\xff"
    assert stores.facts.get("other") == b""
