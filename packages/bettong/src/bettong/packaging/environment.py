"""Builds the environment of a model: once per set of requirements, shared by the versions that ask for the same.

An environment is a virtual environment at `environments/<digest>`, built where it stays (its scripts hold its path). It
counts only once `built.json` is in it, which is written last; until then a lock belongs to the builder and, through an
inherited descriptor, to the uv it started, so a killed server's leftovers are removed only after they have ended.

Installing runs no code of what is installed. Wheels only; uv's own `--compile-bytecode` is not used, because it starts
the environment's interpreter, and that runs every `.pth` line a wheel brought: bytecode is compiled by the interpreter
below the environment. What has no wheel is built in the sandbox (`sources`). Files are copied out of uv's cache, never
linked: a hard link would let a write in one environment change the cache and with it every later environment. (uv's
`clone` mode links too where the file system has no clones; `copy` clones where it has.)
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sysconfig
import time
import zipfile
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING

from bettong.errors import BadInput, Unavailable
from bettong.packaging import baselines, cpu_builds
from bettong.packaging.sources import build_wheels
from bettong.packaging.trees import exclusive, make_read_only, remove_tree, size_bytes
from bettong.packaging.uv import Failure, Outcome, Uv
from bettong.packaging.wheels import CarriedWheel, carried_wheel

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from bettong.packaging.baselines import Baseline
    from bettong.packaging.index import IndexOptions
    from bettong.packaging.interpreters import Interpreter, Interpreters, Wish
    from bettong.packaging.requirements import Requirements

FORMAT = 1
MARKER, LOCK = "built.json", "lock.txt"
LIBRARY_TESTS = r"/site-packages/.*/tests/"
FOREIGN = ("mac", "wallaroo")  # distributions of the index that are never installed, whoever asks for them


@dataclass(frozen=True, slots=True)
class Recipe:
    """Everything that decides what an environment holds. The same recipe has the same digest."""

    interpreter: Interpreter
    wish: Wish | None
    requirements: Requirements
    baselines: tuple[Baseline, ...]
    wheels: tuple[CarriedWheel, ...]

    @property
    def digest(self) -> str:
        asked = self.requirements
        decides = {
            "format": FORMAT,
            "platform": sysconfig.get_platform(),
            "python": self.interpreter.version,
            "wish": str(self.wish.allowed) if self.wish else "",
            "lines": sorted(asked.lines),
            "constraints": sorted(asked.constraints),
            "options": asked.options,
            "baselines": [[b.year, b.lines] for b in self.baselines],
            "wheels": [w.digest for w in self.wheels],
        }
        return hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:32]


class EnvironmentBuilder:
    """Builds and finds environments below the folder `environments`, with uv's cache in the folder `cache`."""

    def __init__(
        self,
        environments: Path,
        cache: Path,
        uv: Uv,
        interpreters: Interpreters,
        index: IndexOptions,
        *,
        timeout_s: float = 1800.0,
    ) -> None:
        self._environments = environments
        self._cache = cache
        self._uv = uv
        self._interpreters = interpreters
        self._index = index
        self._timeout_s = timeout_s

    def recipe(self, requirements: Requirements, wish: Wish | None) -> Recipe:
        """What is to be built.

        Raises:
            BadInput: no installed interpreter is one that the artifact asks for.
            Unavailable: none of the fitting interpreters works.
        """
        minors = self._interpreters.candidates(wish)
        interpreter = next((i for m in minors if (i := self._interpreters.get(m))), None)
        if interpreter is None:
            raise Unavailable("No Python interpreter for models works on this machine.", "Name one in BETTONG_PYTHONS.")
        names = ("bettong-mac", *sorted(requirements.own - {"bettong-mac"}))
        wheels = tuple(carried_wheel(name, self._cache / "wheels") for name in names)
        builds = cpu_builds.on_this_machine(self._index.local_folders, interpreter.minor)
        chosen = [cpu_builds.preferring(builds, b, requirements.wanted) for b in baselines.choose(requirements.wanted)]
        return Recipe(interpreter, wish, requirements, tuple(chosen), wheels)

    def find(self, digest: str) -> Path | None:
        """The environment of this digest if it is complete and holds the bettong-mac that the platform runs now."""
        folder = self._environments / digest
        try:
            built = json.loads((folder / MARKER).read_bytes())
        except OSError:
            return None
        current = carried_wheel("bettong-mac", self._cache / "wheels").digest
        return folder if built["format"] == FORMAT and current in built["wheels"] else None

    def build(self, recipe: Recipe, report: Callable[[str], None]) -> Path:
        """The environment of `recipe`, built now unless it is there. Safe in several processes at once.

        Raises:
            BadInput: the requirements cannot be installed; it says why.
            Unavailable: the index cannot be reached, or another builder of the same environment does not end.
        """
        digest = recipe.digest
        if (found := self.find(digest)) is not None:
            report(f"Environment found: {_summary(found)}.")
            return found
        folder, scratch = self._environments / digest, self._environments / f".scratch-{digest}"

        def waiting() -> None:
            report("Another upload builds the same environment; waiting for it.")

        lock = self._environments / ".locks" / digest
        with exclusive(lock, wait_s=self._timeout_s, on_wait=waiting) as held:
            if (found := self.find(digest)) is not None:
                report(f"Environment found: {_summary(found)}.")
                return found
            remove_tree(folder)
            remove_tree(scratch)
            scratch.mkdir(mode=0o700)
            try:
                _Build(self, recipe, folder, scratch, report, held).run()
            except BaseException:
                remove_tree(folder)
                raise
            finally:
                remove_tree(scratch)
        report(f"Environment ready: {_summary(folder)}.")
        return folder


class _Build:
    """One build, by the holder of the lock."""

    def __init__(
        self,
        builder: EnvironmentBuilder,
        recipe: Recipe,
        folder: Path,
        scratch: Path,
        report: Callable[[str], None],
        held: int,
    ) -> None:
        self._uv, self._cache = builder._uv, builder._cache
        self._index, self._interpreters = builder._index, builder._interpreters
        self._timeout_s = builder._timeout_s
        self._recipe, self._folder, self._scratch = recipe, folder, scratch
        self._told, self._to_log, self._held = set[str](), report, held

    def run(self) -> None:
        started = time.monotonic()
        for line in self._recipe.requirements.replaced:
            self._report(f"Requirement '{line}' is answered by the platform's own wheel.")
        if line := cpu_builds.told(self._recipe.baselines[0], self._recipe.requirements.wanted):
            self._report(line)
        self._write_inputs()
        interpreter, baseline = self._install()
        self._finish(interpreter, baseline, started)

    def _report(self, line: str) -> None:
        """Attempts under other baselines and interpreters mostly fail for the same reason: it is told once."""
        if line.lstrip().startswith(("error:", "cause:", "hint:")):
            if line in self._told:
                return
            self._told.add(line)
        self._to_log(line)

    # --- what uv is given -------------------------------------------------------------------------------------------

    def _write_inputs(self) -> None:
        own = [f"{w.name} @ {w.path.as_uri()}" for w in self._recipe.wheels]
        self._write("requirements.in", [*self._recipe.requirements.lines, *own])
        self._write("constraints.in", self._recipe.requirements.constraints)
        for number, file in enumerate(self._index.constraints):  # copied: a build's sandbox cannot read the original
            self._write(f"operator{number}.in", file.read_text(encoding="utf-8").splitlines())
        # an override that is never true takes a name out of the resolution, also where a dependency brings it in
        self._write("overrides.in", [f"{name} ; python_version < '0'" for name in FOREIGN])
        for baseline in self._recipe.baselines:
            self._write(f"baseline{baseline.year}.in", baseline.lines)

    def _write(self, name: str, lines: Sequence[str]) -> None:
        (self._scratch / name).write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")

    def _asked(self, baseline: Baseline) -> list[str]:
        """The part of uv's command line that is the same for every way to install."""
        return [
            *("--requirements", str(self._scratch / "requirements.in")),
            *(word for file in self._constraints(baseline) for word in ("--constraints", str(file))),
            *("--overrides", str(self._scratch / "overrides.in")),
            *("--index-strategy", "unsafe-best-match"),
            *self._index.arguments,
            *self._recipe.requirements.options,
        ]

    def _constraints(self, baseline: Baseline) -> list[Path]:
        """The constraint files that say something; uv warns about empty ones."""
        operators = sorted(self._scratch.glob("operator*.in"))
        files = [self._scratch / "constraints.in", self._scratch / f"baseline{baseline.year}.in", *operators]
        return [f for f in files if f.stat().st_size]

    # --- ways to install, the cheapest first ------------------------------------------------------------------------

    def _install(self) -> tuple[Interpreter, Baseline]:
        """Wheels on the preferred interpreter, then on the others; then from source on the preferred one."""
        first: Outcome | None = None
        for minor in self._interpreters.candidates(self._recipe.wish):
            if (interpreter := self._interpreters.get(minor)) is None:
                continue
            self._make_venv(interpreter)
            for baseline in self._recipe.baselines:
                self._report(f"Installing on Python {interpreter.version} with {baseline}.")
                outcome = self._wheels_only(baseline)
                if outcome.ok:
                    return interpreter, baseline
                if outcome.failure not in (Failure.NO_SOLUTION, Failure.NO_WHEEL):
                    raise outcome.error(interpreter)
            first = first or outcome  # the last baseline is none at all: its words are about the upload's own lines
            if first.failure is Failure.NO_SOLUTION:
                raise first.error(self._recipe.interpreter)
        self._make_venv(self._recipe.interpreter)
        return self._recipe.interpreter, self._from_source()

    def _wheels_only(self, baseline: Baseline, *more: str) -> Outcome:
        cache = [] if "--cache-dir" in more else ["--cache-dir", str(self._cache / "uv")]
        return self._run(
            *("pip", "install", "--python", str(self._folder / "bin" / "python"), "--no-build", "--link-mode", "copy"),
            *cache,
            *more,
            *self._asked(baseline),
        )

    def _from_source(self) -> Baseline:
        baseline = self._recipe.baselines[0]
        self._report("A requirement has no wheel for an interpreter of this machine; building it from source.")
        tools = [w for file in self._constraints(baseline) for w in ("--build-constraints", str(file))]
        outcome, wheels = build_wheels(
            self._uv,
            [*self._asked(baseline), *tools],  # the build's own tools are of that time too
            scratch=self._scratch,
            venv=self._folder,
            readable=[*(str(w.path.parent) for w in self._recipe.wheels), *self._index.local_folders],
            report=self._report,
            timeout_s=self._timeout_s,
        )
        if outcome.ok:  # with a cache that is thrown away: what was built here is for this environment alone
            private = str(self._scratch / "cache")
            outcome = self._wheels_only(baseline, "--find-links", str(wheels), "--cache-dir", private)
        if not outcome.ok:
            raise outcome.error(self._recipe.interpreter)
        return baseline

    def _make_venv(self, interpreter: Interpreter) -> None:
        remove_tree(self._folder)
        outcome = self._run("venv", "--quiet", "--no-project", "--python", str(interpreter.path), str(self._folder))
        if not outcome.ok:
            raise outcome.error(interpreter)

    def _run(self, *arguments: str) -> Outcome:
        return self._uv.run(
            arguments, cwd=self._scratch, report=self._report, keep_open=self._held, timeout_s=self._timeout_s
        )

    # --- what makes an installation an environment ------------------------------------------------------------------

    def _finish(self, interpreter: Interpreter, baseline: Baseline, started: float) -> None:
        major, minor = interpreter.minor
        site = self._folder / "lib" / f"python{major}.{minor}" / "site-packages"
        for wheel in self._recipe.wheels:
            check_intact(wheel, site)
        _compile(interpreter, site)
        installed = sorted({f"{d.metadata['Name']}=={d.version}" for d in metadata.distributions(path=[str(site)])})
        (self._folder / LOCK).write_text("".join(f"{line}\n" for line in installed), encoding="utf-8")
        for line in installed:
            self._report(f"Installed {line}")
        built = {
            "format": FORMAT,
            "python": interpreter.version,
            "baseline": str(baseline),
            "packages": len(installed),
            "bytes": size_bytes(self._folder),
            "took_s": round(time.monotonic() - started, 1),
            "wheels": [w.digest for w in self._recipe.wheels],
        }
        make_read_only(self._folder)
        self._folder.chmod(0o755)
        staged = self._folder / f"{MARKER}.part"
        staged.write_text(json.dumps(built, indent=1), encoding="utf-8")
        staged.chmod(0o444)
        staged.rename(self._folder / MARKER)
        self._folder.chmod(0o555)


def check_intact(wheel: CarriedWheel, site: Path) -> None:
    """Raises BadInput when something installed into `site` put its own files in the place of our wheel's."""
    with zipfile.ZipFile(wheel.path) as carried:
        for name in carried.namelist():
            if ".dist-info/" in name:
                continue
            installed = site / name
            if not installed.is_file() or installed.read_bytes() != carried.read(name):
                raise BadInput(
                    f"A requirement brings its own '{name}', which belongs to the platform's {wheel.name}.",
                    "Leave that requirement out.",
                )


def _compile(interpreter: Interpreter, site: Path) -> None:
    """Compile every module, running none: -S keeps the environment out of the interpreter that compiles it.

    -I makes it deaf to PYTHONDONTWRITEBYTECODE. Files that do not compile (templates) stay as they are, and so do the
    libraries' own tests: a third of the files, imported by nobody.
    """
    command = [str(interpreter.path), "-I", "-S", "-m", "compileall", "-qq", "-j", "0", "-x", LIBRARY_TESTS, str(site)]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, env={"PATH": os.defpath})
    if done.returncode not in (0, 1) or not any(site.glob("mac/__pycache__/types.*.pyc")):
        raise Unavailable(
            f"Python {interpreter.version} could not compile the installed packages.",
            "Check that installation, or name another in BETTONG_PYTHONS.",
        )


def _summary(folder: Path) -> str:
    built = json.loads((folder / MARKER).read_bytes())
    return (
        f"{built['packages']} packages, {built['bytes'] / 2**20:.0f} MB, {built['took_s']} s, "
        f"{built['baseline']}, Python {built['python']}"
    )
