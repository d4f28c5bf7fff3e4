"""A sink that keeps a batch together with the checkpoint of its job: killed anywhere, no row is lost or doubled."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pyarrow as pa
import pytest
from contract.drivers.cases import Case, new_name, with_capability

from bettong.domain.drivers import Capability, Transactional, WriteMode, WriteRequest
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.registry import Registry
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

TRANSACTIONAL = pytest.mark.parametrize("case", with_capability(Capability.TRANSACTION), indirect=True)
TESTS = Path(__file__).parents[2]

# A job that writes four batches, told over its standard input where and when to die: after the rows of a batch are in
# the database, before its checkpoint is.
JOB = """
import json, os, signal, sys
sys.path.insert(0, sys.argv[1])
import pyarrow as pa
from bettong.domain.drivers import Capability, Egress, WriteMode, WriteRequest
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.registry import Registry
told = json.load(sys.stdin)
reach = Reach(Egress(**{name: tuple(value) for name, value in told["egress"].items()}))
opening = Opening(told["kind"], Registry().driver(told["kind"]), told["details"], reach, 30)
with opening.source(Capability.TRANSACTION) as sink:
    first = int(sink.position(told["job"]) or 0)
    for n in range(first, 4):
        if n == told["die_at"]:
            sink.keep_position = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        batch = pa.record_batch({"n": [10 * n, 10 * n + 1]})
        sink.write_batch(WriteRequest(told["table"], WriteMode(told["mode"])), batch, told["job"], str(n + 1))
"""


@contextmanager
def sink_of(case: Case) -> Iterator[Transactional]:
    opening = Opening(case.kind, Registry().driver(case.kind), case.details, Reach(case.calls._egress), 30)
    with opening.source(Capability.TRANSACTION) as source:
        yield cast("Transactional", source)


def row(n: int | None, v: str) -> pa.RecordBatch:
    return pa.RecordBatch.from_arrays([pa.array([n], pa.int64()), pa.array([v])], names=["n", "v"])


def run_job(case: Case, table: str, mode: str, die_at: int | None) -> int:
    told = {
        "kind": case.kind,
        "details": case.details,
        "egress": asdict(case.calls._egress),
        "table": table,
        "mode": mode,
        "die_at": die_at,
        "job": f"job of {table}",
    }
    command = [sys.executable, "-c", JOB, str(TESTS)]
    return subprocess.run(command, input=json.dumps(told), text=True, check=False).returncode


@TRANSACTIONAL
@pytest.mark.parametrize("mode", ["append", "replace"])
def test_a_job_that_is_killed_between_rows_and_checkpoint_goes_on_without_a_lost_or_doubled_row(
    case: Case, mode: str
) -> None:
    table = case.make(pa.table({"n": [-1]}))  # rows from before: append keeps them, replace does not

    assert run_job(case, table, mode, die_at=2) == -signal.SIGKILL

    before = [-1] if mode == "append" else []
    with sink_of(case) as sink:
        assert sink.position(f"job of {table}") == "2"
    assert sorted(case.read(table)["n"].to_pylist()) == [*before, 0, 1, 10, 11]  # type: ignore[type-var]

    assert run_job(case, table, mode, die_at=None) == 0

    assert sorted(case.read(table)["n"].to_pylist()) == [*before, 0, 1, 10, 11, 20, 21, 30, 31]  # type: ignore[type-var]
    with sink_of(case) as sink:
        assert sink.position(f"job of {table}") == "4"
        assert sink.position("another job") is None


@TRANSACTIONAL
def test_the_checkpoint_of_a_batch_that_is_refused_is_not_kept(case: Case) -> None:
    table = job = case.at(new_name())
    with sink_of(case) as sink:
        request = WriteRequest(table, WriteMode.UPSERT, ("n",))
        sink.write_batch(request, row(1, "a"), job, "1")

        with pytest.raises(BadInput, match="holds nulls"):
            sink.write_batch(request, row(None, "b"), job, "2")

        assert sink.position(job) == "1"
        sink.write_batch(request, row(1, "c"), job, "2")
        assert sink.position(job) == "2"

    assert case.read(table).to_pylist() == [{"n": 1, "v": "c"}]


@TRANSACTIONAL
@pytest.mark.parametrize("wrote", [True, False])
def test_an_attempt_that_was_taken_for_dead_writes_nothing_beside_the_next_one(case: Case, wrote: bool) -> None:
    table = job = case.at(new_name())
    request = WriteRequest(table)
    with sink_of(case) as dead, sink_of(case) as living:
        assert dead.position(job) is None
        if wrote:
            dead.write_batch(request, row(1, "a"), job, "1")
        assert living.position(job) == ("1" if wrote else None)
        living.write_batch(request, row(2, "b"), job, "2")

        with pytest.raises(Unavailable, match="Another attempt at this job"):  # it wakes up
            dead.write_batch(request, row(2, "b"), job, "2")

        living.write_batch(request, row(3, "c"), job, "3")
        assert living.position(job) == "3"

    assert sorted(case.read(table)["n"].to_pylist()) == [*([1] if wrote else []), 2, 3]  # type: ignore[type-var]
