"""What may be asked of a stream inference, and what is said of the rest."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest

from bettong.domain.batch_requests import Columns
from bettong.domain.drivers import Capability, WriteMode
from bettong.domain.stream_requests import StreamRequest, TableEnd, TopicEnd, parse, settled, table_columns
from bettong.errors import BadInput

_GIVES: dict[str, pa.DataType] = {
    "time": pa.timestamp("ms"),
    "in.x": pa.float32(),
    "out.y": pa.float32(),
    "anomaly.count": pa.uint32(),
    "anomaly.high": pa.bool_(),
    "out_m.y": pa.float32(),
    "metadata.partition": pa.string(),
}
COLUMNS = Columns(pa.schema({"x": pa.float32()}), ("user",), pa.schema(_GIVES), by_request=True)


def asked(**changes: Any) -> dict[str, Any]:
    return {
        "pipeline_id": 3,
        "pipeline_version": "v-1",
        "source": {"connection_id": "c1", "topic": "orders"},
        "sink": {"connection_id": "c1", "topic": "predictions"},
        **changes,
    }


def test_what_a_job_keeps_says_the_same_again() -> None:
    whole = parse(
        asked(
            source={"connection_id": "c1", "topic": "orders", "group": "g"},
            sink={"connection_id": "c2", "table": "answers", "mode": "upsert"},
            dead_letter={"connection_id": "c3", "topic": "failed"},
            keep=["id"],
            max_messages=7,
            wait_s=0.25,
            max_rejects=0,
            stop_when_idle_s=9,
        ),
        COLUMNS,
    )

    again = StreamRequest.from_document(whole.to_document())

    assert again == whole
    assert again.sink == TableEnd("c2", "answers", WriteMode.UPSERT)
    assert again.dead_letter == TopicEnd("c3", "failed")


def test_a_group_that_is_not_named_has_the_name_that_was_given_for_it() -> None:
    assert parse(asked(), COLUMNS, "bettong-5-prices").group == "bettong-5-prices"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"source": None}, "'source' is no object"),
        ({"source": {"connection_id": "c1"}}, r"'source\.topic' is no text"),
        ({"sink": {"connection_id": "c1", "topic": " "}}, r"'sink\.topic' is no text, or an empty one"),
        ({"sink": {"connection_id": "c1"}}, "names a topic or a table, one of them"),
        ({"sink": {"connection_id": "c1", "topic": "a", "table": "b"}}, "names a topic or a table, one of them"),
        ({"sink": {"connection_id": "c1", "table": "b", "mode": "replace"}}, "mode is none that a stream has"),
        (
            {"sink": {"connection_id": "c1", "topic": "answers", "mode": "upsert"}},
            r"The sink is a topic, which has no mode: messages are only ever added to it\. Leave mode out",
        ),
        ({"sink": {"connection_id": "c1", "topic": "orders"}}, "sink is the source's own topic 'orders'"),
        ({"dead_letter": {"connection_id": "c1", "topic": "orders"}}, "dead_letter is the source's own topic"),
        ({"keep": "id"}, "'keep' is no list of names"),
        ({"keep": ["id", "id"]}, "names a field twice"),
        ({"keep": ["out"]}, r"names \['out'\], which a prediction has of its own"),
        ({"max_messages": 0}, "'max_messages' is no whole number from 1 to 1000"),
        ({"max_messages": True}, "'max_messages' is no whole number"),
        ({"max_rejects": -1}, "'max_rejects' is no whole number"),
        ({"wait_s": 60}, "'wait_s' is no number of seconds up to 5"),
        ({"stop_when_idle_s": float("nan")}, "'stop_when_idle_s' is no number of seconds"),
        ({"sink": {"connection_id": "c1", "table": "t"}, "keep": ["y"]}, r"would keep \['y'\]"),
    ],
)
def test_what_is_none_is_named(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(BadInput, match=words) as told:
        parse(asked(**changes), COLUMNS, "g")

    assert told.value.next_step


def test_a_topic_may_be_appended_to_in_so_many_words() -> None:
    sink = parse(asked(sink={"connection_id": "c2", "topic": "answers", "mode": "append"}), COLUMNS, "g").sink

    assert sink == TopicEnd("c2", "answers")


def test_a_topic_of_the_same_name_at_another_broker_is_another_one() -> None:
    parse(asked(sink={"connection_id": "c2", "topic": "orders"}), COLUMNS, "g")


def test_a_name_is_a_topic_where_the_sink_takes_messages_and_a_table_elsewhere() -> None:
    into = asked(sink={"connection_id": "c1", "into": "answers"})

    assert settled(into, {Capability.PRODUCE, Capability.WRITE})["sink"] == {"connection_id": "c1", "topic": "answers"}
    assert settled(into, {Capability.TRANSACTION})["sink"] == {"connection_id": "c1", "table": "answers"}


def test_outputs_are_columns_under_their_own_names_and_those_of_other_models_with_theirs() -> None:
    assert table_columns(list(_GIVES)) == {
        "out.y": "y",
        "out_m.y": "m_y",
        "anomaly.count": "anomaly_count",
        "anomaly.high": "anomaly_high",
        "time": "time",
    }


def test_two_outputs_that_would_be_one_column_are_named() -> None:
    gives = pa.schema([pa.field(name, pa.float32()) for name in ("out.m_y", "out_m.y")])

    with pytest.raises(BadInput, match=r"gives \['m_y'\] more than once"):
        parse(asked(sink={"connection_id": "c2", "table": "t"}), Columns(COLUMNS.takes, (), gives), "g")
    parse(asked(), Columns(COLUMNS.takes, (), gives), "g")


def test_what_holds_is_said_in_words() -> None:
    topic = parse(asked(), COLUMNS, "g")
    table = parse(asked(sink={"connection_id": "c2", "table": "t"}), COLUMNS, "g")

    assert topic.guarantee.startswith("at least once")
    assert table.guarantee.startswith("exactly once")
