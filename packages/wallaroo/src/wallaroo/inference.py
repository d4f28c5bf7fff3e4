"""Inference requests and answers: DataFrames as JSON records (many rows of numbers as Arrow), Arrow tables as IPC
files, anything else as it is."""

from __future__ import annotations

import json
import math
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from wallaroo import _numbers, _times
from wallaroo._transport import InferenceRequest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import TypeAlias

    import pandas as pd
    import pyarrow as pa

RECORDS = "application/json; format=pandas-records"
ARROW = "application/vnd.apache.arrow.file"
CUSTOM = "application/json; format=wallaroo"
DEFAULT_SEPARATOR = "."


class Decoded(NamedTuple):
    """An answer as the caller gets it, and its `time` in epoch milliseconds, None when it has none."""

    value: Any
    time_ms: int | None


Decode: TypeAlias = "Callable[[bytes], Decoded]"


def request_of(
    tensor: Any,
    dataset: Sequence[str] | str | None = None,
    dataset_exclude: Sequence[str] | str | None = None,
    dataset_separator: str | None = None,
) -> tuple[InferenceRequest, Decode]:
    """How a tensor goes over the wire, and how its answer becomes the same kind of thing again.

    Raises:
        TypeError: `tensor` is no DataFrame, Arrow table or legacy JSON, or has a cell that JSON cannot hold.
    """
    params = dataset_params(dataset, dataset_exclude, dataset_separator)
    if is_table(tensor):
        headers = {"Content-Type": ARROW, "Accept": ARROW, "format": "arrow"}
        return InferenceRequest(table_to_ipc(tensor), headers, params), _decode_table
    if is_frame(tensor):
        separator = DEFAULT_SEPARATOR if dataset_separator is None else dataset_separator
        return _request_of_frame(tensor, params), lambda content: _decode_records(content, separator)
    if _is_legacy(tensor):
        return InferenceRequest(dump(tensor), {"Content-Type": CUSTOM, "Accept": CUSTOM}), _decode_legacy
    raise TypeError(
        f"infer takes rows as a pandas DataFrame or a pyarrow Table, not as {_found(tensor)}. "
        "Pass a DataFrame or an Arrow table, such as pd.DataFrame({'count': [1, 2]}), with the model's input columns."
    )


def _request_of_frame(frame: pd.DataFrame, params: tuple[tuple[str, str], ...]) -> InferenceRequest:
    """Many rows of numbers go as Arrow. The answer is JSON either way: the same values for one row and for many. And
    what is refused as Arrow is judged as JSON, which carries numbers into columns of decimals and times, too."""

    def as_json() -> InferenceRequest:
        return InferenceRequest(frame_to_records(frame), {"Content-Type": RECORDS}, params)

    if len(frame) >= _numbers.FROM_ROWS and (table := _numbers.table_of(frame)) is not None:
        return InferenceRequest(table_to_ipc(table), {"Content-Type": ARROW, "Accept": RECORDS}, params, as_json)
    return as_json()


def _is_legacy(tensor: object) -> bool:
    """JSON as notebooks of before 2023 sent it: a dict of columns, each a list of values; or a list of such dicts."""
    if isinstance(tensor, list):
        return bool(tensor) and all(isinstance(part, dict) and _is_legacy(part) for part in tensor)
    if not isinstance(tensor, dict):
        return False
    columns = tensor.values()
    return bool(tensor) and all(isinstance(column, (list, tuple)) or hasattr(column, "tolist") for column in columns)


def _found(tensor: object) -> str:
    kind = type(tensor).__name__
    if not isinstance(tensor, (list, dict)):
        return f"a {kind}"
    if not tensor:
        return f"an empty {kind}"
    parts = tensor.values() if isinstance(tensor, dict) else tensor
    return f"a {kind} of {type(next(iter(parts))).__name__}"


def dataset_params(
    dataset: Sequence[str] | str | None, exclude: Sequence[str] | str | None, separator: str | None
) -> tuple[tuple[str, str], ...]:
    """The query of an inference. Metadata is left out unless `dataset` has the very word."""
    wanted, unwanted = names_of(dataset) or ["*"], names_of(exclude)
    if "metadata" not in wanted and "metadata" not in unwanted:
        unwanted.append("metadata")
    return (
        *(("dataset[]", name) for name in wanted),
        *(("dataset.exclude[]", name) for name in unwanted),
        ("dataset.separator", DEFAULT_SEPARATOR if separator is None else separator),
    )


def names_of(names: Sequence[str] | str | None) -> list[str]:
    return [names] if isinstance(names, str) else list(names or ())


def read_file(filename: str | Path, data_format: str | None) -> Any:
    """The tensor in a file, by its suffix or by `data_format`.

    Raises:
        TypeError: neither tells what is in it.
        ValueError: a `.json` file is no non-empty list of objects with equal keys.
    """
    path = Path(filename)
    kind = data_format or {".json": "pandas-records", ".arrow": "arrow"}.get(path.suffix)
    if kind == "arrow":
        return ipc_to_table(path.read_bytes())
    if kind == "custom-json":
        return json.loads(path.read_bytes())
    if kind == "pandas-records":
        return _records_in(path)
    raise TypeError(
        f"'{path.name}' is neither .json nor .arrow, and data_format is {data_format!r}. "
        "Pass data_format='pandas-records', 'custom-json' or 'arrow'; what is neither (CSV, Parquet), read into a "
        "DataFrame and pass to infer()."
    )


def is_frame(tensor: object) -> bool:
    return _is_a(tensor, "pandas", "DataFrame")


def is_table(tensor: object) -> bool:
    return _is_a(tensor, "pyarrow", "Table")


def frame_to_records(frame: pd.DataFrame) -> bytes:
    """JSON of row objects: NaN becomes null, times epoch milliseconds, arrays lists; numbers keep all their digits."""
    names = [str(column) for column in frame.columns]
    if len(set(names)) != len(names):
        raise ValueError("The DataFrame has several columns of one name. Rename them, so that each goes over.")
    columns = [_cells(column) for _, column in frame.items()]
    return dump([dict(zip(names, row, strict=True)) for row in zip(*columns, strict=True)])


def records_to_frame(records: object, separator: str = DEFAULT_SEPARATOR) -> pd.DataFrame:
    """A DataFrame with time, in.*, out.* and the rest, each group in alphabetical order, times as datetime64[ms].

    Raises:
        ValueError: `records` is no list of row objects.
    """
    import numpy as np
    import pandas as pd

    if not isinstance(records, list) or not all(isinstance(row, dict) for row in records):
        raise ValueError("Infer response is not valid. It is JSON, but no list of row objects.")
    names = dict.fromkeys(name for row in records for name in row)
    order = sorted(names, key=lambda name: _place(name, separator or DEFAULT_SEPARATOR))
    columns: dict[str, Any] = {name: [row.get(name) for row in records] for name in order}
    if "time" in columns:
        columns["time"] = np.array(columns["time"], dtype="datetime64[ms]")
    return pd.DataFrame(columns)


def table_to_ipc(table: pa.Table) -> bytes:
    """An Arrow IPC file (with its footer, no stream) of the table."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    content: bytes = sink.getvalue().to_pybytes()
    return content


def ipc_to_table(content: bytes) -> pa.Table:
    """Raises ValueError when `content` is no Arrow IPC file."""
    import pyarrow as pa

    try:
        return pa.ipc.open_file(pa.py_buffer(content)).read_all()
    except pa.ArrowInvalid:
        raise ValueError("Infer response is not valid. It is no Arrow IPC file.") from None


def latest_time_ms(table: pa.Table) -> int | None:
    """The newest `time` of a table in epoch milliseconds, None when it has none."""
    if "time" not in table.column_names or table.num_rows == 0:
        return None
    import pyarrow as pa
    import pyarrow.compute

    newest = pyarrow.compute.max(table["time"].cast(pa.timestamp("ms")).cast(pa.int64())).as_py()
    return None if newest is None else int(newest)


def _decode_table(content: bytes) -> Decoded:
    table = ipc_to_table(content)
    return Decoded(table, latest_time_ms(table))


def _decode_records(content: bytes, separator: str) -> Decoded:
    records = _parse(content)
    frame = records_to_frame(records, separator)
    # All rows of an answer have one time. Taking it from the frame would cost 0.2 ms more.
    time_ms = records[0].get("time") if records else None
    return Decoded(frame, time_ms if isinstance(time_ms, int) else None)


def _decode_legacy(content: bytes) -> Decoded:
    return Decoded(_parse(content), None)


def _is_a(value: object, package: str, name: str) -> bool:
    """Whether `value` is of a class of a package, without importing that."""
    return any(kind.__name__ == name and kind.__module__.split(".")[0] == package for kind in type(value).__mro__)


def _place(column: str, separator: str) -> tuple[int, list[str]]:
    first, *rest = column.split(separator)
    return {"time": 0, "in": 1, "out": 2}.get(first, 3), rest


def _cells(column: pd.Series[Any]) -> list[Any]:
    if column.dtype.kind in "mM":
        return [_plain(value) for value in column]
    cells: list[Any] = column.tolist()
    return cells


def dump(value: object) -> bytes:
    try:
        text = json.dumps(value, default=_plain, allow_nan=False, separators=(",", ":"))
    except ValueError:  # a NaN or infinity somewhere: JSON has null for those
        text = json.dumps(_without_nan(value), separators=(",", ":"))
    return text.encode("utf-8")


def _without_nan(value: Any) -> Any:
    """The same value in plain JSON types, with None for every number that is none."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {str(key): _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if value is None or isinstance(value, (str, int)):
        return value
    return _without_nan(_plain(value))


def _plain(value: Any) -> Any:
    """What `json` does not know: arrays and scalars of numpy, times, missing values."""
    if hasattr(value, "tolist"):  # numpy arrays and scalars, pandas Series
        return value.tolist()
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    if isinstance(value, datetime):
        aware = value if value.tzinfo else value.replace(tzinfo=_times.UTC)
        return round(aware.timestamp() * 1000)
    if isinstance(value, date):
        return _plain(datetime(value.year, value.month, value.day, tzinfo=_times.UTC))
    if isinstance(value, Decimal):
        return float(value)
    raise TypeError(
        f"A cell holds a {type(value).__name__}, which JSON cannot carry. Convert the column, or send an Arrow table."
    )


def _parse(content: bytes) -> Any:
    try:
        return json.loads(content)
    except ValueError:
        raise ValueError("Infer response is not valid. It is no JSON.") from None


def _records_in(path: Path) -> pd.DataFrame:
    import pandas as pd

    rows = json.loads(path.read_bytes())
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise ValueError(
            f"'{path.name}' is no non-empty list of row objects. Pass data_format='custom-json' to send it as it is."
        )
    if any(row.keys() != rows[0].keys() for row in rows):
        raise ValueError(f"'{path.name}' has rows with different keys. Give every row the same ones.")
    return pd.DataFrame(rows)


def error_frame(batch: pd.DataFrame, message: str) -> pd.DataFrame:
    """The rows of a batch that failed, as inputs, with the reason in `error`."""
    failed = batch.add_prefix("in.")
    failed["error"] = message
    return failed


def error_table(batch: pa.Table, message: str) -> pa.Table:
    import pyarrow as pa

    renamed = batch.rename_columns([f"in.{name}" for name in batch.column_names])
    return renamed.append_column("error", pa.array([message] * batch.num_rows, pa.string()))


def join(parts: Sequence[Any], as_table: bool) -> Any:
    """The answers of batches, in order, as one."""
    if as_table:
        import pyarrow as pa

        return pa.concat_tables(parts, promote_options="default")
    import pandas as pd

    return pd.concat(parts, ignore_index=True)


def split(tensor: Any, batch_size: int) -> list[Any]:
    """Batches of at most `batch_size` rows, in order."""
    starts = range(0, len(tensor), batch_size)
    if is_table(tensor):
        return [tensor.slice(start, batch_size) for start in starts]
    return [tensor.iloc[start : start + batch_size] for start in starts]
