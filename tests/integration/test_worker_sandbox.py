"""Model code that really tries. What it may do is in `mac._launch`; everything else must fail."""

from __future__ import annotations

import asyncio
import ctypes
import os
import platform
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pytest
from worker_builders import MAC_SOURCE, artifact, environment_of_this_python, model_spec, runner_of, table

if TYPE_CHECKING:
    from collections.abc import Iterator

HAS_LANDLOCK = (
    sys.platform.startswith("linux")
    and ctypes.CDLL(None).syscall(444, None, ctypes.c_size_t(0), ctypes.c_uint32(1)) > 0
)
pytestmark = pytest.mark.skipif(not HAS_LANDLOCK, reason="this kernel has no Landlock")
as_root = pytest.mark.skipif(os.getuid() != 0, reason="only root can give a worker another user")

ATTEMPTS = {"attempt": pa.string()}
OUTCOME = {"outcome": pa.string()}
MODEL = '''
    import ctypes, os, shutil, signal, socket, struct, subprocess, sys, tempfile
    import numpy as np
    from mac.types import InferenceData

    def by_handle(path):
        """Opens a file by its handle, around every path check."""
        libc = ctypes.CDLL(None, use_errno=True)
        handle = ctypes.create_string_buffer(struct.pack("Ii", 120, 0) + bytes(120))
        mount = ctypes.c_int()
        if libc.name_to_handle_at(-100, os.fsencode(path), handle, ctypes.byref(mount), 0) != 0:
            raise OSError(ctypes.get_errno(), "name_to_handle_at")
        root = os.open("/usr", os.O_RDONLY)
        fd = libc.open_by_handle_at(root, handle, os.O_RDONLY)
        if fd < 0:
            raise OSError(ctypes.get_errno(), "open_by_handle_at")
        return os.read(fd, 100)

    def ptrace(pid):
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.ptrace(16, pid, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "ptrace")

    def connect(address):
        with socket.socket(socket.AF_UNIX) as s:
            s.connect(address)

    def shell(command):
        done = subprocess.run(["/bin/sh", "-c", command], capture_output=True, text=True)
        if done.returncode:
            raise PermissionError(done.stderr)
        return done.stdout

    def attempt(code):
        try:
            return "done: " + str(eval(code))
        except BaseException as failed:
            return "refused: %s %s" % (type(failed).__name__, failed)

    def process_data(input_data: InferenceData) -> InferenceData:
        return {"outcome": np.array([attempt(code) for code in input_data["attempt"]], object)}
'''


class Platform:
    """The folders of a platform with something worth stealing in each, and a worker among them."""

    def __init__(self, folder: Path, environment: Path) -> None:
        self.home = folder / "home"
        self.environment = environment
        self.other_environment = self.home / "environments" / "other"
        self.key = self.home / "keys" / "one"
        self.token = self.home / "token"
        self.other_artifact = self.home / "models" / "other" / "step.py"
        for path in (self.key, self.token, self.other_environment / "pyvenv.cfg", self.other_artifact):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("TREASURE")
        self.home.chmod(0o700)
        self.artifact = artifact(self.home / "models" / "mine", MODEL, {"data.txt": "mine"})
        self.folder = folder

    def tries(self, *attempts: str) -> list[str]:
        """The outcomes of these expressions, evaluated by model code in one worker."""
        model = model_spec(
            self.artifact, self.environment, ATTEMPTS, OUTCOME, env={"GREETING": "hi", "BETTONG_TOKEN": "TREASURE"}
        )

        async def story() -> list[str]:
            runner = runner_of(model, self.folder)
            await runner.start()
            self.sandbox = runner.observed().sandbox
            answer = await runner.predict(table(ATTEMPTS, {"attempt": list(attempts)}))
            assert runner.observed().restarts == 0
            await runner.close()
            return [str(outcome) for outcome in answer["outcome"].to_pylist()]

        return asyncio.run(story())


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return environment_of_this_python(tmp_path_factory.mktemp("environment") / "venv")


@pytest.fixture
def around(tmp_path: Path, environment: Path) -> Platform:
    return Platform(tmp_path, environment)


def assert_refused(outcomes: list[str]) -> None:
    for outcome in outcomes:
        assert outcome.startswith("refused: "), outcome
        assert "TREASURE" not in outcome


def test_it_works_where_it_may(around: Platform) -> None:
    outcomes = around.tries(
        "open('data.txt').read()",
        "tempfile.NamedTemporaryFile('w').write('x')",
        "open(os.path.expanduser('~/cache'), 'w').write('x')",
        "os.mkdir(os.environ['TMPDIR'] + '/a') or os.rename(os.environ['TMPDIR'] + '/a', os.environ['TMPDIR'] + '/b')",
        "shell('echo hi').strip()",
        "len(os.listdir(sys.prefix)) > 0",
        "open('/proc/self/status').readline().split()[0]",
        "socket.getaddrinfo('localhost', 80)[0][0] is not None",
    )

    assert [o for o in outcomes if not o.startswith("done: ")] == []


def test_it_reads_nothing_of_the_platform(around: Platform) -> None:
    treasures = [around.key, around.token, around.other_environment / "pyvenv.cfg", around.other_artifact]
    folders = [around.home, around.key.parent, around.other_environment, around.folder, Path("/root"), Path("/")]

    assert_refused(
        around.tries(
            *(f"open({str(path)!r}).read()" for path in treasures),
            *(f"os.listdir({str(folder)!r})" for folder in folders),
            *(f"shell('cat {path}')" for path in treasures),
            *(f"by_handle({str(path)!r})" for path in treasures),
            f"os.symlink({str(around.key)!r}, os.environ['TMPDIR'] + '/k') or open(os.environ['TMPDIR'] + '/k').read()",
            f"os.link({str(around.key)!r}, os.environ['TMPDIR'] + '/l') or open(os.environ['TMPDIR'] + '/l').read()",
            f"os.rename({str(around.key)!r}, os.environ['TMPDIR'] + '/r')",
            f"open('/proc/self/root' + {str(around.key)!r}).read()",
            f"open({str(around.folder / 'worker.log')!r}).read()",
            "open('/etc/shadow').read()",
        )
    )
    assert around.key.read_text() == "TREASURE"


def test_it_writes_nothing_but_its_temporary_folder(around: Platform) -> None:
    before = (around.artifact / "step.py").read_bytes()
    numpy_file = next(around.environment.glob("lib/*/site-packages/numpy/version.py"))
    source = numpy_file.read_bytes()

    assert_refused(
        around.tries(
            f"os.open({str(numpy_file)!r}, os.O_WRONLY)",
            f"open({str(numpy_file.parent / 'new.py')!r}, 'w')",
            f"os.truncate({str(numpy_file)!r}, 0)",
            f"os.unlink({str(numpy_file)!r})",
            f"os.rename({str(numpy_file)!r}, {str(numpy_file) + '.old'!r})",
            f"shutil.rmtree({str(around.environment)!r})",
            f"open({str(around.artifact / 'step.py')!r}, 'a')",
            f"open({str(around.artifact / 'new.py')!r}, 'w')",
            f"open({str(around.token)!r}, 'w')",
            f"os.mkdir({str(around.folder / 'scratch' / 'mine')!r})",
            "open('/tmp/bettong-sandbox-test', 'w')",
            "open('/dev/shm/bettong-sandbox-test', 'w')",
            "open('/proc/self/fd/1', 'r+')",
            "os.mkfifo('/tmp/bettong-sandbox-fifo')",
        )
    )
    assert numpy_file.read_bytes() == source
    assert (around.artifact / "step.py").read_bytes() == before


def test_it_reaches_no_other_process(around: Platform) -> None:
    parent = os.getpid()

    assert_refused(
        around.tries(
            "os.kill(os.getppid(), 0)",
            f"os.kill({parent}, signal.SIGTERM)",
            "open('/proc/%d/environ' % os.getppid()).read()",
            "open('/proc/%d/mem' % os.getppid(), 'rb').read(1)",
            "os.listdir('/proc/%d/root/' % os.getppid())",
            "os.readlink('/proc/%d/fd/0' % os.getppid())",
            f"ptrace({parent})",
            f"shell('kill -9 {parent}')",
        )
    )


@pytest.fixture
def listening(tmp_path: Path) -> Iterator[Path]:
    """A control socket that anyone may connect to by its file's mode, and one without a file."""
    path = tmp_path / "control.sock"
    with socket.socket(socket.AF_UNIX) as with_file, socket.socket(socket.AF_UNIX) as abstract:
        with_file.bind(str(path))
        path.chmod(0o777)
        with_file.listen()
        abstract.bind(f"\0bettong-{os.getpid()}")
        abstract.listen()
        yield path


def test_it_connects_to_no_unix_socket(around: Platform, listening: Path) -> None:
    assert_refused(around.tries(f"connect({str(listening)!r})", f"connect(chr(0) + 'bettong-{os.getpid()}')"))


def test_it_sees_a_few_of_the_machines_variables_and_the_models_own(
    around: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BETTONG_KEYS", "TREASURE")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "TREASURE")
    monkeypatch.setenv("LD_PRELOAD", "")
    monkeypatch.setenv("TZ", "UTC")

    names, greeting, threads, everything = around.tries(
        "sorted(os.environ)", "os.environ['GREETING']", "os.environ['OMP_NUM_THREADS']", "dict(os.environ)"
    )

    assert "BETTONG" not in names
    assert "LD_PRELOAD" not in names
    assert "TREASURE" not in everything
    assert "'TZ'" in names
    assert greeting == "done: hi"
    assert threads == "done: 1"


def test_it_has_no_other_open_files_and_leaves_no_core(around: Platform) -> None:
    descriptors, core, dumpable = around.tries(
        "sorted(int(n) for n in os.listdir('/proc/self/fd') if os.path.exists('/proc/self/fd/' + n) and int(n) > 2)"
        if os.getuid() == 0
        else "[0]",
        "__import__('resource').getrlimit(4)",
        "ctypes.CDLL(None).prctl(3)",
    )

    assert len(eval(descriptors.removeprefix("done: "))) <= 1  # the worker's socket; the listing's own is gone again
    assert core == "done: (0, 0)"
    assert dumpable == "done: 0"


@as_root
def test_under_root_it_is_another_user_that_may_at_most_read_past_file_modes(around: Platform) -> None:
    ids, groups, capabilities, chown, setuid = around.tries(
        "set(os.getresuid() + os.getresgid())",
        "os.getgroups()",
        "[l.split()[1] for l in open('/proc/self/status') if l.startswith('Cap')]",
        "os.chown(os.environ['TMPDIR'], 0, 0)",
        "os.setuid(0)",
    )

    (uid,) = eval(ids.removeprefix("done: "))
    assert uid >= 61184
    assert groups == "done: []"
    read_search = f"{1 << 2:016x}"
    assert set(eval(capabilities.removeprefix("done: "))) == {read_search}
    assert_refused([chown, setuid])
    assert f"uid {uid}" in around.sandbox


def test_what_holds_it_is_told(around: Platform) -> None:
    around.tries("1")

    assert around.sandbox.startswith("Landlock ABI ")
    assert ("seccomp" in around.sandbox) == (platform.machine() in ("x86_64", "aarch64"))


def test_the_sandbox_holds_before_the_environments_own_startup_code_runs(tmp_path: Path) -> None:
    around = Platform(tmp_path, environment_of_this_python(tmp_path / "home" / "environments" / "mine"))
    packages = next(around.environment.glob("lib/*/site-packages"))
    steal = f"open({str(around.token)!r}).read()"
    caught = "except OSError as e:\\n os.environ['PTH'] = str(e)"
    (packages / "zz.pth").write_text(f"import os; exec(\"try:\\n os.environ['PTH'] = {steal}\\n{caught}\")\n")

    (outcome,) = around.tries("os.environ['PTH']")

    assert "Permission denied" in outcome


LAUNCH = f"""
import ctypes, importlib.util, os, socket, sys
spec = importlib.util.spec_from_file_location("launch", {str(MAC_SOURCE / "_launch.py")!r})
launch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(launch)
folder, temporary = sys.argv[1:3]
plan = {{"environment": folder, "artifact": folder, "temporary": temporary}}
"""


def in_sandbox(script: str, folder: Path, temporary: Path) -> list[str]:
    """What a program prints that enters the sandbox itself, by the launcher's functions."""
    arguments = [sys.executable, "-I", "-c", LAUNCH + script, str(folder), str(temporary)]
    return subprocess.run(arguments, capture_output=True, text=True, check=True, cwd="/").stdout.splitlines()


@as_root
def test_a_server_that_is_not_root_is_safe_from_workers_of_its_own_user(tmp_path: Path, listening: Path) -> None:
    secret, temporary, artifact_folder = tmp_path / "secret", tmp_path / "temporary", tmp_path / "artifact"
    secret.write_text("TREASURE")
    secret.chmod(0o600)
    temporary.mkdir()
    artifact_folder.mkdir()
    for path in (secret, temporary, artifact_folder, listening):
        os.chown(path, 4321, 4321)

    script = f"""
libc = ctypes.CDLL(None, use_errno=True)
launch._prctl(libc, launch.PR_SET_KEEPCAPS, 1)
os.setgroups([])
os.setresgid(4321, 4321, 4321)
os.setresuid(4321, 4321, 4321)
launch._set_capabilities(libc, 1 << launch.CAP_DAC_READ_SEARCH)  # pytest's folders are root's alone
print(launch.enter_sandbox(plan, sys.executable))
def connect():
    with socket.socket(socket.AF_UNIX) as s:
        s.connect({str(listening)!r})
for attempt in (
    lambda: open({str(secret)!r}).read(),
    lambda: open({str(secret)!r}, "w"),
    lambda: os.unlink({str(secret)!r}),
    lambda: open(folder + "/new.py", "w"),
    lambda: os.kill(os.getppid(), 0),
    connect,
):
    try:
        print("done", attempt())
    except PermissionError:
        print("refused")
os.chmod({str(secret)!r}, 0o777)
open(temporary + "/mine", "w").write("x")
"""
    said, *outcomes = in_sandbox(script, artifact_folder, temporary)

    assert said.endswith("; same user as the server")
    assert outcomes == ["refused"] * 6
    assert secret.stat().st_mode & 0o777 == 0o600
    assert (temporary / "mine").read_text() == "x"


@as_root
@pytest.mark.parametrize("reachable", [True, False])
def test_without_landlock_it_changes_user_only_where_that_user_can_get_to_its_files(
    tmp_path: Path, reachable: bool
) -> None:
    script = f"""
launch.landlock_abi = lambda libc: 0
launch._reachable = lambda path: {reachable}
print(launch.enter_sandbox(plan, sys.executable))
print(os.getuid(), [l.split()[1] for l in open("/proc/self/status") if l.startswith("CapPrm")][0])
"""
    said, held = in_sandbox(script, tmp_path, tmp_path)
    uid, capabilities = held.split()

    if reachable:
        assert said == f"no Landlock in this kernel, seccomp; uid {uid}"
        assert int(uid) >= 61184
        assert int(capabilities, 16) == 0
    else:
        assert "same user as the server (its folders cannot be reached by another uid)" in said
        assert uid == "0"
        assert int(capabilities, 16) == 1 << 2
