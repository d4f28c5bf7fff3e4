"""Rows that could not be answered or written, with the reason, in files of the job's folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from bettong.jobs.space import space
from bettong.jobs.work import REJECTS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

KEY = "key."  # what the names of key columns begin with, so that none is called `row` or `reason`
MOST_REASONS = 10
_MOST_CHARS = 60  # of a key, where a row is named in a sentence


@dataclass(frozen=True, slots=True)
class Reject:
    """A row, by its number in the source from 0, and why it was refused. `keys` are its values of the key columns.

    The reason is the same for all rows with one fault, so that they can be counted, and has no value of the row.
    """

    row: int
    keys: tuple[Any, ...]
    reason: str


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

    def first(self) -> str:
        """The first of them in words: its keys, or its number where there are none, and the reason."""
        with pa.OSFile(str(min(self._files())), "rb") as source:
            reject = pa.ipc.open_file(source).read_all().slice(0, 1).to_pylist()[0]
        keys = [f"{name.removeprefix(KEY)}={_shown(of)}" for name, of in reject.items() if name.startswith(KEY)]
        where = ", ".join(keys) if keys else f"row {reject['row']} (from 0)"
        return f"{where}: {reject['reason']}"

    def reasons(self) -> dict[str, int]:
        """How many have which reason, the most frequent first, and no more than `MOST_REASONS`."""
        counts: Counter[str] = Counter()
        for file in self._files():
            with pa.OSFile(str(file), "rb") as source:
                found = pa.ipc.open_file(source).read_all()["reason"].value_counts().to_pylist()
            counts.update({each["values"]: each["counts"] for each in found})
        return dict(counts.most_common(MOST_REASONS))

    def drop_from(self, row: int, *, null_keys: bool) -> int:
        """Forget those that come again: of this row and behind, and with `null_keys` those with a null in their keys.
        How many are left."""
        left = 0
        for file in self._files():
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

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{REJECTS}-*.arrow"))

    def _write(self, rows: pa.RecordBatch) -> None:
        name = f"{REJECTS}-{rows['row'][0].as_py():015d}.arrow"
        part = self._folder / f".{name}.part"
        with space(), part.open("wb") as file:
            with pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_batch(rows)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / name)


def _shown(key: object) -> str:
    text = "null" if key is None else str(key)
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
