"""Streams into tables of every database that keeps checkpoints: made, kept in its types, and none double over kills."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from postgres import running_postgres
from services.mariadb import running_mariadb
from stream_doubles import Broker, Killed, StreamWork, fails_at, stream_request

from bettong.domain.drivers import Capability, Egress, ReadRequest
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.registry import Registry
from bettong.errors import BadInput
from bettong.jobs.infer_stream import Stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

KINDS = ("SQLITE", "DUCKDB", "POSTGRES", "MARIADB")


@dataclass(frozen=True)
class Database:
    kind: str
    details: Mapping[str, Any]
    folder: str

    @contextmanager
    def open(self) -> Iterator[Any]:
        reach = Reach(Egress(folders=(self.folder,)))
        opening = Opening(self.kind, Registry().driver(self.kind), self.details, reach, 10.0)
        with opening.source(Capability.TRANSACTION) as source:
            yield source

    def rows(self, query: str) -> list[dict[str, Any]]:
        with self.open() as source, source.read(ReadRequest(query)) as reader:
            found: list[dict[str, Any]] = reader.read_all().to_pylist()
        return found


@pytest.fixture(params=[pytest.param(k, marks=[pytest.mark.service] * (k in KINDS[2:])) for k in KINDS])
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    kind, folder = request.param, str(tmp_path)
    if kind == "POSTGRES":
        with running_postgres() as server:
            details = {"host": "127.0.0.1", "port": server.port, "user": "bettong", "database": "postgres"}
            yield Database(kind, details, folder)
    elif kind == "MARIADB":
        with running_mariadb() as server:
            yield Database(kind, server.details, folder)
    else:
        yield Database(kind, {"path": str(tmp_path / "sink.db")}, folder)


@dataclass
class TableWork(StreamWork):
    target: Any = field(default=None)

    @contextmanager
    def source(self, role: str, needed: Capability) -> Iterator[Any]:
        with self.target.open() if role == "sink" else super().source(role, needed) as source:
            yield source


def run(target: Database, broker: Broker, folder: Path, **request: Any) -> Mapping[str, Any]:
    sink = {"connection_id": "c2", "table": "answers", **request.pop("sink", {})}
    work = TableWork(broker, folder / "job", stream_request(sink=sink, **request), target=target)
    return Stream(work, broker.clock, broker.clock.sleep).run()


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_a_table_is_made_and_has_each_message_once_over_kills(mode: str, target: Database, tmp_path: Path) -> None:
    broker = Broker(at_once=20)
    broker.send("orders", *({"x": n, "id": n, "tags": ["t"]} for n in range(100)), key=b"k")
    asked: dict[str, Any] = {"keep": ["id", "x", "tags"], "sink": {"mode": mode}}
    for kill in (0, 1):
        broker.before = fails_at("commit", kill, Killed())
        broker.forget()
        with suppress(Killed):
            run(target, broker, tmp_path, **asked)
    broker.before = lambda call: None
    broker.forget()

    totals = run(target, broker, tmp_path, **asked)

    rows = target.rows("select id, x, tags, y, bettong_source, bettong_key from answers order by id")
    assert [(row["id"], row["x"], row["y"], row["bettong_source"]) for row in rows] == [
        (n, float(n), 2.0 * n, f"orders/0@{n}") for n in range(100)
    ]
    assert {row["tags"] for row in rows} == {'["t"]'}
    assert {row["bettong_key"] for row in rows} == {"k"}
    assert totals["answered_before"] > 0


def test_a_table_that_lacks_a_column_is_told_before_the_first_message(target: Database, tmp_path: Path) -> None:
    broker = Broker()
    broker.send("orders", {"x": 1})
    run(target, broker, tmp_path)
    broker.send("orders", {"x": 2, "id": 2})

    with pytest.raises(BadInput, match="has no column 'id'"):
        run(target, broker, tmp_path / "other", keep=["id"])

    assert broker.left("orders", "g") == 1
