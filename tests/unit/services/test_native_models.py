"""Native models: schemas come from the graph, and a config is checked against it."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from platform_kit import HOUSE, an_onnx_upload, schema_text

from bettong.domain.models import ModelStatus
from bettong.domain.schema import decode_schema
from bettong.domain.tensors import Graph, Tensor
from bettong.errors import BadInput

if TYPE_CHECKING:
    from platform_kit import Platform

    from bettong.domain.models import ModelConfig, ModelVersion

TEXT: Any = pa.string()
PAIR = Graph((Tensor("x", "float", ()), Tensor("s", "string", ())), (Tensor("y", "double", ()),))
WIDE = pa.schema([pa.field("tensor", pa.list_(pa.float64()))])


def configure(platform: Platform, version: ModelVersion, **changes: Any) -> ModelConfig:
    return platform.services.models.configure(platform.principal("bob"), version.id, **changes)


def config(platform: Platform, version: ModelVersion) -> ModelConfig:
    return platform.services.models.config(platform.principal("bob"), version.id)


def inputs(of: ModelConfig) -> pa.Schema:
    assert of.input_schema is not None
    return decode_schema(of.input_schema)


def test_without_schemas_a_version_is_ready_with_those_of_its_graph(platform: Platform) -> None:
    waiting = platform.native_model("bob", platform.workspace("bob"), ready=False)
    assert waiting.status is ModelStatus.PENDING_LOAD_NATIVE

    version = platform.services.models.package(waiting.id)

    kept = config(platform, version)
    assert (version.status, version.image_path, version.environment) == (ModelStatus.READY, None, None)
    assert kept.runtime == "onnx"
    assert inputs(kept) == HOUSE.input_schema
    assert kept.output_schema == bytes(HOUSE.output_schema.serialize())
    assert platform.trial.tried == []


def test_a_file_that_cannot_be_taken_is_an_error_in_words(platform: Platform) -> None:
    platform.packager.fault = BadInput("The file is not an ONNX model, or is cut off.", "Save it with onnx.save.")

    version = platform.native_model("bob", platform.workspace("bob"))

    assert (version.status, version.error_summary) == (
        ModelStatus.ERROR,
        "The file is not an ONNX model, or is cut off. Save it with onnx.save.",
    )
    log = platform.services.models.upload_log(platform.principal("bob"), version.id, None)
    assert log[-1].endswith("Save it with onnx.save.")


def test_schemas_given_at_upload_are_checked_against_the_graph(platform: Platform) -> None:
    workspace = platform.workspace("bob")

    fine = platform.native_model("bob", workspace, input_schema=schema_text(WIDE))
    wrong = platform.native_model("bob", workspace, input_schema=schema_text(pa.schema([("other", pa.float32())])))

    assert inputs(config(platform, fine)) == WIDE
    assert wrong.status is ModelStatus.ERROR
    assert "the model's inputs are tensor" in str(wrong.error_summary)


def test_inputs_are_renamed_and_keep_their_names_until_they_get_others(platform: Platform) -> None:
    platform.packager.graph = PAIR
    version = platform.native_model("bob", platform.workspace("bob"))

    configure(platform, version, tensor_fields=("number", "label"))
    later = configure(platform, version, batch_config="single")

    assert inputs(later) == pa.schema([("number", pa.float32()), ("label", TEXT)])
    assert (later.tensor_fields, later.batch_config) == (("number", "label"), "single")
    again = configure(platform, version, tensor_fields=("n", "l"))
    assert inputs(again).names == ["n", "l"]
    assert config(platform, version) == again


def test_a_wanted_type_stays_when_its_input_is_renamed(platform: Platform) -> None:
    version = platform.native_model("bob", platform.workspace("bob"))

    configure(platform, version, input_schema=schema_text(WIDE))
    renamed = configure(platform, version, tensor_fields=("features",))

    assert inputs(renamed) == pa.schema([("features", pa.list_(pa.float64()))])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"tensor_fields": ("a", "b")}, "tensor_fields has 2 names, the model has 1 inputs"),
        ({"tensor_fields": ()}, "tensor_fields has 0 names"),
        ({"input_schema": schema_text(pa.schema([("tensor", pa.string())]))}, "'tensor' is string; the model has"),
        ({"output_schema": schema_text(pa.schema([("price", pa.float32())]))}, "outputs are variable"),
        ({"batch_config": "double"}, "neither null nor 'single'"),
    ],
)
def test_a_config_that_does_not_fit_the_graph_is_refused_and_the_last_one_stays(
    platform: Platform, changes: dict[str, Any], words: str
) -> None:
    version = platform.native_model("bob", platform.workspace("bob"))
    before = config(platform, version)

    with pytest.raises(BadInput, match=words):
        configure(platform, version, **changes)

    assert config(platform, version) == before


def test_rows_cannot_go_one_by_one_into_a_graph_that_takes_four(platform: Platform) -> None:
    platform.packager.graph = replace(HOUSE, batch=4)
    version = platform.native_model("bob", platform.workspace("bob"))

    with pytest.raises(BadInput, match="the model takes 4 rows at a time"):
        configure(platform, version, batch_config="single")


def test_a_config_of_a_version_that_is_not_looked_into_yet_is_checked_when_it_is(platform: Platform) -> None:
    workspace = platform.workspace("bob")
    fine = platform.native_model("bob", workspace, ready=False)
    wrong = platform.native_model("bob", workspace, ready=False)

    configure(platform, fine, tensor_fields=("features",))
    configure(platform, wrong, tensor_fields=("a", "b"))

    assert platform.services.models.package(fine.id).status is ModelStatus.READY
    assert inputs(config(platform, fine)).names == ["features"]
    assert "tensor_fields has 2 names" in str(platform.services.models.package(wrong.id).error_summary)


def test_an_upload_waits_for_a_native_version_and_for_no_other(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    models, workspace = platform.services.models, platform.workspace("bob")
    monkeypatch.setattr(models, "_native_wait_s", 60.0)
    native = platform.native_model("bob", workspace, ready=False)
    other = platform.model("bob", workspace, ready=False)
    queue = threading.Thread(target=models.package, args=(native.id,))
    queue.start()

    assert models.settled(native).status is ModelStatus.READY
    assert models.settled(other).status is ModelStatus.PENDING_LOAD_CONTAINER
    queue.join()


def test_a_native_version_that_takes_longer_is_told_as_it_is(platform: Platform) -> None:
    version = platform.native_model("bob", platform.workspace("bob"), ready=False)

    assert platform.services.models.settled(version).status is ModelStatus.PENDING_LOAD_NATIVE
    assert an_onnx_upload().input_schema is None
