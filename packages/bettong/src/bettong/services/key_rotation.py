"""Changing the platform's key: every sealed value is sealed anew under the first key, in short steps, while all runs.

Each value is replaced only if it is still the one that was opened, so nobody's change is lost, and servers that share
a database may do it at once. A walk that was cut short, by `kill -9` too, is walked again: what is done is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from bettong.domain.identity import AuditEvent
from bettong.errors import BadInput, NotFound, Unavailable
from bettong.secrets.details import is_of_old_form, open_details, seal_details
from bettong.services.deployment_specs import binding
from bettong.services.engine_configs import has_sealed, resealed, sealed_values

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from bettong.domain.connections import SealedDetails
    from bettong.domain.deployments import Deployment
    from bettong.domain.identity import Principal
    from bettong.domain.ports import AuditStore, ConnectionStore, DeploymentStore

MOST_AT_ONCE = 100
_CONNECTIONS, _DEPLOYMENTS, _CANARY = "connections", "deployments", "canary"


class Ring(Protocol):
    """The key ring as this service needs it."""

    @property
    def key_ids(self) -> tuple[str, ...]: ...
    def seal(self, plain: bytes, *, bound_to: str) -> bytes: ...
    def open(self, sealed: bytes, *, bound_to: str) -> bytes: ...
    def sealed_by_first(self, sealed: bytes) -> bool: ...


@dataclass(frozen=True, slots=True)
class Keys:
    """`counts` says how many values are sealed under each key id: those of the ring, the sealing one first, then those
    that the ring lacks. `from_file`: whether this platform keeps its keys in a file of its own."""

    from_file: bool
    ring: tuple[str, ...]
    counts: dict[str, int]
    old_form: int


@dataclass(slots=True)
class Step:
    """What one step did. `after` is where the next one goes on; None when the walk is over."""

    resealed: int = 0
    already: int = 0
    unopened: list[str] = field(default_factory=list)  # what, and why, in words
    after: str | None = None


class KeyRotation:
    """For administrators; to anybody else there is nothing here.

    Args:
        add_key: makes a key that seals from now on and returns its id; None where keys are given from outside.
        follow: has the key canary follow the first key; what is wrong with it, in words, or None.
        key_id_of: the id of the key that a value is sealed under.
    """

    def __init__(
        self,
        ring: Ring,
        connections: ConnectionStore,
        deployments: DeploymentStore,
        audit: AuditStore,
        clock: Callable[[], datetime],
        *,
        add_key: Callable[[], str] | None,
        follow: Callable[[], str | None],
        key_id_of: Callable[[bytes], str],
    ) -> None:
        self._ring, self._connections, self._deployments = ring, connections, deployments
        self._audit, self._clock = audit, clock
        self._add_key, self._follow, self._key_id_of = add_key, follow, key_id_of

    def keys(self, principal: Principal) -> Keys:
        """The keys there are, and how many values lie under each."""
        _administrators_only(principal)
        counts = dict.fromkeys(self._ring.key_ids, 0)
        old_form, after = 0, 0
        while page := self._connections.sealed_page(after=after, limit=MOST_AT_ONCE):
            for kept in page:
                key_id = self._key_id_of(kept.sealed)
                counts[key_id] = counts.get(key_id, 0) + 1
                old_form += key_id in self._ring.key_ids and is_of_old_form(self._ring, kept)
            after = page[-1].place
        for deployment in self._deployments.all(None):
            for value in sealed_values(deployment.engine_config):
                key_id = self._key_id_of(value)
                counts[key_id] = counts.get(key_id, 0) + 1
        return Keys(self._add_key is not None, tuple(self._ring.key_ids), counts, old_form)

    def add(self, principal: Principal) -> str:
        """Make a new key that seals from now on; its id. Nothing is sealed anew yet.

        Raises:
            BadInput: the keys are given from outside.
            Unavailable: the keys that there are are not whole.
        """
        _administrators_only(principal)
        if self._add_key is None:
            raise BadInput(
                "This platform has its keys from BETTONG_KEYS, where it cannot put one.",
                "Make one with 'bettong keys new'. Put it behind the others on every server, then in front, each time "
                "starting the servers again. Then run 'bettong keys rotate'.",
            )
        added = self._add_key()
        self._record(principal, "keys.add", added)
        return added

    def reseal(self, principal: Principal, after: str | None, limit: int) -> Step:
        """Seal the next `limit` values anew that are not under the first key yet.

        Raises:
            BadInput: `after` is not of a step before.
            Unavailable: the ring has no key to seal with.
        """
        _administrators_only(principal)
        room, place = _read(after)
        if after is None:
            self._record(principal, "keys.rotate", self._ring.key_ids[0] if self._ring.key_ids else "")
        step = Step()
        if room == _CONNECTIONS:
            page = self._connections.sealed_page(after=place, limit=min(limit, MOST_AT_ONCE))
            for kept in page:
                self._reseal_details(kept, step)
            step.after = f"{_CONNECTIONS}:{page[-1].place}" if page else f"{_DEPLOYMENTS}:0"
        elif room == _DEPLOYMENTS:
            rest = [d for d in self._deployments.all(None) if d.id > place][:limit]
            for deployment in rest:
                self._reseal_variables(deployment, step)
            step.after = f"{_DEPLOYMENTS}:{rest[-1].id}" if rest else f"{_CANARY}:0"
        elif problem := self._follow():
            step.unopened.append(problem)
        return step

    def _reseal_details(self, kept: SealedDetails, step: Step) -> None:
        try:
            plain = open_details(self._ring, kept)
        except Unavailable as locked:
            step.unopened.append(f"Connection '{kept.name}', version {kept.version}: {locked}")
            return
        if self._ring.sealed_by_first(kept.sealed) and not is_of_old_form(self._ring, kept):
            step.already += 1
        elif self._connections.reseal(kept, seal_details(self._ring, plain, kept.connection_id, kept.version)):
            step.resealed += 1  # else somebody else sealed it anew, or it is gone

    def _reseal_variables(self, deployment: Deployment, step: Step) -> None:
        config = deployment.engine_config
        if not has_sealed(config):
            return
        values = sealed_values(config)
        if all(map(self._ring.sealed_by_first, values)):
            step.already += len(values)
            return
        try:
            anew = resealed(config, self._ring, binding(deployment.pipeline_id))
        except Unavailable as locked:
            step.unopened.append(f"Variables of deployment {deployment.label}: {locked}")
            return
        if self._deployments.reseal(deployment, anew):
            step.resealed += len(values)

    def _record(self, principal: Principal, action: str, key_id: str) -> None:
        self._audit.record(
            AuditEvent(
                self._clock(), principal.user_id, principal.email, principal.origin, action, "keys", key_id, key_id
            )
        )


def _read(after: str | None) -> tuple[str, int]:
    if after is None:
        return _CONNECTIONS, 0
    room, _, place = after.partition(":")
    if room not in (_CONNECTIONS, _DEPLOYMENTS, _CANARY) or not place.isascii() or not place.isdigit():
        raise BadInput("'after' is not of a step before.", "Begin again without it: what is done is skipped.")
    return room, int(place[:18])


def _administrators_only(principal: Principal) -> None:
    if not principal.is_admin:
        raise NotFound("There is nothing here that you may do.", "Ask an administrator of this platform to do it.")
