"""Connections as people use them: data read and written by the platform, credentials changed, nothing given away."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pandas as pd
import pyarrow as pa
import pytest
from e2e.connection_kit import ROWS, connections, person, reaching_home, sales
from platforms import bettong

import wallaroo
from wallaroo.object import EntityNotFoundError, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

SERVERS_OWN = f"of-the-server-{uuid4().hex}"
ALLOWED = f"allowed-{uuid4().hex}"


@pytest.fixture(scope="module")
def reach(folder: Path) -> Iterator[Path]:
    """The home of a platform that reaches `folder`, and secrets in a folder and under a prefix of variables."""
    secrets = folder / "secrets"
    secrets.mkdir()
    (secrets / "name").write_text("sales.db\n")
    (secrets / "aws").write_text(f"[default]\naws_access_key_id = a\naws_secret_access_key = {SERVERS_OWN}\n")
    variables = {
        "BETTONG_FILE_FOLDERS": str(folder),
        "BETTONG_SECRET_ENV": "OURS_*,BETTONG_KEYS,BETTONG_DATABASE_URL,PATH*",
        "BETTONG_SECRET_FOLDERS": str(secrets),
        "OURS_FOLDER": str(folder),
        "OURS_TOKEN": ALLOWED,
        "THEIRS": SERVERS_OWN,
        "BETTONG_ENVIRONMENT": "staging",
        "BETTONG_AWS_SECRETS": "ours/*",
        "AWS_SHARED_CREDENTIALS_FILE": str(secrets / "aws"),
    }
    with reaching_home(variables) as home:
        yield home


@pytest.fixture
def wl(reach: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    monkeypatch.setenv("BETTONG_HOME", str(reach))
    return wallaroo.Client()


@pytest.fixture
def path(folder: Path) -> Path:
    return sales(folder / f"sales-{uuid4().hex[:8]}.db")


@pytest.fixture
def connection(wl: wallaroo.Client, path: Path) -> wallaroo.connection.Connection:
    return wl.create_connection(f"sales-{uuid4().hex[:8]}", "Sqlite", {"path": str(path), "note": "a secret note"})


def test_from_details_to_rows_and_back(connection: Any, path: Path) -> None:
    report = connection.test()
    assert report, repr(report)
    assert [entry.name for entry in connection.browse()] == ["daily"]
    assert connection.preview("daily", rows=2).values.tolist() == [list(row) for row in ROWS[:2]]

    read = connection.read("select day, count from daily where day > ?", parameters=[3])
    written = connection.write("weekly", read.assign(forecast=[1.5, 2.5]), "upsert", keys=["day"])
    connection.write("weekly", pa.table({"day": [5], "count": [7], "forecast": [9.0]}), "upsert", keys=["day"])

    assert read.to_dict("list") == {"day": [4, 5], "count": [40, 50]}
    assert written == 2
    assert connection.read("select * from weekly order by day").to_dict("list") == {
        "day": [4, 5],
        "count": [40, 7],
        "forecast": [1.5, 9.0],
    }


def test_many_rows_stream_through_in_batches(connection: Any) -> None:
    many = pd.DataFrame({"n": range(200_000), "text": [f"row {n}" for n in range(200_000)]})
    assert connection.write("many", many) == 200_000

    with connection.read("many", as_="batches") as batches:
        sizes = [batch.num_rows for batch in batches]
    copied = connection.write("copy", connection.read("many", as_="batches"))

    assert (sum(sizes), len(sizes) > 1, copied) == (200_000, True, 200_000)
    pd.testing.assert_frame_equal(connection.read("select * from copy order by n"), many)


def test_a_member_uses_what_they_may_not_see_and_a_stranger_sees_nothing(
    wl: wallaroo.Client, reach: Path, folder: Path, connection: Any
) -> None:
    workspace = wl.create_workspace(f"team-{uuid4().hex[:8]}")
    bob = person(wl, reach, folder, f"bob-{uuid4().hex[:8]}@example.org")
    eve = person(wl, reach, folder, f"eve-{uuid4().hex[:8]}@example.org")
    workspace.add_user(bob._transport.auth.user_email())
    workspace.add_connection(connection.name())
    connection.set_use_only()

    bobs = bob.get_connection(connection.name())

    assert len(bobs.preview("daily")) == 5
    with pytest.raises(RequestRefused, match="the right to reveal it is missing"):
        bobs.details()
    with pytest.raises(RequestRefused, match="the right to edit it is missing"):
        bobs.update({"path": "/elsewhere"})
    with pytest.raises(EntityNotFoundError, match="There is no connection"):
        eve.get_connection(connection.name())
    assert eve.list_connections() == []
    assert "bob" in repr(connection.audit())


def test_a_rotation_that_fails_changes_nothing_and_one_that_works_is_in_force(
    connection: Any, path: Path, folder: Path
) -> None:
    moved = folder / f"moved-{uuid4().hex[:8]}.db"
    failed = connection.rotate({"path": str(moved)})
    moved.write_bytes(path.read_bytes())
    path.unlink()
    switched = connection.rotate({"path": str(moved), "note": "*****"})

    assert not failed
    assert failed.report.failed.name == "login"
    assert switched
    assert connection.details() == {"path": str(moved), "note": "a secret note"}
    assert [v.changed for v in connection.versions()] == [["path"], None]
    assert len(connection.preview("daily")) == 5


# --- references -----------------------------------------------------------------------------------------------------


def test_references_are_resolved_at_use_and_stay_references_everywhere_else(wl: wallaroo.Client, folder: Path) -> None:
    sales(folder / "sales.db")
    sales(folder / ALLOWED)
    (folder / "secrets" / "whole").write_text(f"{folder}/sales.db\n")
    by_file = {"path": {"$secret": f"file:{folder}/secrets/whole"}}

    connection = wl.create_connection(f"ref-{uuid4().hex[:8]}", "SQLITE", by_file)

    assert connection.test()
    assert len(connection.preview("daily")) == 5
    assert connection.details() == by_file
    assert connection.masked_details() == by_file


def test_a_reference_reads_what_belongs_to_the_platforms_environment(wl: wallaroo.Client, folder: Path) -> None:
    for environment in ("staging", "production"):
        (folder / environment).mkdir()
        file = sales(folder / environment / "sales.db")
        (folder / "secrets" / f"path-{environment}").write_text(f"{file}\n")
    (folder / "production" / "sales.db").unlink()
    by_environment = {"path": {"$secret": f"file:{folder}/secrets/path-{{environment}}"}}

    connection = wl.create_connection(f"ref-{uuid4().hex[:8]}", "SQLITE", by_environment)

    assert connection.test()
    assert len(connection.preview("daily")) == 5
    assert connection.details() == by_environment


@pytest.mark.parametrize(
    "reference",
    [
        "env:BETTONG_KEYS",
        "env:BETTONG_{{environment}}",
        "file:{secrets}/aws",
        "aws:theirs/key",
        "vault:auth/token/lookup-self#id",
        "env:BETTONG_DATABASE_URL",
        "env:BETTONG_HOME",
        "env:THEIRS",
        "env:HOME",
        "file:{home}/token",
        "file:{home}/keys/connections.keys",
        "file:{home}/bettong.db",
        "file:/proc/self/environ",
        "file:/etc/hostname",
        "file:{secrets}/../sales.db",
        "file:{secrets}/link-to-token",
        "file:{secrets}/link-to-home/token",
        "file:{secrets}",
        "vault:kv/platform#token",
    ],
)
def test_the_servers_secrets_are_not_read_by_naming_them(
    wl: wallaroo.Client, reach: Path, folder: Path, source: str, reference: str
) -> None:
    secrets = folder / "secrets"
    for name, target in (("link-to-token", reach / "token"), ("link-to-home", reach)):
        if not (secrets / name).is_symlink():
            (secrets / name).symlink_to(target)
    named = reference.format(home=reach, secrets=secrets)
    hidden = [SERVERS_OWN, (reach / "token").read_text().strip(), os.environ.get("HOME", "/root")]
    connection = wl.create_connection(
        f"thief-{uuid4().hex[:8]}", "HTTP", {"url": f"{source}/nothing", "bearer": {"$secret": named}}
    )

    report = connection.test()
    with pytest.raises(RequestRefused) as refused:
        connection.read()

    assert not report
    assert report.failed is not None
    assert report.failed.name in ("details", "secret")
    for text in (repr(report), report._repr_html_(), str(refused.value)):
        assert [value for value in hidden[:2] if value in text] == []
        assert "KEYS=" not in text


def test_files_of_the_platform_and_outside_the_folders_are_out_of_reach(
    wl: wallaroo.Client, reach: Path, folder: Path
) -> None:
    link = folder / f"link-{uuid4().hex[:8]}"
    link.symlink_to(reach / "bettong.db")
    for place in (reach / "bettong.db", link, folder / ".." / "x.db", "/etc/passwd"):
        for kind in ("SQLITE", "FILE"):
            connection = wl.create_connection(f"out-{uuid4().hex[:8]}", kind, {"path": str(place)})
            report = connection.test()
            assert not report, (kind, place)
            with pytest.raises(RequestRefused):
                connection.read("daily" if kind == "SQLITE" else "")


# --- the command line -----------------------------------------------------------------------------------------------


def test_all_of_it_from_the_command_line(reach: Path, folder: Path, path: Path, wl: wallaroo.Client) -> None:
    name = f"cli-{uuid4().hex[:8]}"

    def run(*words: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        return connections(reach, *words, stdin=stdin, code=code)

    file = folder / "details.json"
    file.write_text(json.dumps({"path": str(path), "tabel": "daily"}))
    assert "others can read it there" in run("create", name, "SQLITE", "--details", '{"path": "x"}', code=1).stderr
    assert "are not a JSON object" in run("create", name, "SQLITE", "--details", "-", stdin="[1]", code=1).stderr
    refused = run("create", name, "SQLITE", "password=hunter2", code=2).stderr
    assert "never taken from the command line" in " ".join(refused.split())
    assert "hunter2" not in refused
    made = run("create", name, "SQLITE", "--details", str(file), "--use-only")
    assert "not known to SQLITE and not used: tabel (did you mean table?)" in made.stderr
    assert f"Try it: bettong connections test {name}" in made.stdout
    typo = run("create", f"{name}-typo", "SQLIT", "--details", str(file)).stderr
    assert "SQLIT has no driver: it is stored only. Did you mean SQLITE?" in typo
    assert "Did you mean SQLITE? Types with a driver" in run("test", f"{name}-typo", code=1).stderr
    assert name in run("list").stdout
    assert "SQLITE" in run("drivers").stdout
    tested = run("test", name).stdout
    assert "complete; not known to SQLITE and not used: tabel" in tested
    assert "It works." in tested
    assert "daily" in run("browse", name).stdout
    assert "täg 1" in run("preview", name, "daily", "-n", "2").stdout
    assert run("read", name, "select day from daily").stdout.split() == ['"day"', "1", "2", "3", "4", "5"]
    for ending in ("csv", "parquet", "arrow", "jsonl"):
        rows = folder / f"rows.{ending}"
        assert "Read 5 rows" in run("read", name, "daily", "-o", str(rows)).stderr
        assert "Wrote 5 rows" in run("write", name, f"from_{ending}", str(rows)).stdout
        assert wl.get_connection(name).read(f"from_{ending}").values.tolist() == [list(row) for row in ROWS]
    assert "no such table" in run("read", name, "nope", code=1).stderr
    assert "Wrote 5 rows" in run("write", name, "daily", str(rows), "--mode", "upsert", "--key", "day").stdout
    updated = run("update", name, "--details", "-", stdin='{"table": "daily", "nte": 1}')
    assert ("Version 2" in updated.stdout, "not used: nte" in updated.stderr) == (True, True)
    refused = run("rotate", name, "--details", "-", stdin=json.dumps({"path": f"{folder}/no.db"}), code=1).stdout
    assert "stays in force" in refused
    assert "Version 3" in run("rotate", name, "--details", "-", stdin=json.dumps({"path": str(path)})).stdout
    assert "table" in run("versions", name).stdout
    assert "Version 4" in run("rollback", name, "1").stdout
    assert "Version 5" in run("update", name, "--details", "-", stdin='{"table": "daily"}').stdout
    assert "Version 6" in run("update", name, "--remove", "table").stdout
    assert "Last used: 20" in run("used-by", name).stdout
    assert "rollback" in run("audit", name).stdout
    run("delete", name, stdin="n\n", code=1)
    run("delete", name, "--yes")
    assert "that you may see" in run("test", name, code=1).stderr
    assert "There is no command 'tset'" in run("tset", code=2).stderr
    assert bettong("status", home=reach).returncode == 0


def test_a_taken_name_is_told_before_anything_is_asked(reach: Path, connection: Any) -> None:
    ours, terminal = os.openpty()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "bettong", "connections", "create", connection.name(), "POSTGRES"],
            stdin=terminal,
            env={**os.environ, "BETTONG_HOME": str(reach)},
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
    finally:
        os.close(terminal)
        os.close(ours)

    assert done.returncode == 1
    assert "exists already" in done.stderr
    assert "uri" not in done.stderr


def test_one_row_is_one_row(reach: Path, connection: Any, folder: Path) -> None:
    row = str(folder / "row.csv")
    read = connections(reach, "read", connection.name(), "daily", "--limit", "1", "-o", row).stderr
    written = connections(reach, "write", connection.name(), "one", row).stdout

    assert (read, written) == ("Read 1 row.\n", "Wrote 1 row.\n")
