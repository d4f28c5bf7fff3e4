"""The counters of a deployment as a notebook sees them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import matplotlib as mpl
import numpy as np
import pytest
from unit.wallaroo.stub import StubPlatform, error

from wallaroo import deployment
from wallaroo.metrics import PipelineMetrics, quantile

if TYPE_CHECKING:
    from matplotlib.patches import StepPatch

    from wallaroo import Client
    from wallaroo.pipeline import Pipeline

PATH = "/v1/api/metrics/pipeline"
EDGES = [1_000_000, 2_000_000, 4_000_000, 8_000_000]  # ns


def histogram(*counts: int, total: int = 0) -> dict[str, Any]:
    return {"counts": [*counts, *[0] * (len(EDGES) + 1 - len(counts))], "sum": total}


def document(**steps: dict[str, Any]) -> dict[str, Any]:
    """Sixty seconds of a deployment."""
    counted = {
        "requests": {"200": 9, "400": 1},
        "rejected": 0,
        "log_rows": 19,
        "log_bytes": 1234,
        "batch_rows": {"counts": [0, 9], "sum": 18},
        "duration": histogram(0, 10, total=15_000_000),
        "stages": {name: histogram(9, total=900_000) for name in ("parse", "log", "encode")},
        "steps": steps or {"forecast": histogram(0, 5, 4, 1, total=30_000_000)},
        "worker_restarts": {"forecast": 2},
    }
    return {
        "label": "rental-5",
        "pipeline": "rental",
        "since": "2026-01-01T00:00:00.000000+00:00",
        "at": "2026-01-01T00:01:00.000000+00:00",
        "time_edges_ns": EDGES,
        "row_edges": [1],
        "replica_restarts": 1,
        "total": counted,
        "replicas": [{"name": "engine-1-a-0", "pid": 77, "in_flight": 3, "waiting": 2, "counted": counted}],
    }


def test_a_pipeline_asks_for_its_own_counters(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(PATH, document())

    seen = pipeline.metrics()

    assert platform.calls(PATH)[0].json == {"pipeline_id": 4}
    assert seen.requests() == {200: 9, 400: 1}
    assert (seen.label(), seen.rows(), seen.rejected(), seen.log_rows(), seen.log_bytes()) == (
        "rental-5",
        18,
        0,
        19,
        1234,
    )
    assert (seen.worker_restarts(), seen.replica_restarts()) == ({"forecast": 2}, 1)
    assert (seen.at() - seen.since()).total_seconds() == 60
    assert seen.replicas().to_dict("records") == [
        {"replica": "engine-1-a-0", "pid": 77, "requests": 10, "rows": 18, "in_flight": 3, "waiting": 2}
    ]


def test_a_deployment_asks_by_its_label(client: Client, platform: StubPlatform) -> None:
    from unit.wallaroo.stub import deployment as record

    platform.on("/v1/api/deployments/get", record(platform.url, None))
    platform.on(PATH, document())

    deployment.get(client, {"id": 5}).metrics()

    assert platform.calls(PATH)[0].json == {"label": "rental-5"}


def test_a_pipeline_that_is_not_deployed_says_so(pipeline: Pipeline, platform: StubPlatform) -> None:
    platform.on(PATH, error(404, "nothing"))

    with pytest.raises(RuntimeError, match=r"rental is not deployed and counts nothing\. Call deploy\(\)"):
        pipeline.metrics()


def test_the_table_has_a_row_per_stage_in_the_order_of_a_request() -> None:
    table = PipelineMetrics(document(a=histogram(0, 4), b=histogram(0, 4))).to_pandas()

    assert list(zip(table["stage"], table["step"], strict=True)) == [
        ("request", ""),
        ("parse", ""),
        ("step", "a"),
        ("step", "b"),
        ("log", ""),
        ("encode", ""),
    ]


def test_rates_and_quantiles_follow_from_the_buckets() -> None:
    table = PipelineMetrics(document()).to_pandas().set_index("step").loc["forecast"]

    assert table["count"] == 10
    assert table["per_s"] == pytest.approx(10 / 60)
    assert table["mean_ms"] == pytest.approx(3.0)
    assert table["p50_ms"] == pytest.approx(2.0)  # the end of the five between 1 and 2 ms
    assert table["p95_ms"] == pytest.approx(4 + 4 * 0.5)  # half of the one between 4 and 8 ms
    assert table["p99_ms"] == pytest.approx(4 + 4 * 0.9)


def test_a_quantile_is_off_by_its_bucket_at_most() -> None:
    values = np.random.default_rng(3).lognormal(mean=15, sigma=1.5, size=5000)
    edges = [round(1000 * 10 ** (n / 10)) for n in range(81)]
    counts = np.bincount(np.searchsorted(edges, values), minlength=len(edges) + 1).tolist()

    for q in (0.01, 0.5, 0.95, 0.99, 1.0):
        true = float(np.quantile(values, q, method="inverted_cdf"))
        assert true / 1.26 <= quantile(edges, counts, q) <= true * 1.26


def test_what_lies_beyond_the_last_edge_counts_as_that_edge() -> None:
    assert quantile([1, 2], [0, 1, 9], 0.5) == 2.0


def test_without_a_value_there_is_no_quantile() -> None:
    table = PipelineMetrics(document(idle=histogram())).to_pandas().set_index("step")

    assert table.loc["idle", "count"] == 0
    assert table.loc["idle", ["mean_ms", "p50_ms", "p95_ms", "p99_ms"]].isna().all()


def test_it_shows_itself_as_a_table_and_escapes_names() -> None:
    seen = PipelineMetrics(document(**{"<b>&x": histogram(0, 4, total=6_000_000)}))

    assert "rental-5: 9 × 200, 1 × 400; 18 rows since 2026-01-01 00:00:00 UTC; 1 replica" in repr(seen)
    assert "1.5" in repr(seen)
    assert "&lt;b&gt;&amp;x" in seen._repr_html_()
    assert "<b>&x" not in seen._repr_html_()


def test_the_plot_has_the_steps_on_a_scale_of_milliseconds() -> None:
    mpl.use("agg")
    from matplotlib import pyplot as plt

    ax = PipelineMetrics(document(a=histogram(0, 4), b=histogram(0, 0, 0, 2, 3))).plot()

    ax.figure.canvas.draw()
    assert (ax.get_xscale(), ax.get_xlabel()) == ("log", "ms")
    legend = ax.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    values, edges, _ = cast("StepPatch", ax.patches[1]).get_data()
    assert list(values) == [0, 0, 0, 5]
    assert list(edges)[1:] == [1, 2, 4, 8]
    plt.close("all")


def test_a_plot_of_nothing_is_empty_axes_and_given_axes_are_used() -> None:
    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, ax = plt.subplots()

    assert PipelineMetrics(document(idle=histogram())).plot(ax) is ax
    figure.canvas.draw()
    assert ax.get_legend() is None
    plt.close("all")
