"""Columns as raw buffers on the worker's side of the socket: to numpy for the model, from numpy for the answer.

A column is a tree of JSON objects beside raw buffers, each buffer padded to 8 bytes:

    {"kind": "fixed", "dtype": "<i4", "n": rows}              one buffer of values
    {"kind": "utf8" | "binary", "n": rows}                    offsets (int64, n + 1), then the bytes
    {"kind": "list", "n": rows, "child": {…}}                 offsets (int64, n + 1), then the child's buffers
    {"kind": "fixed_list", "n": rows, "size": k, "child": {…}}  the child's buffers
    {"kind": "struct", "n": rows, "names": […], "children": […]}  the children's buffers

Type trees, agreed at load, have the same form without `n` and with `of`, the type's name for people. Booleans are one
byte each, dates and timestamps numpy's datetime64, decimals 16 bytes (two's complement) with a `scale` and a
`precision`. Nothing here unpickles, and nothing needs more than numpy.
"""

from __future__ import annotations

import datetime
import decimal
import numbers
from typing import Any, Dict, List, Tuple, Union

import numpy as np

_INT64 = np.dtype("<i8")


class Misfit(ValueError):
    """An answer that does not fit the output schema. Names field and type, never a value."""


# --- to numpy -------------------------------------------------------------------------------------------------------


class ColumnReader:
    """Reads columns off a frame's body, one after another. The arrays are views of `body` where that is possible."""

    def __init__(self, body: Union[bytearray, memoryview]) -> None:
        self._body = body
        self._at = 0

    def column(self, tree: Dict[str, Any]) -> np.ndarray:
        """One array, its first axis the rows.

        Lists of equal length make an array of one more dimension, ragged ones an object array of arrays; text, bytes,
        decimals and structs (as dicts) an object array.
        """
        kind, n = tree["kind"], tree["n"]
        if kind == "fixed":
            values = self._buffer(np.dtype(tree["dtype"]), n)
            return _decimals(values, tree["scale"]) if values.dtype.kind == "V" else values
        if kind in ("utf8", "binary"):
            return self._texts(n, as_text=kind == "utf8")
        if kind == "list":
            offsets = self._buffer(_INT64, n + 1)
            child = self.column(tree["child"])
            return child.reshape((1, *child.shape)) if n == 1 else _lists(offsets, child)
        if kind == "fixed_list":
            child = self.column(tree["child"])
            return child.reshape((n, tree["size"], *child.shape[1:]))
        children = [self.column(child) for child in tree["children"]]
        structs = np.empty(n, dtype=object)
        for i in range(n):
            structs[i] = dict(zip(tree["names"], (child[i] for child in children)))
        return structs

    def _buffer(self, dtype: np.dtype, n: int) -> np.ndarray:
        values = np.frombuffer(self._body, dtype=dtype, count=n, offset=self._at) if n else np.empty(0, dtype)
        self._at += values.nbytes + -values.nbytes % 8
        return values

    def _texts(self, n: int, as_text: bool) -> np.ndarray:
        offsets = self._buffer(_INT64, n + 1).tolist()
        data = self._buffer(np.dtype("u1"), offsets[-1]).data
        texts = np.empty(n, dtype=object)
        for i in range(n):
            piece = data[offsets[i] : offsets[i + 1]]
            texts[i] = str(piece, "utf-8") if as_text else bytes(piece)
        return texts


def _lists(offsets: np.ndarray, child: np.ndarray) -> np.ndarray:
    n = len(offsets) - 1
    lengths = np.diff(offsets)
    if n == 0 or bool((lengths == lengths[0]).all()):
        length = int(lengths[0]) if n else 0
        return child.reshape((n, length, *child.shape[1:]))
    ragged = np.empty(n, dtype=object)
    for i in range(n):
        ragged[i] = child[offsets[i] : offsets[i + 1]]
    return ragged


def _decimals(values: np.ndarray, scale: int) -> np.ndarray:
    out = np.empty(len(values), dtype=object)
    exact = decimal.Context(prec=76)
    for i, raw in enumerate(values):
        out[i] = decimal.Decimal(int.from_bytes(bytes(raw), "little", signed=True)).scaleb(-scale, exact)
    return out


# --- from numpy -----------------------------------------------------------------------------------------------------


def write_answer(answer: object, fields: List[Dict[str, Any]], rows: int) -> Tuple[List[Dict[str, Any]], List[Any]]:
    """What a model returned, as column trees in the order of `fields` and the buffers that go with them.

    Raises:
        Misfit: it is no dict, lacks a field, has another number of rows, or a value that its type cannot hold.
    """
    if not isinstance(answer, dict):
        raise Misfit(
            "process_data returned %s. Return a dict with one numpy array per output field: %s."
            % (_kind(answer), ", ".join(field["name"] for field in fields))
        )
    missing = [field["name"] for field in fields if field["name"] not in answer]
    if missing:
        raise Misfit(
            "process_data returned no %s. It returned: %s. Return every field of the output schema."
            % (", ".join(map(repr, missing)), ", ".join(sorted(map(str, answer))) or "an empty dict")
        )
    trees: List[Dict[str, Any]] = []
    buffers: List[Any] = []
    for field in fields:
        writer = _ColumnWriter(field["name"], field["type"]["of"], buffers)
        values = writer.as_rows(answer[field["name"]])
        if len(values) != rows:
            raise writer.misfit("%d rows were returned for %d rows" % (len(values), rows), "return one per input row")
        trees.append(writer.column(values, field["type"]))
    return trees, buffers


class _ColumnWriter:
    def __init__(self, name: str, of: str, buffers: List[Any]) -> None:
        self._name, self._of, self._buffers = name, of, buffers

    def misfit(self, found: str, expected: str) -> Misfit:
        return Misfit("Output field '%s' (%s): %s; %s." % (self._name, self._of, found, expected))

    def as_rows(self, values: object) -> np.ndarray:
        """Any sequence as an array whose first axis is the rows."""
        if isinstance(values, (list, tuple)):
            values = self._flat(values)
        elif not isinstance(values, np.ndarray):
            if not hasattr(values, "__array__"):
                raise self.misfit("found %s" % _kind(values), "expected a numpy array")
            values = np.asarray(values)
        if isinstance(values, np.ma.MaskedArray):
            if np.ma.is_masked(values):
                raise self.misfit("found masked values", "expected a value in every row")
            values = values.data
        if values.ndim == 0:
            raise self.misfit("found a single value", "expected an array with one entry per row")
        return values

    def column(self, values: np.ndarray, tree: Dict[str, Any]) -> Dict[str, Any]:
        kind = tree["kind"]
        if kind in ("list", "fixed_list"):
            return self._list(values, tree)
        values = self._one_per_row(values)
        if kind == "fixed":
            return self._fixed(values, tree)
        if kind in ("utf8", "binary"):
            return self._texts(values, kind)
        children = []
        for name, child in zip(tree["names"], tree["children"]):
            for value in values:
                if not isinstance(value, dict) or name not in value:
                    found = "a struct without '%s'" % name if isinstance(value, dict) else _kind(value)
                    raise self.misfit("found %s" % found, "expected a dict with %s" % ", ".join(tree["names"]))
            children.append(self.column(self._flat([value[name] for value in values]), child))
        return {"kind": "struct", "n": len(values), "names": tree["names"], "children": children}

    def _one_per_row(self, values: np.ndarray) -> np.ndarray:
        if values.ndim == 1:
            return values
        if all(size == 1 for size in values.shape[1:]):
            return values.reshape(len(values))
        raise self.misfit("found an array of shape %s" % (values.shape,), "expected shape (%d,)" % len(values))

    def _flat(self, items: Any) -> np.ndarray:
        """A one-dimensional array of these items; numbers of one type make a plain array, the rest stays objects."""
        kinds = set(map(type, items))
        if len(kinds) == 1 and issubclass(next(iter(kinds)), (bool, int, float, np.number, np.bool_)):
            try:
                plain = np.array(items)
            except OverflowError:
                plain = np.empty(0, dtype=object)
            if plain.ndim == 1 and plain.dtype != object:
                return plain
        objects = np.empty(len(items), dtype=object)
        for i, item in enumerate(items):
            objects[i] = item
        return objects

    # lists

    def _list(self, values: np.ndarray, tree: Dict[str, Any]) -> Dict[str, Any]:
        n, size = len(values), tree.get("size")
        lengths: Any
        if values.dtype == object and values.ndim == 1:
            child, lengths = self._joined(values)
        else:
            if values.ndim == 1:
                values = values.reshape(n, 1)  # one value per row for a list field: lists of one
            lengths = values.shape[1:2]  # the same in every row
            child = values.reshape((n * values.shape[1], *values.shape[2:]))
        if size is not None:
            found = np.asarray(lengths)
            odd = found[found != size]
            if n and len(odd):
                raise self.misfit("found a list of %d values" % odd[0], "expected %d in every row" % size)
            return {"kind": "fixed_list", "n": n, "size": size, "child": self.column(child, tree["child"])}
        if len(lengths) == n:
            offsets = np.zeros(n + 1, dtype=_INT64)
            np.cumsum(lengths, out=offsets[1:])
        else:
            offsets = np.arange(n + 1, dtype=_INT64) * lengths[0]
        self._buffers.append(offsets)
        return {"kind": "list", "n": n, "child": self.column(child, tree["child"])}

    def _joined(self, values: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
        """The entries of all rows, one after another, and how many each row has."""
        rows: List[Any] = []
        for value in values:
            if value is None:
                raise self.misfit("found None", "expected a list in every row")
            row = value if isinstance(value, (list, tuple, np.ndarray)) else [value]
            rows.append([row[()]] if isinstance(row, np.ndarray) and row.ndim == 0 else row)
        lengths = np.array([len(row) for row in rows], dtype=_INT64)
        if rows and all(isinstance(row, np.ndarray) and row.dtype != object for row in rows):
            filled = [row for row in rows if len(row)] or rows[:1]
            first = filled[0]
            if all(row.dtype == first.dtype and row.shape[1:] == first.shape[1:] for row in filled):
                return np.concatenate(filled), lengths
        return self._flat([item for row in rows for item in row]), lengths

    # values of a fixed size

    def _fixed(self, values: np.ndarray, tree: Dict[str, Any]) -> Dict[str, Any]:
        target = np.dtype(tree["dtype"])
        if target.kind == "V":
            out = self._from_decimals(values, tree)
            column = {"kind": "fixed", "dtype": tree["dtype"], "n": len(values), "scale": tree["scale"]}
        else:
            out = self._cast(values, target)
            column = {"kind": "fixed", "dtype": tree["dtype"], "n": len(values)}
        self._buffers.append(np.ascontiguousarray(out))
        return column

    def _cast(self, values: np.ndarray, target: np.dtype) -> np.ndarray:
        if values.dtype == target:
            if target.kind == "M" and bool(np.isnat(values).any()):
                raise self.misfit("found NaT", "expected a date or time in every row")
            return values
        if target.kind == "M":
            return self._cast_times(values, target)
        if values.dtype == object:
            values = self._numbers(values)
        if values.dtype.kind not in "biuf":
            raise self.misfit("found %s" % values.dtype, "expected numbers")
        if target.kind == "b":
            if values.dtype.kind != "b" and not bool(((values == 0) | (values == 1)).all()):
                raise self.misfit("found numbers other than 0 and 1", "expected True or False")
            return values.astype(target)
        if target.kind == "f":
            with np.errstate(over="ignore", invalid="ignore"):
                out = values.astype(target)
            if bool((np.isinf(out) & np.isfinite(values)).any()):
                raise self.misfit("found a value beyond its range", "return smaller ones, or declare a wider type")
            return out
        return self._cast_integers(values, target)

    def _cast_integers(self, values: np.ndarray, target: np.dtype) -> np.ndarray:
        limits = np.iinfo(target)
        if values.dtype.kind == "f":
            if not bool(np.isfinite(values).all()):
                raise self.misfit("found NaN or infinity", "expected whole numbers")
            if not bool((np.trunc(values) == values).all()):
                raise self.misfit(
                    "found a number with a fraction", "expected whole numbers: round them, or declare a float"
                )
            # float(limits.max) rounds up to 2**63 for 64 bits, so the upper bound is compared as "less than max + 1"
            fits = (values >= float(limits.min)) & (values < float(limits.max + 1))
        elif values.dtype.kind == "b" or np.can_cast(values.dtype, target):
            return values.astype(target)
        else:
            fits = np.array(
                [limits.min <= int(values.min()) and int(values.max()) <= limits.max] if len(values) else [True]
            )
        if not bool(fits.all()):
            raise self.misfit("found a value beyond its range", "return smaller ones, or declare a wider type")
        return values.astype(target)

    def _numbers(self, values: np.ndarray) -> np.ndarray:
        for value in values:
            if not isinstance(value, (numbers.Real, np.bool_, decimal.Decimal)):
                raise self.misfit("found %s" % _kind(value), "expected a number in every row")
        if all(isinstance(value, (numbers.Integral, np.bool_)) for value in values):
            for dtype in ("<i8", "<u8"):
                try:
                    return np.array([int(value) for value in values], dtype=dtype)
                except OverflowError:
                    continue
            raise self.misfit("found a value beyond its range", "return smaller ones, or declare a wider type")
        return np.array([float(value) for value in values], dtype="<f8")

    def _cast_times(self, values: np.ndarray, target: np.dtype) -> np.ndarray:
        if values.dtype == object:
            for value in values:
                if not isinstance(value, (datetime.date, np.datetime64)) or value != value:
                    raise self.misfit("found %s" % _kind(value), "expected a date or time in every row")
            plain = [_without_zone(value) for value in values]
            values = np.array(plain, dtype="M8") if plain else np.empty(0, target)
        if values.dtype.kind != "M":
            raise self.misfit("found %s" % values.dtype, "expected datetime64 or datetime objects")
        if bool(np.isnat(values).any()):
            raise self.misfit("found NaT", "expected a date or time in every row")
        out = values.astype(target)
        if bool((out.astype(values.dtype) != values).any()):
            raise self.misfit("found times that %s cannot hold" % target, "round them, or declare a finer unit")
        return out

    def _from_decimals(self, values: np.ndarray, tree: Dict[str, Any]) -> np.ndarray:
        scale, limit = tree["scale"], 10 ** tree["precision"]
        exact = decimal.Context(prec=120)
        out = bytearray()
        for value in values:
            if isinstance(value, (numbers.Integral, np.integer)):
                value = decimal.Decimal(int(value))
            if not isinstance(value, decimal.Decimal) or not value.is_finite():
                raise self.misfit("found %s" % _kind(value), "expected decimal.Decimal or whole numbers")
            scaled = value.scaleb(scale, exact)
            whole = int(scaled)
            if whole != scaled or abs(whole) >= limit:
                raise self.misfit("found a value that it cannot hold", "quantize it, or declare a wider type")
            out += whole.to_bytes(16, "little", signed=True)
        return np.frombuffer(out, dtype="u1") if out else np.empty(0, "u1")

    # text and bytes

    def _texts(self, values: np.ndarray, kind: str) -> Dict[str, Any]:
        wanted, expected = ((str,), "text") if kind == "utf8" else ((bytes, bytearray, memoryview), "bytes")
        pieces = []
        for value in values.tolist() if values.dtype.kind in "US" else values:
            if not isinstance(value, wanted):
                raise self.misfit("found %s" % _kind(value), "expected %s in every row" % expected)
            try:
                pieces.append(value.encode("utf-8") if isinstance(value, str) else bytes(value))
            except UnicodeEncodeError:
                raise self.misfit("found text with half a character", "expected valid Unicode") from None
        offsets = np.zeros(len(pieces) + 1, dtype=_INT64)
        np.cumsum([len(piece) for piece in pieces], out=offsets[1:])
        self._buffers += [offsets, np.frombuffer(b"".join(pieces), dtype="u1")]
        return {"kind": kind, "n": len(pieces)}


def _without_zone(value: Any) -> Any:
    """numpy's times are UTC without saying so."""
    if isinstance(value, datetime.datetime) and value.tzinfo is not None:
        return value.astimezone(datetime.timezone.utc).replace(tzinfo=None)
    return value


def _kind(value: object) -> str:
    return "None" if value is None else "a value of type %s" % type(value).__name__
