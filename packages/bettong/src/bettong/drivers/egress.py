"""Which addresses may be reached. What was checked is what is connected to: names are resolved once."""

from __future__ import annotations

import ipaddress
import socket
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from bettong.domain.drivers import Egress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class Target:
    """A host with the addresses that it has and may have, in the order to try them."""

    host: str
    port: int
    addresses: tuple[str, ...]


def counted(*targets: Target) -> str:
    """How many addresses these have together, for people."""
    count = sum(len(target.addresses) for target in targets)
    return f"{count} address{'es' * (count != 1)}"


def resolve(host: str, port: int, egress: Egress) -> Target:
    """Look a host up and check every address it has.

    Raises:
        BadInput: no host, or one of its addresses may not be reached from this platform.
        Unavailable: the name does not resolve.
    """
    if not host or host.startswith(("/", "@")) or any(c in host for c in ", \t\r\n\0"):
        raise BadInput("The host is not one name or address.", "Give one host name or IP address, and its port apart.")
    try:
        answers = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unavailable(
            f"The name '{host}' does not resolve where this platform runs.",
            "Look for a typing error in the host, or ask the operator whether it is known there.",
        ) from None
    addresses = tuple(dict.fromkeys(str(answer[4][0]).partition("%")[0] for answer in answers))
    for address in addresses:
        check_address(host, address, egress)
    return Target(host, port, addresses)


def check_address(host: str, address: str, egress: Egress) -> None:
    """Raises BadInput when the platform may not reach `address`, an IP address that `host` has."""
    seen_as = _forms(ipaddress.ip_address(address))
    denied = any(_within(form, egress.deny) for form in seen_as)
    if denied or (egress.allow and not any(_within(form, egress.allow) for form in seen_as)):
        raise BadInput(
            f"The egress policy of this platform does not let drivers reach '{host}'.",
            "Use another host, or ask the operator to allow its network (BETTONG_EGRESS_ALLOW, BETTONG_EGRESS_DENY).",
        )


def connect(target: Target, timeout_s: float) -> socket.socket:
    """A TCP connection to the first of the checked addresses that takes one.

    Raises:
        Unavailable: none does within the time; refused, unreachable or silent is said.
    """
    until = time.monotonic() + timeout_s
    why = "did not answer in time"
    for address in target.addresses:
        try:
            return socket.create_connection((address, target.port), max(0.1, until - time.monotonic()))
        except ConnectionRefusedError:
            why = "refused the connection: nothing listens there"
        except TimeoutError:
            why = f"did not answer within {timeout_s:g} s"
        except OSError:
            why = "cannot be reached from where this platform runs"
    raise Unavailable(
        f"'{target.host}' port {target.port} {why}.",
        "Check host and port, that the service runs, and that no firewall stands between.",
    )


def networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The CIDR texts as they are if each is one. Raises BadInput for one that is not, for the start of a platform."""
    for text in texts:
        try:
            ipaddress.ip_network(text)
        except ValueError as wrong:
            raise BadInput(f"'{text}' is no network.", "Write networks like 10.0.0.0/8 or 2001:db8::/32.") from wrong
    return texts


def _within(address: Address, texts: tuple[str, ...]) -> bool:
    found = (ipaddress.ip_network(text) for text in texts)
    return any(address.version == network.version and address in network for network in found)


def _forms(address: Address) -> tuple[Address, ...]:
    """The address and the ones that lead to the same place: an IPv4 address in IPv6 clothes, loopback as `any`."""
    forms: list[Address] = [address]
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            forms.append(inner)
    for form in list(forms):
        if form.is_unspecified:  # systems connect it to themselves
            forms += [ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")]
    return tuple(forms)
