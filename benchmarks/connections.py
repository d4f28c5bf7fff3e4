"""Rows of PostgreSQL through a Connection and by ADBC directly: `python benchmarks/connections.py [rows] [--page]`.

A private server and a fresh platform. One round reads a table of seven columns to a DataFrame and appends that frame
to another table, both ways, one way after the other, so that whatever else this machine does meanwhile meets both. Of
each step the seconds on the wall, and the CPU seconds of all processes involved: this one, the platform's and the
database's. Nothing of it leaves this machine; all of it is gone afterwards.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import adbc_driver_postgresql.dbapi
import psutil
import psycopg
import pyarrow as pa
import report  # type: ignore[import-not-found]  # lies beside this file

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from platforms import new_home, processes_of  # noqa: E402  (lies in tests)
from postgres import running_postgres  # noqa: E402

import wallaroo  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import pandas as pd
    from postgres import Postgres

COMMAND = "make bench-connections"
WANTED = 1.2  # times what the same costs without us
COLUMNS = (
    "id bigint, at timestamptz, store text, units integer, price double precision, cost double precision, "
    "share double precision"
)
VALUES = (
    "n, timestamptz '2026-01-01 00:00Z' + n * interval '1 second', 'store ' || n % 1000, n % 100, random() * 100, "
    "random() * 50, random()"
)
SETTLED_WITHIN_S = 5.0
CALM_S, CALM_LOOKS = 0.02, 3  # so little CPU between looks, so often: nobody works any more


@dataclass(frozen=True)
class Took:
    wall_s: float
    cpu_s: float


class Meter:
    """What one step takes, of the wall's time and of the CPU time of all who take part."""

    def __init__(self, server: Postgres, home: Path) -> None:
        platform = processes_of(home)
        pids = {process.pid for process in platform}
        self._roots = [p for p in platform if p.ppid() not in pids]
        self._roots += [p for p in psutil.process_iter() if ["-p", str(server.port)] == _words(p)[3:5]]

    def step(self, work: Callable[[], Any]) -> Took:
        """One step, with what the platform does after it to be ready for the next one."""
        before = self._others_cpu_s()
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        made = work()
        wall_s, own_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        del made
        return Took(wall_s, own_s + self.settled() - before)

    def settled(self) -> float:
        """The CPU seconds of all others, once they do nothing any more and those that ended were waited for."""
        until, before, calm = time.monotonic() + SETTLED_WITHIN_S, self._others_cpu_s(), 0
        while calm < CALM_LOOKS and time.monotonic() < until:
            time.sleep(0.1)
            now = self._others_cpu_s()
            calm = calm + 1 if now - before < CALM_S else 0
            before = now
        return before

    def _others_cpu_s(self) -> float:
        """Of those that live and those that were waited for."""
        total = 0.0
        for root in self._roots:
            for process in (root, *root.children(recursive=True)):
                with suppress(psutil.Error):
                    total += sum(process.cpu_times()[:4])
        return total


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("rows", type=int, nargs="?", default=1_000_000)
    asked.add_argument("--rounds", type=int, default=7)
    asked.add_argument("--page", action="store_true", help="write the section of docs/performance.md")
    arguments = asked.parse_args()
    with running_postgres() as server, new_home() as home:
        make_tables(server, arguments.rows)
        wl = wallaroo.Client()
        details = {"host": "127.0.0.1", "port": server.port, "user": "bettong", "database": "postgres"}
        warehouse = wl.create_connection("warehouse", "POSTGRES", details)
        frame = warehouse.read("sales")
        steps: dict[str, tuple[Callable[[], Any], Callable[[], Any]]] = {
            "read to a DataFrame": (lambda: read_directly(server), lambda: warehouse.read("sales")),
            "append a DataFrame": (lambda: append_directly(server, frame), lambda: warehouse.write("sink", frame)),
        }
        found = measured(server, Meter(server, home), steps, arguments.rounds)
    print(report.table(*comparison(found)))
    if arguments.page:
        report.write_section("connections", section(arguments.rows, arguments.rounds, found), COMMAND)


def make_tables(server: Postgres, rows: int) -> None:
    with psycopg.connect(server.url(), autocommit=True) as owner:
        owner.execute(f"create table sales ({COLUMNS})")
        owner.execute(f"insert into sales select {VALUES} from generate_series(1, {rows}) n")
        owner.execute(f"create table sink ({COLUMNS})")
        owner.execute("vacuum analyze")


def measured(
    server: Postgres,
    meter: Meter,
    steps: dict[str, tuple[Callable[[], Any], Callable[[], Any]]],
    rounds: int,
) -> dict[str, tuple[list[Took], list[Took]]]:
    """By step what it took directly and through the platform. The first round warms up and is not counted."""
    found: dict[str, tuple[list[Took], list[Took]]] = {name: ([], []) for name in steps}
    for number in range(rounds + 1):
        for name, ways in steps.items():
            for way, work in enumerate(ways):
                with psycopg.connect(server.url(), autocommit=True) as owner:
                    owner.execute("truncate sink")
                    owner.execute("checkpoint")
                meter.settled()
                took = meter.step(work)
                if number:
                    found[name][way].append(took)
    return found


def read_directly(server: Postgres) -> pd.DataFrame:
    with closing(adbc_driver_postgresql.dbapi.connect(server.url())) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT * FROM sales")
        frame: pd.DataFrame = cursor.fetch_arrow_table().to_pandas()
        return frame


def append_directly(server: Postgres, frame: pd.DataFrame) -> int:
    with closing(adbc_driver_postgresql.dbapi.connect(server.url())) as connection, connection.cursor() as cursor:
        count = cursor.adbc_ingest("sink", pa.Table.from_pandas(frame, preserve_index=False), mode="append")
        connection.commit()
        return int(count)


def comparison(found: dict[str, tuple[list[Took], list[Took]]]) -> tuple[list[str], list[list[str]]]:
    """The heads and the lines of the table."""
    heads = ["", "ADBC directly", "through a Connection", "ratio", "CPU directly", "CPU in all", "ratio of CPU"]
    lines = []
    for name, (directly, ours) in found.items():
        wall = [_median(took.wall_s for took in way) for way in (directly, ours)]
        cpu = [_median(took.cpu_s for took in way) for way in (directly, ours)]
        lines.append(
            [
                *(name, f"{wall[0]:.2f} s", f"{wall[1]:.2f} s", f"{wall[1] / wall[0]:.2f}"),
                *(f"{cpu[0]:.2f} s", f"{cpu[1]:.2f} s", f"{cpu[1] / cpu[0]:.2f}"),
            ]
        )
    return heads, lines


def section(rows: int, rounds: int, found: dict[str, tuple[list[Took], list[Took]]]) -> str:
    return "\n".join(
        [
            "## Rows through a Connection",
            "",
            f"{report.made_by(COMMAND)} Medians of {rounds} rounds in which both ways take turns.",
            "",
            f"{rows:,} rows of seven columns (two whole numbers, a time, a text, three doubles) of a PostgreSQL on",
            "this machine, to a pandas DataFrame and back: by ADBC in the process of the notebook, and by",
            "`connection.read` and `connection.write`, where rows go from the database to a process of the driver, to",
            "the server and to the notebook, or back. An append is one transaction either way. CPU is that of all",
            "processes, the database's among them, and with what comes after a call: the next process of a driver",
            "starts then, which takes a third of a second of CPU, however many rows there are.",
            "",
            report.table(*comparison(found)),
            "",
            f"Wanted: at most {WANTED} times as long as ADBC called directly.",
            "",
        ]
    )


def _median(values: Iterable[float]) -> float:
    return statistics.median(values)


def _words(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
