"""What a pipeline's deployment has counted: requests, rows, and how long each step takes."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Any

from wallaroo import _times
from wallaroo._html import grid, text_grid
from wallaroo.object import WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    import pandas as pd
    from matplotlib.axes import Axes

    from wallaroo.client import Client

COLUMNS = ("stage", "step", "count", "per_s", "mean_ms", "p50_ms", "p95_ms", "p99_ms")
TIMEOUT_S = 15.0  # replicas that hang are waited for, for some seconds


class PipelineMetrics:
    """One look at the counters of a deployment. They began with its first replica; a redeploy goes on with them, and
    so does a replica that is started again. Look again for newer ones.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self._document = document
        self._total: Mapping[str, Any] = document["total"]

    def label(self) -> str:
        """The deployment's, `{name}-{id}`."""
        return str(self._document["label"])

    def since(self) -> datetime:
        """When counting began."""
        return self._time("since")

    def at(self) -> datetime:
        """The time of this look."""
        return self._time("at")

    def requests(self) -> dict[int, int]:
        """Answers by HTTP status."""
        return {int(status): n for status, n in self._total["requests"].items()}

    def rejected(self) -> int:
        """Requests that met a replica at its limit, and were answered 503 for it."""
        return int(self._total["rejected"])

    def rows(self) -> int:
        """Rows of all answered inferences."""
        return int(self._total["batch_rows"]["sum"])

    def log_rows(self) -> int:
        """Rows in the log, those of failed inferences included."""
        return int(self._total["log_rows"])

    def log_bytes(self) -> int:
        """What these took when they were written."""
        return int(self._total["log_bytes"])

    def worker_restarts(self) -> dict[str, int]:
        """How often the worker of each step was started again."""
        return dict(self._total["worker_restarts"])

    def replica_restarts(self) -> int:
        """How many replicas ended without having been told to."""
        return int(self._document["replica_restarts"])

    def replicas(self) -> pd.DataFrame:
        """The living replicas: replica, pid, requests answered, rows, requests in flight and, of these, waiting."""
        rows = [
            (
                r["name"],
                r["pid"],
                _answers(r["counted"]),
                r["counted"]["batch_rows"]["sum"],
                r["in_flight"],
                r["waiting"],
            )
            for r in self._document["replicas"]
        ]
        import pandas as pd

        return pd.DataFrame(rows, columns=["replica", "pid", "requests", "rows", "in_flight", "waiting"])

    def to_pandas(self) -> pd.DataFrame:
        """One row per stage of an inference, in order: the whole request, parse, each step, log, encode.

        `count` are inferences, `per_s` is their mean rate since counting began. Quantiles are read from buckets, of
        which ten make a power of ten: with `below` of `count` values under the bucket's lower edge and `inside` in it,
        quantile q is `lower + (upper - lower) * (q * count - below) / inside` in the first bucket where
        `below + inside >= q * count`. A value beyond the last edge, 100 s, counts as that. NaN where nothing was
        counted.
        """
        import pandas as pd

        return pd.DataFrame(self._table(), columns=list(COLUMNS))

    def plot(self, ax: Axes | None = None) -> Axes:
        """Draw how long the steps take: inferences by milliseconds, on a logarithmic scale. Returns the axes.

        Raises:
            ImportError: matplotlib is not installed.
        """
        try:
            import matplotlib.pyplot as plt
        except ImportError as missing:
            raise ImportError("plot() needs matplotlib: pip install 'bettong-sdk[notebook]'") from missing

        if ax is None:
            _, ax = plt.subplots(figsize=(8, 4), layout="constrained")
        edges = [self._edges[0] / 1e7, *(edge / 1e6 for edge in self._edges)]  # from there on, zero being nowhere
        drawn = {name: h["counts"] for name, h in self._total["steps"].items() if any(h["counts"])}
        for name, counts in drawn.items():
            ax.stairs([*counts[:-2], counts[-2] + counts[-1]], edges, label=name, fill=len(drawn) == 1)
        ax.set(xscale="log", xlabel="ms", ylabel="inferences", title=f"Latency by step: {self.label()}")
        if drawn:
            seen = [n for counts in drawn.values() for n, count in enumerate(counts) if count]
            ax.set_xlim(edges[max(min(seen), 1)] / 2, edges[min(max(seen) + 1, len(edges) - 1)] * 2)
            ax.legend()
        return ax

    @property
    def _edges(self) -> Sequence[int]:
        edges: Sequence[int] = self._document["time_edges_ns"]
        return edges

    def _time(self, name: str) -> datetime:
        moment = _times.parse(self._document[name])
        assert moment is not None
        return moment

    def _table(self) -> list[tuple[Any, ...]]:
        total = self._total
        stages: list[tuple[str, str, Mapping[str, Any]]] = [("request", "", total["duration"])]
        stages += [("parse", "", total["stages"]["parse"])] if "parse" in total["stages"] else []
        stages += [("step", name, histogram) for name, histogram in total["steps"].items()]
        stages += [(name, "", h) for name, h in total["stages"].items() if name != "parse"]
        passed_s = (self.at() - self.since()).total_seconds()
        return [self._row(stage, step, histogram, passed_s) for stage, step, histogram in stages]

    def _row(self, stage: str, step: str, histogram: Mapping[str, Any], passed_s: float) -> tuple[Any, ...]:
        counts = histogram["counts"]
        count = sum(counts)
        mean_ms = histogram["sum"] / count / 1e6 if count else float("nan")
        quantiles = [quantile(self._edges, counts, q) / 1e6 for q in (0.5, 0.95, 0.99)]
        return (stage, step, count, count / passed_s if passed_s > 0 else float("nan"), mean_ms, *quantiles)

    def _shown(self) -> list[tuple[str, ...]]:
        return [
            (stage, step, str(count), *("" if value != value else f"{value:.3g}" for value in numbers))
            for stage, step, count, *numbers in self._table()
        ]

    def _summary(self) -> str:
        answers = ", ".join(f"{n} × {status}" for status, n in self.requests().items()) or "no request yet"
        began = self.since().strftime("%Y-%m-%d %H:%M:%S")
        count = len(self._document["replicas"])
        replicas = "1 replica" if count == 1 else f"{count} replicas"
        return f"{self.label()}: {answers}; {self.rows()} rows since {began} UTC; {replicas}"

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(self._summary())}</p>{grid(COLUMNS, self._shown())}"

    def __repr__(self) -> str:
        return f"{self._summary()}\n{text_grid(COLUMNS, self._shown())}"


def get(client: Client, request: Mapping[str, Any], name: str) -> PipelineMetrics:
    """By `{"pipeline_id"}` or `{"label"}`. Raises RuntimeError when it is not deployed; `name` is for that."""
    try:
        return PipelineMetrics(client._transport.post("/v1/api/metrics/pipeline", request, timeout_s=TIMEOUT_S))
    except WallarooAPIError as error:
        if error.code == 404:
            raise RuntimeError(f"Pipeline {name} is not deployed and counts nothing. Call deploy() first.") from None
        raise


def quantile(edges: Sequence[int], counts: Sequence[int], q: float) -> float:
    """Quantile `q` of values that are known by bucket alone, evenly spread over each.

    Args:
        edges: upper edges of the buckets, rising; the first bucket begins at 0.
        counts: values in each, and after them those above the last edge, which count as that edge.

    Returns:
        In the unit of `edges`; NaN without a value.
    """
    count = sum(counts)
    if not count:
        return float("nan")
    wanted, below, lower = q * count, 0, 0
    for upper, inside in zip(edges, counts, strict=False):
        if inside and below + inside >= wanted:
            return lower + (upper - lower) * (wanted - below) / inside
        below, lower = below + inside, upper
    return float(edges[-1])


def _answers(counted: Mapping[str, Any]) -> int:
    return sum(counted["requests"].values())
