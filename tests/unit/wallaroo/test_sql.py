"""SQL over inference logs, as the SDK sends it and gives its rows."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import pytest
from unit.wallaroo.stub import Reply, StubPlatform, error

from wallaroo.object import RequestRefused

if TYPE_CHECKING:
    from wallaroo import Client
    from wallaroo.workspace import Workspace

PATH = "/v1/api/logs/sql"
QUERY = """select "in.count" from logs('rental')"""


def stream(**columns: Any) -> Reply:
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Reply(sink.getvalue().to_pybytes())


def test_a_query_goes_with_its_workspace_and_comes_back_as_a_frame(client: Client, platform: StubPlatform) -> None:
    platform.on(PATH, stream(**{"in.count": [1, 2]}))

    frame = client.sql(QUERY)

    asked = platform.calls(PATH)[0]
    assert asked.json == {"query": QUERY, "workspace_id": client.get_current_workspace().id()}
    assert asked.headers["accept"] == "application/vnd.apache.arrow.stream"
    assert isinstance(frame, pd.DataFrame)
    assert frame["in.count"].tolist() == [1, 2]


def test_arrow_comes_as_it_was_sent(client: Client, platform: StubPlatform) -> None:
    platform.on(PATH, stream(total=pa.array([Decimal(7)], pa.decimal128(38, 0))))

    table = client.sql(QUERY, as_="arrow")

    assert table.schema.field("total").type == pa.decimal128(38, 0)


def test_sums_of_integers_are_integers_in_a_frame_where_they_fit(client: Client, platform: StubPlatform) -> None:
    wide = pa.decimal128(38, 0)
    platform.on(PATH, stream(total=pa.array([Decimal(7)], wide), huge=pa.array([Decimal(10**30)], wide)))

    frame = client.sql(QUERY)

    assert frame["total"].dtype == "int64"
    assert frame["huge"].tolist() == [Decimal(10**30)]


def test_a_workspace_is_given_by_itself(client: Client, platform: StubPlatform) -> None:
    platform.on(PATH, stream(a=[1]))
    workspace: Workspace = client.get_current_workspace()

    client.sql(QUERY, workspace)

    assert platform.calls(PATH)[0].json["workspace_id"] == workspace.id()


def test_what_is_neither_a_kind_nor_a_query_nor_a_workspace_is_refused_here(
    client: Client, platform: StubPlatform
) -> None:
    with pytest.raises(ValueError, match="'pandas', 'arrow'"):
        client.sql(QUERY, as_="polars")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="query is a int"):
        client.sql(7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="workspace is a int"):
        client.sql(QUERY, 7)  # type: ignore[arg-type]

    assert platform.calls(PATH) == []


def test_the_platforms_words_reach_the_caller(client: Client, platform: StubPlatform) -> None:
    platform.on(PATH, error(413, "The result has more than 1,000,000 rows. Add a LIMIT."))

    with pytest.raises(RequestRefused, match=r"^Failed to run the query: The result .* Add a LIMIT\.$"):
        client.sql(QUERY)
