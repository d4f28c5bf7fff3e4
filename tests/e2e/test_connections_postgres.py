"""A real PostgreSQL behind a connection, and one under the platform itself."""

from __future__ import annotations

import base64
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pandas as pd
import psycopg
import pyarrow as pa
import pytest
from e2e.connection_kit import reaching_home
from platforms import bettong
from postgres import Postgres, running_postgres
from psycopg import sql

import wallaroo
from wallaroo.object import RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.service, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    """A server that asks everybody but its owner for a password."""
    with running_postgres() as server, psycopg.connect(server.url(), autocommit=True) as owner:
        shown = owner.execute("show hba_file").fetchone()
        assert shown is not None
        hba = Path(shown[0])
        hba.write_text("host all bettong 127.0.0.1/32 trust\nhost all all 127.0.0.1/32 scram-sha-256\n")
        owner.execute("select pg_reload_conf()")
        yield server


class Reader:
    """A role with a password and a database of its own."""

    def __init__(self, server: Postgres, password: str) -> None:
        self._server, self.name, self.password = server, f"reader_{uuid4().hex[:8]}", password
        self.database = server.new_database().rpartition("/")[2]
        self._run(sql.SQL("create role {} login password {}"), sql.Identifier(self.name), sql.Literal(password))
        self._run(sql.SQL("alter database {} owner to {}"), sql.Identifier(self.database), sql.Identifier(self.name))

    def details(self) -> dict[str, Any]:
        return {
            "host": "127.0.0.1",
            "port": self._server.port,
            "user": self.name,
            "password": self.password,
            "database": self.database,
        }

    def change_password(self, password: str) -> None:
        self._run(sql.SQL("alter role {} password {}"), sql.Identifier(self.name), sql.Literal(password))

    def _run(self, statement: sql.SQL, *names: sql.Composable) -> None:
        with psycopg.connect(self._server.url(), autocommit=True) as owner:
            owner.execute(statement.format(*names))


@pytest.fixture
def reader(postgres: Postgres) -> Reader:
    return Reader(postgres, f"old-{uuid4().hex}")


@pytest.fixture(scope="module")
def reach() -> Iterator[Path]:
    with reaching_home({"OURS_PASSWORD": "from the environment", "BETTONG_SECRET_ENV": "OURS_*"}) as home:
        yield home


@pytest.fixture
def wl(reach: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    monkeypatch.setenv("BETTONG_HOME", str(reach))
    return wallaroo.Client()


def test_a_password_changes_over_there_and_then_here(wl: wallaroo.Client, reader: Reader) -> None:
    connection = wl.create_connection(f"pg-{uuid4().hex[:8]}", "POSTGRES", reader.details())
    assert connection.test(), repr(connection.test())
    reader.change_password("new, agreed")

    broken = connection.test()
    guessed = connection.rotate({"password": "a guess"})
    switched = connection.rotate({"password": "new, agreed"})

    assert broken.failed is not None
    assert broken.failed.name == "login"
    assert not guessed
    assert switched, repr(switched)
    assert connection.read("select 1 as one")["one"].tolist() == [1]
    assert connection.rollback(1).test().failed is not None
    assert connection.update({"password": {"$secret": "env:OURS_PASSWORD"}}).version() == 4
    reader.change_password("from the environment")
    assert connection.test()
    assert connection.details()["password"] == {"$secret": "env:OURS_PASSWORD"}
    for text in (repr(broken), repr(guessed)):
        assert "agreed" not in text
        assert reader.password not in text


def test_rows_go_both_ways_with_their_types(wl: wallaroo.Client, reader: Reader) -> None:
    connection = wl.create_connection(f"pg-{uuid4().hex[:8]}", "postgresql", reader.details())
    rows = pa.table(
        {
            "day": pa.array([20_000, 20_001], pa.date32()),
            "count": pa.array([1, None], pa.int32()),
            "price": [1.5, 2.5],
            "name": ["ä", "b"],
            "forecast": pa.array([[1.0, 2.0], [3.0]], pa.list_(pa.float64())),
        }
    )
    assert connection.write("daily", rows) == 2

    assert connection.read("select * from daily order by day", as_="arrow").to_pylist() == rows.to_pylist()
    assert connection.read("select count(*) as n from daily where name = $1", parameters=["ä"])["n"].tolist() == [1]
    many = pd.DataFrame({"n": range(300_000), "x": [n / 7 for n in range(300_000)]})
    assert connection.write("many", many) == 300_000
    pd.testing.assert_frame_equal(connection.read("select * from many order by n"), many)
    connection.write("many", many.head(10), "replace")
    assert len(connection.read("many")) == 10


def test_a_write_that_breaks_off_leaves_nothing(wl: wallaroo.Client, reader: Reader) -> None:
    connection = wl.create_connection(f"pg-{uuid4().hex[:8]}", "POSTGRES", reader.details())
    connection.write("numbers", pa.table({"n": pa.array([1], pa.int64())}))

    def batches() -> Iterator[pa.RecordBatch]:
        for start in range(3):
            yield pa.record_batch({"n": pa.array(range(start * 70_000, (start + 1) * 70_000), pa.int64())})
        raise RuntimeError("the notebook failed")

    with pytest.raises(RuntimeError, match="the notebook failed"):
        connection.write("numbers", batches())
    with pytest.raises(RequestRefused):
        connection.write("numbers", pa.table({"other": ["text"]}))

    assert connection.read("numbers")["n"].tolist() == [1]


def test_a_platform_on_postgres_takes_its_keys_from_outside_and_rotates_them(
    postgres: Postgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = (base64.b64encode(secrets.token_bytes(32)).decode() for _ in range(2))
    with reaching_home({"BETTONG_DATABASE_URL": postgres.new_database(), "BETTONG_KEYS": old}) as home:
        with wallaroo.Client() as wl:
            wl.create_connection("c", "HTTP", {"password": "correct horse"})
        refused = bettong("keys", "rotate", "--new-key", home=home, check=False)
        bettong("stop", home=home)
        monkeypatch.setitem(os.environ, "BETTONG_KEYS", f"{new},{old}")
        with wallaroo.Client():
            rotated = bettong("keys", "rotate", home=home).stdout
        bettong("stop", home=home)
        monkeypatch.setitem(os.environ, "BETTONG_KEYS", new)
        with wallaroo.Client() as wl:
            found = wl.get_connection("c").details()

    assert refused.returncode == 1
    assert "bettong keys new" in refused.stderr
    assert "Sealed anew: 1 value." in rotated
    assert "take it out of BETTONG_KEYS" in rotated
    assert found == {"password": "correct horse"}
    for text in (refused.stdout, refused.stderr, rotated):
        assert old not in text
        assert new not in text
