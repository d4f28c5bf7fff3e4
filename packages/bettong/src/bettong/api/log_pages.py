"""Pages of a log as HTTP answers: JSON records or an Arrow file, with where to go on from (spec 8.3, 8.4)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pyarrow as pa
from starlette.responses import Response

from bettong.engine.codec import ARROW_FILE, JSON_RECORDS, Format, accepted
from bettong.engine.dataset import Dataset
from bettong.engine.json_answer import encode_batch

if TYPE_CHECKING:
    from bettong.domain.logs import LogPage


def page_answer(page: LogPage, dataset: Dataset, accept: str) -> Response:
    """The rows in the form that `accept` asks for. The page holds the chosen columns only; `dataset` names them."""
    headers = {"x-iteration-status": page.status.value}
    if page.cursor is not None:
        headers["x-iteration-cursor"] = page.cursor
    if accepted(accept.encode("latin-1", "replace")) in (Format.ARROW_FILE, Format.ARROW_STREAM):
        return Response(_arrow(page, dataset), headers=headers, media_type=ARROW_FILE)
    whole = Dataset(separator=dataset.separator)
    bodies = [encode_batch(batch, whole) for batch in page.table.to_batches() if batch.num_rows]
    joined = b",".join(body[1:-1] for body in bodies)
    return Response(b"[" + joined + b"]", headers=headers, media_type=JSON_RECORDS)


def _arrow(page: LogPage, dataset: Dataset) -> bytes:
    """An Arrow file of flat columns; status and cursor stand in the metadata of its schema (spec 8.3)."""
    table, separator = page.table, dataset.separator
    if separator:
        table = table.rename_columns([name.replace(".", separator, 1) for name in table.column_names])
    told = {"status": page.status.value, "next": None if page.cursor is None else {"cursor": page.cursor}}
    schema = table.schema.with_metadata({**(table.schema.metadata or {}), "status": json.dumps(told)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, schema) as writer:
        writer.write_table(table.cast(schema))
    return bytes(sink.getvalue())
