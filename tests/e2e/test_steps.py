"""Each kind of step through the SDK against a real platform, its numbers held against the models called directly."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

import httpx
import onnx_models as onnx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from builders import python_model_zip

import wallaroo
from wallaroo.framework import Framework
from wallaroo.object import DeploymentError, InferenceError, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from wallaroo.model_version import ModelVersion

pytestmark = pytest.mark.timeout(300)

ROWS: Any = pd.DataFrame({"x": [1, 2, 40]})
STEP = """
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    data = input_data
    %s
"""
Y = pa.schema([pa.field("y", pa.int64())])
PRE: list[Any] = [pa.field("x", pa.int64()), pa.field("kind", pa.string())]


class Models:
    """Models that add 1, 10 and 100 to `x`; `picky` raises for 40; `pre` gives `x` twice as large, and a `kind`."""

    def __init__(self, wl: wallaroo.Client, folder: Path) -> None:
        self.plus: dict[int, ModelVersion] = {}
        for addend in (1, 10, 100):
            file = folder / f"plus-{addend}.onnx"
            file.write_bytes(onnx.plus(addend))
            self.plus[addend] = wl.upload_model(f"plus-{addend}", file, Framework.ONNX)
            self.plus[addend].configure(output_schema=Y)
        self.picky = self._python(
            wl, folder, "picky", "assert max(data['x']) < 40, 'too large'\n    return {'y': data['x'] * 0}", Y
        )
        self.pre = self._python(
            wl,
            folder,
            "pre",
            "return {'x': data['x'] * 2, 'kind': ['small' if x < 10 else 'large' for x in data['x']]}",
            pa.schema(PRE),
        )

    def _python(self, wl: wallaroo.Client, folder: Path, name: str, code: str, outputs: pa.Schema) -> ModelVersion:
        return wl.upload_model(
            name,
            python_model_zip(folder / f"{name}.zip", STEP % code),
            Framework.PYTHON,
            input_schema=pa.schema([pa.field("x", pa.int64())]),
            output_schema=outputs,
        )


@pytest.fixture(scope="module")
def wl(shared_home: Path) -> Iterator[wallaroo.Client]:
    with wallaroo.Client() as client:
        client.set_current_workspace(client.get_workspace(name="steps", create_if_not_exist=True))
        yield client


@pytest.fixture(scope="module")
def models(wl: wallaroo.Client, tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(wl, tmp_path_factory.mktemp("steps"))


@pytest.fixture
def pipeline(wl: wallaroo.Client, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A new pipeline of the test's own."""
    made = wl.build_pipeline(request.node.name[:50].replace("_", "-").strip("-"))
    yield made
    made.undeploy()


def model_of(frame: Any) -> str:
    (text,) = frame.loc[0, "out._model_split"]
    told = json.loads(text)
    assert told["name"] == told["model_version"]["name"]
    return str(told["name"])


def test_shadow(pipeline: Any, models: Models) -> None:
    pipeline.add_shadow_deploy(models.plus[1], [models.plus[10], models.picky]).deploy()

    fine, partly = pipeline.infer(ROWS[:2]), pipeline.infer(ROWS)
    as_table = pipeline.infer(pa.table({"x": [1]}))

    assert list(fine.columns) == ["time", "in.x", "out.y", "anomaly.count", "out_plus-10.y", "out_picky.y"]
    assert as_table.column_names == list(fine.columns)
    assert fine["out.y"].tolist() == [2, 3]
    assert fine["out_plus-10.y"].tolist() == [11, 12]
    assert fine["out_picky.y"].tolist() == [0, 0]
    assert partly["out_plus-10.y"].tolist() == [11, 12, 50]
    assert partly["out_picky.y"].isna().all()
    log = pipeline.logs(limit=6)
    assert list(log.columns) == list(fine.columns)
    failures = pipeline.logs(valid=False)
    assert failures["error"].str.contains("Challenger 'picky' failed: .*too large").all()
    assert sorted(failures["in.x"]) == [1, 2, 40]
    assert "<td>plus-1</td>" in pipeline._repr_html_(), "a table shows a shadow by its champion"


def test_a_failing_champion_fails_the_request(pipeline: Any, models: Models) -> None:
    pipeline.add_shadow_deploy(models.picky, [models.plus[10]]).deploy()

    with pytest.raises(InferenceError, match=r"Step 1 of pipeline .*model 'picky': .*too large"):
        pipeline.infer(ROWS)


def test_shadow_without_waiting(pipeline: Any, models: Models) -> None:
    config = wallaroo.DeploymentConfigBuilder().shadow_wait(False).build()
    pipeline.add_shadow_deploy(models.plus[1], [models.plus[10], models.picky]).deploy(deployment_config=config)

    answer = pipeline.infer(ROWS[:2])

    assert list(answer.columns) == ["time", "in.x", "out.y", "anomaly.count"]
    later = eventually(lambda: rows_of(pipeline.challenger_logs(dataset=["*", "metadata"]), 2))
    assert sorted(later["out_plus-10.y"]) == [11, 12]
    log = pipeline.logs(dataset=["*", "metadata"])
    assert set(later["metadata.request_id"]) == set(log["metadata.request_id"])
    assert "out_plus-10.y" not in log.columns


def test_random_split(pipeline: Any, models: Models) -> None:
    pipeline.add_random_split([(2, models.plus[1]), (1, models.plus[10])], hash_key="session_id").deploy()

    def asked(**columns: object) -> Any:
        return pipeline.infer(pd.DataFrame({"x": [1], **columns}))

    by_key = [model_of(asked(session_id=[value])) for value in (0.1, 0.9, 0.1)]
    by_text = {text: {model_of(asked(session_id=[text])) for _ in range(3)} for text in ("ann", "bob", "eve", "zoe")}
    by_chance = Counter(model_of(asked()) for _ in range(60))

    assert by_key == ["plus-1", "plus-10", "plus-1"]
    assert all(len(models) == 1 for models in by_text.values())
    assert 20 < by_chance["plus-1"] < 58
    one = asked(session_id=[0.9])
    assert list(one.columns) == ["time", "in.session_id", "in.x", "out._model_split", "out.y", "anomaly.count"]
    assert (one.loc[0, "out.y"], one.loc[0, "in.session_id"]) == (11, 0.9)
    assert model_of(pipeline.logs(limit=1)) == "plus-10"


def test_key_split(pipeline: Any, models: Models) -> None:
    options = {"gold": models.plus[10], "silver": models.plus[100]}
    pipeline.add_key_split(models.plus[1], "card_type", options).deploy()

    found = [
        pipeline.infer(pd.DataFrame({"x": [1], "card_type": [value]})).loc[0, "out.y"]
        for value in ("gold", "silver", "bronze")
    ]

    assert found == [11, 101, 2]
    assert pipeline.infer(ROWS)["out.y"].tolist() == [2, 3, 41]


def test_multi_model_select_and_audit(pipeline: Any, models: Models) -> None:
    both = [models.plus[1], models.plus[10]]
    pipeline.add_multi_model_step(both).deploy()
    side_by_side = pipeline.infer(ROWS)

    pipeline.clear().add_multi_model_step(both).add_audit("0:1").add_select(1).deploy()
    picked = pipeline.infer(ROWS)

    assert side_by_side["out_plus-10.y"].tolist() == [11, 12, 50]
    assert picked["out.y"].tolist() == [11, 12, 50]
    assert list(picked.columns) == ["time", "in.x", "out.y", "anomaly.count"]
    assert sorted(pipeline.logs(limit=3)["out_plus-1.y"]) == [2, 3, 41]


def test_steps_without_a_builder(wl: wallaroo.Client, pipeline: Any, models: Models) -> None:
    """Average, rows to models, columns by position and to rows: made by programs that write the documents."""

    def reference(version: ModelVersion) -> dict[str, str]:
        return {"name": version.name(), "version": version.version(), "sha": version.sha()}

    def answers(*steps: dict[str, Any]) -> list[int]:
        request = {
            "pipeline_id": pipeline.name(),
            "workspace_id": wl.get_current_workspace().id(),
            "definition": {"id": pipeline.name(), "steps": list(steps)},
        }
        wl._transport.post("/v1/api/pipelines/create", request)
        pipeline.clear().deploy()
        found: list[int] = pipeline.infer(ROWS)["out.y"].tolist()
        return found

    one, ten = reference(models.plus[1]), reference(models.plus[10])
    rows = [{"row_index": at, "model": model} for at, model in enumerate((one, ten, one))]
    infer = {"ModelInference": {"models": [one, ten]}}

    assert answers(infer, {"Average": {}}) == [6.5, 7.5, 45.5]
    assert answers({"RowsToModels": {"rows_to_models": rows}}) == [2, 12, 41]
    pre, select = {"ModelInference": {"models": [reference(models.pre)]}}, {"ColumnsSelect": {"columns": [0]}}
    assert answers(pre, select, {"ModelInference": {"models": [ten]}}) == [12, 14, 90]


def test_validations(pipeline: Any, models: Models) -> None:
    pipeline.add_model_step(models.plus[10])
    pipeline.add_validations(high=pl.col("out.y") > 20, odd=(pl.col("in.x") % 2 == 1) & pl.col("out.y").is_not_null())
    pipeline.add_validations(above_mean=pl.col("out.y") > pl.col("out.y").mean())
    pipeline.deploy()

    frame = pipeline.infer(ROWS)

    expected = ["time", "in.x", "out.y", "anomaly.above_mean", "anomaly.count", "anomaly.high", "anomaly.odd"]
    assert list(frame.columns) == expected
    assert frame["anomaly.high"].tolist() == [False, False, True]
    assert frame["anomaly.odd"].tolist() == [True, False, False]
    assert frame["anomaly.above_mean"].tolist() == [False, False, True]
    assert frame["anomaly.count"].tolist() == [1, 0, 2]
    log = pipeline.logs(limit=3, arrow=True)
    assert log.schema.field("anomaly.count").type == pa.uint32()
    assert log["anomaly.count"].to_pylist() == [2, 0, 1]


def test_what_does_not_hold_is_refused_by_name(pipeline: Any, models: Models) -> None:
    pipeline.add_model_step(models.plus[1])
    pipeline.add_validations(odd=pl.col("out.y").sum().over("in.x") > 1)
    with pytest.raises(WallarooAPIError, match="Validation 'odd' has the node 'Over'"):
        pipeline.create_version()

    pipeline.clear().add_model_step(models.plus[1]).add_validations(odd=pl.col("out.z") > 1)
    with pytest.raises(DeploymentError, match=r"'odd' looks at the column 'out\.z'.* in\.x, out\.y"):
        pipeline.deploy()

    pipeline.clear().add_model_step(models.plus[1]).add_model_step(models.plus[10])
    with pytest.raises(DeploymentError, match=r"Step 2 .*model 'plus-10' takes the column 'x', which the step before"):
        pipeline.deploy()


def test_a_chain_into_a_split_that_its_columns_decide(pipeline: Any, models: Models) -> None:
    pipeline.add_model_step(models.pre).add_key_split(models.plus[1], "kind", {"large": models.plus[100]}).deploy()

    assert pipeline.infer(ROWS[:1])["out.y"].tolist() == [3]
    large = pipeline.infer(ROWS[2:])
    assert (large["out.y"].tolist(), model_of(large.reset_index())) == ([180], "plus-100")
    assert len(pipeline.infer(ROWS, dataset=["metadata"]).loc[0, "metadata.elapsed"]) == 3
    assert pipeline.clear().deploy().definition() == pipeline.definition(), "reloaded from the stored version"


def test_inferences_at_the_same_time_keep_their_order_and_tell_of_the_batch_that_failed(
    pipeline: Any, models: Models
) -> None:
    pipeline.add_model_step(models.picky).deploy()
    many: Any = pd.DataFrame({"x": [*range(30), 40, *range(9)]})

    async def go() -> tuple[Any, Any, Any, Any]:
        async with httpx.AsyncClient() as client:
            one = await pipeline.async_infer(ROWS[:2], client)
        return (
            await pipeline.parallel_infer(many, batch_size=3, num_parallel=4),
            await pipeline.parallel_infer(pa.Table.from_pandas(many), batch_size=7),
            await pipeline.parallel_infer(many[30:31], batch_size=1),
            one,
        )

    frame, table, failed, one = asyncio.run(go())

    assert one["out.y"].tolist() == [0, 0]
    for found in (frame, table.to_pandas()):
        assert found["in.x"].tolist() == many["x"].tolist()
    wrong = frame["error"].notna()
    assert frame[wrong]["in.x"].tolist() == [40, 0, 1], "the batch of the row that failed, and no other"
    assert frame[wrong]["error"].str.contains("too large").all()
    assert frame[~wrong]["out.y"].tolist() == [0] * 37
    assert failed["error"].notna().all()


def test_inference_from_files_and_of_chosen_columns(pipeline: Any, models: Models, tmp_path: Path) -> None:
    pipeline.add_random_split([(1, models.plus[1])]).deploy()
    records, arrow = tmp_path / "rows.json", tmp_path / "rows.arrow"
    records.write_text(ROWS.to_json(orient="records"))
    table = pa.Table.from_pandas(ROWS)
    with pa.ipc.new_file(str(arrow), table.schema) as writer:
        writer.write_table(table)

    assert pipeline.infer_from_file(records)["out.y"].tolist() == [2, 3, 41]
    assert pipeline.infer_from_file(arrow)["out.y"].to_pylist() == [2, 3, 41]
    assert list(pipeline.infer(ROWS, dataset=["time", "out.y"]).columns) == ["time", "out.y"]
    assert list(pipeline.infer(ROWS, dataset_exclude=["in", "out._model_split"]).columns) == [
        "time", "out.y", "anomaly.count",
    ]  # fmt: skip
    assert "out/y" in pipeline.infer(ROWS, dataset_separator="/").columns
    metadata = pipeline.infer(ROWS, dataset=["*", "metadata"])
    assert json.loads(metadata.loc[0, "metadata.last_model"])["model_name"] == "plus-1"


def test_a_redeploy_with_other_steps_fails_no_request_and_answers_change_once(
    wl: wallaroo.Client, pipeline: Any, models: Models
) -> None:
    """50 requests a second, from 10 connections, over a change from one model to a shadow with validations."""
    pipeline.add_model_step(models.plus[1]).deploy()
    url, done = pipeline.url(), threading.Event()
    answers: list[tuple[float, float, int, bool]] = []  # when it was asked and answered, what, whether of the new steps
    failures: list[str] = []

    def client() -> None:
        with httpx.Client(timeout=30) as http:
            while not done.wait(0.2):
                asked = time.monotonic()
                try:
                    reply = http.post(url, json=[{"x": 1}], headers=wl.auth.auth_header())
                    (row,) = reply.raise_for_status().json()
                    answers.append((asked, time.monotonic(), row["out"]["y"], "high" in row["anomaly"]))
                except httpx.HTTPError as error:
                    failures.append(repr(error))

    threads = [threading.Thread(target=client) for _ in range(10)]
    for thread in threads:
        thread.start()
    try:
        eventually(lambda: len(answers) > 50 or None)
        pipeline.clear().add_shadow_deploy(models.plus[10], [models.plus[100]])
        pipeline.add_validations(high=pl.col("out.y") > 5).deploy()
        deployed = time.monotonic()
        eventually(lambda: sum(asked > deployed for asked, *_ in answers) > 100 or None)
    finally:
        done.set()
        for thread in threads:
            thread.join()

    assert failures == []
    assert {(y, new) for *_, y, new in answers} == {(2, False), (11, True)}, "one or the other, never a mixture"
    assert all(new for asked, _, _, new in answers if asked > deployed + LINGER_S), "and the old ones are gone"


LINGER_S = 6.0  # a draining replica answers on connections that it has for 5 s


def eventually(look: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """What `look` gives once it is something."""
    until = time.monotonic() + timeout_s
    while (found := look()) is None:
        assert time.monotonic() < until, "It did not come about."
        time.sleep(0.05)
    return found


def rows_of(frame: Any, count: int) -> Any:
    return frame if len(frame) == count else None
