"""The inference log of a platform with settings of its own: large inputs, a full disk, files, pages and SQL."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_models as models
import pandas as pd
import psutil
import pyarrow as pa
import pytest
import requests
from platforms import new_home

import wallaroo
from wallaroo.framework import Framework
from wallaroo.object import InferenceError, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

MAX_ROW_BYTES = 60  # 18 float32 take 72, 10 take 40


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    told = {"BETTONG_MAX_LOGGED_ROW_BYTES": str(MAX_ROW_BYTES), "BETTONG_ON_LOG_FULL": "continue"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in told.items():
            patch.setenv(name, value)
        with new_home() as home:
            yield home


@pytest.fixture
def wl(home: Path, monkeypatch: pytest.MonkeyPatch) -> wallaroo.Client:
    monkeypatch.setenv("BETTONG_HOME", str(home))
    return wallaroo.Client()


@pytest.fixture(scope="module")
def deployed(home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str, int], Any]]:
    """Deploys a pipeline of that name, once, whose model takes so many features."""
    made: dict[str, Any] = {}
    with wallaroo.Client() as wl:

        def deploy(name: str, features: int) -> Any:
            if name not in made:
                file = tmp_path_factory.mktemp("models") / f"{name}.onnx"
                file.write_bytes(models.mlp(features=features))
                model = wl.upload_model(name, file, Framework.ONNX)
                made[name] = wl.build_pipeline(name).clear().add_model_step(model).deploy()
            return made[name]

        yield deploy
        for pipeline in made.values():
            pipeline.undeploy()


def frame(rows: int, features: int, first: float = 0.0) -> pd.DataFrame:
    """Rows that tell themselves apart by their first feature."""
    values = np.zeros((rows, features), np.float32)
    values[:, 0] = first + np.arange(rows)
    return pd.DataFrame({"tensor": list(values)})


def test_an_input_that_is_too_large_stays_out_of_the_log_and_is_named(
    wl: wallaroo.Client, deployed: Callable[[str, int], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = deployed("wide", 18)

    answer = pipeline.infer(frame(2, 18), dataset=["*", "metadata"])
    log = pipeline.logs(dataset=["*", "metadata"])

    assert "in.tensor" in answer.columns
    assert "in.tensor" not in log.columns
    assert [list(names) for names in log["metadata.dropped"]] == [["in.tensor"], ["in.tensor"]]
    assert log["out.variable"].map(list).tolist() == answer["out.variable"].map(list).tolist()[::-1]
    assert "columns may have been suppressed" in capsys.readouterr().err


def test_an_input_below_the_limit_is_logged(wl: wallaroo.Client, deployed: Callable[[str, int], Any]) -> None:
    pipeline = deployed("narrow", 10)

    pipeline.infer(frame(1, 10, first=5.0))

    assert pipeline.logs(limit=1)["in.tensor"][0][0] == 5.0


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="limits of another process are Linux's")
def test_answers_go_on_while_the_disk_is_full_and_missing_rows_are_told(
    home: Path, wl: wallaroo.Client, deployed: Callable[[str, int], Any]
) -> None:
    pipeline = deployed("full", 10)
    pipeline.infer(frame(1, 10, first=1.0))
    (engine,) = pipeline.status()["engines"]
    assert pipeline.status()["details"] == []
    replica = psutil.Process(int(engine["labels"]["pid"]))
    before = replica.rlimit(psutil.RLIMIT_FSIZE)
    (segment,) = (home / "logs").glob(f"*-pipeline-full-inference/{engine['name']}/*.seg")

    replica.rlimit(psutil.RLIMIT_FSIZE, (segment.stat().st_size + 10, before[1]))
    answers = [pipeline.infer(frame(rows, 10, first=100.0)) for rows in (1, 3)]
    full = pipeline.status()
    replica.rlimit(psutil.RLIMIT_FSIZE, before)
    pipeline.infer(frame(1, 10, first=2.0))

    assert [len(answer) for answer in answers] == [1, 3]
    assert full["status"] == "Running"
    assert "inferences go on: 4 answered rows are not in the log" in full["details"][0]
    assert "was full for a while: 4 answered rows" in pipeline.status()["details"][0]
    assert [row[0] for row in pipeline.logs()["in.tensor"]] == [2.0, 1.0]
    warned = until(lambda: [w for w in status(wl)["warnings"] if "4 answered rows" in w])
    assert warned[0].startswith("full-")
    told = next((home / "deployments").glob("full-*/host.log")).read_text()
    assert "inference log full, answers go on unlogged" in told


def test_the_platform_says_how_much_it_keeps(wl: wallaroo.Client) -> None:
    rules = status(wl)["log"]

    assert (rules["max_row_bytes"], rules["on_full"], rules["bytes_per_topic"]) == (60, "continue", 10 * 2**30)


def test_a_log_goes_to_files_whole(
    wl: wallaroo.Client, deployed: Callable[[str, int], Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pipeline = deployed("exported", 10)
    pipeline.infer(frame(12_000, 10))
    pipeline.infer(frame(1, 10, first=-1.0))
    capsys.readouterr()

    pipeline.export_logs(tmp_path)
    pipeline.export_logs(tmp_path, arrow=True, limit=10_500)
    now = datetime.now(UTC)
    dates = {"start_datetime": now - timedelta(hours=1), "end_datetime": now + timedelta(hours=1)}
    pipeline.export_logs(tmp_path, file_prefix="oldest", data_size_limit="10 KiB", **dates)

    lines = [json.loads(line) for line in (tmp_path / "exported-1.json").read_text().splitlines()]
    assert [row["in.tensor"][0] for row in lines] == [-1.0, *map(float, range(11_999, -1, -1))]
    assert pa.ipc.open_file(str(tmp_path / "exported-1.arrow")).read_all().num_rows == 10_500
    oldest = (tmp_path / "oldest-1.json").read_text().splitlines()
    assert json.loads(oldest[0])["in.tensor"][0] == 0.0
    told = capsys.readouterr().err
    assert "set a larger limit" in told
    assert f"The data size limit of 10 KiB was reached. Exported {len(oldest)} oldest records" in told


def test_a_log_comes_in_pages_over_rest(wl: wallaroo.Client, deployed: Callable[[str, int], Any]) -> None:
    pipeline = deployed("paged", 10)
    pipeline.infer(frame(5, 10))
    url = f"{wl.api_endpoint}/v1/api/pipelines/get_logs"
    asked: dict[str, Any] = {"pipeline_name": "paged", "workspace_id": wl.get_current_workspace().id()}
    asked |= {"order": "asc", "page_size": 2}

    found, states = [], []
    while True:
        answer = requests.post(url, json=asked, headers=wl.auth.auth_header(), timeout=30)
        found += [row["in"]["tensor"][0] for row in answer.json()]
        states.append(answer.headers["x-iteration-status"])
        if (cursor := answer.headers.get("x-iteration-cursor")) is None:
            break
        asked["cursor"] = cursor

    assert found == [0.0, 1.0, 2.0, 3.0, 4.0]
    assert states == ["RecordLimited", "RecordLimited", "All"]


def test_failures_are_read_where_they_are_asked_for(wl: wallaroo.Client, deployed: Callable[[str, int], Any]) -> None:
    pipeline = deployed("failing", 10)
    with pytest.raises(InferenceError):
        pipeline.infer(pd.DataFrame({"tensor": [[1.0, 2.0]]}))

    assert pipeline.logs().empty
    failed = pipeline.logs(valid=False)
    assert len(failed) == 1
    assert "error" in failed.columns


def test_a_query_sees_the_row_that_was_answered_just_now(
    wl: wallaroo.Client, deployed: Callable[[str, int], Any]
) -> None:
    pipeline = deployed("asked", 10)
    pipeline.infer(frame(3, 10, first=7.0))

    found = wl.sql("""select max("in.tensor"[1]) as highest, count(*) as n from logs('asked')""")

    assert found.to_dict("records") == [{"highest": 9.0, "n": 3}]
    table = wl.sql("""select * from logs('asked') where "metadata.request_id" is not null""", as_="arrow")
    assert isinstance(table, pa.Table)
    assert table.num_rows == 3


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("select * from read_text('/etc/passwd'), logs('asked')", 400),
        ("select * from logs('nobody')", 404),
        ("select * from logs('asked'), range(10000000)", 413),
    ],
)
def test_a_query_beyond_its_rights_or_limits_is_refused_in_words(
    wl: wallaroo.Client, deployed: Callable[[str, int], Any], query: str, code: int
) -> None:
    deployed("asked", 10)

    with pytest.raises(WallarooAPIError) as refused:
        wl.sql(query)

    assert refused.value.code == code


def status(wl: wallaroo.Client) -> dict[str, Any]:
    url = f"{wl.api_endpoint}/v1/api/platform/status"
    told: dict[str, Any] = requests.get(url, headers=wl.auth.auth_header(), timeout=30).json()
    return told


def until(look: Callable[[], Any]) -> Any:
    """What `look` finds, once it finds something: the platform's watch comes around every few seconds."""
    deadline = time.monotonic() + 60
    while not (found := look()):
        assert time.monotonic() < deadline, "the platform never said it"
        time.sleep(0.1)
    return found
