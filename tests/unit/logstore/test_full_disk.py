"""A full disk stops inferences or leaves gaps, as was chosen; either way it is said."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
from builders import log_rows, request_rows
from unit.logstore.test_segment import FAILURES, TOPIC, numbers

from bettong.domain.logs import OnLogFull
from bettong.errors import StorageFull
from bettong.logstore.segment import SegmentFile
from bettong.logstore.writer import SAY_AGAIN_S, SegmentLogWriter


def in_a_full_file_system(folder: Path, on_full: str) -> Any:
    """What a process saw whose files may not grow for a while: a limit of the system, met by real writes."""
    script = textwrap.dedent("""
        import json, resource, sys
        from pathlib import Path
        from builders import log_rows
        from bettong.domain.logs import OnLogFull
        from bettong.errors import StorageFull
        from bettong.logstore.writer import SegmentLogWriter

        def limit(size):
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (size or hard, hard))

        folder = Path(sys.argv[1])
        writer = SegmentLogWriter(folder, sys.argv[2], sys.argv[3], "engine-a", on_full=OnLogFull(sys.argv[4]))
        told = {"before": writer.problem, "refused": 0}
        writer.append(log_rows([1], [1]))
        limit(next(folder.rglob("*.seg")).stat().st_size + 50)
        for n in (2, 3):
            try:
                told["written"] = writer.append(log_rows([n, n], [n, n]))
            except StorageFull:
                told["refused"] += 1
        told["full"] = writer.problem
        limit(0)
        writer.append(log_rows([4], [4]))
        told["after"] = writer.problem
        writer.close()
        print(json.dumps(told))
    """)
    command = [sys.executable, "-c", script, str(folder), TOPIC, FAILURES, on_full]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return json.loads(subprocess.run(command, env=env, capture_output=True, check=True, timeout=60).stdout)


def test_answers_stop_while_there_is_no_space_and_go_on_when_there_is(tmp_path: Path) -> None:
    told = in_a_full_file_system(tmp_path, "stop")

    assert told["refused"] == 2
    assert "refused until there is space" in told["full"]
    assert told["before"] is told["after"] is None
    assert numbers(tmp_path) == [1, 4]


def test_answers_go_on_where_that_was_chosen_and_the_missing_rows_are_counted(tmp_path: Path) -> None:
    told = in_a_full_file_system(tmp_path, "continue")

    assert (told["refused"], told["written"], told["before"]) == (0, 0, None)
    assert "is full, and inferences go on: 4 answered rows are not in the log" in told["full"]
    assert "was full for a while: 4 answered rows" in told["after"]
    assert numbers(tmp_path) == [1, 4]


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: SegmentFile, parts: object) -> int:
        raise StorageFull("The inference log has no space left on its disk.", "")

    monkeypatch.setattr(SegmentFile, "append", refuse)


@pytest.mark.usefixtures("full")
def test_every_way_into_the_log_counts_its_rows_and_says_so_now_and_then(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = [0.0]
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a", on_full=OnLogFull.CONTINUE, clock=lambda: now[0])
    shape, shared, rows = request_rows([1, 2, 3])

    for now[0] in (0.0, 1.0, SAY_AGAIN_S):
        assert writer.append(log_rows([1])) == writer.append_request(shape, 1, shared, rows) == 0
    writer.close()

    assert "12 answered rows are not in the log" in str(writer.problem)
    said = [record.getMessage() for record in caplog.records if "full" in record.getMessage()]
    assert [line.rpartition("=")[2] for line in said] == ["1", "9"]


@pytest.mark.usefixtures("full")
def test_a_failed_inference_that_is_not_logged_is_its_callers_to_tell(tmp_path: Path) -> None:
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a", on_full=OnLogFull.CONTINUE)

    with pytest.raises(StorageFull):
        writer.append(log_rows([1]), failed=True)
    writer.close()

    assert writer.problem is None
