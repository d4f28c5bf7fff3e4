"""Rows that could not be answered or written, with the reason, in files of the job's folder."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from bettong.jobs.space import Share, space, taken_by
from bettong.jobs.work import REJECTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
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

    Args:
        keys: the key columns.
        most_bytes: they take no more than that (0: no bound), but for the first ones. Further ones are not kept: their
            rows are still in the source.
        say: is told, once, when they are not.
    """

    def __init__(
        self,
        folder: Path,
        keys: Sequence[pa.Field[Any]],
        most_bytes: int = 0,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self._folder, self._say, self._told = folder, say, False
        self._share = Share(most_bytes, taken_by(self._files()))
        self.schema = pa.schema(
            [
                pa.field("row", pa.int64()),
                *(pa.field(f"{KEY}{key.name}", key.type) for key in keys),
                pa.field("reason", pa.string()),
            ]
        )

    def keep(self, rejects: Sequence[Reject]) -> None:
        """On disk when this returns, if there is room. Raises StorageFull when the disk takes no more."""
        if not rejects:
            return
        columns = [
            [reject.row for reject in rejects],
            *([reject.keys[at] for reject in rejects] for at in range(len(self.schema) - 2)),
            [reject.reason for reject in rejects],
        ]
        arrays = [pa.array(values, field.type) for values, field in zip(columns, self.schema, strict=True)]
        rows = pa.RecordBatch.from_arrays(arrays, schema=self.schema)
        if self._share.has(rows.nbytes) or not self._share.taken:
            self._share.taken += self._write(rows)
        elif not self._told:
            self._told = True
            self._say(
                f"Rejects take {self._share}, and a batch may leave no more on this platform (BETTONG_JOB_BYTES): "
                f"from row {rejects[0].row} (from 0) on they are counted, and kept no longer."
            )

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
                counts.update(map(str, pa.ipc.open_file(source).read_all()["reason"].to_pylist()))
        return dict(counts.most_common(MOST_REASONS))

    def drop_from(self, row: int, *, null_keys: bool, found: int = 0) -> int:
        """Forget those that come again: of this row and behind, and with `null_keys` those with a null in their keys.

        Returns:
            How many are left; of the `found` before, those that were not kept are among them, too.
        """
        left = all_kept = 0
        for file in self._files():
            with pa.OSFile(str(file), "rb") as source:
                rows = pa.ipc.open_file(source).read_all()
            all_kept += rows.num_rows
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
        self._share.taken = taken_by(self._files())
        return left + max(0, found - all_kept)

    def _files(self) -> list[Path]:
        return sorted(self._folder.glob(f"{REJECTS}-*.arrow"))

    def _write(self, rows: pa.RecordBatch) -> int:
        """How many bytes it took."""
        name = f"{REJECTS}-{rows['row'][0].as_py():015d}.arrow"
        part = self._folder / f".{name}.part"
        with space(), part.open("wb") as file:
            with pa.ipc.new_file(file, rows.schema) as writer:
                writer.write_batch(rows)
            file.flush()
            os.fsync(file.fileno())
            size = file.tell()
        part.replace(self._folder / name)
        return size


def _shown(key: object) -> str:
    text = "null" if key is None else str(key)
    return text if len(text) <= _MOST_CHARS else f"{text[:_MOST_CHARS]}…"
