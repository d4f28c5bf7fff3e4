"""The platform's key changes while people work and the server is killed in the middle: nothing is lost or readable."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import threading
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from platforms import bettong

import wallaroo
from wallaroo.object import CommunicationError, RequestRefused, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

CONNECTIONS = 150
KEYS = "/v1/api/platform/keys"


def pid_of(home: Path) -> int:
    import json

    return int(json.loads((home / "server.json").read_text())["pid"])


def under(home: Path, key_id: str) -> int:
    """How many sealed values the database itself has under a key."""
    with contextlib.closing(sqlite3.connect(f"file:{home / 'bettong.db'}?mode=ro", uri=True)) as database:
        query = "select count(*) from connection_versions where hex(substr(sealed, 2, 8)) = ?"
        return int(database.execute(query, [key_id.upper()]).fetchone()[0])


def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.002)


class Changing(threading.Thread):
    """Somebody who changes a connection and reads it, again and again, and remembers what was acknowledged."""

    def __init__(self, connection: Any) -> None:
        super().__init__()
        self._connection = connection
        self.acknowledged, self.wrong = 0, list[object]()
        self.over = threading.Event()

    def run(self) -> None:
        number = 0
        while not self.over.is_set():
            number += 1
            try:
                self._connection.update({"number": number})
                self.acknowledged = number
                found = self._connection.details()
                if found["number"] != number or found["password"] != "correct horse":
                    self.wrong.append(found)
            except (CommunicationError, WallarooAPIError, RequestRefused) as refused:
                if isinstance(refused, WallarooAPIError) and refused.code != 503:
                    self.wrong.append(refused)
                return  # the server was killed; what was acknowledged must be there when it is back


def test_a_key_changes_under_load_and_over_a_kill(own_home: Path) -> None:
    wl = wallaroo.Client()
    made = [
        wl.create_connection(f"c{number}", "MONGODB", {"password": "correct horse", "number": 0})
        for number in range(CONNECTIONS)
    ]
    (old,) = (key["id"] for key in wl._transport.post(f"{KEYS}/list")["keys"])
    changing = Changing(made[0])
    changing.start()

    new = wl._transport.post(f"{KEYS}/add")["id"]
    until(lambda: changing.acknowledged > 3)
    stepping = threading.Thread(target=_step_for_ever, args=(wl.api_endpoint, (own_home / "token").read_text().strip()))
    stepping.start()
    until(lambda: under(own_home, new) > 20)
    os.kill(pid_of(own_home), signal.SIGKILL)
    changing.over.set()
    for thread in (changing, stepping):
        thread.join()

    again = wallaroo.Client()
    rotated = bettong("keys", "rotate", home=own_home)
    listed = bettong("keys", "list", home=own_home).stdout

    assert changing.wrong == []
    assert under(own_home, old) == 0
    assert f"Nothing is sealed under {old} any more" in rotated.stdout
    assert f"{new}  seals" in listed
    assert f"{old}  opens    0 values" in listed
    found = again.get_connection("c0").details()
    assert found["number"] in (changing.acknowledged, changing.acknowledged + 1)
    assert all(c.details()["password"] == "correct horse" for c in again.list_connections())
    assert "Sealed anew: 0 values" in bettong("keys", "rotate", home=own_home).stdout


def test_after_a_rotation_the_old_key_can_go_and_one_that_is_still_needed_is_missed(own_home: Path) -> None:
    wl = wallaroo.Client()
    connection = wl.create_connection("c", "HTTP", {"password": "correct horse"})
    assert "Made key" in bettong("keys", "rotate", "--new-key", home=own_home).stdout
    bettong("stop", home=own_home)
    file = own_home / "keys" / "connections.keys"
    new, old = file.read_text().split()

    file.write_text(f"{new}\n")
    with wallaroo.Client() as without_old:
        assert without_old.get_connection("c").details() == {"password": "correct horse"}
    bettong("stop", home=own_home)
    file.write_text(f"{old}\n")
    wl = wallaroo.Client()
    told = bettong("keys", "rotate", home=own_home, check=False)

    assert told.returncode == 1
    assert "Not opened, and left as it is: Connection 'c', version 1" in told.stderr
    assert "missing" in bettong("keys", "list", home=own_home).stdout
    assert "Connection 'c' cannot be opened" in bettong("status", home=own_home).stdout
    with pytest.raises(RequestRefused, match="cannot be opened"):
        wl.get_connection("c").details()
    assert connection.name() == "c"
    for text in (told.stdout, told.stderr):
        assert old not in text
        assert new not in text


def _step_for_ever(url: str, token: str) -> None:
    """Walk over what is sealed until nobody answers any more."""
    after = None
    with contextlib.suppress(httpx.HTTPError):
        while True:
            body = {"after": after, "limit": 20}
            step = httpx.post(
                f"{url}{KEYS}/reseal", json=body, headers={"Authorization": f"Bearer {token}"}, timeout=60
            )
            after = step.json()["after"]
