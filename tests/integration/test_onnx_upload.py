"""An uploaded ONNX file is looked into by a sandboxed process: what it holds is told, and why it cannot be taken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import onnx_models as models
import pyarrow as pa
import pytest
from onnx import TensorProto

from bettong.errors import BadInput
from bettong.packaging import _graph_child
from bettong.packaging.graph import look_into, read_description

if TYPE_CHECKING:
    from bettong.domain.tensors import Graph


def look(folder: Path, data: bytes, report: list[str] | None = None) -> Graph:
    inside = folder / "model"
    inside.mkdir()
    file = inside / "model.onnx"
    file.write_bytes(data)
    return read_description(look_into(file, folder, ([] if report is None else report).append))


def test_the_schemas_are_read_from_the_graph_and_the_log_says_what_was_found(tmp_path: Path) -> None:
    lines: list[str] = []

    graph = look(tmp_path, models.mlp(), lines)

    assert graph.batch is None
    assert graph.input_schema == pa.schema([pa.field("tensor", pa.list_(pa.float32(), 18))])
    inner = pa.field("inner", pa.float32(), nullable=False)
    assert graph.output_schema == pa.schema([pa.field("variable", pa.list_(inner), nullable=False)])
    assert graph.output_schema.field("variable").type.value_field.name == "inner"
    log = "\n".join(lines)
    assert "ai.onnx 17; takes any number of rows" in log
    assert "Made-up rows were answered" in log
    assert [p.name for p in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize(
    ("data", "inputs", "outputs"),
    [
        (
            models.several(),
            {
                "number": pa.float64(),
                "label": pa.string(),
                "ids": pa.list_(pa.int64(), 2),
                "on": pa.list_(pa.bool_(), 1),
            },
            {"half": pa.float64(), "same": pa.string(), "sums": pa.int64(), "off": pa.bool_()},
        ),
        (models.identity(TensorProto.FLOAT16, ["N", 2]), {"x": pa.list_(pa.float16(), 2)}, {"y": pa.float16()}),
        (models.identity(TensorProto.UINT8, ["N", None]), {"x": pa.list_(pa.uint8())}, {"y": pa.uint8()}),
    ],
)
def test_every_type_that_rows_can_carry_has_its_arrow_type(
    tmp_path: Path, data: bytes, inputs: dict[str, pa.DataType], outputs: dict[str, pa.DataType]
) -> None:
    graph = look(tmp_path, data)

    assert graph.input_schema == pa.schema(list(inputs.items()))
    assert graph.output_schema == pa.schema(
        [pa.field(n, pa.list_(pa.field("inner", k, nullable=False)), nullable=False) for n, k in outputs.items()]
    )


def test_images_are_nested_lists_and_a_rank_that_the_file_does_not_tell_is_found_by_running_it(tmp_path: Path) -> None:
    graph = look(tmp_path, models.conv())

    assert graph.input_schema.field("image").type == pa.list_(pa.list_(pa.list_(pa.float32(), 8), 8), 3)
    assert str(graph.output_schema.field("features").type).count("list<") == 3
    assert str(graph.output_schema.field("logits").type).count("list<") == 1


def test_a_fixed_number_of_rows_is_stated(tmp_path: Path) -> None:
    assert look(tmp_path, models.mlp(batch=4)).batch == 4


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not an ONNX model, or is cut off"),
        (b"a text that somebody called .onnx", "not an ONNX model, or is cut off"),
        (models.mlp()[:-100], "not an ONNX model, or is cut off"),
        (b"PK\x03\x04 and so on", "a zip, not an ONNX model"),
        (models.mlp(opset=99), r"operator sets \(ai.onnx 99\) are newer than what onnxruntime [\d.]+ runs"),
        (models.changed(models.mlp(), ir_version=99), "file format is newer than what onnxruntime .* IR version: 99"),
        (models.with_operator(models.mlp(), "Frobnicate"), "No Op registered for Frobnicate"),
        (models.with_bytes(models.mlp(), b"tensor", b"\xfftenso"), "A name in the model is not UTF-8 text"),
        (models.external_data(), "keeps its weights in another file"),
        (models.of_sequences(), r"input 'x' is seq\(tensor\(float\)\), not a tensor"),
        (models.identity(TensorProto.BFLOAT16, ["N"]), "input 'x' holds bfloat16"),
        (models.identity(TensorProto.FLOAT, []), "input 'x' has no dimension that counts rows"),
        (models.without_rows(), r"output 'y' has the shape \[\] for 1 rows"),
    ],
    ids=lambda value: value if isinstance(value, str) else "a file",
)
def test_a_file_that_cannot_be_taken_says_why_and_what_to_do(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(BadInput, match=words) as refused:
        look(tmp_path, data)

    assert refused.value.next_step
    assert str(tmp_path) not in str(refused.value)
    assert "onnxruntime_src" not in str(refused.value)


def test_a_file_that_takes_too_long_or_ends_its_process_is_told_from_one_that_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "model.onnx"
    file.write_bytes(models.mlp())
    child = tmp_path / "child.py"
    monkeypatch.setattr(_graph_child, "__file__", str(child))

    child.write_text("import signal\nsignal.pause()")
    with pytest.raises(BadInput, match=r"took more than 0\.2 s"):
        look_into(file, tmp_path, print, timeout_s=0.2)
    child.write_text("import os\nos.abort()")
    with pytest.raises(BadInput, match=r"ended the process that tried it \(with signal 6\)"):
        look_into(file, tmp_path, print)
    child.write_text("print('no document')")
    with pytest.raises(BadInput, match="gave no answer"):
        look_into(file, tmp_path, print)


def test_what_looks_into_a_file_reads_nothing_else_of_the_platform(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real child's own way into the sandbox, then an attempt in place of the look."""
    (tmp_path / "model").mkdir()
    file = tmp_path / "model" / "model.onnx"
    file.write_bytes(models.mlp())
    (tmp_path / "token").write_text("bt_secret")
    lines: list[str] = []
    attempt = f"""
def describe(path):
    import os
    try:
        return {{"problem": open({str(tmp_path / "token")!r}).read(), "next_step": ""}}
    except OSError as refused:
        raise Refused("kept out: " + refused.strerror, str(len(os.environ)))
"""
    source = Path(str(_graph_child.__file__)).read_text("utf-8")
    child = tmp_path / "child.py"
    child.write_text(source.replace('if __name__ == "__main__":', attempt + '\nif __name__ == "__main__":'))
    monkeypatch.setattr(_graph_child, "__file__", str(child))

    with pytest.raises(BadInput, match="kept out: Permission denied"):
        look_into(file, tmp_path, lines.append)

    assert "Landlock" in lines[-1]


def test_importing_onnxruntime_as_the_platform_does_starts_no_thread_and_opens_no_file(tmp_path: Path) -> None:
    """With its telemetry on it does both, and leaves files in the person's cache."""
    code = """
import json, os
from bettong.engine.forking import SINGLE_THREADED, open_descriptors, thread_names
os.environ.update(SINGLE_THREADED)
before = open_descriptors()
import bettong.engine.nursery, onnxruntime
print(json.dumps([thread_names(), sorted(open_descriptors() - before)]))
"""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=True,
    )

    threads, opened = json.loads(done.stdout)
    assert len(threads) == 1
    assert opened == []
    assert list(tmp_path.iterdir()) == []
