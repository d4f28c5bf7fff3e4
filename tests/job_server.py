"""A server whose kinds of jobs are those of `job_kinds`. Run as a program it serves what BETTONG_HOME names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from bettong import compose
from bettong.cli import server
from bettong.domain.jobs import JobKind
from bettong.jobs import kinds, queue
from bettong.services import jobs
from bettong.services.job_orders import Ground, Order

if TYPE_CHECKING:
    from collections.abc import Mapping

HERE = str(Path(__file__).parent)


def as_asked(asked: Mapping[str, Any], ground: Ground) -> Order:
    return Order(asked, "each step once")


def main() -> None:
    jobs.ORDERS = dict.fromkeys(JobKind, as_asked)
    made = kinds.Programs(dict.fromkeys(JobKind, "job_kinds:stepwise"), (HERE,))
    queue.RENEW_EVERY_S = 1.0  # so that what a job stands on is looked at while a test waits
    kinds.Programs = lambda: made  # type: ignore[assignment, misc]  # what compose asks for
    server.serve(compose.settings_from_environment())


if __name__ == "__main__":
    main()
