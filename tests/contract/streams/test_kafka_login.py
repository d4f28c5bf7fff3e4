"""KAFKA: a good login, by every mechanism, in the clear and over TLS; and brokers that may not be believed."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from certificates import NAME, Authority
from confluent_kafka.admin import AdminClient, NewTopic
from contract.drivers.cases import new_calls
from contract.streams.kit import Broker, at_least, numbered, numbers, take
from services.kafka import running_kafka
from services.kafka_login import MECHANISMS, PASSWORD, USER, Login, login_in_front
from services.running import free_port

from bettong.domain.drivers import ReadRequest, Stage
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.service, pytest.mark.timeout(180)]
SCRAM = [mechanism for mechanism in MECHANISMS if mechanism != "PLAIN"]


@dataclass(frozen=True)
class Guarded:
    """A broker behind a login, and a good login's details."""

    broker: Broker
    login: Login

    def report(self, **changes: Any) -> Any:
        return new_calls().test("KAFKA", {**self.broker.details, **changes}, 10.0)


@contextmanager
def guarded(folder: Any = None) -> Iterator[Guarded]:
    """With a `folder` it speaks TLS, by a certificate whose files lie there."""
    port, authority = free_port(), Authority()
    context = None if folder is None else authority.sign(NAME).context(folder)
    name = "127.0.0.1" if folder is None else NAME
    with running_kafka(advertised=name, front=port) as kafka, login_in_front(port, kafka.port, context) as login:
        tls = {} if folder is None else {"ssl": "verify", "ssl_ca": authority.pem}
        details = {"servers": f"{name}:{port}", "user": USER, "password": PASSWORD, "redeliver_after_s": 6, **tls}
        logged_in = {"sasl.mechanism": "PLAIN", "sasl.username": USER, "sasl.password": PASSWORD, "log_level": 0}
        secure = {"security.protocol": "sasl_ssl", "ssl.ca.pem": authority.pem} if folder else {}
        admin = AdminClient(
            {"bootstrap.servers": f"{name}:{port}", "security.protocol": "sasl_plaintext", **logged_in, **secure}
        )
        yield Guarded(
            Broker("KAFKA", details, lambda topic, n: admin.create_topics([NewTopic(topic, n, 1)])[topic].result(30)),
            login,
        )


@pytest.fixture(scope="module")
def in_the_clear() -> Iterator[Guarded]:
    with guarded() as found:
        yield found


@pytest.fixture(scope="module")
def over_tls(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    with guarded(tmp_path_factory.mktemp("kafka")) as found:
        yield found


@pytest.fixture(params=["in_the_clear", "over_tls"])
def place(request: pytest.FixtureRequest) -> Guarded:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Guarded)
    return found


@pytest.mark.parametrize("mechanism", MECHANISMS)
def test_a_login_opens_all_that_a_stream_does(place: Guarded, mechanism: str) -> None:
    before = place.login.let_in
    with place.broker.open(sasl=mechanism) as source:
        topic = "by_" + mechanism.lower()
        place.broker.make(topic, 1)
        source.produce(topic, numbered(5))

        assert numbers(take(source, topic, topic, at_least(5))) == [0, 1, 2, 3, 4]
        assert source.read(ReadRequest(topic)).read_all().num_rows == 5
        assert source.lag(topic, topic) == 0

    assert place.login.let_in > before
    report = place.report(sasl=mechanism, topic=topic)
    assert report.ok, report


@pytest.mark.parametrize("mechanism", MECHANISMS)
@pytest.mark.parametrize("wrong", [{"password": "wrong but secret"}, {"user": "somebody"}], ids=["password", "user"])
def test_a_wrong_login_is_told_as_such(place: Guarded, mechanism: str, wrong: dict[str, str]) -> None:
    with pytest.raises(BadInput, match="login"), place.broker.open(sasl=mechanism, **wrong):
        pass

    report = place.report(sasl=mechanism, **wrong)
    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
    assert "wrong but secret" not in repr(report)
    assert PASSWORD not in repr(report)


@pytest.mark.parametrize("mechanism", SCRAM)
def test_a_broker_that_does_not_know_the_password_is_not_believed(in_the_clear: Guarded, mechanism: str) -> None:
    in_the_clear.login.knows = False
    try:
        with pytest.raises(BadInput, match="login"), in_the_clear.broker.open(sasl=mechanism):
            pass
    finally:
        in_the_clear.login.knows = True


def test_a_mechanism_that_the_broker_does_not_have_is_told_at_the_login(in_the_clear: Guarded) -> None:
    in_the_clear.login.mechanisms = ("SCRAM-SHA-512",)
    try:
        report = in_the_clear.report(sasl="PLAIN")
    finally:
        in_the_clear.login.mechanisms = tuple(MECHANISMS)

    assert (report.stages[-1].stage, report.stages[-1].ok) == (Stage.LOGIN, False)
    assert "refused the login" in report.stages[-1].said


@pytest.mark.parametrize("mechanism", SCRAM)
def test_by_scram_the_password_never_goes_over(in_the_clear: Guarded, mechanism: str) -> None:
    in_the_clear.login.heard.clear()
    with in_the_clear.broker.open(sasl=mechanism):
        pass

    assert b"SCRAM" in in_the_clear.login.heard
    assert PASSWORD.encode() not in in_the_clear.login.heard
