"""The log of an engine whose answers somebody else keeps."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pyarrow as pa

    from bettong.domain.logs import LogShape


class NothingKept:
    """A log writer that takes everything, keeps nothing and opens nothing: every call wrote 0 bytes."""

    problem: str | None = None

    def append(self, rows: pa.RecordBatch, *, failed: bool = False) -> int:
        return 0

    def append_request(self, shape: LogShape, time_ms: int, shared: Sequence[Any], rows: pa.RecordBatch) -> int:
        return 0

    def append_row(self, shape: LogShape, time_ms: int, shared: Sequence[Any], values: Sequence[Any]) -> int:
        return 0

    def close(self) -> None:
        pass
