"""What a driver can do and whether it can do it here, found without opening anything."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from bettong.domain.drivers import Capability, WriteMode
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from bettong.domain.drivers import Driver

_BY_METHOD = {
    "browse": Capability.BROWSE,
    "read": Capability.READ,
    "write": Capability.WRITE,
    "write_batch": Capability.TRANSACTION,
    "consume": Capability.CONSUME,
    "produce": Capability.PRODUCE,
}


def capabilities(driver: type[Driver]) -> frozenset[Capability]:
    """What a driver can do: a capability is a method of what it opens."""
    found = {capability for method, capability in _BY_METHOD.items() if hasattr(driver.source, method)}
    if WriteMode.UPSERT in getattr(driver.source, "modes", ()):
        found.add(Capability.UPSERT)
    return frozenset(found | {Capability.TEST})


def require(kind: str, driver: type[Driver], needed: Capability) -> None:
    """Raises BadInput, naming what there is, when a driver lacks a capability."""
    able = capabilities(driver)
    if needed not in able:
        raise BadInput(
            f"Connections of type {kind.upper()} cannot {needed}.",
            f"They can: {', '.join(capability for capability in Capability if capability in able)}.",
        )


def installed(driver: type[Driver]) -> bool:
    """Whether the libraries it needs are there. None of them is imported."""
    return all(_there(name) for name in driver.needs)


def check_installed(driver: type[Driver]) -> None:
    """Raises Unavailable, with the command that helps, when a library of the driver is missing."""
    if not installed(driver):
        raise Unavailable(
            f"The driver for {driver.types[0]} needs libraries that are not installed on the platform.",
            f'Ask the operator to run: pip install "bettong[{driver.extra}]"' if driver.extra else "",
        )


def _there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # the package around it is missing, too
        return False
