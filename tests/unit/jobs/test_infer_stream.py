"""A topic in, predictions out: nothing lost, nothing blamed for another's fault, and an end without haste."""

from __future__ import annotations

import random
import sqlite3
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from stream_doubles import (
    DOUBLES,
    JOB,
    NUMBERS,
    VERSION,
    Broker,
    Killed,
    StreamWork,
    away,
    doubled,
    fails_at,
    stream_request,
)

from bettong.domain.batch_requests import Columns
from bettong.errors import BadInput, LoginRefused, ModelFailed, NotFound, TooLarge, Unavailable
from bettong.jobs.infer_stream import LAG_EVERY_S, Stream
from bettong.jobs.stream.outage import LONGEST_AT_FIRST_S, LONGEST_S
from bettong.services.job_files import rows_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from bettong.domain.drivers import Message

DEAD = {"connection_id": "c1", "topic": "failed"}
TABLE = {"connection_id": "c2", "table": "predictions"}


@pytest.fixture
def broker() -> Broker:
    return Broker()


@pytest.fixture
def a_job(broker: Broker, tmp_path: Path) -> Callable[..., StreamWork]:
    """A job's work; `request` has changes to what it is asked."""

    def make(request: Mapping[str, Any] | None = None, **more: Any) -> StreamWork:
        return StreamWork(broker, tmp_path / "job", stream_request(**(request or {})), **more)

    return make


def run(work: StreamWork) -> Mapping[str, Any]:
    return Stream(work, work.broker.clock, work.broker.clock.sleep).run()


def rows_in(path: Path, query: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(path) as database:
        rows = database.execute(query).fetchall()
    database.close()
    return rows


def refuses(*bad: float) -> Callable[[list[float]], list[float]]:
    """A model that fails on whatever has one of these values in it."""

    def model(rows: list[float]) -> list[float]:
        if set(rows) & set(bad):
            raise ModelFailed("Model 'm' failed: ValueError: 13.0 is not for me.")
        return doubled(rows)

    return model


# --- what a prediction is -------------------------------------------------------------------------------------------


def test_an_answer_has_the_key_and_headers_of_its_message_and_says_where_it_comes_from(
    broker: Broker, a_job: Any
) -> None:
    broker.send("orders", {"x": 3, "id": "a-7", "more": [1]}, key=b"k\xff", headers={"trace": "t1"})

    run(a_job({"keep": ["id", "shop"]}))

    (made,) = broker.topics["predictions"]
    assert broker.values("predictions") == [{"id": "a-7", "shop": None, "out": {"y": 6.0}, "time": 1_700_000_000_000}]
    assert made.key == b"k\xff"
    assert made.headers == {
        "trace": "t1",
        "bettong-job": JOB,
        "bettong-source": "orders/0@0",
        "bettong-pipeline-version": VERSION,
    }


def test_an_array_is_answered_by_an_array_and_arrow_too(broker: Broker, a_job: Any) -> None:
    sink = pa.BufferOutputStream()
    table = pa.table({"id": [8, None], "x": [0.5, 1.5]})
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    broker.send("orders", [{"x": 1, "id": 1}, {"x": 2, "id": 2}], sink.getvalue().to_pybytes(), {"x": 4})

    totals = run(a_job({"keep": ["id"]}))

    shown = [
        [(row["id"], row["out"]["y"]) for row in (value if isinstance(value, list) else [value])]
        for value in broker.values("predictions")
    ]
    assert shown == [[(1, 2.0), (2, 4.0)], [(8, 1.0), (None, 3.0)], [(None, 8.0)]]
    assert isinstance(broker.values("predictions")[2], dict)
    assert (totals["messages_in"], totals["predictions_out"], totals["rows"]) == (3, 3, 5)


def test_messages_are_asked_about_together_and_answered_in_their_order(broker: Broker, a_job: Any) -> None:
    broker.send("orders", *({"x": n} for n in range(1_000)))
    work = a_job({"max_messages": 400})

    run(work)

    assert [value["out"]["y"] for value in broker.values("predictions")] == [2.0 * n for n in range(1_000)]
    assert [rows.num_rows for rows in work.asked] == [1, 100, 400, 400, 100]  # the first row is made up


def test_large_messages_are_taken_a_few_at_a_time(broker: Broker, a_job: Any) -> None:
    broker.send("orders", *({"x": n, "image": "i" * 2**20} for n in range(140)))
    work = a_job()

    run(work)

    assert [rows.num_rows for rows in work.asked] == [1, 100, 15, 15, 10]


def test_several_requests_at_once_keep_the_order(broker: Broker, a_job: Any) -> None:
    broker.send("orders", *({"x": n} for n in range(100)))
    work = a_job(lanes=3)

    run(work)

    assert [value["out"]["y"] for value in broker.values("predictions")] == [2.0 * n for n in range(100)]
    assert sorted(rows.num_rows for rows in work.asked) == [1, 33, 33, 34]


def test_where_a_step_looks_at_whole_requests_each_message_is_one_and_brings_its_keys(
    broker: Broker, a_job: Any
) -> None:
    broker.send("orders", {"x": 1, "user": "ann"}, {"x": 2}, {"x": 3, "user": 7})
    work = a_job({"columns": Columns(NUMBERS, ("user",), DOUBLES, by_request=True)}, lanes=2)

    run(work)

    asked = sorted((rows.to_pylist() for rows in work.asked[1:]), key=lambda rows: rows[0]["x"])
    assert asked == [[{"x": 1.0, "user": "ann"}], [{"x": 2.0}], [{"x": 3.0, "user": 7}]]
    assert [value["out"]["y"] for value in broker.values("predictions")] == [2.0, 4.0, 6.0]


# --- messages at fault ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"\xff", "neither JSON nor Arrow"),
        (b"{", "neither JSON nor Arrow"),
        (b"7", "no object and no array of objects"),
        (b"[1]", "no object and no array of objects"),
        (b"[]", "without a row"),
        (b'{"y": 1}', "Row 0 of the message lacks the column 'x'"),
        (b'[{"x": 1}, {}]', "Row 1 of the message lacks the column 'x'"),
        (b'{"x": "s3cret"}', "Column 'x', row 0: found a text"),
        (b'{"x": null}', "null"),
        (b"ARROW1 and then nothing", "not a readable Arrow"),
        (b"\xff\xff\xff\xff\x10\x00\x00\x00", "not a readable Arrow"),
    ],
)
def test_what_cannot_be_read_goes_unchanged_to_the_dead_letters_with_the_reason(
    value: bytes, reason: str, broker: Broker, a_job: Any
) -> None:
    broker.send("orders", {"x": 1}, value, {"x": 2}, key=b"k", headers={"trace": "t"})

    totals = run(a_job({"dead_letter": DEAD}))

    (dead,) = broker.topics["failed"]
    assert (dead.value, dead.key, dead.headers["trace"]) == (value, b"k", "t")
    assert reason in dead.headers["bettong-error"]
    assert "s3cret" not in dead.headers["bettong-error"]
    assert dead.headers["bettong-source"] == "orders/0@1"
    assert [v["out"]["y"] for v in broker.values("predictions")] == [2.0, 4.0]
    assert (totals["predictions_out"], totals["dead_lettered"]) == (2, 1)


def test_only_the_messages_that_the_model_fails_on_are_dead_lettered(broker: Broker, a_job: Any) -> None:
    broker.send("orders", *({"x": n} for n in range(300)))
    work = a_job({"dead_letter": DEAD}, model=refuses(13.0, 14.0, 250.0))

    totals = run(work)

    assert [v["x"] for v in broker.values("failed")] == [13, 14, 250]
    assert [v["out"]["y"] for v in broker.values("predictions")] == [
        2.0 * n for n in range(300) if n not in (13, 14, 250)
    ]
    assert totals["dead_lettered"] == 3
    assert len(work.asked) < 80
    for dead in broker.topics["failed"]:
        assert "13.0" not in dead.headers["bettong-error"]  # the model's own words, which held a value


def test_a_message_under_which_a_worker_died_once_is_asked_about_again(broker: Broker, a_job: Any) -> None:
    fails = [True]

    def model(rows: list[float]) -> list[float]:
        if 5.0 in rows and fails:
            fails.pop()
            raise ModelFailed("The worker of model 'm' was killed.")
        return doubled(rows)

    broker.send("orders", {"x": 5})

    assert run(a_job({"dead_letter": DEAD}, model=model))["predictions_out"] == 1


def test_a_model_that_fails_whatever_it_is_asked_is_waited_for_and_no_message_blamed(
    broker: Broker, a_job: Any
) -> None:
    asked = iter(range(1_000))

    def model(rows: list[float]) -> list[float]:
        if 1 <= next(asked) < 12:  # well at first, then ill
            raise ModelFailed("Model 'm' failed: its feature store is away.")
        return doubled(rows)

    broker.send("orders", {"x": 1}, {"x": 2})
    work = a_job({"dead_letter": DEAD}, model=model)

    totals = run(work)

    assert (totals["predictions_out"], totals["dead_lettered"]) == (2, 0)
    assert any("The model fails whatever it is asked" in line for line in work.lines)


def test_without_a_dead_letter_topic_the_job_keeps_what_it_cannot_answer(
    broker: Broker, a_job: Any, tmp_path: Path
) -> None:
    broker.send("orders", {"x": 1}, {"x": "?"}, b"not json", key=b"k", headers={"a": "b"})

    totals = run(a_job({"max_rejects": 2}))

    with rows_of(tmp_path / "job", "rejects") as reader:
        kept = reader.read_all().to_pylist()
    assert [(r["source"], r["key"], r["value"]) for r in kept] == [
        ("orders/0@1", b"k", b'{"x":"?"}'),
        ("orders/0@2", b"k", b"not json"),
    ]
    assert kept[0]["headers"] == [("a", "b")]
    assert "found a text" in kept[0]["error"]
    assert totals["rejected"] == 2


def test_beyond_the_limit_of_rejects_the_job_stops_and_loses_nothing(broker: Broker, a_job: Any) -> None:
    broker.at_once = 1
    broker.send("orders", {"x": 1}, b"one", b"two", b"three", {"x": 2})

    with pytest.raises(BadInput, match=r"More than 2 messages could not be answered, the last for this reason: .*JSON"):
        run(a_job({"max_rejects": 2}))

    assert broker.left("orders", "g") == 2


def test_the_limit_counts_what_earlier_attempts_kept(broker: Broker, a_job: Any) -> None:
    broker.send("orders", b"one", b"two")
    run(a_job({"max_rejects": 2}))
    broker.send("orders", b"three")

    with pytest.raises(BadInput, match="More than 2"):
        run(a_job({"max_rejects": 2}, attempt=2))


def test_beyond_its_share_of_bytes_the_job_stops_and_loses_nothing(broker: Broker, a_job: Any, tmp_path: Path) -> None:
    broker.at_once = 1
    broker.send("orders", {"x": 1}, b"one" * 100, b"two" * 100, {"x": 2})

    with pytest.raises(TooLarge, match=r"Messages that could not be answered take .*JSON.* Name a dead-letter topic"):
        run(a_job(most_bytes=600))

    assert broker.left("orders", "g") == 2
    with rows_of(tmp_path / "job", "rejects") as reader:
        assert reader.read_all()["value"].to_pylist() == [b"one" * 100]
    with pytest.raises(TooLarge):
        run(a_job(attempt=2, most_bytes=600))


def test_a_topic_of_which_nothing_fits_ends_the_job_with_the_reason(broker: Broker, a_job: Any) -> None:
    broker.send("orders", *({"price": n} for n in range(150)))

    with pytest.raises(BadInput, match=r"none of the first 100 messages of 'orders'.*lacks the column 'x'") as told:
        run(a_job({"dead_letter": DEAD, "max_messages": 50}))

    assert "x (float)" in told.value.next_step
    assert len(broker.topics["failed"]) == 100


def test_an_answer_that_is_too_large_for_the_sink_is_no_fault_of_its_neighbours(broker: Broker, a_job: Any) -> None:
    broker.most_bytes = 300
    broker.send("orders", {"x": 1, "id": "a"}, {"x": 2, "id": "b" * 270}, {"x": 3, "id": "c"})

    run(a_job({"keep": ["id"], "dead_letter": DEAD}))

    assert [v["out"]["y"] for v in broker.values("predictions")] == [2.0, 6.0]
    assert "The sink does not take the answer" in broker.topics["failed"][0].headers["bettong-error"]


def test_headers_that_the_sinks_broker_refuses_cost_neither_answers_nor_the_job(broker: Broker, a_job: Any) -> None:
    broker.no_headers = frozenset({"value"})
    broker.send("orders", *({"x": n} for n in range(30)), headers={"value": "sent to break it"})
    broker.send("orders", {"x": 30}, headers={"trace": "t"})

    run(a_job())

    assert [v["out"]["y"] for v in broker.values("predictions")] == [2.0 * n for n in range(31)]
    first, last = broker.topics["predictions"][0], broker.topics["predictions"][-1]
    assert set(first.headers) == {"bettong-job", "bettong-source", "bettong-pipeline-version", "bettong-repeated"}
    assert last.headers["trace"] == "t"


def test_what_a_broker_took_of_a_batch_that_it_refused_is_counted_as_perhaps_double(broker: Broker, a_job: Any) -> None:
    broker.most_bytes, broker.partial = 300, True
    broker.send("orders", *({"x": n, "id": "b" * 270 if n == 6 else "a"} for n in range(8)))

    totals = run(a_job({"keep": ["id"], "dead_letter": DEAD}))

    sources = [message.headers["bettong-source"] for message in broker.topics["predictions"]]
    marked = {m.headers["bettong-source"] for m in broker.topics["predictions"] if is_repeated(m)}
    assert set(sources) == {f"orders/0@{n}" for n in (0, 1, 2, 3, 4, 5, 7)}
    assert {source for source in sources if sources.count(source) > 1} <= marked
    assert len(sources) - 7 <= totals["repeated"]
    assert (totals["predictions_out"], totals["dead_lettered"]) == (7, 1)


def test_a_sink_that_refuses_everything_fails_the_job_instead_of_emptying_the_topic(broker: Broker, a_job: Any) -> None:
    broker.most_bytes = 1
    broker.send("orders", *({"x": n} for n in range(100)))

    with pytest.raises(BadInput, match=r"The sink refused 11 answers one after the other.*larger than the broker"):
        run(a_job())

    assert broker.left("orders", "g") == 100


# --- what goes away and comes back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["open", "consume", "produce predictions", "produced predictions", "commit"])
def test_a_broker_that_goes_away_for_a_while_is_waited_for(call: str, broker: Broker, a_job: Any) -> None:
    gone_until = broker.clock.now_s + 400
    calls = iter(range(10_000))

    def before(which: str) -> None:
        if which == call and broker.opened and next(calls) >= 3 and broker.clock.now_s < gone_until:
            raise away()

    broker.before, broker.at_once = before, 10
    broker.send("orders", *({"x": n} for n in range(100)))
    work = a_job()
    if call == "open":  # the brokers are opened anew because of another fault
        work.model = _once_unavailable()

    totals = run(work)

    answered = [v["out"]["y"] for v in broker.values("predictions")]
    assert sorted(set(answered)) == [2.0 * n for n in range(100)]
    assert len(answered) - 100 <= totals["repeated"]
    assert len(answered) == 100 or call == "produced predictions"  # nobody could know whether they had arrived
    assert totals["predictions_out"] == 100
    assert broker.clock.now_s >= gone_until
    side = "BROKER 'one' (source)" if call in ("consume", "commit") else "BROKER 'two' (sink)"
    waits = [line for line in work.lines if line.startswith("Waiting")]
    assert waits[-1] == f"Waiting, up to 10 min: {side}: The broker does not answer."
    assert len(waits) == (2 if call == "open" else 1)
    assert any(line.startswith("Going on after") for line in work.lines)


def _once_unavailable() -> Callable[[list[float]], list[float]]:
    asked = iter(range(1_000))

    def model(rows: list[float]) -> list[float]:
        if next(asked) in (4, 5):
            raise Unavailable("The job's deployment is not there.")
        return doubled(rows)

    return model


def test_a_broker_that_stays_away_ends_the_attempt(broker: Broker, a_job: Any) -> None:
    broker.send("orders", {"x": 1})
    broker.topics["later"] = []
    began_s = broker.clock.now_s

    def before(which: str) -> None:
        if which == "consume" and broker.topics["predictions"]:
            raise away()

    broker.before = before

    with pytest.raises(Unavailable, match="does not answer"):
        run(a_job(until=lambda: False))

    assert LONGEST_S <= broker.clock.now_s - began_s < LONGEST_S + 60


def test_a_broker_that_never_was_there_is_not_waited_for_as_long(broker: Broker, a_job: Any) -> None:
    began_s = broker.clock.now_s

    def before(which: str) -> None:
        raise away()

    broker.before = before

    with pytest.raises(Unavailable):
        run(a_job(until=lambda: False))

    assert LONGEST_AT_FIRST_S <= broker.clock.now_s - began_s < LONGEST_AT_FIRST_S + 30


def test_a_model_that_is_down_costs_no_message(broker: Broker, a_job: Any) -> None:
    asked = iter(range(1_000))

    def model(rows: list[float]) -> list[float]:
        if 1 <= next(asked) < 20:
            raise Unavailable("The job's deployment is not there for 180 s.")
        return doubled(rows)

    broker.send("orders", *({"x": n} for n in range(10)))

    totals = run(a_job({"dead_letter": DEAD}, model=model))

    assert totals == {
        "messages_in": 10,
        "predictions_out": 10,
        "dead_lettered": 0,
        "rejected": 0,
        "answered_before": 0,
        "repeated": 0,
        "rows": 10,
    }


def refuses_the_login(broker: Broker, call: str, until: Callable[[], bool]) -> None:
    """Have this call refused once something was answered, as long as `until` does not hold."""

    def before(which: str) -> None:
        if which == call and broker.topics["predictions"] and not until():
            raise LoginRefused("Broker refused the login.", "Check user and password.")

    broker.before = before


@pytest.mark.parametrize(
    ("call", "side"),
    [
        ("consume", "BROKER 'one' (source)"),
        ("produce predictions", "BROKER 'two' (sink)"),
        ("produce failed", "BROKER 'three' (dead letters)"),
    ],
)
def test_a_password_that_was_changed_is_waited_for_and_no_message_blamed(
    call: str, side: str, broker: Broker, a_job: Any
) -> None:
    broker.at_once = 10
    broker.send("orders", *({"x": n} for n in range(20)), b"not json", *({"x": n} for n in range(20, 40)))
    work = a_job({"dead_letter": DEAD})
    refuses_the_login(broker, call, until=lambda: work.renewed >= 5)

    totals = run(work)

    assert [value["out"]["y"] for value in broker.values("predictions")] == [2.0 * n for n in range(40)]
    assert (totals["dead_lettered"], totals["messages_in"]) == (1, 41)
    assert work.renewed == 5
    (wait,) = (line for line in work.lines if line.startswith("Waiting"))
    assert wait.startswith(f"Waiting, up to 10 min: {side}: Broker refused the login. Rotate the Connection")
    waiting = next(told for told in work.progress if told["waiting_for"])
    assert waiting["waiting_for"].items() >= {"what": side, "login_refused": True}.items()
    assert waiting["lag"] is None
    assert work.progress[-1]["waiting_for"] is None


def test_a_password_that_stays_wrong_fails_the_job_in_the_end_and_says_what_to_do(broker: Broker, a_job: Any) -> None:
    broker.send("orders", {"x": 1})
    began_s = broker.clock.now_s
    refuses_the_login(broker, "consume", until=lambda: False)

    with pytest.raises(LoginRefused, match=r"BROKER 'one' \(source\): Broker refused the login.*for 10 min") as told:
        run(a_job(until=lambda: False))

    assert LONGEST_S <= broker.clock.now_s - began_s < LONGEST_S + 60
    assert told.value.next_step == ("Rotate the Connection, then start the stream again: it goes on where it stopped.")


def test_the_next_attempt_of_a_stream_that_worked_waits_for_its_password_as_well(broker: Broker, a_job: Any) -> None:
    broker.send("orders", {"x": 1})
    run(a_job())
    broker.send("orders", {"x": 2})
    work = a_job(attempt=2)
    refuses_the_login(broker, "open", until=lambda: work.renewed >= 3)

    assert run(work)["predictions_out"] == 2


def test_a_password_that_never_was_right_fails_the_job_at_once(broker: Broker, a_job: Any) -> None:
    broker.send("orders", {"x": 1})
    began_s = broker.clock.now_s

    def before(which: str) -> None:
        raise LoginRefused("Broker refused the login.", "Check user and password.")

    broker.before = before

    with pytest.raises(LoginRefused, match=r"BROKER 'two' \(sink\): Broker refused the login\. Check user"):
        run(a_job())
    assert broker.clock.now_s == began_s


def test_while_a_broker_is_away_it_is_told_which_one_and_since_when(broker: Broker, a_job: Any) -> None:
    broker.at_once = 1
    broker.send("orders", {"x": 1}, {"x": 2})
    broker.before = fails_at("consume", 1, away())
    work = a_job()

    run(work)

    waiting = [told for told in work.progress if told["waiting_for"]]
    assert {told["waiting_for"]["what"] for told in waiting} == {"BROKER 'one' (source)"}
    assert datetime.now(UTC) - datetime.fromisoformat(waiting[0]["waiting_for"]["since"]) < timedelta(minutes=1)
    assert {told["lag"] for told in waiting} == {None}
    assert (work.progress[-1]["waiting_for"], work.progress[-1]["lag"]) == (None, 0)


def test_a_field_to_keep_that_no_message_has_is_told_once(broker: Broker, a_job: Any) -> None:
    broker.at_once = 1
    broker.send("orders", b"not json", {"x": 1, "id": 1}, {"x": 2, "id": 2, "shop": 3}, {"x": 3})
    work = a_job({"keep": ["idd", "id", "shops"]})

    run(work)

    (told,) = (line for line in work.lines if line.startswith("keep names"))
    assert told == ("keep names 'idd', 'shops', which no message so far has: null in the predictions. One has: x, id.")


def test_it_is_told_where_messages_without_an_answer_went_and_why_the_last_one_has_none(
    broker: Broker, a_job: Any
) -> None:
    broker.send("orders", {"x": 1}, b"not json")
    first = a_job({"dead_letter": DEAD})
    run(first)
    broker.send("orders", {"x": 2})
    second = a_job({"dead_letter": DEAD}, attempt=2)
    run(second)

    for work in (first, second):
        told = work.progress[-1]
        assert (told["dead_letter"], told["dead_lettered"]) == ("failed", 1)
        assert "neither JSON nor Arrow" in told["last_reason"]


def test_a_topic_that_is_not_there_fails_the_job(a_job: Any) -> None:
    with pytest.raises(NotFound, match=r"^BROKER 'one' \(source\): There is no topic 'orders'"):
        run(a_job(until=lambda: False))


# --- the end --------------------------------------------------------------------------------------------------------


def test_cancelled_it_finishes_what_is_in_flight_and_takes_no_more(broker: Broker, a_job: Any) -> None:
    broker.at_once = 10
    broker.send("orders", *({"x": n} for n in range(100)))
    work = a_job()
    work.until = lambda: len(work.asked) > 3  # asked for while the third batch is with the model

    totals = run(work)

    assert len(broker.topics["predictions"]) == totals["predictions_out"] == 30
    assert broker.left("orders", "g") == 70


def test_cancelled_while_the_model_is_away_it_commits_nothing(broker: Broker, a_job: Any) -> None:
    broker.send("orders", {"x": 1})
    work = a_job()
    ending: list[bool] = []

    def model(rows: list[float]) -> list[float]:
        if len(work.asked) > 1:
            ending.append(True)
            raise Unavailable("The job was to end while its deployment was not there.")
        return doubled(rows)

    work.model, work.until = model, lambda: bool(ending)

    assert run(work)["messages_in"] == 0
    assert broker.left("orders", "g") == 1


def test_it_ends_when_it_was_idle_for_as_long_as_was_asked_for(broker: Broker, a_job: Any) -> None:
    broker.send("orders", {"x": 1})
    began_s = broker.clock.now_s

    totals = run(a_job({"stop_when_idle_s": 20}, until=lambda: False))

    assert totals["predictions_out"] == 1
    assert 20 <= broker.clock.now_s - began_s <= 22


def test_progress_tells_counts_rate_and_lag_and_that_it_got_further(broker: Broker, a_job: Any) -> None:
    broker.at_once = 10
    broker.send("orders", *({"x": n} for n in range(100)))

    def model(rows: list[float]) -> list[float]:
        broker.clock.sleep(1.0)
        return doubled(rows)

    work = a_job(model=model)

    run(work)

    assert work.progress[0]["messages_in"] == 10
    assert [p["lag"] for p in work.progress][:2] == [90, 90]
    assert work.progress[-1]["lag"] <= 100 - 10 * LAG_EVERY_S
    assert work.progress[-1]["messages_per_second"] == 10.0
    assert work.positions[0] == "10 messages"
    assert len(work.positions) <= 3


def test_how_far_it_is_behind_is_asked_now_and_then_and_no_job_fails_for_it(broker: Broker, a_job: Any) -> None:
    broker.at_once = 1
    broker.send("orders", *({"x": n} for n in range(20)))
    asked: list[float] = []

    def model(rows: list[float]) -> list[float]:
        broker.clock.sleep(1.0)
        return doubled(rows)

    def refuses_to_tell(call: str) -> None:
        if call == "lag":
            asked.append(broker.clock.now_s)
            raise BadInput("This login may not do that.", "Ask for the right.")

    broker.before = refuses_to_tell
    work = a_job(model=model)

    totals = run(work)

    assert totals["predictions_out"] == 20
    assert {p["lag"] for p in work.progress} == {None}
    assert all(later - earlier >= LAG_EVERY_S for earlier, later in pairwise(asked))


# --- killed ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(8))
def test_over_kills_none_of_1000_messages_is_lost_and_what_may_be_double_is_counted(
    seed: int, broker: Broker, a_job: Any
) -> None:
    chance = random.Random(seed)
    broker.send("orders", *({"x": n, "id": n} for n in range(1_000)))
    broker.at_once = 40
    kills = 0

    def before(which: str) -> None:
        nonlocal kills
        if chance.random() < 0.1 and kills < 12:
            kills += 1
            raise Killed

    broker.before = before
    totals: Mapping[str, Any] = {}
    attempt = 0
    while broker.left("orders", "g"):
        attempt += 1
        broker.forget()
        with suppress(Killed):
            totals = run(a_job({"keep": ["id"]}, attempt=attempt))

    made = broker.topics["predictions"]
    ids = [value["id"] for value in broker.values("predictions")]
    assert kills >= 3
    assert sorted(set(ids)) == list(range(1_000))
    assert len({message.headers["bettong-source"] for message in made}) == 1_000
    assert len(ids) - 1_000 <= totals["repeated"]
    marked = [value["id"] for value, m in zip(broker.values("predictions"), made, strict=True) if is_repeated(m)]
    assert {n for n in ids if ids.count(n) > 1} <= set(marked)


def is_repeated(message: Message) -> bool:
    return message.headers.get("bettong-repeated") == "perhaps"


@pytest.mark.parametrize("mode", ["append", "upsert"])
def test_over_kills_no_row_of_a_table_is_lost_or_double(mode: str, broker: Broker, a_job: Any, tmp_path: Path) -> None:
    chance = random.Random(5)
    broker.send("orders", *({"x": n, "id": n} for n in range(1_000)))
    broker.at_once = 40
    kills = 0

    def before(which: str) -> None:
        nonlocal kills
        if chance.random() < 0.06 and kills < 10:
            kills += 1
            raise Killed

    broker.before = before
    totals: Mapping[str, Any] = {}
    while broker.left("orders", "g"):
        broker.forget()
        with suppress(Killed):
            totals = run(a_job({"keep": ["id"], "sink": {**TABLE, "mode": mode}}, database=tmp_path / "sink.db"))

    rows = rows_in(tmp_path / "sink.db", "select id, y, bettong_source from predictions order by id")
    assert kills >= 3
    assert rows == [(n, 2.0 * n, f"orders/0@{n}") for n in range(1_000)]
    assert totals["answered_before"] > 0
    assert totals["repeated"] == 0


@pytest.mark.parametrize("sink", [None, TABLE])
def test_what_somebody_may_have_answered_before_is_answered_and_counted(
    sink: dict[str, Any] | None, broker: Broker, a_job: Any, tmp_path: Path
) -> None:
    broker.send("orders", {"x": 1})
    broker.send("orders", {"x": 2}, unsure=True)

    totals = run(a_job({"sink": sink}, database=tmp_path / "sink.db") if sink else a_job())

    assert (totals["predictions_out"], totals["repeated"]) == (2, 1)
    if sink is None:
        assert [is_repeated(message) for message in broker.topics["predictions"]] == [False, True]


def test_what_comes_again_in_other_portions_is_still_known_in_a_table(
    broker: Broker, a_job: Any, tmp_path: Path
) -> None:
    """The last batch is told apart, message by message, however the broker deals it out again."""
    broker.send("orders", *({"x": n, "id": n} for n in range(30)))
    asked = {"keep": ["id"], "sink": TABLE}
    broker.before = fails_at("commit", 0, Killed())
    with suppress(Killed):
        run(a_job(asked, database=tmp_path / "sink.db"))
    for at_once, kill in ((7, 1), (3, 0), (11, 2)):
        broker.forget()
        broker.at_once, broker.before = at_once, fails_at("commit", kill, Killed())
        with suppress(Killed):
            run(a_job(asked, database=tmp_path / "sink.db"))
    broker.before = lambda call: None
    broker.forget()
    broker.send("orders", {"x": 30, "id": 30})

    run(a_job(asked, database=tmp_path / "sink.db"))

    assert rows_in(tmp_path / "sink.db", "select id from predictions order by id") == [(n,) for n in range(31)]


# --- a table --------------------------------------------------------------------------------------------------------


def test_a_table_that_is_not_there_is_made_from_the_answers(broker: Broker, a_job: Any, tmp_path: Path) -> None:
    broker.send("orders", {"x": 1, "id": "a", "tags": ["t"]}, [{"x": 2, "id": "b"}, {"x": 3, "id": "c"}], key=b"k1")
    broker.at_once = 1

    run(a_job({"keep": ["id", "tags"], "sink": TABLE}, database=tmp_path / "sink.db"))

    rows = rows_in(tmp_path / "sink.db", "select id, tags, y, bettong_source, bettong_key from predictions")
    assert rows == [
        ("a", '["t"]', 2.0, "orders/0@0", "k1"),
        ("b", None, 4.0, "orders/0@1#0", "k1"),
        ("c", None, 6.0, "orders/0@1#1", "k1"),
    ]


def test_a_kept_column_of_the_pipelines_own_has_its_type_and_times_are_read_as_by_an_inference(
    broker: Broker, a_job: Any, tmp_path: Path
) -> None:
    """Whole numbers come first: a table made of what was seen could not take the others."""
    rows_in(tmp_path / "old.db", "create table predictions (day timestamp, y real, time text, bettong_source text)")
    broker.at_once = 1
    day = 1_700_000_000_123
    broker.send("orders", {"x": 3, "day": "2023-11-14T22:13:20.123"}, {"x": 3.5, "day": day}, {"x": 4, "day": None})

    run(a_job({"keep": ["x"], "sink": TABLE}, database=tmp_path / "new.db"))
    old = {"keep": ["day"], "sink": TABLE, "source": {"connection_id": "c1", "topic": "orders", "group": "g2"}}
    run(StreamWork(broker, tmp_path / "job-2", stream_request(**old), database=tmp_path / "old.db"))

    assert rows_in(tmp_path / "new.db", "select x, y from predictions") == [(3.0, 6.0), (3.5, 7.0), (4.0, 8.0)]
    days = [row[0] for row in rows_in(tmp_path / "old.db", "select day from predictions")]
    assert days[2] is None
    assert {text.replace("T", " ")[:23] for text in days[:2]} == {"2023-11-14 22:13:20.123"}


def test_a_table_that_lacks_a_column_is_named_before_the_first_message(
    broker: Broker, a_job: Any, tmp_path: Path
) -> None:
    broker.send("orders", {"x": 1, "id": 1})
    rows_in(tmp_path / "sink.db", "create table predictions (id integer, z real)")

    with pytest.raises(BadInput, match="Table 'predictions' has no column 'y', 'time', 'bettong_source'") as told:
        run(a_job({"keep": ["id"], "sink": TABLE}, database=tmp_path / "sink.db"))

    assert "Its columns are: id, z" in told.value.next_step
    assert broker.left("orders", "g") == 1


def test_fields_that_the_pipeline_gives_too_are_named_before_the_first_message(
    broker: Broker, a_job: Any, tmp_path: Path
) -> None:
    broker.send("orders", {"x": 1, "y": 1})

    with pytest.raises(BadInput, match=r"would keep \['y'\], which the pipeline gives as well"):
        run(a_job({"keep": ["y"], "sink": TABLE}, database=tmp_path / "sink.db"))


def test_a_field_that_does_not_fit_the_table_is_the_fault_of_its_message(
    broker: Broker, a_job: Any, tmp_path: Path
) -> None:
    rows_in(tmp_path / "sink.db", "create table predictions (id integer, y real, time text, bettong_source text)")
    broker.send("orders", *({"x": n, "id": n} for n in range(5)), {"x": 5, "id": "five"}, {"x": 6, "id": 6})

    totals = run(a_job({"keep": ["id"], "sink": TABLE, "dead_letter": DEAD}, database=tmp_path / "sink.db"))

    assert [row[0] for row in rows_in(tmp_path / "sink.db", "select id from predictions")] == [0, 1, 2, 3, 4, 6]
    assert "Field 'id' does not fit its column of type int64" in broker.topics["failed"][0].headers["bettong-error"]
    assert totals["dead_lettered"] == 1
