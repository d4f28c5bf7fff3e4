"""Details that were stored for an earlier form of a driver, made into those that its present form takes.

A driver declares the steps, oldest first. They are applied whenever details are used; what is stored stays as it is
until it is changed the next time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from pydantic import BaseModel


@dataclass(frozen=True, slots=True)
class Earlier:
    """One step away from an earlier form.

    Attributes:
        words: what it does, for people, such as "'server' is read as 'host'".
        change: gives details of that form as those of the next one, and all others as they are. Pure; it may meet
            secret references, masks and fields that no driver knows.
    """

    words: str
    change: Callable[[Mapping[str, Any]], Mapping[str, Any]]


def renamed(old: str, new: str) -> Earlier:
    """A field that got another name. Where both are there the new one counts."""

    def change(details: Mapping[str, Any]) -> Mapping[str, Any]:
        if old not in details:
            return details
        if new in details:
            return {name: value for name, value in details.items() if name != old}
        return {new if name == old else name: value for name, value in details.items()}

    return Earlier(f"'{old}' is read as '{new}'", change)


def upgraded(model: type[BaseModel], kind: str, details: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The details in the present form, and the words of every step that it took.

    Raises:
        BadInput: a step of somebody's driver fails on them.
    """
    now = dict(details)
    words: list[str] = []
    steps: tuple[Earlier, ...] = getattr(model, "earlier", ())
    for step in steps:
        try:
            after = dict(step.change(now))
        except Exception as failed:  # whatever the driver of somebody else does; its text may hold a secret
            raise BadInput(
                f"The driver for {kind.upper()} fails on details of an earlier form ({type(failed).__name__}).",
                "Tell whoever made that driver, or write the details anew.",
            ) from None
        if after != now:
            now = after
            words.append(step.words)
    return now, tuple(words)
