"""Exporting the inference log to files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from unit.wallaroo.stub import FakeClock, StubPlatform, error
from unit.wallaroo.test_logs import END, START, TOPIC, page

from wallaroo import export
from wallaroo._wait import Screen
from wallaroo.object import WallarooAPIError

if TYPE_CHECKING:
    from pathlib import Path

    from wallaroo.pipeline import Pipeline

ONE: Any = {"out.a": [1.25, 2.5]}
TWO: Any = {"out.b": ["x", "y"]}


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_export_follows_the_cursor_and_starts_a_file_per_schema(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(TOPIC, page("RecordLimited", "c1", **ONE), page("SchemaChange", "c2", **ONE), page(**TWO))

    pipeline.export_logs(tmp_path / "out", file_prefix="rows")

    assert [asked.json for asked in platform.calls(TOPIC)] == [{}, {"cursor": "c1"}, {"cursor": "c2"}]
    assert names(tmp_path / "out") == ["rows-1.json", "rows-2.json"]
    first = lines(tmp_path / "out/rows-1.json")
    assert [row["out.a"] for row in first] == [1.25, 2.5, 1.25, 2.5]
    assert first[0]["time"] == 3
    assert lines(tmp_path / "out/rows-2.json")[0] == {"time": 3, "out.b": "x"}
    assert "different schemas" in capsys.readouterr().err


def test_a_schema_that_changes_between_pages_has_its_file_too(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path
) -> None:
    platform.on(TOPIC, page("RecordLimited", "c1", **ONE), page(**TWO))

    pipeline.export_logs(tmp_path, arrow=True)

    tables = [pa.ipc.open_file(str(tmp_path / f"rental-{n}.arrow")).read_all() for n in (1, 2)]
    assert [table.column_names for table in tables] == [["time", "out.a"], ["time", "out.b"]]


def test_an_export_ends_at_its_limit_of_rows(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(TOPIC, page("RecordLimited", "c"))

    pipeline.export_logs(tmp_path, limit=3)

    assert len(lines(tmp_path / "rental-1.json")) == 3
    assert dict(platform.calls(TOPIC)[0].query)["page_size"] == "3"
    assert "set a larger limit" in capsys.readouterr().err


def test_rows_that_the_limit_cuts_off_the_last_page_are_said_to_be_more(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(TOPIC, page("RecordLimited", "c"), page())

    pipeline.export_logs(tmp_path, limit=4)
    whole = capsys.readouterr().err
    platform.on(TOPIC, page("RecordLimited", "c"), page())
    pipeline.export_logs(tmp_path, limit=3)

    assert whole == ""
    assert "set a larger limit" in capsys.readouterr().err


def test_an_export_ends_with_the_page_that_reaches_its_size(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(TOPIC, page("RecordLimited", "c"))

    pipeline.export_logs(tmp_path, data_size_limit="0.05 kib", arrow=True)

    assert pa.ipc.open_file(str(tmp_path / "rental-1.arrow")).read_all().num_rows == 4
    assert capsys.readouterr().err == (
        "Warning: The data size limit of 0.05 kib was reached. Exported 4 newest records, the newest of "
        "1970-01-01T00:00:00.003000+00:00. Please set a larger data_size_limit to export more data.\n"
    )


def test_with_dates_the_oldest_rows_are_exported_first(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    platform.on(TOPIC, page("RecordLimited", "c"))

    pipeline.export_logs(tmp_path, data_size_limit="1KiB", start_datetime=START, end_datetime=END)

    asked = dict(platform.calls(TOPIC)[0].query)
    assert (asked["time.start"], asked["page_size"]) == ("2024-01-01T10:00:00+00:00", "1000")
    assert "order" not in asked
    assert "oldest records" in capsys.readouterr().err


def test_metadata_is_exported_when_it_is_asked_for(pipeline: Pipeline, platform: StubPlatform, tmp_path: Path) -> None:
    columns: Any = {"out.a": [1.0, 2.0], "metadata.partition": ["p", "p"]}
    platform.on(TOPIC, page(**columns))

    pipeline.export_logs(tmp_path, file_prefix="without")
    pipeline.export_logs(tmp_path, file_prefix="with", dataset=["*", "metadata"])

    assert "metadata.partition" not in lines(tmp_path / "without-1.json")[0]
    assert lines(tmp_path / "with-1.json")[0]["metadata.partition"] == "p"


def test_columns_that_were_too_big_for_the_log_are_named_once(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns: Any = {"out.a": [1.0, 2.0], "metadata.dropped": [["in.image"], []]}
    platform.on(TOPIC, page("RecordLimited", "c", **columns), page(**columns))

    pipeline.export_logs(tmp_path)

    assert capsys.readouterr().err.count("in.image") == 1


def test_files_of_an_export_before_are_overwritten(pipeline: Pipeline, platform: StubPlatform, tmp_path: Path) -> None:
    (tmp_path / "rental-1.json").write_text("older\n" * 99)
    platform.on(TOPIC, page())

    pipeline.export_logs(tmp_path)

    assert len(lines(tmp_path / "rental-1.json")) == 2


def test_an_export_that_breaks_leaves_whole_files_alone(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path
) -> None:
    platform.on(TOPIC, page("SchemaChange", "c1", **ONE), page("RecordLimited", "c2", **TWO), error(500, "broken"))

    with pytest.raises(WallarooAPIError):
        pipeline.export_logs(tmp_path)

    assert names(tmp_path) == ["rental-1.json"]
    assert len(lines(tmp_path / "rental-1.json")) == 2


def test_a_log_with_nothing_in_it_exports_no_file(pipeline: Pipeline, platform: StubPlatform, tmp_path: Path) -> None:
    nothing: Any = {"time": [], "out.a": []}
    platform.on(TOPIC, page(**nothing))

    pipeline.export_logs(tmp_path / "out")

    assert names(tmp_path / "out") == []


def test_a_person_sees_how_far_it_is(
    pipeline: Pipeline,
    platform: StubPlatform,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pipeline._client, "_screen", Screen(shown=True))
    platform.on(TOPIC, page("RecordLimited", "c1", **ONE), page(**ONE))

    pipeline.export_logs(tmp_path)

    assert capsys.readouterr().out == "\rExporting: 2 rows, 0.0 MiB\rExporting: 4 rows, 0.0 MiB\n"


def test_an_export_has_the_last_inference_of_this_client(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(pipeline), "_last_inference_ms", lambda self, valid: 5)
    platform.on(TOPIC, page(time=[4, 3]), page(time=[5, 4]), page(time=[5, 4]))

    pipeline.export_logs(tmp_path)

    assert lines(tmp_path / "rental-1.json")[0]["time"] == 5


@pytest.mark.parametrize(("text", "size"), [("100MiB", 100 * 2**20), ("1 gib", 2**30), ("1.5KiB", 1536)])
def test_sizes_are_read(text: str, size: int) -> None:
    assert export.parse_size(text) == size


@pytest.mark.parametrize("text", ["100", "10MB", "0MiB", ""])
def test_other_sizes_are_refused_before_anything_is_asked(
    pipeline: Pipeline, platform: StubPlatform, tmp_path: Path, text: str
) -> None:
    with pytest.raises(ValueError, match="data_size_limit"):
        pipeline.export_logs(tmp_path, data_size_limit=text)

    assert platform.calls(TOPIC) == []
