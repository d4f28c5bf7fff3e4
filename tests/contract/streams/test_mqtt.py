"""What MQTT has of its own: places that a broker keeps, topics that keep nothing, filters, and who may do what."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from certificates import NAME, Authority
from contract.drivers.cases import new_calls
from contract.streams.conftest import mqtt_as_broker
from contract.streams.kit import Broker, all_below, at_least, numbered, numbers, opened, take, until
from paho.mqtt import publish
from services.mosquitto import GUEST, GUEST_PASSWORD, PASSWORD, USER, Mosquitto, running_mosquitto
from services.running import free_port

from bettong.domain.drivers import Message, ReadRequest, Stage
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]

AS_GUEST = {"user": GUEST, "password": GUEST_PASSWORD}


def sent_without_acknowledgement(server: Mosquitto, topic: str, value: bytes) -> None:
    login: Any = {"username": USER, "password": PASSWORD}
    publish.single(topic, value, qos=0, port=server.port, hostname="127.0.0.1", auth=login)


# --- groups ---------------------------------------------------------------------------------------------------------


def test_each_group_gets_what_comes_after_its_first_consumer(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic(groups=("early",))
    with mqtt_broker.open() as source, mqtt_broker.open() as another:
        source.produce(topic, numbered(5))
        assert list(source.consume(topic, "late", max_messages=9, wait_s=0.2)) == []
        source.produce(topic, numbered(5, start=5))

        assert numbers(take(source, topic, "late", at_least(5))) == [5, 6, 7, 8, 9]
        assert numbers(take(another, topic, "early", at_least(10))) == list(range(10))


def test_a_new_group_gets_what_is_retained_once_unless_it_starts_at_the_latest(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open(retain=True) as source:
        source.produce(f"{topic}/a", numbered(3))
        source.produce(f"{topic}/b", numbered(1, start=7))

    with mqtt_broker.open() as source:
        assert sorted(numbers(take(source, f"{topic}/+", "earliest", at_least(2)))) == [2, 7]
    with mqtt_broker.open() as source:
        assert list(source.consume(f"{topic}/+", "earliest", max_messages=9, wait_s=0.5)) == []
    with mqtt_broker.open(start="latest") as source:
        assert list(source.consume(f"{topic}/+", "latest", max_messages=9, wait_s=0.5)) == []


def test_what_comes_again_has_its_position_and_is_told_from_what_is_new(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open() as source:
        source.produce(topic, [Message(b"same")] * 3)
        first = take(source, topic, topic, at_least(3), commit=False)
        source.commit(first[:1])
    with mqtt_broker.open() as source:
        again = take(source, topic, topic, at_least(2), commit=False)
        source.produce(topic, [Message(b"same")])
        later = take(source, topic, topic, at_least(1), commit=False)

    assert [message.position for message in again] == [message.position for message in first[1:]]
    assert not any(message.new for message in again)
    assert later[0].new
    assert len({message.position for message in first + later}) == 4


def test_what_is_committed_behind_a_gap_waits_for_it(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open() as source:
        source.produce(topic, numbered(6))
        got = take(source, topic, topic, at_least(6), commit=False)
        source.commit(got[3:])
        source.commit(got[:2])

    with mqtt_broker.open() as source:
        assert numbers(take(source, topic, topic, at_least(4))) == [2, 3, 4, 5]


def test_no_more_than_asked_for_is_on_its_way_to_a_consumer(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open(prefetch=3) as source:
        source.produce(topic, numbered(10))
        held = take(source, topic, topic, at_least(3), commit=False)
        assert list(source.consume(topic, topic, max_messages=9, wait_s=0.3)) == []
        source.commit(held)

        assert numbers(held + take(source, topic, topic, at_least(7))) == list(range(10))


def test_a_filter_of_topics_is_consumed_and_each_message_says_where_it_was_sent(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open() as source:
        source.consume(f"{topic}/+/t", "g", max_messages=1, wait_s=0)
        source.produce(f"{topic}/hall/t", numbered(1))
        source.produce(f"{topic}/hall/other", numbered(1, start=1))
        source.produce(f"{topic}/roof/t", numbered(1, start=2))

        got = take(source, f"{topic}/+/t", "g", at_least(2))

    assert [message.position.partition("@")[0] for message in got] == [f"{topic}/hall/t", f"{topic}/roof/t"]


def test_what_is_sent_without_acknowledgement_reaches_a_consumer_that_is_there(
    mqtt_broker: Broker, mosquitto: Mosquitto
) -> None:
    topic = mqtt_broker.topic()
    sent_without_acknowledgement(mosquitto, topic, b"1")
    with mqtt_broker.open() as source:
        source.consume(topic, topic, max_messages=1, wait_s=0)
        sent_without_acknowledgement(mosquitto, topic, b"2")
        got = take(source, topic, topic, at_least(1))

    assert numbers(got) == [2]
    assert got[0].new


def test_a_consumer_whose_place_another_one_took_is_told_so(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open() as first:
        first.produce(topic, numbered(4))
        got = take(first, topic, topic, at_least(4), commit=False)
        with mqtt_broker.open() as second:
            assert numbers(take(second, topic, topic, at_least(4))) == [0, 1, 2, 3]
            calls: list[Callable[[], object]] = [
                lambda: first.consume(topic, topic, max_messages=1, wait_s=1.0),
                lambda: first.commit(got),
            ]
            for call in calls:
                with pytest.raises((Unavailable, BadInput), match=r"another .*place") as told:
                    call()
                assert "group" in told.value.next_step


def test_members_that_share_have_places_of_their_own(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open(**mqtt_broker.member(1)) as one, mqtt_broker.open(**mqtt_broker.member(2)) as other:
        for source in (one, other):
            source.consume(topic, topic, max_messages=1, wait_s=0)
        one.produce(topic, numbered(20))
        held = take(one, topic, topic, at_least(1), commit=False)
        taken = numbers(take(other, topic, topic, at_least(1)))

    with mqtt_broker.open(**mqtt_broker.member(1)) as one:
        again = numbers(take(one, topic, topic, lambda got: set(numbers(held)) <= set(numbers(got))))
        with mqtt_broker.open(**mqtt_broker.member(2)) as other:
            until(lambda: set(range(20)) <= {*more(other, topic, taken), *more(one, topic, again)})

    assert not set(again) & set(taken)


def more(source: Any, topic: str, so_far: list[int]) -> list[int]:
    found = source.consume(topic, topic, max_messages=9, wait_s=0.2)
    source.commit(found)
    so_far += numbers(found)
    return so_far


# --- reading and browsing -------------------------------------------------------------------------------------------


def test_reading_shows_what_is_retained_and_then_what_comes_within_the_time(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open(retain=True) as source:
        source.produce(f"{topic}/kept", [Message(b"old", b"k", headers={"a": "b"})])
    with mqtt_broker.open(listen_s=10) as source:
        reading: list[dict[str, Any]] = []
        thread = threading.Thread(
            target=lambda: reading.extend(source.read(ReadRequest(f"{topic}/#", limit=2)).read_all().to_pylist())
        )
        thread.start()
        with mqtt_broker.open() as producer:
            while thread.is_alive():  # it ends with the second one
                producer.produce(f"{topic}/live", numbered(1))
        thread.join()

    old, live = reading
    assert (old["position"], old["value"], old["key"], old["headers"]) == (f"{topic}/kept", "old", "k", '{"a":"b"}')
    assert (old["time"], live["value"]) == (None, "0")
    assert abs(live["time"].timestamp() - time.time()) < 60


def test_reading_ends_when_nothing_comes_and_wants_a_limit(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    began = time.monotonic()

    with new_calls().read("MQTT", mqtt_broker.details, ReadRequest(topic, limit=5), 30.0) as reader:
        rows = reader.read_all()

    assert rows.num_rows == 0
    assert time.monotonic() - began < 15
    with mqtt_broker.open() as source:
        assert source.read(ReadRequest(topic, limit=0)).read_all().num_rows == 0
        with pytest.raises(BadInput, match="keeps no messages that could be read back"):
            source.read(ReadRequest(topic))


def test_browsing_lists_topics_that_retain_a_message_or_have_one_meanwhile(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open(retain=True) as source:
        source.produce(f"{topic}/b", numbered(1))
        source.produce(f"{topic}/a/c", numbered(1))

        assert [(e.name, e.kind, e.detail) for e in source.browse(topic)] == [
            (f"{topic}/a/c", "topic", "retained"),
            (f"{topic}/b", "topic", "retained"),
        ]
        assert source.browse(f"{topic}/none") == []

    names: set[str] = set()
    with mqtt_broker.open(listen_s=5) as source:
        thread = threading.Thread(target=lambda: names.update(entry.name for entry in source.browse("")))
        thread.start()
        with mqtt_broker.open() as producer:
            while thread.is_alive():
                producer.produce(f"{topic}/live", numbered(1))
                thread.join(0.1)
    assert {f"{topic}/a/c", f"{topic}/b", f"{topic}/live"} <= names
    assert not any(name.startswith("$SYS") for name in names)


def test_a_report_says_that_nothing_can_be_said_of_a_topic_but_who_may_subscribe(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open(retain=True) as source:
        source.produce(topic, numbered(2))

    report = new_calls().test("MQTT", {**mqtt_broker.details, "topic": topic}, 30.0)

    assert report.ok, report
    assert [result.stage for result in report.stages] == list(Stage)
    assert "may subscribe" in report.stages[-2].said
    assert "1 message" in report.stages[-1].said


# --- producing, and what is refused ---------------------------------------------------------------------------------


def test_a_message_that_nobody_hears_is_refused_where_that_is_wanted(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open() as source:
        source.produce(f"{topic}/nobody", numbered(1))
    with mqtt_broker.open(unheard="refuse") as source:
        source.produce(topic, numbered(1))
        with pytest.raises(BadInput, match="Nobody is subscribed"):
            source.produce(f"{topic}/nobody", numbered(1))


def test_a_user_who_may_not_write_is_told_so_and_what_may_not_be_read_does_not_come(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open(**AS_GUEST) as guest, mqtt_broker.open() as source:
        for name in (topic, f"open/{topic}"):
            guest.consume(name, "guests", max_messages=1, wait_s=0)
            source.produce(name, numbered(1))

        assert numbers(take(guest, f"open/{topic}", "guests", at_least(1))) == [0]
        assert list(guest.consume(topic, "guests", max_messages=1, wait_s=0.3)) == []
        with pytest.raises(BadInput, match="may not do that") as refused:
            guest.produce(topic, numbered(3))

    assert GUEST not in str(refused.value)


@pytest.mark.parametrize("topic", ["", "a/#/b", "a#", "a/b+", "a\0b", "\ud800", "a" * 65_536])
def test_what_is_no_filter_is_refused(topic: str, mqtt_broker: Broker) -> None:
    with mqtt_broker.open() as source:
        with pytest.raises(BadInput, match="no topic or filter"):
            source.consume(topic, "g", max_messages=1, wait_s=0)
        with pytest.raises(BadInput, match="no name of a topic"):
            source.produce(topic, numbered(1))


def test_filters_are_not_produced_to(mqtt_broker: Broker) -> None:
    with mqtt_broker.open() as source:
        for topic in ("a/+", "#"):
            with pytest.raises(BadInput, match="no name of a topic"):
                source.produce(topic, numbered(1))


def test_what_a_header_cannot_hold_is_refused_or_escaped(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    with mqtt_broker.open() as source:
        for text in ("a\0b", "a\nb", "a\x85b", "\ufffe", "\ufdd0", "a" * 70_000, "\ud800"):
            with pytest.raises(BadInput, match="A header of a message"):
                source.produce(topic, [Message(b"v", headers={"a": text})])
        source.produce(topic, [Message(b"", b"\r\n: \x00\xff", headers={"a": "ü☕", "": ""})])

        got = take(source, topic, topic, at_least(1))

    assert (got[0].value, got[0].key, got[0].headers) == (b"", b"\r\n: \x00\xff", {"a": "ü☕", "": ""})


def test_a_message_that_is_too_long_for_the_broker_is_refused_before_it_is_sent() -> None:
    with running_mosquitto(None, 0, "max_packet_size 1000") as server, opened("MQTT", server.details) as source:
        source.produce("t", [Message(b"x" * 900)])
        with pytest.raises(BadInput, match="longer than this broker of MQTT takes"):
            source.produce("t", [Message(b"x" * 1_000)])
        source.produce("t", [Message(b"and goes on")])


# --- brokers that die -----------------------------------------------------------------------------------------------


def test_over_a_killed_broker_that_writes_what_it_has_nothing_is_lost(tmp_path: Path) -> None:
    port, writing = free_port(), ("autosave_on_changes true", "autosave_interval 1")
    with running_mosquitto(tmp_path, port, *writing) as server:
        broker = mqtt_as_broker(server)
        topic = broker.topic()
        with broker.open() as source:
            source.produce(topic, numbered(400))
            took = numbers(take(source, topic, topic, at_least(150), size=50))
            server.kill()

    with running_mosquitto(tmp_path, port, *writing), broker.open() as source:
        again = numbers(take(source, topic, topic, all_below(400, len(took))))

    assert set(took) | set(again) == set(range(400))
    assert len(set(again) & set(took)) <= 50  # what was committed last may not have been written yet


# --- logging in -----------------------------------------------------------------------------------------------------


def test_a_name_is_looked_up_once_and_every_connection_goes_where_that_led(
    mosquitto: Mosquitto, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    ask = socket.getaddrinfo

    def answer(host: str, *more: Any, **named: Any) -> Any:
        if host != "broker.example":
            return ask(host, *more, **named)
        asked.append(host)
        return ask("127.0.0.1", *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", answer)
    with opened("MQTT", {**mosquitto.details, "host": "broker.example", "listen_s": 0.1}) as source:
        source.consume("pinned", "g", max_messages=1, wait_s=0)
        source.produce("pinned", numbered(1))
        source.browse("")
        assert numbers(take(source, "pinned", "g", at_least(1))) == [0]

    assert len(asked) == 1


@contextmanager
def answering(data: bytes) -> Iterator[int]:
    """A server that answers the first bytes of whoever comes with these; its port."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=answer, args=(listening.accept()[0],), daemon=True).start()

    def answer(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            connection.recv(1_000)
            connection.sendall(data)
            while data.startswith(b"\x20") and connection.recv(1_000):  # stay until the other side has enough
                pass

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize(
    ("data", "kind", "said"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", Unavailable, "takes no connection as MQTT does"),
        (b"", Unavailable, "takes no connection as MQTT does"),
        (b"\x20\x02\x00\x01", BadInput, "does not speak MQTT 5"),
        (b"\x20\x03\x00\x84\x00", BadInput, "does not speak MQTT 5"),
        (b"\x20\x03\x00\x86\x00", BadInput, "refused the login"),
        (b"\x20\x03\x00\x89\x00", Unavailable, "is busy"),
        (b"\x20\x03\x00\xff\x00", Unavailable, "takes no connection as MQTT does"),
        (b"\x20\x05\x00\x00\x02\x24\x00", BadInput, "acknowledges no messages"),
    ],
)
def test_whoever_answers_otherwise_is_told_by_what_it_said(data: bytes, kind: type[Exception], said: str) -> None:
    with (
        answering(data) as port,
        pytest.raises(kind, match=said),
        opened("MQTT", {"host": "127.0.0.1", "port": port}),
    ):
        pass


WELCOME = b"\x20\x03\x00\x00\x00"


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (WELCOME + b"\x90\x04\x00\x01\x00\x87", "may not do that"),
        (WELCOME + b"\x90\x04\x00\x01\x00\x9e", "no shared subscriptions"),
        (WELCOME + b"\x90\x04\x00\x01\x00\x80", r"reason 0x80"),
        (WELCOME + b"\x90\x04\x00\x01\x00\x00", "without acknowledgement"),
        (WELCOME + b"\xe0\x01\x8e", "Another consumer has taken this one's place"),
        (b"\x20\x08\x00\x00\x05\x11\x00\x00\x00\x00", "keeps nothing for clients that are away"),
    ],
)
def test_a_broker_that_does_not_let_a_group_in_is_told_by_what_it_said(data: bytes, said: str) -> None:
    with (
        answering(data) as port,
        opened("MQTT", {"host": "127.0.0.1", "port": port}) as source,
        pytest.raises(BadInput, match=said),
    ):
        source.consume("t", "g", max_messages=1, wait_s=0)


@pytest.mark.parametrize("given", ["both", "none", "another's"])
def test_a_broker_that_wants_a_certificate_of_ours_gets_it(given: str, tmp_path: Path) -> None:
    authority = Authority()
    certificate, key = map(str, authority.sign().write(tmp_path))
    (tmp_path / "ca.pem").write_text(authority.pem)
    lines = (f"cafile {tmp_path / 'ca.pem'}", f"certfile {certificate}", f"keyfile {key}", "require_certificate true")
    ours = (Authority("another") if given == "another's" else authority).sign("client")
    more = {"ssl_certificate": ours.certificate.decode(), "ssl_key": ours.key.decode()} if given != "none" else {}
    with running_mosquitto(None, 0, *lines) as server:
        details = {**server.details, "host": NAME, "ssl": "verify", "ssl_ca": authority.pem, **more}
        report = new_calls().test("MQTT", details, 20.0)

    if given == "both":
        assert report.ok, report
    else:
        assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
        assert "whether it wants a certificate" in report.stages[-1].next_step
    assert "PRIVATE KEY" not in repr(report)


def test_leaving_ends_every_thread_and_connection(mqtt_broker: Broker) -> None:
    topic = mqtt_broker.topic()
    before = psutil.Process().net_connections()
    with mqtt_broker.open() as source:
        source.consume(topic, topic, max_messages=1, wait_s=0)
    until(lambda: not [thread for thread in threading.enumerate() if "paho" in thread.name])
    assert not set(psutil.Process().net_connections()) - set(before)


def test_a_broker_that_stands_still_is_told_and_left_in_time() -> None:
    with running_mosquitto() as server:
        broker = mqtt_as_broker(server)
        topic = broker.topic()
        with broker.open(redeliver_after_s=1.5) as source:
            source.produce(topic, numbered(5))
            got = take(source, topic, topic, at_least(5), commit=False)
            with server.suspended():
                with pytest.raises(Unavailable):
                    source.commit(got)
                until(lambda: away(lambda: source.consume(topic, topic, max_messages=5, wait_s=1.0)))
                with pytest.raises(Unavailable):
                    source.produce(topic, numbered(1))
                began = time.monotonic()
                source.close()
                assert time.monotonic() - began < 10

        with broker.open() as source:
            source.produce(topic, numbered(1, start=9))
            take(source, topic, topic, lambda got: 9 in numbers(got))  # what was on its way to the broker may count


def away(call: Callable[[], object]) -> bool:
    try:
        call()
    except Unavailable:
        return True
    return False
