"""Promise 1: a row whose append has returned is in the log, also after `kill -9` the moment after."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import cast

import pytest
from builders import log_rows

from bettong.domain.logs import LogQuery
from bettong.logstore.compaction import maintain
from bettong.logstore.reader import SegmentLogReader
from bettong.logstore.writer import SegmentLogWriter

TOPIC, FAILURES = "workspace-1-pipeline-p-inference", "workspace-1-pipeline-p-failures"
APPENDING = textwrap.dedent("""
    import sys
    from pathlib import Path
    from builders import log_rows
    from bettong.logstore.writer import SegmentLogWriter

    writer = SegmentLogWriter(Path(sys.argv[1]), sys.argv[2], sys.argv[3], "engine-a", roll_bytes=int(sys.argv[4]))
    for n in range(1_000_000):
        writer.append(log_rows([1_000 + n // 3], [n]))
        print(n, flush=True)
""")


@pytest.mark.parametrize(("seed", "roll_bytes"), [(1, 2**26), (2, 2**26), (3, 20_000), (4, 20_000)])
def test_every_acknowledged_row_of_a_killed_process_is_in_the_log_once(
    tmp_path: Path, seed: int, roll_bytes: int
) -> None:
    command = [sys.executable, "-c", APPENDING, str(tmp_path), TOPIC, FAILURES, str(roll_bytes)]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    enough = random.Random(seed).randint(50, 1500)
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if int(line) >= enough:
                break
        process.kill()
        rest = process.stdout.read()
    acknowledged = max(
        enough, *(int(line) for line in rest.split("\n")[:-1]), 0
    )  # a line without its end was no answer

    found = everything(tmp_path)
    assert found == list(range(len(found)))
    assert acknowledged + 1 <= len(found) <= acknowledged + 2  # the last append may have lived longer than its line

    maintain(tmp_path, 0.0, 2**40)
    assert everything(tmp_path) == found
    writer = SegmentLogWriter(tmp_path, TOPIC, FAILURES, "engine-a")  # the restarted replica
    writer.append(log_rows([10**6], [len(found)]))
    writer.close()
    assert everything(tmp_path) == list(range(len(found) + 1))


def everything(folder: Path) -> list[int]:
    reader, found = SegmentLogReader(folder), []
    page = reader.page(LogQuery(TOPIC))
    found += cast("list[int]", page.table["in.number"].to_pylist())
    while page.cursor:
        page = reader.page(LogQuery(TOPIC, cursor=page.cursor))
        found += cast("list[int]", page.table["in.number"].to_pylist())
    return found
