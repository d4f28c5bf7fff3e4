"""Builders for pipelines of more steps than a chain of models."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
from inference_builders import InProcessRunner, deployment_spec, model_spec

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Sequence

    from bettong.domain.deployments import DeploymentSpec

X = pa.schema([pa.field("x", pa.float64())])
Y = pa.schema([pa.field("y", pa.float64())])


def ref(name: str) -> dict[str, str]:
    """A model as step documents name it; `spec_of` makes one of it."""
    return {"name": name.partition("@")[0], "version": f"version-of-{name}", "sha": f"sha-of-{name}"}


def infer(*names: str) -> dict[str, Any]:
    return {"ModelInference": {"models": [ref(name) for name in names]}}


def split(*weights: tuple[float, str], key: str | None = None) -> dict[str, Any]:
    items = [{"model": ref(name), "weight": weight} for weight, name in weights]
    return {"RandomSplit": {"hash_key": key, "weights": items}}


def key_split(control: str, key: str, **routes: str) -> dict[str, Any]:
    found = {value: ref(name) for value, name in routes.items()}
    return {"MetaValueSplit": {"split_key": key, "control": ref(control), "routes": found}}


def shadow(champion: str, *challengers: str) -> list[dict[str, Any]]:
    return [infer(champion, *challengers), {"AuditResults": {"from": 1, "to": None}}, {"MultiOut": {}}]


def check(**validations: object) -> dict[str, Any]:
    """Each is a node of the dialect."""
    return {"Check": {"tree": [json.dumps({"Alias": [node, name]}) for name, node in validations.items()]}}


def above(column: str, limit: float) -> dict[str, Any]:
    return {"BinaryExpr": {"left": {"Column": column}, "op": "Gt", "right": {"Literal": {"Float64": limit}}}}


def spec_of(names: Sequence[str], *steps: dict[str, Any], **changes: Any) -> DeploymentSpec:
    """A deployment of these steps over models called so: `house@2` is another version of `house`."""
    models = tuple(
        model_spec(ref(name)["name"], version=ref(name)["version"], sha=ref(name)["sha"], uid=name, id=at)
        for at, name in enumerate(names, 1)
    )
    return deployment_spec(models=models, steps=tuple(steps), **changes)


def times(factor: float, gives: str = "y", kind: type[InProcessRunner] = InProcessRunner) -> InProcessRunner:
    """A model that multiplies `x`; a PromptRunner does it at once."""

    async def run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{gives: row["x"] * factor} for row in rows]

    return kind(run, X, pa.schema([pa.field(gives, pa.float64())]))


def failing(error: Exception, kind: type[InProcessRunner] = InProcessRunner) -> InProcessRunner:
    async def run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        raise error

    return kind(run, X, Y)


def held(until: asyncio.Event, then: Callable[[], None] = lambda: None) -> InProcessRunner:
    """A model that answers 0 once `until` is set."""

    async def run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        await until.wait()
        then()
        return [{"y": 0.0} for _ in rows]

    return InProcessRunner(run, X, Y)
