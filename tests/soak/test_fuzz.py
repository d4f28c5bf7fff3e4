"""Ten minutes of bodies that nobody should send: each is answered within a second, none ends a replica."""

from __future__ import annotations

import os
import random
import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx_models
import pandas as pd
import pytest
from spoiled_bodies import CONTENT_TYPES, good, spoiled

import wallaroo
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from pathlib import Path

SECONDS = float(os.environ.get("BETTONG_FUZZ_S", "600"))
ROWS = np.random.default_rng(3).normal(size=(6, 18)).astype(np.float32)

pytestmark = pytest.mark.soak


@pytest.mark.timeout(SECONDS + 300)
def test_every_spoiled_body_is_refused_or_answered_within_a_second(own_home: Path, tmp_path: Path) -> None:
    file = tmp_path / "mlp.onnx"
    file.write_bytes(onnx_models.mlp())
    seed = int(os.environ.get("BETTONG_FUZZ_SEED", time.time_ns() % 2**32))
    luck, counted, slowest = random.Random(seed), dict[int, int](), 0.0
    print(f"seed {seed}")
    with wallaroo.Client() as wl:
        pipeline = (
            wl.build_pipeline("fuzzed").add_model_step(wl.upload_model("mlp", str(file), Framework.ONNX)).deploy()
        )
        pids = replica_pids(pipeline)
        with httpx.Client(timeout=30) as client:
            until = time.monotonic() + SECONDS
            while time.monotonic() < until:
                headers, body = luck.choice(good(ROWS))
                sent = spoiled(body, luck)
                if luck.random() < 0.1:
                    headers = headers | {"Content-Type": luck.choice(CONTENT_TYPES)}
                began = time.perf_counter()
                answer = client.post(pipeline.url(), content=sent, headers=headers | wl.auth.auth_header())
                took_s = time.perf_counter() - began
                counted[answer.status_code] = counted.get(answer.status_code, 0) + 1
                slowest = max(slowest, took_s)
                assert answer.status_code == 200 or 400 <= answer.status_code < 500, (seed, answer.text, sent)
                assert took_s < 1.0, (seed, took_s, sent)
        assert replica_pids(pipeline) == pids
        assert len(pipeline.infer(pd.DataFrame({"tensor": [ROWS[0].tolist()]}))) == 1
        pipeline.undeploy()
    print(f"{counted} slowest {slowest:.3f} s")


def replica_pids(pipeline: Any) -> list[str]:
    return sorted(engine["labels"]["pid"] for engine in pipeline.status()["engines"])
