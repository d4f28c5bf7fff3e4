"""A head that came before is known by its bytes; one that may mean something else the next time is not."""

from __future__ import annotations

import pytest

from bettong.engine.known_heads import MAX_BYTES, KnownHeads

FIELDS = [(b"host", b"h"), (b"content-length", b"3")]


def request(fields: list[tuple[bytes, bytes]] = FIELDS, body: bytes = b"abc", first: bytes = b"") -> bytes:
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return first + b"POST /infer HTTP/1.1\r\n" + lines + b"\r\n" + body


def kept(data: bytes, fields: list[tuple[bytes, bytes]] = FIELDS) -> bool:
    heads = KnownHeads()
    heads.keep(data, fields, "read")
    return heads.find(data) is not None


def test_a_request_with_the_same_head_is_known_with_its_own_body() -> None:
    heads = KnownHeads()
    heads.keep(request(), FIELDS, "read")

    assert heads.find(request(body=b"xyz")) == ("read", b"xyz")
    assert heads.find(request(body=b"\r\n\r")) == ("read", b"\r\n\r")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\r\n\r\n",
        request(body=b"ab"),
        request(body=b"abcd"),
        request() + request(),
        request([(b"host", b"other"), FIELDS[1]]),
        request([(b"Host", b"h"), FIELDS[1]]),
        b"\r\n" + request(),
    ],
    ids=["nothing", "no head", "cut off", "too long", "two", "another host", "other letters", "a blank line first"],
)
def test_what_is_not_one_whole_request_with_that_head_is_not_known(data: bytes) -> None:
    heads = KnownHeads()
    heads.keep(request(), FIELDS, "read")

    assert heads.find(data) is None


@pytest.mark.parametrize(
    "fields",
    [
        [*FIELDS, (b"x-request-id", b"r-1")],
        [*FIELDS, (b"upgrade", b"h2c")],
        [*FIELDS, (b"transfer-encoding", b"chunked")],
        [*FIELDS, (b"expect", b"100-continue")],
        [(b"host", b"h")],
        [(b"content-length", b"03")],
        [(b"content-length", b"4")],
        [*FIELDS, FIELDS[1]],
        [*FIELDS, (b"x", b"y" * MAX_BYTES)],
    ],
    ids=lambda fields: str(fields[-1])[:40],
)
def test_a_head_that_says_more_than_where_its_body_ends_is_not_kept(fields: list[tuple[bytes, bytes]]) -> None:
    assert kept(request())
    assert not kept(request(fields), fields)


def test_two_requests_in_one_go_are_not_kept_as_one() -> None:
    first, second = request(), request()

    assert not kept(first + second)


def test_a_blank_line_before_a_request_is_no_part_of_its_head() -> None:
    assert not kept(request(first=b"\r\n"))


def test_of_too_many_the_longest_known_goes() -> None:
    heads, ids = KnownHeads(most=2), [b"a", b"b", b"c"]
    requests = {name: request([(b"host", name), FIELDS[1]]) for name in ids}

    for name in ids:
        heads.keep(requests[name], FIELDS, name)

    assert [heads.find(requests[name]) for name in ids] == [None, (b"b", b"abc"), (b"c", b"abc")]
