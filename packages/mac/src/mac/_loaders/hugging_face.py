"""HUGGING_FACE_*: what `save_pretrained` wrote, run by the pipeline of its task, on the CPU and without any network.

A row of the input schema is one call of the pipeline: the task's own columns are what it is about, every other column
is an argument of the same name. An empty text stands for "not given", and so does a column that the schema lacks. Of
what the pipeline returns, a list field takes the values of all its answers, any other field that of the first one.
"""

from __future__ import annotations

import os
import typing
from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from mac._loaders._files import content_folder

if typing.TYPE_CHECKING:
    from mac._loaders import Fields

PREFIX = "hugging-face-"
TEXT_TO_IMAGE = "stable-diffusion-text-2-img"
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
}

# What a task is about: one column, or for these several; by the names of its schema (images come under either name).
SUBJECTS: Dict[str, Tuple[str, ...]] = {
    "question-answering": ("question", "context"),
    TEXT_TO_IMAGE: ("prompt",),
    "zero-shot-object-detection": ("images", "inputs"),
}
IMAGE_TASKS = (
    "image-classification",
    "image-segmentation",
    "image-to-text",
    "object-detection",
    "zero-shot-image-classification",
    "zero-shot-object-detection",
)
Row = Dict[str, Any]


class Pipeline:
    """A pipeline of one task. `call` takes a row's subject and its other columns."""

    def __init__(self, task: str, call: Callable[[Row, Row], Any], inputs: Fields, outputs: Fields) -> None:
        self._task, self._call, self._outputs = task, call, outputs
        names = [field["name"] for field in inputs]
        self._subjects = subjects(task, names)
        self._options = [name for name in names if name not in self._subjects]

    def predict(self, columns: Dict[str, np.ndarray]) -> Dict[str, Any]:
        rows = len(next(iter(columns.values())))
        answers = [self._answer(columns, i) for i in range(rows)]
        return {field["name"]: [answer[field["name"]] for answer in answers] for field in self._outputs}

    def _answer(self, columns: Dict[str, np.ndarray], i: int) -> Row:
        subject = {name: columns[name][i] for name in self._subjects}
        if self._task in IMAGE_TASKS:
            subject = {name: image(value, name) for name, value in subject.items()}
        given = {name: plain(columns[name][i]) for name in self._options}
        return picked(self._call(subject, options(self._task, given)), self._outputs)


def load(framework: str, folder: str, inputs: Fields, outputs: Fields, config: Dict[str, Any]) -> Pipeline:
    """Raises ValueError when the folder holds no such model or the schema lacks the task's columns."""
    os.environ.update(OFFLINE)
    task = framework[len(PREFIX) :]
    subjects(task, [field["name"] for field in inputs])
    root = content_folder(folder)
    call = _diffusion(root) if task == TEXT_TO_IMAGE else _transformers(task, root)
    return Pipeline(task, call, inputs, outputs)


def subjects(task: str, names: List[str]) -> List[str]:
    """The columns of the schema that a task is about.

    Raises:
        ValueError: the schema has not got them.
    """
    wanted = SUBJECTS.get(task, ("inputs",))
    found = [name for name in wanted if name in names]
    needed = 1 if task == "zero-shot-object-detection" else len(wanted)
    if len(found) < needed:
        raise ValueError(
            "The input schema of %s has no '%s'; its fields are: %s. Declare it."
            % (task, next(name for name in wanted if name not in names), ", ".join(names) or "none")
        )
    return found[:needed]


def options(task: str, given: Row) -> Row:
    """The arguments of a pipeline that are really given, in the form in which it takes them."""
    kept = {name: value for name, value in given.items() if not (isinstance(value, str) and not value)}
    if isinstance(kept.get("return_timestamps"), str) and kept["return_timestamps"].lower() in ("true", "false"):
        kept["return_timestamps"] = kept["return_timestamps"].lower() == "true"
    if task == "text-generation":  # these exclude one another, also where they only say what is the default
        if kept.get("return_tensors") is False:
            del kept["return_tensors"]
        if kept.get("return_text") is True:
            del kept["return_text"]
    return kept


def picked(result: Any, outputs: Fields) -> Row:
    """The output fields of one row, from what the pipeline returned for it.

    Raises:
        ValueError: the pipeline gave nothing by the name of a field.
    """
    answers = result if isinstance(result, list) else [result]
    if answers and not all(isinstance(answer, dict) for answer in answers):  # features: nested lists of one text
        return {outputs[0]["name"]: plain(answers[0] if len(answers) == 1 else answers)}
    row: Row = {}
    for field in outputs:
        name, as_list = field["name"], field["type"]["kind"] in ("list", "fixed_list")
        if as_list and isinstance(result, list):
            row[name] = [plain(_value(answer, name, outputs)) for answer in answers]
        elif answers:
            value = plain(_value(answers[0], name, outputs))
            row[name] = [value] if as_list and not isinstance(value, (list, np.ndarray)) else value
        else:
            raise ValueError("The pipeline gave no answer for a row, and output field '%s' is no list." % name)
    return row


def plain(value: Any) -> Any:
    """numpy's and Pillow's values as Python's lists and numbers; what a pipeline leaves open (None) as NaN."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if hasattr(value, "getbands"):  # a mask or an image
        return np.asarray(value).astype(np.int64)
    if hasattr(value, "detach"):  # a tensor
        return value.detach().cpu().numpy().tolist()
    return float("nan") if value is None else value


def image(values: Any, name: str) -> Any:
    """Rows of pixels, each red, green and blue from 0 to 255 (or one grey value), as the image that pipelines take.

    Raises:
        ValueError: another shape or range.
    """
    from PIL import Image

    pixels = np.array(values.tolist() if values.dtype == object else values) if hasattr(values, "dtype") else values
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or pixels.dtype.kind not in "iuf":
        raise ValueError(
            "Input field '%s' holds no image: its rows have the shape %s. Send height x width x 3 whole numbers."
            % (name, pixels.shape)
        )
    if pixels.size and (pixels.min() < 0 or pixels.max() > 255):
        raise ValueError("Input field '%s' holds pixels outside 0 to 255. Send whole numbers from 0 to 255." % name)
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def _value(answer: Row, name: str, outputs: Fields) -> Any:
    if name in answer:
        return answer[name]
    if len(outputs) == len(answer) == 1:
        return next(iter(answer.values()))
    if name == "chunks":  # only there when timestamps were asked for
        return []
    raise ValueError(
        "The pipeline gave no '%s'; it gave: %s. Name the output schema's fields so."
        % (name, ", ".join(sorted(answer)))
    )


def _transformers(task: str, root: str) -> Callable[[Row, Row], Any]:
    import transformers

    has_code = any(name.endswith(".py") for name in os.listdir(root))  # of the artifact; it runs in the sandbox
    name = "text-classification" if task == "sentiment-analysis" else task
    model = transformers.pipeline(name, model=root, device="cpu", trust_remote_code=has_code)

    def call(subject: Row, given: Row) -> Any:
        if task == "question-answering":
            return model(question=str(subject["question"]), context=str(subject["context"]), **given)
        value = next(iter(subject.values()))
        if task == "automatic-speech-recognition":
            value = np.asarray(value, dtype=np.float32)
        result = model(value, **given)
        return result[0] if task == "feature-extraction" else result

    return call


def _diffusion(root: str) -> Callable[[Row, Row], Any]:
    import diffusers

    model = diffusers.DiffusionPipeline.from_pretrained(root, local_files_only=True).to("cpu")
    model.set_progress_bar_config(disable=True)

    def call(subject: Row, given: Row) -> Any:
        return {"images": model(next(iter(subject.values())), **given).images[0]}

    return call
