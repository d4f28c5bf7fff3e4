"""What was acknowledged is there afterwards: after a restart, after kill -9, after a migration by several at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from builders import connection, new_model_version
from sqlalchemy import text

from bettong.domain.models import ModelStatus
from bettong.errors import BadInput, Unavailable
from bettong.storage.database import open_database
from bettong.storage.migrations import HEAD, migrate, stored_revision
from bettong.storage.stores import open_stores
from bettong.storage.tables import metadata

if TYPE_CHECKING:
    from pathlib import Path

WHEN = "2026-01-01 00:00:00.000000"
WRITER = """
import sys
from builders import connection
from bettong.storage.stores import open_stores

stores = open_stores(sys.argv[1])
for number in range(1_000_000):
    stores.connections.add(connection(f"c{number}"), b"sealed")
    print(number, flush=True)
"""


def test_a_restart_keeps_everything(database_url: str) -> None:
    with open_stores(database_url) as stores:
        ann = stores.users.add("ann@example.com", "ann", is_admin=True)
        workspace = stores.workspaces.add("tutorial", ann.id)
        version = stores.models.add_version(new_model_version(workspace_id=workspace.id), ModelStatus.UPLOADING, ann.id)
        pipeline = stores.pipelines.add(workspace.id, "rental", ann.id)
        steps = stores.pipelines.add_version(pipeline.id, {"id": "rental", "steps": []}, ann.id)
        deployment = stores.deployments.target(pipeline.id, "rental", workspace.id, steps.id, {"engine": {}})
        kept = connection("warehouse")
        stores.connections.add(kept, b"sealed")
        stores.connections.link(kept.id, workspace.id)

    with open_stores(database_url) as stores:
        assert stores.users.all() == [ann]
        assert stores.workspaces.all() == [workspace]
        assert stores.models.unfinished() == [version]
        assert stores.pipelines.version(steps.id) == steps
        assert stores.deployments.wanted() == [deployment]
        assert stores.connections.sealed(kept.id).sealed == b"sealed"
        assert [each.name for each in stores.connections.linked_to(workspace.id, None)] == ["warehouse"]


def test_a_killed_process_has_kept_all_that_it_acknowledged(database_url: str) -> None:
    tests = os.path.dirname(os.path.dirname(__file__))
    with subprocess.Popen(
        [sys.executable, "-c", WRITER, database_url],
        env={**os.environ, "PYTHONPATH": tests},
        stdout=subprocess.PIPE,
        text=True,
    ) as writer:
        assert writer.stdout is not None
        acknowledged = [int(writer.stdout.readline()) for _ in range(50)]
        writer.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in writer.stdout if line.endswith("\n")]

    with open_stores(database_url) as stores:
        found = {each.name for each in stores.connections.all(seen_by=None, workspace_ids=())}
    assert writer.returncode == -signal.SIGKILL
    assert {f"c{number}" for number in acknowledged} <= found
    assert len(found) - len(acknowledged) in (0, 1)  # one may have been kept and killed before it was told


def test_migrations_from_nothing_make_exactly_the_tables_of_this_release(empty_database_url: str) -> None:
    database = open_database(empty_database_url)
    try:
        migrate(database)
        with database.read() as transaction:
            context = MigrationContext.configure(
                transaction, opts={"compare_type": True, "compare_server_default": True}
            )
            assert compare_metadata(context, metadata) == []
            assert stored_revision(transaction) == HEAD
    finally:
        database.close()


def test_several_who_start_at_once_on_an_empty_database_all_find_it_ready(empty_database_url: str) -> None:
    def start(number: int) -> None:
        with open_stores(empty_database_url) as stores:
            stores.facts.put(str(number), b"here")

    with ThreadPoolExecutor(4) as threads:
        list(threads.map(start, range(4)))

    with open_stores(empty_database_url) as stores:
        assert all(stores.facts.get(str(number)) == b"here" for number in range(4))


def test_a_database_of_a_newer_release_is_refused_and_left_alone(database_url: str) -> None:
    with open_stores(database_url) as stores, stores.database.write() as transaction:
        transaction.execute(text("UPDATE alembic_version SET version_num = '9999'"))

    with pytest.raises(BadInput, match=f"at revision 9999; this release knows revisions up to {HEAD}"):
        open_stores(database_url)

    database = open_database(database_url)
    with database.read() as transaction:
        assert stored_revision(transaction) == "9999"
    database.close()


def test_a_migration_that_fails_half_way_leaves_nothing(
    empty_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic import op

    def fail(*_: object, **__: object) -> None:
        raise OSError("cut short")

    database = open_database(empty_database_url)
    with monkeypatch.context() as cut:
        cut.setattr(op, "create_index", fail)
        with pytest.raises(OSError, match="cut short"):
            migrate(database)
    migrate(database)  # would stumble over tables that were left behind

    with database.read() as transaction:
        assert stored_revision(transaction) == HEAD
    database.close()


def test_connections_of_a_release_without_versions_are_there_as_their_first(empty_database_url: str) -> None:
    from bettong.secrets.details import is_of_old_form, open_details, seal_details
    from bettong.secrets.keyring import KeyRing

    ring = KeyRing([b"k" * 32])
    database = open_database(empty_database_url)
    migrate(database, to="0003")
    with database.write() as tx:
        rows = {
            "workspaces (name, name_key, archived, created_by, created_at)": "'a', 'a', :no, 'u', :at",
            "connections (id, name, type, created_by, created_at, sealed)": "'c-1', 'old', 'HTTP', 'u', :at, :sealed",
            "connection_links (id, connection_id, workspace_id, created_at)": "'l-1', 'c-1', 1, :at",
        }
        for table, values in rows.items():
            known = {"at": WHEN, "no": False, "sealed": ring.seal(b'{"password": 1}', bound_to="c-1")}
            named = {name: value for name, value in known.items() if f":{name}" in values}
            tx.execute(text(f"INSERT INTO {table} VALUES ({values})"), named)
    database.close()

    with open_stores(empty_database_url) as stores:
        found = stores.connections.by_name("old")
        assert found is not None
        assert (found.version, found.use_only, found.workspace_names) == (1, False, ("a",))
        first = stores.connections.sealed("c-1")
        assert open_details(ring, first) == b'{"password": 1}'
        assert is_of_old_form(ring, first)
        stores.connections.add_version("c-1", first.sealed, version=2, created_by="u")  # a row that was copied
        with pytest.raises(Unavailable, match="altered or copied"):
            open_details(ring, stores.connections.sealed("c-1"))
        assert stores.connections.reseal(first, seal_details(ring, b"{}", "c-1", 1))
        assert not is_of_old_form(ring, stores.connections.sealed("c-1", 1))


def test_nothing_readable_of_a_secret_is_in_any_file_of_the_platform(tmp_path: Path) -> None:
    from bettong.secrets.details import open_details, seal_details
    from bettong.secrets.keyring import check_canary, open_ring

    password = "correct horse battery staple"
    with open_stores(f"sqlite:///{tmp_path / 'bettong.db'}") as stores:
        ring = open_ring(tmp_path / "keys", (), sealed_rows_exist=stores.connections.any_sealed())
        check_canary(ring, stores.facts)
        for number in range(20):
            new = connection(f"c{number}")
            plain = f'{{"password": "{password}", "number": {number}}}'.encode()
            stores.connections.add(new, seal_details(ring, plain, new.id, 1))
        files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}  # with its log still open
        revealed = open_details(ring, stores.connections.sealed(new.id))

    assert password.encode() in revealed
    assert {path.name for path in files} >= {"bettong.db", "bettong.db-wal", "connections.keys"}
    assert b"c19" in b"".join(files.values())  # the scan sees what is stored
    assert [path for path, content in files.items() if b"horse" in content or b"password" in content] == []
    assert [
        oct(path.stat().st_mode) for path in tmp_path.rglob("*") if path.is_file() and path.stat().st_mode & 0o077
    ] == []
