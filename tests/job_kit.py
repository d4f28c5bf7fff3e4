"""A real server with a kind of job that tests hold by its gates, and people who make jobs over HTTP."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import httpx
import onnx_models
import psutil
import pyarrow as pa
from platforms import bettong, new_home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")
PASSWORD = "s3cret-of-the-source"
PATIENCE_S = 60.0


def eventually(look: Callable[[], T | None], what: str) -> T:
    """What `look` finds, once it finds something that is not None or False."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {PATIENCE_S:g} s: {what}")


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not taken notice of does not."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class JobPlatform:
    """A platform in `home`, with a pipeline `prices` of an ONNX model and a connection with 6 rows for it."""

    def __init__(self, home: Path, folder: Path) -> None:
        self.home, self.folder = home, folder
        self.gates = folder / "gates"
        self.gates.mkdir()
        self._process: subprocess.Popen[bytes] | None = None

    # --- the server -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        log = (self.home / "server.log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("job_server.py"))],
                env={**os.environ, "BETTONG_HOME": str(self.home), "BETTONG_FILE_FOLDERS": str(self.folder)},
                stdout=log,
                stderr=log,
                cwd="/",
            )
        eventually(self._serves, "the server serves")

    def kill(self) -> None:
        """As `kill -9` does it."""
        assert self._process is not None
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def stop(self, *words: str) -> None:
        bettong("stop", *words, home=self.home)
        if self._process is not None:
            self._process.wait(30)

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, (self.home / "server.log").read_text()
        try:
            record = json.loads((self.home / "server.json").read_text())
            return bool(record["pid"] == self._process.pid and httpx.get(f"{record['url']}/v1/api/health").is_success)
        except (OSError, ValueError, httpx.HTTPError):
            return False

    # --- people -----------------------------------------------------------------------------------------------------

    def call(self, method: str, path: str, body: object = None, *, token: str | None = None) -> httpx.Response:
        record = json.loads((self.home / "server.json").read_text())
        headers = {"Authorization": f"Bearer {token or (self.home / 'token').read_text().strip()}"}
        return httpx.request(
            method,
            path if path.startswith("http") else f"{record['url']}/v1/api/{path}",
            json=body if method == "POST" else None,
            headers=headers,
            timeout=60,
        )

    def post(self, path: str, body: object = None, *, token: str | None = None) -> Any:
        answer = self.call("POST", path, body or {}, token=token)
        assert answer.is_success, answer.text
        return answer.json()

    def stranger(self, email: str = "eve@example.org") -> str:
        """The token of somebody who is a member of nothing."""
        made = bettong("tokens", "create", email, "--invite", home=self.home).stdout
        return made.strip()

    # --- jobs -------------------------------------------------------------------------------------------------------

    def furnish(self) -> None:
        """The pipeline and the connection."""
        import wallaroo
        from wallaroo.framework import Framework

        model = self.folder / "price.onnx"
        model.write_bytes(onnx_models.mlp(features=3))
        with sqlite3.connect(self.folder / "rows.db") as database:
            database.execute("create table rows (a real, b real, c real)")
            database.executemany("insert into rows values (?, ?, ?)", [(n, n / 2, -n) for n in range(6)])
        database.close()
        with wallaroo.Client() as wl:
            version = wl.upload_model("price", model, Framework.ONNX)
            self.pipeline = wl.build_pipeline("prices").clear().add_model_step(version)
            self.version = self.pipeline.create_version()
            self.pipeline_id = self.pipeline.id()
            self.workspace_id = wl.get_current_workspace().id()
            details = {"database": str(self.folder / "rows.db"), "password": PASSWORD}
            self.connection_id = wl.create_connection("rows", "SQLITE", details).id()

    def make(self, **more: Any) -> str:
        """A new job that answers the six rows; its id."""
        return str(self.post("jobs/infer_batch", self.request(**more))["job"]["id"])

    def request(self, **more: Any) -> dict[str, Any]:
        end = {"connection_id": self.connection_id}
        known = {"source": {**end, "query": "select * from rows"}, "sink": {**end, "table": "prices"}}
        return {"pipeline_id": self.pipeline_id, **known, "gates": str(self.gates), **more}

    def job(self, job_id: str) -> Any:
        return self.call("GET", f"jobs/{job_id}").json()["job"]

    def cancelled_in_the_database(self, job_id: str) -> str:
        """End a job while no server runs; its state then."""
        with sqlite3.connect(self.home / "bettong.db") as database:
            now = "2026-01-01 00:00:00.000000"
            database.execute("update jobs set state = 'cancelled', ended_at = ? where id = ?", (now, job_id))
            (state,) = database.execute("select state from jobs where id = ?", (job_id,)).fetchone()
        database.close()
        return str(state)

    def log(self, job_id: str) -> list[str]:
        return [line["text"] for line in self.call("GET", f"jobs/{job_id}/log").json()["lines"]]

    def rows(self, job_id: str, what: str) -> pa.Table:
        answer = self.call("GET", f"jobs/{job_id}/{what}")
        assert answer.is_success, answer.text
        return pa.ipc.open_stream(answer.content).read_all()

    def let(self, *steps: int) -> None:
        """Open the gates of these steps."""
        for step in steps:
            (self.gates / f"step-{step}").touch()

    def steps(self) -> list[tuple[int, int, int]]:
        """What was done, in its order: step, attempt, pid."""
        file = self.gates / "steps.txt"
        lines = file.read_text().splitlines() if file.exists() else []
        return [(int(step), int(attempt), int(pid)) for step, attempt, pid, _ in map(str.split, lines)]

    def done_to(self, step: int) -> tuple[int, int, int]:
        """The record of a step, once it is done."""
        return eventually(lambda: next((s for s in self.steps() if s[0] == step), None), f"step {step} is done")

    def ended(self, job_id: str) -> Any:
        return eventually(lambda: (j := self.job(job_id))["ended_at"] and j, f"job ended: {self.log(job_id)}")


@contextmanager
def job_platform(folder: Path) -> Iterator[JobPlatform]:
    """Serving and furnished; whatever runs of it at the end is stopped."""
    with new_home() as home:
        platform = JobPlatform(home, folder)
        platform.start()
        try:
            platform.furnish()
            yield platform
        finally:
            platform.stop()
