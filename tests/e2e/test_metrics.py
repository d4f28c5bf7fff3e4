"""Metrics of a real platform: they equal what was answered, whatever dies meanwhile, and a scraper can read them."""

from __future__ import annotations

import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx_models as models
import pandas as pd
import pytest
from exposition_parser import parse

import wallaroo
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from exposition_parser import Family

pytestmark = pytest.mark.timeout(240)

ROW = np.linspace(-1, 1, 18).round(3).tolist()


def deployed(wl: wallaroo.Client, folder: Path, *, replicas: int) -> Any:
    file = folder / "house-price.onnx"
    file.write_bytes(models.mlp())
    model = wl.upload_model("house-price", file, Framework.ONNX)
    config = wallaroo.DeploymentConfigBuilder().replica_count(replicas).cpus(0.5).memory("512Mi").build()
    return wl.build_pipeline("prices").clear().add_model_step(model).deploy(deployment_config=config)


def replica_pids(pipeline: Any) -> set[int]:
    engines = pipeline.status()["engines"]
    return {int(engine["labels"]["pid"]) for engine in engines if engine["status"] == "Running"}


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


def scraped(wl: wallaroo.Client, home: Path) -> dict[str, Family]:
    """As Prometheus does it: over HTTP, with the API token."""
    token = (home / "token").read_text().strip()
    url = f"{wl.api_endpoint}/v1/api/metrics"
    answered = httpx.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
    assert answered.status_code == 200
    return parse(answered.text)


def test_counters_equal_what_was_answered_also_when_a_replica_is_killed_under_load(
    own_home: Path, tmp_path: Path
) -> None:
    wl = wallaroo.Client()
    pipeline = deployed(wl, tmp_path, replicas=2)
    url, header = pipeline.url(), wl.auth.auth_header()
    before = replica_pids(pipeline)
    rows, lost, halfway = [], [], threading.Event()

    def client(number: int) -> None:
        with httpx.Client(timeout=30, headers=header) as http:
            for n in range(150):
                size = 1 + n % 3
                try:
                    reply = http.post(url, json=[{"tensor": ROW}] * size)
                except httpx.TransportError:  # its replica was killed under it
                    lost.append(size)
                    continue
                assert reply.status_code == 200, reply.text
                rows.append(size)
                if number == 0 and n == 75:
                    halfway.set()

    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(client, number) for number in range(8)]
        assert halfway.wait(60)
        os.kill(min(before), signal.SIGKILL)
        for each in running:
            each.result()
    eventually(lambda: len(replica_pids(pipeline)) == 2, "the killed replica started again")

    seen = pipeline.metrics()

    # An answer counts a moment before it leaves: one on its way out of a killed replica may count, none is lost.
    assert len(rows) <= seen.requests()[200] <= len(rows) + len(lost)
    assert sum(rows) <= seen.rows() <= sum(rows) + sum(lost)
    assert seen.log_rows() == seen.rows()
    assert seen.replica_restarts() == 1
    table = seen.to_pandas().set_index(["stage", "step"])
    assert set(table["count"]) == {seen.requests()[200]}, "every answer went through every stage"
    assert (table["p50_ms"] > 0).all()
    assert (table["p50_ms"] <= table["p99_ms"]).all()
    assert table.loc[("request", ""), "mean_ms"] >= table.loc[("step", "house-price"), "mean_ms"]
    assert len(seen.replicas()) == 2

    told = scraped(wl, own_home)
    assert told["bettong_requests_total"].total(pipeline="prices", status="200") == seen.requests()[200]
    assert told["tensor_throughput_batch_count"].total(pipeline="prices") == seen.rows()
    assert told["bettong_replicas"].total(pipeline="prices") == 2
    assert told["bettong_log_bytes_total"].total(pipeline="prices") == seen.log_bytes() > 0
    assert told["bettong_http_requests_total"].total(route="/v1/api/pipelines/deploy", status="200") == 1
    assert told["process_resident_memory_bytes"].total() > 2**20


def test_a_redeploy_counts_on_and_an_undeploy_ends_it(own_home: Path, tmp_path: Path) -> None:
    wl = wallaroo.Client()
    pipeline = deployed(wl, tmp_path, replicas=1)
    pipeline.infer(pd.DataFrame({"tensor": [ROW, ROW]}))
    since = pipeline.metrics().since()

    pipeline = deployed(wl, tmp_path, replicas=1)
    pipeline.infer(pd.DataFrame({"tensor": [ROW]}))

    seen = pipeline.metrics()
    assert (seen.since(), seen.requests(), seen.rows()) == (since, {200: 2}, 3)
    assert "house-price" in repr(seen)
    assert "house-price" in seen._repr_html_()
    (listed,) = wl.list_deployments()
    assert listed.metrics().rows() == 3
    pipeline.undeploy()
    with pytest.raises(RuntimeError, match="is not deployed"):
        pipeline.metrics()
    assert "bettong_requests_total" not in scraped(wl, own_home)


def test_a_replica_shows_its_own_counters_to_members(own_home: Path, tmp_path: Path) -> None:
    wl = wallaroo.Client()
    pipeline = deployed(wl, tmp_path, replicas=1)
    pipeline.infer(pd.DataFrame({"tensor": [ROW]}))
    url = httpx.URL(pipeline.url()).copy_with(path="/metrics")

    answered = httpx.get(url, headers=wl.auth.auth_header())

    assert parse(answered.text)["tensor_throughput_batch_count"].total(deployment=pipeline.metrics().label()) == 1
    assert httpx.get(url).status_code == 401
