from __future__ import annotations

from dataclasses import replace

import pytest
from inference_builders import deployment_spec, model_spec

from bettong.domain.batching import DynamicBatching
from bettong.domain.deployments import DeploymentSpec
from bettong.errors import BadInput


def test_what_is_left_out_or_null_is_as_by_default() -> None:
    assert DynamicBatching.of({"batch_size_target": 16, "max_batch_delay_ms": None}) == DynamicBatching(10, 16, None)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"max_batch_delay_ms": 0}, "max_batch_delay_ms that is no whole number from 1 to 60000"),
        ({"max_batch_delay_ms": 60_001}, "max_batch_delay_ms"),
        ({"batch_size_target": -4}, "batch_size_target"),
        ({"batch_size_target": True}, "batch_size_target"),
        ({"batch_size_target": "4"}, "batch_size_target"),
        ({"batch_size_limit": 0}, "batch_size_limit"),
        ({"batch_size_target": 8, "batch_size_limit": 7}, "batch_size_limit of 7, below its batch_size_target of 8"),
    ],
)
def test_numbers_that_do_not_fit_are_named(given: dict[str, object], words: str) -> None:
    with pytest.raises(BadInput, match=words):
        DynamicBatching.of(given)


def test_a_deployment_file_keeps_it() -> None:
    gathered, alone = model_spec(batching=DynamicBatching(5, 8, 16), cpus=2), model_spec()
    spec = replace(deployment_spec(), models=(gathered, alone))

    assert DeploymentSpec.from_json(spec.to_json()) == spec
