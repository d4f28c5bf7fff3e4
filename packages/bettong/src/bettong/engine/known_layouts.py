"""Arrow bodies laid out as one that came before: a program sends the same columns in the same sizes each time.

Where a body's values lie follows from its other bytes alone (messages, offsets of lists, the table of contents). So a
body that has all of them from one that was read and validated needs neither: its columns lie over its memory where the
others' did. That takes 5 to 8 of the 50 to 60 µs that reading an image or 10,000 rows takes otherwise, in a loop of its
own; behind a model that has emptied the caches both take twice as long.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa

from bettong.engine.arrow_lists import is_list

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bettong.engine.arrow_types import Array, Kind

    Key = tuple[int, bytes]

T = TypeVar("T")

MAX_KNOWN = 64  # of what clients send at the moment; beyond, the longest known goes
MAX_SEEN = 1024  # sizes of bodies that came once: clients whose requests all differ are not to pay for what is kept
MAX_FIXED_BYTES = 64 * 2**10  # that are compared, and kept
_BEGINNING = 256  # of its bytes tell a body from others of its length: magic and names of columns
_MAGIC_BYTES = 8


class _Span(NamedTuple):
    """Bytes of a body, `end` not among them."""

    start: int
    end: int


class _Part(NamedTuple):
    """How an array lies in a body: buffers behind the validity, which is none, and the array in each list."""

    kind: Kind
    length: int
    spans: tuple[_Span, ...]
    child: _Part | None


class _Layout(NamedTuple):
    fixed: tuple[tuple[_Span, bytes], ...]
    columns: tuple[_Part, ...]


class KnownLayouts:
    """The layouts of bodies that fit `schema`, whose columns are numbers or regular lists of them without a null."""

    def __init__(self, schema: pa.Schema, most: int = MAX_KNOWN) -> None:
        self._schema, self._most = schema, most
        self._takes = all(_is_numeric(field.type) for field in schema)
        self._known: dict[Key, _Layout] = {}
        self._seen: dict[Key, None] = {}

    def find(self, body: bytes | bytearray) -> pa.Table | None:
        """The rows of a body with a known layout, of exactly the schema, over its memory; None for any other."""
        if (layout := self._known.get(_key(body))) is None:
            return None
        for (start, end), known in layout.fixed:
            if body[start:end] != known:  # a view would be compared one by one
                return None
        buffer = pa.py_buffer(body)
        return pa.Table.from_arrays([_array(part, buffer) for part in layout.columns], schema=self._schema)

    def keep(self, body: bytes | bytearray, rows: pa.Table) -> None:
        """Know the layout of `body`, read as `rows`, if they lie in it as they came, and its like was here before."""
        if not self._takes:
            return
        key = _key(body)
        if key not in self._seen:
            _put(self._seen, key, None, MAX_SEEN)
        elif (layout := _layout_of(body, rows)) is not None:
            _put(self._known, key, layout, self._most)


def _put(into: dict[Key, T], key: Key, value: T, most: int) -> None:
    """Keep it in place of what has been there longest."""
    if key not in into and len(into) >= most:
        del into[next(iter(into))]
    into[key] = value


def _key(body: bytes | bytearray) -> Key:
    return len(body), bytes(body[:_BEGINNING])


def _is_numeric(kind: Kind) -> bool:
    while is_list(kind):
        kind = kind.value_type
    return pa.types.is_integer(kind) or pa.types.is_floating(kind)


def _array(part: _Part, buffer: pa.Buffer) -> Array:
    buffers: list[Any] = [None]
    for start, end in part.spans:
        buffers.append(buffer.slice(start, end - start))
    children: Any = None if part.child is None else [_array(part.child, buffer)]
    return pa.Array.from_buffers(part.kind, part.length, buffers, null_count=0, children=children)


# --- what is known of a body that was read ----------------------------------------------------------------------------


def _layout_of(body: bytes | bytearray, rows: pa.Table) -> _Layout | None:
    """None unless all that was read lies in the one batch of the body, and the bytes that are no values are few."""
    buffer = pa.py_buffer(body)
    base, columns = buffer.address, []
    for column in rows.columns:
        if column.num_chunks != 1 or (part := _part_of(column.chunk(0), base, len(body))) is None:
            return None
        columns.append(part)
    # Offsets that lie in values, which are not compared, would be believed of the next body whatever they are there
    if any(a.end > b.start for a, b in pairwise(sorted(span for part in columns for span in _spans(part)))):
        return None
    values = sorted(span for part in columns for span in _values(part))
    fixed = [_Span(a.end, b.start) for a, b in pairwise([_Span(0, 0), *values, _Span(len(body), len(body))])]
    if sum(span.end - span.start for span in fixed) > MAX_FIXED_BYTES:
        return None
    # A buffer may claim to lie anywhere: values that are not those of the batch would leave what tells of it uncompared
    if (batch := _only_batch(body, base)) is None or not values:
        return None
    if values[0].start < batch.start or values[-1].end > batch.end:
        return None
    return _Layout(tuple((span, bytes(body[span.start : span.end])) for span in fixed), tuple(columns))


def _part_of(array: Array, base: int, length: int) -> _Part | None:
    kind, buffers = array.type, array.buffers()
    if array.offset or array.null_count or buffers[0] is not None:
        return None
    if not is_list(kind):
        return _over(kind, len(array), buffers[1], len(array) * kind.bit_width // 8, None, base, length)
    if (child := _part_of(array.values, base, length)) is None:
        return None
    if pa.types.is_fixed_size_list(kind):
        return _Part(kind, len(array), (), child) if child.length == len(array) * kind.list_size else None
    width = 8 if pa.types.is_large_list(kind) else 4
    part = _over(kind, len(array), buffers[1], (len(array) + 1) * width, child, base, length)
    if part is None:
        return None
    bounds = np.frombuffer(buffers[1], np.int64 if width == 8 else np.int32, len(array) + 1)
    sizes = np.diff(bounds)
    return part if bounds[0] == 0 and (sizes == sizes[0]).all() and bounds[-1] == child.length else None


def _over(
    kind: Kind, count: int, buffer: pa.Buffer | None, size: int, child: _Part | None, base: int, length: int
) -> _Part | None:
    """The part whose one buffer begins with so many bytes, if they lie in the body."""
    if buffer is None or not count:
        return None
    start = buffer.address - base
    return _Part(kind, count, (_Span(start, start + size),), child) if 0 <= start <= length - size else None


def _spans(part: _Part | None) -> Iterator[_Span]:
    while part is not None:
        yield from part.spans
        part = part.child


def _values(part: _Part) -> Iterator[_Span]:
    while part.child is not None:
        part = part.child
    yield from part.spans


def _only_batch(body: bytes | bytearray, base: int) -> _Span | None:
    """Where the buffers of the one record batch lie; None when there are others, or dictionaries."""
    buffer = pa.py_buffer(body)
    messages: Sequence[Any]
    try:
        reader = pa.ipc.MessageReader.open_stream(buffer.slice(_MAGIC_BYTES) if body.startswith(b"ARROW1") else buffer)
        messages = list(reader)
    except (pa.ArrowException, OSError, ValueError):
        return None
    if [message.type for message in messages] != ["schema", "record batch"]:
        return None
    held = messages[1].body
    return _Span(held.address - base, held.address - base + held.size)
