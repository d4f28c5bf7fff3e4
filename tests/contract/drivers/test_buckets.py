"""What holds for buckets of every make beyond what files do."""

from __future__ import annotations

import pyarrow as pa
import pytest
from contract.drivers.cases import Case, new_calls, new_name


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("S3", {"bucket": "b"}),
        ("S3", {"bucket": "b", "access_key_id": "half a login"}),
        ("AZURE", {"container": "c", "account_name": "a"}),
        ("AZURE", {"container": "c", "account_name": "a", "tenant_id": "t", "client_id": "half a login"}),
        ("GCS", {"bucket": "b"}),
    ],
)
def test_without_a_login_the_machines_own_is_not_used(kind: str, details: dict[str, str]) -> None:
    report = new_calls().test(kind, details, 30)

    assert not report.ok
    assert "hold no" in report.stages[-1].said


@pytest.mark.parametrize("case", ["S3", "GCS", "AZURE"], indirect=True)
def test_a_connection_stays_below_its_prefix(case: Case) -> None:
    top = new_name()
    case.write(f"{top}/inside/a.jsonl", pa.table({"n": [1]}))
    case.write(f"{top}/inside2/b.jsonl", pa.table({"n": [2]}))
    below = Case(case.kind, {**case.details, "prefix": f"{top}/inside"}, case.calls)

    below.write("c.jsonl", pa.table({"n": [3]}))

    assert sorted(row["n"] for row in below.read("**").to_pylist()) == [1, 3]
    assert [entry.name for entry in below.calls.browse(case.kind, below.details, "", 30)] == ["a.jsonl", "c.jsonl"]
    assert case.read(f"{top}/inside/c.jsonl").num_rows == 1
