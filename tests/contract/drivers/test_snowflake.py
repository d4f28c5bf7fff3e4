"""SNOWFLAKE: the client of its maker does what we want of it and nothing else."""

from __future__ import annotations

import io
import json
import logging
import os
import subprocess
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

import pyarrow as pa
import pytest
from contract.drivers.cases import SECRET, Case, new_calls, new_name
from cryptography.hazmat.primitives import serialization

from bettong.domain.drivers import Capability, Egress, ReadRequest, Stage, WriteRequest
from bettong.drivers import snowflake_source
from bettong.drivers import snowflake_sql as names
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.registry import Registry
from bettong.drivers.snowflake import SnowflakeDetails
from bettong.drivers.snowflake_client import opened
from bettong.drivers.snowflake_errors import no_connection, translated
from bettong.drivers.sql_sink import CHECKPOINTS
from bettong.errors import BadInput, DeadlineExceeded, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from services.snowflake import Snowflake

    from bettong.drivers.snowflake_source import SnowflakeSource

SERVICE = pytest.mark.service


@contextmanager
def source_of(details: dict[str, Any], egress: Egress | None = None) -> Iterator[SnowflakeSource]:
    driver = Registry().driver("SNOWFLAKE")
    with Opening("SNOWFLAKE", driver, details, Reach(egress or Egress()), 20).source(Capability.READ) as source:
        yield cast("SnowflakeSource", source)


# --- logging in -----------------------------------------------------------------------------------------------------


@SERVICE
@pytest.mark.parametrize("by", ["password", "token", "private_key"])
def test_each_way_to_log_in_is_taken_and_a_wrong_one_refused(snowflake: Snowflake, by: str) -> None:
    calls = new_calls()

    right = calls.test("SNOWFLAKE", {**snowflake.place, by: getattr(snowflake, by)}, 30)
    wrong = calls.test("SNOWFLAKE", {**snowflake.place, "password": "wrong"}, 30)

    assert right.ok, right
    assert (wrong.stages[-1].stage, wrong.stages[-1].ok) == (Stage.LOGIN, False)
    assert "login" in wrong.stages[-1].said


@SERVICE
def test_a_private_key_may_have_a_passphrase(snowflake: Snowflake) -> None:
    key = serialization.load_pem_private_key(snowflake.private_key.encode(), None)
    sealed = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"open")
    ).decode()

    with source_of({**snowflake.place, "private_key": sealed, "private_key_passphrase": "open"}) as source:
        assert source.read(ReadRequest("SELECT 1 AS n")).read_all().to_pydict() == {"n": [1]}
    for details in ({"private_key": sealed}, {"private_key": sealed, "private_key_passphrase": "no"}):
        with pytest.raises(BadInput, match="private key cannot be read"), source_of({**snowflake.place, **details}):
            pass


@pytest.mark.parametrize(
    ("logins", "said"),
    [({}, "hold no login"), ({"password": "a", "token": "b"}, "hold password and token")],
)
def test_details_hold_one_way_to_log_in(logins: dict[str, str], said: str) -> None:
    with pytest.raises(BadInput, match=said), source_of({"account": "a-b", "user": "u", **logins}):
        pass


@pytest.mark.parametrize("account", ["https://evil.example/", "a/b", "", "a..b", "x@y"])
def test_an_account_that_is_none_is_refused_before_a_name_is_looked_up(account: str) -> None:
    with (
        pytest.raises(BadInput, match=r"no.* identifier|account"),
        source_of({"account": account, "user": "u", "password": "p"}),
    ):
        pass


# --- what the client may do -----------------------------------------------------------------------------------------


@SERVICE
def test_the_client_reaches_no_address_that_was_not_checked(snowflake: Snowflake) -> None:
    details = SnowflakeDetails.model_validate(snowflake.details)
    deny = Egress(deny=("127.0.0.0/8",))

    # As if the name had pointed elsewhere a moment ago, when it was checked: the client is handed over at once.
    with pytest.raises(BadInput, match="egress policy"), opened(details.arguments(), deny, 5):
        pass


@SERVICE
def test_a_store_for_files_on_a_host_that_may_not_be_reached_is_given_none(snowflake: Snowflake) -> None:
    with source_of(snowflake.details, Egress(deny=("127.0.0.2/32",))) as source:
        source._client.run("CREATE TEMPORARY STAGE files")
        source._client.put(io.BytesIO(b"rows"), "here.parquet", "files")

        with pytest.raises(BadInput, match="egress policy"):
            source._client.put(io.BytesIO(b"rows"), "elsewhere.parquet", "files")


@SERVICE
def test_nobody_else_is_asked_nothing_is_reported_and_nothing_is_written_on_the_disk(
    snowflake: Snowflake, tmp_path: Path
) -> None:
    """A home in which the client would find a wish for log files, and could leave its own."""
    for folder in (tmp_path / ".snowflake", tmp_path / ".config" / "snowflake"):
        folder.mkdir(parents=True)
        config = folder / "config.toml"
        config.write_text(f'[log]\nsave_logs = true\nlevel = "DEBUG"\npath = "{tmp_path}/logs"\n')
        config.chmod(0o600)
    before = sorted(tmp_path.rglob("*"))
    code = (
        "import json, sys\n"
        "from bettong.domain.drivers import *\n"
        "from bettong.drivers.opening import *\n"
        "from bettong.drivers.registry import Registry\n"
        "told, met = json.load(sys.stdin), set()\n"
        "sys.addaudithook(lambda name, args: met.add(args[1][0]) if name == 'socket.connect' else None)\n"
        "opening = Opening('SNOWFLAKE', Registry().driver('SNOWFLAKE'), told, Reach(Egress()), 30)\n"
        "with opening.source(Capability.READ) as source:\n"
        "    print(source.read(ReadRequest('SELECT 1 AS n')).read_all().to_pydict())\n"
        "print([name for name in ('pandas', 'boto3', 'botocore') if name in sys.modules], met)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(snowflake.details),
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path), "TMPDIR": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.splitlines() == ["{'n': [1]}", "[] {'127.0.0.1'}"], done.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert not [path for path in snowflake.asked() if "telemetry" in path]


@SERVICE
def test_the_client_logs_no_query(snowflake: Snowflake, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    with source_of(snowflake.details) as source:
        source.read(ReadRequest("SELECT 'of nobody''s business' AS x")).read_all()

    assert not [record for record in caplog.records if record.name.startswith("snowflake")]
    assert "business" not in caplog.text


@pytest.mark.parametrize("driver", ["bigquery:BigQueryDriver", "snowflake:SnowflakeDriver"])
def test_a_process_that_waits_for_a_call_has_not_imported_what_no_call_uses(driver: str) -> None:
    code = (
        "import sys\n"
        "from bettong.drivers import _child, hygiene\n"
        "hygiene._keep_pandas_out()\n"
        f"_child._expect('bettong.drivers.{driver}')\n"
        "print([name in sys.modules for name in ('grpc', 'snowflake.connector', 'pandas', 'boto3')])\n"
    )

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    ours = "bigquery" in driver
    assert done.stdout.strip() == str([ours, not ours, False, False])


# --- names and types ------------------------------------------------------------------------------------------------


@SERVICE
def test_names_without_quotes_are_kept_in_capitals_and_shown_in_small_letters(snowflake_case: Case) -> None:
    table = new_name()
    snowflake_case.write(table, pa.table({"amount": [1], "Merchant": ["a"], "out.forecast": [2.5]}))

    assert snowflake_case.read(f'SELECT AMOUNT, amount AS n, "Merchant" FROM {table.upper()}').to_pylist() == [
        {"amount": 1, "n": 1, "Merchant": "a"}
    ]
    snowflake_case.write(f'contract.public."{table.upper()}"', pa.table({"amount": [2]}))
    assert set(snowflake_case.read(table)["amount"].to_pylist()) == {1, 2}


@SERVICE
def test_schemas_tables_and_columns_are_browsed(snowflake_case: Case) -> None:
    table = new_name()
    snowflake_case.write(table, pa.table({"n": [1], "money": pa.array([None], pa.decimal128(10, 2))}))

    calls, details = snowflake_case.calls, snowflake_case.details
    assert "public" in [entry.name for entry in calls.browse("SNOWFLAKE", details, "", 30)]
    assert f"public.{table}" in [entry.name for entry in calls.browse("SNOWFLAKE", details, "public", 30)]
    columns = calls.browse("SNOWFLAKE", details, f"public.{table}", 30)
    assert [(entry.name, entry.detail) for entry in columns] == [("n", "NUMBER(38,0)"), ("money", "NUMBER(10,2)")]


@SERVICE
def test_nested_values_are_variants_that_queries_look_into(snowflake_case: Case) -> None:
    table = new_name()
    snowflake_case.write(table, pa.table({"n": [1, 2], "out": [[0.5, 1.5], None]}))

    found = snowflake_case.read(f"SELECT n, out[1]::FLOAT AS second FROM {table} ORDER BY n")

    assert found["second"].to_pylist() == [1.5, None]


@SERVICE
def test_a_number_that_is_too_long_is_refused_by_its_column(snowflake_case: Case) -> None:
    with pytest.raises(BadInput, match="Column 'n' holds a number that is too long"):
        snowflake_case.read("SELECT 99999999999999999999 AS n")


@SERVICE
def test_checkpoints_are_looked_for_where_they_are_made(snowflake: Snowflake) -> None:
    """The emulator takes names of any case for the same, and Snowflake does not."""
    with source_of(snowflake.details) as source:
        source.create_checkpoints()

        assert source.columns((CHECKPOINTS,)) == ["job_id", "position"]
        assert list(source._known) == [("CONTRACT", "PUBLIC", "BETTONG_CHECKPOINTS")]


@SERVICE
def test_rows_of_many_files_and_of_many_batches_of_a_session_are_all_there(
    snowflake: Snowflake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snowflake_source, "FILE_BYTES", 8_000)
    table = new_name()
    with source_of(snowflake.details) as source:
        for start in (0, 6_000):
            batches = [pa.record_batch({"n": range(n, n + 1_000)}) for n in range(start, start + 6_000, 1_000)]
            source.write(WriteRequest(table), pa.RecordBatchReader.from_batches(batches[0].schema, batches))

        found = source.read(ReadRequest(table)).read_all()
        assert (found.num_rows, set(found["n"].to_pylist())) == (12_000, set(range(12_000)))


@SERVICE
def test_a_table_that_names_no_schema_is_told_what_is_missing(snowflake: Snowflake) -> None:
    bare = {name: value for name, value in snowflake.details.items() if name not in ("database", "schema")}

    with source_of(bare) as source, pytest.raises(BadInput, match="no database or schema"):
        source.read(ReadRequest("daily"))


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 1; DELETE FROM t",
        "SELECT 1 ->> DELETE FROM t",
        "DELETE FROM t",
        "-- SELECT\nDROP TABLE t",
        "CALL p()",
        "SELECT $$a$$; DROP TABLE t",
        "// '\nINSERT INTO t SELECT 1",
        "",
    ],
)
def test_what_does_more_than_read_is_refused_unseen(query: str) -> None:
    with pytest.raises(BadInput):
        names.one_query(query)


@pytest.mark.parametrize(
    "query",
    [
        "SELECT ';' AS a, '->>' AS b, 'it\\'s; ' AS c, $$;$$ AS d, \"a;b\" FROM t",
        "WITH a AS (SELECT 1) SELECT * FROM a",
        "(SELECT 1) UNION (SELECT 2)",
        "-- what for; this\nSELECT 1 // more; \n",
    ],
)
def test_a_query_is_read_by_the_rules_of_snowflake(query: str) -> None:
    kept = names.one_query(f"{query};\n ")

    assert kept.startswith(query.partition(" // ")[0])
    assert not kept.endswith(";")


# --- errors ---------------------------------------------------------------------------------------------------------


class Said(Exception):
    """An error as the client makes them."""

    def __init__(self, errno: int, text: str, sqlstate: str = "") -> None:
        super().__init__(text)
        self.errno, self.sqlstate = errno, sqlstate


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (Said(2003, f"Object 'DAILY' does not exist or not authorized. {SECRET}"), NotFound, "no such table 'daily'"),
        (Said(2003, "Schema 'SHOP.SALES' does not exist or not authorized."), NotFound, "no such database or schema"),
        (Said(904, "error line 1 at position 7\ninvalid identifier 'AMOUTN'"), BadInput, "no such column 'amoutn'"),
        (Said(1003, "syntax error line 1 at position 0 unexpected 'SELEKT'."), BadInput, "does not understand"),
        (Said(2140, "Unknown function NOPE"), BadInput, "no such function 'nope'"),
        (Said(3001, "Insufficient privileges to operate on table 'DAILY'"), BadInput, "may not do that"),
        (Said(606, "No active warehouse selected in the current session."), BadInput, "No warehouse"),
        (Said(630, "Statement reached its statement or warehouse timeout"), DeadlineExceeded, "in time"),
        (Said(100038, f"Numeric value '{SECRET}' is not recognized", "22018"), BadInput, "refused a value"),
        (Said(100072, "NULL result in a non-nullable column", "22000"), BadInput, "needs a value has none"),
        (Said(390195, "The requested warehouse does not exist or not authorized."), BadInput, "the warehouse"),
        (Said(390422, "Incoming request with IP/Token 1.2.3.4 is not allowed; network policy"), BadInput, "address"),
        (Said(250003, f"Failed to get the response. {SECRET}"), Unavailable, "broke"),
        (Said(4711, SECRET), BadInput, "code 4711"),
    ],
)
def test_what_snowflake_refuses_is_told_in_our_words(said: Said, kind: type[Exception], words: str) -> None:
    told = translated(said, "select amoutn, nope(1) from daily selekt")

    assert isinstance(told, kind)
    assert words in str(told)
    assert SECRET not in str(told)


def test_a_login_that_fails_for_another_reason_is_not_blamed_on_the_password() -> None:
    role = no_connection(Said(390189, "Role 'BOSS' specified in the connect string does not exist or not authorized."))
    nobody = no_connection(Said(250001, f"Could not connect to Snowflake backend after 2 attempt(s). {SECRET}"))

    assert "the role of the details" in str(role)
    assert isinstance(nobody, Unavailable)
    assert SECRET not in str(nobody)
