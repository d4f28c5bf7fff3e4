"""Environments as they really are built: by uv, from the index that pip is configured for on this machine."""

from __future__ import annotations

import datetime as dt
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from builders import python_model_zip

from bettong.domain.models import ModelStatus, ModelVersion
from bettong.errors import BadInput, Unavailable
from bettong.packaging.index import IndexOptions, from_pip
from bettong.packaging.interpreters import discover
from bettong.packaging.packager import LocalPackager
from bettong.packaging.wheels import carried_wheel

STEP = """
from mac.types import InferenceData
def process_data(input_data: InferenceData) -> InferenceData:
    return input_data
"""
FORECAST = """
import json, numpy as np
from mac.types import InferenceData
from statsmodels.tsa.arima.model import ARIMA
row = [1526,1550,1708,1005,1623,1712,1530,1605,1538,1746,1472,1589,1913,1815,2115,2475,2927,1635,1812,1107,1450,1917,
       1807,1461,1969,2402,1446,1851]
days = np.rint(ARIMA(np.array(row), order=(1, 0, 1)).fit().forecast(7)).astype(int)
print(json.dumps([days.tolist(), float(np.float32(days.mean()))]))
"""


class Folder:
    """Artifacts in a folder: what packaging needs of an artifact store."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def keep(self, archive: Path) -> str:
        sha = hashlib.sha256(archive.read_bytes()).hexdigest()
        shutil.move(archive, self.folder / sha)
        return sha

    def fetch(self, sha: str, to: Path) -> Path:
        shutil.copyfile(self.folder / sha, to)
        return to

    def exists(self, sha: str) -> bool:
        return (self.folder / sha).exists()

    def put(self, source: object, *, max_bytes: int) -> tuple[str, int]:
        raise NotImplementedError


@dataclass
class Platform:
    """A packager on folders of its own. uv's cache is shared by the tests, so that each package is fetched once."""

    home: Path
    cache: Path
    index: IndexOptions
    log: list[str] = field(default_factory=list)

    def packager(self) -> LocalPackager:
        (self.home / "artifacts").mkdir(exist_ok=True)
        store = Folder(self.home / "artifacts")
        folders = self.home / "models", self.home / "environments", self.cache
        return LocalPackager(*folders, store, index=self.index, environment=os.environ)

    def upload(
        self, requirements: str, *, name: str = "model", more: tuple[str, ...] = (), **files: str
    ) -> ModelVersion:
        (self.home / "artifacts").mkdir(exist_ok=True)
        archive = python_model_zip(self.home / f"upload-{os.getpid()}.zip", f"# {name}\n{STEP}", requirements, **files)
        sha = Folder(self.home / "artifacts").keep(archive)
        now = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
        return ModelVersion(
            *(1, 1, name, 1, "version", "private", ModelStatus.UPLOADING, None, "python", "3.8", more, "x86", "none"),
            *("upload.zip", 1, sha, None, None, "u-ann", now, now),
        )

    def build(self, version: ModelVersion) -> Path:
        packager = self.packager()
        return packager.build(version, packager.check(version, self.log.append), self.log.append)


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def platform(tmp_path: Path, shared_cache: Path) -> Platform:
    return Platform(tmp_path, shared_cache, from_pip(os.environ, home=Path.home(), prefix=Path(sys.prefix)))


def run(environment: Path, code: str) -> str:
    command = [str(environment / "bin/python"), "-I", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=100).stdout


def locked(environment: Path) -> dict[str, str]:
    lines = (environment / "lock.txt").read_text().splitlines()
    return dict(line.split("==") for line in lines)


def test_an_artifact_of_2024_with_open_dependencies_loads_and_forecasts_today(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")

    environment = platform.build(platform.upload("statsmodels==0.14.1"))

    assert json.loads(run(environment, FORECAST)) == [[1764, 1749, 1743, 1741, 1740, 1740, 1740], 1745.2857666015625]
    assert locked(environment)["pandas"].startswith("2.")
    assert "baseline 2024 (statsmodels==0.14.1 is of that time)" in platform.log[-1]
    site = next((environment / "lib").glob("python*/site-packages"))
    for module in ("mac/__pycache__/types", "statsmodels/tsa/arima/__pycache__/model", "numpy/__pycache__/version"):
        assert list(site.glob(f"{module}.*.pyc")), module
    writable = [p for p in environment.rglob("*") if not p.is_symlink() and p.stat().st_mode & 0o222]
    assert writable == []


def test_the_same_requirements_share_an_environment_and_the_second_upload_is_ready_at_once(platform: Platform) -> None:
    first = platform.build(platform.upload("patsy==1.0.1\nnumpy", name="one"))
    started = time.monotonic()

    second = platform.build(platform.upload("numpy   # order and comments say nothing\npatsy==1.0.1\n", name="two"))

    assert second == first
    assert time.monotonic() - started < 1
    assert platform.log[-1].startswith("Environment found: ")
    assert platform.build(platform.upload("patsy==1.0.0\nnumpy")) != first


def test_foreign_distributions_under_our_names_never_come(platform: Platform) -> None:
    environment = platform.build(platform.upload("mac\nwallaroo==2024.4\npatsy\n", more=("mac==9.9",)))

    installed = locked(environment)
    assert not installed.keys() & {"mac", "wallaroo"}
    assert installed.keys() >= {"bettong-mac", "bettong-sdk", "patsy"}
    assert "Requirement 'wallaroo==2024.4' is answered by the platform's own wheel." in platform.log
    assert run(environment, "import mac.types; print(mac.types.InferenceData)").startswith("typing.Dict")


def wheel(folder: Path, name: str, files: dict[str, str], requires: str = "") -> None:
    """A wheel in a find-links folder, as anyone could publish it."""
    folder.mkdir(exist_ok=True)
    info = f"{name}-1.0.dist-info"
    content = files | {
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n{requires}",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: t\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{n},,\n" for n in [*content, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{name}-1.0-py3-none-any.whl", "w") as archive:
        for path, text in (content | {f"{info}/RECORD": record}).items():
            archive.writestr(path, text)


def with_links(platform: Platform, links: Path) -> Platform:
    return replace(platform, index=replace(platform.index, find_links=(*platform.index.find_links, str(links))))


def test_a_dependency_cannot_bring_a_foreign_mac_in(platform: Platform, tmp_path: Path) -> None:
    wheel(tmp_path / "links", "mac", {"mac/__init__.py": "foreign = True"})
    wheel(tmp_path / "links", "bettong_test_helper", {"helper.py": ""}, requires="Requires-Dist: mac\n")
    platform = with_links(platform, tmp_path / "links")

    environment = platform.build(platform.upload("bettong-test-helper"))

    assert locked(environment).keys() == {"bettong-mac", "bettong_test_helper", "numpy"}
    assert run(environment, "import mac; print(hasattr(mac, 'foreign'))").strip() == "False"


def test_a_distribution_cannot_put_its_files_over_ours(platform: Platform, tmp_path: Path) -> None:
    """uv unpacks wheels side by side: whichever comes last, what is handed out holds our files."""
    wheel(tmp_path / "links", "bettong_test_overlay", {"mac/types.py": "stolen = True"})
    platform = with_links(platform, tmp_path / "links")

    try:
        environment = platform.build(platform.upload("bettong-test-overlay"))
    except BadInput as refused:
        assert "its own 'mac/types.py'" in str(refused)  # noqa: PT017  (either end keeps the promise)
    else:
        assert run(environment, "import mac.types; print(hasattr(mac.types, 'stolen'))").strip() == "False"


def test_building_runs_no_code_of_a_wheel(platform: Platform, tmp_path: Path) -> None:
    """A .pth line runs when the environment's interpreter starts; uv's --compile-bytecode would start it."""
    line = f"import os; open({str(tmp_path / 'ran')!r}, 'w').close()\n"
    wheel(tmp_path / "links", "bettong_test_eager", {"eager.pth": line, "eager.py": ""})
    platform = with_links(platform, tmp_path / "links")

    environment = platform.build(platform.upload("bettong_test_eager"))

    assert not (tmp_path / "ran").exists()
    assert list(environment.glob("lib/*/site-packages/__pycache__/eager.*.pyc"))
    run(environment, "pass")
    assert (tmp_path / "ran").exists()  # so the trap was set


def sdist(folder: Path, name: str, setup: str) -> None:
    """A source distribution whose build runs `setup`; its backend is itself, so that nothing else is needed."""
    folder.mkdir(exist_ok=True)
    backend = f"""
import os, zipfile
def build_wheel(folder, settings=None, metadata=None):
    seen = []
{setup}
    info = "{name}-1.0.dist-info"
    with zipfile.ZipFile(os.path.join(folder, "{name}-1.0-py3-none-any.whl"), "w") as z:
        z.writestr("{name}.py", "seen = %r" % seen)
        z.writestr(info + "/METADATA", "Metadata-Version: 2.1\\nName: {name}\\nVersion: 1.0\\n")
        z.writestr(info + "/WHEEL", "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n")
        z.writestr(info + "/RECORD", "")
    return "{name}-1.0-py3-none-any.whl"
"""
    with zipfile.ZipFile(folder / f"{name}-1.0.zip", "w") as archive:
        archive.writestr(f"{name}-1.0/PKG-INFO", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{name}-1.0/backend.py", backend)
        archive.writestr(
            f"{name}-1.0/pyproject.toml",
            '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n',
        )


def test_what_has_no_wheel_is_built_in_the_sandbox(platform: Platform, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("bt_secret")
    (tmp_path / "token").chmod(0o600)
    setup = f"""
    for path, mode in [({str(tmp_path / "token")!r}, "r"), ({str(tmp_path / "written")!r}, "w"),
                       ({str(platform.cache / "written")!r}, "w")]:
        try:
            open(path, mode).close()
            seen.append("opened " + path)
        except OSError as refused:
            seen.append(type(refused).__name__)
"""
    sdist(tmp_path / "links", "bettong_test_homemade", setup)
    platform = with_links(platform, tmp_path / "links")

    environment = platform.build(platform.upload("bettong_test_homemade"))

    seen = json.loads(run(environment, "import json, bettong_test_homemade as made; print(json.dumps(made.seen))"))
    holds = next(line for line in platform.log if "sandbox: " in line)
    if "Landlock ABI" not in holds:
        pytest.skip(f"this kernel has no Landlock: {holds}")
    assert seen == ["PermissionError"] * 3
    assert not (tmp_path / "written").exists()


def test_a_source_build_that_fails_is_said_and_leaves_nothing(platform: Platform, tmp_path: Path) -> None:
    sdist(tmp_path / "links", "bettong_test_broken_one", "    raise RuntimeError('no compiler here')")
    platform = with_links(platform, tmp_path / "links")

    with pytest.raises(BadInput, match="building it from source failed"):
        platform.build(platform.upload("bettong_test_broken_one"))
    assert any("no compiler here" in line for line in platform.log)
    assert [p.name for p in (platform.home / "environments").iterdir()] == [".locks"]


@pytest.mark.parametrize(
    ("requirements", "said"),
    [
        ("numpy==1.26.4\nnumpy<1.25\n", r"cannot be installed together .*numpy==1.26.4 and numpy<1.25"),
        ("no-such-distribution-of-bettong", r"index has no distribution 'no-such-distribution-of-bettong'"),
        ("patsy==99.9", r"there is no version of patsy==99.9"),
    ],
)
def test_requirements_that_cannot_be_met_are_told_apart(platform: Platform, requirements: str, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        platform.build(platform.upload(requirements))
    assert any("No solution found" in line for line in platform.log)
    assert [p.name for p in (platform.home / "environments").iterdir()] == [".locks"]


def test_an_index_that_cannot_be_reached_is_worth_another_try_and_its_credentials_stay_secret(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_HTTP_RETRIES", "0")
    text = "--index-url http://ann:s3cret@127.0.0.1:9/simple\npatsy==0.5.0\n"
    with pytest.raises(Unavailable, match="could not be reached") as refused:
        platform.build(platform.upload(text))
    assert "s3cret" not in str(refused.value) + "".join(platform.log)


def test_requirements_of_an_older_python_get_one_that_is_installed(platform: Platform) -> None:
    found = discover(folders=[Path(p) for p in os.environ["PATH"].split(":")], pyenv_root=Path.home() / ".pyenv")
    if not found.keys() & {(3, 8), (3, 9)}:
        pytest.skip("neither Python 3.8 nor 3.9 is installed here")

    environment = platform.build(platform.upload("numpy==1.21.0"))

    assert (
        run(environment, "import sys, mac.types, numpy; print(sys.version_info[1] < 10, numpy.__version__)")
        == "True 1.21.0\n"
    )


@pytest.mark.parametrize("minor", [8, 13])
def test_an_artifact_may_ask_for_its_python(platform: Platform, minor: int) -> None:
    found = discover(folders=[Path(p) for p in os.environ["PATH"].split(":")], pyenv_root=Path.home() / ".pyenv")
    if (3, minor) not in found:
        pytest.skip(f"Python 3.{minor} is not installed here")
    version = platform.upload("")
    with zipfile.ZipFile(platform.home / "artifacts" / version.sha, "a") as archive:
        archive.writestr(".python-version", f"3.{minor}\n")

    environment = platform.build(version)

    assert run(environment, "import sys, mac.types; print(sys.version_info[:2])").strip() == f"(3, {minor})"


def test_a_write_in_an_environment_reaches_neither_the_cache_nor_another_environment(platform: Platform) -> None:
    """Also by someone who may write, root included: nothing is linked. As a worker's user it is refused besides."""
    first = platform.build(platform.upload("patsy==1.0.1"))
    second = platform.build(platform.upload("patsy==1.0.1\nnumpy<99"))
    victim = next(first.glob("lib/*/site-packages/patsy/version.py"))
    other = second / victim.relative_to(first)
    cached = [p for p in (platform.cache / "uv").rglob("patsy/version.py")]
    before = [p.read_bytes() for p in [other, *cached]]
    assert cached
    if os.getuid() == 0:
        code = f"import os; os.setuid(61999); open({str(victim)!r}, 'a')"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 1

    victim.parent.chmod(0o755)
    victim.chmod(0o644)
    victim.write_text("raise SystemExit('poisoned')")

    assert [p.read_bytes() for p in [other, *cached]] == before
    assert victim.stat().st_nlink == 1


BUILDER = """
import json, os, sys
from pathlib import Path
sys.path[:0] = json.loads(sys.argv[3])
from test_environments import Platform
from bettong.packaging.index import from_pip
index = from_pip(os.environ, home=Path.home(), prefix=Path(sys.prefix))
platform = Platform(Path(sys.argv[1]), Path(sys.argv[2]), index)
packager = platform.packager()
version = platform.upload("patsy==1.0.1\\npandas==2.2.0\\n")
report = lambda line: print(line, flush=True)
print("BUILT", packager.build(version, packager.check(version, report), report), flush=True)
"""


def builder(platform: Platform) -> subprocess.Popen[str]:
    paths = json.dumps([str(Path(__file__).parent), str(Path(__file__).parent.parent)])
    command = [sys.executable, "-c", BUILDER, str(platform.home), str(platform.cache), paths]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_builders_of_one_environment_wait_for_each_other(platform: Platform) -> None:
    with builder(platform) as first, builder(platform) as second:
        said = [first.communicate(timeout=100)[0], second.communicate(timeout=100)[0]]

    built = {line for text in said for line in text.splitlines() if line.startswith("BUILT")}
    assert len(built) == 1
    assert sum("Environment ready" in text for text in said) == 1
    assert sum("Environment found" in text for text in said) == 1


def test_what_a_killed_builder_left_is_built_again(platform: Platform) -> None:
    with builder(platform) as killed:
        assert killed.stdout is not None
        while "Installing on Python" not in killed.stdout.readline():
            assert killed.poll() is None
        os.kill(killed.pid, signal.SIGKILL)
    left = [p for p in (platform.home / "environments").iterdir() if p.name != ".locks"]
    assert left
    assert not [p for p in left if (p / "built.json").exists()]

    environment = platform.build(platform.upload("patsy==1.0.1\npandas==2.2.0\n"))

    assert run(environment, "import pandas; print(pandas.__version__)") == "2.2.0\n"
    assert sorted(p.name for p in (platform.home / "environments").iterdir()) == [".locks", environment.name]


def test_what_was_removed_is_unpacked_and_built_again(platform: Platform) -> None:
    version = platform.upload("")
    packager = platform.packager()
    folder = packager.check(version, platform.log.append)
    environment = packager.build(version, folder, platform.log.append)
    ready = replace(version, environment=environment.name)
    assert (packager.folder_of(ready), packager.environment_of(ready)) == (folder, environment)

    folder.rename(platform.home / "lost")
    environment.rename(platform.home / "lost too")

    assert packager.folder_of(ready).joinpath("step.py").is_file()
    assert run(packager.environment_of(ready), "import mac.types; print('there')") == "there\n"


def test_a_refused_artifact_leaves_nothing_behind(platform: Platform) -> None:
    version = platform.upload("")
    (platform.home / "artifacts" / version.sha).write_bytes(b"rubbish")

    with pytest.raises(BadInput, match=r"^Not a valid ZIP file.$"):
        platform.packager().check(version, platform.log.append)
    assert [p.name for p in (platform.home / "models").iterdir()] == [".locks"]


def test_the_carried_wheel_is_the_one_that_is_installed(platform: Platform) -> None:
    environment = platform.build(platform.upload(""))

    with zipfile.ZipFile(carried_wheel("bettong-mac", platform.cache / "wheels").path) as archive:
        for name in archive.namelist():
            if name.startswith("mac/"):
                installed = next(environment.glob("lib/*/site-packages")) / name
                assert installed.read_bytes() == archive.read(name)
