"""Brokers whose positions recur say what is new: it is never taken for what was there before."""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

import pytest
from stream_doubles import Broker, StreamWork, stream_request

from bettong.jobs.infer_stream import Stream

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

VALUE = {"x": 4, "id": 1}


def run(broker: Broker, folder: Path, **request: Any) -> Mapping[str, Any]:
    asked = stream_request(keep=["id"], **request)
    work = StreamWork(broker, folder / "job", asked, database=folder / "sink.db" if request else None)
    return Stream(work, broker.clock, broker.clock.sleep).run()


def anew(broker: Broker) -> None:
    """The topic is empty, and the next message has the first one's position."""
    broker.topics["orders"].clear()
    broker.committed.clear()


@pytest.mark.parametrize(("new", "answers"), [(True, 2), (False, 1)])
def test_a_new_message_in_the_place_of_an_answered_one_is_answered(new: bool, answers: int, tmp_path: Path) -> None:
    broker = Broker()
    broker.send("orders", VALUE, new=True)
    run(broker, tmp_path)
    anew(broker)
    broker.send("orders", VALUE, new=new)

    totals = run(broker, tmp_path)

    assert totals["predictions_out"] == len(broker.values("predictions")) == answers
    assert totals["answered_before"] == 2 - answers
    assert totals["repeated"] == 0


@pytest.mark.parametrize(("new", "rows"), [(True, 2), (False, 1)])
def test_a_table_takes_the_row_of_a_new_message_in_the_place_of_another(new: bool, rows: int, tmp_path: Path) -> None:
    broker = Broker()
    table = {"connection_id": "c2", "table": "predictions"}
    broker.send("orders", VALUE, new=True)
    run(broker, tmp_path, sink=table)
    anew(broker)
    broker.send("orders", VALUE, new=new)

    run(broker, tmp_path, sink=table)

    with sqlite3.connect(tmp_path / "sink.db") as database:
        found = database.execute("select id, y from predictions").fetchall()
    database.close()
    assert found == [(1, 8.0)] * rows
