"""A stream job over a real broker: in this process, or as a program that is killed."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from contract.streams.kit import opened
from stream_doubles import Broker as NoBroker
from stream_doubles import StreamWork

from bettong.jobs.infer_stream import infer_stream

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from bettong.domain.drivers import Capability


@dataclass
class BrokerWork(StreamWork):
    """`progress` is said on the way when `loud`. It is cancelled when `enough` messages were answered, counted by
    where they come from; `answered` are those of earlier attempts."""

    kind: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)
    loud: bool = False
    enough: int = 0
    answered: set[str] = field(default_factory=set)

    @property
    def cancelled(self) -> bool:
        return bool(self.enough) and len(self.answered) >= self.enough

    @contextmanager
    def source(self, role: str, needed: Capability) -> Iterator[Any]:
        if role == "sink" and self.database is not None:
            with super().source(role, needed) as database:
                yield database
            return
        with opened(self.kind, self.details) as source:
            if role == "sink":
                produce = source.produce

                def noted(topic: str, messages: Any) -> None:
                    produce(topic, messages)
                    self.answered |= {message.headers["bettong-source"] for message in messages}

                source.produce = noted
            yield source

    def report(self, progress: Mapping[str, Any], position: str | None = None) -> None:
        super().report(progress, position)
        if self.loud:
            print(json.dumps(progress), flush=True)


def work_of(asked: Mapping[str, Any]) -> BrokerWork:
    database = asked.get("database")
    return BrokerWork(
        NoBroker(),
        Path(asked["folder"]),
        asked["request"],
        kind=asked["kind"],
        details=asked["details"],
        database=Path(database) if database else None,
        enough=asked.get("enough", 0),
    )


@contextmanager
def program(asked: Mapping[str, Any]) -> Iterator[subprocess.Popen[str]]:
    """An attempt in a process of its own. It is killed at the end, if it is not dead by then."""
    process = subprocess.Popen(
        [sys.executable, "-m", "stream_process"],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(json.dumps(asked) + "\n")
    process.stdin.flush()
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def main() -> None:
    work = work_of(json.loads(sys.stdin.readline()))
    work.loud = True
    infer_stream(work)


if __name__ == "__main__":
    main()
