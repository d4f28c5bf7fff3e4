"""Deployments: what is asked for, what a host is told, and what is observed."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, field, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from bettong.domain.batching import DynamicBatching
from bettong.domain.identity import AUDIENCE
from bettong.domain.logs import SEGMENT_BYTES
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

SPEC_FORMAT = 1
MAX_REPLICAS = 64
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)(Ki|Mi|Gi|Ti|k|M|G|T)?")
_UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}


@dataclass(frozen=True, slots=True)
class Deployment:
    """What is wanted for one pipeline. One row per pipeline; a redeploy updates it and its id stays.

    `generation` counts the targets: it grows by one with every deploy. `port` is the port last listened on, 0 before.
    """

    id: int
    pipeline_id: int
    name: str
    workspace_id: int
    deployed: bool
    generation: int
    pipeline_version_id: int | None
    engine_config: dict[str, Any]
    port: int
    created_at: datetime
    updated_at: datetime

    @property
    def label(self) -> str:
        """`{name}-{id}`: how URLs, folders and the status call name it."""
        return f"{self.name}-{self.id}"


@dataclass(frozen=True, slots=True)
class Resources:
    """What an engine config asks for, checked. Memory and CPUs are nominal on one machine: stated, not enforced."""

    replicas: int = 1
    cpus: float = 4.0
    memory_bytes: int = 3 * 2**30
    load_timeout_s: float = 120.0
    threads: int = 1  # of one model in one replica: the whole CPUs asked for, one where none are
    shadow_waits: bool = True  # whether an answer waits for challengers


def parse_engine_config(config: dict[str, Any]) -> Resources:
    """Read the parts of a deployment config (spec 6.1) that this release acts on; unknown parts are kept by the caller.

    Raises:
        BadInput: a number is out of range or of another type; autoscaling, GPUs or another architecture are asked for.
    """
    engine = config.get("engine", {})
    if not isinstance(engine, dict):
        raise BadInput(
            "Deployment config has an 'engine' that is not an object.", "Build it with DeploymentConfigBuilder."
        )
    if "autoscale" in engine:
        raise BadInput("Deployment config asks for autoscaling.", "This release runs a fixed replica_count; set that.")
    if engine.get("gpu"):
        raise BadInput("Deployment config asks for GPUs.", "This release runs models on CPUs; leave gpus() out.")
    replicas = engine.get("replicas", 1)
    if isinstance(replicas, bool) or not isinstance(replicas, int) or not 1 <= replicas <= MAX_REPLICAS:
        raise BadInput(f"Deployment config asks for {replicas!r} replicas.", f"Ask for 1 to {MAX_REPLICAS}.")
    limits = engine.get("resources", {}).get("limits", {}) if isinstance(engine.get("resources", {}), dict) else {}
    python = engine.get("python", {})
    load_ms = python.get("load_timeout_millis", 120_000) if isinstance(python, dict) else 120_000
    if isinstance(load_ms, bool) or not isinstance(load_ms, (int, float)) or not 0 < load_ms <= 3_600_000:
        raise BadInput(f"Deployment config has a load timeout of {load_ms!r} ms.", "Give 1 second to 1 hour.")
    waits = engine.get("shadow_wait", True)
    if not isinstance(waits, bool):
        raise BadInput("Deployment config has a 'shadow_wait' that is not true or false.", "Leave it out, or set it.")
    cpus = parse_cpus(engine.get("cpu", 4.0))
    return Resources(
        replicas=replicas,
        cpus=cpus,
        threads=max(1, int(cpus)) if "cpu" in engine else 1,
        memory_bytes=parse_quantity(limits.get("memory", "3Gi")),
        load_timeout_s=load_ms / 1000,
        shadow_waits=waits,
    )


def parse_quantity(text: object) -> int:
    """Bytes of a memory quantity such as '512Mi', '1.5Gi' or '1073741824'.

    Raises:
        BadInput: it is none, or zero.
    """
    match = _QUANTITY.fullmatch(str(text).strip())
    if not match or (amount := round(float(match[1]) * _UNITS[match[2] or ""])) <= 0:
        raise BadInput(f"Memory '{text}' is not a quantity.", "Write it as '512Mi', '1Gi' or '1.5Gi'.")
    return amount


def parse_cpus(value: object) -> float:
    """A number of CPUs, given as a number or a text. Raises BadInput when it is none, or not above zero."""
    try:
        cpus = float(str(value))
    except ValueError:
        cpus = -1.0
    if isinstance(value, bool) or not 0 < cpus <= 4096:
        raise BadInput(f"Deployment config asks for {value!r} CPUs.", "Ask for a number above 0, such as 0.5 or 2.")
    return cpus


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One model version as an engine needs it: everything resolved to local folders, nothing secret but `env`."""

    uid: str
    id: int
    name: str
    version: str
    sha: str
    framework: str
    folder: str  # the unpacked artifact, absolute, read-only for the worker
    environment: str  # the virtual environment, absolute, read-only for the worker; "" for native models
    input_schema: str  # base64 of the serialised Arrow schema
    output_schema: str
    load_timeout_s: float = 120.0
    env: dict[str, str] = field(default_factory=dict)
    row_by_row: bool = False  # batch_config "single": the model is never given two rows at once
    batching: DynamicBatching | None = None  # of requests of several callers; None: each request is a run of its own
    framework_config: dict[str, Any] = field(default_factory=dict)  # what the model's loader is told besides
    cpus: int = 0  # whole CPUs asked for this model in each replica; 0: as many as its deployment gives each model


@dataclass(frozen=True, slots=True)
class DeploymentSpec:
    """The deployment file: all that a host and its replicas are told. Written by a runtime, read by the engine.

    `public_key` (base64, raw Ed25519) verifies access tokens, which must be for `audience`. `log_folder` takes the
    inference log; "" keeps none. `known_as` is the label of one that is private to a job. `models` are those
    that the steps name, each version once, in step order. `hosts` are the Host headers taken besides loopback names and
    the bound address.
    """

    deployment_id: int
    name: str
    workspace_id: int
    workspace_name: str
    pipeline_id: int
    pipeline_version: str
    generation: int
    replicas: int
    cpus: float
    models: tuple[ModelSpec, ...]
    public_key: str
    log_folder: str
    topic: str
    host: str = "127.0.0.1"
    port: int = 0
    hosts: tuple[str, ...] = ()
    max_body_bytes: int = 128 * 2**20
    head_timeout_s: float = 10.0
    body_idle_timeout_s: float = 20.0
    keep_alive_timeout_s: float = 75.0
    request_timeout_s: float = 60.0
    max_queued_requests: int = 1024
    linger_s: float = 5.0  # how long a drained replica still takes requests on connections that it has
    drain_s: float = 30.0  # how long requests in flight may take before a drained replica ends all the same
    max_logged_row_bytes: int = 2**20  # an input column that takes more per row stays out of the log
    log_segment_bytes: int = SEGMENT_BYTES  # how large a replica's segment of the log grows
    on_log_full: str = "stop"  # or "continue": answers go on, and rows that are not logged are counted
    threads: int = 1  # of one model in one replica, its share of the cores at most
    steps: tuple[dict[str, Any], ...] = ()  # documents of spec 5.1; none: a step for each model
    shadow_waits: bool = True  # whether an answer waits for challengers
    audience: str = AUDIENCE
    known_as: str = ""

    @property
    def label(self) -> str:
        return self.known_as or f"{self.name}-{self.deployment_id}"

    def to_json(self) -> str:
        return json.dumps({"format": SPEC_FORMAT, **asdict(self)}, indent=1)

    @classmethod
    def from_json(cls, text: str | bytes) -> DeploymentSpec:
        """Raises ValueError when the file is of another format."""
        document = json.loads(text)
        if document.pop("format", None) != SPEC_FORMAT:
            raise ValueError(
                f"This is not a deployment file of format {SPEC_FORMAT}; the platform was updated: redeploy."
            )
        models = tuple(_model_spec(m) for m in document.pop("models"))
        steps = tuple(document.pop("steps", ()))
        return cls(models=models, hosts=tuple(document.pop("hosts")), steps=steps, **document)


def _model_spec(document: dict[str, Any]) -> ModelSpec:
    batching = document.pop("batching", None)
    return ModelSpec(**document, batching=None if batching is None else DynamicBatching(**batching))


class State(StrEnum):
    """States of replicas and workers, in the words of spec 6.3."""

    PENDING = "Pending"
    RUNNING = "Running"
    FAILED = "Failed"
    UNKNOWN = "Unknown"


@dataclass(frozen=True, slots=True)
class ObservedWorker:
    """A model worker as its replica saw it just now. A native model has none: the replica stands for it."""

    uid: str
    pid: int
    state: State
    reason: str | None = None
    restarts: int = 0
    sandbox: str = ""  # what holds it, in words: "Landlock ABI 7, uid 61234" or what is missing
    provider: str = ""  # of a native model: what executes it, such as "CPUExecutionProvider"

    @property
    def native(self) -> bool:
        return bool(self.provider)


def as_one(workers: Sequence[ObservedWorker]) -> ObservedWorker:
    """What is told of several workers of one model where there is place for one: the first of those in the worst
    state, with the restarts of all."""
    worst = min(workers, key=lambda worker: _WORST_FIRST.index(worker.state))
    return replace(worst, restarts=sum(worker.restarts for worker in workers))


_WORST_FIRST = (State.FAILED, State.UNKNOWN, State.PENDING, State.RUNNING)


@dataclass(frozen=True, slots=True)
class ObservedReplica:
    """A replica as its host saw it just now: alive and answering a probe, or why not."""

    name: str
    pid: int
    state: State
    generation: int
    pipeline_version: str
    reason: str | None = None
    draining: bool = False
    restarts: int = 0
    in_flight: int = 0
    log_problem: str | None = None  # of its inference log, in words
    workers: tuple[ObservedWorker, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """A deployment as it really is. `serving` is the generation that new connections reach, 0 before the first.

    `target` is the newest generation asked for; `error` says why it does not serve yet, None while all is well.
    """

    label: str
    pid: int
    host: str
    port: int
    serving: int
    target: int
    error: str | None
    replicas: tuple[ObservedReplica, ...] = ()

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str | bytes) -> Observed:
        document = json.loads(text)
        replicas = tuple(
            ObservedReplica(
                **{
                    **r,
                    "state": State(r["state"]),
                    "workers": tuple(ObservedWorker(**{**w, "state": State(w["state"])}) for w in r["workers"]),
                }
            )
            for r in document.pop("replicas")
        )
        return cls(replicas=replicas, **document)
