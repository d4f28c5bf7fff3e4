"""Writing an inference log to files, page by page: whatever its size, one page is in memory."""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wallaroo import _times, inference, logs

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pyarrow as pa

    from wallaroo.client import Client
    from wallaroo.logs import LogQuery

LARGE_BYTES, SMALL_PAGE_ROWS = 10 * 2**20, 1000
_UNITS = {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40}


def parse_size(text: str) -> int:
    """Bytes of a size such as "100MiB". Raises ValueError when it is none, or zero."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(KiB|MiB|GiB|TiB)", text.strip(), re.IGNORECASE)
    if not match:
        raise ValueError(f"data_size_limit is '{text}'. Write it as a number and a unit, KiB to TiB: '100MiB'.")
    size = int(float(match[1]) * _UNITS[match[2].lower()])
    if size <= 0:
        raise ValueError("data_size_limit must be positive.")
    return size


@dataclass(frozen=True)
class Export:
    """Where an export goes, and how much of it: `size_limit` as the caller wrote it.

    Raises:
        ValueError: `size_limit` is no size.
    """

    directory: str | Path
    file_prefix: str
    size_limit: str
    arrow: bool

    def __post_init__(self) -> None:
        parse_size(self.size_limit)

    @property
    def max_bytes(self) -> int:
        return parse_size(self.size_limit)

    def page_size(self, limit: int | None) -> int:
        """How many rows to ask for at once: few where little is wanted: the page that reaches it is written whole."""
        most = logs.MAX_PAGE_ROWS if self.max_bytes >= LARGE_BYTES else SMALL_PAGE_ROWS
        return most if limit is None else min(limit, most)

    def path(self, number: int) -> Path:
        return Path(self.directory) / f"{self.file_prefix}-{number}.{'arrow' if self.arrow else 'json'}"


def run(client: Client, topic: str, query: LogQuery, newest_ms: int | None, export: Export) -> None:
    """Write pages to files until there are no more, or the limit or the size is reached.

    What is missing then is said on stderr. A file is there once it is whole; when the export fails or is stopped, the
    one being written is not.
    """
    logs.wait_until_logged(client, topic, newest_ms)
    Path(export.directory).mkdir(parents=True, exist_ok=True)
    newest: int | None = None
    reason = "All"
    with _files(export) as files:
        for page in logs.pages(client, topic, query, export.page_size(query.limit)):
            table = page.table if query.limit is None else page.table.slice(0, query.limit - files.rows)
            if not files.rows:
                logs.warn_of_dropped(table)
            if table.num_rows:
                files.write(logs.shown(table, query))
                newest = max(newest or 0, inference.latest_time_ms(table) or 0)
                client._screen.write(f"\rExporting: {files.rows:,} rows, {files.bytes / 2**20:,.1f} MiB")
            more = page.next is not None or table.num_rows < page.table.num_rows
            if more and query.limit is not None and files.rows >= query.limit:
                reason = "RecordLimited"
                break
            if more and files.bytes >= export.max_bytes:
                reason = "ByteLimited"
                break
    client._screen.write("\n" if files.rows else "")
    if reason == "RecordLimited":
        logs.warn("Warning: There are more logs available. Please set a larger limit to export more data.")
    if reason == "ByteLimited":
        until = datetime.fromtimestamp((newest or 0) / 1000, tz=_times.UTC).isoformat()
        logs.warn(
            f"Warning: The data size limit of {export.size_limit} was reached. Exported {files.rows} {query.end_word} "
            f"records, the newest of {until}. Please set a larger data_size_limit to export more data."
        )
    if files.number > 1:
        logs.warn("Note: The logs with different schemas are written to separate files in the provided directory.")


@contextlib.contextmanager
def _files(export: Export) -> Iterator[_Files]:
    files = _Files(export)
    try:
        yield files
    except BaseException:
        files.give_up()
        raise
    files.finish()


class _Files:
    """Files of one schema each, numbered from 1. `rows` and `bytes` (of text, or of buffers) are of all of them."""

    def __init__(self, export: Export) -> None:
        self._export = export
        self.number = self.rows = self.bytes = 0
        self._schema: pa.Schema | None = None
        self._file: Any = None
        self._writer: Any = None

    def write(self, table: pa.Table) -> None:
        if self._schema is None or not table.schema.equals(self._schema):
            self.finish()
            self._begin(table.schema)
        if self._writer is not None:
            self._writer.write_table(table)
            self.bytes += int(table.nbytes)
        else:
            text = b"".join(inference.dump(row) + b"\n" for row in table.to_pylist())
            self._file.write(text)
            self.bytes += len(text)
        self.rows += table.num_rows

    def finish(self) -> None:
        """Close the file that is being written and give it its name, in place of one that had it."""
        if self._file is None:
            return
        if self._writer is not None:
            self._writer.close()
        self._file.close()
        self._unfinished().replace(self._export.path(self.number))
        self._file = self._writer = self._schema = None

    def give_up(self) -> None:
        if self._file is not None:
            self._file.close()
            self._unfinished().unlink()

    def _begin(self, schema: pa.Schema) -> None:
        import pyarrow as pa

        self.number += 1
        self._schema = schema
        self._file = self._unfinished().open("wb")
        self._writer = pa.ipc.new_file(self._file, schema) if self._export.arrow else None

    def _unfinished(self) -> Path:
        path = self._export.path(self.number)
        return path.with_name(f".{path.name}.part")
