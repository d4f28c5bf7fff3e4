"""What a kind of job is, and what its process hands it: values and Protocols, no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pyarrow as pa

    from bettong.domain.drivers import Capability, Source
    from bettong.domain.ports import LogReader


# Files of a job's folder that its routes stream: `rejects*.arrow`, `rejects*.parquet` and so on, in the order of their
# names. An Arrow file or stream that is not whole, be it written just now, is read as far as it goes.
REJECTS, RESULT = "rejects", "result"


class Work(Protocol):
    """One attempt at a job, in a process of its own. Used from one thread, `infer` from as many as `lanes` says."""

    job_id: str
    request: Mapping[str, Any]  # what the service checked and kept: names and ids, never a secret
    position: str | None  # where the last attempt stopped; None at the first
    attempt: int  # from 1
    folder: (
        Path  # of this job alone, kept as long as the job: what it leaves there under REJECTS and RESULT is streamed
    )
    most_bytes: int  # what it may leave there under REJECTS and RESULT; 0: as much as the disk takes
    titles: Mapping[str, str]  # its connections as people know them, by role: "REDIS 'broker'"
    lineage: Mapping[str, str]  # "job_id", "pipeline_version", "model_version", for rows that are written
    lanes: int  # how many requests the job's private deployment answers at once

    @property
    def cancelled(self) -> bool:
        """Whether somebody asked the job to end, or the server is going down: stop at the next place to go on from."""

    def source(self, role: str, needed: Capability) -> AbstractContextManager[Source]:
        """Open the connection that plays a role ("source", "sink", "dead_letter") in the request.

        Raises:
            BadInput: the details do not fit, or the driver lacks what is needed.
            Unavailable: the source does not answer.
        """

    def renew(self) -> None:
        """Have the details of connections read again, for what `source` opens from then on.

        Whatever is open is closed before. Where the server does not answer soon, they stay as they were."""

    def infer(self, rows: pa.Table) -> pa.Table:
        """The answer of the job's private deployment, which logs nothing and takes requests of nobody else.

        Columns are `time, in.*, out.*, anomaly.*` with one row for each of `rows`, in their order.

        Raises:
            BadInput: it refuses these rows (4xx); with its words.
            ModelFailed: the model failed on them (the answer was a 500).
            Unavailable: it is not there; with patience spent.
        """

    def logs(self) -> LogReader:
        """The inference logs of the platform. What may be read of them was checked when the job was made."""

    def report(self, progress: Mapping[str, Any], position: str | None = None) -> None:
        """Tell how far it is, and where a new attempt would go on. Cheap: sent at most a few times a second, but what
        carries a position at once."""

    def say(self, line: str) -> None:
        """A line for the job's log."""


class Kind(Protocol):
    """A kind of job: a function that does the work and returns its result, which JSON keeps (NaN as null). It raises a
    BettongError to fail the job with its words; Unavailable is tried again first. When `work.cancelled` turns true it
    stops where it is safe and returns what came of it so far."""

    def __call__(self, work: Work, /) -> Mapping[str, Any]: ...
