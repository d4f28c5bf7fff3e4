"""Whether a pipeline's steps fit each other: asked of the plan that a replica would make, before one is started."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.domain.models import is_native
from bettong.domain.schema import decode_schema
from bettong.engine.plan import Part
from bettong.engine.planner import plan_of
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from bettong.domain.models import ModelConfig, ModelVersion
    from bettong.domain.steps import Step
    from bettong.engine.plan import Plan


def check_steps(
    pipeline: str,
    steps: Sequence[Step],
    models: Sequence[ModelVersion],
    configs: Mapping[int, ModelConfig],
    *,
    waits: bool,
) -> Plan:
    """The plan that a replica would make. Raises BadInput that names step, model and column when the steps do not go
    together."""
    runs = sum(len(step.models) for step in steps)
    for model in models:
        if runs > 1 and configs[model.id].dynamic_batching is not None:
            raise BadInput(
                f"Model version '{model.uid}' gathers requests of several callers (dynamic_batching_config), which "
                f"only the one model of a pipeline can do; this one has {runs}.",
                "Configure the version without it, or deploy it in a pipeline of its own.",
            )
    return plan_of(pipeline, steps, [_part(model, configs[model.id]) for model in models], waits=waits)


def _part(model: ModelVersion, config: ModelConfig) -> Part:
    if config.input_schema is None or config.output_schema is None:
        which = "input_schema" if config.input_schema is None else "output_schema"
        raise BadInput(f"Model version '{model.uid}' has no {which}.", "Give it one with configure().")
    inputs, outputs = decode_schema(config.input_schema), decode_schema(config.output_schema)
    return Part(model.name, model.version, is_native(model.framework), inputs, outputs)
