"""An ONNX model from its file to answers, as a person does it: no schema, no environment, no waiting."""

from __future__ import annotations

import json
import threading
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import onnx_models as models
import onnxruntime
import pandas as pd
import pyarrow as pa
import pytest
import requests
from builders import python_model_zip

import wallaroo
from wallaroo.framework import Framework
from wallaroo.object import InferenceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROWS = np.random.default_rng(7).normal(size=(50, 18)).astype(np.float32)


def uploaded(wl: wallaroo.Client, folder: Path, name: str, data: bytes, **more: Any) -> Any:
    file = folder / f"{name}.onnx"
    file.write_bytes(data)
    return wl.upload_model(name, file, Framework.ONNX, **more)


def direct(data: bytes, rows: np.ndarray[Any, Any] = ROWS) -> np.ndarray[Any, Any]:
    answer: np.ndarray[Any, Any] = onnxruntime.InferenceSession(data).run(None, {"tensor": rows})[0]
    return answer


def as_arrow(rows: np.ndarray[Any, Any] = ROWS) -> pa.Table:
    return pa.table({"tensor": pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel()), rows.shape[1])})


@pytest.fixture(scope="module")
def houses(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The house price pipeline, deployed."""
    with wallaroo.Client() as wl:
        wl.set_current_workspace(wl.get_workspace(name="houses", create_if_not_exist=True))
        model = uploaded(wl, tmp_path_factory.mktemp("houses"), "house-price", models.mlp())
        pipeline = wl.build_pipeline("house-prices").clear().add_model_step(model).deploy()
        yield pipeline
        pipeline.undeploy()


def test_an_upload_is_ready_at_once_and_prints_nothing(
    wl: wallaroo.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    version = uploaded(wl, tmp_path, "quiet", models.mlp())

    assert capsys.readouterr().out == ""
    assert (version.status(), version.image_path(), version.config().runtime()) == ("ready", None, "onnx")
    again = uploaded(wl, tmp_path, "quiet", models.mlp())  # which is looked into no second time
    for uploads in (version, again):
        assert "takes any number of rows. Inputs: tensor" in "\n".join(uploads.get_upload_logs())
    shown = wl.get_model("quiet")
    assert shown.file_name() == "quiet.onnx"
    assert "quiet.onnx" in shown._repr_html_()


def test_a_frame_a_table_and_curl_get_what_onnxruntime_answers(wl: wallaroo.Client, houses: Any) -> None:
    expected = direct(models.mlp())

    frame = houses.infer(pd.DataFrame({"tensor": ROWS.tolist()}))
    assert list(frame.columns) == ["time", "in.tensor", "out.variable", "anomaly.count"]
    assert np.array_equal(np.array(frame["out.variable"].tolist(), np.float32), expected)

    table = houses.infer(as_arrow())
    assert str(table.schema.field("out.variable")).endswith("list<inner: float not null> not null>")
    assert np.array_equal(np.array(table["out.variable"].to_pylist(), np.float32), expected)

    answer = requests.post(
        houses.get_external_url(),
        data=json.dumps([{"tensor": ROWS[0].tolist()}]),
        headers={**wl.auth.auth_header(), "Content-Type": "application/json; format=pandas-records"},
        timeout=30,
    )
    (row,) = answer.json()
    assert np.float32(row["out"]["variable"]) == expected[0]
    assert json.loads(row["metadata"]["last_model"])["model_name"] == "house-price"


def test_every_answer_is_in_the_log(houses: Any) -> None:
    answered = houses.infer(as_arrow(ROWS[:3]))

    log = houses.logs(limit=3, arrow=True)

    assert log["out.variable"].to_pylist() == answered["out.variable"].to_pylist()[::-1]
    assert log["in.tensor"].to_pylist() == ROWS[:3].tolist()[::-1]


def test_numbers_texts_and_flags_go_in_and_out_and_into_the_log_in_every_format(
    wl: wallaroo.Client, tmp_path: Path
) -> None:
    model = uploaded(wl, tmp_path, "several", models.several())
    pipeline = wl.build_pipeline("several").clear().add_model_step(model).deploy()
    row = {"number": 3.0, "label": "ö", "ids": [2**50, 1], "on": [True]}
    expected = {"half": [1.5], "same": ["ö"], "sums": [2**50 + 1], "off": [False]}

    frame = pipeline.infer(pd.DataFrame([row]))
    table = pipeline.infer(pa.Table.from_pylist([row]))
    log = pipeline.logs(limit=2, arrow=True)

    for name, values in expected.items():
        assert frame.loc[0, f"out.{name}"] == values
        assert table[f"out.{name}"].to_pylist() == [values]
        assert log[f"out.{name}"].to_pylist() == [values, values]
    for name, value in row.items():
        assert log[f"in.{name}"].to_pylist() == [value, value]
    pipeline.undeploy()


def test_images_are_nested_and_several_outputs_come_back(wl: wallaroo.Client, tmp_path: Path) -> None:
    images = np.random.default_rng(8).normal(size=(4, 3, 8, 8)).astype(np.float32)
    model = uploaded(wl, tmp_path, "images", models.conv())
    pipeline = wl.build_pipeline("images").clear().add_model_step(model).deploy()

    answer = pipeline.infer(pd.DataFrame({"image": images.tolist()}))

    features, logits = onnxruntime.InferenceSession(models.conv()).run(None, {"image": images})
    assert np.array_equal(np.array(answer["out.features"].tolist(), np.float32), features)
    assert np.array_equal(np.array(answer["out.logits"].tolist(), np.float32), logits)
    log = pipeline.logs(limit=4, arrow=True)
    assert np.array_equal(np.array(log["out.features"].to_pylist(), np.float32)[::-1], features)
    pipeline.undeploy()


def test_status_names_what_executes_the_model_and_there_is_no_sidekick(houses: Any) -> None:
    status = houses.status()

    assert (status["status"], status["sidekicks"]) == ("Running", [])
    (model,) = status["engines"][0]["model_statuses"]["models"]
    assert (model["name"], model["execution_provider"]) == ("house-price", "CPUExecutionProvider")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"tensor": [1.0] * 17}], "found a list of 17 values, expected exactly 18"),
        ([{"tensor": [1.0] * 17 + [None]}], "tensor values may not be null"),
        ([{"tensor": ["1.0"] * 18}], "found a text, expected a number"),
        ([{"other": [1.0] * 18}], "lacks the column 'tensor'"),
    ],
)
def test_rows_that_do_not_fit_the_graph_are_refused_by_name(houses: Any, rows: list[Any], words: str) -> None:
    with pytest.raises(InferenceError, match=words):
        houses.infer(pd.DataFrame(rows))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"rubbish", "not an ONNX model"),
        (models.mlp(opset=99), "operator sets"),
        (models.external_data(), "keeps its weights in another file"),
        (models.of_sequences(), "not a tensor"),
    ],
    ids=["rubbish", "opset", "external", "sequence"],
)
def test_a_file_that_cannot_be_run_says_why(
    wl: wallaroo.Client, tmp_path: Path, capsys: pytest.CaptureFixture[str], data: bytes, words: str
) -> None:
    version = uploaded(wl, tmp_path, "broken", data)

    assert version.status() == "error"
    assert words in str(version.error_summary())
    assert words in capsys.readouterr().err


def test_inputs_are_renamed_and_rows_go_one_by_one_from_the_next_deployment_on(
    wl: wallaroo.Client, tmp_path: Path
) -> None:
    model = uploaded(wl, tmp_path, "renamed", models.mlp(batch=1))
    model.configure(tensor_fields=["features"], batch_config="single")
    pipeline = wl.build_pipeline("renamed").clear().add_model_step(model).deploy()

    answer = pipeline.infer(pd.DataFrame({"features": ROWS.tolist()}))

    assert np.allclose(np.array(answer["out.variable"].tolist(), np.float32), direct(models.mlp()), rtol=1e-5)
    with pytest.raises(Exception, match="tensor_fields has 2 names, the model has 1 inputs"):
        model.configure(tensor_fields=["a", "b"])
    pipeline.undeploy()


@pytest.mark.timeout(300)
def test_python_steps_stand_before_and_after_it(wl: wallaroo.Client, tmp_path: Path) -> None:
    """Doubles in, floats in the graph, floats out: the numbers are cast on the way in."""
    step = """
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {%s}
"""
    halve = python_model_zip(tmp_path / "halve.zip", step % '"tensor": input_data["raw"] / 2')
    post = python_model_zip(tmp_path / "post.zip", step % '"price": input_data["variable"][:, 0] + 1')
    wide, narrow = pa.list_(pa.float64()), pa.list_(pa.float32())
    before = wl.upload_model(
        "halve",
        halve,
        Framework.PYTHON,
        input_schema=pa.schema([pa.field("raw", wide)]),
        output_schema=pa.schema([pa.field("tensor", wide)]),
    )
    after = wl.upload_model(
        "post",
        post,
        Framework.PYTHON,
        input_schema=pa.schema([pa.field("variable", narrow)]),
        output_schema=pa.schema([pa.field("price", pa.float32())]),
    )
    model = uploaded(wl, tmp_path, "middle", models.mlp())
    pipeline = wl.build_pipeline("chained").clear()
    pipeline.add_model_step(before).add_model_step(model).add_model_step(after).deploy()

    answer = pipeline.infer(pd.DataFrame({"raw": ROWS.astype(np.float64).tolist()}))

    expected = direct(models.mlp(), ROWS / np.float32(2))[:, 0] + 1
    assert np.allclose(answer["out.price"].to_numpy(np.float32), expected, rtol=1e-6)
    pipeline.undeploy()


def test_a_redeploy_from_one_version_to_the_next_fails_no_request(wl: wallaroo.Client, tmp_path: Path) -> None:
    first, second = (uploaded(wl, tmp_path, "rolling", models.mlp(seed=seed)) for seed in (1, 2))
    pipeline = wl.build_pipeline("rolling").clear().add_model_step(first).deploy()
    url, header = pipeline.url(), wl.auth.auth_header()
    done, answers, failures = threading.Event(), list[float](), list[str]()
    answered = threading.Semaphore(0)

    def wait_for(count: int) -> None:
        assert all(answered.acquire(timeout=30) for _ in range(count)), failures

    def client() -> None:
        with httpx.Client(timeout=30) as http:
            while not done.is_set():
                try:
                    reply = http.post(url, json=[{"tensor": ROWS[0].tolist()}], headers=header)
                    if reply.is_success:
                        answers.append(reply.json()[0]["out"]["variable"][0])
                    else:
                        failures.append(reply.text)
                except httpx.HTTPError as error:
                    failures.append(repr(error))
                answered.release()

    threads = [threading.Thread(target=client) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        wait_for(100)
        pipeline.replace_with_model_step(0, second).deploy()
        while answered.acquire(blocking=False):
            pass
        wait_for(300)
    finally:
        done.set()
        for thread in threads:
            thread.join()

    old, new = (np.float32(direct(models.mlp(seed=seed), ROWS[:1])[0, 0]) for seed in (1, 2))
    assert failures == []
    assert {np.float32(a) for a in answers} == {old, new}
    assert {np.float32(a) for a in answers[-50:]} == {new}
    pipeline.undeploy()


def test_a_process_of_the_platform_sends_no_telemetry_and_leaves_nothing_in_the_cache(
    houses: Any, shared_home: Path
) -> None:
    import psutil

    replica = psutil.Process(int(houses.status()["engines"][0]["labels"]["pid"]))

    assert [f.path for f in replica.open_files() if "onnxruntime" in f.path] == []
    assert {c.raddr.ip for c in replica.net_connections("inet") if c.raddr} <= {"127.0.0.1", "::1"}
