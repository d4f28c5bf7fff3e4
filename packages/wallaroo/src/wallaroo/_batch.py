"""Batch inference as it is asked for: the call of a pipeline as the request of a job."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from wallaroo import job
from wallaroo.connection import Connection, bound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wallaroo.client import Client
    from wallaroo.job import Job


def start(
    client: Client,
    pipeline_id: int,
    version: str | None,
    *,
    source: Connection,
    query: str,
    parameters: Sequence[Any],
    sink: Connection,
    table: str,
    mode: str,
    map: Mapping[str, str | Sequence[str]] | None,
    keys: Sequence[str],
    outputs: Mapping[str, str] | None,
    lineage: bool,
    max_rejects: float,
) -> Job:
    """Have the platform begin one.

    Raises:
        TypeError: a connection is none, `keys` or `parameters` is a text, or `map` or `outputs` is no dict.
        RequestRefused: the platform refuses it, and says why.
    """
    for name, value in (("keys", keys), ("parameters", parameters)):
        if isinstance(value, str):
            raise TypeError(f"{name} is a text. Pass a list: {name}=[{value!r}].")
    for name, given, example in (
        ("map", map, "model column: source column"),
        ("outputs", outputs, "sink column: output"),
    ):
        if given is not None and not isinstance(given, Mapping):
            raise TypeError(f"{name} is of type {type(given).__name__}. Pass a dict: {name}={{{example}}}.")
    request: dict[str, Any] = {
        "pipeline_id": pipeline_id,
        "source": {"connection_id": _id("source", source), "query": query, "parameters": bound(parameters)},
        "sink": {"connection_id": _id("sink", sink), "table": table, "mode": mode},
        "map": {name: of if isinstance(of, str) else list(of) for name, of in (map or {}).items()},
        "keys": list(keys),
        "lineage": lineage,
        "max_rejects": max_rejects,
    }
    if outputs is not None:
        request["outputs"] = dict(outputs)
    if version is not None:
        request["pipeline_version"] = version
    return job.make(client, "infer_batch", request)


def _id(role: str, connection: object) -> str:
    if not isinstance(connection, Connection):
        raise TypeError(
            f"{role} is of type {type(connection).__name__}. Pass a connection, such as wl.get_connection('warehouse')."
        )
    return connection.id()
