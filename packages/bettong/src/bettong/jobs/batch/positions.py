"""Where a batch inference stopped, as text: what a sink keeps beside the rows."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class Position:
    """So far.

    Attributes:
        rows: of the source that are done with, one way or the other.
        written, rejected: what became of them.
        keys: the values of the key columns of the last row that was written, None before the first or without keys.
    """

    rows: int = 0
    written: int = 0
    rejected: int = 0
    keys: tuple[Any, ...] | None = None

    def encode(self, types: Sequence[pa.DataType] = ()) -> str:
        """`types` are those of the keys, whose values come back as they were: as Arrow."""
        kept = None
        if self.keys is not None:
            arrays = [pa.array([value], kind) for value, kind in zip(self.keys, types, strict=True)]
            batch = pa.RecordBatch.from_arrays(arrays, names=[str(n) for n in range(len(arrays))])
            kept = base64.b64encode(_stream_of(batch)).decode()
        return json.dumps({"rows": self.rows, "written": self.written, "rejected": self.rejected, "keys": kept})

    @classmethod
    def decode(cls, text: str) -> Position:
        """Raises ValueError when it is none of ours."""
        document = json.loads(text)
        keys = None
        if document["keys"] is not None:
            with pa.ipc.open_stream(base64.b64decode(document["keys"])) as opened:
                keys = tuple(column[0].as_py() for column in opened.read_all().columns)
        return cls(document["rows"], document["written"], document["rejected"], keys)


def _stream_of(batch: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    return sink.getvalue().to_pybytes()
