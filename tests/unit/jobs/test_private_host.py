"""Asking a job's deployment: what its answers mean, and how patient one is with it."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest
from unit.wallaroo.stub import Asked, Reply, StubPlatform

from bettong.errors import BadInput, BettongError, ModelFailed, TooLarge, Unavailable
from bettong.jobs import private_host
from bettong.jobs.private_host import Address, PrivateHost

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/pipelines/prices"
ROWS = pa.table({"tensor": [[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]})


def answer(asked: Asked) -> Reply:
    """As a replica would, without the inputs: each row's sum."""
    rows = pa.ipc.open_stream(asked.body).read_all()
    tensors: list[Any] = rows.column("tensor").to_pylist()
    sums: list[float] = [sum(row) for row in tensors]
    answers = pa.table({"time": pa.array([0] * len(sums), pa.timestamp("ms")), "out.sum": sums})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, answers.schema) as writer:
        writer.write_table(answers)
    return Reply(bytes(sink.getvalue()))


def refusal(status: int, words: str) -> Reply:
    return Reply({"code": status, "status": "error", "error": words, "source": "engine"}, status)


class Pauses:
    """Counts pauses instead of making them, and has the job end at one of them."""

    def __init__(self, ends_at: int | None = None) -> None:
        self.made: list[float] = []
        self._ends_at = ends_at

    def __call__(self, seconds: float) -> bool:
        self.made.append(seconds)
        return len(self.made) == self._ends_at


@pytest.fixture
def platform() -> Iterator[StubPlatform]:
    stub = StubPlatform()
    stub.on(PATH, answer)
    yield stub
    stub.close()


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def pauses() -> Pauses:
    return Pauses()


@pytest.fixture
def host(platform: StubPlatform, pauses: Pauses) -> Iterator[PrivateHost]:
    made = PrivateHost(Address(f"{platform.url}{PATH}", "token-1"), pauses)
    yield made
    made.close()


def test_rows_come_back_with_their_answers_beside_them_in_their_order(
    host: PrivateHost, platform: StubPlatform
) -> None:
    answers = host.infer(ROWS)

    assert answers.column_names == ["time", "in.tensor", "out.sum"]
    assert answers.column("in.tensor").equals(ROWS.column("tensor"))
    assert answers.column("out.sum").to_pylist() == [3.0, 7.0, 11.0]
    asked = platform.calls(PATH)[0]
    assert asked.headers["authorization"] == "Bearer token-1"
    assert asked.query == [("dataset.exclude[]", "in"), ("dataset.exclude[]", "metadata")]


def test_a_token_is_replaced_while_it_is_used_and_stands_in_no_repr(host: PrivateHost, platform: StubPlatform) -> None:
    host.infer(ROWS)
    host.moved(Address(f"{platform.url}{PATH}", "token-2"))
    host.infer(ROWS)

    assert [asked.headers["authorization"] for asked in platform.calls(PATH)] == ["Bearer token-1", "Bearer token-2"]
    assert "token-2" not in repr(Address("http://127.0.0.1:1/x", "token-2"))


def test_what_is_too_much_for_one_request_goes_in_several(
    host: PrivateHost, platform: StubPlatform, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_host, "MOST_BYTES", ROWS.slice(0, 2).nbytes)

    answers = host.infer(ROWS)

    assert answers.column("out.sum").to_pylist() == [3.0, 7.0, 11.0]
    assert len(platform.calls(PATH)) == 2


@pytest.mark.parametrize(("status", "kind"), [(400, BadInput), (413, TooLarge), (500, ModelFailed), (504, ModelFailed)])
def test_a_refusal_is_told_in_its_words_and_not_asked_again(
    host: PrivateHost, platform: StubPlatform, pauses: Pauses, status: int, kind: type[BettongError]
) -> None:
    platform.on(PATH, refusal(status, "Column 'tensor' has 2 values, 3 are expected."))

    with pytest.raises(kind, match="has 2 values, 3 are expected"):
        host.infer(ROWS)

    assert (len(platform.calls(PATH)), pauses.made) == (1, [])


def test_a_deployment_that_is_busy_or_has_not_heard_of_the_token_is_asked_again(
    host: PrivateHost, platform: StubPlatform, pauses: Pauses
) -> None:
    platform.on(PATH, refusal(503, "Too many requests."), Reply(b"Jwt verification fails", 401), answer)

    assert host.infer(ROWS).num_rows == 3
    assert pauses.made == [0.1, 0.2]


def test_a_connection_that_ends_is_opened_anew_and_rows_that_end_it_each_time_are_to_blame(
    host: PrivateHost, platform: StubPlatform
) -> None:
    platform.on(PATH, Reply(hang_up=True), Reply(hang_up=True), answer)
    assert host.infer(ROWS).num_rows == 3

    platform.on(PATH, Reply(hang_up=True))
    with pytest.raises(ModelFailed, match="ended each time that it was given these rows"):
        host.infer(ROWS)


def test_a_deployment_that_is_not_there_is_waited_for_no_longer_than_patience_lasts(unused_port: int) -> None:
    pauses = Pauses()
    host = PrivateHost(Address(f"http://127.0.0.1:{unused_port}{PATH}", "t"), pauses, patience_s=0.0)

    with pytest.raises(Unavailable, match=r"not there for 0 s: it does not take connections \(Connection refused\)"):
        host.infer(ROWS)

    assert pauses.made == [0.0]


def test_a_job_that_is_to_end_does_not_wait_for_its_deployment(platform: StubPlatform) -> None:
    platform.on(PATH, refusal(503, "Too many requests."))
    host = PrivateHost(Address(f"{platform.url}{PATH}", "t"), Pauses(ends_at=1))

    with pytest.raises(Unavailable, match="was to end"):
        host.infer(ROWS)
    host.close()

    assert len(platform.calls(PATH)) == 1
