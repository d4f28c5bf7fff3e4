"""Batch inferences in this process: a real replica of a small ONNX model, real files and databases, and no server."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa
from host_kit import Server, adder_spec, local_runtime, serving, token, wait_until
from worker_builders import model_spec

from bettong.domain.batch_requests import BatchRequest, Columns, parse
from bettong.domain.drivers import Egress
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.registry import Registry
from bettong.engine.answer import AnswerShape, Origin
from bettong.errors import BadInput, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    from bettong.domain.drivers import Capability, Source
    from bettong.domain.ports import LogReader

ARROW = "application/vnd.apache.arrow.stream"
LINEAGE = {"job_id": "job-1", "pipeline_version": "pv-1", "model_version": "mv-1"}

TITLES = {"source": "DB 'shop'", "sink": "DB 'warehouse'"}


@dataclass
class End:
    """A connection: its type and details."""

    kind: str
    details: Mapping[str, Any]


@dataclass
class WorkDouble:
    """One attempt at a batch inference. `said` and `told` are what it said and reported; `stop` has it cancelled."""

    request: Mapping[str, Any]
    ends: Mapping[str, End]
    infer_rows: Callable[[pa.Table], pa.Table]
    folder: Path
    reach: Reach
    job_id: str = "job-1"
    position: str | None = None
    attempt: int = 1
    lanes: int = 2
    most_bytes: int = 0
    lineage: Mapping[str, str] = field(default_factory=lambda: dict(LINEAGE))
    titles: Mapping[str, str] = field(default_factory=lambda: dict(TITLES))
    said: list[str] = field(default_factory=list)
    told: list[tuple[Mapping[str, Any], str | None]] = field(default_factory=list)
    asked: list[int] = field(default_factory=list)
    stop: Callable[[WorkDouble], bool] = lambda work: False

    @property
    def cancelled(self) -> bool:
        return self.stop(self)

    def source(self, role: str, needed: Capability) -> AbstractContextManager[Source]:
        end = self.ends[role]
        return Opening(end.kind, Registry().driver(end.kind), end.details, self.reach, 30).source(needed)

    def renew(self) -> None:
        raise NotImplementedError("a batch inference opens a connection once")

    def infer(self, rows: pa.Table) -> pa.Table:
        self.asked.append(rows.num_rows)
        return self.infer_rows(rows)

    def logs(self) -> LogReader:
        raise NotImplementedError("a batch inference reads no logs")

    def report(self, progress: Mapping[str, Any], position: str | None = None) -> None:
        self.told.append((progress, position))

    def say(self, line: str) -> None:
        self.said.append(line)

    def again(self, **changes: Any) -> WorkDouble:
        """The next attempt, which knows what this one reported."""
        kept = [position for _, position in self.told if position is not None]
        fresh: dict[str, Any] = {"said": [], "told": [], "asked": [], "stop": lambda work: False}
        position = kept[-1] if kept else self.position
        return replace(self, **{**fresh, "attempt": self.attempt + 1, "position": position, **changes})

    def rejects(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for file in sorted(self.folder.glob("rejects*.arrow")):
            with pa.OSFile(str(file), "rb") as source:
                found += pa.ipc.open_file(source).read_all().to_pylist()
        return found


def columns(takes: Mapping[str, Any], gives: Mapping[str, Any], keys: tuple[str, ...] = ()) -> Columns:
    """What a pipeline of one model takes and gives."""
    inputs, outputs = pa.schema(dict(takes)), pa.schema(dict(gives))
    return Columns(inputs, keys, AnswerShape(inputs, outputs, Origin("", "", ""), 0).schema)


def batch_request(of: Columns, **changes: Any) -> BatchRequest:
    """A request that holds, unless `changes` say otherwise: from `rows` to `answers`, by the key `id`."""
    asked: dict[str, Any] = {
        "pipeline_id": 1,
        "pipeline_version": "pv-1",
        "source": {"connection_id": "c-1", "query": "rows", "parameters": []},
        "sink": {"connection_id": "c-2", "table": "answers", "mode": "append"},
        "keys": ["id"],
    }
    for name, value in changes.items():
        if isinstance(value, dict) and name in ("source", "sink"):
            asked[name] = {**asked[name], **value}
        else:
            asked[name] = value
    return parse(asked, of)


def work_double(
    request: BatchRequest, source: End, sink: End, infer: Callable[[pa.Table], pa.Table], folder: Path, **more: Any
) -> WorkDouble:
    """`folder` holds the files of all connections, and the job's own."""
    own = folder / "job"
    own.mkdir(exist_ok=True)
    reach = Reach(Egress(folders=(str(folder),)))
    document = json.loads(json.dumps(request.to_document()))
    return WorkDouble(document, {"source": source, "sink": sink}, infer, own, reach, **more)


@contextmanager
def answering(folder: Path, model: bytes, takes: Mapping[str, Any], gives: Mapping[str, Any]) -> Iterator[Any]:
    """A function that asks a real replica of an ONNX model."""
    home = folder / "engine"
    (home / "model").mkdir(parents=True)
    (home / "model" / "model.onnx").write_bytes(model)
    made = model_spec(home / "model", home / "model", dict(takes), dict(gives))
    spec = replace(made, framework="onnx", environment="", sha="0" * 64)
    with Server("python") as server, local_runtime(home, server) as runtime:
        runtime.deploy(adder_spec(home, 1, models=(spec,)))
        port = wait_until(runtime, serving(1)).port
        with httpx.Client() as http:

            def infer(rows: pa.Table) -> pa.Table:
                sink = pa.BufferOutputStream()
                with pa.ipc.new_stream(sink, rows.schema) as writer:
                    writer.write_table(rows)
                headers = {"content-type": ARROW, "accept": ARROW, "authorization": f"Bearer {token()}"}
                url = f"http://127.0.0.1:{port}/pipelines/adding"
                reply = http.post(url, content=sink.getvalue().to_pybytes(), headers=headers, timeout=60)
                if reply.status_code != 200:
                    kind = ModelFailed if reply.status_code == 500 else BadInput
                    raise kind(reply.json()["error"])
                with pa.ipc.open_stream(reply.content) as opened:
                    return opened.read_all()

            yield infer


def plus(addend: int, *, refuses: Callable[[dict[str, Any]], str | None] = lambda row: None) -> Any:
    """Stands for a replica: `y` is `x` plus a number. Rows for which `refuses` has words make it refuse a request, as
    a replica words it."""

    def infer(rows: pa.Table) -> pa.Table:
        for at, row in enumerate(rows.to_pylist()):
            if words := refuses(row):
                raise BadInput(f"Column 'x', row {at}: {words}.")
        y = [row["x"] + addend for row in rows.to_pylist()]
        return pa.table({"out.y": pa.array(y, pa.int64())})

    return infer


PLUS = columns({"x": pa.int64()}, {"y": pa.int64()})
