"""Models: from an upload to a version that is ready, or one that says why it is not."""

from __future__ import annotations

import errno
import logging
import threading
import time
import zipfile
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, BinaryIO

from bettong import __version__
from bettong.domain.models import (
    Framework,
    ModelConfig,
    ModelStatus,
    NewModelVersion,
    comes_as_zip,
    first_status,
    is_native,
    says_its_schemas,
)
from bettong.domain.names import check_dns_name
from bettong.domain.schema import check_model_schema, decode_schema, decode_schema_text, encode_schema
from bettong.errors import BadInput, BettongError, NotFound, UnsupportedFormat
from bettong.services.model_specs import model_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from datetime import datetime

    from bettong.domain.batching import DynamicBatching
    from bettong.domain.identity import Principal, Workspace
    from bettong.domain.models import Model, ModelVersion
    from bettong.domain.ports import ArtifactStore, ModelStore, Packager, Trial
    from bettong.domain.tensors import Graph
    from bettong.services.usage import ModelUsage
    from bettong.services.workspaces import WorkspaceService

log = logging.getLogger("bettong.packaging")

ARCHITECTURES = ("x86", "arm", "power10")
RUNTIME = "flight"  # what the reference system calls models in an environment of their own
IMAGE = f"bettong/model-worker:{__version__}"
MAX_SUMMARY = 500
NO_SPACE = "There is no space left on the platform's disk. Free some, then upload the model again."


@dataclass(frozen=True, slots=True)
class Upload:
    """What a person says about the file that they upload (spec 4.2). Schemas are base64 of serialised Arrow schemas."""

    name: str
    workspace_id: int
    framework: str
    file_name: str
    visibility: str = "private"
    python_version: str = ""
    requirements: tuple[str, ...] = ()
    arch: str | None = None
    accel: str | None = None
    input_schema: str | None = None
    output_schema: str | None = None
    framework_config: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class VersionFacts:
    """A version with what answers tell beside it. `config` is the newest."""

    version: ModelVersion
    config: ModelConfig
    workspace: Workspace
    deployed: bool


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A family of versions, newest first."""

    model: Model
    workspace: Workspace
    versions: tuple[VersionFacts, ...]


@dataclass(frozen=True, slots=True)
class Sought:
    """What a search looks for. The term is found anywhere and without case in names, SHAs, versions and file names;
    the times, both aware, bound the upload: `since` is included, `until` is not."""

    term: str | None = None
    since: datetime | None = None
    until: datetime | None = None

    def fits(self, version: ModelVersion) -> bool:
        texts = (version.name, version.sha, version.version, version.file_name)
        return (
            (not self.term or any(self.term.casefold() in text.casefold() for text in texts))
            and (self.since is None or version.created_at >= self.since)
            and (self.until is None or version.created_at < self.until)
        )


class ModelService:
    """`wake` is called when a version waits for packaging; `arch` is what this machine runs.

    `native_wait_s` is how long `settled` waits for a native model, which is mostly ready within a second.
    """

    def __init__(
        self,
        models: ModelStore,
        workspaces: WorkspaceService,
        usage: ModelUsage,
        artifacts: ArtifactStore,
        packager: Packager,
        trial: Trial,
        *,
        arch: str,
        max_upload_bytes: int,
        wake: Callable[[], None] = lambda: None,
        native_wait_s: float = 0.0,
    ) -> None:
        self._models, self._workspaces, self._usage = models, workspaces, usage
        self._artifacts, self._packager, self._trial = artifacts, packager, trial
        self._arch, self._max_upload_bytes, self._wake = arch, max_upload_bytes, wake
        self._native_wait_s, self._packaged = native_wait_s, threading.Condition()

    # --- uploads ----------------------------------------------------------------------------------------------------

    def upload(self, principal: Principal, upload: Upload, file: BinaryIO) -> ModelVersion:
        """Keep an uploaded file as a new version, which waits for packaging when this returns.

        Raises:
            BadInput: something said about the file does not hold, or it is no zip where it has to be one. A native
                model's file is looked into by packaging alone.
            UnsupportedFormat: this release does not run the framework.
            TooLarge: the file is over the limit.
            NotFound: no such workspace for this caller.
        """
        self._workspaces.visible(principal, upload.workspace_id)
        check_dns_name("Model", upload.name)
        _check_framework(upload.framework)
        read_schema = _schema if says_its_schemas(upload.framework) else _needed_schema
        input_schema = read_schema("input_schema", upload.input_schema)
        output_schema = read_schema("output_schema", upload.output_schema)
        arch, accel = _check_target(upload.arch or self._arch, upload.accel or "none")
        file_name = _base_name(upload.file_name)
        if comes_as_zip(upload.framework) and not zipfile.is_zipfile(file):
            raise BadInput(
                "Not a valid ZIP file.", "Zip the model's files (not the folder they lie in) and upload that."
            )
        file.seek(0)
        sha, size = self._artifacts.put(file, max_bytes=self._max_upload_bytes)
        version = self._models.add_version(
            NewModelVersion(
                name=upload.name,
                workspace_id=upload.workspace_id,
                visibility=upload.visibility,
                framework=upload.framework,
                python_version=upload.python_version,
                requirements=upload.requirements,
                arch=arch,
                accel=accel,
                file_name=file_name,
                file_size=size,
                sha=sha,
                input_schema=input_schema,
                output_schema=output_schema,
                framework_config=_checked_config(upload.framework, upload.framework_config),
            ),
            first_status(upload.framework),
            principal.user_id,
        )
        self._wake()
        return version

    def unfinished(self) -> list[int]:
        """Ids of the versions that wait for packaging, oldest first. For the queue, not for callers."""
        return [v.id for v in self._models.unfinished()]

    def settled(self, version: ModelVersion) -> ModelVersion:
        """Wait a while until a native version is ready or failed, so that whoever uploads it has no need to ask; the
        version as it is then. Others come back at once: their environments take minutes."""
        ends_at = time.monotonic() + (self._native_wait_s if is_native(version.framework) else 0.0)
        with self._packaged:
            while not (version := self._models.version(version.id)).status.terminal:
                left = ends_at - time.monotonic()
                if left <= 0 or not self._packaged.wait(left):
                    break
        return version

    def package(self, version_id: int) -> ModelVersion:
        """Check the artifact, make it runnable, try it; the version is `ready` or `error` afterwards.

        Whatever went wrong is in the upload log, its first useful line in `error_summary`. What is not an error of
        ours is logged with its traceback and told as "internal". Safe to run again on a version that a killed server
        left behind.
        """
        version = self._models.version(version_id)
        if version.status.terminal:
            return version

        def report(line: str) -> None:
            self._models.append_upload_log(version_id, [line])

        try:
            done = (self._load_native if is_native(version.framework) else self._build)(version, report)
        except BettongError as fault:
            report(f"ERROR: {fault}")
            summary = f"{_first_line(fault.problem)} {fault.next_step}".rstrip()
            done = self._models.set_status(version_id, ModelStatus.ERROR, error_summary=summary)
        except Exception as fault:
            if isinstance(fault, OSError) and fault.errno in (errno.ENOSPC, errno.EDQUOT):
                report(f"ERROR: {NO_SPACE}")
                summary = NO_SPACE
            else:
                log.exception("packaging_failed model_version=%d model=%s", version_id, version.name)
                report("ERROR: packaging stopped on an error inside the platform; its log has the details.")
                summary = "internal: packaging stopped on an error inside the platform. Tell its operator."
            done = self._models.set_status(version_id, ModelStatus.ERROR, error_summary=summary)
        with self._packaged:
            self._packaged.notify_all()
        return done

    def _build(self, version: ModelVersion, report: Callable[[str], None]) -> ModelVersion:
        """A model with an environment of its own: check the artifact, build, load once."""
        if first_status(version.framework) is ModelStatus.PENDING_LOAD_NATIVE:
            self._models.set_status(version.id, ModelStatus.ATTEMPTING_LOAD_NATIVE)
            self._models.set_status(version.id, ModelStatus.PENDING_LOAD_CONTAINER)
        version = self._models.set_status(version.id, ModelStatus.ATTEMPTING_LOAD_CONTAINER)
        folder = self._packager.check(version, report)
        config = self._with_schemas(version)
        environment = self._packager.build(version, folder, report)
        self._trial.try_model(model_spec(version, config, folder, environment), report)
        return self._models.set_status(version.id, ModelStatus.READY, environment=environment.name, image_path=IMAGE)

    def _with_schemas(self, version: ModelVersion) -> ModelConfig:
        """Its newest config, with the schemas that the upload left out as the file tells them."""
        config = self._models.configs([version.id])[version.id]
        if not says_its_schemas(version.framework) or (config.input_schema and config.output_schema):
            return config
        graph = self._packager.graph_of(version)
        return self._models.add_config(
            replace(
                config,
                input_schema=config.input_schema or encode_schema(graph.input_schema),
                output_schema=config.output_schema or encode_schema(graph.output_schema),
            )
        )

    def _load_native(self, version: ModelVersion, report: Callable[[str], None]) -> ModelVersion:
        """A model that the replica runs itself: its graph says what it takes, and its config keeps that."""
        version = self._models.set_status(version.id, ModelStatus.ATTEMPTING_LOAD_NATIVE)
        graph = self._packager.graph_of(version, report)
        config = self._models.configs([version.id])[version.id]
        self._models.add_config(configured(graph, config))
        return self._models.set_status(version.id, ModelStatus.READY)

    # --- reading ----------------------------------------------------------------------------------------------------

    def version(self, principal: Principal, version_id: int) -> VersionFacts:
        """One version. Raises NotFound."""
        return self._facts(principal, [self._visible(principal, version_id)])[0]

    def config(self, principal: Principal, version_id: int) -> ModelConfig:
        """Its newest config. Raises NotFound."""
        return self._models.configs([self._visible(principal, version_id).id])[version_id]

    def upload_log(self, principal: Principal, version_id: int, lines: int | None) -> list[str]:
        """The last `lines` of its upload log, oldest first; all for None. Raises NotFound."""
        return self._models.upload_log(self._visible(principal, version_id).id, lines)

    def get(self, principal: Principal, model_id: int) -> ModelFacts:
        """A family with all its versions. Raises NotFound."""
        try:
            model = self._models.model(model_id)
        except NotFound:
            raise _unknown_model(f"with id {model_id}") from None
        if not principal.may_see(model.workspace_id):
            raise _unknown_model(f"with id {model_id}")
        return self._families(principal, [model])[0]

    def all(
        self, principal: Principal, workspace_id: int | None = None, workspace_name: str | None = None
    ) -> list[ModelFacts]:
        """The families of one workspace, or of all that the caller may see; oldest first."""
        return self._families(
            principal, self._models.models(self._workspaces.scope(principal, workspace_id, workspace_name))
        )

    def named(self, principal: Principal, name: str, workspace_id: int | None = None) -> list[ModelFacts]:
        """The families of this name: at most one per workspace; [] when there is none."""
        scope = self._workspaces.scope(principal, workspace_id, None)
        return self._families(principal, [m for m in self._models.models(scope) if m.name == name])

    def search(
        self,
        principal: Principal,
        sought: Sought,
        workspace_id: int | None = None,
        workspace_name: str | None = None,
    ) -> list[ModelFacts]:
        """The families that have a fitting version, with their fitting versions only."""
        scope = self._workspaces.scope(principal, workspace_id, workspace_name)
        return [f for f in self._families(principal, self._models.models(scope), sought) if f.versions]

    # --- configs ----------------------------------------------------------------------------------------------------

    def configure(
        self,
        principal: Principal,
        version_id: int,
        *,
        tensor_fields: tuple[str, ...] | None = None,
        filter_threshold: float | None = None,
        input_schema: str | None = None,
        output_schema: str | None = None,
        batch_config: str | None = None,
        dynamic_batching: DynamicBatching | None = None,
    ) -> ModelConfig:
        """Add a config to a version; the newest counts from the next deployment on. A schema left out stays as it was.

        A native model's config is checked against its graph: at once when the version is ready, else by packaging. The
        names of its inputs stay as they were when `tensor_fields` is left out.

        Raises:
            BadInput: a schema is none or does not fit the graph, `tensor_fields` does not name every input, the batch
                config is not "single", or requests are to be gathered for rows that go one by one.
            NotFound: no such version for this caller.
        """
        version = self._visible(principal, version_id)
        before = self._models.configs([version.id])[version.id]
        if batch_config not in (None, "single"):
            raise BadInput("The batch config is neither null nor 'single'.", "Send one of the two.")
        if batch_config == "single" and dynamic_batching is not None:
            raise BadInput(
                "The batch config is 'single', and a dynamic batching config gathers rows.", "Leave one of them out."
            )
        wanted = ModelConfig(
            id=0,
            model_version_id=version.id,
            runtime=before.runtime,
            tensor_fields=tensor_fields,
            filter_threshold=filter_threshold,
            input_schema=_schema("input_schema", input_schema),
            output_schema=_schema("output_schema", output_schema),
            batch_config=batch_config,
            dynamic_batching=dynamic_batching,
        )
        if is_native(version.framework) and version.status is ModelStatus.READY:
            return self._models.add_config(configured(self._packager.graph_of(version), wanted, before))
        kept = replace(
            wanted,
            input_schema=wanted.input_schema or before.input_schema,
            output_schema=wanted.output_schema or before.output_schema,
        )
        if dynamic_batching is not None and not is_native(version.framework):  # a native one's graph has them
            for which in ("input_schema", "output_schema"):
                if getattr(kept, which) is None:
                    raise BadInput(
                        f"A dynamic batching config needs an {which}, and model version '{version.uid}' has none.",
                        f"Pass {which} to configure(), too.",
                    )
        return self._models.add_config(kept)

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _visible(self, principal: Principal, version_id: int) -> ModelVersion:
        try:
            version = self._models.version(version_id)
        except NotFound:
            version = None
        if version is None or not principal.may_see(version.workspace_id):
            raise NotFound(f"There is no model version with id {version_id} that you may see.", "List the models.")
        return version

    def _families(
        self, principal: Principal, models: Iterable[Model], sought: Sought | None = None
    ) -> list[ModelFacts]:
        families = list(models)
        versions = [v for v in self._models.versions([m.id for m in families]) if sought is None or sought.fits(v)]
        by_model: dict[int, list[VersionFacts]] = {}
        for facts in self._facts(principal, versions):
            by_model.setdefault(facts.version.model_id, []).append(facts)
        workspaces = self._workspaces_of(principal, {m.workspace_id for m in families})
        return [ModelFacts(m, workspaces[m.workspace_id], tuple(by_model.get(m.id, ()))) for m in families]

    def _facts(self, principal: Principal, versions: list[ModelVersion]) -> list[VersionFacts]:
        configs = self._models.configs([v.id for v in versions])
        workspaces = self._workspaces_of(principal, {v.workspace_id for v in versions})
        deployed = self._usage.deployed()
        return [VersionFacts(v, configs[v.id], workspaces[v.workspace_id], v.version in deployed) for v in versions]

    def _workspaces_of(self, principal: Principal, ids: set[int]) -> dict[int, Workspace]:
        return {i: self._workspaces.visible(principal, i) for i in ids}


def configured(graph: Graph, wanted: ModelConfig, before: ModelConfig | None = None) -> ModelConfig:
    """`wanted` with schemas whose fields are the graph's inputs and outputs, in its order.

    What `wanted` leaves out stays as it was in `before`, or as the graph has it.

    Raises:
        BadInput: it does not fit the graph.
    """
    if graph.batch not in (None, 1) and wanted.batch_config == "single":
        raise BadInput(
            f"The batch config is 'single', and the model takes {graph.batch} rows at a time.", "Leave it out."
        )
    inputs, outputs = graph.input_schema, graph.output_schema
    if before is not None:
        inputs = decode_schema(before.input_schema) if before.input_schema else inputs
        outputs = decode_schema(before.output_schema) if before.output_schema else outputs
    inputs = graph.taking(inputs, wanted.tensor_fields)
    if wanted.input_schema:
        inputs = graph.checked_inputs(decode_schema(wanted.input_schema), inputs.names)
    if wanted.output_schema:
        outputs = graph.checked_outputs(decode_schema(wanted.output_schema))
    names = wanted.tensor_fields or (before.tensor_fields if before is not None else None)
    return replace(
        wanted, tensor_fields=names, input_schema=encode_schema(inputs), output_schema=encode_schema(outputs)
    )


def _check_framework(framework: str) -> None:
    known = [f.value for f in Framework]
    if framework not in known:
        raise UnsupportedFormat(
            "This release does not run models of that framework.", f"Frameworks it runs: {', '.join(known)}."
        )


def _checked_config(framework: str, config: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a framework that takes some (spec 4.7)."""
    if not config:
        return {}
    if framework != Framework.CUSTOM:
        raise BadInput(
            "The upload has a framework_config, which models of this framework do not take.", "Leave it out."
        )
    if not isinstance(config.get("model_path", ""), str):
        raise BadInput("The framework_config's model_path is not text.", "Send a path, such as './model/'.")
    return dict(config)


def _check_target(arch: str, accel: str) -> tuple[str, str]:
    if arch not in ARCHITECTURES:
        raise BadInput("The model asks for an unknown architecture.", f"Known are: {', '.join(ARCHITECTURES)}.")
    if accel != "none":
        raise BadInput("The model asks for an accelerator.", "This release runs models on CPUs; leave 'accel' out.")
    return arch, accel


def _needed_schema(which: str, text: str | None) -> bytes:
    if (schema := _schema(which, text)) is None:
        raise BadInput(f"parameter '{which}' required for this framework", "Send base64 of pyarrow.Schema.serialize().")
    return schema


def _schema(which: str, text: str | None) -> bytes | None:
    if not text:
        return None
    return encode_schema(check_model_schema(which, decode_schema_text(text)))


def _base_name(file_name: str) -> str:
    name = file_name.replace("\\", "/").rpartition("/")[2]
    if not name.strip() or len(name) > 255 or any(ord(c) < 32 for c in name):
        raise BadInput("The uploaded file has no usable name.", "Send the part 'file' with a plain file name.")
    return name


def _first_line(text: str) -> str:
    line = next((stripped for raw in text.splitlines() if (stripped := raw.strip())), "The model did not load.")
    return line if len(line) <= MAX_SUMMARY else line[: MAX_SUMMARY - 1] + "…"


def _unknown_model(which: str) -> NotFound:
    return NotFound(f"There is no model {which} that you may see.", "List the models.")
