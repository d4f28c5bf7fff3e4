"""What a stream has done so far and what it has in hand, on disk: so that a new attempt knows after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from bettong.jobs.space import space

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable
    from pathlib import Path

    from bettong.domain.drivers import Message

_FILES = ("stream-0.json", "stream-1.json")
_MOST_REMEMBERED = 4_000  # of those that were answered: what was committed and could not be crossed out is among them
_RATE_OVER_S = 10.0


@dataclass(frozen=True, slots=True)
class Totals:
    """Messages, over all attempts. Each that came is answered, dead-lettered, kept as a reject, or was answered before.

    `rows` are predictions, of which a message may have many; `repeated` are answers that were sent again because nobody
    could know whether they had arrived: of so many, predictions may be there twice.
    """

    messages_in: int = 0
    predictions_out: int = 0
    dead_lettered: int = 0
    rejected: int = 0
    answered_before: int = 0
    repeated: int = 0
    rows: int = 0

    def plus(self, **more: int) -> Totals:
        return replace(self, **{name: getattr(self, name) + count for name, count in more.items()})


def digest(message: Message) -> str:
    """Tells messages apart, those too that have one's place in a topic that was made anew."""
    known = hashlib.blake2b(message.position.encode(), digest_size=8)
    known.update(b"\0" + message.value)
    return known.hexdigest()


class Journal:
    """Written whole before answers leave and when they have arrived; a killed process leaves what it wrote last.

    A message of which an answer was begun, and whose answer is not known to have arrived, may have been answered.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._slots = _Slots(folder)
        kept = self._slots.last()
        self.totals = Totals(**kept.get("totals", {}))
        self._begun: set[str] = set(kept.get("begun", ()))
        self._arrived: dict[str, None] = dict.fromkeys(kept.get("arrived", ()))
        self.worked: bool = kept.get("worked", False)  # whether its ends have ever been there
        self.last_reason: str = kept.get("last_reason", "")  # why the last message had no answer that had none

    def close(self) -> None:
        self._slots.close()

    @property
    def unsure(self) -> int:
        """How many messages may have been answered."""
        return len(self._begun)

    def has(self, message: Message) -> bool:
        """Whether its answer arrived."""
        return digest(message) in self._arrived

    def works(self) -> None:
        """Its ends are there."""
        if not self.worked:
            self.worked = True
            self._write()

    def begin(self, messages: Collection[Message]) -> set[str]:
        """Answers to these are about to leave: the positions of those that may have been answered before."""
        known = {digest(message): message.position for message in messages}
        repeated = (self._begun & known.keys()) | {digest(message) for message in messages if message.unsure}
        self._begun |= known.keys()
        self.totals = self.totals.plus(repeated=len(repeated))
        self._write()
        return {known[each] for each in repeated}

    def arrived(self, messages: Iterable[Message]) -> None:
        """The answers to these are there."""
        for each in map(digest, messages):
            self._begun.discard(each)
            self._arrived[each] = None

    def keep(self, totals: Totals) -> None:
        """The round is done but for its commit."""
        self.totals = totals
        self._write()

    def committed(self, messages: Iterable[Message]) -> None:
        """These do not come again. It is written with what comes next."""
        for each in map(digest, messages):
            self._begun.discard(each)
            self._arrived.pop(each, None)

    def _write(self) -> None:
        arrived = list(self._arrived)[-_MOST_REMEMBERED:]
        self._slots.write(
            {
                "totals": asdict(self.totals),
                "begun": list(self._begun),
                "arrived": arrived,
                "worked": self.worked,
                "last_reason": self.last_reason,
            }
        )


class _Slots:
    """The last of some documents. They are written by turns into two files that stay open: one is whole at any time.
    A file that is replaced is handed to the disk each time by some file systems, which takes 5 ms."""

    def __init__(self, folder: Path) -> None:
        self._files = [os.open(folder / name, os.O_RDWR | os.O_CREAT, 0o600) for name in _FILES]
        self._turn = max((found["turn"] for found in self._whole()), default=0)

    def last(self) -> dict[str, Any]:
        """Nothing where none was written."""
        return max(self._whole(), key=lambda found: int(found["turn"]), default={})

    def write(self, document: dict[str, Any]) -> None:
        self._turn += 1
        data = json.dumps({"turn": self._turn, **document}).encode() + b"\n"
        file = self._files[self._turn % 2]
        with space():
            os.pwrite(file, data, 0)
            os.ftruncate(file, len(data))

    def close(self) -> None:
        for file in self._files:
            os.close(file)

    def _whole(self) -> list[dict[str, Any]]:
        found = []
        for file in self._files:
            line, end, _ = os.pread(file, os.fstat(file).st_size, 0).partition(b"\n")
            try:
                found += [json.loads(line)] * bool(end)
            except ValueError:
                continue  # a kill came while it was written
        return found


class Rate:
    """Messages a second, over the last ten."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def at(self, now_s: float, total: int) -> float:
        """The rate, of a count that is `total` now."""
        self._seen.append((now_s, total))
        while len(self._seen) > 2 and self._seen[1][0] <= now_s - _RATE_OVER_S:
            self._seen.popleft()
        began_s, before = self._seen[0]
        return round((total - before) / (now_s - began_s), 1) if now_s > began_s else 0.0
