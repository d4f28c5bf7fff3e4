"""Where in a request's rows something is wrong. Built from the inside out: every level adds how it was reached."""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Sequence

NULLS = "tensor values may not be null"
_SHOWN = 20


class Fault(Exception):
    """One wrong value of a column: which one, and what is wrong with it. Never holds the value.

    `at` is the index of the value within the array in which it was seen; `inside` tells how to get from there to
    the wrong place, outermost first ("item 3", "field 'age'").
    """

    def __init__(self, at: int, problem: str, next_step: str, inside: tuple[str, ...] = ()) -> None:
        super().__init__(at, problem, next_step, inside)
        self.at, self.problem, self.next_step, self.inside = at, problem, next_step, inside

    def within(self, at: int, step: str) -> Fault:
        """The same fault as the array around sees it: in its value `at`, reached by `step`."""
        return Fault(at, self.problem, self.next_step, (step, *self.inside))

    def as_bad_input(self, column: str) -> BadInput:
        place = ", ".join((f"Column '{column}'", f"row {self.at}", *self.inside))
        return BadInput(f"{place}: {self.problem}.", self.next_step)


def null_fault(at: int) -> Fault:
    return Fault(
        at,
        NULLS,
        "Give every field a value of its type in every row. A DataFrame sends NaN as null, an Arrow table keeps it.",
    )


def check_columns(found: Sequence[str], expected: Sequence[str], where: str = "The body") -> None:
    """Raises BadInput when `found` is not the set of `expected` column names, in any order, each once."""
    present, known = set(found), set(expected)
    hint = f"The expected columns are: {', '.join(expected)}."
    if missing := [name for name in expected if name not in present]:
        raise BadInput(f"{where} lacks the {_named(missing)}.", hint)
    if extra := [name for name in found if name not in known]:
        raise BadInput(f"{where} has the extra {_named(extra)}.", hint)
    if len(found) != len(expected):
        raise BadInput(f"{where} has a column more than once.", hint)


def _named(names: list[str]) -> str:
    shown = ", ".join(f"'{name[:64]}'" for name in names[:_SHOWN])
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"column{'s' if len(names) > 1 else ''} {shown}{more}"
