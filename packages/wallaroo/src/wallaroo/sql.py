"""SQL over inference logs: the query goes to the platform, which runs it; the rows come back."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from wallaroo.object import refused_as
from wallaroo.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from wallaroo.client import Client

ARROW_STREAM = "application/vnd.apache.arrow.stream"
KINDS = ("pandas", "arrow")
LEAST_TIMEOUT_S = 300.0  # the platform ends a query long before, and says why


def run(client: Client, query: str, workspace: Workspace | str | None, as_: str) -> Any:
    """The rows of `query`, as a DataFrame or an Arrow table. Errors are those of `Client.sql`."""
    if as_ not in KINDS:
        raise ValueError(f"as_ is {as_!r}. Give one of {', '.join(map(repr, KINDS))}.")
    if not isinstance(query, str):
        raise TypeError(f"The query is a {type(query).__name__}. Give it as a text.")
    body = {"query": query, "workspace_id": _workspace_of(client, workspace).id()}
    timeout_s = max(client._transport.timeout_s, LEAST_TIMEOUT_S)
    with refused_as("Failed to run the query:"):
        answer = client._transport.post_raw("/v1/api/logs/sql", (), ARROW_STREAM, body, timeout_s=timeout_s)
    table = _read(answer)
    return table if as_ == "arrow" else _frame(table)


def _workspace_of(client: Client, workspace: Workspace | str | None) -> Workspace:
    if workspace is None:
        return client.get_current_workspace()
    if isinstance(workspace, str):
        return client.get_workspace(workspace)
    if isinstance(workspace, Workspace):
        return workspace
    raise TypeError(f"The workspace is a {type(workspace).__name__}. Give its name, or one of get_workspace(name).")


def _read(content: bytes) -> pa.Table:
    import pyarrow as pa

    return pa.ipc.open_stream(content).read_all()


def _frame(table: pa.Table) -> pd.DataFrame:
    """The same rows; a sum of integers, which SQL gives 38 digits, becomes a plain integer where it is one."""
    import pyarrow as pa

    for at, field in enumerate(table.schema):
        if pa.types.is_decimal(field.type) and field.type.scale == 0:
            try:
                table = table.set_column(at, field.name, table.column(at).cast(pa.int64()))
            except pa.ArrowInvalid:
                continue  # too large for one: it stays a Decimal
    return table.to_pandas()
