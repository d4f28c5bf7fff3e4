"""Reading inference logs back: one page of a pipeline's log, or as many rows of a topic as are wanted."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from wallaroo import _times, inference
from wallaroo.object import EntityNotFoundError, RequestRefused, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import pyarrow as pa

    from wallaroo.client import Client

DEFAULT_LIMIT = 100
DEFAULT_RAW_LIMIT = 100_000
MAX_RAW_ROWS = 1_000_000
MAX_PAGE_ROWS = 10_000
FRESHNESS_LOOKS = 5
FRESHNESS_PAUSE_S = 1.0
_MORE = "Warning: There are more logs available. Please set a larger limit or request a file using export_logs."
_TOO_BIG = "Warning: Pipeline log size limit exceeded. Please request logs using export_logs"


@dataclass(frozen=True)
class LogQuery:
    """What is wanted of a log; naive dates count as UTC.

    Raises:
        ValueError: one date without the other, or a limit below 1.
    """

    limit: int | None = None
    start: datetime | None = None
    end: datetime | None = None
    dataset: Sequence[str] | str | None = None
    exclude: Sequence[str] | str | None = None
    separator: str | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ValueError(f"limit is {self.limit}. Give a number of rows, 1 or more.")
        if (self.start is None) != (self.end is None):
            raise ValueError("Please provide both start_datetime and end_datetime, or neither of them.")
        for name, moment in (("start_datetime", self.start), ("end_datetime", self.end)):
            if moment is not None and moment.tzinfo is None:
                warn(f"Warning: {name} has no time zone and is taken as UTC. Pass an aware datetime to be sure.")

    @property
    def dated(self) -> bool:
        return self.start is not None

    @property
    def end_word(self) -> str:
        """Which rows a page has, of those there are."""
        return "oldest" if self.dated else "newest"

    @property
    def with_metadata(self) -> bool:
        return "metadata" in inference.names_of(self.dataset)

    def params(self, limit: int | None) -> list[tuple[str, str]]:
        params = [("page_size", str(limit))] if limit is not None else []
        if self.start is not None and self.end is not None:
            params += [("time.start", _times.as_utc_text(self.start)), ("time.end", _times.as_utc_text(self.end))]
        else:
            params.append(("order", "desc"))
        params += [("dataset[]", name) for name in inference.names_of(self.dataset) or ["*"]]
        params += [("dataset.exclude[]", name) for name in inference.names_of(self.exclude)]
        separator = inference.DEFAULT_SEPARATOR if self.separator is None else self.separator
        return [*params, ("dataset.separator", separator)]


@dataclass(frozen=True)
class Page:
    """Rows of one schema, why there are no more of them, and how to go on (None: there is nothing after them)."""

    table: pa.Table
    status: str
    next: dict[str, Any] | None


def read(client: Client, topic: str, query: LogQuery, newest_ms: int | None, arrow: bool) -> Any:
    """One page, as a DataFrame or a Table; says on stderr what is missing from it."""
    wait_until_logged(client, topic, newest_ms)
    limit = DEFAULT_LIMIT if query.limit is None and not query.dated else query.limit
    page = _page(client, topic, query.params(limit and min(limit, MAX_PAGE_ROWS)), {})
    if page is None:
        import pyarrow as pa

        page = Page(pa.table({}), "All", None)
    for warning in _warnings(page, query):
        warn(warning)
    table = shown(page.table, query)
    return table if arrow else table.to_pandas()


def topic(client: Client, name: str, query: LogQuery, arrow: bool) -> Any:
    """One page of a topic, as `read` gives it of a pipeline. Raises EntityNotFoundError for an unknown topic."""
    _check_topic(client, name)
    return read(client, name, query, None, arrow)


def raw(
    client: Client, name: str, query: LogQuery, *, limit: int, model_name: str | None = None, verbose: bool = False
) -> list[pa.Table]:
    """Up to `limit` rows of a topic with all their columns, one table per page of one schema.

    Args:
        model_name: rows whose last model has another name are left out, and do not count.
        verbose: say on stderr how far it is.

    Raises:
        EntityNotFoundError: there is no such topic.
        ValueError: `limit` is not between 1 and 1,000,000.
    """
    if not 1 <= limit <= MAX_RAW_ROWS:
        raise ValueError(f"limit is {limit}. Give a number of rows between 1 and {MAX_RAW_ROWS}.")
    _check_topic(client, name)
    tables: list[pa.Table] = []
    rows = 0
    for page in pages(client, name, query, min(limit, MAX_PAGE_ROWS)):
        table = page.table if model_name is None else _of_model(page.table, model_name)
        table = table.slice(0, limit - rows)
        rows += table.num_rows
        if table.num_rows:
            tables.append(table)
        if verbose:
            warn(f"{name}: {rows} rows so far")
        if rows == limit:
            break
    return tables


def topic_of(client: Client, pipeline_pk_id: int) -> str:
    """Raises EntityNotFoundError when the caller may see no such pipeline."""
    try:
        answer = client._transport.post("/v1/api/plateau/get_topic_name", {"pipeline_pk_id": pipeline_pk_id})
    except WallarooAPIError as error:
        if error.code != 404:
            raise
        raise EntityNotFoundError("Pipeline", {"pipeline_pk_id": pipeline_pk_id}) from None
    return str(answer["topic_name"])


def _check_topic(client: Client, name: str) -> None:
    try:
        client._transport.get(f"/v1/logs/topic/{quote(name, safe='')}")
    except WallarooAPIError as error:
        if error.code != 404:
            raise
        raise EntityNotFoundError("Topic", {"topic": name}, f"Topic not found: {name}. {error.error}") from None


def _of_model(table: pa.Table, model_name: str) -> pa.Table:
    if "metadata.last_model" not in table.column_names:
        return table.slice(0, 0)
    last_models = [json.loads(text or "{}") for text in table["metadata.last_model"].to_pylist()]
    return table.filter([model.get("model_name") == model_name for model in last_models])


def pages(client: Client, topic: str, query: LogQuery, page_size: int | None = None) -> Iterator[Page]:
    position: dict[str, Any] | None = {}
    while position is not None:
        page = _page(client, topic, query.params(page_size), position)
        if page is None:
            return
        yield page
        position = page.next


def _page(client: Client, topic: str, params: Sequence[tuple[str, str]], position: dict[str, Any]) -> Page | None:
    """None when nothing was ever logged under the topic."""
    path = f"/v1/logs/topic/{quote(topic, safe='')}/records"
    try:
        table = inference.ipc_to_table(client._transport.post_raw(path, params, inference.ARROW, position))
    except WallarooAPIError as error:
        if error.code == 404:
            return None
        raise RequestRefused.because("Failed to read the log:", error) from None
    state = json.loads((table.schema.metadata or {}).get(b"status", b"{}"))
    return Page(table.replace_schema_metadata(None), state.get("status", "All"), state.get("next"))


def wait_until_logged(client: Client, topic: str, newest_ms: int | None) -> None:
    """Give the log a few seconds to hold the last inference of this client; normally it does at once."""
    if newest_ms is None:
        return
    params = [("page_size", "1"), ("order", "desc"), ("dataset[]", "time"), ("dataset.separator", ".")]
    for look in range(FRESHNESS_LOOKS + 1):
        page = _page(client, topic, params, {})
        logged_ms = inference.latest_time_ms(page.table) if page else None
        if (logged_ms is not None and logged_ms >= newest_ms) or look == FRESHNESS_LOOKS:
            return
        client._clock.sleep(FRESHNESS_PAUSE_S)


def shown(table: pa.Table, query: LogQuery) -> pa.Table:
    if query.with_metadata:
        return table
    return table.select([name for name in table.column_names if not name.startswith("metadata")])


def _warnings(page: Page, query: LogQuery) -> Iterable[str]:
    if page.status == "RecordLimited":
        yield _MORE
    elif page.status == "ByteLimited":
        yield _TOO_BIG
    elif page.status == "SchemaChange":
        newest_ms = inference.latest_time_ms(page.table)
        until = datetime.fromtimestamp((newest_ms or 0) / 1000, tz=_times.UTC).isoformat()
        yield (
            f"Warning: Pipeline log schema changed within the requested logs. The {page.table.num_rows} "
            f"{query.end_word} records are here, the newest of {until}. Please request the rest by its dates."
        )
    if dropped := _dropped(page.table):
        yield _dropped_words(dropped)


def warn_of_dropped(table: pa.Table) -> None:
    if dropped := _dropped(table):
        warn(_dropped_words(dropped))


def _dropped(table: pa.Table) -> list[str]:
    """The columns left out of the first row, because the row was too big for the log."""
    if "metadata.dropped" not in table.column_names or not table.num_rows:
        return []
    return list(table["metadata.dropped"][0].as_py() or [])


def _dropped_words(dropped: Sequence[str]) -> str:
    return (
        f"Warning: The inference log is above the allowable limit and the following columns may have been suppressed "
        f"for various rows in the logs: {', '.join(dropped)}. To review the dropped columns for an individual "
        'inference’s suppressed data, include dataset=["metadata"] in the log request.'
    )


def warn(text: str) -> None:
    sys.stderr.write(f"{text}\n")
