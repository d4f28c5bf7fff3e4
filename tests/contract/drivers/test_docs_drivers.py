"""docs/drivers.md says what there is, and its example is a driver as anyone can add one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from contract.drivers.cases import new_calls

from bettong.domain.drivers import Capability, DriverInfo, ReadRequest
from bettong.drivers.registry import Registry
from bettong.errors import BadInput

PAGE = (Path(__file__).parents[3] / "docs" / "drivers.md").read_text(encoding="utf-8")
INFOS = Registry().all()


def row(info: DriverInfo) -> str:
    types = ", ".join(f"`{kind}`" for kind in info.types)
    can = ", ".join(capability for capability in Capability if capability in info.capabilities)
    install = f"`bettong[{info.extra}]`" if info.extra else "–"
    return f"| {types} | {info.title} | {can} | {install} | {'yes' if info.rebinding_safe else 'no'} |"


def section(heading: str) -> str:
    found = re.search(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", PAGE, re.MULTILINE | re.DOTALL)
    assert found, f"docs/drivers.md has no heading '{heading}'"
    return found.group(1)


def test_the_table_has_every_driver_as_it_is_and_no_other() -> None:
    table = [line for line in PAGE.splitlines() if line.startswith("| `") and line.count("|") == 6]

    assert table == [row(info) for info in INFOS]


@pytest.mark.parametrize("info", INFOS, ids=lambda info: info.types[0])
def test_every_detail_of_a_driver_is_described_and_no_other(info: DriverInfo) -> None:
    text = section(", ".join(info.types))
    described = {name: rest for name, rest in re.findall(r"^\| `(\w+)` \|(.*)$", text, re.MULTILINE)}

    assert list(described) == list(info.details_schema["properties"])
    assert {name for name, rest in described.items() if rest.startswith(" yes ")} == set(
        info.details_schema.get("required", ())
    )
    assert {name for name, rest in described.items() if "Secret." in rest} == set(info.secret_fields)


def test_the_example_is_found_by_its_entry_point_and_works(tmp_path: Path) -> None:
    text = section("A driver of your own")
    code, toml = (re.search(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL) for kind in ("python", "toml"))
    assert code is not None
    assert toml is not None
    line = re.search(r"^(\w+) = \"(.+)\"$", toml.group(1), re.MULTILINE)
    assert line is not None
    (tmp_path / f"{line.group(2).partition(':')[0]}.py").write_text(code.group(1))
    installed = tmp_path / "wave-1.0.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: wave\nVersion: 1.0\n")
    (installed / "entry_points.txt").write_text(f"[bettong.drivers]\n{line.group(1)} = {line.group(2)}\n")
    calls = new_calls(registry=Registry(folders=(str(tmp_path),)))
    details = {"rows": 100_000, "key": "open sesame"}

    report = calls.test("wave", details, 30)
    with calls.read("Wave", details, ReadRequest(batch_rows=1_000), 30) as reader:
        sizes = [batch.num_rows for batch in reader]

    assert report.ok, report
    assert (sum(sizes), max(sizes)) == (100_000, 1_000)
    info = calls.info("WAVE")
    assert info is not None
    assert info.capabilities == {Capability.TEST, Capability.READ}
    assert info.secret_fields == ("key",)
    earlier = {"length": 3, "key": "open sesame"}
    assert calls.test("wave", earlier, 30).ok
    with calls.read("WAVE", earlier, ReadRequest(), 30) as reader:
        assert reader.read_all().num_rows == 3
    assert calls.upgraded("wave", earlier) == ({"rows": 3, "key": "open sesame"}, ("'length' is read as 'rows'",))
    with (
        pytest.raises(BadInput, match="refused the key"),
        calls.read("WAVE", {"rows": 1, "key": "wrong"}, ReadRequest(), 30),
    ):
        pass
