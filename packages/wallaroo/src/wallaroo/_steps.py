"""Steps of a pipeline, as they are edited here, and their documents on the wire."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wallaroo.model_version import ModelVersion

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

Reference = dict[str, str]  # {"name", "version", "sha"} of a model version
_SLICE = re.compile(r"\s*(\d*)\s*:\s*(\d*)\s*")


class Step:
    """One step. `str()` gives the short name that people read, `repr()` the document that is stored."""

    @property
    def models(self) -> tuple[ModelVersion, ...]:
        """The model versions that it names, in order."""
        return ()

    def to_json(self) -> dict[str, Any]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return str(self.to_json())


@dataclass(frozen=True, repr=False)
class ModelStep(Step):
    """Run models on the current rows, each on the same."""

    versions: tuple[ModelVersion, ...]

    @property
    def models(self) -> tuple[ModelVersion, ...]:
        return self.versions

    @property
    def model_version(self) -> ModelVersion:
        """The first of its models."""
        return self.versions[0]

    def to_json(self) -> dict[str, Any]:
        return {"ModelInference": {"models": [_reference(version) for version in self.versions]}}

    def __str__(self) -> str:
        return ",".join(version.name() for version in self.versions)


@dataclass(frozen=True, repr=False)
class RandomSplitStep(Step):
    """One of the models takes a whole request."""

    weighted: tuple[tuple[float, ModelVersion], ...]
    hash_key: str | None

    @property
    def models(self) -> tuple[ModelVersion, ...]:
        return tuple(version for _, version in self.weighted)

    def to_json(self) -> dict[str, Any]:
        weights = [{"model": _reference(version), "weight": weight} for weight, version in self.weighted]
        return {"RandomSplit": {"hash_key": self.hash_key, "weights": weights}}

    def __str__(self) -> str:
        return "RandomSplit"


@dataclass(frozen=True, repr=False)
class KeySplitStep(Step):
    """The model for the value of a column takes a whole request."""

    default: ModelVersion
    meta_key: str
    options: tuple[tuple[str, ModelVersion], ...]

    @property
    def models(self) -> tuple[ModelVersion, ...]:
        return (self.default, *(version for _, version in self.options))

    def to_json(self) -> dict[str, Any]:
        routes = {value: _reference(version) for value, version in self.options}
        body = {"split_key": self.meta_key, "control": _reference(self.default), "routes": routes}
        return {"MetaValueSplit": body}

    def __str__(self) -> str:
        return f"Key Split [{self.meta_key}]"


@dataclass(frozen=True, repr=False)
class PlainStep(Step):
    """A step without models: its document is all there is to it."""

    kind: str
    body: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {self.kind: dict(self.body)}

    def __str__(self) -> str:
        if self.kind == "AuditResults":
            return f"Audit [{self.body['from']}:{self.body['to']}]"
        return f"Select [{self.body['index']}]" if self.kind == "Nth" else self.kind


@dataclass(frozen=True, repr=False)
class RowsStep(Step):
    """Each row of a request goes to a model of its own. Only stored pipelines have it: no method here makes one."""

    rows: tuple[tuple[int, ModelVersion], ...]

    @property
    def models(self) -> tuple[ModelVersion, ...]:
        return tuple(version for _, version in self.rows)

    def to_json(self) -> dict[str, Any]:
        rows = [{"row_index": row, "model": _reference(version)} for row, version in self.rows]
        return {"RowsToModels": {"rows_to_models": rows}}

    def __str__(self) -> str:
        return "RowsToModels"


# --- made by people ---------------------------------------------------------------------------------------------------


def model_step(*versions: ModelVersion) -> ModelStep:
    """Raises TypeError for anything that is no ModelVersion, ValueError without any."""
    if not versions:
        raise ValueError("A model step takes at least one model version.")
    return ModelStep(tuple(_version("A model step", version) for version in versions))


def random_split(weighted: Iterable[tuple[float, ModelVersion]], hash_key: str | None) -> RandomSplitStep:
    """Raises ValueError when a weight is none, or all are 0; TypeError for other things than pairs of these."""
    pairs = []
    for pair in weighted:
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise TypeError("A random split takes pairs of a weight and a model version, such as (2, control).")
        weight, version = pair
        if isinstance(weight, bool) or not isinstance(weight, (int, float)):
            raise TypeError(f"A weight is a {type(weight).__name__}. Give a number, and the weight before the model.")
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"A weight is {weight}. Give 0 or more.")
        pairs.append((weight, _version("A random split", version)))
    if not sum(weight for weight, _ in pairs) > 0:
        raise ValueError("A random split needs at least one weight above 0.")
    if hash_key is not None and not isinstance(hash_key, str):
        raise TypeError(f"hash_key is a {type(hash_key).__name__}. Give the name of a column of the input, or None.")
    return RandomSplitStep(tuple(pairs), hash_key)


def key_split(default: ModelVersion, meta_key: str, options: Mapping[str, ModelVersion]) -> KeySplitStep:
    """Raises TypeError when the key is no text, or something is no ModelVersion."""
    if not isinstance(meta_key, str):
        raise TypeError(f"meta_key is a {type(meta_key).__name__}. Give the name of a column of the input.")
    routes = tuple((_key_text(value), _version("A key split", version)) for value, version in options.items())
    return KeySplitStep(_version("A key split", default), meta_key, routes)


def shadow_deploy(champion: ModelVersion, challengers: Sequence[ModelVersion]) -> list[Step]:
    """The three steps of a shadow."""
    if isinstance(challengers, ModelVersion) or not challengers:
        raise ValueError("A shadow takes a list of at least one challenger beside its champion.")
    return [model_step(champion, *challengers), audit("1:"), multi_out()]


def audit(audit_slice: str) -> PlainStep:
    """Raises ValueError when the text is no slice such as "1:", "0:2" or ":2"."""
    match = _SLICE.fullmatch(audit_slice) if isinstance(audit_slice, str) else None
    if match is None:
        raise ValueError(f"{audit_slice!r} is no slice. Write 'start:', 'start:end' or ':end', counted from 0.")
    start, end = int(match[1] or 0), int(match[2]) if match[2] else None
    if end is not None and end <= start:
        raise ValueError(f"The slice {audit_slice!r} has nothing in it. Its end is to be above its start.")
    return PlainStep("AuditResults", {"from": start, "to": end})


def select(index: int) -> PlainStep:
    """Raises ValueError when the index is no position, counted from 0."""
    if isinstance(index, bool) or not isinstance(index, int) or index < 0:
        raise ValueError(f"The index is {index!r}. Give the position of a model in the step before, from 0.")
    return PlainStep("Nth", {"index": index})


def multi_out() -> PlainStep:
    return PlainStep("MultiOut", {})


def check(texts: Sequence[str]) -> PlainStep:
    return PlainStep("Check", {"tree": list(texts)})


# --- as they are stored -----------------------------------------------------------------------------------------------


def from_json(document: Mapping[str, Any], version_of: Callable[[Mapping[str, str]], ModelVersion]) -> Step:
    """A stored step. `version_of` finds a model version by its reference."""
    ((kind, body),) = document.items()
    match kind:
        case "ModelInference":
            return ModelStep(tuple(version_of(each) for each in body["models"]))
        case "RandomSplit":
            weighted = tuple((each["weight"], version_of(each["model"])) for each in body["weights"])
            return RandomSplitStep(weighted, body["hash_key"])
        case "MetaValueSplit":
            routes = tuple((value, version_of(each)) for value, each in body["routes"].items())
            return KeySplitStep(version_of(body["control"]), body["split_key"], routes)
        case "RowsToModels":
            rows = tuple((each["row_index"], version_of(each["model"])) for each in body["rows_to_models"])
            return RowsStep(rows)
    return PlainStep(kind, body)


def references(document: Mapping[str, Any]) -> Iterator[Reference]:
    """The models that a stored step names, in order."""
    ((kind, body),) = document.items()
    match kind:
        case "ModelInference":
            yield from body["models"]
        case "RandomSplit":
            yield from (each["model"] for each in body["weights"])
        case "MetaValueSplit":
            yield body["control"]
            yield from body["routes"].values()
        case "RowsToModels":
            yield from (each["model"] for each in body["rows_to_models"])


def _reference(version: ModelVersion) -> Reference:
    return {"name": version.name(), "version": version.version(), "sha": version.sha()}


def _version(who: str, given: object) -> ModelVersion:
    if not isinstance(given, ModelVersion):
        raise TypeError(f"{who} takes a ModelVersion, not a {type(given).__name__}. See get_model().")
    return given


def _key_text(value: object) -> str:
    """How a value of a split key is written: as JSON would."""
    return value if isinstance(value, str) else json.dumps(value)
