"""Messages as rows of a pipeline: JSON objects, arrays of them, or Arrow; of many messages one table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from bettong.engine.arrow_codec import FILE_MAGIC, fit_columns, read_arrow
from bettong.engine.faults import Fault, check_columns
from bettong.engine.json_codec import array_of
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from bettong.domain.drivers import Message

_STREAM_MAGIC = b"\xff\xff\xff\xff"  # what each message of an Arrow stream begins with
_MAX_UNPACKED_BYTES = 256 * 2**20
_FORMS = "Send a JSON object, an array of objects, or an Arrow stream or file."


@dataclass(frozen=True, slots=True)
class Taken:
    """A message that was read: how many rows it has, of each the fields to keep, and whether it was a single object."""

    message: Message
    rows: int
    kept: Sequence[dict[str, Any]]
    single: bool


@dataclass(frozen=True, slots=True)
class Refused:
    """A message that cannot be answered, and why: words of ours, without a value."""

    message: Message
    reason: str


@dataclass(frozen=True, slots=True)
class Batch:
    """Messages and their rows, in the same order."""

    taken: tuple[Taken, ...]
    rows: pa.Table

    def parts(self, count: int) -> Iterator[Batch]:
        """The messages in `count` parts of about the same number of messages, none empty."""
        count, at = min(count, len(self.taken)), 0
        for part in range(count):
            taken = self.taken[part * len(self.taken) // count : (part + 1) * len(self.taken) // count]
            rows = sum(each.rows for each in taken)
            yield Batch(taken, self.rows.slice(at, rows))
            at += rows


class MessageReader:
    """Reads messages for a pipeline that takes `schema`. Fields that it does not take are left aside.

    Args:
        keep: fields that predictions have, too. One that a message lacks is null.
        keys: columns that go along where every row of the messages has a value of them.
    """

    def __init__(self, schema: pa.Schema, keep: tuple[str, ...], keys: tuple[str, ...] = ()) -> None:
        self._schema, self._names, self._keep = schema, schema.names, keep
        self._keys = tuple(key for key in keys if key not in schema.names)
        self.lacking = set(keep)  # which of them no message had so far
        self.fields: list[str] = []  # of a message, while there are such

    def read(self, messages: Sequence[Message]) -> tuple[Batch, list[Refused]]:
        """Every message, in the batch or among those refused, both in their order."""
        refused: list[tuple[int, Refused]] = []
        read: list[tuple[int, Taken, Any]] = []
        for at, message in enumerate(messages):
            try:
                read.append((at, *self._open(message)))
            except BadInput as fault:
                refused.append((at, Refused(message, str(fault))))
        try:
            table = self._table([rows for _, _, rows in read])
        except BadInput:  # one of them does not fit: each alone tells which
            tables, fitting = [], []
            for at, taken, rows in read:
                try:
                    tables.append(self._table([rows]))
                    fitting.append((at, taken, rows))
                except BadInput as fault:
                    refused.append((at, Refused(taken.message, str(fault))))
            read, table = fitting, _joined(self._schema, tables)
        refused.sort(key=lambda each: each[0])
        return Batch(tuple(taken for _, taken, _ in read), table), [each for _, each in refused]

    def _open(self, message: Message) -> tuple[Taken, list[dict[str, Any]] | pa.Table]:
        if message.value.startswith((FILE_MAGIC, _STREAM_MAGIC)):
            return self._arrow(message)
        try:
            value = orjson.loads(message.value)
        except orjson.JSONDecodeError:
            raise BadInput("The message is neither JSON nor Arrow.", _FORMS) from None
        records = [value] if isinstance(value, dict) else value
        if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
            raise BadInput("The message is JSON, but no object and no array of objects.", _FORMS)
        if not records:
            raise BadInput("The message is an array without a row.", _FORMS)
        for at, record in enumerate(records):
            if any(name not in record for name in self._names):
                found = [name for name in record if name in self._names]
                check_columns(found, self._names, f"Row {at} of the message")
        kept = [{name: record.get(name) for name in self._keep} for record in records]
        self._note(*records)
        return Taken(message, len(records), kept, isinstance(value, dict)), records

    def _arrow(self, message: Message) -> tuple[Taken, pa.Table]:
        try:
            table = read_arrow(message.value, _MAX_UNPACKED_BYTES)
        except BadInput as fault:
            raise BadInput(fault.problem.replace("The body", "The message"), _FORMS) from None
        if table.num_rows == 0:
            raise BadInput("The message is Arrow without a row.", _FORMS)
        check_columns([name for name in table.column_names if name in self._names], self._names, "The message")
        fitted = fit_columns(table.select(self._names), self._schema, _MAX_UNPACKED_BYTES)
        for key in self._keys:
            if table.column_names.count(key) == 1 and not table.column(key).null_count:
                fitted = fitted.append_column(key, table.column(key))
        self._note(table.column_names)
        columns = {
            name: table.column(name).to_pylist() if table.column_names.count(name) == 1 else [None] * table.num_rows
            for name in self._keep
        }
        kept = [{name: values[at] for name, values in columns.items()} for at in range(table.num_rows)]
        return Taken(message, table.num_rows, kept, single=False), fitted

    def _note(self, *names: Collection[str]) -> None:
        if self.lacking:
            self.lacking.difference_update(*names)
            self.fields = list(names[0])

    def _table(self, pieces: Sequence[list[dict[str, Any]] | pa.Table]) -> pa.Table:
        """One table of what was opened. Runs of JSON become columns together: that costs a tenth of one by one."""
        tables: list[pa.Table] = []
        run: list[dict[str, Any]] = []
        for piece in pieces:
            if isinstance(piece, pa.Table):
                if run:
                    tables.append(self._from_records(run))
                    run = []
                tables.append(piece)
            else:
                run += piece
        if run:
            tables.append(self._from_records(run))
        return _joined(self._schema, tables)

    def _from_records(self, records: list[dict[str, Any]]) -> pa.Table:
        arrays = []
        for field in self._schema:
            try:
                arrays.append(array_of([record[field.name] for record in records], field.type))
            except Fault as fault:
                raise fault.as_bad_input(field.name) from None
        table = pa.Table.from_arrays(arrays, schema=self._schema)
        for key in self._keys:
            values = [record.get(key) for record in records]
            if None not in values:
                table = table.append_column(key, _key_array(key, values))
        return table


def _joined(schema: pa.Schema, tables: list[pa.Table]) -> pa.Table:
    if not tables:
        return schema.empty_table()
    return tables[0] if len(tables) == 1 else pa.concat_tables(tables)


def _key_array(key: str, values: list[Any]) -> Any:
    if len(kinds := set(map(type, values))) != 1 or not kinds <= {str, int, float, bool}:
        raise BadInput(f"Column '{key}' decides on the way of a row, and is neither text nor number.", "Send one kind.")
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError):
        raise BadInput(f"Column '{key}' holds a whole number of more than 64 bits.", "Send it as a text.") from None
