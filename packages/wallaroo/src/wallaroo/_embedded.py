"""The platform of this machine: found by the record that it leaves, or started. Nothing of `bettong` is imported."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from wallaroo._transport import Transport, is_address
from wallaroo.object import CommunicationError, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Mapping

PROBE_TIMEOUT_S = 2.0
START_TIMEOUT_S = 120.0


@dataclass(frozen=True)
class Embedded:
    """A platform that answered just now."""

    url: str
    version: str
    home: Path
    started_now: bool

    @property
    def in_words(self) -> str:
        how = "started now, home" if self.started_now else "home"
        return f"bettong {self.version} is running at {self.url} ({how} {_shown(self.home)})."

    def url_now(self) -> str | None:
        """Where it runs now, by its record: a restarted server may have another port. None when it does not run."""
        found = find(self.home)
        return found.url if found else None

    def owns(self, url: str) -> bool:
        """Whether the record still names this address, and its server lives: what listens there may be taken for it.

        What is left: another process of the same user that got both the pid and the port of a dead server. And only the
        API token waits for this answer; an access token, of a minute's life, goes to whatever listens there.
        """
        record = _read(self.home)
        return record is not None and record.url == url and record.lives()

    def token(self) -> str:
        """The owner's API token. Raises ValueError when its file can't be read."""
        path = self.home / "token"
        try:
            return path.read_text(encoding="utf-8").strip()
        except OSError as error:
            raise ValueError(
                f"The platform at {self.url} runs, but its token file '{_shown(path)}' cannot be read: "
                f"{error.strerror}. Only the person who started it can; pass api_endpoint and a token of your own."
            ) from None


@dataclass(frozen=True)
class _Record:
    """What a server wrote about itself when it started; it stays when the server ends."""

    url: str
    pid: int
    instance: str
    version: str

    def lives(self) -> bool:
        try:
            os.kill(self.pid, 0)  # sends nothing; refused when there is no such process, or it is someone else's
        except (OSError, OverflowError):
            return False
        return True


def home_folder(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("BETTONG_HOME") or Path.home() / ".bettong").expanduser().absolute()


def find_or_start(environ: Mapping[str, str] | None = None) -> Embedded:
    """The platform of `$BETTONG_HOME`; afterwards it answers.

    Raises:
        ValueError: none runs, and none can be started.
    """
    environ = os.environ if environ is None else environ
    home = home_folder(environ)
    if found := find(home):
        return found
    _start(home, environ)
    if found := find(home, started_now=True):
        return found
    raise ValueError(
        f"`bettong up` said that the platform of '{_shown(home)}' runs, but it does not answer. "
        "See `bettong logs`, or name another platform with api_endpoint or WALLAROO_URL."
    )


def find(home: Path, *, started_now: bool = False) -> Embedded | None:
    """The platform that the record in `home` names, if it lives, and is that one which answers there."""
    record = _read(home)
    if record is None or not record.lives():
        return None
    transport = Transport(record.url, PROBE_TIMEOUT_S)
    try:
        health = transport.get("/v1/api/health", authorized=False)
    except (CommunicationError, WallarooAPIError):
        return None
    finally:
        transport.close()
    if not isinstance(health, dict) or health.get("instance") != record.instance:
        return None  # another program has the port now
    return Embedded(record.url, record.version, home, started_now)


def _read(home: Path) -> _Record | None:
    """The record in `home`; None when there is none, or a torn one: `bettong up` settles it."""
    try:
        said = json.loads((home / "server.json").read_text(encoding="utf-8"))
        record = _Record(str(said["url"]), int(said["pid"]), str(said["instance"]), str(said["version"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return record if record.pid > 0 and is_address(record.url) else None  # pid 0 would mean this process's own group


def _start(home: Path, environ: Mapping[str, str]) -> None:
    if find_spec("bettong") is None:
        raise ValueError(
            'No platform is named and none can be started here. Pass api_endpoint="http://HOST:PORT" to Client(), '
            "or set WALLAROO_URL, or run `pip install bettong` to have one on this machine."
        )
    with TemporaryFile() as complaints:  # no pipe: a server started behind it would keep a pipe open
        try:
            done = subprocess.run(
                [sys.executable, "-m", "bettong", "up"],
                env={**environ, "BETTONG_HOME": str(home)},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=complaints,
                timeout=START_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise ValueError(f"`bettong up` did not finish within {START_TIMEOUT_S:g} s. See `bettong logs`.") from None
        complaints.seek(0)
        lines = complaints.read().decode("utf-8", "replace").strip().splitlines()
    if done.returncode:
        reason = lines[-1] if lines else f"exit status {done.returncode}"
        raise ValueError(f"The platform of '{_shown(home)}' could not be started: {reason} See `bettong logs`.")


def _shown(path: Path) -> str:
    try:
        return f"~/{path.relative_to(Path.home())}"
    except ValueError:
        return str(path)
