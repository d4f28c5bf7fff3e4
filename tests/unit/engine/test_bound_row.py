"""Rows through bound memory: they come out as `session.run` gives them, and stay what they were."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np
import onnx_models as models
import onnxruntime
import pytest
from onnx import TensorProto, helper

from bettong.engine.runners import bound_row
from bettong.engine.runners.bound_row import BoundRow

KINDS = [
    *(TensorProto.FLOAT16, TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.BOOL),
    *(TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64),
    *(TensorProto.UINT8, TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64),
]


def session_of(data: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    return onnxruntime.InferenceSession(data, options)


def bound_to(session: onnxruntime.InferenceSession, first: dict[str, np.ndarray[Any, Any]]) -> BoundRow:
    """Outputs come in the shapes that the graph gives them."""
    outputs = session.run(None, first)
    names = [output.name for output in session.get_outputs()]
    return BoundRow(session, first, dict(zip(names, outputs, strict=True)), [values.shape for values in outputs])


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: str(helper.tensor_dtype_to_np_dtype(kind)))
@pytest.mark.parametrize("shape", [(1,), (1, 3), (1, 2, 2)], ids=str)
def test_every_row_of_every_type_and_shape_comes_out_as_the_session_gives_it(kind: int, shape: tuple[int, ...]) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    session = session_of(models.identity(kind, ["N", *shape[1:]]))
    bound = bound_to(session, {"x": np.zeros(shape, dtype)})

    for seed in range(3):
        row = np.frombuffer(np.random.default_rng(seed).bytes(64), np.int8)[: np.prod(shape)].astype(dtype)
        for given in (row, row.reshape(1, -1)):
            (values,) = bound.run([given])
            (expected,) = session.run(None, {"x": row.reshape(shape)})
            assert (values.dtype, values.shape) == (expected.dtype, expected.shape)
            assert values.tobytes() == expected.tobytes()


def mixed_row(n: int) -> dict[str, np.ndarray[Any, Any]]:
    return {
        "a": np.array([n + 0.5]),
        "b": np.array([[n, 2]], np.int32),
        "c": np.array([[n % 2 == 1]]),
        "d": np.array([[[n, 1], [2, 3]]], np.uint8),
    }


def test_several_inputs_and_outputs_keep_their_order() -> None:
    session = session_of(models.mixed())
    bound = bound_to(session, mixed_row(0))

    for n in range(5):
        row = mixed_row(n)
        got = bound.run([values.reshape(1, -1) for values in row.values()])
        assert [v.tolist() for v in got] == [v.tolist() for v in session.run(None, row)]


def test_what_a_caller_keeps_is_not_touched_by_the_next_rows() -> None:
    row = np.ones((1, 3), np.float32)
    bound = bound_to(session_of(models.identity(TensorProto.FLOAT, ["N", 3])), {"x": row})

    kept = [bound.run([row * n])[0] for n in range(4)]

    assert [values.tolist() for values in kept] == [[[float(n)] * 3] for n in range(4)]
    assert row.tolist() == [[1.0] * 3], "nor is what it was bound with"


def test_both_branches_of_a_graph_are_seen_whichever_the_first_row_took() -> None:
    session = session_of(models.branching("Neg"))
    bound = bound_to(session, {"x": np.zeros((1, 2), np.float32)})

    got = [bound.run([np.array([row], np.float32)])[0].tolist() for row in ([1, 2], [-1, -2], [3, 4])]

    assert got == [[[-1.0, -2.0]], [[-1.0, -2.0]], [[-3.0, -4.0]]]


def test_a_row_that_fails_raises_and_the_next_one_works() -> None:
    bound = bound_to(session_of(models.of_items(3)), {"x": np.zeros(1, np.int64)})

    with pytest.raises(RuntimeError, match="indices element out of data bounds, idx=7"):
        bound.run([np.array([7])])
    assert bound.run([np.array([2])])[0].tolist() == [20]


def test_an_output_of_another_shape_than_the_first_is_an_error_and_never_an_old_answer() -> None:
    bound = bound_to(session_of(models.branching("Concat")), {"x": np.zeros((1, 2), np.float32)})

    for _ in range(2):
        with pytest.raises(RuntimeError, match=r"\{1,4\}"):
            bound.run([np.array([[1, 2]], np.float32)])
        assert bound.run([np.array([[-1, -2]], np.float32)])[0].tolist() == [[-1.0, -2.0]]


def test_the_session_answers_others_meanwhile() -> None:
    session = session_of(models.mlp())
    rows = np.random.default_rng(1).normal(size=(2, 1, 18)).astype(np.float32)
    mine, theirs = (session.run(None, {"tensor": row})[0].tolist() for row in rows)
    bound = bound_to(session, {"tensor": rows[0]})
    wrong: list[Any] = []

    def others() -> None:
        wrong.extend(v for _ in range(2_000) if (v := session.run(None, {"tensor": rows[1]})[0].tolist()) != theirs)

    thread = threading.Thread(target=others)
    thread.start()
    wrong.extend(v for _ in range(2_000) if (v := bound.run([rows[0]])[0].tolist()) != mine)
    thread.join()

    assert mine != theirs
    assert wrong == []


@pytest.mark.parametrize(
    ("data", "first", "why"),
    [
        (models.identity(TensorProto.STRING, ["N"]), np.array(["a"], object), "other things than numbers"),
        (models.identity(TensorProto.INT8, ["N", 32_769]), np.zeros((1, 32_769), np.int8), "a row has 65538 bytes"),
        (models.noise(), np.zeros((1, 2), np.float32), "its output 'y' does not come again"),
    ],
    ids=["strings", "large", "by chance"],
)  # fmt: skip
def test_what_cannot_be_bound_says_why(data: bytes, first: np.ndarray[Any, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        bound_to(session_of(data), {"x": first})


def test_memory_that_onnxruntime_would_copy_is_not_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    from_numpy = onnxruntime.OrtValue.ortvalue_from_numpy
    monkeypatch.setattr(onnxruntime.OrtValue, "ortvalue_from_numpy", lambda array: from_numpy(array.copy()))

    with pytest.raises(ValueError, match="onnxruntime copies arrays of float32"):
        bound_row._over(np.zeros(1, np.float32))
