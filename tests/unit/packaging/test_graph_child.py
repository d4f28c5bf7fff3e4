from __future__ import annotations

import pytest

from bettong.packaging._graph_child import words


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (
            "[ONNXRuntimeError] : 10 : INVALID_GRAPH : Load model from /home/a/model.onnx failed:Invalid. No input",
            "Invalid. No input.",
        ),
        (
            "[ONNXRuntimeError] : 1 : FAIL : /build/core/graph/graph.cc:1585 void ns::Graph::Start(const X&, int) "
            "node_arg was false.",
            "node_arg was false.",
        ),
        ("Cannot open /home/a/model.onnx,\n or read it", "Cannot open the model, or read it."),
        ("x" * 1000, "x" * 399 + "…"),
    ],
)
def test_onnxruntimes_words_are_told_without_its_codes_its_sources_and_our_folders(said: str, told: str) -> None:
    assert words(said, "/home/a/model.onnx") == told
