"""Libraries in throwaway environments, which make models and are called directly, and the platform that runs them."""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import uv
from worker_builders import model_spec, runner_of

from bettong.artifacts.store import open_artifacts
from bettong.domain.models import ModelStatus, ModelVersion
from bettong.packaging.index import from_pip
from bettong.packaging.interpreters import Interpreters, discover
from bettong.packaging.packager import LocalPackager

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.domain.ports import ArtifactStore

SAMPLES = Path(__file__).parents[1] / "examples" / "models"


@dataclass(frozen=True)
class Library:
    """An interpreter with libraries that neither the platform nor these tests have."""

    python: Path
    home: Path | None = None  # what it writes lands here, in its own folder when there is none

    def make(self, script: str, folder: Path) -> Path:
        """Run one of the sample scripts; the folder that it filled."""
        self.run([str(SAMPLES / script), str(folder)], SAMPLES)
        return folder

    def says(self, code: str, *arguments: object) -> Any:
        """What `code` prints, as JSON; `arguments` are its sys.argv."""
        return json.loads(self.run(["-c", code, *map(str, arguments)], SAMPLES).splitlines()[-1])

    def run(self, words: list[str], folder: Path) -> str:
        """What the interpreter prints, given these words in this folder."""
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home or self.python.parents[1]),
            "PYTHONWARNINGS": "ignore",
        }
        command = [str(self.python), *words]
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout


def library(folder: Path, python: tuple[int, int], *packages: str) -> Library:
    """Make one with uv, from the index that pip is configured for here. The interpreter's absence is a failure."""
    root = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")
    found = discover(folders=[Path(p) for p in os.environ["PATH"].split(":")], pyenv_root=root)
    interpreter = Interpreters(found).get(python)
    assert interpreter, (
        f"Python {python} is not installed; these tests need it (pyenv install {python[0]}.{python[1]})."
    )
    make = [uv.find_uv_bin(), "venv", "-q", "--python", str(interpreter.path), str(folder)]
    subprocess.run(make, check=True, timeout=60)
    index = from_pip(os.environ, home=Path.home(), prefix=Path(sys.prefix))
    words = [
        "pip",
        "install",
        "-q",
        "--python",
        str(folder / "bin" / "python"),
        "--index-strategy",
        "unsafe-best-match",
    ]
    subprocess.run([uv.find_uv_bin(), *words, *index.arguments, *packages], check=True, timeout=300)
    return Library(folder / "bin" / "python")


@dataclass
class Packaged:
    version: ModelVersion
    folder: Path
    environment: Path
    log: list[str]

    @property
    def installed(self) -> dict[str, str]:
        return dict(line.split("==") for line in (self.environment / "lock.txt").read_text().splitlines())


@dataclass
class Bench:
    """Packages artifacts into the folders of a platform's home, as that platform does, and runs them as its replicas
    do: what one built, the other finds."""

    home: Path
    store: ArtifactStore = field(init=False)
    packager: LocalPackager = field(init=False)

    def __post_init__(self) -> None:
        self.store = open_artifacts(str(self.home / "artifacts"))
        index = from_pip(os.environ, home=Path.home(), prefix=Path(sys.prefix))
        folders = self.home / "models", self.home / "environments", self.home / "cache"
        self.packager = LocalPackager(*folders, self.store, index=index, environment=os.environ)

    def package(self, framework: str, file: Path, config: Mapping[str, Any] | None = None) -> Packaged:
        """Raises as packaging does."""
        with file.open("rb") as opened:
            sha, size = self.store.put(opened, max_bytes=2**30)
        assert sha == hashlib.sha256(file.read_bytes()).hexdigest()
        now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        version = ModelVersion(
            *(1, 1, file.stem, 1, "version", "private", ModelStatus.UPLOADING, None, framework, "3.8", (), "x86"),
            *("none", file.name, size, sha, None, None, "u-ann", now, now),
            framework_config=config or {},
        )
        log: list[str] = []
        folder = self.packager.check(version, log.append)
        return Packaged(version, folder, self.packager.build(version, folder, log.append), log)

    def answers(
        self,
        framework: str,
        file: Path,
        rows: Mapping[str, pa.Array[Any]],
        outputs: Mapping[str, pa.DataType],
        config: Mapping[str, Any] | None = None,
    ) -> dict[str, list[Any]]:
        """What the model in `file` answers to these columns. Raises as packaging, loading and predicting do."""
        packaged = self.package(framework, file, config)
        table = pa.table(dict(rows))
        inputs = {field.name: field.type for field in table.schema}
        spec = model_spec(packaged.folder, packaged.environment, inputs, outputs)
        spec = replace(spec, framework=framework, framework_config=dict(config or {}))

        async def story(folder: Path) -> pa.Table:
            runner = runner_of(spec, folder)
            await runner.start()
            try:
                return await runner.predict(table)
            finally:
                await runner.close()

        with tempfile.TemporaryDirectory() as folder:
            answer: dict[str, list[Any]] = asyncio.run(story(Path(folder))).to_pydict()
        return answer
