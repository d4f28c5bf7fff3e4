"""The inference endpoint as an OpenAPI document, held against JSON Schema and what the engine takes and gives."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import jsonschema  # type: ignore[import-untyped]
import pyarrow as pa
import pytest
from unit.wallaroo.stub import (
    UUIDS,
    StubPlatform,
    deployment,
    model_config,
    model_entry,
    model_version,
    pipeline_entry,
    pipeline_version,
)

from wallaroo import _api_spec
from wallaroo.model_config import schema_to_wire

if TYPE_CHECKING:
    from pathlib import Path

    from wallaroo import Client
    from wallaroo.pipeline import Pipeline

URL = "http://127.0.0.1:8765/v1/api/pipelines/infer/rental-5/rental"
INPUTS = pa.schema([pa.field("count", pa.list_(pa.int32())), pa.field("place", pa.string())])
OUTPUTS = pa.schema([pa.field("forecast", pa.list_(pa.int32(), 7)), pa.field("mean", pa.float32())])


def spec_of(inputs: pa.Schema | None = INPUTS, outputs: pa.Schema | None = OUTPUTS) -> dict[str, Any]:
    return _api_spec.document("rental", UUIDS[2], URL, inputs, outputs)


def check(spec: dict[str, Any], name: str, value: object) -> None:
    """Raises ValidationError when `value` is no such component."""
    schema = spec["components"]["schemas"][name]
    jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)


def test_the_document_names_the_endpoint_and_every_local_reference_in_it_resolves() -> None:
    spec = spec_of()

    assert spec["openapi"] == "3.1.1"
    assert spec["servers"] == [{"url": "http://127.0.0.1:8765"}]
    assert list(spec["paths"]) == ["/v1/api/pipelines/infer/rental-5/rental"]
    text = json.dumps(spec)
    for reference in {part.partition('"')[0] for part in text.split('"$ref": "#/')[1:]}:
        found = spec
        for key in reference.split("/"):
            found = found[key]


@pytest.mark.parametrize(
    "row", [{"count": [1, 2], "place": "x"}, {"count": [], "place": ""}], ids=["filled", "empty list"]
)
def test_rows_that_fit_the_input_schema_fit_the_document(row: dict[str, Any]) -> None:
    check(spec_of(), "Row", row)


@pytest.mark.parametrize(
    "row",
    [
        {"count": [1.5], "place": "x"},
        {"count": [2**31], "place": "x"},
        {"count": [None], "place": "x"},
        {"count": [1]},
        {"count": [1], "place": "x", "more": 1},
        {"count": 1, "place": "x"},
    ],
)
def test_rows_that_the_engine_refuses_do_not_fit(row: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        check(spec_of(), "Row", row)


def test_an_answer_of_the_engine_fits() -> None:
    answer = {
        "time": 1752681130155,
        "in": {"count": [1, 2], "place": "x"},
        "out": {"forecast": [1, 2, 3, 4, 5, 6, 7], "mean": None},
        "anomaly": {"count": 1, "too_high": True},
        "metadata": {"partition": "engine-1"},
    }
    check(spec_of(), "Answer", answer)
    with pytest.raises(jsonschema.ValidationError):
        check(spec_of(), "Answer", {**answer, "out": {"forecast": [1], "mean": 1.0}})


@pytest.mark.parametrize(
    ("kind", "sent", "answered"),
    [
        (pa.bool_(), [True], [True]),
        (pa.int8(), [-128, 127], [5]),
        (pa.uint64(), [0, 2**64 - 1], [5]),
        (pa.float64(), [1, 1.5], [1.5, None]),
        (pa.large_string(), ["é"], ["é"]),
        (pa.binary(), ["AAE="], ["AAE="]),
        (pa.timestamp("us"), [1752681130155, "2025-07-16T15:52:10Z"], [1752681130155]),
        (pa.date32(), ["2025-07-16", 1752624000000], ["2025-07-16"]),
        (pa.decimal128(9, 2), ["1.25", 1.25], ["1.25"]),
        (pa.list_(pa.list_(pa.float32()), 2), [[[1.5], []]], [[[None], [2.5]]]),
        (pa.struct([pa.field("a", pa.int32())]), [{"a": 1}], [{"a": 1}]),
    ],
    ids=str,
)
def test_each_type_of_a_schema_has_its_json_in_both_directions(kind: Any, sent: list[Any], answered: list[Any]) -> None:
    for direction, values in (("in", sent), ("out", answered)):
        schema = _api_spec.json_type(kind, direction)
        for value in values:
            jsonschema.validate(value, schema, cls=jsonschema.Draft202012Validator)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(object(), schema, cls=jsonschema.Draft202012Validator)


def test_a_model_without_schemas_has_free_rows() -> None:
    check(spec_of(None, None), "Row", {"whatever": 1})


@pytest.fixture
def deployed(client: Client, platform: StubPlatform) -> Pipeline:
    """A deployed pipeline of one model with schemas."""
    schemas = {
        "input_schema": schema_to_wire("input_schema", INPUTS),
        "output_schema": schema_to_wire("output_schema", OUTPUTS),
    }
    version = {"model_version": model_version(), "config": {**model_config(), **schemas}}
    entry = {**model_entry(model_version()), "model_versions": [version]}
    record = deployment(platform.url, None)
    platform.on("/v1/api/models/list_versions_for_model", {"models": [entry]})
    platform.on("/v1/api/pipelines/get_pipeline_by_name", pipeline_entry(deployed=True, deployment=record))
    platform.on(
        "/v1/api/pipelines/list_pipeline_versions",
        {"pipeline_versions": [pipeline_entry(pipeline_version=pipeline_version(n, *m)) for n, m in _VERSIONS]},
    )
    platform.on("/v1/api/admin/get_pipeline_external_url", {"url": record["external_url"]})
    return client.get_pipeline("rental")


_VERSIONS = [(3, []), (2, ["control"]), (1, [])]  # the newest is not the deployed one


def test_it_is_written_for_the_deployed_version_beside_the_notebook(
    deployed: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    written = deployed.generate_api_spec()

    assert (tmp_path / written).name == "rental.yaml"
    spec = json.loads((tmp_path / "rental.yaml").read_text(encoding="utf-8"))
    assert spec["info"]["version"] == UUIDS[2]
    assert list(spec["components"]["schemas"]["Row"]["properties"]) == ["count", "place"]
    assert spec["components"]["schemas"]["Answer"]["properties"]["out"]["required"] == ["forecast", "mean"]


def test_a_path_is_a_file_or_a_folder(deployed: Pipeline, tmp_path: Path) -> None:
    assert deployed.generate_api_spec(tmp_path) == tmp_path / "rental.yaml"
    assert deployed.generate_api_spec(tmp_path / "api.yml") == tmp_path / "api.yml"
    assert (tmp_path / "api.yml").read_bytes() == (tmp_path / "rental.yaml").read_bytes()


def test_a_pipeline_that_was_never_deployed_has_no_endpoint_to_describe(client: Client, platform: StubPlatform) -> None:
    platform.on("/v1/api/pipelines/get_pipeline_by_name", pipeline_entry())
    with pytest.raises(RuntimeError, match=r"has not been deployed and has no url\. Call deploy\(\) first"):
        client.get_pipeline("rental").generate_api_spec()
