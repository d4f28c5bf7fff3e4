"""A connection of MQTT 5 that plain code can use: paho's loop runs in a thread, every call has a deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from bettong.drivers import egress as reach
from bettong.drivers import sql_errors, web
from bettong.errors import BadInput, BettongError, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable, Sequence

KIND = "MQTT"
LOOSE_BYTES = 64 * 2**20  # of messages without acknowledgement, which nothing holds back, that wait to be taken
NOBODY_LISTENS = 0x10  # what a broker answers, as a success, about a message that it gave to nobody
_TAKEN_OVER = 0x8E
_REFUSED = 0x80  # reason codes from here on
_GOODBYE_S = 1.0
_MOST_NUMBERS = 65_535  # of packets that wait for their answers
_NEVER_SUBSCRIBED = "bettong/nothing"  # asking to end this one is a question that changes nothing


@dataclass(frozen=True, slots=True)
class Way:
    """How to get to a broker, and as whom."""

    target: reach.Target
    tls: ssl.SSLContext | None
    user: str
    password: str = field(repr=False)
    keepalive_s: int
    timeout_s: float


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as it came. `packet` is the number that it keeps when it comes again; None when it never does."""

    topic: str
    value: bytes
    properties: tuple[tuple[str, str], ...]
    packet: int | None
    again: bool
    retained: bool
    at_ms: int


class MqttConnection:
    """Connected from the start, once: it never connects anew, so it never goes where a broker sends it. What it meets
    is told in our words. Close it.

    Args:
        kept_s: how long the broker keeps the subscriptions of this client, and what comes for them, while it is away.
        window: how many messages the broker may send that are not acknowledged.
    """

    def __init__(self, way: Way, client_id: str, *, kept_s: int = 0, window: int = 1_000) -> None:
        """
        Raises:
            BadInput: the login is refused, or the broker is none of MQTT 5.
            Unavailable: no answer, or no TLS.
        """
        self._way = way
        self._changed = threading.Condition()
        self._greeting: tuple[int, Any] | None = None  # reason code and properties of the answer to the connect
        self._gone: int | None = None  # why the connection ended, as a reason code
        self._answers: dict[tuple[str, int], list[int]] = {}  # kind and number of a packet -> reason codes
        self._arrived: deque[Arrived] = deque()
        self._loose_bytes = 0
        self._at_once = 1  # messages on their way to the broker
        self._unacknowledged: dict[int, bool] = {}  # packets as they came -> whether the work on them is done
        self._client = _client(way, client_id)
        self._client.on_connect = self._on_connect
        self._client.on_disconnect = self._on_disconnect
        self._client.on_message = self._on_message
        self._client.on_publish = lambda _c, _u, mid, code, _p: self._answered("publish", mid, [code])
        self._client.on_subscribe = lambda _c, _u, mid, codes, _p: self._answered("subscribe", mid, codes)
        self._client.on_unsubscribe = lambda _c, _u, mid, codes, _p: self._answered("unsubscribe", mid, codes)
        try:
            self._connect(kept_s, window)
        except BaseException:
            self.close()
            raise

    def subscribe(self, topics: str, *, acknowledged: bool, retained: bool) -> None:
        """Have messages come that fit `topics`; `retained` ones only to a subscription that is new.

        Raises:
            BadInput: the broker does not let this login, or does not know such a subscription.
        """
        from paho.mqtt.subscribeoptions import SubscribeOptions

        how = SubscribeOptions(
            qos=int(acknowledged),
            retainHandling=SubscribeOptions.RETAIN_SEND_IF_NEW_SUB if retained else SubscribeOptions.RETAIN_DO_NOT_SEND,
        )
        self.check()
        _, mid = self._client.subscribe(topics, options=how)
        code = self._answer("subscribe", mid)[0]
        if code >= _REFUSED:
            raise _refusal(code)
        if code < int(acknowledged):
            raise BadInput("This broker of MQTT sends these topics without acknowledgement.", "Look at its settings.")

    def settle(self) -> None:
        """Return when the broker has worked on everything that was sent before."""
        self.check()
        _, mid = self._client.unsubscribe(_NEVER_SUBSCRIBED)
        self._answer("unsubscribe", mid)
        # Brokers that bundle what they send would hold the next message back until they hear that we have this answer.
        if hasattr(socket, "TCP_QUICKACK") and (sock := self._client.socket()) is not None:
            with suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    def take(self, most: int, wait_s: float) -> list[Arrived]:
        """What has come, at most `most`; waits for the first alone.

        Raises:
            BadInput: another client has this one's place.
            Unavailable: nothing is there, and the connection is gone.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._arrived or self._gone is not None, max(0.0, wait_s))
            if not self._arrived:
                self._check()
            found = [self._arrived.popleft() for _ in range(min(most, len(self._arrived)))]
            self._loose_bytes -= sum(len(each.value) for each in found if each.packet is None)
        return found

    def acknowledge(self, packets: Iterable[int]) -> None:
        """The work on these is done: the broker knows when this returns. It wants to hear so in the order in which they
        came, so what comes behind a message that is still worked on waits for it. Raises as `take` does."""
        with self._changed:
            self._check()
            for packet in packets:
                self._unacknowledged[packet] = True
            ready = []
            for packet, done in self._unacknowledged.items():
                if not done:
                    break
                ready.append(packet)
            for packet in ready:
                del self._unacknowledged[packet]
        for packet in ready:
            self._client.ack(packet, 1)
        self.settle()

    def publish(self, topic: str, messages: Sequence[tuple[bytes, Any]], *, retain: bool) -> list[int]:
        """Values with their properties. The broker has all of them when this returns, unless a refusal is among its
        reason codes, which come in the order of the messages."""
        codes, under_way = list[int](), deque[int]()
        try:
            for value, more in messages:
                if len(under_way) >= self._at_once:
                    codes += self._answer("publish", under_way.popleft())
                self.check()
                under_way.append(self._client.publish(topic, value, 1, retain, more).mid)
            while under_way:
                codes += self._answer("publish", under_way.popleft())
        except Unavailable:
            if not any(code >= _REFUSED for code in codes):  # some brokers hang up on whoever they refuse something
                raise
        return codes

    def check(self) -> None:
        """Raises when the connection is gone."""
        with self._changed:
            self._check()

    @property
    def kept_s(self) -> int | None:
        """How long the broker says it keeps what comes for this client; None when it is as long as was asked for."""
        return self._told("SessionExpiryInterval")

    @property
    def most_bytes(self) -> int | None:
        """How long a packet may be that the broker takes; None when it does not say."""
        return self._told("MaximumPacketSize")

    def close(self) -> None:
        """End the connection, whatever state it is in, and the thread. What is not acknowledged comes again."""
        if self._client is None:
            return
        if (sock := self._client.socket()) is not None:
            self._client.disconnect()
        with self._changed:
            if sock is not None:
                self._changed.wait_for(lambda: self._gone is not None, _GOODBYE_S)
            self._gone = self._gone or 0  # whoever comes later is told
        if sock is not None:
            with suppress(OSError):  # closed, as a rule
                sock.shutdown(socket.SHUT_RDWR)
        self._client.loop_stop()
        # paho closes the sockets that it wakes itself with when nothing knows it any more.
        for name in ("connect", "disconnect", "message", "publish", "subscribe", "unsubscribe"):
            setattr(self._client, f"on_{name}", None)
        self._client = None

    # --- towards the broker -----------------------------------------------------------------------------------------

    def _connect(self, kept_s: int, window: int) -> None:
        from paho.mqtt.packettypes import PacketTypes
        from paho.mqtt.properties import Properties

        more = Properties(PacketTypes.CONNECT)
        more.SessionExpiryInterval, more.ReceiveMaximum = kept_s, window
        target = self._way.target
        self._client.connect(target.host, target.port, self._way.keepalive_s, clean_start=not kept_s, properties=more)
        self._client.loop_start()
        with self._changed:
            self._changed.wait_for(lambda: self._greeting or self._gone is not None, self._way.timeout_s)
            greeting, gone = self._greeting, self._gone
        if greeting is None and gone is None:
            raise Unavailable(f"'{target.host}' did not answer as MQTT does in time.", "Check host and port.")
        if greeting is None:
            wanted = (
                ", or whether it wants a certificate of the client's" if self._way.tls else ", or whether it wants TLS"
            )
            raise Unavailable(
                f"'{target.host}' takes no connection as MQTT does.", f"Check host and port, that it runs{wanted}."
            )
        if greeting[0] >= _REFUSED:
            raise _refusal(greeting[0], logging_in=True)
        if self._told("MaximumQoS") == 0:
            raise BadInput("This broker of MQTT acknowledges no messages.", "Use one that has QoS 1.")
        self._at_once = self._told("ReceiveMaximum") or _MOST_NUMBERS

    def _answer(self, kind: str, number: int) -> list[int]:
        """The reason codes of a packet's answer. Raises DeadlineExceeded when there is none: nothing is known then."""
        with self._changed:
            self._changed.wait_for(
                lambda: (kind, number) in self._answers or self._gone is not None, self._way.timeout_s
            )
            if (kind, number) in self._answers:
                return self._answers.pop((kind, number))
            self._check()
            self._gone = 0  # a later answer would be taken for that of another packet
        raise DeadlineExceeded("The broker of MQTT did not answer in time.", "Try again, or look at that server.")

    def _check(self) -> None:
        if self._gone == _TAKEN_OVER:
            raise BadInput(
                "Another consumer has taken this one's place: a group of MQTT has one at a time.",
                "Name another group, or let several share one: docs/drivers.md, MQTT.",
            )
        if self._gone is not None:
            raise sql_errors.broken(KIND)

    def _told(self, name: str) -> int | None:
        """What the broker said of itself as it let us in."""
        found = getattr(self._greeting[1], name, None) if self._greeting else None
        return None if found is None else int(found)

    # --- from the broker, in paho's thread --------------------------------------------------------------------------

    def _on_connect(self, _client: Any, _user: Any, _flags: Any, code: Any, properties: Any) -> None:
        with self._changed:
            self._greeting = int(code.value), properties
            self._changed.notify_all()

    def _on_disconnect(self, _client: Any, _user: Any, flags: Any, code: Any, _properties: Any) -> None:
        with self._changed:
            if self._gone is None:  # the first reason is the one
                self._gone = int(code.value) if flags.is_disconnect_packet_from_server else 0
            self._changed.notify_all()

    def _answered(self, kind: str, number: int, codes: Iterable[Any]) -> None:
        with self._changed:
            self._answers[(kind, number)] = [int(code.value) for code in codes]
            self._changed.notify_all()

    def _on_message(self, _client: Any, _user: Any, message: Any) -> None:
        arrived = Arrived(
            message.topic,
            bytes(message.payload),
            tuple(getattr(message.properties, "UserProperty", ())),
            message.mid if message.qos else None,
            bool(message.dup),
            bool(message.retain),
            int(time.time() * 1000),
        )
        with self._changed:
            if arrived.packet is not None:
                self._unacknowledged[arrived.packet] = False
            elif self._loose_bytes + len(arrived.value) > LOOSE_BYTES:
                return  # nobody promised that it arrives
            else:
                self._loose_bytes += len(arrived.value)
            self._arrived.append(arrived)
            self._changed.notify_all()


def properties_of(headers: Iterable[tuple[str, str]]) -> Any:
    """Headers as MQTT sends them beside a message."""
    from paho.mqtt.packettypes import PacketTypes
    from paho.mqtt.properties import Properties

    made = Properties(PacketTypes.PUBLISH)
    for pair in headers:
        made.UserProperty = pair
    return made


def refusal_of(codes: Iterable[int]) -> BettongError | None:
    """What the first refused message was refused for; None when none was."""
    return next((_refusal(code) for code in codes if code >= _REFUSED), None)


def _client(way: Way, client_id: str) -> Any:
    """paho's client, whose socket is ours: it goes to the checked addresses alone."""
    from paho.mqtt.client import Client
    from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion

    made: Any = type("Checked", (Client,), {"_create_socket_connection": lambda _: _connected(way)})(
        CallbackAPIVersion.VERSION2,
        client_id=client_id,
        protocol=MQTTProtocolVersion.MQTTv5,
        reconnect_on_failure=False,
        manual_ack=True,
    )
    made.max_inflight_messages_set(0)  # paho does not look at what the broker allows: `publish` does
    if way.user or way.password:
        made.username_pw_set(way.user or None, way.password or None)
    return made


def _connected(way: Way) -> Any:
    sock: Any = reach.connect(way.target, way.timeout_s)
    # A question behind an acknowledgement would wait 40 ms for the other side's kernel otherwise.
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if way.tls is not None:
        sock = web.secured(sock, way.tls, way.target.host, way.timeout_s)
    return sock


_WORDS: dict[int, Callable[[], BettongError]] = {
    0x84: lambda: BadInput("This broker does not speak MQTT 5.", "Use one that does; Mosquitto does from 1.6 on."),
    0x85: lambda: BadInput(
        "The broker of MQTT does not take this client's name.", "Set client_id_prefix to what it lets this user have."
    ),
    0x86: lambda: sql_errors.no_login(KIND),
    0x87: lambda: sql_errors.no_right(KIND),
    0x88: lambda: sql_errors.busy(KIND),
    0x89: lambda: sql_errors.busy(KIND),
    0x8A: lambda: sql_errors.no_login(KIND),
    0x8C: lambda: sql_errors.no_login(KIND),
    0x8F: lambda: BadInput("The broker of MQTT does not take that filter of topics.", "Look at its wildcards."),
    0x90: lambda: BadInput("The broker of MQTT does not take that name of a topic.", "Take another one."),
    0x95: lambda: BadInput("A message is longer than this broker of MQTT takes.", "Send less, or raise its limit."),
    0x97: lambda: Unavailable("The broker of MQTT has no room left for this client.", "Look at its quotas."),
    0x9C: lambda: BadInput("This broker of MQTT sends us to another one.", "Name that one in the details."),
    0x9D: lambda: BadInput("This broker of MQTT has moved.", "Name the new one in the details."),
    0x9E: lambda: BadInput("This broker of MQTT has no shared subscriptions.", "Set shared to false."),
    0x9F: lambda: sql_errors.busy(KIND),
    0xA2: lambda: BadInput("This broker of MQTT knows no wildcards.", "Name one topic."),
}


def _refusal(code: int, *, logging_in: bool = False) -> BettongError:
    if logging_in and code == 0x87:  # what some brokers say of a wrong password
        return sql_errors.no_login(KIND)
    if code in _WORDS:
        return _WORDS[code]()
    return BadInput(
        f"The broker of MQTT refused that (reason 0x{code:02x}).", "Look the reason up in MQTT 5, and at its log."
    )
