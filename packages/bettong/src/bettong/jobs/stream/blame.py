"""Which message of a batch is at fault: halves are asked until it stands alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from bettong.errors import BadInput, DeadlineExceeded, ModelFailed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from bettong.jobs.stream.rows import Batch

T = TypeVar("T")
FAULTS = (BadInput, ModelFailed, DeadlineExceeded)  # a message may be at fault; for all else it never is


def divided(
    batch: Batch, work: Callable[[Batch], T]
) -> Iterator[tuple[Batch, T | BadInput | ModelFailed | DeadlineExceeded]]:
    """What `work` makes of the batch, or of parts of it where it refuses the whole; in order.

    A part that is refused has one message. For n messages with one at fault there are about 2 log2(n) calls.
    """
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        try:
            made = work(part)
        except FAULTS as fault:
            if len(part.taken) == 1:
                yield part, fault
            else:
                waiting += reversed(list(part.parts(2)))
        else:
            yield part, made
