"""Opening databases, and what their failures are called."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory

from bettong.errors import BadInput, BettongError, StorageFull, Unavailable
from bettong.storage import database as database_module
from bettong.storage.database import open_database
from bettong.storage.migrations import HEAD
from bettong.storage.stores import Stores, open_stores

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "hunter2-hunter2"


def test_a_database_file_is_its_owners_alone_also_when_it_was_not(tmp_path: Path) -> None:
    file = tmp_path / "home" / "bettong.db"
    open_stores(f"sqlite:///{file}").close()
    file.chmod(0o644)

    with open_stores(f"sqlite:///{file}") as stores:
        stores.facts.put("x", b"y")
        modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in file.parent.iterdir()}

    assert modes == {"bettong.db": 0o600, "bettong.db-wal": 0o600, "bettong.db-shm": 0o600}
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_opening_waits_for_another_who_is_at_a_new_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "bettong.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # on a file without a write-ahead log, SQLite does not wait for this one
        waited: list[float] = []

        def until_the_other_is_done(pause_s: float) -> None:
            waited.append(pause_s)
            other.execute("COMMIT")

        monkeypatch.setattr("time.sleep", until_the_other_is_done)

        with open_stores(f"sqlite:///{file}") as stores:
            stores.facts.put("x", b"y")

    assert len(waited) == 1


@pytest.mark.parametrize(
    "url", ["", "no url", "mysql://root:{s}@host/db", "sqlite://", "sqlite:///:memory:", "://{s}", "postgresql:{s}"]
)
def test_a_url_of_no_database_we_know_is_bad_input_and_its_password_is_not_told(url: str) -> None:
    with pytest.raises(BadInput) as refused:
        open_database(url.format(s=SECRET))
    assert SECRET not in str(refused.value)
    assert refused.value.next_step


def test_a_missing_postgres_driver_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)

    with pytest.raises(BadInput, match=r"pip install 'bettong\[postgres\]'"):
        open_database(f"postgresql://u:{SECRET}@127.0.0.1/db")


def test_a_postgres_that_does_not_answer_is_unavailable_and_its_password_is_not_told() -> None:
    with pytest.raises(Unavailable, match="The database does not answer") as refused:
        open_stores(f"postgresql://u:{SECRET}@127.0.0.1:1/db")
    assert SECRET not in str(refused.value)


def test_a_folder_that_cannot_be_made_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")

    with pytest.raises(Unavailable, match="cannot be opened"):
        open_database(f"sqlite:///{tmp_path}/file/bettong.db")


def test_a_database_locked_by_somebody_else_is_unavailable_and_nothing_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "LOCK_WAIT_MS", 10)
    file = tmp_path / "bettong.db"
    with open_stores(f"sqlite:///{file}") as stores, closing(sqlite3.connect(file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(Unavailable, match="SQLITE_BUSY"):
            stores.facts.put("x", b"y")
        assert stores.facts.get("x") is None  # readers go on meanwhile
        other.rollback()
        stores.facts.put("x", b"z")
        assert stores.facts.get("x") == b"z"


def test_a_full_disk_is_said_so_and_nothing_is_kept(tmp_path: Path) -> None:
    with open_stores(f"sqlite:///{tmp_path / 'bettong.db'}") as stores:
        with stores.database.read() as transaction:
            transaction.exec_driver_sql("PRAGMA max_page_count = 1")  # SQLite's own word for a disk of that size
        with pytest.raises(StorageFull, match="disk is full"):
            stores.facts.put("x", bytes(10_000_000))
        assert stores.facts.get("x") is None


def test_an_error_inside_a_transaction_undoes_it_and_passes_through(tmp_path: Path) -> None:
    class Mine(BettongError):
        pass

    def write_and_fail(stores: Stores) -> None:
        with stores.database.write() as transaction:
            transaction.exec_driver_sql("INSERT INTO facts VALUES ('x', x'00')")
            raise Mine("stop")

    with open_stores(f"sqlite:///{tmp_path / 'bettong.db'}") as stores:
        with pytest.raises(Mine):
            write_and_fail(stores)
        assert stores.facts.get("x") is None


def test_what_a_statement_carried_stands_in_no_error(tmp_path: Path) -> None:
    with (
        open_stores(f"sqlite:///{tmp_path / 'bettong.db'}") as stores,
        pytest.raises(Exception, match="no such table") as failed,
        stores.database.write() as transaction,
    ):
        transaction.exec_driver_sql("INSERT INTO nowhere VALUES (?)", (SECRET,))
    assert SECRET not in str(failed.value) + repr(failed.value)


def test_a_file_that_is_no_database_is_said_so_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "bettong.db"
    file.write_bytes(b"rubbish" * 1000)

    with pytest.raises(Unavailable, match=r"damaged or is none \(SQLITE_NOTADB\)"):
        open_stores(f"sqlite:///{file}")

    assert file.read_bytes() == b"rubbish" * 1000


def test_head_is_the_newest_migration() -> None:
    config = Config()
    config.set_main_option("script_location", "bettong.storage:migrations")

    assert ScriptDirectory.from_config(config).get_heads() == [HEAD]


def test_opening_a_database_that_is_up_to_date_imports_neither_alembic_nor_the_orm(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'bettong.db'}"
    open_stores(url).close()

    code = (
        "import sys; from bettong.storage.stores import Stores, open_stores; open_stores(sys.argv[1]).close();"
        "print([m for m in ('alembic', 'sqlalchemy.orm', 'psycopg') if m in sys.modules])"
    )
    loaded = subprocess.run([sys.executable, "-c", code, url], capture_output=True, text=True, check=True).stdout

    assert loaded.strip() == "[]"
