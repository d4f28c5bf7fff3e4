"""Inferences to this machine over a plain socket: connections are kept, and given up when they should be."""

from __future__ import annotations

import socket
import threading
from http.client import RemoteDisconnected
from typing import TYPE_CHECKING

import pytest

from wallaroo._direct import Connections, Refused

if TYPE_CHECKING:
    from collections.abc import Iterator

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Request-Id: r\r\n\r\nok"


class Server:
    """Answers each request with the next of its answers, and then hangs up where an answer is empty."""

    def __init__(self) -> None:
        self.answers: list[bytes] = []
        self.pieces: list[bytes] = []  # the first piece of each request, as it came
        self.connections = 0
        self.hung_up = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._accept)
        self._thread.start()

    def _accept(self) -> None:
        while True:
            connection, _ = self._listener.accept()
            if not self.answers:
                connection.close()
                return
            self.connections += 1
            with connection:
                self._serve(connection)
            self.hung_up.set()

    def _serve(self, connection: socket.socket) -> None:
        while self.answers and (piece := connection.recv(2**20)):
            self.pieces.append(piece)
            answer = self.answers.pop(0)
            connection.sendall(answer)
            if b"Connection: close" in answer or not answer:
                return

    def close(self) -> None:
        self.answers.clear()
        with socket.create_connection(("127.0.0.1", self.port)):
            self._thread.join()
        self._listener.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def connections() -> Iterator[Connections]:
    made = Connections()
    yield made
    made.drop()


def ask(connections: Connections, server: Server, content: bytes = b"[1]") -> tuple[int, dict[str, str], bytes]:
    return connections.post(
        "127.0.0.1", server.port, "/infer?a=b", content, {"Accept": "x"}, connect_timeout_s=10, timeout_s=10
    )


def test_one_connection_serves_request_after_request(connections: Connections, server: Server) -> None:
    server.answers = [OK, OK, OK]

    assert [ask(connections, server) for _ in range(3)] == [
        (200, {"content-length": "2", "x-request-id": "r"}, b"ok")
    ] * 3
    assert server.connections == 1


def test_head_and_body_of_a_small_request_come_in_one_piece(connections: Connections, server: Server) -> None:
    server.answers = [OK]

    ask(connections, server, b"[1, 2, 3]")

    (piece,) = server.pieces
    assert piece.startswith(b"POST /infer?a=b HTTP/1.1\r\n")
    assert piece.endswith(b"\r\n\r\n[1, 2, 3]")


def test_a_connection_that_the_other_side_has_closed_is_not_used_again(
    connections: Connections, server: Server
) -> None:
    server.answers = [OK, b"", OK]
    ask(connections, server)
    with pytest.raises(RemoteDisconnected):
        ask(connections, server)

    assert ask(connections, server)[2] == b"ok"
    assert server.connections == 2


def test_who_closes_while_nobody_asks_is_noticed_before_the_next_request(
    connections: Connections, server: Server
) -> None:
    server.answers = [OK]
    ask(connections, server)  # and it hangs up, having no answer more
    assert server.hung_up.wait(10)
    server.answers = [OK]

    assert ask(connections, server)[0] == 200


def test_a_connection_that_is_said_to_be_closed_is_not_kept(connections: Connections, server: Server) -> None:
    closing = OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    server.answers = [closing, OK]

    assert [ask(connections, server)[0] for _ in range(2)] == [200, 200]
    assert server.connections == 2


def test_after_a_drop_the_next_request_opens_a_new_connection(connections: Connections, server: Server) -> None:
    server.answers = [OK, OK]
    ask(connections, server)

    connections.drop()

    assert server.hung_up.wait(10)
    assert ask(connections, server)[0] == 200
    assert server.connections == 2


def test_where_nothing_listens_it_says_so(connections: Connections) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    with pytest.raises(Refused):
        connections.post("127.0.0.1", port, "/", b"", {}, connect_timeout_s=10, timeout_s=10)


def test_an_answer_that_does_not_come_is_a_timeout(connections: Connections) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        with pytest.raises(TimeoutError):
            connections.post("127.0.0.1", port, "/", b"", {}, connect_timeout_s=10, timeout_s=0.01)
