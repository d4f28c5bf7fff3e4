"""From an upload to something loadable: `bettong.domain.ports.Packager` on this machine's disk."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import uv

from bettong.domain.models import Framework, is_native
from bettong.domain.tensors import GRAPH_FILE, MODEL_FILE
from bettong.errors import BadInput
from bettong.packaging import saved_model
from bettong.packaging.artifact import UnpackLimits, unpack
from bettong.packaging.environment import EnvironmentBuilder
from bettong.packaging.frameworks import content_folder, family_of, head_of, way_of
from bettong.packaging.graph import findings, look_into, read_description
from bettong.packaging.index import IndexOptions
from bettong.packaging.interpreters import Interpreters, discover, wish_of
from bettong.packaging.requirements import read_requirements
from bettong.packaging.saved_model import read_saved_model
from bettong.packaging.trees import exclusive, make_read_only, remove_tree
from bettong.packaging.uv import Uv

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from bettong.domain.models import ModelVersion
    from bettong.domain.ports import ArtifactStore
    from bettong.domain.tensors import Graph

UNPACK_WAIT_S = 1800.0


class LocalPackager:
    """Unpacks below `models`, builds below `environments`, keeps uv's cache and our wheels below `cache`.

    Args:
        pythons: interpreters an operator named, tried before the discovered ones.
        index: where packages come from; `index.from_pip` reads it from pip's configuration.
        environment: variables of the server: PATH and PYENV_ROOT find interpreters; proxies, certificates and UV_INDEX*
            are handed on to uv, nothing else is.
        home: the person's home folder, for pyenv's default place.
    """

    def __init__(
        self,
        models: Path,
        environments: Path,
        cache: Path,
        artifacts: ArtifactStore,
        *,
        pythons: Sequence[str] = (),
        index: IndexOptions | None = None,
        environment: Mapping[str, str] | None = None,
        home: Path | None = None,
        limits: UnpackLimits | None = None,
        build_timeout_s: float = 1800.0,
    ) -> None:
        self._models = models.resolve()
        self._artifacts = artifacts
        self._limits = limits or UnpackLimits()
        variables = environment or {}
        index = index or IndexOptions()
        for folder in (models, environments):
            folder.mkdir(parents=True, exist_ok=True, mode=0o755)
        cache.mkdir(parents=True, exist_ok=True, mode=0o700)
        found = discover(
            first=pythons,
            folders=[Path(p) for p in variables.get("PATH", "").split(":") if p],
            pyenv_root=Path(variables.get("PYENV_ROOT") or (home or Path.home()) / ".pyenv"),
        )
        self._environments = EnvironmentBuilder(
            environments.resolve(),
            cache.resolve(),
            Uv(Path(uv.find_uv_bin()), variables, index.certificates),
            Interpreters(found),
            index,
            timeout_s=build_timeout_s,
        )

    def check(self, version: ModelVersion, report: Callable[[str], None]) -> Path:
        """Fetch, check and unpack the artifact; the folder. Nothing of it is run.

        Raises:
            BadInput: it is not what a model of its framework has to be; it says what is wrong.
            UnsupportedFormat: the framework is not one of those that run in an environment.
        """
        way = way_of(version.framework)
        folder = self.folder_of(version)
        report(f"Artifact unpacked: {sum(1 for p in folder.rglob('*') if p.is_file())} files.")
        try:
            for line in way.look(folder, version.framework_config).found:
                report(_as_uploaded(line, folder, version.file_name))
        except BadInput as fault:
            raise type(fault)(_as_uploaded(fault.problem, folder, version.file_name), fault.next_step) from fault
        return folder

    def build(self, version: ModelVersion, folder: Path, report: Callable[[str], None]) -> Path:
        """Build or find the environment for the artifact's requirements, and for what its files show that it needs.

        Raises:
            BadInput: the requirements cannot be taken or not installed.
            Unavailable: the package index cannot be reached.
        """
        needs = way_of(version.framework).look(folder, version.framework_config)
        content = content_folder(folder)
        requirements = read_requirements(content, version.requirements, needs.requirements, needs.instead)
        for asked, taken in requirements.swapped:
            report(f"Requirement '{asked}' is answered by '{taken}': the same library in a smaller build.")
        recipe = self._environments.recipe(requirements, wish_of(content) or needs.python)
        return self._environments.build(recipe, report)

    def graph_of(self, version: ModelVersion, report: Callable[[str], None] = lambda _: None) -> Graph:
        """What a model takes and gives, of a framework whose files tell it. A native one is looked into once, in a
        sandboxed process, and what was found is kept beside the file.

        Raises:
            BadInput: it is not a model that can be run here and fed with rows; it says what is wrong.
        """
        if version.framework == Framework.TENSORFLOW:
            return read_saved_model(content_folder(self.folder_of(version)) / saved_model.FILE).graph()
        told: list[str] = []

        def tell(line: str) -> None:
            told.append(line)
            report(line)

        description = (self._native(version.sha, tell) / GRAPH_FILE).read_bytes()
        if not told:
            for line in ("The same file was looked into before.", *findings(json.loads(description))):
                report(line)
        return read_description(description)

    def folder_of(self, version: ModelVersion) -> Path:
        """Where the unpacked artifact of a ready version lies; unpacks it again when it is gone."""
        if is_native(version.framework):
            return self._native(version.sha, lambda _: None)
        family = family_of(version.framework)
        name = version.sha if family == "python" else f"{family}-{version.sha}"
        return self._unpacked(version.sha, self._models / name, partial(self._lay_out, version.framework))

    def environment_of(self, version: ModelVersion) -> Path:
        """The built environment of a ready version. Builds it again when it is gone, or when the platform was updated
        and its worker with it."""
        if version.environment and (found := self._environments.find(version.environment)) is not None:
            return found
        return self.build(version, self.folder_of(version), lambda _: None)

    def _native(self, sha: str, report: Callable[[str], None]) -> Path:
        def look(archive: Path, folder: Path) -> None:
            folder.mkdir(mode=0o755)
            model = archive.rename(folder / MODEL_FILE)
            model.chmod(0o444)
            (folder / GRAPH_FILE).write_bytes(look_into(model, self._models, report))
            make_read_only(folder)

        return self._unpacked(sha, self._models / f"onnx-{sha}", look)

    def _lay_out(self, framework: str, archive: Path, folder: Path) -> None:
        """A single file goes into a folder of its own, a zip is unpacked."""
        if name := way_of(framework).single(archive, head_of(archive)):
            folder.mkdir(mode=0o755)
            archive.rename(folder / name).chmod(0o444)
            make_read_only(folder)
        else:
            unpack(archive, folder, self._limits)

    def _unpacked(self, sha: str, folder: Path, fill: Callable[[Path, Path], object]) -> Path:
        """`folder`, once it is there as a whole: `fill(archive, staged folder)` makes its content."""
        if folder.is_dir():
            return folder
        staged, archive = self._models / f".unpack-{folder.name}", self._models / f".archive-{folder.name}"
        with exclusive(self._models / ".locks" / folder.name, wait_s=UNPACK_WAIT_S):
            if folder.is_dir():  # another process was faster
                return folder
            remove_tree(staged)  # of a killed one
            try:
                self._artifacts.fetch(sha, archive)
                fill(archive, staged)
                staged.rename(folder)
            finally:
                archive.unlink(missing_ok=True)
                remove_tree(staged)
        return folder


def _as_uploaded(text: str, folder: Path, file_name: str) -> str:
    """`text` about a single file under the name that its owner gave it; it is kept under one of ours."""
    kept = [path.name for path in folder.iterdir()]
    if len(kept) != 1 or not (folder / kept[0]).is_file() or file_name.lower().endswith(".zip"):
        return text
    return text.replace(kept[0], file_name)
