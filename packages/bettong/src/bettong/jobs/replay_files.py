"""The rows of a replay as Parquet files in its job's folder: another one where the columns change."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq

from bettong.domain.replay_results import file_name
from bettong.errors import StorageFull, TooLarge
from bettong.jobs.space import Share, taken_by

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import pyarrow as pa


class ResultFiles:
    """Takes tables as they come. A context manager: at its end the files are whole, but one that found no space.

    What another attempt left is removed first. A column that comes again with another type has that behind its name, so
    that the files can be read as one table. They take no more than a page beyond `most_bytes` (0: no bound).
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self._folder, self._share = folder, Share(most_bytes)
        self._writer: pq.ParquetWriter | None = None
        self._schema: pa.Schema | None = None
        self._types: dict[str, pa.DataType] = {}
        self._files = 0

    def __enter__(self) -> ResultFiles:
        for left in self._folder.glob("result-*.parquet"):
            left.unlink()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            self._finish()
        except StorageFull:
            if kind is None:
                raise

    def write(self, rows: pa.Table) -> None:
        """Raises StorageFull when the disk is, TooLarge when the share of the job is."""
        if not rows.num_rows:
            return
        rows = rows.rename_columns([self._name(field) for field in rows.schema])
        with _space():
            if self._writer is None or self._schema != rows.schema:
                self._finish()
                self._files += 1
                self._schema = rows.schema
                self._writer = pq.ParquetWriter(self._folder / file_name(self._files), rows.schema, compression="zstd")
            self._writer.write_table(rows)
        self._share.taken = taken_by(self._folder.glob("result-*.parquet"))
        if not self._share.has(0):
            raise TooLarge(
                f"The rows of the replay take more than {self._share}, and it may leave no more on this platform.",
                "Replay fewer rows, or with inputs=False, or have BETTONG_JOB_BYTES raised.",
            )

    def _name(self, field: pa.Field[Any]) -> str:
        known = self._types.setdefault(field.name, field.type)
        return field.name if known == field.type else f"{field.name} ({field.type})"

    def _finish(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            with _space():
                writer.close()


@contextmanager
def _space() -> Iterator[None]:
    try:
        yield
    except OSError as fault:
        if fault.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise StorageFull(
            "There is no space for the rows of the replay.", "Free some, or replay fewer rows, or with inputs=False."
        ) from None
