"""A private Redis: on loopback and a free port, with a password."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import redis
from services.debian import unpacked
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PASSWORD = "s3cr€t & long/enough?"


@dataclass(frozen=True)
class RedisServer:
    port: int

    @property
    def details(self) -> dict[str, object]:
        return {"host": "127.0.0.1", "port": self.port, "password": PASSWORD}

    def client(self) -> redis.Redis:
        return redis.Redis(port=self.port, password=PASSWORD)

    def make(self, stream: str) -> None:
        """An empty stream."""
        with self.client() as client:
            client.xgroup_create(stream, "first", mkstream=True)
            client.xgroup_destroy(stream, "first")


@contextmanager
def running_redis(folder: Path | None = None, port: int = 0, *more: str) -> Iterator[RedisServer]:
    """With a folder, what is there is there again when it is started anew in it."""
    program, environment = _program()
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="bettong-redis-") as empty:
        command = [
            *(program, "--bind", "127.0.0.1", "--port", str(port), "--dir", str(folder or empty), "--save", ""),
            *("--appendonly", "yes" if folder else "no", "--appendfsync", "always", "--requirepass", PASSWORD, *more),
        ]
        with serving(command, port, environment=environment):
            yield RedisServer(port)


def _program() -> tuple[str, dict[str, str]]:
    if installed := shutil.which("redis-server"):
        return installed, dict(os.environ)
    root = unpacked("redis", "redis-server") / "usr"
    libraries = [str(path) for path in sorted((root / "lib").iterdir()) if path.is_dir()]
    return str(root / "bin" / "redis-server"), {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)}
