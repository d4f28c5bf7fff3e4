"""Both doors of a running platform, and what no well-behaved client would send: always a 4xx in words, and the next
request works."""

from __future__ import annotations

import gzip
import json
import random
import socket
import threading
import urllib.parse
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import httpx
import psutil
import pyarrow as pa
import pytest
from builders import python_model_zip

import wallaroo
from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

PATIENCE_S = 30.0
MARK = "hunter2-marker"
IN = pa.schema([pa.field("x", pa.list_(pa.float64())), pa.field("name", pa.string())])
OUT = pa.schema([pa.field("y", pa.float64())])
CODE = """
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    return {"y": np.array([float(np.sum(row)) for row in input_data["x"]])}
"""
GOOD = b'[{"x":[1.0,2.0],"name":"a"}]'
Door = Literal["server", "replica"]
DOORS: tuple[Door, ...] = ("server", "replica")


@dataclass
class Platform:
    """Where the doors are, and what gets one in."""

    wl: wallaroo.Client
    pipeline: Any
    home: Path
    ports: dict[Door, int] = field(default_factory=dict)
    paths: dict[Door, str] = field(default_factory=dict)
    good: dict[Door, bytes] = field(default_factory=lambda: {"server": b"{}", "replica": GOOD})

    def authorization(self) -> str:
        return str(self.wl.auth.auth_header()["Authorization"])

    def request(
        self,
        door: Door,
        *more: str,
        method: str = "POST",
        path: str | None = None,
        body: bytes | None = None,
        host: tuple[str, ...] = ("127.0.0.1",),
        kind: str | None = "application/json",
        length: str | None = "",
        version: str = "HTTP/1.1",
        token: bool = True,
    ) -> bytes:
        """A good request, but for what is given."""
        body = self.good[door] if body is None else body
        lines = [f"{method} {self.paths[door] if path is None else path} {version}", *(f"Host: {h}" for h in host)]
        lines += [f"Authorization: {self.authorization()}"] if token else []
        lines += [f"Content-Type: {kind}"] if kind is not None else []
        lines += [f"Content-Length: {len(body) if length == '' else length}"] if length is not None else []
        return "\r\n".join([*lines, *more, "", ""]).encode("latin-1") + body

    def ask(self, door: Door, data: bytes) -> bytes:
        """All that comes back for `data` until the server closes; a server that hangs fails the test."""
        with socket.create_connection(("127.0.0.1", self.ports[door]), timeout=PATIENCE_S) as connection:
            answer = b""
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while chunk := connection.recv(65536):
                    answer += chunk
            except ConnectionError:  # it was refused while we were still sending
                pass
            return answer

    def works(self, door: Door) -> bool:
        return self.ask(door, self.request(door)).startswith(b"HTTP/1.1 200 ")


@pytest.fixture(scope="module")
def platform(shared_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    wl = wallaroo.Client()
    workspace = wl.create_workspace("bad-input")
    wl.set_current_workspace(workspace)
    archive = python_model_zip(tmp_path_factory.mktemp("model") / "sums.zip", CODE)
    wl.upload_model("sums", str(archive), Framework.PYTHON, input_schema=IN, output_schema=OUT)
    pipeline = wl.build_pipeline("sums").add_model_step(wl.get_model("sums"))
    config = wallaroo.DeploymentConfigBuilder().replica_count(1).cpus(0.5).memory("512Mi").build()
    pipeline.deploy(deployment_config=config)
    platform = Platform(wl, pipeline, shared_home)
    urls: dict[Door, str] = {"server": f"{wl.api_endpoint}/v1/api/workspaces/list", "replica": pipeline.url()}
    for door, url in urls.items():
        parts = urllib.parse.urlsplit(url)
        platform.ports[door], platform.paths[door] = parts.port or 0, parts.path
    yield platform
    pipeline.undeploy()


def problem(answer: bytes, door: Door) -> tuple[int, str]:
    """Status and words of a refusal, which has to have the shape of its door."""
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 4"), answer[:300]
    status = int(head.split()[1])
    assert MARK.encode() not in body
    if b"content-type: text/plain" in head:
        assert status in (400, 401, 408, 431)
        return status, body.decode()
    told = json.loads(body)
    assert told["code"] == status
    if door == "server":
        assert set(told) == {"msg", "code", "error", "next_step", "request_id"}
        return status, told["msg"]
    assert set(told) == {"code", "status", "error", "source"}
    assert (told["status"], told["source"]) == ("error", "engine")
    return status, told["error"]


CHUNKED: dict[str, Any] = {"length": None, "body": b"2\r\n{}\r\n0\r\n\r\n"}
FORMS: dict[str, tuple[tuple[str, ...], dict[str, Any], set[int]]] = {
    "no Host": ((), {"host": ()}, {400}),
    "two Hosts": ((), {"host": ("127.0.0.1", "evil.example")}, {400}),
    "another Host": ((), {"host": ("evil.example",)}, {400, 421}),
    "an empty Host": ((), {"host": ("",)}, {400, 421}),
    "no token": ((), {"token": False}, {401}),
    "a login of another kind": (("Authorization: Basic eDp5",), {"token": False}, {401}),
    "a token that is none": (("Authorization: Bearer \xff.\xfe.x",), {"token": False}, {401}),
    "an unsigned token": (("Authorization: Bearer eyJhbGciOiJub25lIn0.e30.",), {"token": False}, {401}),
    "an endless token": ((f"Authorization: Bearer {'a.' * 20_000}",), {"token": False}, {401}),
    "two lengths": (("Content-Length: 1",), {}, {400}),
    "the same length twice": (("Content-Length: 2",), {"body": b"{}"}, {400}),
    "a list of lengths": ((), {"length": "2, 2"}, {400}),
    "a signed length": ((), {"length": "+2"}, {400}),
    "a negative length": ((), {"length": "-1"}, {400}),
    "a length beyond numbers": ((), {"length": "9" * 30}, {400}),
    "a length and chunks": (("Transfer-Encoding: chunked",), {"body": b"0\r\n\r\n"}, {400}),
    "chunks twice": (("Transfer-Encoding: chunked", "Transfer-Encoding: chunked"), CHUNKED, {400}),
    "chunks of another name": (("Transfer-Encoding: xchunked",), CHUNKED, {400}),
    "a blank before the colon": (("Transfer-Encoding : chunked",), CHUNKED, {400}),
    "a folded header": (("Transfer-Encoding:\r\n chunked",), CHUNKED, {400}),
    "a chunk without a size": (("Transfer-Encoding: chunked",), {**CHUNKED, "body": b"zz\r\n{}\r\n0\r\n\r\n"}, {400}),
    "a chunk beyond numbers": (("Transfer-Encoding: chunked",), {**CHUNKED, "body": b"f" * 20 + b"\r\n"}, {400}),
    "neither length nor chunks": ((), {"length": None}, {400}),
    "NUL in a header": (("X-A: a\0b",), {}, {400}),
    "NUL in the path": ((), {"path": "/v1/\0"}, {400}),
    "NUL in the path, escaped": ((), {"path": "/pipelines/sums%00"}, {404}),
    "out of the folder": ((), {"path": "/docs/../../etc/passwd", "method": "GET"}, {404}),
    "out of the folder, escaped": ((), {"path": "/docs/..%2f..%2f..%2fetc%2fpasswd", "method": "GET"}, {404}),
    "out of the folder, with backslashes": ((), {"path": "/docs/..\\..\\etc\\passwd", "method": "GET"}, {404}),
    "an empty folder": ((), {"path": "//v1/api//connections/list"}, {404}),
    "a path that is no UTF-8": ((), {"path": "/pipelines/%ff%fe"}, {404}),
    "a path of a megabyte": ((), {"path": "/" + "a" * 2**20}, {431}),
    "a header of a megabyte": ((f"X-A: {'a' * 2**20}",), {}, {431}),
    "a name that is not there": ((), {"path": f"/pipelines/{MARK}"}, {404}),
    "PUT": ((), {"method": "PUT"}, {405}),
    "TRACE": ((), {"method": "TRACE"}, {405}),
    "a method of its own": ((), {"method": "BREW"}, {400}),
    "CONNECT": ((), {"method": "CONNECT", "path": "127.0.0.1:80"}, {400}),
    "another HTTP": ((), {"version": "HTTP/9.9"}, {400}),
    "a coding that nobody unpacks": (("Content-Encoding: br",), {"body": GOOD}, {415}),
    "a gzip bomb": (("Content-Encoding: gzip",), {"body": gzip.compress(b" " * 200_000_000)}, {413, 415}),
    "a type that nobody takes": ((), {"kind": "text/html; a=\xff"}, {400, 415}),
    "no type": ((), {"kind": None}, {400, 415}),
    "half a text": ((), {"body": f'[{{"{MARK}": "'.encode()}, {400}),
    "a text": ((), {"body": f'"{MARK}"'.encode()}, {400}),
    "nested beyond reason": ((), {"body": b"[" * 100_000}, {400}),
    "no UTF-8": ((), {"body": b'{"a": "\xff"}'}, {400}),
    "half a surrogate pair": ((), {"body": b'[{"\\ud800": 1}]'}, {400}),
    "beyond a double": ((), {"body": b'[{"x": [1e999], "name": "a"}]'}, {400}),
}


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("form", FORMS)
def test_a_malformed_request_is_refused_in_words_and_the_next_one_works(
    platform: Platform, door: Door, form: str
) -> None:
    more, changes, expected = FORMS[form]

    status, words = problem(platform.ask(door, platform.request(door, *more, **changes)), door)

    assert status in expected
    assert words
    assert platform.works(door)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("rubbish", [b"\x16\x03\x01\x02\x00\x01\x00", b"\0" * 500, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"])
def test_what_is_not_http_1_is_told_so(platform: Platform, door: Door, rubbish: bytes) -> None:
    assert problem(platform.ask(door, rubbish), door)[0] == 400


@pytest.mark.parametrize("door", DOORS)
def test_rubbish_behind_a_good_request_ends_the_connection(platform: Platform, door: Door) -> None:
    answer = platform.ask(door, platform.request(door) + b"GARBAGE\r\n\r\n")

    assert b"HTTP/1.1 400 Bad Request\r\n" in answer
    assert b"HTTP/1.1 5" not in answer
    assert platform.works(door)


@pytest.mark.parametrize("door", DOORS)
def test_the_body_of_a_request_for_an_upgrade_is_no_second_request(platform: Platform, door: Door) -> None:
    hidden = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    answer = platform.ask(
        door, platform.request(door, "Connection: Upgrade", "Upgrade: h2c", body=hidden, method="POST")
    )

    assert answer.count(b"HTTP/1.1 ") == 1
    assert problem(answer, door)[0] == 400


# --- rows -----------------------------------------------------------------------------------------------------------

ROWS: dict[str, tuple[object, str]] = {
    "null": (None, "null"),
    "no rows": ([], "non-empty list"),
    "rows without columns": ([{}], "lacks the columns 'x', 'name'"),
    "an object": ({"x": [1.0]}, "object"),
    "a column too few": ([{"x": [1.0]}], "'name'"),
    "a column too many": ([{"x": [1.0], "name": "a", "z": MARK}], "'z'"),
    "a column misspelt": ([{"x": [1.0], "nmae": MARK}], "expected columns are: x, name"),
    "a text for a number": ([{"x": [MARK], "name": "a"}], "Column 'x'"),
    "a number for a text": ([{"x": [1.0], "name": 7}], "Column 'name'"),
    "a null": ([{"x": None, "name": "a"}], "may not be null"),
    "a null inside": ([{"x": [1.0, None], "name": "a"}], "may not be null"),
    "a number for a list": ([{"x": 1.0, "name": "a"}], "Column 'x'"),
    "a list too deep": ([{"x": [[1.0]], "name": "a"}], "Column 'x'"),
    "the second row": ([{"x": [1.0], "name": "a"}, {"x": True, "name": MARK}], "row 1"),
}


@pytest.mark.parametrize("rows", ROWS)
def test_rows_that_do_not_fit_are_told_which_and_why(platform: Platform, rows: str) -> None:
    content, words = ROWS[rows]

    status, told = problem(
        platform.ask("replica", platform.request("replica", body=json.dumps(content).encode())), "replica"
    )

    assert status == 400
    assert words in told


def arrow(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


TABLE = pa.table({"x": pa.array([[1.0]], pa.list_(pa.float64())), "name": pa.array(["a"])})
ARROWS: dict[str, bytes] = {
    "nothing": b"",
    "no Arrow": b"this is no Arrow " + MARK.encode(),
    "its magic alone": b"ARROW1\0\0ARROW1",
    "cut short": arrow(TABLE)[:-20],
    "cut in the middle": arrow(TABLE)[: len(arrow(TABLE)) // 2],
    "the middle blotted out": arrow(TABLE)[:100] + b"\xff" * 100 + arrow(TABLE)[200:],
    "no rows": arrow(TABLE.slice(0, 0)),
    "a null": arrow(pa.table({"x": pa.array([None], pa.list_(pa.float64())), "name": pa.array(["a"])})),
    "another type": arrow(pa.table({"x": pa.array(["a"]), "name": pa.array([MARK])})),
    "a column too few": arrow(TABLE.select(["x"])),
    "a column twice": arrow(pa.Table.from_arrays([TABLE["x"], TABLE["x"]], names=["x", "x"])),
}


@pytest.mark.parametrize("content", ARROWS)
def test_arrow_that_does_not_fit_is_told_which_and_why(platform: Platform, content: str) -> None:
    kind = "application/vnd.apache.arrow.file"

    status, told = problem(
        platform.ask("replica", platform.request("replica", body=ARROWS[content], kind=kind)), "replica"
    )

    assert status == 400
    assert told
    assert platform.works("replica")


def test_the_same_goes_through_the_server(platform: Platform) -> None:
    external = urllib.parse.urlsplit(platform.pipeline.get_external_url()).path

    for body in (b"", b"[]", f'[{{"x": "{MARK}"}}]'.encode()):
        answer = platform.ask("server", platform.request("server", path=external, body=body))
        assert problem(answer, "replica")[0] == 400
    assert platform.ask("server", platform.request("server", path=external, body=GOOD)).startswith(b"HTTP/1.1 200 ")


# --- too much -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunked", [False, True], ids=["declared", "chunked"])
@pytest.mark.parametrize(
    ("door", "path"),
    [
        ("server", "/v1/api/workspaces/list"),
        ("server", "/docs"),
        ("server", "external"),
        ("replica", "/pipelines/sums"),
        ("replica", f"/pipelines/{MARK}"),
    ],
)
def test_two_hundred_megabytes_are_refused_and_not_kept(
    platform: Platform, door: Door, path: str, chunked: bool
) -> None:
    block, blocks = b" " * 2**20, 200
    path = urllib.parse.urlsplit(platform.pipeline.get_external_url()).path if path == "external" else path
    framing: dict[str, Any] = {"length": None} if chunked else {"length": str(blocks * len(block))}
    more = ("Transfer-Encoding: chunked",) if chunked else ()
    server = psutil.Process(json.loads((platform.home / "server.json").read_text())["pid"])
    before = server.memory_info().rss
    with socket.create_connection(("127.0.0.1", platform.ports[door]), timeout=PATIENCE_S) as connection:
        connection.sendall(platform.request(door, *more, path=path, body=b"", **framing))
        try:
            for _ in range(blocks):
                connection.sendall(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
        except ConnectionError:  # that is what refusing early looks like to who goes on sending
            pass
        answer = connection.recv(65536)

    status, _ = problem(answer, "replica" if "/infer/" in path else door)
    assert status in (404, 413)
    assert server.memory_info().rss - before < 64 * 2**20
    assert platform.works(door)


@pytest.mark.parametrize("door", DOORS)
def test_hundreds_of_connections_that_say_nothing_keep_nobody_out(platform: Platform, door: Door) -> None:
    with ExitStack() as held:
        for n in range(300):
            idle = held.enter_context(socket.create_connection(("127.0.0.1", platform.ports[door]), PATIENCE_S))
            idle.sendall(platform.request(door)[: n % 200])  # all the ways into a head, and none of them whole

        assert platform.works(door)

    assert platform.works(door)


def test_a_log_that_cannot_grow_costs_the_answer_and_nothing_else(platform: Platform) -> None:
    (engine,) = platform.pipeline.status()["engines"]
    replica = psutil.Process(int(engine["labels"]["pid"]))
    if not hasattr(replica, "rlimit"):
        pytest.skip("another process's limits: Linux alone")
    assert platform.works("replica")
    rows = len(platform.pipeline.logs(limit=10_000))
    usual = replica.rlimit(psutil.RLIMIT_FSIZE)

    replica.rlimit(psutil.RLIMIT_FSIZE, (16, usual[1]))
    try:
        full = platform.ask("replica", platform.request("replica"))
    finally:
        replica.rlimit(psutil.RLIMIT_FSIZE, usual)

    assert full.startswith(b"HTTP/1.1 507 ")
    assert platform.works("replica")
    assert len(platform.pipeline.logs(limit=10_000)) == rows + 1


# --- whatever -------------------------------------------------------------------------------------------------------


def mutated(data: bytes, dice: random.Random) -> bytes:
    """`data` with a few bytes changed, taken out, put in or said twice."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 4, 16))):
        at = dice.randrange(len(changed) + 1)
        match dice.randrange(4):
            case 0:
                changed[at : at + 1] = bytes([dice.randrange(256)])
            case 1:
                del changed[at : at + dice.randrange(1, 16)]
            case 2:
                changed[at:at] = dice.randbytes(dice.randrange(1, 8))
            case 3:
                changed[at:at] = changed[at : at + dice.randrange(1, 40)]
    return bytes(changed)


@pytest.mark.parametrize("door", DOORS)
def test_no_mutation_of_a_good_request_is_our_fault_or_makes_us_hang(platform: Platform, door: Door) -> None:
    dice = random.Random(f"{door}-1")
    kinds = [platform.request(door), platform.request(door, "Transfer-Encoding: chunked", **CHUNKED)]
    if door == "replica":
        kinds.append(platform.request(door, body=arrow(TABLE), kind="application/vnd.apache.arrow.file"))
    at_fault: list[tuple[bytes, bytes]] = []

    def ask(data: bytes) -> None:
        answer = platform.ask(door, data)
        if answer and not answer.startswith((b"HTTP/1.1 1", b"HTTP/1.1 2", b"HTTP/1.1 4")):
            at_fault.append((data, answer))

    for _ in range(100):
        batch = [threading.Thread(target=ask, args=[mutated(dice.choice(kinds), dice)]) for _ in range(8)]
        for thread in batch:
            thread.start()
        for thread in batch:
            thread.join()

    assert at_fault == []
    assert platform.works(door)


def test_no_field_of_any_call_takes_the_server_down(platform: Platform) -> None:
    """Every route of the API, with values of every kind in its fields."""
    dice = random.Random(7)
    values: list[object] = [None, True, -1, 2**31, 2**64, 1.5, 1e308, "", "a", "\0", "../x", "é" * 3000, [], {}, [[1]]]
    values += [{"a": {"b": [None]}}, ["a"], "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00+14:00", "-1", MARK]
    with httpx.Client(
        base_url=platform.wl.api_endpoint, headers={"Authorization": platform.authorization()}, timeout=PATIENCE_S
    ) as http:
        described = http.get("/openapi.json").json()
        bodies = described["components"]["schemas"]
        for path, operation in ((p, o["post"]) for p, o in described["paths"].items() if "post" in o):
            schema = json.dumps(operation.get("requestBody", {}).get("content", {}).get("application/json", {}))
            named = next((name for name in bodies if f'/{name}"' in schema), None)
            if path.endswith("/platform/stop"):
                continue
            for _ in range(6):
                fields = {name: dice.choice(values) for name in bodies.get(named, {}).get("properties", {})}
                filled = path.replace("{", "").replace("}", "")
                anything: object = dice.choice(values)
                answered = http.post(filled, json=fields or anything)
                assert answered.status_code < 500, f"{path} {fields} {answered.text}"
