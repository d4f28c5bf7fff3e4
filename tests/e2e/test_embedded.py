"""The platform that a notebook starts: one per home, for its owner only, found again, never mistaken for another."""

from __future__ import annotations

import json
import os
import resource
import signal
import stat
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import psutil
from platforms import bettong, processes_of

import wallaroo

if TYPE_CHECKING:
    import pytest

CLIENT = "import wallaroo; wl = wallaroo.Client(); print(wl.api_endpoint)"


def record(home: Path) -> dict[str, str]:
    content: dict[str, str] = json.loads((home / "server.json").read_text())
    return content


def test_notebooks_that_start_at_once_get_one_platform(own_home: Path) -> None:
    def notebook(_: int) -> str:
        done = subprocess.run([sys.executable, "-c", CLIENT], capture_output=True, text=True, check=True, timeout=90)
        return done.stdout.strip().splitlines()[-1]

    with ThreadPoolExecutor(4) as pool:
        urls = set(pool.map(notebook, range(4)))

    assert urls == {record(own_home)["url"]}


def test_a_home_may_be_named_from_the_current_folder(own_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_home.parent)

    said = bettong("up", home=Path(own_home.name)).stdout

    assert record(own_home)["url"] in said
    assert "Nothing is deployed." in bettong("status", home=own_home).stdout


def test_what_is_kept_can_be_read_by_its_owner_only(own_home: Path) -> None:
    wallaroo.Client()

    assert stat.S_IMODE(own_home.stat().st_mode) == 0o700
    for name in ("server.json", "token", "bettong.db", "server.log"):
        assert stat.S_IMODE((own_home / name).stat().st_mode) == 0o600, name
    for key in (own_home / "keys").iterdir():
        assert stat.S_IMODE(key.stat().st_mode) == 0o600, key


def test_it_listens_on_loopback_only(own_home: Path) -> None:
    wallaroo.Client()

    listening = [
        connection.laddr.ip
        for process in processes_of(own_home)
        for connection in process.net_connections(kind="inet")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert set(listening) == {"127.0.0.1"}


def test_nobody_gets_in_without_the_token(own_home: Path) -> None:
    url = wallaroo.Client().api_endpoint

    missing = httpx.post(f"{url}/v1/api/workspaces/list", json={})
    wrong = httpx.post(f"{url}/v1/api/workspaces/list", json={}, headers={"Authorization": "Bearer bt_wrong"})

    assert (missing.status_code, missing.text) == (401, "Jwt is missing")
    assert (wrong.status_code, wrong.text) == (401, "Jwt verification fails")


def test_a_name_that_is_not_ours_in_the_host_header_is_refused(own_home: Path) -> None:
    url = wallaroo.Client().api_endpoint

    answer = httpx.get(f"{url}/v1/api/health", headers={"Host": "evil.example"})

    assert 400 <= answer.status_code < 500


def test_a_killed_server_is_noticed_and_the_next_client_finds_everything_again(own_home: Path) -> None:
    wl = wallaroo.Client()
    wl.create_workspace("kept")
    before = record(own_home)
    os.kill(int(before["pid"]), signal.SIGKILL)

    again = wallaroo.Client()

    assert record(own_home)["instance"] != before["instance"]
    assert record(own_home)["url"] == before["url"]
    assert "kept" in [w.name() for w in again.list_workspaces()]


def test_a_foreign_program_on_the_recorded_port_is_not_taken_for_ours(own_home: Path, source: str) -> None:
    own_home.joinpath("server.json").write_text(
        json.dumps({"url": source, "pid": os.getpid(), "instance": "x", "version": "0", "started_at": "2026-01-01"})
    )

    wl = wallaroo.Client()

    assert wl.api_endpoint != source
    assert wl.api_endpoint == record(own_home)["url"]


def test_started_twice_says_so_and_changes_nothing(own_home: Path) -> None:
    bettong("up", home=own_home)
    first = record(own_home)

    again = bettong("up", home=own_home)
    second_server = bettong("serve", home=own_home, check=False)

    assert "was running already" in again.stdout
    assert second_server.returncode != 0
    assert "Another server has the home" in second_server.stderr
    assert record(own_home) == first


def test_it_may_open_as_many_connections_as_the_system_lets_it(own_home: Path) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    subprocess.run(["bash", "-c", f"ulimit -Sn 256; exec {sys.executable} -m bettong up"], check=True, timeout=90)

    server = psutil.Process(int(record(own_home)["pid"]))

    for process in (server, *server.children()):  # hosts and replicas have it from the nursery
        assert process.rlimit(psutil.RLIMIT_NOFILE) == (min(hard, 65536) if hard >= 0 else 65536, hard)


def test_stop_leaves_nothing_running(own_home: Path) -> None:
    bettong("up", home=own_home)
    assert processes_of(own_home) != []

    stopped = bettong("stop", home=own_home)
    again = bettong("stop", home=own_home)

    assert stopped.stdout == "Stopped.\n"
    assert "No platform runs" in again.stdout
    assert processes_of(own_home) == []


def test_a_mistyped_command_teaches(own_home: Path) -> None:
    mistyped = bettong("statsu", home=own_home, check=False)

    assert mistyped.returncode != 0
    assert "There is no command 'statsu'" in mistyped.stderr
    assert "status" in mistyped.stderr


def test_status_tells_what_runs(own_home: Path) -> None:
    before = bettong("status", home=own_home, check=False)
    bettong("up", home=own_home)

    after = bettong("status", home=own_home)

    assert (before.returncode, "bettong up" in before.stdout) == (3, True)
    assert record(own_home)["url"] in after.stdout
    assert "Nothing is deployed." in after.stdout


def test_the_api_pages_work_offline_and_without_a_token(own_home: Path) -> None:
    url = wallaroo.Client().api_endpoint

    page = httpx.get(f"{url}/docs", follow_redirects=True)
    described = httpx.get(f"{url}/openapi.json")

    assert page.status_code == 200
    assert "http://" not in page.text.replace(url, "")
    assert "https://" not in page.text
    assert "/v1/api/connections/create" in described.json()["paths"]
