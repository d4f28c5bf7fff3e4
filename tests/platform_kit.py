"""A whole control plane in one process: real stores, key ring, artifacts, log and signer; doubles where engines start.

`Api` drives the real application without a socket, and holds every answer against the shape that the route declares.
"""

from __future__ import annotations

import asyncio
import base64
import io
import json
import zipfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pyarrow as pa
from driver_doubles import DriversDouble
from fastapi.routing import APIRoute
from pydantic import TypeAdapter

from bettong.api.app import create_app
from bettong.artifacts.store import open_artifacts
from bettong.domain.deployments import Observed, ObservedReplica, ObservedWorker, State
from bettong.domain.schema import encode_schema
from bettong.domain.tensors import Graph, Tensor
from bettong.errors import BadInput, ModelFailed, Unavailable
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.sql import LogSql
from bettong.packaging.wheels import package_folder
from bettong.secrets.keyring import KeyRing, add_key_to_file, check_canary, key_id_of, open_ring
from bettong.secrets.signing import Signer, open_signer
from bettong.services.connection_use import ConnectionUse
from bettong.services.connection_versions import ConnectionVersions
from bettong.services.connections import ConnectionService
from bettong.services.deployment_specs import DeploymentSpecs, Place
from bettong.services.deployments import DeploymentService
from bettong.services.identity import IdentityService
from bettong.services.jobs import JobService
from bettong.services.key_rotation import KeyRotation
from bettong.services.log_queries import LogQueryService
from bettong.services.logs import LogService
from bettong.services.metrics import MetricsService
from bettong.services.models import ModelService, Upload
from bettong.services.pipelines import PipelineService
from bettong.services.platform import PlatformFacts, Services
from bettong.services.usage import ModelUsage
from bettong.services.workspaces import WorkspaceService
from bettong.settings import Limits, Settings
from bettong.storage.stores import Stores, open_stores

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from fastapi import FastAPI

    from bettong.domain.deployments import DeploymentSpec, ModelSpec
    from bettong.domain.identity import Principal
    from bettong.domain.metrics import DeploymentMetrics
    from bettong.domain.models import ModelVersion
    from bettong.domain.pipelines import PipelineVersion

BASE = "http://127.0.0.1:8765"
INPUTS = pa.schema([pa.field("count", pa.list_(pa.int32()))])
OUTPUTS = pa.schema([pa.field("forecast", pa.list_(pa.int32()))])
HOUSE = Graph((Tensor("tensor", "float", (18,)),), (Tensor("variable", "float", (1,)),))


class RuntimeDouble:
    """Runs nothing, and observes as if it did: a deployment serves what it was last asked for until told otherwise."""

    def __init__(self) -> None:
        self.specs: dict[int, DeploymentSpec] = {}
        self.deployed: list[DeploymentSpec] = []
        self.refuses: Unavailable | None = None
        self.port = 41_000
        self.counted: dict[str, DeploymentMetrics] = {}
        self.change: Callable[[Observed], Observed] = lambda observed: observed

    def deploy(self, spec: DeploymentSpec) -> None:
        if self.refuses:
            raise self.refuses
        self.specs[spec.deployment_id] = replace(spec, port=spec.port or self.port)
        self.deployed.append(spec)

    def undeploy(self, deployment_id: int, label: str) -> None:
        self.specs.pop(deployment_id, None)

    def metrics(self, deployment_id: int, label: str) -> DeploymentMetrics | None:
        return self.counted.get(label)

    def observe(self, deployment_id: int, label: str) -> Observed | None:
        if (spec := self.specs.get(deployment_id)) is None:
            return None
        replicas = tuple(
            ObservedReplica(
                name=f"engine-{label}-{n}",
                pid=500 + n,
                state=State.RUNNING,
                generation=spec.generation,
                pipeline_version=spec.pipeline_version,
                workers=tuple(
                    ObservedWorker(m.uid, 600 + n, State.RUNNING, sandbox="Landlock ABI 4") for m in spec.models
                ),
            )
            for n in range(spec.replicas)
        )
        return self.change(Observed(label, 400, spec.host, spec.port, spec.generation, spec.generation, None, replicas))


@dataclass
class PackagerDouble:
    """Unpacks nothing and builds nothing; refuses what it is told to."""

    folder: Path
    fault: Exception | None = None
    graph: Graph = HOUSE

    def graph_of(self, version: ModelVersion, report: Callable[[str], None] = lambda _: None) -> Graph:
        report(f"looking into {version.file_name}")
        if self.fault:
            raise self.fault
        return self.graph

    def check(self, version: ModelVersion, report: Callable[[str], None]) -> Path:
        report(f"checking {version.file_name}")
        if self.fault:
            raise self.fault
        return self.folder_of(version)

    def build(self, version: ModelVersion, folder: Path, report: Callable[[str], None]) -> Path:
        report("building the environment")
        return self.folder / "environments" / "e1"

    def folder_of(self, version: ModelVersion) -> Path:
        return self.folder / "models" / version.sha

    def environment_of(self, version: ModelVersion) -> Path:
        return self.folder / "environments" / str(version.environment)


@dataclass
class TrialDouble:
    fault: ModelFailed | None = None
    tried: list[ModelSpec] = field(default_factory=list)

    def try_model(self, model: ModelSpec, report: Callable[[str], None]) -> None:
        self.tried.append(model)
        if self.fault:
            raise self.fault


@dataclass
class Platform:
    """Three people: ann, an administrator and the owner; bob and eve, who are not."""

    home: Path
    settings: Settings
    stores: Stores
    keyring: KeyRing
    signer: Signer
    runtime: RuntimeDouble
    packager: PackagerDouble
    trial: TrialDouble
    drivers: DriversDouble
    services: Services
    facts: PlatformFacts
    stopped: list[bool]
    tokens: dict[str, str]

    def principal(self, who: str) -> Principal:
        """Whom a token of `who` proves now, memberships included."""
        return self.services.identity.authenticate(self.tokens[who], "192.0.2.7")

    def workspace(self, who: str, name: str = "forecasts") -> int:
        """The id of a new workspace of `who`."""
        return self.services.workspaces.create(self.principal(who), name).id

    def model(self, who: str, workspace_id: int, name: str = "forecast", *, ready: bool = True) -> ModelVersion:
        """An uploaded model version, packaged unless it is not to be ready."""
        version = self.services.models.upload(self.principal(who), an_upload(name, workspace_id), io.BytesIO(a_zip()))
        return self.services.models.package(version.id) if ready else version

    def native_model(
        self, who: str, workspace_id: int, name: str = "house-price", *, ready: bool = True, **said: Any
    ) -> ModelVersion:
        """An uploaded ONNX version, whose graph is the packager's, looked into unless it is not to be ready."""
        upload = an_onnx_upload(name, workspace_id, **said)
        version = self.services.models.upload(self.principal(who), upload, io.BytesIO(b"an onnx file"))
        return self.services.models.package(version.id) if ready else version

    def pipeline(self, who: str, workspace_id: int, *models: ModelVersion, name: str = "rental") -> PipelineVersion:
        """A new version of a pipeline whose steps are `models`."""
        return self.services.pipelines.create(self.principal(who), name, workspace_id, definition(name, *models))

    def api(self) -> Api:
        return Api(create_app(self.services, self.settings, self.facts), self.tokens)


@contextmanager
def open_platform(
    home: Path, *, limits: Limits | None = None, keyring: KeyRing | None = None, keys_from_outside: bool = False
) -> Iterator[Platform]:
    """A platform in `home`; opening it again finds what the last one left."""
    settings = Settings(home=home, limits=limits or Limits(), keys=("as if given",) if keys_from_outside else ())
    (home / "keys").mkdir(exist_ok=True, mode=0o700)
    signer = open_signer(home / "keys")
    with open_stores(settings.database) as stores:
        ring = keyring or open_ring(home / "keys", (), sealed_rows_exist=bool(stores.connections.all_sealed()))
        runtime, packager, trial = RuntimeDouble(), PackagerDouble(home), TrialDouble()
        drivers = DriversDouble()
        services = _services(home, settings, stores, ring, signer, runtime, packager, trial, drivers)
        stopped: list[bool] = []
        facts = PlatformFacts(
            version="0.1.0",
            instance="6c7d6f2c-0000-4000-8000-000000000001",
            url=BASE,
            home=str(home),
            started_at="2025-01-01T00:00:00+00:00",
            arch="x86",
            stop=stopped.append,
            sandbox="Landlock ABI 4",
            warnings=services.connections.unreadable_reasons,
        )
        tokens = {"ann": "bt_ann-token"}
        owner = services.identity.ensure_owner("ann@example.org", "ann", tokens["ann"])
        ann = services.identity.authenticate(tokens["ann"], "")
        assert owner.id == ann.user_id
        for name in ("bob", "eve"):
            services.identity.invite(ann, f"{name}@example.org")
            tokens[name] = services.identity.create_token(ann, f"{name}@example.org", "test")[0]
        yield Platform(
            home, settings, stores, ring, signer, runtime, packager, trial, drivers, services, facts, stopped, tokens
        )


def _services(
    home: Path,
    settings: Settings,
    stores: Stores,
    ring: KeyRing,
    signer: Signer,
    runtime: RuntimeDouble,
    packager: PackagerDouble,
    trial: TrialDouble,
    drivers: DriversDouble,
) -> Services:
    usage = ModelUsage(stores.deployments, stores.pipelines)
    workspaces = WorkspaceService(stores.workspaces, stores.users, stores.models, stores.pipelines)
    connections = ConnectionService(stores.connections, workspaces, ring, stores.audit, stores.jobs, now)
    place = Place(
        log_folder=home / "logs",
        deployments_folder=home / "deployments",
        public_key=signer.public_key,
        arch="x86",
        settings=settings,
    )
    specs = DeploymentSpecs(stores.pipelines, stores.models, stores.workspaces, packager, ring, place)
    deployments = DeploymentService(
        stores.deployments,
        stores.pipelines,
        stores.models,
        stores.workspaces,
        usage,
        specs,
        runtime,
        ring,
        place,
    )
    logs = LogService(SegmentLogReader(home / "logs"), stores.pipelines, stores.workspaces)
    identity = IdentityService(stores.users, stores.workspaces, signer, stores.audit, now)
    connection_use = ConnectionUse(connections, stores.connections, drivers, stores.audit, now)
    return Services(
        identity=identity,
        workspaces=workspaces,
        connections=connections,
        connection_use=connection_use,
        connection_versions=ConnectionVersions(
            connections, stores.connections, drivers, ring, stores.jobs, stores.audit
        ),
        key_rotation=KeyRotation(
            ring,
            stores.connections,
            stores.deployments,
            stores.audit,
            now,
            add_key=None if settings.keys else lambda: add_key_to_file(home / "keys", ring),
            follow=lambda: check_canary(ring, stores.facts),
            key_id_of=key_id_of,
        ),
        models=ModelService(
            stores.models,
            workspaces,
            usage,
            open_artifacts(str(home / "artifacts")),
            packager,
            trial,
            arch="x86",
            max_upload_bytes=settings.limits.max_upload_bytes,
        ),
        pipelines=PipelineService(stores.pipelines, stores.models, stores.deployments, workspaces, deployments),
        deployments=deployments,
        logs=logs,
        log_queries=LogQueryService(logs, LogSql(home / "logs", package_folder("bettong-mac") / "_launch.py")),
        metrics=MetricsService(stores.deployments, stores.pipelines, runtime, stores.models.unfinished),
        jobs=JobService(
            stores.jobs,
            workspaces,
            stores.pipelines,
            stores.deployments,
            specs,
            connections,
            connection_use,
            logs,
            identity,
            home / "jobs",
            now,
        ),
    )


class Api:
    """Calls of named people to the application. A context manager: its lifespan runs inside."""

    def __init__(self, app: FastAPI, tokens: dict[str, str]) -> None:
        self.app, self._tokens = app, tokens
        self._runner = asyncio.Runner()
        self._shapes = {r.path: r.response_model for r in _routes(app)}

    def __enter__(self) -> Api:
        self._lifespan = self.app.router.lifespan_context(self.app)
        self._runner.run(self._lifespan.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._lifespan.__aexit__(None, None, None))
        self._runner.close()

    @property
    def shapes(self) -> dict[str, Any]:
        """The declared answer of every route by path."""
        return self._shapes

    def send(self, who: str | None, method: str, path: str, **more: Any) -> httpx.Response:
        """One request, as it is."""
        return self._runner.run(self._send(who, method, path, **more))

    def together(self, *calls: tuple[str, str, dict[str, Any]]) -> list[httpx.Response]:
        """Several POSTs at once: (who, path, body)."""

        async def all_of_them() -> list[httpx.Response]:
            return await asyncio.gather(*(self._send(who, "POST", path, json=body) for who, path, body in calls))

        return self._runner.run(all_of_them())

    def collect(self, who: str, path: str, body: object) -> tuple[bytes, bool]:
        """A POST whose answer may break off: what came of it, and whether it came to its end."""

        into: list[bytes] = []
        ended = False

        async def received() -> None:
            sent = [{"type": "http.request", "body": json.dumps(body).encode(), "more_body": False}]
            scope = {
                "type": "http",
                "asgi": {"version": "3.0"},
                "http_version": "1.1",
                "method": "POST",
                "scheme": "http",
                "path": path,
                "raw_path": path.encode(),
                "query_string": b"",
                "root_path": "",
                "headers": [
                    (b"host", b"127.0.0.1:8765"),
                    (b"content-type", b"application/json"),
                    (b"authorization", f"Bearer {self._tokens.get(who, who)}".encode()),
                ],
                "client": ("192.0.2.7", 1234),
                "server": ("127.0.0.1", 8765),
            }

            async def receive() -> Any:
                if sent:
                    return sent.pop()
                return await asyncio.Event().wait()

            async def send(message: Any) -> None:
                nonlocal ended
                into.append(message.get("body", b""))
                ended = message["type"] == "http.response.body" and not message["more_body"]

            await self.app(scope, receive, send)

        self._runner.run(received())
        return b"".join(into), ended

    def post(self, who: str | None, path: str, body: object = None, **more: Any) -> httpx.Response:
        """A POST of JSON; an answer that is fine must have the declared shape."""
        answered = self.send(who, "POST", path, json={} if body is None else body, **more)
        if answered.is_success and answered.content:
            self.check_shape(path, answered.json())
        return answered

    def ok(self, who: str, path: str, body: object = None) -> Any:
        """The JSON of a POST that must go well."""
        answered = self.post(who, path, body)
        assert answered.is_success, answered.text
        return answered.json() if answered.content else None

    def check_shape(self, path: str, document: object) -> None:
        """Fails unless `document` has exactly the fields that the route of `path` declares, in their order."""
        shape = TypeAdapter(self._shapes[path])
        rebuilt = shape.dump_python(shape.validate_python(document), by_alias=True, exclude_unset=True)
        assert json.dumps(rebuilt) == json.dumps(document)

    async def _send(self, who: str | None, method: str, path: str, **more: Any) -> httpx.Response:
        headers = dict(more.pop("headers", {}))
        if who is not None:
            headers.setdefault("Authorization", f"Bearer {self._tokens.get(who, who)}")
        transport = httpx.ASGITransport(self.app, client=("192.0.2.7", 1234))
        async with httpx.AsyncClient(transport=transport, base_url=BASE) as client:
            return await client.request(method, path, headers=headers, **more)


def _routes(app: FastAPI) -> list[APIRoute]:
    return [route for included in app.routes for route in _within(included) if isinstance(route, APIRoute)]


def _within(route: Any) -> list[Any]:
    router = getattr(route, "original_router", None)
    return [route] if router is None else [inner for r in router.routes for inner in _within(r)]


def now() -> datetime:
    return datetime.now(UTC)


def a_zip(**files: str) -> bytes:
    """A zip file of some files, one by default."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, text in (files or {"step": "def process_data(data): return data"}).items():
            archive.writestr(f"{name}.py", text)
    return out.getvalue()


def an_upload(name: str = "forecast", workspace_id: int = 1, **changes: Any) -> Upload:
    """What somebody says about a file that is fine."""
    upload = Upload(
        name=name,
        workspace_id=workspace_id,
        framework="python",
        file_name="forecast.zip",
        python_version="3.8",
        input_schema=schema_text(INPUTS),
        output_schema=schema_text(OUTPUTS),
    )
    return replace(upload, **changes)


def an_onnx_upload(name: str = "house-price", workspace_id: int = 1, **changes: Any) -> Upload:
    """What somebody says about an ONNX file that is fine: nothing of its schemas."""
    return replace(Upload(name=name, workspace_id=workspace_id, framework="onnx", file_name="mlp.onnx"), **changes)


def schema_text(schema: pa.Schema) -> str:
    return base64.b64encode(encode_schema(schema)).decode()


def definition(name: str, *models: ModelVersion) -> dict[str, Any]:
    """The document of a pipeline with one step per model."""
    return {
        "id": name,
        "steps": [
            {"ModelInference": {"models": [{"name": m.name, "version": m.version, "sha": m.sha}]}} for m in models
        ],
    }


def bad_zip() -> BadInput:
    """What a packager says of a zip that holds no step."""
    return BadInput("The zip has no process_data.\nIt has: step.py", "Write a function process_data.")
