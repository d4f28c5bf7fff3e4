"""MySQL's values and Arrow's. What the server sends as text is cast column by column, not value by value."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as types

from bettong.drivers import sql
from bettong.drivers.sql_forms import scalar_form
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

FETCH_ROWS = 8_192
PACKET_BYTES = 64 * 1024
_MARK = "`"
_HERE = "v"
_UNSIGNED, _BINARY_CHARSET = 32, 63
# Numbers of the protocol.
_DECIMALS, _YEAR, _BIT, _JSON, _TIME, _DATE, _NULL = (0, 246), 13, 16, 245, 11, (10, 14), 6
_INTEGERS = {1: (pa.int8(), pa.uint8()), 2: (pa.int16(), pa.uint16()), 3: (pa.int32(), pa.uint32())}
_INTEGERS |= {8: (pa.int64(), pa.uint64()), 9: (pa.int32(), pa.uint32())}
_NULL_VALUE, _WIDTHS = 251, {252: 2, 253: 3, 254: 8}  # how a value's length is written
_STAMPS, _MOMENTS = (7, 12, 17, 18), (7, 17)


def stream(
    connection: Any,
    query: str,
    parameters: tuple[Any, ...],
    batch_rows: int,
    failed: Callable[[str], AbstractContextManager[None]],
) -> pa.RecordBatchReader:
    """The rows of a query, fetched as they are asked for."""
    from pymysql.cursors import SSCursor

    with failed(query):
        cursor = SSCursor(connection)
        # Bound by the library: the text of each is quoted by the rules of this connection's character set.
        cursor.execute(cursor.mogrify(query, parameters) if parameters else query)
    if cursor.description is None:
        raise BadInput("The query gives no rows.", "Send a SELECT.")
    fields = cursor._result.fields
    cursor._result._read_row_from_packet = _raw_row  # a third of the time that the library takes to make objects
    schema = pa.schema([pa.field(field.name, _type(field)) for field in fields])

    def batches() -> Iterator[pa.RecordBatch]:
        size = min(batch_rows, FETCH_ROWS)
        while True:
            with failed(query):
                rows = cursor.fetchmany(size)
            if not rows:
                return
            columns = [
                _column(values, field.type, field.name)
                for values, field in zip(zip(*rows, strict=True), schema, strict=True)
            ]
            yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return pa.RecordBatchReader.from_batches(schema, batches())


def key(expression: str, column: Any) -> str:
    """A key as an expression that only equal values have in common: collations take texts of different bytes for the
    same. Raises BadInput for one that is not read exactly."""
    if types.is_float32(column.type):
        raise sql.inexact_key(column.name, "FLOAT")
    if types.is_string(column.type):
        return f"CAST(CONVERT({expression} USING utf8mb4) AS BINARY)"
    return expression


def loaded_as(kind: pa.DataType) -> Any:
    flat = scalar_form(kind)
    if flat is not None and types.is_duration(flat):
        return pa.int64()
    return flat if flat is not None else pa.string()


def declaration(kind: Any, *, key: bool = False) -> str:
    """The type of a column for values of `kind`. Texts that are keys are kept short enough for an index."""
    if types.is_timestamp(kind):
        return "DATETIME(6)"
    if types.is_decimal(kind):
        return f"DECIMAL({min(kind.precision, 65)}, {max(0, kind.scale)})"
    for holds, said in (
        (types.is_boolean, "BOOLEAN"),
        (types.is_uint64, "BIGINT UNSIGNED"),
        (types.is_int8, "SMALLINT"),
        (types.is_int16, "SMALLINT"),
        (types.is_uint8, "SMALLINT"),
        (types.is_int32, "INT"),
        (types.is_uint16, "INT"),
        (types.is_integer, "BIGINT"),
        (types.is_duration, "BIGINT"),
        (types.is_float64, "DOUBLE"),
        (types.is_floating, "FLOAT"),
        (types.is_date, "DATE"),
        (types.is_time, "TIME(6)"),
    ):
        if holds(kind):
            return said
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return "VARBINARY(255)" if key else "LONGBLOB"
    if types.is_nested(kind):
        return "JSON"
    return "VARCHAR(255)" if key else "LONGTEXT"


def load(connection: Any, place: str, batch: pa.RecordBatch) -> None:
    """One batch by LOAD DATA LOCAL, from memory. The server answers with the wish for a file: whatever it names, it
    gets these rows, and no other statement of this connection grants such a wish.

    Raises:
        pymysql.MySQLError: the server refused a row; it would only warn, and leave the row out or bend it.
    """
    from pymysql.constants import COMMAND
    from pymysql.err import OperationalError
    from pymysql.protocol import OKPacketWrapper

    names = batch.schema.names
    variables = ", ".join(f"@c{n}" for n in range(len(names)))
    settings = ", ".join(
        f"{sql.quoted((name,), _MARK)} = {_loaded(n, field.type)}"
        for n, (name, field) in enumerate(zip(names, batch.schema, strict=True))
    )
    statement = (
        f"LOAD DATA LOCAL INFILE 'rows' INTO TABLE {place} CHARACTER SET utf8mb4 FIELDS TERMINATED BY ',' "
        f"OPTIONALLY ENCLOSED BY '\"' ESCAPED BY '' LINES TERMINATED BY '\\n' ({variables}) SET {settings}"
    )
    data = _csv(batch)
    connection._execute_command(COMMAND.COM_QUERY, statement)
    if connection._read_packet().is_load_local_packet():
        for start in range(0, len(data), PACKET_BYTES):
            connection.write_packet(bytes(data[start : start + PACKET_BYTES]))
        connection.write_packet(b"")
        answer = OKPacketWrapper(connection._read_packet())
        if answer.warning_count:
            with connection.cursor() as cursor:
                cursor.execute("SHOW WARNINGS")
                if refused := [(code, text) for level, code, text in cursor.fetchall() if level != "Note"]:
                    raise OperationalError(*refused[0])


def _csv(batch: pa.RecordBatch) -> memoryview:
    """Rows as CSV. A null is an empty field; a text that is there begins with a letter of ours, also the empty one."""
    import pyarrow.csv as pacsv

    columns = []
    for column in batch.columns:
        kind = column.type
        if types.is_boolean(kind):
            column = pc.cast(column, pa.int8())
        elif types.is_timestamp(kind):
            column = pc.cast(pc.cast(column, pa.timestamp("us")), pa.string())
        elif types.is_time(kind) or types.is_decimal(kind):
            column = pc.cast(column, pa.string())
        elif types.is_binary(kind):
            column = pa.array([None if v is None else _HERE + v.hex() for v in column.to_pylist()], pa.string())
        elif types.is_string(kind):
            column = cast("Any", pc).binary_join_element_wise(_HERE, column, "")
        columns.append(column)
    sink = io.BytesIO()
    table = pa.table(columns, names=batch.schema.names)
    pacsv.write_csv(table, sink, pacsv.WriteOptions(include_header=False, quoting_style="needed"))
    return sink.getbuffer()


def _loaded(n: int, kind: Any) -> str:
    """How a field of the file becomes a value."""
    if types.is_binary(kind):
        return f"IF(@c{n} = '', NULL, UNHEX(SUBSTRING(@c{n}, 2)))"
    return f"IF(@c{n} = '', NULL, SUBSTRING(@c{n}, 2))" if types.is_string(kind) else f"NULLIF(@c{n}, '')"


def _type(field: Any) -> Any:
    code, flags = field.type_code, field.flags
    if code in _INTEGERS:
        return _INTEGERS[code][1 if flags & _UNSIGNED else 0]
    if code in _DECIMALS:
        digits = field.length - (1 if field.scale else 0) - (0 if flags & _UNSIGNED else 1)
        return pa.decimal128(digits, field.scale) if 0 < digits <= 38 and field.scale <= digits else pa.string()
    if code == 4:
        return pa.float32()
    if code == 5:
        return pa.float64()
    if code == _YEAR:
        return pa.int16()
    if code in _DATE:
        return pa.date32()
    if code in _STAMPS:  # TIMESTAMP is a moment, DATETIME what a clock shows
        return pa.timestamp("us", "UTC" if code in _MOMENTS else None)
    if code == _BIT or (field.charsetnr == _BINARY_CHARSET and code not in (_JSON, _TIME, _NULL)):
        return pa.binary()
    return pa.string()  # texts, JSON, enums; TIME too, which may be longer than a day


def _raw_row(packet: Any) -> tuple[bytes | None, ...]:
    """The bytes of each value of a row, null as None."""
    data = packet.get_all_data()
    row: list[bytes | None] = []
    at, end = 0, len(data)
    while at < end:
        size = data[at]
        at += 1
        if size == _NULL_VALUE:
            row.append(None)
            continue
        if size > _NULL_VALUE:
            width = _WIDTHS[size]
            size, at = int.from_bytes(data[at : at + width], "little"), at + width
        row.append(data[at : at + size])
        at += size
    return tuple(row)


def _column(values: tuple[bytes | None, ...], kind: Any, name: str) -> Any:
    raw = pa.array(values, pa.binary())
    if types.is_binary(kind):
        return raw
    try:
        texts = pc.cast(raw, pa.string())
        if types.is_timestamp(kind):
            return pc.cast(pc.cast(texts, pa.timestamp("us")), kind)
        return pc.cast(texts, kind)
    except pa.ArrowInvalid:
        raise BadInput(
            f"Column '{name}' holds a value that no {kind} is, such as the date 0000-00-00.", "CAST it in the query."
        ) from None
