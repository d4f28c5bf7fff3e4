"""The rows of a log that a replay is about: where they are, and what is known of them before any is replayed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from bettong.domain.logs import LogQuery
from bettong.domain.replay_requests import fit

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    import pyarrow as pa

    from bettong.domain.replay_requests import ReplayRequest
    from bettong.jobs.work import Work

PAGE_BYTES = 8 * 2**20  # of the log: what is in memory at once
SURVEY_ROWS = 100_000
_NOT_NEEDED = ("metadata.elapsed", "metadata.partition", "metadata.last_model")
_DROPPED = "metadata.dropped"


@dataclass(frozen=True, slots=True)
class Survey:
    """The window before anything is sent: how many rows it has, how many fit, and why others of the answered do not."""

    rows: int
    fitting: int
    misfits: tuple[str, ...]
    inputs: tuple[str, ...]


def survey_of(work: Work, request: ReplayRequest, until: datetime) -> Survey:
    """What the window has until then. It reads times and a row of each schema alone, so it costs little beside what
    follows. Failures of challengers, which are not replayed, are counted too."""
    reader = work.logs()
    rows = fitting = 0
    misfits: dict[str, None] = {}
    inputs: dict[str, None] = {}
    for topic, answered in topics_of(request):
        query: LogQuery | None = query_of(topic, request, until)
        while query is not None and left_of(request, rows) > 0 and not work.cancelled:
            query = replace(query, columns=("time",), limit=min(SURVEY_ROWS, left_of(request, rows)))
            page = reader.page(query)
            if page.table.num_rows:
                first = reader.page(replace(query, columns=("in", _DROPPED), limit=1)).table
                found = fit(first.schema, dropped_names(first), request.takes, request.keys)
                fitting += page.table.num_rows if found.fits else 0
                if answered and found.missing:
                    misfits[found.problem] = None
                inputs.update(dict.fromkeys(name for name in first.column_names if name.startswith("in.")))
            rows += page.table.num_rows
            query = None if page.cursor is None else replace(query, cursor=page.cursor)
    return Survey(rows, fitting, tuple(misfits), tuple(inputs))


def topics_of(request: ReplayRequest) -> Iterator[tuple[str, bool]]:
    """(topic, whether its rows were answered)."""
    yield request.topic, True
    if request.window.failed:
        yield request.failures_topic, False


def query_of(topic: str, request: ReplayRequest, until: datetime) -> LogQuery:
    """For the first page of a topic, oldest rows first."""
    return LogQuery(topic, start=request.window.start, end=until, exclude=_NOT_NEEDED, max_bytes=PAGE_BYTES)


def left_of(request: ReplayRequest, read: int) -> int:
    """How many rows may still be read when `read` were."""
    limit = request.window.limit
    return 2**62 if limit is None else limit - read


def dropped_names(rows: pa.Table) -> list[str]:
    """The columns that were too large for the log in some of these rows."""
    if _DROPPED not in rows.column_names:
        return []
    return [name for name in pc.unique(pc.list_flatten(rows.column(_DROPPED))).to_pylist() if name is not None]
