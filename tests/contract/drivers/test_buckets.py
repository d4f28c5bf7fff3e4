"""What holds for buckets of every make beyond what files do."""

from __future__ import annotations

import pyarrow as pa
import pytest
from contract.drivers.cases import Case, new_calls, new_name
from services.azurite import shared_access

from bettong.domain.drivers import Stage
from bettong.errors import BadInput


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


def with_token(azure_case: Case, token: str) -> Case:
    details = {name: value for name, value in azure_case.details.items() if name != "account_key"}
    return Case("AZURE", {**details, "sas_token": token}, azure_case.calls)


@pytest.mark.service
@pytest.mark.parametrize("mark", ["", "?"], ids=["as it is", "as a link has it"])
def test_a_token_of_shared_access_is_a_login(azure_case: Case, mark: str) -> None:
    case, name = with_token(azure_case, mark + shared_access("rwdlac")), f"{new_name()}.parquet"

    case.write(name, pa.table({"n": [1]}))

    assert case.test().ok
    assert case.read(name)["n"].to_pylist() == [1]


@pytest.mark.service
def test_a_token_does_no_more_than_it_says_and_for_no_longer(azure_case: Case) -> None:
    name = f"{new_name()}.parquet"
    azure_case.write(name, pa.table({"n": [1]}))
    reading, over = with_token(azure_case, shared_access("rl")), with_token(azure_case, shared_access("rl", hours=-1))

    assert reading.read(name)["n"].to_pylist() == [1]
    with pytest.raises(BadInput, match="may not do that") as refused:
        reading.write(f"{new_name()}.parquet", pa.table({"n": [2]}))
    report = over.test()

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
    assert "refuses this login" in report.stages[-1].said
    for case in (reading, over):
        signature = str(case.details["sas_token"]).rpartition("sig=")[2]
        assert signature not in f"{refused.value!r} {report!r}"
