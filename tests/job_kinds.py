"""A kind of job for tests, which goes on when it is let: its steps wait at gates, which are files that a test makes.

The process of a job imports this module by its folder alone, so it imports nothing of the tests.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from bettong.domain.drivers import Capability, ReadRequest
from bettong.errors import BadInput, Unavailable
from bettong.jobs.work import REJECTS, RESULT

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.jobs.work import Work


_STEP: Any = pa.field("step", pa.int64())
PRICES = pa.schema([_STEP, pa.field("price", pa.float32())])
REASONS = pa.schema([_STEP, pa.field("reason", pa.string())])


def stepwise(work: Work) -> Mapping[str, Any]:
    """Answers the rows of a query, one step each; the file `step-N` in the request's folder `gates` lets step N go on.

    A step appends what it got to `steps.txt` there, with the attempt and the process, and reports its number as the
    place to go on from. `misfortune` names what befalls a step: {"3": "bad_input"}.
    """
    gates = Path(work.request["gates"])
    misfortunes: dict[str, str] = work.request.get("misfortune", {})
    with work.source("source", Capability.READ) as opened:
        source: Any = opened
        rows = source.read(ReadRequest(work.request["source"]["query"])).read_all()
    first = int(work.position or 0)
    done = first
    work.say(f"begins at step {first} of {rows.num_rows}")
    with contextlib.ExitStack() as stack:
        result = _writer(stack, work, RESULT, PRICES)
        rejects = _writer(stack, work, REJECTS, REASONS)
        for step in range(first, rows.num_rows):
            if not _passed(work, gates / f"step-{step}"):
                break
            _befall(misfortunes.get(str(step)), gates, step)
            answer = work.infer(_tensor(rows.slice(step, 1)))
            prices: list[Any] = answer.column("out.variable").to_pylist()
            price = float(prices[0][0])
            result.write_batch(pa.RecordBatch.from_pylist([{"step": step, "price": price}], PRICES))
            if step % 2:
                rejects.write_batch(pa.RecordBatch.from_pylist([{"step": step, "reason": "an odd number"}], REASONS))
            with (gates / "steps.txt").open("a") as file:
                file.write(f"{step} {work.attempt} {os.getpid()} {price}\n")
            done = step + 1
            work.report(
                {"rows_read": done, "rows_written": done, "rows_rejected": done // 2, "rows_total": rows.num_rows},
                str(done),
            )
    return {"rows": done, "attempt": work.attempt, "columns": answer.column_names if done > first else []}


def _tensor(row: pa.Table) -> pa.Table:
    return pa.table({"tensor": pa.array([list(each.values()) for each in row.to_pylist()], pa.list_(pa.float32()))})


def _writer(stack: contextlib.ExitStack, work: Work, what: str, schema: pa.Schema) -> Any:
    return stack.enter_context(pa.ipc.new_stream(str(work.folder / f"{what}-{work.attempt:04}.arrow"), schema))


def _passed(work: Work, gate: Path) -> bool:
    while not gate.exists():
        if work.cancelled:
            return False
        time.sleep(0.01)
    return True


def _befall(what: str | None, gates: Path, step: int) -> None:
    """Each misfortune but a bug and bad input happens once."""
    once = gates / f"befell-{step}"
    if what in ("killed", "unavailable"):
        if once.exists():
            return
        once.touch()
    if what == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "always_killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if what == "unavailable":
        raise Unavailable("The source is asleep.", "Wake it.")
    if what == "bad_input":
        raise BadInput("The rows have no column 'amout'.", "Name another.")
    if what == "bug":
        raise ValueError("a text with correct-horse in it")
