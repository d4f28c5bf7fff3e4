"""What every log writer and reader promise together (`domain.ports.LogWriter`, `LogReader`)."""

from __future__ import annotations

import datetime as dt
import decimal
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol, cast

import pyarrow as pa
import pytest
from builders import log_rows, request_rows, whole_rows

from bettong.domain.logs import LogQuery, PageStatus
from bettong.errors import BadInput, Unavailable
from bettong.logstore.compaction import maintain
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.writer import SegmentLogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from bettong.domain.ports import LogReader, LogWriter

TOPIC = "workspace-1-pipeline-rental-inference"
FAILURES = "workspace-1-pipeline-rental-failures"


class Log(Protocol):
    @property
    def reader(self) -> LogReader: ...
    def writer(self, partition: str = "engine-a") -> LogWriter: ...
    def settle(self) -> None:
        """Bring what was written into its final form. Nothing is appended after it."""


@dataclass
class SegmentLog:
    folder: Path
    writers: list[SegmentLogWriter]
    reader: SegmentLogReader
    roll_bytes: int

    def writer(self, partition: str = "engine-a") -> SegmentLogWriter:
        self.writers.append(SegmentLogWriter(self.folder, TOPIC, FAILURES, partition, roll_bytes=self.roll_bytes))
        return self.writers[-1]

    def settle(self) -> None: ...


class CompactedLog(SegmentLog):
    """Rolls after every append; settling leaves Parquet parts and nothing else."""

    def settle(self) -> None:
        for writer in self.writers:
            writer.close()
        maintain(self.folder, now_s=1_700_000_000.0, max_bytes_per_topic=2**40)
        assert not list(self.folder.rglob("*.seg"))


@pytest.fixture(params=["segments", "small segments", "compacted"])
def log(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Log]:
    kind = CompactedLog if request.param == "compacted" else SegmentLog
    roll_bytes = 64 * 2**20 if request.param == "segments" else 1
    made = kind(tmp_path / "logs", [], SegmentLogReader(tmp_path / "logs"), roll_bytes)
    yield cast("Log", made)
    for writer in made.writers:
        writer.close()


def numbers(table: pa.Table) -> list[int]:
    return cast("list[int]", table["in.number"].to_pylist()) if table.num_rows else []


def at(ms: int) -> dt.datetime:
    return dt.datetime(1970, 1, 1, tzinfo=dt.UTC) + dt.timedelta(milliseconds=ms)


def test_rows_are_readable_as_soon_as_append_returns(log: Log) -> None:
    writer = log.writer()
    for n in range(3):
        writer.append(log_rows([1000 + n], [n]))
        assert numbers(log.reader.page(LogQuery(TOPIC)).table) == list(range(n + 1))


def test_an_unknown_topic_is_empty(log: Log) -> None:
    for topic in ("nothing", "../../etc", "", "a/b"):
        page = log.reader.page(LogQuery(topic))
        assert (page.table.num_rows, page.status, page.cursor) == (0, PageStatus.ALL, None)
        assert log.reader.info(topic).partitions == {}


def test_newest_first_goes_by_time_then_by_arrival(log: Log) -> None:
    writer = log.writer()
    for n, ms in enumerate([10, 30, 30, 20]):
        writer.append(log_rows([ms], [n]))
    log.settle()

    assert numbers(log.reader.page(LogQuery(TOPIC, newest_first=True)).table) == [2, 1, 3, 0]
    assert numbers(log.reader.page(LogQuery(TOPIC)).table) == [0, 3, 1, 2]


def test_partitions_interleave_by_time(log: Log) -> None:
    first, second = log.writer("engine-a"), log.writer("engine-b")
    for n in range(10):
        (first if n % 2 else second).append(log_rows([100 + n], [n]))
    log.settle()

    assert numbers(log.reader.page(LogQuery(TOPIC)).table) == list(range(10))
    assert log.reader.info(TOPIC).partitions == {"engine-a": 5, "engine-b": 5}


def test_rows_of_failed_inferences_are_in_a_topic_of_their_own(log: Log) -> None:
    writer = log.writer()
    writer.append(log_rows([1], [1]))
    writer.append(log_rows([2], [2]), failed=True)
    log.settle()

    assert numbers(log.reader.page(LogQuery(TOPIC)).table) == [1]
    assert numbers(log.reader.page(LogQuery(FAILURES)).table) == [2]


def test_the_start_is_included_and_the_end_is_not(log: Log) -> None:
    writer = log.writer()
    for ms in (10, 20, 30):
        writer.append(log_rows([ms], [ms]))
    log.settle()

    assert numbers(log.reader.page(LogQuery(TOPIC, start=at(10), end=at(30))).table) == [10, 20]
    a_little = dt.timedelta(microseconds=1)
    later = LogQuery(TOPIC, start=at(10) + a_little, end=at(30) + a_little)
    assert numbers(log.reader.page(later).table) == [20, 30]


def test_rows_of_one_append_may_have_several_times(log: Log) -> None:
    writer = log.writer()
    writer.append(log_rows([50, 10, 40], [5, 1, 4]))
    writer.append(log_rows([30, 20], [3, 2]))
    log.settle()

    assert numbers(log.reader.page(LogQuery(TOPIC)).table) == [1, 2, 3, 4, 5]
    assert numbers(log.reader.page(LogQuery(TOPIC, newest_first=True, limit=2)).table) == [5, 4]
    assert numbers(log.reader.page(LogQuery(TOPIC, start=at(20), end=at(41))).table) == [2, 3, 4]


@pytest.mark.parametrize("newest_first", [True, False])
def test_a_page_that_its_limit_cut_goes_on_at_its_cursor(log: Log, newest_first: bool) -> None:
    writer = log.writer()
    writer.append(log_rows([1, 1, 1], [0, 1, 2]))
    writer.append(log_rows([1, 2], [3, 4]))
    log.settle()
    query = LogQuery(TOPIC, limit=2, newest_first=newest_first)

    pages = [log.reader.page(query)]
    while pages[-1].cursor:
        pages.append(log.reader.page(replace(query, cursor=pages[-1].cursor)))

    limited = PageStatus.RECORD_LIMITED
    assert [page.status for page in pages] == [limited, limited, PageStatus.ALL]
    order = [4, 3, 2, 1, 0] if newest_first else [0, 1, 2, 3, 4]
    assert [n for page in pages for n in numbers(page.table)] == order


def test_a_page_is_cut_at_its_bytes_but_never_to_nothing(log: Log) -> None:
    writer = log.writer()
    for n in range(20):
        writer.append(log_rows([n], [n]))
    log.settle()
    everything = log.reader.page(LogQuery(TOPIC))

    half = log.reader.page(LogQuery(TOPIC, max_bytes=everything.table.nbytes // 2))
    least = log.reader.page(LogQuery(TOPIC, max_bytes=1))

    assert half.status is PageStatus.BYTE_LIMITED
    assert 8 <= half.table.num_rows <= 10
    assert half.table.nbytes <= everything.table.nbytes // 2
    assert (least.table.num_rows, least.status) == (1, PageStatus.BYTE_LIMITED)
    rest = log.reader.page(LogQuery(TOPIC, cursor=half.cursor))
    assert numbers(half.table) + numbers(rest.table) == list(range(20))


@pytest.mark.parametrize("newest_first", [True, False])
def test_an_answer_never_mixes_schemas(log: Log, newest_first: bool) -> None:
    writer = log.writer()
    for n in range(4):
        writer.append(log_rows([n], [n], output="price" if n >= 2 else "forecast"))
    writer.append(log_rows([4], [4]))
    log.settle()
    query = LogQuery(TOPIC, newest_first=newest_first)

    pages = [log.reader.page(query)]
    while pages[-1].cursor:
        pages.append(log.reader.page(replace(query, cursor=pages[-1].cursor)))

    order = [[4], [3, 2], [1, 0]] if newest_first else [[0, 1], [2, 3], [4]]
    assert [numbers(page.table) for page in pages] == order
    assert [page.status for page in pages] == [PageStatus.SCHEMA_CHANGE, PageStatus.SCHEMA_CHANGE, PageStatus.ALL]
    assert "out.price" in pages[1].table.column_names
    assert "out.forecast" not in pages[1].table.column_names


def test_a_cursor_going_up_meets_rows_that_came_meanwhile_late_ones_first(log: Log) -> None:
    fast, slow = log.writer("engine-a"), log.writer("engine-b")
    for ms in (10, 20, 30, 40):
        fast.append(log_rows([ms], [ms]))
    slow.append(log_rows([15], [15]))
    first = log.reader.page(LogQuery(TOPIC, limit=4))
    slow.append(log_rows([25], [25]))  # behind what was read already
    slow.append(log_rows([45], [45]))
    log.writer("engine-c").append(log_rows([5], [5]))
    log.settle()

    second = log.reader.page(LogQuery(TOPIC, limit=1, cursor=first.cursor))
    third = log.reader.page(LogQuery(TOPIC, limit=10, cursor=second.cursor))

    assert numbers(first.table) == [10, 15, 20, 30]
    assert numbers(second.table) + numbers(third.table) == [25, 5, 40, 45]
    assert third.cursor is None


def test_a_cursor_going_down_does_not_meet_newer_rows(log: Log) -> None:
    writer = log.writer()
    for n in range(4):
        writer.append(log_rows([n], [n]))
    first = log.reader.page(LogQuery(TOPIC, limit=2, newest_first=True))
    writer.append(log_rows([9], [9]))
    log.settle()

    second = log.reader.page(LogQuery(TOPIC, limit=9, newest_first=True, cursor=first.cursor))

    assert numbers(first.table) + numbers(second.table) == [3, 2, 1, 0]


@pytest.mark.parametrize(
    ("columns", "exclude", "names"),
    [
        (("*",), ("metadata",), ["time", "in.number", "in.tensor", "out.forecast", "anomaly.count"]),
        (("time", "out"), (), ["time", "out.forecast"]),
        (("out.forecast", "time"), (), ["time", "out.forecast"]),
        (("*",), ("metadata", "in.tensor", "anomaly"), ["time", "in.number", "out.forecast"]),
        (("metadata",), ("metadata.elapsed", "metadata.dropped"), ["metadata.last_model"]),
        (("in.num",), (), []),
        (("out.f",), (), []),
    ],
)
def test_prefixes_choose_columns(
    log: Log, columns: tuple[str, ...], exclude: tuple[str, ...], names: list[str]
) -> None:
    log.writer().append(log_rows([1]))
    log.settle()

    assert log.reader.page(LogQuery(TOPIC, columns=columns, exclude=exclude)).table.column_names == names


def test_every_type_comes_back_as_it_was(log: Log) -> None:
    inner, strict = pa.field("inner", pa.float32(), nullable=False), pa.field("a", pa.int8(), nullable=False)
    row = {
        "time": (pa.timestamp("ms"), dt.datetime(2026, 1, 2, 3, 4, 5, 6000)),
        "in.tensor": (pa.list_(pa.float64()), [1.5, None]),
        "in.ragged": (pa.list_(pa.list_(pa.int32())), [[1], [], [2, 3]]),
        "in.fixed": (pa.list_(pa.float32(), 2), [1.0, 2.0]),
        "in.matrix": (pa.list_(pa.list_(pa.uint8(), 2), 2), [[1, 2], [3, 4]]),
        "in.struct": (pa.struct([strict, ("b", pa.list_(pa.string()))]), {"a": 1, "b": ["x"]}),
        "in.structs": (pa.list_(pa.struct([("x", pa.int16())])), [{"x": 1}, None]),
        "in.text": (pa.large_string(), "ü"),
        "in.bytes": (pa.binary(), b"\x00\xff"),
        "in.large": (pa.large_list(pa.large_binary()), [b"1"]),
        "in.day": (pa.date32(), dt.date(2026, 1, 2)),
        "in.day64": (pa.date64(), dt.date(2026, 1, 2)),
        "in.second": (pa.timestamp("s", "UTC"), dt.datetime(2026, 1, 2, tzinfo=dt.UTC)),
        "in.nano": (pa.timestamp("ns"), dt.datetime(2026, 1, 2)),
        "in.decimal": (pa.decimal128(12, 3), decimal.Decimal("1.250")),
        "in.flag": (pa.bool_(), True),
        "in.null": (pa.null(), None),
        "in.a": (pa.uint64(), 2**64 - 1),
        "in.a.b": (pa.int8(), -1),
        "out.variable": (pa.list_(inner), [2.5]),
        "anomaly.count": (pa.uint32(), 7),
        "metadata.dropped": (pa.list_(pa.string()), ["in.image"]),
    }  # fmt: skip
    schema = pa.schema([pa.field(name, kind) for name, (kind, _) in row.items()])
    filled = {name: value for name, (_, value) in row.items()}
    nulls = {name: filled["time"] if name == "time" else None for name in row}
    rows = pa.RecordBatch.from_pylist([filled, nulls, filled], schema=schema)
    log.writer().append(rows.slice(1))
    log.settle()

    table = log.reader.page(LogQuery(TOPIC)).table

    assert table.schema.equals(schema)
    assert table.equals(pa.table(rows.slice(1)))


@pytest.mark.parametrize(
    "query",
    [
        LogQuery(TOPIC, limit=0),
        LogQuery(TOPIC, start=dt.datetime(2026, 1, 1)),
        LogQuery(TOPIC, cursor="nonsense"),
        LogQuery(TOPIC, cursor="ü"),
        LogQuery(TOPIC, cursor=""),
    ],
)
def test_a_query_that_cannot_be_answered_is_refused(log: Log, query: LogQuery) -> None:
    with pytest.raises(BadInput):
        log.reader.page(query)


def test_a_cursor_of_another_order_or_topic_is_refused(log: Log) -> None:
    log.writer().append(log_rows([1, 2]))
    cursor = log.reader.page(LogQuery(TOPIC, limit=1)).cursor

    for query in (LogQuery(TOPIC, newest_first=True, cursor=cursor), LogQuery(FAILURES, cursor=cursor)):
        with pytest.raises(BadInput, match="another topic or order"):
            log.reader.page(query)


def test_a_row_without_its_time_is_refused_and_the_log_goes_on(log: Log) -> None:
    writer = log.writer()
    good = log_rows([1], [1])
    bad_type = good.set_column(0, "time", pa.array([1], pa.timestamp("us")))
    null = good.set_column(0, "time", pa.array([None], pa.timestamp("ms")))

    for rows in (good.drop_columns(["time"]), bad_type, null):
        with pytest.raises(BadInput, match="'time'"):
            writer.append(rows)
    writer.append(good)

    assert numbers(log.reader.page(LogQuery(TOPIC)).table) == [1]


def test_a_closed_writer_takes_nothing_and_closing_again_is_fine(log: Log) -> None:
    writer = log.writer()
    writer.append(log_rows([1]))
    writer.close()
    writer.close()

    with pytest.raises(Unavailable):
        writer.append(log_rows([2]))
    assert log.reader.page(LogQuery(TOPIC)).table.num_rows == 1


def test_no_rows_are_no_record(log: Log) -> None:
    log.writer().append(log_rows([1]).slice(1))

    assert log.reader.info(TOPIC).partitions == {}


def test_what_rows_share_is_in_each_of_them_when_they_are_read(log: Log) -> None:
    writer = log.writer()
    shape, _, _ = request_rows([0])
    expected = []
    for at, numbers in enumerate([[1], [2, 3, 4], [5, 6]]):
        _, shared, rows = request_rows(numbers)
        writer.append_request(shape, 100 + at, shared, rows)
        expected.append(whole_rows(shape, 100 + at, shared, rows))
    log.settle()

    table = log.reader.page(LogQuery(TOPIC)).table

    assert table.schema.equals(shape.schema)
    assert repr(table.to_pylist()) == repr(pa.Table.from_batches(expected).to_pylist())  # NaN equals itself in text
    assert log.reader.info(TOPIC).partitions == {"engine-a": 6}


def test_columns_of_rows_that_share_can_be_chosen_one_by_one(log: Log) -> None:
    shape, shared, rows = request_rows([7, 8])
    writer = log.writer()
    writer.append_request(shape, 100, shared, rows)
    log.settle()
    whole = whole_rows(shape, 100, shared, rows)

    for name in shape.schema.names:
        table = log.reader.page(LogQuery(TOPIC, columns=(name,))).table
        assert table.column_names == [name]
        assert repr(table[name].to_pylist()) == repr(whole[name].to_pylist())


@pytest.mark.parametrize("newest_first", [False, True])
def test_rows_that_share_and_rows_that_do_not_take_turns(log: Log, newest_first: bool) -> None:
    writer = log.writer()
    shape, other = request_rows([0])[0], request_rows([0], partition="engine-b")[0]
    for n in range(12):
        if n % 3 == 2:
            writer.append(log_rows([1000 + n], [n]))
        else:
            _, shared, rows = request_rows([n])
            writer.append_request(shape if n % 2 else other, 1000 + n, shared, rows)
    log.settle()

    found: list[int] = []
    cursor = None
    while True:
        page = log.reader.page(LogQuery(TOPIC, limit=2, newest_first=newest_first, cursor=cursor))
        found += numbers(page.table)
        if "metadata.partition" in page.table.column_names:
            told = page.table["metadata.partition"].to_pylist()
            assert told == ["engine-a" if n % 2 else "engine-b" for n in numbers(page.table)]
        if (cursor := page.cursor) is None:
            break
    assert found == (list(range(12))[::-1] if newest_first else list(range(12)))


def test_a_request_of_another_shape_than_it_says_is_refused_and_the_log_goes_on(log: Log) -> None:
    writer = log.writer()
    shape, shared, rows = request_rows([1])
    lacking = replace(shape, shared=shape.shared[:-1])
    twice = replace(shape, constant={**shape.constant, "in.number": 1})
    timeless = replace(shape, schema=shape.schema.remove(0))

    for wrong in (lacking, twice, timeless):
        with pytest.raises(BadInput):
            writer.append_request(wrong, 1, shared, rows)
    for unfit in (rows.slice(1), rows.drop_columns(["in.tensor"])):
        with pytest.raises(BadInput):
            writer.append_request(shape, 1, shared, unfit)
    with pytest.raises(BadInput):
        writer.append_request(shape, 1, shared[:-1], rows)
    writer.append_request(shape, 1, shared, rows)

    assert numbers(log.reader.page(LogQuery(TOPIC)).table) == [1]
