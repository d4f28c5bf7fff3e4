"""The egress policy goes by addresses, in whatever clothes they come."""

from __future__ import annotations

import socket

import pytest

from bettong.domain.drivers import Egress
from bettong.drivers.egress import Target, check_address, connect, counted, networks, resolve
from bettong.errors import BadInput, Unavailable


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1", "127.8.9.1", "0.0.0.0", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::"],
)
def test_a_denied_network_is_out_of_reach_under_every_name(address: str) -> None:
    with pytest.raises(BadInput, match="egress policy"):
        check_address("h", address, Egress(deny=("127.0.0.0/8",)))


@pytest.mark.parametrize("address", ["::", "::1"])
def test_loopback_of_the_newer_kind_too(address: str) -> None:
    with pytest.raises(BadInput, match="egress policy"):
        check_address("h", address, Egress(deny=("::1/128",)))


def test_an_empty_allow_list_allows_all_that_is_not_denied() -> None:
    check_address("h", "10.1.2.3", Egress())
    check_address("h", "10.1.2.3", Egress(deny=("10.2.0.0/16",)))


def test_with_an_allow_list_all_else_is_out_of_reach_and_deny_wins() -> None:
    policy = Egress(allow=("10.0.0.0/8",), deny=("10.1.0.0/16",))

    check_address("h", "10.2.0.1", policy)
    for address in ("10.1.0.1", "11.0.0.1", "::1", "169.254.169.254"):
        with pytest.raises(BadInput, match="egress policy"):
            check_address("h", address, policy)


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "127.1", "localhost", "[::1]"])
def test_what_counts_is_the_address_that_a_name_has(host: str) -> None:
    try:
        target = resolve(host, 80, Egress())
    except Unavailable:
        pytest.skip("this system does not know that form")
    assert target.addresses

    with pytest.raises(BadInput, match="egress policy"):
        resolve(host, 80, Egress(deny=("127.0.0.0/8", "::1/128")))


@pytest.mark.parametrize("host", ["", "/tmp/socket", "@abstract", "a,b", "a b", "a\nb"])
def test_what_is_not_one_host_is_refused(host: str) -> None:
    with pytest.raises(BadInput, match="not one name"):
        resolve(host, 80, Egress())


def test_the_first_address_that_answers_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = Target("h", server.getsockname()[1], ("127.0.0.2", "127.0.0.1"))
        connect(target, 5).close()


def test_a_closed_port_is_told_as_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    with pytest.raises(Unavailable, match="refused the connection"):
        connect(Target("h", port, ("127.0.0.1",)), 5)


def test_networks_are_checked_when_a_platform_starts() -> None:
    assert networks(("10.0.0.0/8", "::1/128")) == ("10.0.0.0/8", "::1/128")
    with pytest.raises(BadInput, match="is no network"):
        networks(("10.0.0.1/8",))


def test_addresses_are_counted_as_people_count() -> None:
    one, two = Target("h", 1, ("127.0.0.1",)), Target("h", 1, ("127.0.0.1", "::1"))

    assert (counted(one), counted(two), counted(one, two)) == ("1 address", "2 addresses", "3 addresses")
