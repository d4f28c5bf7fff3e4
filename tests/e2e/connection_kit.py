"""A platform that may reach a folder of the test's own, and people who use it."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

from platforms import bettong, new_home

import wallaroo

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

ROWS = [(day, day * 10, f"täg {day}") for day in range(1, 6)]


@contextmanager
def reaching_home(variables: Mapping[str, str]) -> Iterator[Path]:
    """A fresh platform home whose server starts with these variables of ours."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        with new_home() as home:
            yield home
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def sales(path: Path) -> Path:
    """A SQLite file with a table `daily` of `ROWS`."""
    with sqlite3.connect(path) as database:
        database.execute("create table daily (day integer primary key, count integer, name text)")
        database.executemany("insert into daily values (?, ?, ?)", ROWS)
    database.close()
    return path


def person(owner: wallaroo.Client, home: Path, folder: Path, email: str) -> wallaroo.Client:
    """Somebody else's session on the same platform."""
    made = bettong("tokens", "create", email, "--invite", "--json", home=home).stdout
    file = folder / f"{email.partition('@')[0]}.json"
    file.write_text(json.dumps(json.loads(made)))
    file.chmod(0o600)
    before = os.environ.get("WALLAROO_SDK_CREDENTIALS")
    os.environ["WALLAROO_SDK_CREDENTIALS"] = str(file)
    try:
        return wallaroo.Client(owner.api_endpoint, auth_type="token")
    finally:
        if before is None:
            del os.environ["WALLAROO_SDK_CREDENTIALS"]
        else:
            os.environ["WALLAROO_SDK_CREDENTIALS"] = before


def connections(home: Path, *words: str, stdin: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
    """Type a `bettong connections` that ends with `code`."""
    done = subprocess.run(
        [sys.executable, "-m", "bettong", "connections", *words],
        env={**os.environ, "BETTONG_HOME": str(home)},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == code, f"{words}\n{done.stdout}\n{done.stderr}"
    return done
