"""Replays from a notebook: a real log, two versions of a small model, and what differs counted beforehand."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_models as onnx
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import requests
from onnx import TensorProto, helper
from platforms import bettong

from wallaroo.framework import Framework
from wallaroo.object import InferenceError, JobError, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import wallaroo
    from wallaroo.model_version import ModelVersion
    from wallaroo.pipeline import Pipeline

pytestmark = pytest.mark.timeout(300)


def schema(*fields: tuple[str, Any]) -> pa.Schema:
    return pa.schema(list(fields))


OUT = schema(("score", pa.float64()), ("label", pa.int64()))
areas = np.arange(500) / 5.0


def scoring(above: float, more: float, edge: float) -> bytes:
    """`x` double [N] → `score` double [N]: half of it, and `more` where it is over `above`; `label` int64 [N]: 1 where
    it is over `edge`."""
    nodes = [
        helper.make_node("Mul", ["x", "half"], ["halved"]),
        helper.make_node("Add", ["halved", "more"], ["raised"]),
        helper.make_node("Greater", ["x", "above"], ["is_above"]),
        helper.make_node("Where", ["is_above", "raised", "halved"], ["score"]),
        helper.make_node("Greater", ["x", "edge"], ["is_over"]),
        helper.make_node("Cast", ["is_over"], ["label"], to=TensorProto.INT64),
    ]
    weights = [
        onnx.weight(n, np.float64(v)) for n, v in (("half", 0.5), ("more", more), ("above", above), ("edge", edge))
    ]
    outputs = [onnx.tensor("score", TensorProto.DOUBLE, ["N"]), onnx.tensor("label", TensorProto.INT64, ["N"])]
    return onnx.model(nodes, [onnx.tensor("x", TensorProto.DOUBLE, ["N"])], outputs, weights)


@pytest.fixture
def upload(wl: wallaroo.Client, tmp_path: Path) -> Callable[..., ModelVersion]:
    def of(name: str, data: bytes, out: pa.Schema = OUT) -> ModelVersion:
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(data)
        version = wl.upload_model(name, file, Framework.ONNX)
        version.configure(output_schema=out)
        return version

    return of


@pytest.fixture
def pipeline(wl: wallaroo.Client, request: pytest.FixtureRequest) -> Iterator[Pipeline]:
    made = wl.build_pipeline(request.node.name.replace("_", "-")[:40].strip("-"))
    yield made
    made.undeploy()


def window() -> tuple[datetime, datetime]:
    now = datetime.now(UTC)
    return now - timedelta(hours=1), now + timedelta(hours=1)


def scored(above: float, more: float, edge: float) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    return np.where(areas > above, areas / 2 + more, areas / 2), (areas > edge).astype(int)


def test_a_candidate_is_held_against_the_answers_that_were_given(
    wl: wallaroo.Client, pipeline: Pipeline, upload: Callable[..., ModelVersion], tmp_path: Path
) -> None:
    pipeline.clear().add_model_step(upload("replay-old", scoring(90, 0, 50))).deploy()
    for part in np.split(areas, 5):
        pipeline.infer(pd.DataFrame({"x": part}))
    pipeline.clear().add_model_step(upload("replay-new", scoring(90, 0.25, 60)))
    candidate = pipeline.create_version()

    replay = pipeline.replay(*window())

    (score, label), (new_score, new_label) = scored(90, 0, 50), scored(90, 0.25, 60)
    same_score, same_label = np.isclose(new_score, score, rtol=1e-6, atol=1e-6), label == new_label
    assert replay.version() == candidate.name()
    result = replay.result
    assert (result["compared"], result["equal"], result["failed"]) == (500, (same_score & same_label).sum(), 0)
    table: Any = replay.agreement.set_index("column")
    assert table["equal"].to_dict() == {"score": same_score.sum(), "label": same_label.sum(), "anomaly.count": 500}
    assert table.loc["score", "mean_abs"] == pytest.approx(np.abs(new_score - score).mean())
    assert table.loc["score", "max_abs"] == pytest.approx(0.25)
    assert table.loc["score", "pearson"] == pytest.approx(np.corrcoef(score, new_score)[0, 1])
    expected = same_label.mean() - (c := label.mean() * new_label.mean() + (1 - label.mean()) * (1 - new_label.mean()))
    assert table.loc["label", "kappa"] == pytest.approx(expected / (1 - c))
    assert replay.confusion("label").to_numpy().tolist() == [
        [((label == b) & (new_label == a)).sum() for a in (0, 1)] for b in (0, 1)
    ]
    rows = replay.rows(limit=None)
    differing = ~(same_score & same_label)
    assert rows["in.x"].tolist() == areas[differing].tolist()
    assert rows["after.score"].tolist() == new_score[differing].tolist()
    assert rows["before.label"].tolist() == label[differing].tolist()
    assert len(pd.read_parquet(replay.to_parquet(tmp_path / "rows.parquet"))) == 500
    assert len(pipeline.logs(limit=1000)) == 500
    assert pipeline.status()["target"]["pipeline_version"] != candidate.name()


def test_the_deployed_version_agrees_with_itself(pipeline: Pipeline, upload: Callable[..., ModelVersion]) -> None:
    pipeline.clear().add_model_step(upload("replay-same", scoring(90, 0, 50))).deploy()
    pipeline.infer(pd.DataFrame({"x": areas}))

    with pytest.raises(WallarooAPIError, match="no version with a model beside the deployed one"):
        pipeline.replay(*window())
    replay = pipeline.replay(*window(), version=pipeline.versions()[0], limit=100, inputs=False)

    assert (replay.result["compared"], replay.result["share"]) == (100, 1.0)
    assert replay.rows().empty
    assert "in.x" not in replay.rows(differing_only=False).columns


def test_rows_on_which_a_version_fails_are_listed_and_failed_requests_are_tried_again(
    pipeline: Pipeline, upload: Callable[..., ModelVersion]
) -> None:
    out = schema(("total", pa.int64()), ("name_out", pa.string()))
    names = [f"n{n}" if n % 50 else "trouble" for n in range(200)]
    rows = pd.DataFrame({"numbers": [np.array([n, 1], np.int32) for n in range(200)], "name": names})
    tame = upload("replay-tame", onnx.with_bytes(onnx.picky(), b"trouble", b"nothing"), out)
    pipeline.clear().add_model_step(tame).deploy()
    pipeline.infer(rows)
    pipeline.clear().add_model_step(upload("replay-picky", onnx.picky(), out)).deploy()
    with pytest.raises(InferenceError):
        pipeline.infer(rows.head(1))

    picky = pipeline.replay(*window(), version=pipeline.versions()[0], failed=True)

    assert (picky.result["compared"], picky.result["equal"], picky.result["failed"]) == (196, 196, 4)
    assert picky.result["failures"] == {"rows": 1, "pass_now": 0}
    failed = picky.rows()
    assert failed["in.name"].tolist() == ["trouble"] * 4
    assert failed["error.after"].notna().all()
    assert picky.reasons["rows"].sum() == 5

    tamed = pipeline.replay(*window(), failed=True)

    assert (tamed.result["equal"], tamed.result["failures"]) == (200, {"rows": 1, "pass_now": 1})


def test_a_version_that_takes_other_inputs_is_told_before_a_row_is_sent(
    pipeline: Pipeline, upload: Callable[..., ModelVersion]
) -> None:
    pipeline.clear().add_model_step(upload("replay-x", scoring(90, 0, 50))).deploy()
    pipeline.infer(pd.DataFrame({"x": areas}))
    wide = schema(("variable", pa.list_(pa.float32())))
    pipeline.clear().add_model_step(upload("replay-tensor", onnx.mlp(), wide)).create_version()

    with pytest.raises(JobError, match=r"None of the 500 logged rows .*'tensor' .*, which was not logged.*in\.x"):
        pipeline.replay(*window())


def test_a_window_without_rows_and_a_replay_that_is_cancelled_end_in_peace(
    pipeline: Pipeline, upload: Callable[..., ModelVersion]
) -> None:
    pipeline.clear().add_model_step(upload("replay-a", scoring(90, 0, 50))).deploy()
    pipeline.infer(pd.DataFrame({"x": areas}))
    pipeline.clear().add_model_step(upload("replay-b", scoring(90, 1, 50))).create_version()
    long_ago = datetime(2020, 1, 1, tzinfo=UTC)

    empty = pipeline.replay(long_ago, long_ago + timedelta(days=1))
    cancelled = pipeline.replay(*window(), wait=False)
    cancelled.cancel()
    cancelled.wait()

    assert (empty.result["rows"], empty.result["share"]) == (0, None)
    assert empty.agreement.empty
    assert empty.rows().empty
    assert "there are no answered requests in the log between 2020-01-01T00:00:00+00:00 and" in repr(empty)
    assert cancelled.state() in ("cancelled", "succeeded")  # it may have been done already
    assert [each.id() for each in pipeline.replays()] == [cancelled.id(), empty.id()]


def test_requests_go_as_they_came_where_a_key_decides_for_all_of_their_rows(
    pipeline: Pipeline, upload: Callable[..., ModelVersion]
) -> None:
    control, other = upload("replay-control", scoring(90, 0, 50)), upload("replay-other", scoring(-1, 1, 50))
    pipeline.clear().add_key_split(control, "shop", {"north": other}).deploy()
    for shop, part in zip(("north", "south", "north"), np.split(areas[:300], 3), strict=True):
        shops = [shop, *["south" if shop == "north" else "north"] * 99]
        pipeline.infer(pd.DataFrame({"x": part, "shop": shops}))

    replay = pipeline.replay(*window(), version=pipeline.versions()[0])

    assert (replay.result["compared"], replay.result["equal"]) == (300, 300)
    assert replay.rows(differing_only=False)["in.shop"].tolist()[:2] == ["north", "south"]


def test_marks_of_validations_are_answers_too(pipeline: Pipeline, upload: Callable[..., ModelVersion]) -> None:
    model = upload("replay-validated", scoring(90, 0, 50))
    score = pl.col("out.score")
    pipeline.clear().add_model_step(model).add_validations(high=score > 30).deploy()
    pipeline.infer(pd.DataFrame({"x": areas}))
    pipeline.clear().add_model_step(model).add_validations(high=score > 40, low=score < 0).create_version()

    replay = pipeline.replay(*window())

    before, after = areas / 2 > 30, areas / 2 > 40
    table: Any = replay.agreement.set_index("column")
    assert table["equal"].to_dict() == {
        "score": 500,
        "label": 500,
        "anomaly.high": (before == after).sum(),
        "anomaly.count": (before == after).sum(),
    }
    assert replay.confusion("anomaly.high").loc[True, False] == (before & ~after).sum()
    assert replay.result["only_after"] == {"anomaly.low": 500}


def test_a_stranger_replays_nothing(
    wl: wallaroo.Client, shared_home: Path, pipeline: Pipeline, upload: Callable[..., ModelVersion]
) -> None:
    pipeline.clear().add_model_step(upload("replay-mine", scoring(90, 0, 50))).create_version()
    token = bettong("tokens", "create", "replay-eve@example.org", "--invite", home=shared_home).stdout.strip()
    start, end = (moment.isoformat() for moment in window())

    answer = requests.post(
        f"{wl.api_endpoint}/v1/api/jobs/replay",
        json={"pipeline_id": pipeline.id(), "start": start, "end": end},
        headers={"Authorization": f"Bearer {token}"},
        timeout=30,
    )

    assert answer.status_code == 404


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"end": datetime(2020, 1, 1, tzinfo=UTC)}, "start that is before the end"),
        ({"limit": 0}, "limit"),
        ({"tolerance": -1}, "tolerance"),
        ({"version": "no such version"}, "version"),
    ],
)
def test_what_cannot_be_replayed_is_refused_in_words(
    pipeline: Pipeline, upload: Callable[..., ModelVersion], changes: dict[str, Any], words: str
) -> None:
    pipeline.clear().add_model_step(upload("replay-refused", scoring(90, 0, 50))).create_version()
    start, end = window()

    with pytest.raises(WallarooAPIError, match=words):
        pipeline.replay(**{"start": start, "end": end, **changes})
