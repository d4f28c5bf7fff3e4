"""Writing into a job's folder while there is room."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from bettong.errors import StorageFull

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def space() -> Iterator[None]:
    """Around what is written into the job's folder. Raises StorageFull, which is waited for, when it takes no more."""
    try:
        yield
    except OSError as failed:
        raise StorageFull(
            f"The folder of the job takes no more ({failed.strerror or type(failed).__name__}).",
            "See to the platform's disk.",
        ) from None
