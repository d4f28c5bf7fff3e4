"""Answers of a pipeline as messages, and as rows of a table."""

from __future__ import annotations

import base64
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from bettong.domain.drivers import Message
from bettong.domain.stream_requests import KEY, SOURCE, answered, table_columns
from bettong.engine.json_answer import values_per_row
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from bettong.jobs.stream.rows import Batch, Taken

OF_JOB, OF_SOURCE, OF_VERSION = "bettong-job", "bettong-source", "bettong-pipeline-version"
ERROR, REPEATED = "bettong-error", "bettong-repeated"
_OPTIONS = orjson.OPT_SERIALIZE_NUMPY


def predictions(batch: Batch, answer: pa.Table, lineage: Mapping[str, str], repeated: Collection[str]) -> list[Message]:
    """A message for each of the batch, with its key and headers: an object for an object, else an array.

    `repeated` are positions that may have been answered before: their predictions say so in a header.
    """
    rows = _documents(batch, answer)
    made, at = [], 0
    for taken in batch.taken:
        mine = rows[at : at + taken.rows]
        at += taken.rows
        headers = {**taken.message.headers, **origin(taken, lineage)}
        headers.pop(ERROR, None)
        if taken.message.position in repeated:
            headers[REPEATED] = "perhaps"
        value = orjson.dumps(mine[0] if taken.single else mine, default=_plain, option=_OPTIONS)
        made.append(Message(value, taken.message.key, "", headers))
    return made


def with_own_headers(prediction: Message) -> Message:
    """Without the headers of the message that it answers."""
    own = {name: text for name, text in prediction.headers.items() if name in (OF_JOB, OF_SOURCE, OF_VERSION, REPEATED)}
    return Message(prediction.value, prediction.key, "", own)


def origin(taken: Taken, lineage: Mapping[str, str]) -> dict[str, str]:
    """The headers that say where a prediction comes from."""
    return {
        OF_JOB: lineage["job_id"],
        OF_SOURCE: taken.message.position,
        OF_VERSION: lineage["pipeline_version"],
    }


def table_rows(
    batch: Batch, answer: pa.Table, kinds: Mapping[str, pa.DataType], keep: Sequence[str], *, with_key: bool
) -> pa.Table:
    """A row for each row of the batch: the fields that are kept, the answer's columns, and which message it answers.

    Args:
        kinds: the types of columns, as far as they are known.
        keep: which fields are kept; each is a column.
        with_key: whether the key of the message is one, too.

    Raises:
        BadInput: a kept field does not fit its column.
    """
    columns: dict[str, Any] = {
        name: _kept_column(name, [row[name] for taken in batch.taken for row in taken.kept], kinds.get(name))
        for name in keep
    }
    for name, short in table_columns(answer.column_names).items():
        columns[short] = answer.column(name)
    sources, keys = [], []
    for taken in batch.taken:
        position = taken.message.position
        sources += [position] if taken.single else [f"{position}#{row}" for row in range(taken.rows)]
        keys += [_text(taken.message.key)] * taken.rows
    columns[SOURCE] = pa.array(sources, pa.string())
    if with_key:
        columns[KEY] = pa.array(keys, pa.string())
    return pa.table(columns)


def _documents(batch: Batch, answer: pa.Table) -> list[dict[str, Any]]:
    """One object per row: kept fields, `out` and what else the pipeline gives by group, and the time."""
    rows: list[dict[str, Any]] = [dict(row) for taken in batch.taken for row in taken.kept]
    for name in answered(answer.column_names):
        values = values_per_row(_whole(answer.column(name)))
        group, dot, rest = name.partition(".")
        if dot:
            for row, value in zip(rows, values, strict=True):
                row.setdefault(group, {})[rest] = value
        else:
            for row, value in zip(rows, values, strict=True):
                row[name] = value
    return rows


def _whole(column: pa.ChunkedArray[Any]) -> Any:
    combined = column.combine_chunks()
    return combined.chunk(0) if isinstance(combined, pa.ChunkedArray) else combined


def _kept_column(name: str, values: list[Any], kind: pa.DataType | None) -> Any:
    """The values in the type of their column, else in the one that they have; of several kinds, and nested, JSON."""
    if kind is not None and not pa.types.is_string(kind) and not pa.types.is_nested(kind):
        try:
            return _typed(values, kind)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            raise BadInput(f"Field '{name}' does not fit its column of type {kind}.", "Send values that do.") from None
    found = {type(value) for value in values} - {type(None)}
    if kind is None and (found <= {int, float} or len(found) == 1) and not found & {dict, list} and found:
        try:
            return pa.array([float(v) if v is not None else v for v in values] if float in found else values)
        except (pa.ArrowException, OverflowError):
            pass  # a number of more than 64 bits stays what it says
    return pa.array([v if v is None or isinstance(v, str) else _json(v) for v in values], pa.string())


def _typed(values: list[Any], kind: pa.DataType) -> Any:
    """The forms in which an inference takes them: times as ISO text or milliseconds since the epoch."""
    found = {type(value) for value in values} - {type(None)}
    if found == {str} and (pa.types.is_temporal(kind) or pa.types.is_decimal(kind)):
        return pa.array(values, pa.string()).cast(kind)
    if found == {int} and (pa.types.is_timestamp(kind) or pa.types.is_date(kind)):
        return pa.array(values, pa.int64()).cast(pa.timestamp("ms", getattr(kind, "tz", None))).cast(kind)
    return pa.array(values, kind)


def _text(key: bytes | None) -> str | None:
    try:
        return None if key is None else key.decode()
    except UnicodeDecodeError:
        return None


def _json(value: object) -> str:
    return orjson.dumps(value, default=_plain, option=_OPTIONS).decode()


def _plain(value: object) -> object:
    """What JSON has no form of, in the forms that answers have."""
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return format(value, "f") if isinstance(value, Decimal) else str(value)
