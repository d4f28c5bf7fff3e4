"""Requests of several callers through one model together, from the notebook's side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import onnx_models as models
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest

from wallaroo.dynamic_batching_config import DynamicBatchingConfig
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from pathlib import Path

    import wallaroo

ROWS = np.random.default_rng(7).normal(size=(48, 18)).astype(np.float32)


def test_callers_of_every_size_and_format_get_their_own_rows_and_all_are_in_the_log(
    wl: wallaroo.Client, tmp_path: Path
) -> None:
    data = models.mlp()
    (tmp_path / "gathered.onnx").write_bytes(data)
    config = DynamicBatchingConfig(max_batch_delay_ms=20, batch_size_target=8, batch_size_limit=12)
    model = wl.upload_model("gathered", tmp_path / "gathered.onnx", Framework.ONNX)
    model.configure(dynamic_batching_config=config)
    assert wl.get_model("gathered").config().dynamic_batching_config() == config
    pipeline = wl.build_pipeline("gathered").clear().add_model_step(model).deploy()
    expected = onnxruntime.InferenceSession(data).run(None, {"tensor": ROWS})[0].ravel()
    cuts = [0, 1, 2, 4, 7, 8, 9, 30, 31, 48]  # one of them more than the limit

    def ask(at: int) -> np.ndarray:
        mine = ROWS[cuts[at] : cuts[at + 1]]
        if at % 2:
            table = pa.table({"tensor": pa.FixedSizeListArray.from_arrays(pa.array(mine.ravel()), 18)})
            return np.concatenate(pipeline.infer(table)["out.variable"].to_pylist())
        return np.concatenate(pipeline.infer(pd.DataFrame({"tensor": list(mine)}))["out.variable"].to_list())

    with ThreadPoolExecutor(len(cuts) - 1) as callers:
        answers = list(callers.map(ask, range(len(cuts) - 1)))

    np.testing.assert_allclose(np.concatenate(answers), expected, rtol=1e-4, atol=1e-6)
    logged = pipeline.logs(limit=100)
    assert sorted(np.concatenate(logged["in.tensor"].to_list()).tolist()) == pytest.approx(sorted(ROWS.ravel()))
    pipeline.undeploy()


def test_it_is_for_the_only_model_of_a_pipeline(wl: wallaroo.Client, tmp_path: Path) -> None:
    for name in ("gathers", "follows"):
        (tmp_path / f"{name}.onnx").write_bytes(models.mlp())
    gathers, follows = (wl.upload_model(n, tmp_path / f"{n}.onnx", Framework.ONNX) for n in ("gathers", "follows"))
    gathers.configure(dynamic_batching_config=DynamicBatchingConfig())

    with pytest.raises(Exception, match="only the one model of a pipeline can do; this one has 2"):
        wl.build_pipeline("two-models").clear().add_model_step(gathers).add_model_step(follows).deploy()
