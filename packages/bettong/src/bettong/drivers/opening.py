"""A call of a driver in this process: details checked, references resolved, the source opened, every text scrubbed.

This is what the child of `processes` runs, and what a job runs that is a process of its own already.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from bettong.domain.drivers import Egress, Stage, StageResult
from bettong.domain.field_names import NEXT_STEP
from bettong.drivers import references
from bettong.drivers.abilities import check_installed, require
from bettong.drivers.details import check, check_beside, left_alone, secret_values
from bettong.drivers.earlier import upgraded
from bettong.drivers.layers import climb, patience_s
from bettong.drivers.references import ReferencePolicy
from bettong.drivers.scrubbing import Scrubber
from bettong.errors import BadInput, BettongError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic import BaseModel

    from bettong.domain.drivers import Capability, Driver, Source


@dataclass(frozen=True, slots=True)
class Reach:
    """What the operator lets drivers reach: addresses and folders, secrets behind references, of the environment the
    variables that references may name, and of managers of secrets what the details name."""

    egress: Egress = field(default_factory=Egress)
    references: ReferencePolicy = field(default_factory=ReferencePolicy)
    variables: Mapping[str, str] = field(default_factory=dict, repr=False)
    given: Mapping[str, Any] = field(default_factory=dict, repr=False)


class Opening:
    """One connection on its way to an open source. Holds secrets: it is neither printed nor sent."""

    def __init__(
        self, kind: str, driver: type[Driver], details: Mapping[str, Any], reach: Reach, timeout_s: float
    ) -> None:
        self._kind, self._driver, self._raw = kind.upper(), driver, details
        self._reach, self._timeout_s = reach, timeout_s
        self._scrubber = Scrubber()

    def __repr__(self) -> str:
        return f"Opening({self._kind})"

    @contextmanager
    def source(self, needed: Capability) -> Iterator[Source]:
        """The open source; closed at the end. Errors of the block pass the scrubber, too.

        Raises:
            BadInput: the details do not fit, the driver lacks what is needed, or a reference may not be used.
            Unavailable: the source does not answer, or a library is missing.
        """
        with self._scrubbed():
            require(self._kind, self._driver, needed)
            check_installed(self._driver)
            with self._driver().open(self._details(), self._reach.egress, self._timeout_s) as source:
                yield source

    def stages(self) -> Iterator[StageResult]:
        """Every layer down to the first that fails, each as it is known."""
        held = True
        for result in climb([(Stage.DETAILS, self._check_form), (Stage.SECRET, self._secret_work())]):
            held = held and result.ok is not False
            yield self._scrub(self._remarked(result) if result.stage is Stage.DETAILS else result)
        if not held:
            return
        for result in self._driver().test(self._details(), self._reach.egress, patience_s(self._timeout_s)):
            yield self._scrub(result)

    def clean(self, text: str) -> str:
        """The text without a secret of this connection."""
        return self._scrubber.clean(text)

    def _check_form(self) -> str:
        check_installed(self._driver)
        raw = self._present()
        referred = frozenset(reference.field.partition(".")[0] for reference in references.found_in(raw))
        check_beside(self._driver.details, self._kind, raw, referred)
        return "complete"

    def _remarked(self, result: StageResult) -> StageResult:
        """With what is said of fields that the driver does not know, where the details are complete without them."""
        if not result.ok or not (remark := left_alone(self._driver.details, self._kind, self._present())):
            return result
        return replace(result, said=f"{result.said}; {remark}", next_step=NEXT_STEP)

    def _secret_work(self) -> Any:
        count = len(references.found_in(self._raw)) if _well_formed(self._raw) else 0
        if not count:
            return None

        def work() -> str:
            self._details()
            return f"{count} resolved"

        return work

    def _present(self) -> dict[str, Any]:
        """The details as the driver takes them now, references still in them."""
        return upgraded(self._driver.details, self._kind, self._raw)[0]

    def _details(self) -> BaseModel:
        resolved = references.resolve(
            self._present(),
            self._reach.references,
            self._reach.variables,
            self._reach.given,
            lambda value: self._scrubber.learn([value]),
        )
        details = check(self._driver.details, self._kind, resolved)
        self._scrubber.learn(secret_values(details))
        return details

    @contextmanager
    def _scrubbed(self) -> Iterator[None]:
        try:
            yield
        except BettongError as error:
            clean = type(error)(self.clean(error.problem), self.clean(error.next_step))
        else:
            return
        raise clean

    def _scrub(self, result: StageResult) -> StageResult:
        said, next_step = self.clean(result.said), self.clean(result.next_step)
        return StageResult(result.stage, result.ok, result.took_ms, said, next_step)


def _well_formed(details: Mapping[str, Any]) -> bool:
    try:
        references.found_in(details)
    except BadInput:
        return False
    return True
