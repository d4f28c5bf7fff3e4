"""Broken on purpose: servers, replicas and workers die, keys are lost, rubbish is uploaded; nothing is lost by it."""

from __future__ import annotations

import base64
import os
import secrets
import signal
import threading
from typing import TYPE_CHECKING, Any

import httpx
import pandas as pd
import psutil
import pyarrow as pa
import pytest
from builders import python_model_zip
from platforms import bettong, processes_of

import wallaroo
from wallaroo.framework import Framework
from wallaroo.object import InferenceError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

NUMBERS = pa.schema([pa.field("x", pa.float64())])
ADD = """
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    x = input_data["x"]
    if (x == -1).any():
        raise ValueError("minus one is not welcome")
    if (x == -2).any():
        import os, signal
        os.kill(os.getpid(), signal.SIGKILL)
    return {"y": x + ADDEND}
"""
RESULT = pa.schema([pa.field("y", pa.float64())])


def deployed(wl: wallaroo.Client, folder: Path, *, addend: float = 1.0, replicas: int = 1) -> Any:
    """A deployed pipeline called `adder` that answers y = x + addend."""
    archive = python_model_zip(folder / f"add{addend}.zip", ADD.replace("ADDEND", str(addend)))
    wl.upload_model("adder", str(archive), Framework.PYTHON, input_schema=NUMBERS, output_schema=RESULT)
    pipeline = wl.build_pipeline("adder").clear().add_model_step(wl.get_model("adder"))
    config = wallaroo.DeploymentConfigBuilder().replica_count(replicas).cpus(0.5).memory("512Mi").build()
    return pipeline.deploy(deployment_config=config)


def answer(pipeline: Any, x: float) -> float:
    return float(pipeline.infer(pd.DataFrame({"x": [x]})).loc[0, "out.y"])


def server_pid(home: Path) -> int:
    import json

    return int(json.loads((home / "server.json").read_text())["pid"])


def replica_pids(pipeline: Any) -> set[str]:
    return {engine["labels"]["pid"] for engine in pipeline.status()["engines"]}


def answers_from_new_replicas(pipeline: Any, host: int) -> bool:
    """Whether the pipeline runs under another host than the one given."""
    try:
        return (
            not psutil.pid_exists(host)
            and all(psutil.Process(int(pid)).ppid() != host for pid in replica_pids(pipeline) - {"0"})
            and answer(pipeline, 1) == 2
        )
    except Exception:
        return False


def eventually(holds: Callable[[], bool], what: str, timeout_s: float = 30.0) -> None:
    """Wait until `holds()`; the outside world gives no event to wait on."""
    deadline = threading.Event()
    timer = threading.Timer(timeout_s, deadline.set)
    timer.start()
    try:
        while not holds():
            assert not deadline.wait(0.05), f"Not within {timeout_s:g} s: {what}"
    finally:
        timer.cancel()


def test_a_model_that_raises_is_named_and_the_next_request_works(own_home: Path, tmp_path: Path) -> None:
    pipeline = deployed(wallaroo.Client(), tmp_path)

    with pytest.raises(InferenceError, match=r"minus one is not welcome") as raised:
        answer(pipeline, -1)

    assert "adder" in str(raised.value)
    assert "[500]" in str(raised.value)
    assert answer(pipeline, 1) == 2


def test_a_worker_that_kills_itself_fails_one_request_and_comes_back(own_home: Path, tmp_path: Path) -> None:
    pipeline = deployed(wallaroo.Client(), tmp_path)

    with pytest.raises(InferenceError, match="signal 9"):
        answer(pipeline, -2)

    assert answer(pipeline, 1) == 2
    assert pipeline.status()["status"] == "Running"


def test_a_killed_replica_is_replaced(own_home: Path, tmp_path: Path) -> None:
    pipeline = deployed(wallaroo.Client(), tmp_path, replicas=2)
    names = {engine["name"] for engine in pipeline.status()["engines"]}
    pid = int(pipeline.status()["engines"][0]["labels"]["pid"])

    os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        engines = pipeline.status()["engines"]
        pids = {int(e["labels"]["pid"]) for e in engines if e["status"] == "Running"}
        return len(pids) == 2 and pid not in pids

    eventually(replaced, "a new replica in place of the killed one")
    assert len(names) == 2
    assert answer(pipeline, 1) == 2


def test_a_killed_server_leaves_replicas_serving_and_finds_them_again(own_home: Path, tmp_path: Path) -> None:
    wl = wallaroo.Client()
    pipeline = deployed(wl, tmp_path)
    replicas = {e["labels"]["pid"] for e in pipeline.status()["engines"]}

    os.kill(server_pid(own_home), signal.SIGKILL)
    meanwhile = answer(pipeline, 1)
    again = wallaroo.Client()

    found = again.get_pipeline("adder")
    assert meanwhile == 2
    assert {e["labels"]["pid"] for e in found.status()["engines"]} == replicas
    assert answer(found, 2) == 3
    assert len(found.logs()) == 2


def test_a_killed_nursery_is_replaced_when_the_next_host_is_needed(own_home: Path, tmp_path: Path) -> None:
    pipeline = deployed(wallaroo.Client(), tmp_path)
    (nursery,) = psutil.Process(server_pid(own_home)).children()
    (host,) = {p.ppid() for p in processes_of(own_home) if str(p.pid) in replica_pids(pipeline)}

    nursery.kill()
    os.kill(host, signal.SIGKILL)

    eventually(lambda: answers_from_new_replicas(pipeline, host), "the host started again by a new nursery")
    pipeline.undeploy()
    assert answer(pipeline.deploy(), 1) == 2
    assert len(psutil.Process(server_pid(own_home)).children()) == 1


def test_a_redeploy_and_a_killed_server_under_load_fail_no_request(own_home: Path, tmp_path: Path) -> None:
    wl = wallaroo.Client()
    pipeline = deployed(wl, tmp_path, addend=1, replicas=2)
    url, header = pipeline.url(), wl.auth.auth_header()
    done, answers, failures = threading.Event(), [], []

    def client() -> None:
        with httpx.Client(timeout=30) as http:
            while not done.is_set():
                try:
                    reply = http.post(url, json=[{"x": 1.0}], headers=header)
                    answers.append(reply.json()[0]["out"]["y"]) if reply.is_success else failures.append(reply.text)
                except httpx.HTTPError as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=client) for _ in range(50)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(answers) > 200 or bool(failures), "load before the redeploy")
        deployed(wl, tmp_path, addend=2, replicas=2)
        os.kill(server_pid(own_home), signal.SIGKILL)
        seen = len(answers)
        eventually(lambda: len(answers) > seen + 500 or bool(failures), "load after the redeploy")
    finally:
        done.set()
        for thread in threads:
            thread.join()

    assert failures == []
    assert set(answers) == {2.0, 3.0}
    assert set(answers[-50:]) == {3.0}


def test_a_version_that_does_not_load_leaves_the_old_one_serving(own_home: Path, tmp_path: Path) -> None:
    wl = wallaroo.Client()
    pipeline = deployed(wl, tmp_path)
    archive = python_model_zip(tmp_path / "broken.zip", "raise RuntimeError('cannot load here')\n" + ADD)

    broken = wl.upload_model("adder", str(archive), Framework.PYTHON, input_schema=NUMBERS, output_schema=RESULT)

    assert broken.status() == "error"
    assert "cannot load here" in str(broken.error_summary())
    assert answer(pipeline, 1) == 2


def test_with_another_key_the_server_starts_lists_and_says_what_it_cannot_open(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wl = wallaroo.Client()
    wl.create_connection("warehouse", "POSTGRES", {"password": "correct horse"})
    bettong("stop", home=own_home)
    monkeypatch.setenv("BETTONG_KEYS", base64.b64encode(secrets.token_bytes(32)).decode())

    other = wallaroo.Client()

    assert [c.name() for c in other.list_connections()] == ["warehouse"]
    with pytest.raises(Exception, match="warehouse") as refused:
        other.get_connection("warehouse").details()
    assert "key" in str(refused.value)
    assert "warehouse" in bettong("status", home=own_home).stdout


def test_with_the_keys_gone_no_new_one_is_made(own_home: Path) -> None:
    wallaroo.Client().create_connection("warehouse", "POSTGRES", {"password": "correct horse"})
    bettong("stop", home=own_home)
    lost = [path for path in (own_home / "keys").iterdir() if "signing" not in path.name]
    for path in lost:
        path.rename(own_home / path.name)

    other = wallaroo.Client()

    assert [c.name() for c in other.list_connections()] == ["warehouse"]
    assert [p for p in (own_home / "keys").iterdir() if "signing" not in p.name] == []
    with pytest.raises(Exception, match="key"):
        other.create_connection("second", "HTTP", {"url": "http://127.0.0.1"})


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("rubbish.zip", b"not a zip at all", "Not a valid ZIP file."),
        ("empty.zip", b"", "Not a valid ZIP file."),
    ],
)
def test_rubbish_is_refused_or_explained(
    wl: wallaroo.Client, tmp_path: Path, name: str, content: bytes, words: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    try:
        version = wl.upload_model("rubbish", str(path), Framework.PYTHON, input_schema=NUMBERS, output_schema=RESULT)
        said = str(version.error_summary())
    except Exception as refused:
        said = str(refused)

    assert words in said


def test_undeploy_leaves_no_process_of_the_deployment(own_home: Path, tmp_path: Path) -> None:
    pipeline = deployed(wallaroo.Client(), tmp_path)
    pids = [int(e["labels"]["pid"]) for e in pipeline.status()["engines"]]
    assert all(psutil.pid_exists(pid) for pid in pids)

    pipeline.undeploy()

    assert not any(psutil.pid_exists(pid) for pid in pids)
    assert [p for p in processes_of(own_home) if "mac" in " ".join(p.cmdline())] == []


def test_the_traceback_of_a_model_is_one_command_away(own_home: Path, tmp_path: Path) -> None:
    pipeline = deployed(wallaroo.Client(), tmp_path)
    with pytest.raises(InferenceError, match="bettong logs"):
        answer(pipeline, -1)
    label = pipeline.get_external_url().split("/")[-2]

    printed = bettong("logs", "--deployment", label, "--model", "adder", home=own_home)
    unknown = bettong("logs", "--deployment", label, "--model", "nobody", home=own_home, check=False)

    assert "Traceback" in printed.stdout
    assert "ValueError: minus one is not welcome" in printed.stdout
    assert "It has: adder-" in unknown.stderr
