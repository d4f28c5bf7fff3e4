"""Stream inference as it is asked for: the call of a pipeline as the request of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wallaroo import job
from wallaroo.connection import Connection
from wallaroo.pipeline_version import PipelineVersion

if TYPE_CHECKING:
    from collections.abc import Sequence

    from wallaroo.client import Client
    from wallaroo.job import Job


def start(
    client: Client,
    pipeline_id: int,
    *,
    source: Connection,
    topic: str,
    sink: Connection,
    into: str,
    group: str | None,
    dead_letter: str | tuple[Connection, str] | None,
    keep: Sequence[str],
    version: PipelineVersion | str | None,
    **limits: Any,
) -> Job:
    """Have the platform begin one. Raises TypeError, or RequestRefused: the platform refuses it, and says why."""
    if isinstance(keep, str):
        raise TypeError(f"keep is a text. Pass a list of names: keep=[{keep!r}].")
    request: dict[str, Any] = {
        "pipeline_id": pipeline_id,
        "source": {**_end("source", source), "topic": topic, **({} if group is None else {"group": group})},
        "sink": {**_end("sink", sink), "into": into},
        "keep": list(keep),
        **{name: value for name, value in limits.items() if value is not None},
    }
    if (mode := request.pop("mode", None)) is not None:
        request["sink"]["mode"] = mode
    if dead_letter is not None:
        where, name = (source, dead_letter) if isinstance(dead_letter, str) else dead_letter
        request["dead_letter"] = {**_end("dead_letter", where), "topic": name}
    if version is not None:
        request["pipeline_version"] = version.name() if isinstance(version, PipelineVersion) else version
    return job.make(client, "infer_stream", request)


def _end(role: str, connection: object) -> dict[str, str]:
    if not isinstance(connection, Connection):
        raise TypeError(
            f"{role} is of type {type(connection).__name__}. Pass a connection, such as wl.get_connection('broker')."
        )
    return {"connection_id": connection.id()}
