"""Between columns and pipelines of Hugging Face: what is an argument, what is an answer. Without transformers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from mac._loaders.hugging_face import Pipeline, options, picked, plain, subjects


def field(name: str, kind: str = "fixed") -> dict[str, Any]:
    return {"name": name, "type": {"kind": kind}}


SCORES = [{"label": "good", "score": 0.75}, {"label": "bad", "score": 0.25}]


@pytest.mark.parametrize(
    ("result", "outputs", "row"),
    [
        (SCORES, [field("label", "list"), field("score", "list")], {"label": ["good", "bad"], "score": [0.75, 0.25]}),
        (SCORES, [field("label", "utf8")], {"label": "good"}),
        (SCORES[0], [field("label", "fixed_list")], {"label": ["good"]}),
        ({"labels": ["a", "b"], "sequence": "x"}, [field("labels", "list"), field("sequence")], None),
        ([{"summary_text": "short"}], [field("text", "utf8")], {"text": "short"}),
        ([[0.5, 1.0], [2.0, 3.0]], [field("output", "list")], {"output": [[0.5, 1.0], [2.0, 3.0]]}),
        ({"text": "hello"}, [field("text"), field("chunks", "list")], {"text": "hello", "chunks": []}),
        ([], [field("label", "list")], {"label": []}),
    ],
)
def test_a_list_field_takes_all_answers_and_another_the_first(result: Any, outputs: Any, row: Any) -> None:
    assert picked(result, outputs) == (row or result)


def test_an_answer_without_a_field_is_told_by_names() -> None:
    with pytest.raises(ValueError, match="The pipeline gave no 'labels'; it gave: label, score"):
        picked(SCORES, [field("labels", "list"), field("score", "list")])


def test_no_answer_at_all_is_no_value_of_a_plain_field() -> None:
    with pytest.raises(ValueError, match="gave no answer for a row, and output field 'label' is no list"):
        picked([], [field("label", "utf8")])


@pytest.mark.parametrize(
    ("task", "given", "kept"),
    [
        ("zero-shot-classification", {"hypothesis_template": "", "multi_label": False}, {"multi_label": False}),
        ("automatic-speech-recognition", {"return_timestamps": "true"}, {"return_timestamps": True}),
        ("automatic-speech-recognition", {"return_timestamps": "char"}, {"return_timestamps": "char"}),
        (
            "text-generation",
            {"return_text": True, "return_tensors": False, "return_full_text": False},
            {"return_full_text": False},
        ),
        (
            "summarization",
            {"return_text": True, "return_tensors": False},
            {"return_text": True, "return_tensors": False},
        ),
    ],
)
def test_an_empty_text_is_no_argument_and_flags_come_in_the_form_that_pipelines_take(
    task: str, given: dict[str, Any], kept: dict[str, Any]
) -> None:
    assert options(task, given) == kept


def test_every_column_but_the_subject_is_an_argument_of_the_row() -> None:
    calls: list[Any] = []

    def call(subject: Any, given: Any) -> Any:
        calls.append((subject, given))
        return SCORES

    model = Pipeline("text-classification", call, [field("top_k"), field("inputs", "utf8")], [field("label", "utf8")])
    texts = np.array(["one", "two"], dtype=object)

    assert model.predict({"inputs": texts, "top_k": np.array([1, 2])}) == {"label": ["good", "good"]}
    assert calls == [({"inputs": "one"}, {"top_k": 1}), ({"inputs": "two"}, {"top_k": 2})]


def test_a_schema_without_the_tasks_columns_is_refused_by_name() -> None:
    assert subjects("zero-shot-object-detection", ["candidate_labels", "inputs"]) == ["inputs"]
    assert subjects("question-answering", ["context", "top_k", "question"]) == ["question", "context"]
    with pytest.raises(ValueError, match="schema of question-answering has no 'context'; its fields are: question"):
        subjects("question-answering", ["question"])


def test_what_a_pipeline_leaves_open_is_not_a_number() -> None:
    found = plain({"score": None, "timestamp": (np.float32(0.5), None)})

    assert math.isnan(found["score"])
    assert found["timestamp"][0] == 0.5
    assert math.isnan(found["timestamp"][1])
