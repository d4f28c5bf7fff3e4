"""Files as tables: patterns of names, folders of parts, columns from folder names. FILE, S3, GCS and AZURE share it."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import unquote
from uuid import uuid4

import pyarrow as pa

from bettong.domain.drivers import Entry, ReadOrder, ReadRequest, WriteMode, WriteRequest, WriteResult
from bettong.drivers import formats
from bettong.drivers.formats import FormatDetails, format_of, named_format
from bettong.errors import BadInput, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.drivers.formats import Format
    from bettong.drivers.trees import Tree

_WILD = re.compile(r"[*?\[]")
_NULL = "__HIVE_DEFAULT_PARTITION__"
_EXTENSIONS = {"parquet": "parquet", "arrow": "arrow", "csv": "csv", "jsonl": "jsonl"}


class FilesSource:
    """Files below one root. A query is the path of a file, of a folder, or a pattern (`*`, `?`, `[…]`, `**`); columns
    come from folders named like `day=2024-01-01`, too."""

    modes: ClassVar[frozenset[WriteMode]] = frozenset({WriteMode.APPEND, WriteMode.REPLACE})
    read_order: ClassVar[ReadOrder] = ReadOrder.STABLE  # files in the order of their names, rows in that of the files

    def __init__(self, tree: Tree, details: FormatDetails, default: str) -> None:
        self._tree, self._details, self._default = tree, details, default

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        if request.parameters:
            raise BadInput("Files take no parameters.", "Write a path or a pattern.")
        paths = self._found(checked(request.query or self._default))
        keys = _partition_keys(paths)
        first = self._rows(paths[0], keys, request.batch_rows)
        schema = self._declared(first.schema, keys)

        def batches() -> Iterator[pa.RecordBatch]:
            for n, path in enumerate(paths):
                rows = first if n == 0 else self._rows(path, keys, request.batch_rows)
                for batch in rows:
                    yield self._aligned(batch, schema, path)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def browse(self, path: str) -> list[Entry]:
        folder = checked(path)
        return [Entry(f"{folder}/{e.name}" if folder else e.name, e.kind, e.detail) for e in self._tree.entries(folder)]

    def write(self, request: WriteRequest, rows: pa.RecordBatchReader) -> WriteResult:
        """APPEND to a folder adds a file to it, to a file's name makes that file; REPLACE puts one in place of what is
        there. The rows are there all at once; of a folder that is replaced, the old ones go right after that."""
        path = checked(request.table)
        if _WILD.search(path):
            raise BadInput("Rows are written to one place, not to a pattern.", "Name a file or a folder.")
        if request.mode not in self.modes:
            raise BadInput("Files have no keys: they can be appended to and replaced.", "Use append or replace.")
        if named_format(path) is not None:
            form = self._form(path)
            return WriteResult(self._write(path, form, rows, replace=request.mode is WriteMode.REPLACE))
        form = self._form("")
        before = list(self._tree.files(path)) if request.mode is WriteMode.REPLACE else []
        name = f"part-{uuid4().hex}.{_EXTENSIONS[form]}"
        count = self._write(f"{path}/{name}" if path else name, form, rows, replace=False)
        for old in before:
            self._tree.remove(old)
        return WriteResult(count)

    def check(self) -> str:
        """Whether what the details name is there and may be seen; what it holds, in words."""
        entries = self._tree.entries("")
        return f"{len(entries)} files and folders at the top"

    @property
    def default(self) -> str:
        return self._default

    def _found(self, path: str) -> list[str]:
        """The files that a path, folder or pattern stands for; at least one."""
        if _WILD.search(path):
            fixed = "/".join(_until_wild(path.split("/")))
            pattern = _pattern(path)
            found = [file for file in self._tree.files(fixed) if pattern.fullmatch(file)]
        elif path and self._tree.is_file(path):
            return [path]
        else:
            found = [f for f in self._tree.files(path) if self._details.format or named_format(f)]
        if not found:
            raise NotFound(f"No file is there for '{path or '.'}'.", "Browse the connection to see its files.")
        return found

    def _rows(self, path: str, keys: dict[str, Any], batch_rows: int) -> pa.RecordBatchReader:
        form = format_of(self._details, path)
        opened = self._tree.open(path)
        file = opened.__enter__()
        reader = formats.read_file(file, form, self._details, path, batch_rows)
        extra = [pa.field(name, kind) for name, kind in keys.items() if name not in reader.schema.names]
        schema = pa.schema([*reader.schema, *extra])
        values = _partitions(path)

        def batches() -> Iterator[pa.RecordBatch]:
            try:
                for batch in reader:
                    added = [_repeated(values.get(field.name), field.type, batch.num_rows) for field in extra]
                    yield pa.RecordBatch.from_arrays([*batch.columns, *added], schema=schema)
            finally:
                opened.__exit__(None, None, None)

        return pa.RecordBatchReader.from_batches(schema, batches())

    def _declared(self, schema: pa.Schema, keys: dict[str, Any]) -> pa.Schema:
        declared = self._details.schema_
        if declared is None:
            return schema
        more = [schema.field(name) for name in keys if name in schema.names and name not in declared.names]
        return pa.schema([*declared, *more])

    def _aligned(self, batch: pa.RecordBatch, schema: pa.Schema, path: str) -> pa.RecordBatch:
        """The batch in the stream's columns. Files that differ are told, unless columns were declared."""
        if batch.schema.equals(schema):
            return batch
        lenient = self._details.schema_ is not None
        if not lenient and set(batch.schema.names) != set(schema.names):
            raise BadInput(
                f"The file '{path}' has other columns than the first one.",
                "Declare the `columns` to read in the details.",
            )
        columns = []
        for field in schema:
            if field.name not in batch.schema.names:
                columns.append(pa.nulls(batch.num_rows, field.type))
                continue
            try:
                columns.append(batch.column(field.name).cast(field.type))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                raise BadInput(
                    f"Column '{field.name}' of the file '{path}' does not fit {field.type}.",
                    "Declare the `columns` with types that fit all files.",
                ) from None
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    def _form(self, path: str) -> Format:
        if path.lower().endswith(".gz"):
            raise BadInput("Packed files are read, not written.", "Leave .gz out.")
        form = format_of(self._details, path) if path else self._details.format or "parquet"
        if form not in _EXTENSIONS:
            raise BadInput("JSON records are not written: they cannot be added to.", "Write JSON lines (.jsonl).")
        return form

    def _write(self, path: str, form: Format, rows: pa.RecordBatchReader, *, replace: bool) -> int:
        count = 0
        with self._tree.create(path, replace=replace) as file:
            sink = formats.sink(file, form, rows.schema, self._details.delimiter)
            try:
                for batch in rows:
                    sink.write(batch)
                    count += batch.num_rows
            except BaseException:
                with suppress(Exception):  # pyarrow would end it later, in a file that is closed
                    sink.close()
                raise
            sink.close()
        return count


def checked(path: str) -> str:
    """A relative path in plain form. Raises BadInput for one that leads elsewhere."""
    parts = [part for part in path.split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or "\0" in path or "://" in path:
        raise BadInput("A path leads out of the connection's folder.", "Write it relative to that, without '..'.")
    return "/".join(parts)


def _until_wild(parts: list[str]) -> Iterator[str]:
    for part in parts[:-1]:
        if _WILD.search(part):
            return
        yield part


def _pattern(path: str) -> re.Pattern[str]:
    """A glob as an expression: `*` and `?` stay within a name, `**` goes through folders."""
    out, i = "", 0
    while i < len(path):
        if path.startswith("**/", i):
            out, i = out + "(?:[^/]+/)*", i + 3
        elif path.startswith("**", i):
            out, i = out + ".*", i + 2
        elif path[i] == "*":
            out, i = out + "[^/]*", i + 1
        elif path[i] == "?":
            out, i = out + "[^/]", i + 1
        elif path[i] == "[" and (end := path.find("]", i + 2)) > 0:
            inner = path[i + 1 : end].replace("\\", r"\\")
            out, i = out + f"[{'^' + inner[1:] if inner[0] in '!^' else inner}]", end + 1
        else:
            out, i = out + re.escape(path[i]), i + 1
    try:
        return re.compile(out)
    except re.error:
        raise BadInput("The pattern is none.", "Use *, ?, [abc] and **.") from None


def _partitions(path: str) -> dict[str, str | None]:
    """What the folders of a path say of its rows."""
    found: dict[str, str | None] = {}
    for part in path.split("/")[:-1]:
        name, equals, value = part.partition("=")
        if equals and name:
            found[unquote(name)] = None if value == _NULL else unquote(value)
    return found


def _partition_keys(paths: list[str]) -> dict[str, Any]:
    """The columns from folder names, whole numbers where every one is."""
    seen: dict[str, set[str | None]] = {}
    for path in paths:
        for name, value in _partitions(path).items():
            seen.setdefault(name, set()).add(value)
    return {
        name: pa.int64() if all(v is None or re.fullmatch(r"-?\d{1,18}", v) for v in values) else pa.string()
        for name, values in seen.items()
    }


def _repeated(value: Any, kind: Any, rows: int) -> Any:
    if value is None:
        return pa.nulls(rows, kind)
    scalar: Any = pa.scalar(int(value) if pa.types.is_integer(kind) else value, kind)
    return pa.repeat(scalar, rows)
