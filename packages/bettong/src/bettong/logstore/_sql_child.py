"""Runs one SELECT over Parquet files with DuckDB, in a process that can reach nothing else.

Run as `python -I -S`, its order on stdin: first it enters the sandbox of bettong-mac's launcher and sets its limits,
then it reads the query. The rows go to a file in its own folder as an Arrow stream; what came of it is one JSON
document on stdout. DuckDB has external access off, loads no extension, and cannot be told otherwise: its configuration
is locked.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import resource
import sys
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

# Below the folder that it works in. Named from there: as another user it may open what lies in its owner's folders, but
# not ask whether it exists, as DuckDB does first.
FILES, WORK = "files", "work"
TABLE_FUNCTIONS = frozenset({"logs", "unnest", "range", "generate_series"})
CGROUPS = "/sys/fs/cgroup"  # DuckDB looks there for its memory and CPUs when it is imported, and dies if it may not
BATCH_ROWS = 10_000
MOST_WORDS = 600
NICENESS = 5  # inferences come first
BEGINNINGS = ("select", "from", "with", "values", "pivot", "unpivot", "describe", "summarize")
ONLY_SELECT = "Only a SELECT over logs('pipeline-name') is taken"
EXAMPLE = "Such as: select count(*) from logs('pipeline-name')."
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_BEFORE = re.compile(r"(?:\s|[(]|--[^\n]*|/[*].*?[*]/)*(\w*)", re.DOTALL)


class Refused(Exception):
    """Why there is no result: what was found, and what to do."""

    def __init__(self, problem: str, next_step: str, kind: str = "bad_input") -> None:
        super().__init__(problem, next_step)
        self.problem, self.next_step, self.kind = problem, next_step, kind


def main() -> None:
    order = json.load(sys.stdin)
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes nowhere
    holds = _launcher(order["launcher"], order["readable"]).enter_sandbox(order["plan"], sys.executable)
    limits = {resource.RLIMIT_CPU: order["most_cpu_s"], resource.RLIMIT_FSIZE: order["most_file_bytes"]}
    if sys.platform.startswith("linux"):  # elsewhere address space has no limit that holds
        limits[resource.RLIMIT_AS] = order["most_address_bytes"]
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, most))
    os.nice(NICENESS)
    sys.path.extend(order["readable"])
    sys.meta_path.insert(0, _WithoutPandas())
    os.chdir(order["folder"])
    document: dict[str, Any]
    try:
        document = answered(order)
    except Refused as refused:
        document = {"problem": refused.problem, "next_step": refused.next_step, "kind": refused.kind}
    except MemoryError:
        document = vars(_out_of_memory(order))
    json.dump({**document, "holds": holds}, answer)
    answer.close()
    os._exit(0)  # an interpreter that ends takes a DuckDB apart in an order that it does not survive


def _launcher(path: str, readable: list[str]) -> Any:
    spec = importlib.util.spec_from_file_location("launcher", path)
    assert spec is not None
    assert spec.loader is not None
    launcher = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(launcher)
    vars(launcher)["SYSTEM_FOLDERS"] += (*readable, CGROUPS)
    return launcher


class _WithoutPandas(MetaPathFinder):
    """Both DuckDB and pyarrow import pandas when it is there: a quarter of a second, and no use."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("Queries work without pandas.", name="pandas")


def answered(order: dict[str, Any]) -> dict[str, Any]:
    """How many rows and bytes the result has; it is in the file `result`."""
    import duckdb

    connection = _open(duckdb, order)
    try:
        check(connection, order["query"], {log["name"] for log in order["logs"]})
        return _written(duckdb, connection, order)
    except duckdb.OutOfMemoryException:
        raise _out_of_memory(order) from None
    except duckdb.Error as failed:
        raise _refusal(duckdb, failed, [log["name"] for log in order["logs"] if not log["files"]]) from None


def _open(duckdb: Any, order: dict[str, Any]) -> Any:
    connection = duckdb.connect(
        ":memory:",
        config={
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
            "memory_limit": f"{order['memory_bytes'] >> 20}MiB",
            "threads": order["threads"],
            "temp_directory": os.path.join(WORK, "spill"),
            "max_temp_directory_size": f"{order['spill_bytes'] >> 20}MiB",
        },
    )
    connection.execute(f"SET allowed_directories = ['{FILES}']")
    connection.execute("SET enable_external_access = false")
    for log in order["logs"]:
        connection.execute(f'CREATE VIEW "{_table(log)}" AS {_rows_of(log)}')
    connection.execute(
        "CREATE MACRO logs(name, valid := true) AS TABLE "
        "FROM query_table('log:' || name || CASE WHEN valid THEN ':inference' ELSE ':failures' END)"
    )
    connection.execute("SET lock_configuration = true")
    return connection


def _table(log: dict[str, Any]) -> str:
    return f"log:{log['name']}:{'inference' if log['valid'] else 'failures'}"


def _rows_of(log: dict[str, Any]) -> str:
    if not log["files"]:  # nothing was logged yet: what is known of its columns
        return f"SELECT NULL::TIMESTAMP AS time{'' if log['valid'] else ', NULL::VARCHAR AS error'} WHERE false"
    listed = ", ".join(_text(os.path.join(FILES, file)) for file in log["files"])
    return f"SELECT * EXCLUDE (_row) FROM read_parquet([{listed}], union_by_name = true)"


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


# --- the query ------------------------------------------------------------------------------------------------------


def check(connection: Any, query: str, names: set[str]) -> None:
    """Raises Refused unless `query` is one SELECT over logs of these names. DuckDB itself says how it reads it."""
    read = json.loads(connection.execute("SELECT json_serialize_sql(?::VARCHAR)", [query]).fetchone()[0])
    if read["error"]:
        if read.get("error_type") == "parser" and _first_word(query) in BEGINNINGS:
            raise Refused(f"The query is no SQL: {read['error_message'][:MOST_WORDS]}.", "Correct it there.")
        raise Refused(f"{ONLY_SELECT}, and this query is none.", EXAMPLE)
    if len(read["statements"]) != 1:
        raise Refused(f"The query has {len(read['statements'])} statements.", "Send one SELECT at a time.")
    nodes = list(_nodes(read["statements"]))
    known = {entry["key"].lower() for node in nodes for entry in (node.get("cte_map") or {}).get("map", [])}
    known |= {str(node["cte_name"]).lower() for node in nodes if node.get("cte_name")}
    for node in nodes:
        if node.get("type") == "TABLE_FUNCTION":
            _check_function(node["function"], names)
        elif node.get("type") == "BASE_TABLE" and (
            node.get("schema_name") or node.get("catalog_name") or node["table_name"].lower() not in known
        ):
            raise Refused(
                f"There is no table '{node['table_name'][:80]}'.", "Name a pipeline's log: logs('pipeline-name')."
            )
        elif node.get("type") == "SHOW_REF" and not node.get("query"):
            raise Refused("The query asks for a list of tables.", "Name a pipeline's log: logs('pipeline-name').")


def _first_word(query: str) -> str:
    found = _BEFORE.match(query)
    return found[1].lower() if found else ""


def _nodes(tree: Any) -> Iterator[dict[str, Any]]:
    """Every object of the tree. On a stack of our own: a query may nest deeper than Python calls."""
    stack = [tree]
    while stack:
        node = stack.pop()
        if isinstance(node, dict):
            yield node
            stack.extend(node.values())
        elif isinstance(node, list):
            stack.extend(node)


def _check_function(function: dict[str, Any], names: set[str]) -> None:
    called = str(function.get("function_name", "")).lower()
    if called not in TABLE_FUNCTIONS or function.get("schema") or function.get("catalog"):
        raise Refused(
            f"A query over logs cannot use the table function '{called[:80]}'.",
            f"It may use {', '.join(sorted(TABLE_FUNCTIONS))}.",
        )
    if called == "logs":
        first = (function.get("children") or [{}])[0]
        value = first.get("value") or {}
        if first.get("type") != "VALUE_CONSTANT" or value.get("value") not in names:
            raise Refused("logs() was not given a name in quotes.", "Write it as logs('pipeline-name').")


# --- the result -----------------------------------------------------------------------------------------------------


def _written(duckdb: Any, connection: Any, order: dict[str, Any]) -> dict[str, Any]:
    import pyarrow as pa

    rows = 0
    reader = connection.execute(order["query"]).to_arrow_reader(BATCH_ROWS)
    with open(os.path.join(WORK, "result"), "wb") as file, pa.ipc.new_stream(file, reader.schema) as writer:
        for batch in _batches(duckdb, reader):
            rows += batch.num_rows
            if rows > order["most_rows"]:
                raise Refused(
                    f"The result has more than {order['most_rows']:,} rows.",
                    "Add a LIMIT, or let the query count or average them.",
                    "too_large",
                )
            if file.tell() + batch.nbytes > order["most_bytes"]:
                raise Refused(
                    f"The result has more than {order['most_bytes'] >> 20} MiB.",
                    "Choose fewer columns, add a LIMIT, or let the query count or average rows.",
                    "too_large",
                )
            writer.write_batch(batch)
    return {"rows": rows}


def _batches(duckdb: Any, reader: Any) -> Iterator[Any]:
    """The batches of a result. Errors met on the way come through Arrow, which knows their text alone."""
    try:
        yield from reader
    except OSError as failed:
        text = str(failed)
        kind = duckdb.OutOfMemoryException if "Out of Memory" in text else duckdb.InvalidInputException
        raise kind(text) from None


def _out_of_memory(order: dict[str, Any]) -> Refused:
    return Refused(
        f"The query needs more than the {order['memory_bytes'] >> 20} MiB of memory that it may take.",
        "Choose fewer columns or a shorter time, or raise BETTONG_SQL_MEMORY_BYTES.",
        "too_large",
    )


def _refusal(duckdb: Any, failed: Exception, empty: list[str]) -> Refused:
    """DuckDB's words about the query, without values: its text quotes them, and names of ours."""
    text = str(failed).partition("\n\nLINE")[0].partition("\n\nStack")[0]
    text = " ".join(text.split()).replace(os.getcwd(), "")
    if isinstance(failed, (duckdb.PermissionException, duckdb.HTTPException)):
        return Refused("The query reaches for something beside the logs.", "It may read logs('pipeline-name') alone.")
    if not isinstance(failed, (duckdb.BinderException, duckdb.CatalogException, duckdb.ParserException)):
        text = _QUOTED.sub("'…'", text)
    next_step = "Correct the query, and send it again."
    if empty and isinstance(failed, duckdb.BinderException):
        next_step = f"A log of '{empty[0]}' that it names has no rows yet, and so no columns but its time."
    return Refused(f"DuckDB does not run the query: {text[:MOST_WORDS]}", next_step)


if __name__ == "__main__":
    main()
