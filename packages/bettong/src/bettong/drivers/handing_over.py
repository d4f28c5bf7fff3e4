"""A connection on its way into the process that opens it: what the server says of it, and what is made of it there.

It holds secrets, and the values of what its references name in the environment and in managers of secrets: it goes over
a pipe and nowhere else.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from bettong.domain.drivers import Egress
from bettong.drivers import references
from bettong.drivers.opening import Opening, Reach
from bettong.drivers.references import ReferencePolicy

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.domain.drivers import Driver
    from bettong.drivers.leases import Loan
    from bettong.drivers.registry import Registry


def handed_over(
    registry: Registry,
    egress: Egress,
    policy: ReferencePolicy,
    environment: Mapping[str, str],
    kind: str,
    details: Mapping[str, Any],
    loan: Loan,
    timeout_s: float,
) -> dict[str, Any]:
    """What the other process is told; what it is given of secrets ends with the loan.

    Raises BadInput for a type without a driver, or a reference that is none.
    """
    driver = registry.driver(kind)
    return {
        "kind": kind.upper(),
        "driver": f"{driver.__module__}:{driver.__qualname__}",
        "folders": list(registry.folders),
        "details": dict(details),
        "egress": asdict(egress),
        "references": asdict(policy),
        "variables": references.variables_for(details, policy, environment),
        "given": loan.take(details, timeout_s),
        "timeout_s": timeout_s,
    }


def opening_of(told: Mapping[str, Any]) -> Opening:
    """In that process: the connection, ready to be opened."""

    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    sys.path += [folder for folder in told["folders"] if folder not in sys.path]
    policy = ReferencePolicy(**tuples(told["references"]))
    reach = Reach(Egress(**tuples(told["egress"])), policy, told["variables"], told["given"])
    module, _, name = told["driver"].partition(":")
    driver = cast("type[Driver]", getattr(import_module(module), name))
    return Opening(told["kind"], driver, told["details"], reach, told["timeout_s"])
