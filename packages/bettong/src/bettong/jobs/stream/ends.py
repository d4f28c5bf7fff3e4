"""The ends of a stream, as people know them: whatever goes wrong at one names the Connection and which side it is."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from bettong.errors import BettongError, LoginRefused, StorageFull, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

Fault = TypeVar("Fault", bound=BettongError)
SOURCE, SINK, DEAD_LETTER = "source", "sink", "dead_letter"
_SIDES = {SOURCE: "source", SINK: "sink", DEAD_LETTER: "dead letters"}


class Away(Exception):
    """Something that a stream needs is not there, or does not let it in any more.

    Attributes:
        what: its name, such as "REDIS 'broker' (source)".
        why: what it said, with its name where it is one of the ends.
        of_end: whether it is one.
    """

    def __init__(self, what: str, why: LoginRefused | Unavailable) -> None:
        super().__init__(what, why)
        self.what, self.why = what, why
        self.of_end = True

    @property
    def refused(self) -> bool:
        """Whether it is there, and knows the login no more."""
        return isinstance(self.why, LoginRefused)

    @classmethod
    def unnamed(cls, why: Unavailable) -> Away:
        """What is away when no end is."""
        away = cls("space on the platform's disk" if isinstance(why, StorageFull) else "its deployment", why)
        away.of_end = False
        return away


@dataclass(frozen=True, slots=True)
class Waited:
    """What is waited for, and since when: ISO-8601, UTC."""

    what: str
    refused: bool
    since: str

    def document(self) -> dict[str, object]:
        return {"what": self.what, "login_refused": self.refused, "since": self.since}


class Ends:
    """`titles` are the Connections by role, such as "REDIS 'broker'"."""

    def __init__(self, titles: Mapping[str, str]) -> None:
        self._titles = titles

    def named(self, role: str) -> str:
        return f"{self._titles[role]} ({_SIDES[role]})"

    def away(self, role: str, why: LoginRefused | Unavailable) -> Away:
        return Away(self.named(role), self.told(role, why))

    def told(self, role: str, fault: Fault) -> Fault:
        """The same, with its name."""
        return type(fault)(f"{self.named(role)}: {fault.problem}", fault.next_step)

    @contextmanager
    def at(self, role: str) -> Iterator[None]:
        """What goes wrong in the block is that end's. Raises Away where another try is worth it."""
        try:
            yield
        except (LoginRefused, Unavailable) as why:
            raise self.away(role, why) from None
        except BettongError as fault:
            raise self.told(role, fault) from None
