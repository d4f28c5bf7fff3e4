"""Rows that could not be answered or written, with the reason, in files of the job's folder."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from bettong.errors import BadInput
from bettong.jobs.space import space
from bettong.jobs.work import REJECTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEY = "key."  # what the names of key columns begin with, so that none is called `row` or `reason`


@dataclass(frozen=True, slots=True)
class Reject:
    """A row, by its number in the source from 0, and why it was refused. `keys` are its values of the key columns."""

    row: int
    keys: tuple[Any, ...]
    reason: str


class Limit:
    """Counts rejects as they are found, by any thread, so that a job that goes wrong altogether ends soon."""

    def __init__(self, most: int, before: int = 0) -> None:
        self._most, self._found = most, before
        self._lock = threading.Lock()

    def found(self, count: int, reason: str) -> None:
        """Raises BadInput when these are too many."""
        with self._lock:
            self._found += count
            if self._found > self._most:
                raise BadInput(
                    f"More than {self._most} rows were rejected. The last one: {reason}",
                    "Look at the job's rejects, correct the rows or the mapping, or raise max_rejects.",
                )


class RejectFiles:
    """Keeps rejects, in the order of their rows, in files that are there whole or not at all.

    `keys` are the key columns.
    """

    def __init__(self, folder: Path, keys: Sequence[pa.Field[Any]]) -> None:
        self._folder = folder
        self.schema = pa.schema(
            [
                pa.field("row", pa.int64()),
                *(pa.field(f"{KEY}{key.name}", key.type) for key in keys),
                pa.field("reason", pa.string()),
            ]
        )

    def keep(self, rejects: Sequence[Reject]) -> None:
        """On disk when this returns. Raises StorageFull when the disk takes no more."""
        if not rejects:
            return
        columns = [
            [reject.row for reject in rejects],
            *([reject.keys[at] for reject in rejects] for at in range(len(self.schema) - 2)),
            [reject.reason for reject in rejects],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self.schema, strict=True)]
        self._write(pa.RecordBatch.from_arrays(arrays, schema=self.schema))

    def drop_from(self, row: int, *, null_keys: bool) -> int:
        """Forget those that come again: of this row and behind, and with `null_keys` those with a null in their keys.
        How many are left."""
        left = 0
        for file in sorted(self._folder.glob(f"{REJECTS}-*.arrow")):
            with pa.OSFile(str(file), "rb") as source:
                rows = pa.ipc.open_file(source).read_all()
            kept = rows.filter(pc.field("row") < row)
            for name in kept.column_names:
                if name.startswith(KEY) and null_keys:
                    kept = kept.filter(kept[name].is_valid())
            left += kept.num_rows
            if kept.num_rows == rows.num_rows:
                continue
            file.unlink()
            if kept.num_rows:
                self._write(kept.combine_chunks().to_batches()[0])
        return left

    def _write(self, rows: pa.RecordBatch) -> None:
        name = f"{REJECTS}-{rows['row'][0].as_py():015d}.arrow"
        part = self._folder / f".{name}.part"
        with space(), part.open("wb") as file:
            with pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_batch(rows)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / name)
