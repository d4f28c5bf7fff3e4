"""Rows that nobody sent: to see whether a model answers at all, and to have it import what it imports late."""

from __future__ import annotations

import datetime
import decimal

import pyarrow as pa
import pyarrow.types as types

LIST_LENGTH = 32
_DAY = datetime.datetime(2024, 1, 1)


def made_up_row(schema: pa.Schema) -> pa.Table:
    """One row that fits the schema: lists hold 32 increasing numbers, texts say 'text'."""
    return pa.Table.from_arrays([pa.array([_value(f.type, 1)], f.type) for f in schema], schema=schema)


def _value(kind: pa.DataType, n: int) -> object:
    if types.is_list(kind) or types.is_large_list(kind):
        return [_value(kind.value_type, i + 1) for i in range(LIST_LENGTH)]
    if types.is_fixed_size_list(kind):
        return [_value(kind.value_type, i + 1) for i in range(kind.list_size)]
    if types.is_struct(kind):
        return {kind.field(i).name: _value(kind.field(i).type, n) for i in range(kind.num_fields)}
    if types.is_boolean(kind):
        return n % 2 == 1
    if types.is_integer(kind):
        return n % 128
    if types.is_floating(kind):
        return float(n)
    if types.is_decimal(kind):
        return decimal.Decimal(n % 10).scaleb(-kind.scale)
    if types.is_binary(kind) or types.is_large_binary(kind):
        return b"bytes"
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    moment = _DAY + datetime.timedelta(days=n)
    return moment.date() if types.is_date(kind) else moment
