"""The one place that reads the environment and builds concrete things out of what the rooms offer."""

from __future__ import annotations

import contextlib
import getpass
import logging
import os
import platform as machine
import re
import resource
import secrets
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettong import __version__
from bettong.errors import BadInput
from bettong.settings import JOB_BYTES, JOB_DAYS, DriverRules, Limits, LogRules, Settings

if TYPE_CHECKING:
    from collections.abc import Callable

    import uvicorn
    from fastapi import FastAPI

    from bettong.domain.ports import Runtime
    from bettong.drivers.leases import Manager
    from bettong.drivers.processes import DriverProcesses
    from bettong.engine.nursery import Nursery
    from bettong.jobs.loop import Loop
    from bettong.jobs.packaging import PackagingQueue
    from bettong.jobs.queue import JobQueue
    from bettong.secrets.keyring import KeyRing
    from bettong.services.platform import Services

log = logging.getLogger("bettong.compose")

WATCH_EVERY_S = 5.0
MAINTAIN_EVERY_S = 10.0
FORGET_JOBS_EVERY_S = 3600.0
BOUND_JOBS_EVERY_S = 300.0
BOUND_TEXT_LOGS_EVERY_S = 10.0
MAX_DESCRIPTORS = 65536
LOOPBACK = ("127.0.0.1", "::1", "localhost")
_BE_NURSERY = "import sys; from bettong import compose; compose.be_nursery(int(sys.argv[1]))"
NATIVE_WAIT_S = 10.0
ARCHITECTURES = {"x86_64": "x86", "AMD64": "x86", "aarch64": "arm", "arm64": "arm", "ppc64le": "power10"}


# --- settings -------------------------------------------------------------------------------------------------------


def settings_from_environment(**overrides: Any) -> Settings:
    """The settings in force. `overrides` that are not None win over the environment.

    Raises:
        BadInput: a variable that should be a number is none; it is named.
    """
    variables = os.environ
    limits = Limits(
        max_body_bytes=_number("BETTONG_MAX_BODY_BYTES", Limits().max_body_bytes),
        max_upload_bytes=_number("BETTONG_MAX_UPLOAD_BYTES", Limits().max_upload_bytes),
    )
    settings = Settings(
        home=Path(variables.get("BETTONG_HOME") or "~/.bettong").expanduser().absolute(),
        host=variables.get("BETTONG_HOST", "127.0.0.1"),
        port=_number("BETTONG_PORT", 0),
        database_url=variables.get("BETTONG_DATABASE_URL", ""),
        artifacts_url=variables.get("BETTONG_ARTIFACTS_URL", ""),
        keys=_listed("BETTONG_KEYS", ","),
        allowed_hosts=_listed("BETTONG_ALLOWED_HOSTS", ","),
        pythons=_listed("BETTONG_PYTHONS", os.pathsep),
        log=LogRules(
            bytes_per_topic=_number("BETTONG_LOG_BYTES_PER_TOPIC", LogRules().bytes_per_topic),
            days=_number("BETTONG_LOG_DAYS", LogRules().days),
            max_row_bytes=_number("BETTONG_MAX_LOGGED_ROW_BYTES", LogRules().max_row_bytes),
            sql_timeout_s=_number("BETTONG_SQL_TIMEOUT_S", LogRules().sql_timeout_s),
            sql_memory_bytes=_number("BETTONG_SQL_MEMORY_BYTES", LogRules().sql_memory_bytes),
            on_full=_one_of("BETTONG_ON_LOG_FULL", ("stop", "continue")),
        ),
        drivers=DriverRules(
            egress_allow=_listed("BETTONG_EGRESS_ALLOW", ","),
            egress_deny=_listed("BETTONG_EGRESS_DENY", ","),
            file_folders=None if variables.get("BETTONG_FILE_FOLDERS") is None else _folders("BETTONG_FILE_FOLDERS"),
            secret_env=_listed("BETTONG_SECRET_ENV", ","),
            secret_folders=_folders("BETTONG_SECRET_FOLDERS"),
            vault_addr=variables.get("BETTONG_VAULT_ADDR", ""),
            vault_token_file=variables.get("BETTONG_VAULT_TOKEN_FILE", ""),
            aws_secrets=_listed("BETTONG_AWS_SECRETS", ","),
            environment=_environment("BETTONG_ENVIRONMENT"),
        ),
        limits=limits,
        job_days=_number("BETTONG_JOB_DAYS", JOB_DAYS),
        job_bytes=_number("BETTONG_JOB_BYTES", JOB_BYTES),
    )
    return replace(settings, **{name: value for name, value in overrides.items() if value is not None})


def child_environment(settings: Settings) -> dict[str, str]:
    """The environment for a server in the background: ours, but it works in another folder, so the home has its whole
    path, and bytecode is written, so that the next start is fast."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return {**kept, "BETTONG_HOME": str(settings.home)}


def prepare_home(settings: Settings) -> None:
    """Make the home if there is none; it is its owner's alone afterwards.

    Raises:
        BadInput: it cannot be made, or is somebody else's.
    """
    try:
        settings.home.mkdir(parents=True, exist_ok=True, mode=0o700)
        settings.home.chmod(0o700)
    except OSError as refused:
        raise BadInput(
            f"The home folder {settings.home} cannot be used ({refused.strerror}).",
            "Set BETTONG_HOME to a folder of yours, or to a new one.",
        ) from refused


def _number(name: str, default: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal():
        raise BadInput(f"{name} is '{text}'.", "Set it to a whole number, or leave it out.")
    return int(text)


def _one_of(name: str, known: tuple[str, ...]) -> str:
    """One of the known words, the first when none is set."""
    text = os.environ.get(name, "") or known[0]
    if text not in known:
        raise BadInput(f"{name} is '{text}'.", f"Set it to {' or '.join(known)}, or leave it out.")
    return text


def _environment(name: str) -> str:
    """A word that may stand anywhere in a reference without reaching beyond its place there."""
    text = os.environ.get(name, "")
    if text and not re.fullmatch("[A-Za-z0-9_-]{1,64}", text):
        raise BadInput(f"{name} is '{text}'.", "Set it to at most 64 letters, digits, - and _, or leave it out.")
    return text


def _folders(name: str) -> tuple[str, ...]:
    """Whole paths of folders. Raises BadInput for one that is not: nobody could say what it is below."""
    folders = tuple(os.path.expanduser(path) for path in _listed(name, os.pathsep))
    if relative := next((path for path in folders if not path.startswith("/")), None):
        raise BadInput(f"{name} has '{relative}', which is no whole path.", "Write folders from / or from ~.")
    return folders


def _listed(name: str, separator: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in os.environ.get(name, "").split(separator) if part.strip())


# --- the platform ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Platform:
    """Everything of a running server but its sockets."""

    app: FastAPI
    services: Services
    queue: PackagingQueue
    job_queue: JobQueue
    loops: tuple[Loop, ...]
    close: Callable[[], None]
    on_stop: Callable[[Callable[[], None]], None]

    def start_jobs(self) -> None:
        """Begin the work beside the requests. Deployments that should run and do not are started by the first watch."""
        self.queue.start()
        self.job_queue.start()
        for loop in self.loops:
            loop.start()


def raise_descriptor_limit() -> None:
    """Let this process, and the hosts and replicas after it, open as many files and connections as the system lets us.

    The usual soft limit, 1024 or even 256, is for programs that use select(); nothing of ours does.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MAX_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MAX_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit of its own that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def start_nursery() -> Nursery:
    """Fork the nursery. Call it before a thread, a file or a socket is opened in this process."""
    from bettong.engine.forking import SINGLE_THREADED

    os.environ.update(SINGLE_THREADED)
    from bettong.engine.nursery import Nursery
    from bettong.logstore.factory import open_log

    return Nursery.start(open_log, command=[sys.executable, "-P", "-c", _BE_NURSERY])


def keep_pandas_out() -> None:
    """Make the process a server's alone: reading a log would import pandas, which nothing of it needs."""
    from bettong.engine import forking

    forking.keep_pandas_out()


def be_nursery(line: int) -> None:
    """Be a nursery in place of one that died; `line` is the descriptor that leads to the server."""
    from bettong.engine.nursery import serve
    from bettong.logstore.factory import open_log

    serve(line, open_log)


def build(settings: Settings, nursery: Nursery, *, url: str, instance: str, started_at: str) -> Platform:
    """Open what the settings name and put the rooms together.

    Raises:
        BadInput: a setting does not hold, such as PostgreSQL without BETTONG_KEYS.
        Unavailable: the database or the artifact store does not answer.
    """
    from bettong.api.app import create_app
    from bettong.artifacts.store import open_artifacts
    from bettong.engine.trial import WorkerTrial
    from bettong.engine.workers.process import describe_sandbox
    from bettong.jobs.attempt import Attempt, Means
    from bettong.jobs.kinds import Programs
    from bettong.jobs.loop import Loop
    from bettong.jobs.packaging import PackagingQueue
    from bettong.jobs.queue import PLACES, JobQueue
    from bettong.jobs.retention import forget_old, keep_within
    from bettong.jobs.space import shares
    from bettong.logstore.compaction import maintain
    from bettong.logstore.courtesy import Courtesy
    from bettong.logstore.reader import SegmentLogReader
    from bettong.logstore.sql import LogSql, SqlLimits
    from bettong.packaging.artifact import UnpackLimits
    from bettong.packaging.index import from_pip
    from bettong.packaging.packager import LocalPackager
    from bettong.packaging.wheels import package_folder
    from bettong.runtimes.local import LocalRuntime
    from bettong.secrets.keyring import add_key_to_file, check_canary, key_id_of
    from bettong.secrets.signing import open_signer
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
    from bettong.services.models import ModelService
    from bettong.services.pipelines import PipelineService
    from bettong.services.platform import PlatformFacts, Services
    from bettong.services.private_deployments import PrivateDeployments
    from bettong.services.text_logs import bound
    from bettong.services.usage import ModelUsage
    from bettong.services.workspaces import WorkspaceService
    from bettong.storage.stores import open_stores

    home = settings.home
    arch = ARCHITECTURES.get(machine.machine(), machine.machine())
    stores = open_stores(settings.database)
    ring, key_problems = _open_keys(settings, stores)
    signer = open_signer(home / "keys")
    artifacts = open_artifacts(settings.artifacts_url or str(home / "artifacts"))
    packager = LocalPackager(
        home / "models",
        home / "environments",
        home / "cache",
        artifacts,
        pythons=settings.pythons,
        index=from_pip(os.environ, home=Path.home(), prefix=Path(sys.prefix)),
        environment=os.environ,
        home=Path.home(),
        limits=UnpackLimits(max_bytes=settings.limits.max_unpacked_bytes),
    )
    runtime = LocalRuntime(home / "deployments", settings.run_folder, nursery.launch)
    usage = ModelUsage(stores.deployments, stores.pipelines)
    workspaces = WorkspaceService(stores.workspaces, stores.users, stores.models, stores.pipelines)
    place = Place(home / "logs", home / "deployments", signer.public_key, arch, settings)
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
    identity = IdentityService(stores.users, stores.workspaces, signer, stores.audit, _now)
    connections = ConnectionService(stores.connections, workspaces, ring, stores.audit, stores.jobs, _now)
    drivers = _drivers(settings)
    logs = LogService(SegmentLogReader(home / "logs"), stores.pipelines, stores.workspaces)
    connection_use = ConnectionUse(connections, stores.connections, drivers, stores.audit, _now)
    jobs = JobService(
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
        _now,
        wake=lambda: job_queue.wake(),
    )
    private = PrivateDeployments(
        specs, stores.deployments, stores.pipelines, runtime, signer, home / "deployments", _now
    )
    services = Services(
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
            _now,
            add_key=None if settings.keys else lambda: add_key_to_file(home / "keys", ring),
            follow=lambda: check_canary(ring, stores.facts),
            key_id_of=key_id_of,
        ),
        models=ModelService(
            stores.models,
            workspaces,
            usage,
            artifacts,
            packager,
            WorkerTrial(home / "scratch"),
            arch=arch,
            max_upload_bytes=settings.limits.max_upload_bytes,
            wake=lambda: queue.wake(),
            native_wait_s=NATIVE_WAIT_S,
        ),
        pipelines=PipelineService(stores.pipelines, stores.models, stores.deployments, workspaces, deployments),
        deployments=deployments,
        logs=logs,
        log_queries=LogQueryService(
            logs,
            LogSql(
                home / "logs",
                package_folder("bettong-mac") / "_launch.py",
                SqlLimits(settings.log.sql_timeout_s, settings.log.sql_memory_bytes),
            ),
        ),
        metrics=MetricsService(stores.deployments, stores.pipelines, runtime, stores.models.unfinished),
        jobs=jobs,
    )
    queue = PackagingQueue(services.models.unfinished, services.models.package)
    job_shares = shares(settings.job_bytes, PLACES)
    means = Means(stores.jobs, jobs, private, drivers, Programs(), home / "jobs", home / "logs", job_shares)
    job_queue = JobQueue(stores.jobs, private, lambda job: Attempt(job, means), _server_name(home), jobs.standing)
    courtesy = Courtesy()
    loops = (
        Loop("watch", _recover_then_watch(deployments), every_s=WATCH_EVERY_S),
        Loop(
            "log-maintenance",
            lambda: maintain(
                home / "logs", time.time(), settings.log.bytes_per_topic, settings.log.days, rest=courtesy.rest
            ),
            every_s=MAINTAIN_EVERY_S,
        ),
        Loop(
            "job-retention",
            lambda: forget_old(stores.jobs, home / "jobs", _now(), settings.job_days),
            every_s=FORGET_JOBS_EVERY_S,
        ),
        Loop(
            "job-space",
            lambda: keep_within(stores.jobs, home / "jobs", _now(), settings.job_bytes),
            every_s=BOUND_JOBS_EVERY_S,
        ),
        Loop("text-logs", lambda: bound(home), every_s=BOUND_TEXT_LOGS_EVERY_S),
    )
    identity.ensure_owner(f"{getpass.getuser()}@localhost", getpass.getuser(), _owner_token(home))
    stopping: list[Callable[[], None]] = []

    def stop(keep_deployments: bool) -> None:
        _stop_loops(loops)
        job_queue.stop()
        if not keep_deployments:
            _stop_all(runtime, home / "deployments")
        for callback in stopping:
            callback()

    def close() -> None:
        queue.stop()
        job_queue.stop()
        _stop_loops(loops)
        drivers.close()
        stores.close()

    facts = PlatformFacts(
        version=__version__,
        instance=instance,
        url=url,
        home=str(home),
        started_at=started_at,
        arch=arch,
        stop=stop,
        sandbox=describe_sandbox(),
        warnings=lambda: [*key_problems, *services.connections.unreadable_reasons(), *deployments.log_problems()],
        log=settings.log,
    )
    return Platform(create_app(services, settings, facts), services, queue, job_queue, loops, close, stopping.append)


def _drivers(settings: Settings) -> DriverProcesses:
    """Driver calls under the operator's rules. Raises BadInput for a rule that is none."""
    from bettong.domain.drivers import Egress
    from bettong.drivers.aws_login import credentials_file
    from bettong.drivers.aws_secrets import SecretsManager
    from bettong.drivers.egress import networks
    from bettong.drivers.processes import DriverProcesses
    from bettong.drivers.references import ReferencePolicy
    from bettong.drivers.registry import Registry
    from bettong.drivers.vault import Vault

    rules = settings.drivers
    folders = rules.file_folders
    if folders is None:
        folders = (str(Path.home()),) if settings.host in LOOPBACK else ()
    own = [str(settings.home), str(settings.run_folder)]
    if rules.vault_token_file:
        own.append(rules.vault_token_file)
    if rules.aws_secrets:
        own.append(credentials_file(os.environ))
    egress = Egress(networks(rules.egress_allow), networks(rules.egress_deny), folders, tuple(own))
    policy = ReferencePolicy(
        env=rules.secret_env,
        folders=rules.secret_folders,
        forbidden=tuple(own),
        environment=rules.environment,
    )
    managers: dict[str, Manager] = {
        "vault": Vault(rules.vault_addr, rules.vault_token_file),
        "aws": SecretsManager(rules.aws_secrets, dict(os.environ)),
    }
    return DriverProcesses(Registry(), egress, policy, dict(os.environ), managers)


def http_config(platform: Platform, settings: Settings) -> uvicorn.Config:
    """How the control plane speaks HTTP: the same guarded protocol as the replicas, no word of uvicorn's in the log."""
    import uvicorn

    from bettong.engine.protocol import guarded

    return uvicorn.Config(
        platform.app,
        loop="uvloop",
        http=guarded(settings.limits),
        ws="none",
        timeout_keep_alive=int(settings.limits.keep_alive_timeout_s),
        timeout_graceful_shutdown=5,
        access_log=False,
        log_config=None,
        server_header=False,
        lifespan="on",
    )


def stop_hosts(settings: Settings) -> int:
    """Stop the deployments that a dead server has left; how many there were."""
    return _stop_all(_runtime_that_starts_nothing(settings), settings.home / "deployments")


def hosts_left(settings: Settings) -> int:
    """How many deployments answer without a server."""
    return len(_running(_runtime_that_starts_nothing(settings), settings.home / "deployments"))


def closing_all() -> contextlib.ExitStack:
    """Closes what is put on it in reverse order, however the block ends."""
    return contextlib.ExitStack()


def _open_keys(settings: Settings, stores: Any) -> tuple[KeyRing, list[str]]:
    """The key ring and what is wrong with it, in words; the platform starts all the same."""
    from bettong.secrets.keyring import check_canary, open_ring
    from bettong.services.engine_configs import has_sealed

    variables = any(has_sealed(row.engine_config) for row in stores.deployments.all(None))
    sealed = variables or stores.connections.any_sealed()
    on_postgres = not settings.database.startswith("sqlite")
    ring = open_ring(settings.home / "keys", settings.keys, sealed_rows_exist=sealed, keys_required=on_postgres)
    canary = check_canary(ring, stores.facts, sealed_rows_exist=sealed)
    problems = [*ring.problems, *([canary] if canary else [])]
    for problem in problems:
        log.warning("keys problem=%s", problem)
    return ring, problems


def _recover_then_watch(deployments: Any) -> Callable[[], None]:
    """The first round finds what a killed server left or lost; later ones bring back hosts that died."""
    rounds = iter([deployments.recover])
    return lambda: next(rounds, deployments.watch)()


def _stop_loops(loops: tuple[Loop, ...]) -> None:
    for loop in loops:
        loop.stop()


def _server_name(home: Path) -> str:
    """Of this server and those that follow it in its home, also where several share a database."""
    return f"{machine.node()}:{home}"


def _owner_token(home: Path) -> str:
    """The token of the person who owns this platform, made at the first start."""
    from bettong.secrets.files import make_once, read_private
    from bettong.services.identity import TOKEN_PREFIX

    file = home / "token"
    make_once(file, f"{TOKEN_PREFIX}{secrets.token_urlsafe(32)}\n".encode())
    return read_private(file).decode().strip()


def _stop_all(runtime: Runtime, folder: Path) -> int:
    """Stop whatever runs of the deployments that have a folder, all at once; they stay wanted. How many ran."""
    running = _running(runtime, folder)
    with ThreadPoolExecutor(max(1, len(running))) as pool:
        list(pool.map(lambda label: runtime.undeploy(_id_in(label), label), running))
    return len(running)


def _running(runtime: Runtime, folder: Path) -> list[str]:
    """The labels of the deployments of which something runs."""
    labels = sorted(p.name for p in folder.iterdir() if p.is_dir()) if folder.is_dir() else []
    return [label for label in labels if runtime.observe(_id_in(label), label) is not None]


def _runtime_that_starts_nothing(settings: Settings) -> Runtime:
    from bettong.runtimes.local import LocalRuntime

    def no_launch(*_: Path) -> None:
        raise AssertionError("this runtime only looks and stops")

    return LocalRuntime(settings.home / "deployments", settings.run_folder, no_launch)


def _id_in(label: str) -> int:
    number = label.rpartition("-")[2]
    return int(number) if number.isdecimal() else 0


def _now() -> datetime:
    return datetime.now(UTC)
