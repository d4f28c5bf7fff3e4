"""What uv says becomes what we say, without a secret in it."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from bettong.errors import BadInput, BettongError, Unavailable
from bettong.packaging.interpreters import Interpreter
from bettong.packaging.uv import Failure, Outcome, Uv, run_reported, scrub

PYTHON = Interpreter(Path("python3.11"), "3.11.7")


def outcome(text: str) -> Outcome:
    return Outcome(1, tuple(text.splitlines()))


@pytest.mark.parametrize(
    ("line", "scrubbed"),
    [
        ("Failed to fetch: `https://ann:s3cret@pkg.example/x/`", "Failed to fetch: `https://****@pkg.example/x/`"),
        ("https://token@pkg.example", "https://****@pkg.example"),
        ("GET https://pkg.example/x?X-Signature=abc&k=1 failed", "GET https://pkg.example/x?**** failed"),
        ("numpy==1.26.4", "numpy==1.26.4"),
        ("mail ann@pkg.example", "mail ann@pkg.example"),
    ],
)
def test_credentials_in_addresses_are_scrubbed(line: str, scrubbed: str) -> None:
    assert scrub(line) == scrubbed


@pytest.mark.parametrize(
    ("text", "failure", "kind", "said"),
    [
        (
            "error: No solution found when resolving dependencies\n  cause: Because nope was not found in the package "
            "registry and you require nope, we can conclude that your requirements are unsatisfiable.",
            Failure.UNKNOWN_PACKAGE,
            BadInput,
            "has no distribution 'nope'",
        ),
        (
            "error: No solution found when resolving dependencies\n  cause: Because you require a==1 and\n"
            "          a<1, we can conclude that your requirements are unsatisfiable.\n\nhint: whatever",
            Failure.NO_SOLUTION,
            BadInput,
            "Because you require a==1 and a<1, we can conclude",
        ),
        (
            "error: No solution found when resolving dependencies\n  cause: Because a==1 has no usable wheels and",
            Failure.NO_WHEEL,
            BadInput,
            "no wheel for any Python installed here (tried first: 3.11.7)",
        ),
        (
            "error: Request failed after 3 retries in 5.1s\n  cause: Failed to fetch: https://pkg.example/simple/a/\n"
            "  cause: dns error",
            Failure.NETWORK,
            Unavailable,
            "could not be reached. Failed to fetch",
        ),
        (
            "error: Failed to build `a==1`\n  cause: gcc: not found",
            Failure.BUILD,
            BadInput,
            "building it from source failed",
        ),
        (
            "error: write failed\n  cause: No space left on device (os error 28)",
            Failure.DISK,
            Unavailable,
            "disk is full",
        ),
        ("error: something new", Failure.OTHER, BadInput, "could not be installed. something new."),
    ],
)
def test_failures_are_told_apart(text: str, failure: Failure, kind: type[BettongError], said: str) -> None:
    assert outcome(text).failure is failure
    error = outcome(text).error(PYTHON)
    assert isinstance(error, kind)
    assert said in str(error)
    assert "hint" not in str(error)


def test_a_long_reason_is_cut() -> None:
    assert len(str(outcome("error: x\n  cause: " + "y" * 5000).error(PYTHON))) < 1000


def test_only_what_uv_needs_is_handed_on() -> None:
    given = {
        "PATH": "/bin",
        "https_proxy": "p",
        "UV_INDEX_URL": "u",
        "BETTONG_KEYS": "k",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    assert Uv(Path("uv"), given).variables.keys() >= {"PATH", "https_proxy", "UV_INDEX_URL"}
    assert not Uv(Path("uv"), given).variables.keys() & {"BETTONG_KEYS", "PYTHONDONTWRITEBYTECODE"}


def running(code: str, folder: Path, timeout_s: float = 60) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    done = run_reported([sys.executable, "-c", code], os.environ, cwd=folder, report=lines.append, timeout_s=timeout_s)
    return done, lines


def test_output_is_reported_line_by_line_and_scrubbed(tmp_path: Path) -> None:
    code = "import sys; print('https://a:b@c/'); print('two', file=sys.stderr, flush=True); sys.exit(3)"
    done, lines = running(code, tmp_path)
    assert (done.code, sorted(lines)) == (3, ["https://****@c/", "two"])


def test_one_that_takes_too_long_is_stopped(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Unavailable, match="too long"):
        running("import time; time.sleep(60)", tmp_path, timeout_s=0.3)
    assert time.monotonic() - started < 30


def test_something_left_behind_that_holds_the_output_is_not_waited_for(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'], "
        "start_new_session=True); print(p.pid, flush=True)"
    )
    done, lines = running(code, tmp_path)
    os.kill(int(lines[0]), 9)
    assert done.code == 0
