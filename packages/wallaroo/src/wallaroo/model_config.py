"""How a model version is run: the newest configuration of a version counts."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

from wallaroo.dynamic_batching_config import DynamicBatchingConfig
from wallaroo.object import Object

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pyarrow as pa

    from wallaroo.client import Client
    from wallaroo.model_version import ModelVersion


class ModelConfig(Object):
    def id(self) -> int:
        return int(self._get("id"))

    def model_version_id(self) -> int:
        return int(self._get("model_version_id"))

    def runtime(self) -> str:
        """One of onnx, tensorflow, flight, mlflow."""
        return str(self._get("runtime"))

    def tensor_fields(self) -> list[str] | None:
        names: list[str] | None = self._get("tensor_fields")
        return names

    def filter_threshold(self) -> float | None:
        threshold: float | None = self._get("filter_threshold")
        return threshold

    def input_schema(self) -> pa.Schema | None:
        return schema_from_wire(self._get("input_schema"))

    def output_schema(self) -> pa.Schema | None:
        return schema_from_wire(self._get("output_schema"))

    def batch_config(self) -> str | None:
        config: str | None = self._get("batch_config")
        return config

    def dynamic_batching_config(self) -> DynamicBatchingConfig | None:
        """How requests of several callers are gathered; None when each is a run of its own."""
        config: dict[str, Any] | None = self._get("dynamic_batching_config")
        return None if config is None else DynamicBatchingConfig.from_json(config)

    def _fetch(self) -> Mapping[str, Any]:
        request = {"model_id": self._record["model_version_id"]}
        answer: Mapping[str, Any] = self._client._transport.post("/v1/api/models/get_config_by_id", request)
        return answer["model_config"] or {}

    def __repr__(self) -> str:
        return f"ModelConfig(id={self.id()}, model_version_id={self.model_version_id()}, runtime={self.runtime()!r})"


def schema_to_wire(name: str, schema: pa.Schema | None) -> str | None:
    """Base64 of the serialised Arrow schema. Raises TypeError when `schema` is none."""
    if schema is None:
        return None
    import pyarrow as pa

    if not isinstance(schema, pa.Schema):
        raise TypeError(f"{name} is a {type(schema).__name__}. Pass a pyarrow.Schema: pa.schema([pa.field(…), …]).")
    return base64.b64encode(schema.serialize().to_pybytes()).decode("ascii")


def schema_from_wire(text: str | None) -> pa.Schema | None:
    if text is None:
        return None
    import pyarrow as pa

    return pa.ipc.read_schema(pa.py_buffer(base64.b64decode(text)))


def configure(
    client: Client,
    version: ModelVersion,
    tensor_fields: Sequence[str] | None,
    filter_threshold: float | None,
    input_schema: pa.Schema | None,
    output_schema: pa.Schema | None,
    batch_config: str | None,
    dynamic_batching_config: DynamicBatchingConfig | None,
) -> ModelConfig:
    """Keep one more configuration of a version; it is the one in force afterwards.

    Raises:
        ValueError: `batch_config` is neither None nor "single".
        TypeError: a schema is no Arrow schema, or `dynamic_batching_config` no DynamicBatchingConfig.
    """
    if not isinstance(dynamic_batching_config, (DynamicBatchingConfig, type(None))):
        raise TypeError(
            f"dynamic_batching_config is a {type(dynamic_batching_config).__name__}. "
            "Pass a wallaroo.dynamic_batching_config.DynamicBatchingConfig."
        )
    if batch_config not in (None, "single"):
        raise ValueError(f"batch_config is {batch_config!r}. Leave it out, or pass 'single' to send rows one by one.")
    request = {
        "model_version_id": version.id(),
        "tensor_fields": None if tensor_fields is None else list(tensor_fields),
        "filter_threshold": filter_threshold,
        "input_schema": schema_to_wire("input_schema", input_schema),
        "output_schema": schema_to_wire("output_schema", output_schema),
        "batch_config": batch_config,
        "dynamic_batching_config": dynamic_batching_config.to_json() if dynamic_batching_config else None,
    }
    answer = client._transport.post("/v1/api/models/insert_model_config", request)
    return ModelConfig(client, answer["model_config"])
