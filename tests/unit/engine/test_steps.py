"""What each kind of step makes of a request: columns, order, failures, and what is in the log."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa
import pytest
from inference_builders import (
    InProcessRunner,
    MemoryLog,
    PromptRunner,
    Reply,
    access_token,
    ask,
    call,
    inference_app,
)
from step_builders import X, Y, above, check, failing, held, infer, key_split, shadow, spec_of, split, times

from bettong.engine.codec import ARROW_FILE
from bettong.engine.program import Program
from bettong.engine.steps import MANY_ROWS
from bettong.errors import BadInput, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bettong.engine.app import InferenceApp

SDK_QUERY = "dataset[]=*&dataset.exclude[]=metadata&dataset.separator=."
BODY = orjson.dumps([{"x": 1.0}, {"x": 3.0}])


def rows_of(reply: Reply) -> list[dict[str, Any]]:
    assert reply.status == 200, reply.body
    found: list[dict[str, Any]] = json.loads(reply.body)
    return found


def flat(app: InferenceApp, body: bytes = BODY) -> list[dict[str, Any]]:
    return rows_of(ask(app, body, query=SDK_QUERY))


def model_of(row: dict[str, Any]) -> str:
    (text,) = row["out._model_split"]
    return str(json.loads(text)["name"])


def records(**columns: Sequence[object]) -> bytes:
    return orjson.dumps([dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)])


# --- several models, shadows ------------------------------------------------------------------------------------------


def test_a_shadow_answers_the_champion_as_out_and_challengers_under_their_names_behind_the_anomalies() -> None:
    log = MemoryLog()
    spec = spec_of(("champ", "b", "c"), *shadow("champ", "b", "c"))
    app = inference_app([times(1), times(10), times(100, gives="z")], spec=spec, log=log)

    rows = rows_of(ask(app, BODY, query="dataset.separator=."))

    assert list(rows[0])[:7] == [
        "time", "in.x", "out.y", "anomaly.count", "out_b.y", "out_c.z", "metadata.last_model",
    ]  # fmt: skip
    assert [(row["out.y"], row["out_b.y"], row["out_c.z"]) for row in rows] == [(1, 10, 100), (3, 30, 300)]
    assert json.loads(rows[0]["metadata.last_model"])["model_name"] == "champ"
    assert len(rows[0]["metadata.elapsed"]) == 4, "the parse time, and each of three steps"
    (logged,) = log.answered
    assert logged.schema.names[:6] == ["time", "in.x", "out.y", "anomaly.count", "out_b.y", "out_c.z"]
    assert logged.column("out_c.z").to_pylist() == [100, 300]


def test_records_nest_a_challenger_as_a_group_of_its_own_and_dataset_can_name_it() -> None:
    app = inference_app([times(1), times(10)], spec=spec_of(("a", "b"), *shadow("a", "b")))

    assert rows_of(ask(app, BODY, query="dataset[]=out&dataset[]=out_b"))[0] == {"out": {"y": 1}, "out_b": {"y": 10}}


def test_models_of_one_step_run_at_the_same_time() -> None:
    async def go() -> Reply:
        met = asyncio.Barrier(2)

        async def meet(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            await met.wait()  # one after the other would wait for ever
            return [{"y": 1.0} for _ in rows]

        app = inference_app([InProcessRunner(meet, X, Y)] * 2, spec=spec_of(("a", "b"), *shadow("a", "b")))
        async with asyncio.timeout(30):
            return await call(app, BODY)

    rows_of(asyncio.run(go()))


@pytest.mark.parametrize("error", [ModelFailed("ValueError: too cold"), Unavailable("No worker."), RuntimeError("bug")])
def test_a_challenger_that_fails_leaves_nulls_and_a_row_in_the_failures_log(error: Exception) -> None:
    log = MemoryLog()
    spec = spec_of(("a", "b", "c"), *shadow("a", "b", "c"))
    app = inference_app([times(1), failing(error), times(100)], spec=spec, log=log)

    rows = rows_of(ask(app, BODY, query=SDK_QUERY, headers={"x-request-id": "r-1"}))

    assert [(row["out.y"], row["out_b.y"], row["out_c.y"]) for row in rows] == [(1, None, 100), (3, None, 300)]
    assert log.answered[0].column("out_b.y").to_pylist() == [None, None]
    (failed,) = log.failed
    assert failed.column("in.x").to_pylist() == [1, 3]
    text = failed.column("error")[0].as_py()
    assert text.startswith("Challenger 'b' failed: ")
    assert "bug" not in text, "what only the platform's log may say"
    assert failed.column("metadata.request_id")[0].as_py() == "r-1"
    assert json.loads(failed.column("metadata.last_model")[0].as_py())["model_name"] == "b"


def test_arrow_answers_have_nulls_for_a_failed_challenger_too() -> None:
    spec = spec_of(("a", "b"), *shadow("a", "b"))
    app = inference_app([times(1), failing(ModelFailed("no"))], spec=spec)

    reply = ask(app, BODY, headers={"accept": ARROW_FILE})

    table = pa.ipc.open_file(reply.body).read_all()
    assert table["out_b.y"].to_pylist() == [None, None]
    assert table.schema.field("out_b.y").nullable


def test_a_champion_that_fails_fails_the_request_and_its_challengers_end() -> None:
    ended = []

    async def endless(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(True)
        return []

    log = MemoryLog()
    runners = [failing(ModelFailed("ValueError: too cold")), InProcessRunner(endless, X, Y)]
    reply = ask(inference_app(runners, spec=spec_of(("a", "b"), *shadow("a", "b")), log=log), BODY)

    assert reply.status == 500
    assert b"Step 1 of pipeline 'rental-forecast', model 'a': ValueError: too cold" in reply.body
    assert (ended, log.answered, len(log.failed)) == ([True], [], 1)


def test_a_challenger_that_does_not_answer_is_given_up_before_the_request_is() -> None:
    async def go() -> tuple[Reply, MemoryLog]:
        log = MemoryLog()
        spec = spec_of(("a", "b"), *shadow("a", "b"), request_timeout_s=2.0)
        return await call(inference_app([times(1), held(asyncio.Event())], spec=spec, log=log), BODY), log

    reply, log = asyncio.run(go())

    assert rows_of(reply)[0]["out_b"] == {"y": None}
    assert "It did not answer within 1.6 s" in log.failed[0].column("error")[0].as_py()


def test_two_versions_of_one_model_are_told_apart() -> None:
    spec = spec_of(("house@1", "house@2", "house@3"), *shadow("house@1", "house@2", "house@3"))
    app = inference_app([times(1), times(2), times(3)], spec=spec)

    (row, _) = flat(app)
    assert (row["out.y"], row["out_house.y"], row["out_house-2.y"]) == (1, 2, 3)


def test_without_shadow_wait_the_champion_answers_and_challengers_are_logged_when_they_are_done() -> None:
    async def go() -> None:
        log, late, free = MemoryLog(), MemoryLog(), asyncio.Event()
        spec = spec_of(("a", "b", "c"), *shadow("a", "b", "c"), shadow_waits=False)
        runners = [times(1), held(free), failing(ModelFailed("too cold"))]
        app = inference_app(runners, spec=spec, log=log, late_log=late)

        reply = await call(app, BODY, query=SDK_QUERY, headers={"x-request-id": "r-1"})

        assert list(rows_of(reply)[0]) == ["time", "in.x", "out.y", "anomaly.count"]
        (answered,) = log.answered
        assert "out_b.y" not in answered.schema.names
        assert late.answered == []

        drained = asyncio.create_task(app.drained())
        await asyncio.sleep(0)
        assert not drained.done(), "a replica waits for them before it ends"
        free.set()
        await drained
        (row,) = late.answered
        assert row.column("out_b.y").to_pylist() == [0.0, 0.0]
        assert row.column("out_c.y").to_pylist() == [None, None]
        for column in ("time", "metadata.request_id", "in.x"):
            assert row.column(column).to_pylist() == answered.column(column).to_pylist(), "they can be joined"
        assert "Challenger 'c' failed" in log.failed[0].column("error")[0].as_py()

    asyncio.run(go())


def test_late_challengers_do_not_pile_up_without_end() -> None:
    async def go() -> None:
        log, late, free = MemoryLog(), MemoryLog(), asyncio.Event()
        spec = spec_of(("a", "b"), *shadow("a", "b"), shadow_waits=False, max_queued_requests=2)
        app = inference_app([times(1), held(free)], spec=spec, log=log, late_log=late)
        for _ in range(3):
            rows_of(await call(app, BODY))
        free.set()
        await app.drained()

        assert len(log.answered) == 3
        assert len(late.answered) == 2
        assert "did not run: 2 requests wait" in log.failed[0].column("error")[0].as_py()

    asyncio.run(go())


def test_an_audit_alone_keeps_results_for_the_log_and_out_of_the_answer() -> None:
    log = MemoryLog()
    spec = spec_of(("a", "b"), infer("a", "b"), {"AuditResults": {"from": 1, "to": None}})

    (row, _) = flat(inference_app([times(1), times(10)], spec=spec, log=log))

    assert list(row) == ["time", "in.x", "out.y", "anomaly.count"]
    assert log.answered[0].column("out_b.y").to_pylist() == [10, 30]


def test_several_models_without_an_audit_are_all_answered_and_each_must_succeed() -> None:
    spec = spec_of(("a", "b"), infer("a", "b"))

    assert flat(inference_app([times(1), times(10)], spec=spec))[0]["out_b.y"] == 10
    assert ask(inference_app([times(1), failing(ModelFailed("no"))], spec=spec), BODY).status == 500


def test_one_result_is_picked_or_the_mean_is_taken() -> None:
    picked = spec_of(("a", "b"), infer("a", "b"), {"Nth": {"index": 1}})
    mean = spec_of(("a", "b", "c"), infer("a", "b", "c"), {"Average": {}})

    row = rows_of(ask(inference_app([times(1), times(10)], spec=picked), BODY))[1]
    assert (row["out"], json.loads(row["metadata"]["last_model"])["model_name"]) == ({"y": 30}, "b")
    assert [r["out.y"] for r in flat(inference_app([times(1), times(2), times(6)], spec=mean))] == [3, 9]


def test_a_mean_goes_through_lists_and_integers() -> None:
    schema = pa.schema([pa.field("n", pa.int32()), pa.field("l", pa.list_(pa.float32()))])

    def giving(n: int, values: list[float]) -> InProcessRunner:
        async def run(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
            return [{"n": n, "l": values} for _ in rows]

        return InProcessRunner(run, X, schema)

    spec = spec_of(("a", "b"), infer("a", "b"), {"Average": {}})
    assert flat(inference_app([giving(1, [1, 2]), giving(2, [3, 5])], spec=spec))[0]["out.l"] == [2, 3.5]
    assert flat(inference_app([giving(1, []), giving(2, [])], spec=spec))[0]["out.n"] == 1.5
    reply = ask(inference_app([giving(1, [1]), giving(2, [1, 2])], spec=spec), BODY)
    assert (reply.status, b"lists of different lengths, in the column 'l'" in reply.body) == (500, True)


# --- splits -----------------------------------------------------------------------------------------------------------


def test_a_random_split_decides_once_a_request_and_says_which_model_it_was() -> None:
    draws = iter([0.4, 0.6])
    log = MemoryLog()
    spec = spec_of(("a", "b"), split((1, "a"), (1, "b")))
    app = inference_app([times(1), times(10)], spec=spec, log=log, draw=lambda: next(draws))

    first, second = flat(app), flat(app)

    assert [row["out.y"] for row in first] == [1, 3], "the whole batch goes to one model"
    assert [row["out.y"] for row in second] == [10, 30]
    assert list(first[0]) == ["time", "in.x", "out.y", "out._model_split", "anomaly.count"]
    (text,) = second[1]["out._model_split"]
    told = json.loads(text)
    assert (told["name"], told["model_version"]["name"]) == ("b", "b"), "both readings"
    assert told["sha"] == told["model_version"]["sha"] == "sha-of-b"
    assert [json.loads(b.column("out._model_split")[0].as_py()[0])["name"] for b in log.answered] == ["a", "b"]
    assert [json.loads(b.column("metadata.last_model")[0].as_py())["model_name"] for b in log.answered] == ["a", "b"]


def test_an_arrow_answer_has_the_split_as_a_list_with_one_text() -> None:
    app = inference_app([times(1), times(10)], spec=spec_of(("a", "b"), split((1, "a"), (1, "b"))), draw=lambda: 0.9)

    table = pa.ipc.open_file(ask(app, BODY, headers={"accept": ARROW_FILE}).body).read_all()

    assert table.schema.field("out._model_split").type == pa.list_(pa.string())
    texts: list[Any] = table["out._model_split"].to_pylist()
    assert [json.loads(text)["name"] for (text,) in texts] == ["b", "b"]
    assert json.loads(table["metadata.last_model"][0].as_py())["model_name"] == "b"


def test_a_hash_key_that_no_model_takes_decides_is_echoed_and_may_be_left_out() -> None:
    log = MemoryLog()
    spec = spec_of(("a", "b"), split((1, "a"), (1, "b"), key="session_id"))
    app = inference_app([times(1), times(10)], spec=spec, log=log, draw=lambda: 0.1)

    numbers = [model_of(flat(app, records(x=[1.0, 2.0], session_id=[value, 0.0]))[0]) for value in (0.2, 0.7, 0.2)]
    texts = [model_of(flat(app, records(x=[1.0], session_id=[f"s-{n % 40}"]))[0]) for n in range(80)]

    assert numbers == ["a", "b", "a"]
    assert texts[:40] == texts[40:], "equal values reach the same model"
    assert set(texts) == {"a", "b"}
    assert model_of(flat(app)[0]) == "a", "without the key, chance decides"
    row = flat(app, records(x=[1.0], session_id=["s-1"]))[0]
    assert list(row)[:3] == ["time", "in.x", "in.session_id"]
    assert (row["in.session_id"], log.answered[-1].column("in.session_id")[0].as_py()) == ("s-1", "s-1")
    assert "in.session_id" not in flat(app)[0]


@pytest.mark.parametrize(
    ("key", "name"), [(["s-1"], "string"), ([7], "int64"), ([0.7], "double"), ([True], "bool"), ([1, 0.5], "double")]
)
def test_a_key_comes_in_any_plain_type_as_json_and_as_arrow(key: list[Any], name: str) -> None:
    log = MemoryLog()
    spec = spec_of(("a", "b"), split((1, "a"), (1, "b"), key="k"))
    app = inference_app([times(1), times(10)], spec=spec, log=log)
    table = pa.table({"x": pa.array([1.0] * len(key)), "k": pa.array(key)})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)

    from_json = flat(app, records(x=[1.0] * len(key), k=key))
    from_arrow = rows_of(ask(app, sink.getvalue().to_pybytes(), headers={"content-type": ARROW_FILE}, query=SDK_QUERY))

    columns = orjson.dumps({"x": [1.0] * len(key), "k": key})
    assert ask(app, columns, headers={"content-type": "application/json; format=wallaroo"}).status == 200
    assert [row["in.k"] for row in from_json] == [row["in.k"] for row in from_arrow] == key
    assert model_of(from_json[0]) == model_of(from_arrow[0])
    assert [str(batch.schema.field("in.k").type) for batch in log.answered] == [name] * 3


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (records(x=[1.0], k=[None]), b"Column 'k', row 0: tensor values may not be null"),
        (records(x=[1.0, 2.0], k=["a", 1]), b"Column 'k', row 1: found an integer, expected a text"),
        (orjson.dumps([{"x": 1.0, "k": "a"}, {"x": 1.0}]), b"Row 1 of the body lacks the column 'k'"),
        (records(x=[1.0], k=[{"a": 1}]), b"Column 'k', row 0: found an object"),
        (records(x=[1.0], other=["a"]), b"extra column 'other'"),
        (b"{", b"not JSON"),
        (b"[7]", b"Row 0 of the body is an integer"),
    ],
)
def test_a_key_that_is_none_is_refused_as_any_column_is(body: bytes, words: bytes) -> None:
    spec = spec_of(("a", "b"), split((1, "a"), (1, "b"), key="k"))

    reply = ask(inference_app([times(1), times(10)], spec=spec), body)

    assert (reply.status, words in reply.body) == (400, True), reply.body


def test_a_hash_key_that_the_model_takes_too_is_handed_to_it() -> None:
    spec = spec_of(("a", "b"), split((1, "a"), (1, "b"), key="x"))
    app = inference_app([times(1), times(10)], spec=spec)

    assert [flat(app, records(x=[value]))[0]["out.y"] for value in (0.25, 0.75)] == [0.25, 7.5]


def test_a_split_by_chance_keeps_to_its_weights() -> None:
    spec = spec_of(("a", "b"), split((3, "a"), (1, "b")))
    app = inference_app([times(1), times(10)], spec=spec)

    async def go() -> Counter[str]:
        replies = [await call(app, records(x=[1.0]), query=SDK_QUERY) for _ in range(400)]
        return Counter(model_of(rows_of(reply)[0]) for reply in replies)

    counts = asyncio.run(go())
    assert abs(counts["a"] / 400 - 0.75) < 0.12


def test_a_key_split_routes_by_value_and_falls_back_to_control() -> None:
    spec = spec_of(("a", "b", "c"), key_split("a", "card_type", gold="b", silver="c"))
    app = inference_app([times(1), times(10), times(100)], spec=spec)

    def answered(**columns: list[object]) -> float:
        found: float = flat(app, records(x=[1.0], **columns))[0]["out.y"]
        return found

    assert [answered(card_type=[value]) for value in ("gold", "silver", "bronze")] == [10, 100, 1]
    assert answered() == 1
    row = flat(app, records(x=[1.0, 2.0], card_type=["gold", "silver"]))[1]
    assert (row["out.y"], row["in.card_type"], model_of(row)) == (20, "silver", "b"), "the first row decides for all"


def test_a_column_that_a_step_before_gives_may_decide() -> None:
    fields: list[Any] = [pa.field("x", pa.float64()), pa.field("kind", pa.string())]
    given = pa.schema(fields)

    async def sort(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"x": row["x"], "kind": "large" if row["x"] > 2 else "small"} for row in rows]

    spec = spec_of(("pre", "a", "b"), infer("pre"), key_split("a", "kind", large="b"))
    app = inference_app([InProcessRunner(sort, X, given), times(1), times(10)], spec=spec)

    assert [flat(app, records(x=[value]))[0]["out.y"] for value in (1.0, 3.0)] == [1, 30]


# --- rows and columns -------------------------------------------------------------------------------------------------


def test_each_row_goes_to_its_model_and_the_order_stays() -> None:
    rows = [{"row_index": at, "model": infer(name)["ModelInference"]["models"][0]} for at, name in enumerate("abab")]
    spec = spec_of(("a", "b"), {"RowsToModels": {"rows_to_models": rows}})
    app = inference_app([times(1), times(10)], spec=spec)

    assert [row["out.y"] for row in flat(app, records(x=[1.0, 2.0, 3.0, 4.0]))] == [1, 20, 3, 40]
    assert [row["out.y"] for row in flat(app)] == [1, 30]
    reply = ask(app, records(x=[1.0] * 5))
    assert (reply.status, b"row 4 of the request has no model" in reply.body) == (400, True)


def test_columns_are_selected_by_position_and_made_into_rows() -> None:
    wide = pa.schema([pa.field(name, pa.float64()) for name in "abc"])

    async def give(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"a": row["x"], "b": row["x"] * 2, "c": row["x"] * 3} for row in rows]

    async def total(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{"y": sum(row["tensor"])} for row in rows]

    lists = pa.schema([pa.field("tensor", pa.list_(pa.float64()))])
    select: dict[str, Any] = {"ColumnsSelect": {"columns": [2, 0]}}
    reshape: dict[str, Any] = {"ColumnsToRows": {}}
    spec = spec_of(("pre", "sum"), infer("pre"), select, reshape, infer("sum"))
    app = inference_app([InProcessRunner(give, X, wide), InProcessRunner(total, lists, Y)], spec=spec)
    selected = inference_app([InProcessRunner(give, X, wide)], spec=spec_of(("pre",), infer("pre"), select))
    made = inference_app([InProcessRunner(give, X, wide)], spec=spec_of(("pre",), infer("pre"), select, reshape))

    assert [row["out.y"] for row in flat(app)] == [4, 12]
    assert [key for key in flat(selected)[0] if key.startswith("out")] == ["out.c", "out.a"]
    assert [row["out.tensor"] for row in flat(made)] == [[3, 1], [9, 3]]


# --- validations ------------------------------------------------------------------------------------------------------


def test_validations_mark_rows_and_are_counted_and_block_nothing() -> None:
    log = MemoryLog()
    spec = spec_of(
        ("a",), infer("a"), check(high=above("out.y", 5), odd=above("in.x", 2)), check(huge=above("out.y", 99))
    )
    app = inference_app([times(3)], spec=spec, log=log)

    rows = flat(app)

    assert list(rows[0])[3:] == ["anomaly.count", "anomaly.high", "anomaly.odd", "anomaly.huge"]
    assert [list(row.values())[3:] for row in rows] == [[0, False, False, False], [2, True, True, False]]
    (logged,) = log.answered
    assert logged.schema.field("anomaly.count").type == pa.uint32()
    assert logged.schema.field("anomaly.high").type == pa.bool_()
    assert logged.column("anomaly.count").to_pylist() == [0, 2]
    table = pa.ipc.open_file(ask(app, BODY, headers={"accept": ARROW_FILE}).body).read_all()
    assert table["anomaly.count"].to_pylist() == [0, 2]
    assert len(rows_of(ask(app, BODY))[0]["metadata"]["elapsed"]) == 4


def test_a_name_that_comes_twice_counts_twice_and_shows_the_last() -> None:
    spec = spec_of(("a",), infer("a"), check(high=above("out.y", 0)), check(high=above("out.y", 2)))

    rows = flat(inference_app([times(1)], spec=spec))

    assert [(row["anomaly.count"], row["anomaly.high"]) for row in rows] == [(1, False), (2, True)]


def test_a_check_sees_the_columns_of_its_place_in_the_pipeline() -> None:
    steps = (
        check(early=above("in.x", 2)),
        infer("a"),
        check(mid=above("out.x", 5)),
        infer("b"),
        check(late=above("out.y", 50)),
    )
    app = inference_app([times(2, gives="x"), times(10)], spec=spec_of(("a", "b"), *steps))

    assert [row["anomaly.count"] for row in flat(app)] == [0, 3]


def test_a_check_sees_challengers_and_takes_a_failed_ones_values_for_unknown() -> None:
    steps = (
        *shadow("a", "b"),
        check(apart={"BinaryExpr": {"left": {"Column": "out.y"}, "op": "NotEq", "right": {"Column": "out_b.y"}}}),
    )
    spec = spec_of(("a", "b"), *steps)

    assert [r["anomaly.apart"] for r in flat(inference_app([times(1), times(2)], spec=spec))] == [True, True]
    fails = inference_app([times(1), failing(ModelFailed("no"))], spec=spec)
    assert [r["anomaly.apart"] for r in flat(fails)] == [False, False]


def test_validations_stand_between_out_and_challengers() -> None:
    spec = spec_of(("a", "b"), *shadow("a", "b"), check(high=above("out.y", 2)))

    (row, _) = flat(inference_app([times(1), times(2)], spec=spec))

    assert list(row) == ["time", "in.x", "out.y", "anomaly.count", "anomaly.high", "out_b.y"]


# --- at once ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "steps",
    [
        shadow("a", "bad", "b"),
        [*shadow("a", "b"), check(high=above("out.y", 2), apart=above("out_b.y", 20))],
        [split((1, "a"), (3, "b"), key="k")],
        [key_split("a", "k", s="b")],
        [infer("a", "b"), {"Average": {}}],
        [infer("a", "b"), {"AuditResults": {"from": 0, "to": 1}}, {"Nth": {"index": 1}}],
        [infer("bad", "b")],
    ],
)
def test_steps_whose_models_answer_at_once_do_so_without_a_task_and_to_the_same_end(
    steps: list[dict[str, Any]],
) -> None:
    models = {"a": times(1, kind=PromptRunner), "b": times(10, kind=PromptRunner)}
    models["bad"] = failing(ModelFailed("too cold"), PromptRunner)
    logs, apps = [MemoryLog(), MemoryLog()], []
    named = {name: json.dumps(steps).find(f'"{name}"') for name in models}
    names = sorted((name for name, at in named.items() if at >= 0), key=lambda name: named[name])
    for log in logs:
        apps.append(inference_app([models[n] for n in names], spec=spec_of(names, *steps), log=log, draw=lambda: 0.9))
    body = records(x=[1.0, 3.0], k=["s", "t"]) if '"k"' in json.dumps(steps) else BODY
    head = [
        (b"host", b"127.0.0.1:8080"),
        (b"authorization", f"Bearer {access_token()}".encode()),
        (b"content-type", b"application/json"),
        (b"x-request-id", b"r-1"),
    ]

    at_once = apps[0].now(b"POST", b"/infer", head, body)
    with_a_task = ask(apps[1], body, headers={"x-request-id": "r-1"})

    assert at_once is not None
    assert at_once.status == with_a_task.status
    assert without_times(json.loads(bytes(at_once.body))) == without_times(json.loads(with_a_task.body))
    for one, other in ((logs[0].answered, logs[1].answered), (logs[0].failed, logs[1].failed)):
        assert [without_times(batch.to_pylist()) for batch in one] == [without_times(b.to_pylist()) for b in other]


def without_times(document: Any) -> Any:
    """The same without what differs from run to run."""
    if isinstance(document, dict):
        return {key: without_times(value) for key, value in document.items() if not key.endswith("elapsed")}
    return [without_times(item) for item in document] if isinstance(document, list) else document


def test_a_model_that_cannot_answer_at_once_is_waited_for_from_then_on() -> None:
    calls = []

    async def wait(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        calls.append(len(rows))
        await asyncio.sleep(0)
        return [{"y": row["x"]} for row in rows]

    spec = spec_of(("a", "b"), infer("a"), key_split("b", "k"))
    program = Program(spec, [times(2, gives="x", kind=PromptRunner), PromptRunner(wait, X, Y)])
    rows = pa.table({"x": [1.0]})

    assert program.prompt
    assert program.run_now(rows) is None
    assert not program.prompt, "else the first model would run twice for every request"
    assert asyncio.run(program.run(rows)).outputs.to_pylist() == [{"y": 2.0}]
    assert calls == [1, 1]


def test_late_challengers_of_an_answer_given_at_once_are_logged_too() -> None:
    async def go() -> None:
        log, late = MemoryLog(), MemoryLog()
        spec = spec_of(("a", "b"), *shadow("a", "b"), shadow_waits=False)
        app = inference_app(
            [times(1, kind=PromptRunner), times(10, kind=PromptRunner)], spec=spec, log=log, late_log=late
        )
        head = [
            (b"host", b"127.0.0.1:8080"),
            (b"authorization", f"Bearer {access_token()}".encode()),
            (b"content-type", b"application/json"),
        ]

        assert app.now(b"POST", b"/infer", head, BODY) is not None
        assert (len(log.answered), late.answered) == (1, [])
        await app.drained()
        assert late.answered[0].column("out_b.y").to_pylist() == [10, 30]

    asyncio.run(go())


def test_validations_of_many_rows_mark_each() -> None:
    count = MANY_ROWS + 1
    spec = spec_of(("a",), infer("a"), check(high=above("out.y", count - 1.5)))
    program = Program(spec, [times(1)])

    ran = asyncio.run(program.run(pa.table({"x": [float(n) for n in range(count)]})))

    assert ran.beside is not None
    assert ran.beside.marks[0].nonzero()[0].tolist() == [count - 1]


def test_rows_that_go_to_several_models_are_never_answered_at_once() -> None:
    rows = {"RowsToModels": {"rows_to_models": [{"row_index": 0, "model": infer("a")["ModelInference"]["models"][0]}]}}

    assert not Program(spec_of(("a",), rows), [times(1, kind=PromptRunner)]).prompt


# --- what does not fit ------------------------------------------------------------------------------------------------

TEXT = pa.schema([pa.field("x", pa.string())])
YZ = pa.schema([*Y, pa.field("z", pa.float64())])


async def same(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return rows


@pytest.mark.parametrize(
    ("steps", "runners", "words"),
    [
        (
            [infer("a", "b")],
            [(X, Y), (TEXT, Y)],
            "model 'b' takes the column 'x' as string, and model 'a' beside it as",
        ),
        (
            [split((1, "a"), (1, "b"))],
            [(X, Y), (X, YZ)],
            "model 'b' gives y: double, z: double, and model 'a' beside it y: double: they differ in 'z'",
        ),
        (
            [split((1, "a"), (1, "b"))],
            [(X, Y), (X, pa.schema([pa.field("y", pa.string())]))],
            "gives the column 'y' as string",
        ),
        (
            [infer("a"), infer("b")],
            [(X, Y), (X, Y)],
            "Step 2 .*, model 'b' takes the column 'x', which the step before",
        ),
        (
            [infer("a"), key_split("b", "k")],
            [(X, Y), (X, Y)],
            "Step 2 of pipeline 'rental-forecast', model 'b' takes the column 'x'",
        ),
        ([infer("a", "b"), {"Average": {}}], [(X, Y), (X, YZ)], "averages 'a', which gives y: double, and 'b'"),
        ([infer("a", "b"), {"Average": {}}], [(TEXT, TEXT)] * 2, "averages the column 'x', which is string"),
        ([infer("a"), {"ColumnsSelect": {"columns": [1]}}], [(X, Y)], "selects column 1, counted from 0, of 1"),
        ([infer("a"), {"ColumnsToRows": {}}], [(X, TEXT)], "one type of number; 'x' is string"),
        ([infer("a"), check(odd=above("out.z", 1))], [(X, Y)], "'odd' looks at the column 'out.z', which is not there"),
        ([infer("a"), check(odd=above("out.x", 1))], [(X, TEXT)], "'odd': A Utf8 meets a Float64"),
        ([infer("a"), check(odd={"Column": "out.y"})], [(X, Y)], "'odd' gives Float64 values. Compare them"),
        ([check(odd=above("in.x", 1))], [(X, Y)], "has no step with a model"),
        ([infer("ghost")], [(X, Y)], "names model 'ghost', which it was not given"),
    ],
)
def test_what_does_not_fit_is_told_before_any_request_by_step_and_column(
    steps: list[dict[str, Any]], runners: list[tuple[pa.Schema, pa.Schema]], words: str
) -> None:
    names = ("a", "b")[: len(runners)]
    with pytest.raises(BadInput, match=words):
        Program(spec_of(names, *steps), [InProcessRunner(same, *schemas) for schemas in runners])


def test_a_validation_of_a_challenger_needs_answers_that_wait() -> None:
    spec = spec_of(("a", "b"), *shadow("a", "b"), check(odd=above("out_b.y", 1)), shadow_waits=False)

    with pytest.raises(BadInput, match=r"column 'out_b.y' of a challenger, for which answers do not wait"):
        Program(spec, [times(1), times(2)])


def test_models_of_one_step_may_take_different_columns_of_a_request() -> None:
    other = pa.schema([pa.field("w", pa.float64())])

    async def from_w(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        assert all(row.keys() == {"w"} for row in rows)
        return [{"y": row["w"]} for row in rows]

    spec = spec_of(("a", "b"), *shadow("a", "b"))
    app = inference_app([times(1), InProcessRunner(from_w, other, Y)], spec=spec)

    assert flat(app, records(x=[1.0], w=[7.0]))[0]["out_b.y"] == 7
    assert b"lacks the column 'w'" in ask(app, BODY).body


def test_a_version_that_comes_again_is_one_model() -> None:
    spec = spec_of(("a",), infer("a"), infer("a"))

    program = Program(spec, [times(3, gives="x")])

    assert asyncio.run(program.run(pa.table({"x": [1.0]}))).outputs.to_pylist() == [{"x": 9.0}]
    assert program.plan.chain == (0, 0)
