"""PyTorch, Keras, TensorFlow and Hugging Face models from the file to the answer, compared with the library called
directly in the very environment that the platform built. One environment serves all of PyTorch and Hugging Face, one
all of Keras and TensorFlow, as long as their requirements are the same."""

from __future__ import annotations

import json
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from builders import python_model_zip
from framework_kit import Bench, Library

from bettong.errors import BadInput, ModelFailed
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    import wallaroo

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]

STEP = """
from mac.types import InferenceData
def process_data(input_data: InferenceData) -> InferenceData:
    return input_data
"""
TORCH = "transformers<5\ntorch\npillow\n"
FLOAT, DOUBLE, WHOLE, TEXT = pa.float32(), pa.float64(), pa.int64(), pa.string()
ROWS = np.random.default_rng(7).normal(size=(4, 10))
TEN = pa.list_(DOUBLE, 10)
Rows = dict[str, Any]


def lists(values: Any, kind: Any) -> Any:
    return pa.array(np.asarray(values).tolist(), kind)


def zipped(file: Path, to: Path, *beside: tuple[str, str]) -> Path:
    """A zip of a file, or of what is in a folder, and of texts beside it."""
    with zipfile.ZipFile(to, "w") as archive:
        for path in sorted(file.rglob("*")) if file.is_dir() else [file]:
            archive.write(path, path.relative_to(file if file.is_dir() else file.parent))
        for name, text in beside:
            archive.writestr(name, text)
    return to


@pytest.fixture(scope="module")
def bench(shared_home: Path) -> Bench:
    return Bench(shared_home)


def environment(bench: Bench, requirements: str, folder: Path) -> Library:
    """The environment that the platform builds for these requirements, to make models in and to ask directly."""
    step = python_model_zip(folder / "step.zip", STEP, requirements)
    built = bench.package("python", step).environment
    return Library(built / "bin" / "python", home=folder)


# --- PyTorch --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def torch(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return environment(bench, TORCH, tmp_path_factory.mktemp("torch"))


@pytest.fixture(scope="module")
def torch_models(torch: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return torch.make("make_torch.py", tmp_path_factory.mktemp("torch-models"))


DIRECT_TORCH = """
import json, sys, torch
folder, rows = sys.argv[1], json.loads(sys.argv[2])
found = {}
with torch.no_grad():
    for name in ("script.pt", "double.pt"):
        model = torch.jit.load(f"{folder}/{name}").eval()
        kind = next(model.parameters()).dtype
        found[name] = model(torch.tensor(rows["plain"], dtype=kind)).tolist()
    for name in ("whole.pth", "legacy.pt"):
        found[name] = torch.load(f"{folder}/{name}", weights_only=False).eval()(torch.tensor(rows["plain"])).tolist()
    found["exported.pt2"] = torch.export.load(f"{folder}/exported.pt2").module()(torch.tensor(rows["plain"])).tolist()
    houses = torch.jit.load(f"{folder}/houses.pt").eval()(torch.tensor(rows["numbers"]), torch.tensor(rows["words"]))
    found["houses.pt"] = {name: value.tolist() for name, value in houses.items()}
    picture = torch.jit.load(f"{folder}/picture.pt").eval()(torch.tensor(rows["image"]))
    found["picture.pt"] = [value.tolist() for value in picture]
print(json.dumps(found))
"""
NUMBERS = np.random.default_rng(8).normal(size=(3, 4)).astype(np.float32)
WORDS = np.array([[1, 2], [3, 4], [49, 0]])
IMAGE = np.random.default_rng(9).random((2, 3, 8, 8)).astype(np.float32)
IMAGE_TYPE = pa.list_(pa.list_(pa.list_(FLOAT, 8), 8), 3)


@pytest.fixture(scope="module")
def direct_torch(torch: Library, torch_models: Path) -> dict[str, Any]:
    """What the library answers, by file."""
    rows = {"plain": ROWS.tolist(), "numbers": NUMBERS.tolist(), "words": WORDS.tolist(), "image": IMAGE.tolist()}
    found: dict[str, Any] = torch.says(DIRECT_TORCH, torch_models, json.dumps(rows))
    return found


@pytest.fixture
def sharing(tmp_path: Path, torch_models: Path) -> Callable[[str], Path]:
    """A model's file in a zip whose requirements make it share the environment of the other tests."""
    return lambda name: zipped(torch_models / name, tmp_path / f"{name}.zip", ("requirements.txt", TORCH))


@pytest.mark.parametrize("name", ["script.pt", "double.pt", "whole.pth", "legacy.pt", "exported.pt2"])
def test_a_torch_model_answers_what_the_library_does(
    bench: Bench, sharing: Callable[[str], Path], direct_torch: Any, name: str
) -> None:
    answer = bench.answers("pytorch", sharing(name), {"input": lists(ROWS, TEN)}, {"output": pa.list_(DOUBLE)})

    assert np.allclose(answer["output"], direct_torch[name], rtol=1e-6, atol=1e-7)


def test_several_inputs_and_outputs_go_by_the_models_names_or_by_number(
    bench: Bench, sharing: Callable[[str], Path], direct_torch: Any
) -> None:
    numbers, words = lists(NUMBERS, pa.list_(DOUBLE, 4)), lists(WORDS, pa.list_(WHOLE, 2))
    pair = pa.list_(FLOAT, 2)

    named = bench.answers("pytorch", sharing("houses.pt"), {"words": words, "numbers": numbers}, {"kind": pair})
    numbered = bench.answers(
        *("pytorch", sharing("houses.pt"), {"input_2": words, "input_1": numbers}),
        {"output_2": pair, "output_1": pair},
    )

    assert named == {"kind": direct_torch["houses.pt"]["kind"]}
    assert numbered == {"output_1": direct_torch["houses.pt"]["price"], "output_2": direct_torch["houses.pt"]["kind"]}


def test_nested_lists_are_tensors_of_as_many_dimensions_and_come_back_so(
    bench: Bench, sharing: Callable[[str], Path], direct_torch: Any
) -> None:
    outputs = {"output_1": pa.list_(FLOAT), "output_2": IMAGE_TYPE}

    answer = bench.answers("pytorch", sharing("picture.pt"), {"input": lists(IMAGE, IMAGE_TYPE)}, outputs)

    assert [answer["output_1"], answer["output_2"]] == direct_torch["picture.pt"]


def test_a_column_per_feature_is_the_same_as_a_list(
    bench: Bench, sharing: Callable[[str], Path], direct_torch: Any
) -> None:
    columns = {f"feature{i}": pa.array(ROWS[:, i]) for i in range(10)}

    answer = bench.answers("pytorch", sharing("script.pt"), columns, {"output": pa.list_(FLOAT)})

    assert np.allclose(answer["output"], direct_torch["script.pt"], rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs", "words"),
    [
        ("houses.pt", {"input": TEN}, {"price": TEN}, "forward takes (numbers, words); the input schema has 1 fields"),
        (
            "houses.pt",
            {"words": TEN, "other": TEN},
            {"price": TEN},
            "forward takes (numbers, words); the input schema has 2 fields",
        ),
        ("script.pt", {"input": TEN}, {"a": TEN, "b": TEN}, "returned 1 outputs; the output schema has 2 fields"),
    ],
)
def test_schemas_that_do_not_fit_a_torch_model_are_refused_with_words(
    bench: Bench, sharing: Callable[[str], Path], name: str, inputs: Rows, outputs: Rows, words: str
) -> None:
    rows = {field: lists(ROWS, kind) for field, kind in inputs.items()}

    with pytest.raises(ModelFailed) as failed:
        bench.answers("pytorch", sharing(name), rows, outputs)

    assert words in str(failed.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("weights.pt", "holds a state_dict: weights without their model. Write the whole model"),
        ("of_notebook.pt", "needs Houses, defined in the notebook or script that wrote it"),
    ],
)
def test_a_torch_file_that_is_no_whole_model_is_refused_before_anything_is_built(
    bench: Bench, torch_models: Path, name: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        bench.package("pytorch", torch_models / name)


def test_a_torch_model_goes_from_its_file_to_answers_as_a_person_does_it(
    wl: wallaroo.Client, torch_models: Path, direct_torch: Any
) -> None:
    model = wl.upload_model(
        "deep-torch",
        torch_models / "script.pt",
        Framework.PYTORCH,
        input_schema=pa.schema({"input": TEN}),
        output_schema=pa.schema({"output": pa.list_(FLOAT, 3)}),
    )
    log = "\n".join(model.get_upload_logs())
    assert model.status() == "ready", log
    assert "Found TorchScript in script.pt." in log
    assert "Preferring CPU builds that this machine has: torch==" in log
    assert "nvidia" not in log

    pipeline = wl.build_pipeline("deep-torch").clear().add_model_step(model).deploy()
    frame = pipeline.infer(pd.DataFrame({"input": ROWS.tolist()}))
    pipeline.undeploy()

    assert np.allclose(frame["out.output"].tolist(), direct_torch["script.pt"], rtol=1e-6, atol=1e-7)


# --- Hugging Face ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def pipelines(torch: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A zip per task."""
    folder = torch.make("make_hugging_face.py", tmp_path_factory.mktemp("pipelines"))
    for saved in [p for p in folder.iterdir() if p.is_dir()]:
        zipped(saved, folder / f"{saved.name}.zip")
    return folder


DIRECT_PIPELINES = """
import json, os, sys, numpy as np
os.environ["HF_HUB_OFFLINE"] = "1"
import transformers
from PIL import Image

def image(pixels): return Image.fromarray(np.array(pixels, np.uint8))

def plain(value):
    if isinstance(value, dict): return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)): return [plain(item) for item in value]
    return np.asarray(value).tolist() if isinstance(value, (Image.Image, np.generic)) else value

found = {}
for task, calls in json.load(open(f"{sys.argv[1]}/calls.json")).items():
    model = transformers.pipeline(task, model=f"{sys.argv[1]}/{task}", device="cpu")
    found[task] = []
    for subject, given in calls:
        if task == "question-answering": answer = model(**subject, **given)
        elif task == "automatic-speech-recognition": answer = model(np.array(subject, np.float32), **given)
        else: answer = model(image(subject) if isinstance(subject, list) else subject, **given)
        found[task].append(plain(answer))
print(json.dumps(found))
"""
PIXELS = np.random.default_rng(3).integers(0, 256, (2, 20, 24, 3))
PIXELS_TYPE = pa.list_(pa.list_(pa.list_(WHOLE, 3)))
SPEECH = np.random.default_rng(4).normal(size=(2, 1600)).astype(np.float32)
TEXTS = ["I love this film", "the old town by the river"]
QUESTIONS = [{"question": "what is the name?", "context": "he walked to the old town"}] * 2
BOX = pa.struct([(name, WHOLE) for name in ("xmin", "ymin", "xmax", "ymax")])
LABELS = ["film", "town"]


def each(key: str) -> Callable[[Any], Any]:
    """The values of all answers to a row, by key."""
    return lambda result: [answer[key] for answer in result]


def first(key: str) -> Callable[[Any], Any]:
    return lambda result: result[0][key]


def own(key: str) -> Callable[[Any], Any]:
    return lambda result: result[key]


# task: (what it is called with directly: subject and arguments per row, the same as columns, how outputs are found in
# what the pipeline returns, their types)
CASES: dict[str, tuple[list[Any], Rows, dict[str, Callable[[Any], Any]], dict[str, Any]]] = {
    "text-classification": (
        [(TEXTS[0], {"top_k": 2}), (TEXTS[1], {"top_k": 1})],
        {"inputs": pa.array(TEXTS), "top_k": pa.array([2, 1])},
        {"label": each("label"), "score": each("score")},
        {"label": pa.list_(TEXT), "score": pa.list_(DOUBLE)},
    ),
    "zero-shot-classification": (
        [(text, {"candidate_labels": LABELS, "multi_label": True}) for text in TEXTS],
        {
            "inputs": pa.array(TEXTS),
            "candidate_labels": pa.array([LABELS] * 2, pa.list_(TEXT, 2)),
            "hypothesis_template": pa.array(["", ""]),
            "multi_label": pa.array([True, True]),
        },
        {"sequence": own("sequence"), "scores": own("scores"), "labels": own("labels")},
        {"sequence": TEXT, "scores": pa.list_(DOUBLE, 2), "labels": pa.list_(TEXT, 2)},
    ),
    "question-answering": (
        [(asked, {}) for asked in QUESTIONS],
        {name: pa.array([asked[name] for asked in QUESTIONS]) for name in ("question", "context")},
        {name: own(name) for name in ("score", "start", "end", "answer")},
        {"score": DOUBLE, "start": WHOLE, "end": WHOLE, "answer": TEXT},
    ),
    "feature-extraction": (
        [(text, {}) for text in TEXTS],
        {"inputs": pa.array(TEXTS)},
        {"output": lambda result: np.float32(result[0]).tolist()},
        {"output": pa.list_(pa.list_(FLOAT))},
    ),
    "text-generation": (
        [(text, {"return_full_text": False, "max_new_tokens": 4}) for text in TEXTS],
        {
            "inputs": pa.array(TEXTS),
            "return_tensors": pa.array([False] * 2),
            "return_text": pa.array([True] * 2),
            "return_full_text": pa.array([False] * 2),
            "max_new_tokens": pa.array([4, 4]),
        },
        {"generated_text": each("generated_text")},
        {"generated_text": pa.list_(TEXT)},
    ),
    "summarization": (
        [(text, {"clean_up_tokenization_spaces": True}) for text in TEXTS],
        {
            "inputs": pa.array(TEXTS),
            "return_text": pa.array([True] * 2),
            "return_tensors": pa.array([False] * 2),
            "clean_up_tokenization_spaces": pa.array([True] * 2),
        },
        {"summary_text": first("summary_text")},
        {"summary_text": TEXT},
    ),
    "translation": (
        [(text, {}) for text in TEXTS],
        {"inputs": pa.array(TEXTS)},
        {"translation_text": first("translation_text")},
        {"translation_text": TEXT},
    ),
    "image-classification": (
        [(pixels.tolist(), {"top_k": 3}) for pixels in PIXELS],
        {"inputs": lists(PIXELS, PIXELS_TYPE), "top_k": pa.array([3, 3])},
        {"score": each("score"), "label": each("label")},
        {"score": pa.list_(DOUBLE), "label": pa.list_(TEXT)},
    ),
    "object-detection": (
        [(pixels.tolist(), {"threshold": 0.0}) for pixels in PIXELS],
        {"inputs": lists(PIXELS, PIXELS_TYPE), "threshold": pa.array([0.0, 0.0])},
        {"score": each("score"), "label": each("label"), "box": each("box")},
        {"score": pa.list_(DOUBLE), "label": pa.list_(TEXT), "box": pa.list_(BOX)},
    ),
    "image-segmentation": (
        [(pixels.tolist(), {}) for pixels in PIXELS],
        {"inputs": lists(PIXELS, PIXELS_TYPE)},
        {"label": each("label"), "mask": each("mask")},
        {"label": pa.list_(TEXT), "mask": pa.list_(pa.list_(pa.list_(WHOLE)))},
    ),
    "zero-shot-image-classification": (
        [(pixels.tolist(), {"candidate_labels": LABELS}) for pixels in PIXELS],
        {"inputs": lists(PIXELS, PIXELS_TYPE), "candidate_labels": pa.array([LABELS] * 2, pa.list_(TEXT, 2))},
        {"score": each("score"), "label": each("label")},
        {"score": pa.list_(DOUBLE, 2), "label": pa.list_(TEXT, 2)},
    ),
    "zero-shot-object-detection": (
        [(pixels.tolist(), {"candidate_labels": LABELS, "threshold": 0.0, "top_k": 3}) for pixels in PIXELS],
        {
            "images": lists(PIXELS, PIXELS_TYPE),
            "candidate_labels": pa.array([LABELS] * 2, pa.list_(TEXT, 2)),
            "threshold": pa.array([0.0, 0.0]),
            "top_k": pa.array([3, 3]),
        },
        {"score": each("score"), "label": each("label"), "box": each("box")},
        {"score": pa.list_(DOUBLE), "label": pa.list_(TEXT), "box": pa.list_(BOX)},
    ),
    "image-to-text": (
        [(pixels.tolist(), {"max_new_tokens": 4}) for pixels in PIXELS],
        {"inputs": lists(PIXELS, PIXELS_TYPE), "max_new_tokens": pa.array([4, 4])},
        {"generated_text": each("generated_text")},
        {"generated_text": pa.list_(TEXT)},
    ),
    "automatic-speech-recognition": (
        [(sound.tolist(), {"return_timestamps": "char"}) for sound in SPEECH],
        {"inputs": lists(SPEECH, pa.list_(FLOAT)), "return_timestamps": pa.array(["char"] * 2)},
        {"text": own("text"), "chunks": own("chunks")},
        {"text": TEXT, "chunks": pa.list_(pa.struct([("text", TEXT), ("timestamp", pa.list_(DOUBLE))]))},
    ),
}
DRAWS_LOTS = "text-generation"  # unless it is told not to


@pytest.fixture(scope="module")
def direct_pipelines(torch: Library, pipelines: Path) -> dict[str, list[Any]]:
    """What transformers answers, a result per row, by task."""
    calls = {task: case[0] for task, case in CASES.items()}
    calls[DRAWS_LOTS] = [(subject, {**given, "do_sample": False}) for subject, given in calls[DRAWS_LOTS]]
    (pipelines / "calls.json").write_text(json.dumps(calls))
    found: dict[str, list[Any]] = torch.says(DIRECT_PIPELINES, pipelines)
    return found


@pytest.mark.parametrize("task", list(CASES))
def test_a_pipeline_answers_what_transformers_does(
    bench: Bench, pipelines: Path, direct_pipelines: dict[str, list[Any]], task: str
) -> None:
    _, columns, found_in, types = CASES[task]
    if task == DRAWS_LOTS:
        columns = {**columns, "do_sample": pa.array([False, False])}

    answer = bench.answers(f"hugging-face-{task}", pipelines / f"{task}.zip", columns, types)

    expected = {name: [find(result) for result in direct_pipelines[task]] for name, find in found_in.items()}
    assert set(answer) == set(expected)
    for name, values in expected.items():
        assert same(answer[name], values), name


def same(found: Any, expected: Any) -> bool:
    """Whether two values of lists and structs are equal, floats to seven digits."""
    if isinstance(expected, float):
        return bool(found == pytest.approx(expected, rel=1e-6))
    if isinstance(expected, dict):
        return set(found) == set(expected) and all(same(found[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(found) == len(expected) and all(map(same, found, expected))
    return bool(found == expected)


def test_texts_that_models_made_are_not_empty(direct_pipelines: dict[str, list[Any]]) -> None:
    """So that comparing them says something."""
    for task, key in (
        ("summarization", "summary_text"),
        ("translation", "translation_text"),
        ("text-generation", "generated_text"),
    ):
        assert all(result[0][key].strip() for result in direct_pipelines[task]), task


def test_columns_that_the_schema_lacks_leave_the_pipelines_own_defaults(
    bench: Bench, pipelines: Path, direct_pipelines: dict[str, list[Any]]
) -> None:
    answer = bench.answers(
        *("hugging-face-sentiment-analysis", pipelines / "text-classification.zip", {"inputs": pa.array(TEXTS)}),
        {"label": TEXT, "score": DOUBLE},
    )

    best = [result[0] for result in direct_pipelines["text-classification"]]
    assert answer["label"] == [one["label"] for one in best]
    assert answer["score"] == pytest.approx([one["score"] for one in best], rel=1e-6)


@pytest.mark.parametrize(
    ("task", "columns", "outputs", "words"),
    [
        ("text-classification", {"text": pa.array(TEXTS)}, {"label": TEXT}, "has no 'inputs'; its fields are: text"),
        ("question-answering", {"question": pa.array(TEXTS)}, {"answer": TEXT}, "has no 'context'"),
        (
            "text-classification",
            {"inputs": pa.array(TEXTS)},
            {"labels": TEXT, "score": DOUBLE},
            "gave no 'labels'; it gave: label, score",
        ),
        (
            "image-classification",
            {"inputs": lists(PIXELS * 2, PIXELS_TYPE)},
            {"label": TEXT},
            "holds pixels outside 0 to 255",
        ),
    ],
)
def test_what_does_not_fit_a_pipeline_is_told_in_words(
    bench: Bench, pipelines: Path, task: str, columns: Rows, outputs: Rows, words: str
) -> None:
    with pytest.raises(ModelFailed, match=words):
        bench.answers(f"hugging-face-{task}", pipelines / f"{task}.zip", columns, outputs)


def test_a_pipeline_goes_from_its_zip_to_answers_and_the_log_as_a_person_does_it(
    wl: wallaroo.Client, pipelines: Path, direct_pipelines: dict[str, list[Any]]
) -> None:
    model = wl.upload_model(
        "deep-labels",
        pipelines / "zero-shot-classification.zip",
        Framework.HUGGING_FACE_ZERO_SHOT_CLASSIFICATION,
        input_schema=pa.schema({"inputs": TEXT, "candidate_labels": pa.list_(TEXT, 2), "multi_label": pa.bool_()}),
        output_schema=pa.schema({"sequence": TEXT, "scores": pa.list_(DOUBLE, 2), "labels": pa.list_(TEXT, 2)}),
    )
    log = "\n".join(model.get_upload_logs())
    assert model.status() == "ready", log
    assert "Found a model of type 'bert', written by transformers 4." in log
    assert "Environment found" in log  # the same as that of all other tasks

    pipeline = wl.build_pipeline("deep-labels").clear().add_model_step(model).deploy()
    rows = {"inputs": TEXTS, "candidate_labels": [LABELS, LABELS], "multi_label": [True, True]}
    frame = pipeline.infer(pd.DataFrame(rows))
    logged = pipeline.logs(limit=2, arrow=True)
    pipeline.undeploy()

    expected = direct_pipelines["zero-shot-classification"]
    assert frame["out.labels"].tolist() == [result["labels"] for result in expected]
    assert same(frame["out.scores"].tolist(), [result["scores"] for result in expected])
    assert logged["out.labels"].to_pylist() == frame["out.labels"].tolist()[::-1]


# --- Keras and TensorFlow -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tensorflow(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return environment(bench, "tensorflow-cpu\n", tmp_path_factory.mktemp("tensorflow"))


@pytest.fixture(scope="module")
def keras_models(tensorflow: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tensorflow.make("make_keras.py", tmp_path_factory.mktemp("keras-models"))
    zipped(folder / "plain", folder / "plain.zip")
    zipped(folder / "own", folder / "own.zip")
    return folder


@pytest.fixture(scope="module")
def saved_models(tensorflow: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tensorflow.make("make_tensorflow.py", tmp_path_factory.mktemp("saved-models"))
    for name in ("houses", "unsigned"):
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:  # with the folder itself, as people zip
            for path in sorted((folder / name).rglob("*")):
                archive.write(path, path.relative_to(folder))
    return folder


DIRECT_KERAS = """
import json, os, sys, numpy as np
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
from tensorflow import keras
folder, rows = sys.argv[1], {name: np.array(values) for name, values in json.loads(sys.argv[2]).items()}
found = {}
for name in sys.argv[3:]:
    model = keras.models.load_model(f"{folder}/{name}", compile=False)
    given = [rows["numbers"], rows["image"]] if name.startswith("houses") else rows["plain"]
    answer = model.predict(given, verbose=0)
    found[name] = [part.tolist() for part in answer] if isinstance(answer, list) else answer.tolist()
print(json.dumps(found))
"""
THREE = np.random.default_rng(5).normal(size=(4, 3))
GREY = np.random.default_rng(6).random((4, 4, 4))
GREY_TYPE = pa.list_(pa.list_(DOUBLE, 4), 4)
ASKED = json.dumps({"plain": ROWS.tolist(), "numbers": THREE.tolist(), "image": GREY.tolist()})


@pytest.fixture(scope="module")
def direct_keras(tensorflow: Library, keras_models: Path) -> dict[str, Any]:
    found: dict[str, Any] = tensorflow.says(
        DIRECT_KERAS, keras_models, ASKED, "plain.keras", "plain.h5", "houses.keras"
    )
    return found


@pytest.mark.parametrize("name", ["plain.keras", "plain.h5", "plain.zip"])
def test_a_keras_model_answers_what_the_library_does(
    bench: Bench, keras_models: Path, direct_keras: Any, name: str
) -> None:
    outputs = {"output": pa.list_(DOUBLE, 32)}

    answer = bench.answers("keras", keras_models / name, {"input": lists(ROWS, TEN)}, outputs)

    assert np.allclose(answer["output"], direct_keras["plain.keras"], rtol=1e-6, atol=1e-7)


def test_keras_inputs_and_outputs_go_by_the_models_names_or_by_number(
    bench: Bench, keras_models: Path, direct_keras: Any
) -> None:
    three, grey = lists(THREE, pa.list_(DOUBLE, 3)), lists(GREY, GREY_TYPE)
    file = keras_models / "houses.keras"

    named = bench.answers("keras", file, {"image": grey, "numbers": three}, {"kind": pa.list_(FLOAT), "price": FLOAT})
    numbered = bench.answers(
        *("keras", file, {"input_1": three, "input_2": grey}), {"output_1": FLOAT, "output_2": pa.list_(FLOAT)}
    )

    price, kind = direct_keras["houses.keras"]
    assert np.allclose(named["price"], np.ravel(price), rtol=1e-6, atol=1e-7)
    assert np.allclose(named["kind"], kind, rtol=1e-6, atol=1e-7)
    assert [numbered["output_1"], numbered["output_2"]] == [named["price"], named["kind"]]


def test_a_saved_model_holds_what_a_layer_of_ones_own_computes(bench: Bench, keras_models: Path) -> None:
    answer = bench.answers(
        *("keras", keras_models / "own.zip", {"input": lists(ROWS, TEN)}), {"output": pa.list_(FLOAT)}
    )

    assert answer["output"] == (2 * ROWS.astype(np.float32)).tolist()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("own.keras", "has layers or functions of your own, Twice; only their names are in the file"),
        ("only.weights.h5", "holds weights without their model"),
    ],
)
def test_a_keras_file_that_is_no_whole_model_is_refused_before_anything_is_built(
    bench: Bench, keras_models: Path, name: str, words: str
) -> None:
    with pytest.raises(BadInput, match=words):
        bench.package("keras", keras_models / name)


def test_a_saved_model_without_a_signature_is_refused(bench: Bench, saved_models: Path) -> None:
    with pytest.raises(BadInput, match="has no signature 'serving_default'; it has: none"):
        bench.package("tensorflow", saved_models / "unsigned.zip")


def test_a_saved_model_needs_no_schemas_and_takes_texts(wl: wallaroo.Client, saved_models: Path) -> None:
    model = wl.upload_model("deep-houses", saved_models / "houses.zip", Framework.TENSORFLOW)
    assert model.status() == "ready", model.get_upload_logs()
    assert model.config().input_schema() == pa.schema({"numbers": pa.list_(FLOAT, 3), "town": TEXT})

    pipeline = wl.build_pipeline("deep-houses").clear().add_model_step(model).deploy()
    frame = pipeline.infer(pd.DataFrame({"numbers": [[1.0, 2.0, 3.0], [0.0, 1.0, 0.0]], "town": ["bonn", "rome"]}))
    pipeline.undeploy()

    assert frame["out.price"].tolist() == [[40.0], [20.0]]  # 3, 20 and -1 are the model's weights
    assert frame["out.place"].tolist() == [["BONN"], ["ROME"]]


@pytest.fixture(scope="module")
def keras_2(bench: Bench, tmp_path_factory: pytest.TempPathFactory) -> Library:
    return environment(bench, "tensorflow-cpu==2.15.*\n", tmp_path_factory.mktemp("keras-2"))


def test_a_file_of_keras_2_gets_the_last_tensorflow_that_came_with_it(
    bench: Bench, keras_2: Library, tmp_path: Path
) -> None:
    folder = keras_2.make("make_keras.py", tmp_path)
    expected: Mapping[str, Any] = keras_2.says(DIRECT_KERAS, folder, ASKED, "plain.h5", "houses.keras")

    packaged = bench.package("keras", folder / "plain.h5")
    plain = bench.answers("keras", folder / "plain.h5", {"input": lists(ROWS, TEN)}, {"output": pa.list_(FLOAT)})
    houses = bench.answers(
        *("keras", folder / "houses.keras"),
        {"numbers": lists(THREE, pa.list_(DOUBLE, 3)), "image": lists(GREY, GREY_TYPE)},
        {"price": FLOAT, "kind": pa.list_(FLOAT)},
    )

    assert "written by Keras 2.15.0. TensorFlow 2.15 is the last that came with Keras 2." in "\n".join(packaged.log)
    assert packaged.installed["tensorflow-cpu"].startswith("2.15.")
    assert np.allclose(plain["output"], expected["plain.h5"], rtol=1e-6, atol=1e-7)
    assert np.allclose(houses["kind"], expected["houses.keras"][1], rtol=1e-6, atol=1e-7)
