"""HTTP and HTTPFILE: formats, redirects, credentials that stay with their host, and answers that break off."""

from __future__ import annotations

import gzip
import io
import json
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest
from contract.drivers.cases import Case, new_calls
from contract.drivers.http_server import Files, serving_files

from bettong.domain.drivers import Egress
from bettong.errors import BadInput, TooLarge, Unavailable

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

ROWS = pa.table({"tensor": [[1.0, 2.5], [3.0, 4.0]], "name": ["a", "ü"], "n": [1, 2]})
FLAT = ROWS.drop_columns(["tensor"])


@pytest.fixture
def elsewhere() -> Iterator[Files]:
    """A server at another address, which is another host to a client."""
    with serving_files() as files:
        yield files


def http(files: Files, path: str, **details: Any) -> Case:
    return Case("HTTP", {"url": f"{files.url}{path}", **details}, new_calls())


def arrow(opener: Callable[..., Any]) -> bytes:
    sink = io.BytesIO()
    with opener(sink, ROWS.schema) as writer:
        writer.write_table(ROWS)
    return sink.getvalue()


def parquet() -> bytes:
    sink = io.BytesIO()
    pq.write_table(ROWS, sink)
    return sink.getvalue()


def csv() -> bytes:
    sink = io.BytesIO()
    pacsv.write_csv(FLAT, sink)
    return sink.getvalue()


LINES = "".join(f"{json.dumps(row)}\n" for row in ROWS.to_pylist()).encode()
RECORDS = json.dumps(ROWS.to_pylist(), indent=1).encode()


@pytest.mark.parametrize(
    ("path", "content_type", "body"),
    [
        ("/a.json", "application/octet-stream", RECORDS),
        ("/api/rows", "application/json; charset=utf-8", RECORDS),
        ("/a.jsonl", "application/octet-stream", LINES),
        ("/lines", "application/x-ndjson", LINES),
        ("/a.jsonl.gz", "application/gzip", gzip.compress(LINES)),
        ("/a.parquet", "application/octet-stream", parquet()),
        ("/a.arrow", "application/octet-stream", arrow(pa.ipc.new_file)),
        ("/stream", "application/vnd.apache.arrow.stream", arrow(pa.ipc.new_stream)),
        ("/a.csv", "text/plain", csv()),
        ("/rows", "text/csv", csv()),
        ("/a.csv.gz", "application/gzip", gzip.compress(csv())),
        ("/a.tsv", "text/plain", csv().replace(b",", b"\t")),
    ],
)
def test_the_format_is_told_by_content_type_or_name(files: Files, path: str, content_type: str, body: bytes) -> None:
    files.bodies[path], files.content_types[path] = body, content_type

    rows = http(files, path).read("")

    wanted = FLAT if "sv" in path or content_type == "text/csv" else ROWS
    assert rows.to_pylist() == wanted.to_pylist()


def test_the_tutorials_details_are_read_as_they_stand(files: Files) -> None:
    files.bodies["/data.json"] = RECORDS
    files.bodies["/data.arrow"] = arrow(pa.ipc.new_file)
    calls = new_calls()

    for kind, path in (("HTTP", "/data.json"), ("HTTPFILE", "/data.arrow")):
        rows = Case(kind, {"host": f"{files.url}{path}"}, calls).read("")
        assert rows["tensor"].to_pylist() == [[1.0, 2.5], [3.0, 4.0]]


def test_a_format_that_nothing_tells_is_asked_for_and_taken_from_the_details(files: Files) -> None:
    files.bodies["/export"] = LINES

    with pytest.raises(BadInput, match="tells its format"):
        http(files, "/export").read("")

    assert http(files, "/export", format="jsonl").read("").num_rows == 2


def test_declared_columns_are_read_in_their_types_and_the_others_left_out(files: Files) -> None:
    files.bodies["/a.json"] = b'[{"n": 1, "x": "gone"}, {"n": 2.5}, {"day": "2024-01-01"}]'

    case = http(files, "/a.json", columns={"n": "double", "day": "string"})

    assert case.read("").to_pylist() == [
        {"n": 1.0, "day": None},
        {"n": 2.5, "day": None},
        {"n": None, "day": "2024-01-01"},
    ]


def test_a_later_record_of_another_kind_is_told_and_not_dropped(files: Files) -> None:
    files.bodies["/a.jsonl"] = b'{"n": 1}\n' * 10 + b'{"n": 1.5}\n'

    with pytest.raises(BadInput, match="After 10 records") as refused:
        http(files, "/a.jsonl").read("", batch_rows=10)

    assert "columns" in refused.value.next_step


@pytest.mark.parametrize(
    ("details", "wanted"),
    [
        ({"token": "abc"}, "Bearer abc"),
        ({"user": "me", "password": "pässword"}, "Basic bWU6cMOkc3N3b3Jk"),
        ({"headers": {"Authorization": "Custom xyz"}}, "Custom xyz"),
    ],
)
def test_each_way_of_logging_in(files: Files, details: dict[str, Any], wanted: str) -> None:
    files.login, files.bodies["/a.json"] = wanted, RECORDS

    assert http(files, "/a.json", **details).read("").num_rows == 2

    with pytest.raises(BadInput, match="does not take this login"):
        http(files, "/a.json").read("")


def test_a_login_in_the_url_is_used_and_not_shown(files: Files) -> None:
    files.login, files.bodies["/a.json"] = "Basic bWU6c2VzYW1l", RECORDS
    url = files.url.replace("http://", "http://me:sesame@")
    case = Case("HTTP", {"url": f"{url}/a.json"}, new_calls())

    assert case.read("").num_rows == 2

    files.login = "Basic another"
    with pytest.raises(BadInput) as refused:
        case.read("")
    assert "sesame" not in str(refused.value)


def test_credentials_stay_with_their_host_over_redirects(files: Files, elsewhere: Files) -> None:
    elsewhere.bodies["/there.json"] = RECORDS
    files.redirects["/a.json"] = "/b.json"
    files.redirects["/b.json"] = f"{elsewhere.url}/there.json"

    rows = http(files, "/a.json", token="abc", headers={"X-Key": "xyz"}).read("")

    assert rows.num_rows == 2
    assert [(path, headers["authorization"], headers["x-key"]) for path, headers in files.seen] == [
        ("/a.json", "Bearer abc", "xyz"),
        ("/b.json", "Bearer abc", "xyz"),
    ]
    ((_, headers),) = elsewhere.seen
    assert "authorization" not in headers
    assert "x-key" not in headers


def test_redirects_stay_within_egress(files: Files) -> None:
    files.redirects["/a.json"] = "http://127.0.0.2:1/metadata"
    calls = new_calls(egress=Egress(allow=("127.0.0.1/32",)))

    with pytest.raises(BadInput, match="egress policy"):
        Case("HTTP", {"url": f"{files.url}/a.json"}, calls).read("")


def test_redirects_have_an_end(files: Files) -> None:
    files.redirects["/a.json"] = "/a.json"

    with pytest.raises(BadInput, match="more than 5 times"):
        http(files, "/a.json").read("")


def test_an_answer_that_is_too_long_is_refused(files: Files) -> None:
    files.bodies["/a.json"] = RECORDS
    files.bodies["/bomb.csv.gz"] = gzip.compress(b"a\n" + b"1\n" * 1_000_000)

    with pytest.raises(TooLarge, match="longer than 10 bytes"):
        http(files, "/a.json", max_bytes=10).read("")


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("/a.json", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n[{"),
        ("/a.csv", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\na,b\n1,"),
        ("/a.parquet", b"HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\nPAR1"),
        ("/a.arrow", b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n6\r\nARROW1\r\n"),
        ("/b.json", b"this is no HTTP at all\r\n\r\n"),
        ("/c.json", b""),
    ],
)
def test_an_answer_that_breaks_off_is_an_error(files: Files, path: str, answer: bytes) -> None:
    def broken(connection: socket.socket) -> None:
        connection.sendall(answer)

    files.bodies[path] = broken

    with pytest.raises(Unavailable, match=r"broke|Try again") as failed:
        http(files, path).read("")

    assert "127.0.0.1" in failed.value.problem
    assert path not in str(failed.value)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/a.json", b"<html>an error page</html>"),
        ("/a.json", b'[{"a": 1}, {"a":'),
        ("/a.json", b"[1, 2]"),
        ("/a.jsonl", b'{"a": 1}\nno json\n'),
        ("/a.parquet", b"not parquet at all"),
        ("/a.arrow", b"ARROW1 but no more"),
        ("/a.csv", b"a,b\n1,2\n3\n"),
        ("/a.csv.gz", gzip.compress(b"a\n1\n")[:-9]),
    ],
)
def test_data_of_another_kind_is_an_error_in_our_words(files: Files, path: str, body: bytes) -> None:
    files.bodies[path] = body

    with pytest.raises(BadInput) as refused:
        http(files, path).read("")

    assert refused.value.next_step


def test_a_query_is_a_path_of_the_same_host(files: Files, elsewhere: Files) -> None:
    files.bodies["/data/2024/a.json"] = RECORDS
    case = http(files, "/data?key=secret-key", token="abc")

    assert case.read("2024/a.json").num_rows == 2
    assert files.seen[-1][0] == "/data/2024/a.json?key=secret-key"
    with pytest.raises(BadInput, match="another host"):
        case.read(f"{elsewhere.url}/a.json")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "http://", "no url", "http://a b/"])
def test_what_is_no_url_is_refused_without_repeating_it(url: str) -> None:
    report = Case("HTTP", {"url": url}, new_calls()).test()

    assert not report.ok
    assert url not in report.stages[-1].said
