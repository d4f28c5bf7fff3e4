"""A private Mosquitto: on loopback and a free port, with users who may not do everything."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
from services.debian import unpacked
from services.place import run
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

USER, PASSWORD = "bettong", "s3cr€t & long/enough?"
GUEST, GUEST_PASSWORD = "guest", "guest-password"
RIGHTS = f"user {USER}\ntopic readwrite #\nuser {GUEST}\ntopic read open/#\n"


@dataclass(frozen=True)
class Mosquitto:
    port: int

    @property
    def details(self) -> dict[str, object]:
        return {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD}

    def kill(self) -> None:
        """As `kill -9`; return when it is gone."""
        process = self._process()
        process.kill()
        process.wait(10)

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """It is there and does nothing."""
        process = self._process()
        process.suspend()
        try:
            yield
        finally:
            process.resume()

    def _process(self) -> psutil.Process:
        def listens(child: psutil.Process) -> bool:
            return any(c.laddr.port == self.port and c.status == psutil.CONN_LISTEN for c in child.net_connections())

        (process,) = [child for child in psutil.Process().children() if listens(child)]
        return process


@contextmanager
def running_mosquitto(folder: Path | None = None, port: int = 0, *more: str) -> Iterator[Mosquitto]:
    """With a folder, what is there is there again when it is started anew in it. `more` goes into its configuration."""
    programs, environment = _programs()
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="bettong-mosquitto-") as empty:
        place = Path(empty)
        passwords, rights, configuration = (place / name for name in ("passwords", "rights", "mosquitto.conf"))
        passwords.write_text(f"{USER}:{PASSWORD}\n{GUEST}:{GUEST_PASSWORD}\n", encoding="utf-8")
        rights.write_text(RIGHTS)
        for file in (passwords, rights):
            file.chmod(0o600)
        run([programs["mosquitto_passwd"], "-U", str(passwords)], environment)
        kept = ["persistence true", f"persistence_location {folder}/"]
        lines = [
            *(f"listener {port} 127.0.0.1", "allow_anonymous false", "max_queued_messages 0"),
            *(f"password_file {passwords}", f"acl_file {rights}", *(kept if folder else ())),
            *(["user root"] if os.geteuid() == 0 else ()),
            *more,
        ]
        configuration.write_text("\n".join(lines) + "\n")
        with serving(
            [programs["mosquitto"], "-c", str(configuration)], port, environment={**os.environ, **environment}
        ):
            yield Mosquitto(port)


def _programs() -> tuple[dict[str, str], dict[str, str]]:
    names = {"mosquitto": "sbin", "mosquitto_passwd": "bin"}
    found = {name: shutil.which(name, path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin") for name in names}
    if all(found.values()):
        return {name: str(path) for name, path in found.items()}, {}
    root = unpacked("mosquitto", "mosquitto") / "usr"
    libraries = [str(path) for path in sorted((root / "lib").iterdir()) if path.is_dir()]
    return {name: str(root / part / name) for name, part in names.items()}, {"LD_LIBRARY_PATH": ":".join(libraries)}
