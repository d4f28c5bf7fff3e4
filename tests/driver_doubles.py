"""Driver calls in memory: databases with a password, for tests of what stands in front of the drivers."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.domain.drivers import (
    Capability,
    DriverInfo,
    Entry,
    Stage,
    StageResult,
    TestReport,
    WriteMode,
    WriteResult,
)
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from bettong.domain.drivers import ReadRequest, WriteRequest

MEMORY = DriverInfo(
    types=("MEMORY",),
    title="Tables in memory",
    capabilities=frozenset({Capability.TEST, Capability.BROWSE, Capability.READ, Capability.WRITE, Capability.UPSERT}),
    details_schema={"type": "object", "properties": {"database": {"type": "string"}, "password": {"type": "string"}}},
    secret_fields=("password",),
    extra="",
    installed=True,
)


@dataclass
class Database:
    """A database whose `password` may change; `before_batch` runs before each batch that is read."""

    password: Any = "correct horse"
    tables: dict[str, pa.Table] = field(default_factory=dict)
    before_batch: Callable[[int], None] = lambda number: None


@dataclass
class DriversDouble:
    """`seen` has the details of every call; `open` how many readings have not ended."""

    databases: dict[str, Database] = field(default_factory=dict)
    seen: list[Mapping[str, Any]] = field(default_factory=list)
    open: int = 0

    def info(self, kind: str) -> DriverInfo | None:
        return MEMORY if kind.upper() in MEMORY.types else None

    def all(self) -> list[DriverInfo]:
        return [MEMORY]

    def upgraded(self, kind: str, details: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Of a driver that once took `secret_word` for `password`."""
        if self.info(kind) is None or "secret_word" not in details:
            return dict(details), ()
        now = {"password" if name == "secret_word" else name: value for name, value in details.items()}
        return now, ("'secret_word' is read as 'password'",)

    def test(self, kind: str, details: Mapping[str, Any], timeout_s: float) -> TestReport:
        try:
            self._database(kind, details)
        except Unavailable as refused:
            login = StageResult(Stage.LOGIN, False, 1.5, refused.problem, refused.next_step)
            return TestReport((StageResult(Stage.DETAILS, True), login, StageResult(Stage.SAMPLE, None)))
        return TestReport((StageResult(Stage.DETAILS, True, 0.25), StageResult(Stage.LOGIN, True, 1.5, "as reader")))

    def browse(self, kind: str, details: Mapping[str, Any], path: str, timeout_s: float) -> list[Entry]:
        tables = self._database(kind, details).tables
        return [Entry(name, "table", f"{table.num_rows} rows") for name, table in sorted(tables.items())]

    @contextmanager
    def read(
        self, kind: str, details: Mapping[str, Any], request: ReadRequest, timeout_s: float
    ) -> Iterator[pa.RecordBatchReader]:
        database = self._database(kind, details)
        if (table := database.tables.get(request.query)) is None:
            raise BadInput(f"There is no table '{request.query}'.", "Browse to see which there are.")
        limited = table if request.limit is None else table.slice(0, request.limit)

        def batches() -> Iterator[pa.RecordBatch]:
            for number, batch in enumerate(limited.to_batches(max_chunksize=request.batch_rows)):
                database.before_batch(number)
                yield batch

        self.open += 1
        try:
            yield pa.RecordBatchReader.from_batches(table.schema, batches())
        finally:
            self.open -= 1

    def write(
        self,
        kind: str,
        details: Mapping[str, Any],
        request: WriteRequest,
        rows: pa.RecordBatchReader,
        timeout_s: float,
    ) -> WriteResult:
        tables = self._database(kind, details).tables
        new = rows.read_all()
        kept = tables.get(request.table)
        if request.mode is WriteMode.UPSERT and kept is not None:
            taken = {tuple(row[key] for key in request.keys) for row in new.to_pylist()}
            old = [row for row in kept.to_pylist() if tuple(row[key] for key in request.keys) not in taken]
            kept = pa.Table.from_pylist(old, kept.schema)
        replaces = request.mode is WriteMode.REPLACE
        tables[request.table] = new if kept is None or replaces else pa.concat_tables([kept, new])
        return WriteResult(new.num_rows)

    def _database(self, kind: str, details: Mapping[str, Any]) -> Database:
        if self.info(kind) is None:
            raise BadInput(f"No driver knows the type '{kind}'.", "Types with a driver: MEMORY.")
        self.seen.append(details)
        details, _ = self.upgraded(kind, details)
        if (database := self.databases.get(details.get("database", ""))) is None:
            raise Unavailable("There is no such database.", "Start it.")
        if details.get("password") != database.password:
            raise Unavailable("The database refuses the password.", "Correct it.")
        return database
