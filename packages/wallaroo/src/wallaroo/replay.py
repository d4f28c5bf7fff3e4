"""A replay: logged inputs through another version of their pipeline, and how far its answers agree with those given."""

from __future__ import annotations

import html
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from wallaroo import _times, job, logs
from wallaroo._html import ObjectList, grid, text_grid
from wallaroo._wait import quiet_when_interrupted
from wallaroo.object import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    import pandas as pd
    import pyarrow as pa
    from matplotlib.axes import Axes

    from wallaroo._row_streams import Batches
    from wallaroo.client import Client
    from wallaroo.job import Job

COLUMNS = ("column", "rows", "equal", "share", "mean_abs", "max_abs")
FURTHER = ("pearson", "kappa", "note")
ENDED = ("succeeded", "failed", "cancelled")
SHOWN = ("column", "rows", "equal", "share", "mean_abs", "max_abs", "pearson", "kappa", "note")
DEFAULT_ROWS, PLOTTED_ROWS = 100, 2_000


class Replay:
    """What `Pipeline.replay` gives: both answers side by side, and statistics of how far they agree.

    `.agreement` has a row per column of the answers, `.rows()` the rows that differ, `.plot()` draws either.

    Attributes:
        job: what does it on the platform.
    """

    def __init__(self, job: Job) -> None:
        self.job = job

    def id(self) -> str:
        """Of its job."""
        return self.job.id()

    def version(self) -> str:
        """The UUID of the version that rows went through."""
        return str(self.job.request()["pipeline_version"])

    def state(self) -> str:
        """`pending`, `running`, `succeeded`, `failed` or `cancelled`."""
        return self.job.state()

    @quiet_when_interrupted
    def wait(self, timeout: float | None = None) -> Replay:
        """Return when it has ended, showing how far it is. An interrupt (Ctrl-C) cancels it, and leaves what it has.

        Raises:
            JobError: it failed, and why.
            WaitForError: it has not ended in `timeout` seconds, and goes on.
        """
        try:
            self.job._wait(timeout, "The replay is cancelled. What it has compared so far is in replays()[0].")
        except KeyboardInterrupt:
            self.cancel()
            raise
        return self

    def cancel(self) -> None:
        """Ask it to end; what it compared so far stays."""
        self.job.cancel()

    @property
    def result(self) -> dict[str, Any]:
        """All that was counted, as the platform has it.

        Raises:
            JobError: it failed, and why.
            RuntimeError: there is nothing yet, or it was cancelled before it began.
        """
        if (result := self.job.result()) is not None:
            return result
        if self._last_state == "failed":
            raise JobError(self.id(), self.job.error())
        next_step = "Ask for another one." if self._last_state in ENDED else "Call wait() first."
        raise RuntimeError(f"The replay is {self._last_state} and has no result. {next_step}")

    @property
    def agreement(self) -> pd.DataFrame:
        """One row per column that both answers have: `column`, `rows`, `equal` (rows), `share` (of them), `mean_abs`
        and `max_abs` (of after − before), `p01` to `p99` (its quantiles), `pearson`, `kappa`, `note`.

        Floats are equal when |after − before| <= tolerance + tolerance · |before|, NaN equals NaN, lists are equal when
        all their items are; anything else when it is the same. Items of lists are values of the statistics. Counts,
        means, the largest difference, Pearson's r and Cohen's kappa are exact; quantiles are at most 1 % off. NaN where
        a statistic makes no sense.
        """
        import pandas as pd

        columns = [*COLUMNS, *self._quantiles(), *FURTHER]
        return pd.DataFrame([self._agreed(each) for each in self.result["columns"]], columns=columns)

    @property
    def reasons(self) -> pd.DataFrame:
        """Why rows have no answer of the version, most frequent first: `reason`, `rows`."""
        import pandas as pd

        return pd.DataFrame(self.result["reasons"], columns=["reason", "rows"])

    def confusion(self, column: str) -> pd.DataFrame:
        """How often each class of a column became which: a row per class before, a column per class after.

        Raises:
            ValueError: there is no such column, or it has more than 20 classes, or no classes at all.
        """
        import pandas as pd

        found = {each["column"]: each for each in self.result["columns"]}
        table = found.get(column, {}).get("confusion")
        if table is None:
            there = [name for name, each in found.items() if "confusion" in each]
            raise ValueError(f"'{column}' has no table of classes. There is one for: {', '.join(there) or 'none'}.")
        before, after = (pd.Index(table["values"], name=name) for name in ("before", "after"))
        return pd.DataFrame(table["counts"], index=before, columns=after)

    def rows(self, differing_only: bool = True, limit: int | None = DEFAULT_ROWS) -> pd.DataFrame:
        """Rows side by side, in the order of the log: `time`, `in.*`, pairs of `before.x` and `after.x`, `differs`.

        A row that the version did not answer differs, and has the reason in `error.after`; one that failed before has
        that reason in `error.before`.

        Args:
            differing_only: leave out rows whose answers are equal.
            limit: the most rows; None for all of them.
        """
        import pyarrow as pa

        with self._batches() as batches:
            found = list(_chosen(batches, differing_only, limit))
            table = pa.Table.from_batches(found, batches.schema)
        return table.select(_in_order(table.column_names)).to_pandas()

    def to_parquet(self, path: str | Path, differing_only: bool = False) -> Path:
        """Write the rows to a file, one batch of them in memory. It is there once it is whole; folders are made."""
        import pyarrow.parquet as pq

        target = Path(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        unfinished = target.with_name(f".{target.name}.part")
        try:
            with self._batches() as batches, pq.ParquetWriter(unfinished, batches.schema, compression="zstd") as writer:
                for batch in _chosen(batches, differing_only, None):
                    writer.write_batch(batch)
            unfinished.replace(target)
        finally:
            unfinished.unlink(missing_ok=True)
        return target

    def plot(self, column: str | None = None, ax: Axes | None = None) -> Axes:
        """Draw the share of equal rows per column; or of one column, the table of its classes, or the numbers of its
        first 2,000 rows before and after. Returns the axes.

        Raises:
            ImportError: matplotlib is not installed.
            ValueError: there is no such column, or it has neither classes nor numbers.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as missing:
            raise ImportError("plot() needs matplotlib: pip install 'bettong-sdk[notebook]'") from missing

        if ax is None:
            _, ax = plt.subplots(figsize=(8, 4), layout="constrained")
        if column is None:
            self._draw_shares(ax)
        else:
            self._draw_column(column, ax)
        return ax

    # --- drawing ----------------------------------------------------------------------------------------------------

    def _draw_shares(self, ax: Axes) -> None:
        found = [each for each in self.result["columns"] if each["share"] is not None]
        names, shares = [each["column"] for each in found], [each["share"] for each in found]
        ax.barh(names, shares)
        ax.invert_yaxis()
        ax.set(xlim=(0, 1), xlabel="share of equal rows", title=f"Replay through {self.version()}")

    def _draw_column(self, column: str, ax: Axes) -> None:
        told = next((each for each in self.result["columns"] if each["column"] == column), None)
        if told is None or not ("confusion" in told or told.get("values")):
            drawn = [c["column"] for c in self.result["columns"] if "confusion" in c or c.get("values")]
            raise ValueError(f"'{column}' cannot be drawn. These can: {', '.join(drawn) or 'none'}.")
        ax.set(xlabel="after", ylabel="before", title=f"{column}: {told['share']:.2%} of rows equal")
        if "confusion" in told:
            values, counts = [str(value) for value in told["confusion"]["values"]], told["confusion"]["counts"]
            ax.imshow(counts, cmap="Blues")
            ax.set_xticks(range(len(values)), values)
            ax.set_yticks(range(len(values)), values)
            for row, line in enumerate(counts):
                for at, count in enumerate(line):
                    ax.annotate(f"{count:,}", (at, row), ha="center", va="center")
            return
        rows = self.rows(differing_only=False, limit=PLOTTED_ROWS)
        before, after = (_numbers(rows[f"{side}.{column}"]) for side in ("before", "after"))
        pairs = [(b, a) for b, a in zip(before, after, strict=False) if math.isfinite(b) and math.isfinite(a)]
        ax.set(xlabel="before", ylabel="after")
        ax.scatter([b for b, _ in pairs], [a for _, a in pairs], s=8, alpha=0.5)
        if pairs:
            ends = [min(map(min, pairs)), max(map(max, pairs))]
            ax.plot(ends, ends, linewidth=1, color="grey", linestyle="--", label="equal")
            ax.legend()

    # --- showing ----------------------------------------------------------------------------------------------------

    def _summary(self) -> str:
        result = self.result
        if not result["rows"] and not result["stopped"]:
            return f"Replay through version {self.version()}: {self._nothing()}"
        share = "" if result["share"] is None else f" ({result['share']:.2%})"
        compared = f"{result['compared']:,} rows compared, {result['equal']:,}{share} equal"
        told = [f"Replay through version {self.version()}: {compared}"]
        if result["failed"]:
            told.append(f"{result['failed']:,} have no answer any more")
        left = result["not_replayable"]
        if left["dropped"] or left["unfit"]:
            told.append(f"{left['dropped'] + left['unfit']:,} could not be replayed")
        if result["failures"]:
            told.append(f"{result['failures']['pass_now']:,} of {result['failures']['rows']:,} that failed pass now")
        for which, words in (("only_before", "gone"), ("only_after", "new")):
            if result[which]:
                told.append(f"{words}: {', '.join(result[which])}")
        if result["stopped"]:
            told.append(f"it stopped: {result['stopped']}")
        return "; ".join(told) + "."

    def _nothing(self) -> str:
        """Of a window without rows."""
        result = self.result
        window = f"between {result['start']} and {result['end']}"
        if result["failures"] is not None:
            return f"there are no requests in the log {window}. Give another start and end."
        return (
            f"there are no answered requests in the log {window}. Give another start and end; failed=True replays "
            "those that failed, too."
        )

    def _repr_html_(self) -> str:
        if self.job._record["result"] is None:
            return html.escape(repr(self))
        shown = self._shown()
        return f"<p>{html.escape(self._summary())}</p>{grid(SHOWN, shown) if shown else ''}"

    def __repr__(self) -> str:
        if self.job._record["result"] is None:
            return f"Replay({self.id()!r}, {self._last_state})"
        shown = self._shown()
        return f"{self._summary()}\n{text_grid(SHOWN, shown)}" if shown else self._summary()

    def _shown(self) -> list[Sequence[str]]:
        table = self.agreement[list(SHOWN)]
        return [
            [_cell(name, value) for name, value in zip(SHOWN, row, strict=True)]
            for row in table.itertuples(index=False)
        ]

    def _agreed(self, told: Mapping[str, Any]) -> list[Any]:
        types = [f"{before} → {after}" for before, after in told["types"] if before != after]
        quantiles = told.get("quantiles", {})
        return [
            *(_number(told.get(name)) if name not in ("column", "rows", "equal") else told[name] for name in COLUMNS),
            *(_number(quantiles.get(q)) for q in self._quantiles().values()),
            _number(told.get("pearson")),
            _number(told.get("kappa")),
            ", ".join(types),
        ]

    def _quantiles(self) -> dict[str, str]:
        """Names of columns and the quantiles that they hold, of those that any column has."""
        found = {q for each in self.result["columns"] for q in each.get("quantiles", {})}
        return {f"p{round(float(q) * 100):02d}": q for q in sorted(found, key=float)}

    # --- the platform -----------------------------------------------------------------------------------------------

    @property
    def _last_state(self) -> str:
        """As of the last look."""
        return str(self.job._record["state"])

    def _batches(self) -> Batches:
        _ = self.result  # there is one
        batches: Batches = self.job.rows("batches")
        return batches


class ReplayList(ObjectList[Replay]):
    columns = ("id", "created", "version", "state", "compared", "equal", "share")
    empty = "(no replays)"

    def _row(self, item: Replay) -> Sequence[Any]:
        record = item.job._record
        result = record["result"] or {}
        share = result.get("share")
        return [
            item.id(),
            self._date(item.job.created_at()),
            item.version(),
            record["state"],
            result.get("compared"),
            result.get("equal"),
            None if share is None else f"{share:.2%}",
        ]


def start(client: Client, request: Mapping[str, Any], wait: bool) -> Replay:
    """Have a replay made; with `wait`, the one that has ended."""
    replay = Replay(job.make(client, "replay", request))
    return replay.wait() if wait else replay


def of_pipeline(client: Client, pipeline_id: int, workspace_id: int) -> ReplayList:
    """Those that there are, newest first."""
    found = job.list_all(client, kind="replay", workspace_id=workspace_id)
    return ReplayList(client, (Replay(each) for each in found if each.request()["pipeline_id"] == pipeline_id))


def moment(name: str, given: datetime) -> str:
    """A time for the wire; a naive one counts as UTC, and is warned of."""
    if given.tzinfo is None:
        logs.warn(f"Warning: {name} has no time zone and is taken as UTC. Pass an aware datetime to be sure.")
    return _times.as_utc_text(given)


def _chosen(batches: Batches, differing_only: bool, limit: int | None) -> Iterator[pa.RecordBatch]:
    left = limit
    for batch in batches:
        rows = batch.filter(batch.column("differs")) if differing_only and batch.num_rows else batch
        rows = rows if left is None else rows.slice(0, left)
        if rows.num_rows:
            yield rows
        if left is not None:
            left -= rows.num_rows
            if left <= 0:
                return


def _in_order(names: Sequence[str]) -> list[str]:
    """Time, inputs, answers in pairs, errors, the mark."""
    answers = list(dict.fromkeys(name.partition(".")[2] for name in names if name.startswith(("before.", "after."))))
    pairs = [f"{side}.{answer}" for answer in answers for side in ("before", "after")]
    last = ["error.before", "error.after", "differs"]
    first = [name for name in names if name not in pairs and name not in last]
    return [name for name in (*first, *pairs, *last) if name in names]


def _numbers(values: Any) -> list[float]:
    """The numbers of a column, items of lists one by one; NaN for what is none."""
    found: list[float] = []
    for value in values:
        items = value if hasattr(value, "__len__") and not isinstance(value, str) else [value]
        found += [math.nan if item is None else float(item) for item in items]
    return found


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _cell(name: str, value: Any) -> str:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.2%}" if name == "share" else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) else str(value)
