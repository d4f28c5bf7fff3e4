"""From what a caller asks to what a job keeps: one function per kind, of values that were resolved for the caller."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.domain.drivers import Capability, DriverInfo
    from bettong.domain.identity import Principal
    from bettong.domain.pipelines import Pipeline, PipelineVersion
    from bettong.services.deployment_specs import DeploymentSpecs
    from bettong.services.logs import LogService

ROLES = ("source", "sink", "dead_letter")


@dataclass(frozen=True, slots=True)
class Ground:
    """What a request stands on: all of it is there, and may be seen and used by the caller.

    `drivers` has the driver of each connection that the request names, by role.
    """

    principal: Principal
    job_id: str
    pipeline: Pipeline
    version: PipelineVersion
    drivers: Mapping[str, DriverInfo]
    specs: DeploymentSpecs
    logs: LogService

    def require(self, role: str, *needed: Capability) -> None:
        """Raises BadInput when the connection in that role is missing or lacks one of these."""
        driver = self.drivers.get(role)
        if driver is None:
            raise BadInput(f"The request names no {role}.", f"Send '{role}' with a 'connection_id'.")
        if missing := [each for each in needed if each not in driver.capabilities]:
            able = ", ".join(sorted(driver.capabilities))
            raise BadInput(
                f"The {role} is a connection of type {driver.types[0]}, which cannot {missing[0]}. It can: {able}.",
                f"Name a connection as {role} that can {missing[0]}.",
            )


@dataclass(frozen=True, slots=True)
class Order:
    """What a job keeps (names and ids, never a secret), and what holds for what it writes, in words."""

    request: Mapping[str, Any]
    guarantee: str = ""


class OrderOf(Protocol):
    def __call__(self, asked: Mapping[str, Any], ground: Ground, /) -> Order:
        """Raises BadInput or NotFound for a request that a job of this kind cannot do."""
