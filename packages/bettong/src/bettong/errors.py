"""Every error we raise on purpose. Each one says what was found, what was expected, and what to do next."""

from __future__ import annotations

from typing import ClassVar


class BettongError(Exception):
    """Anything we raise on purpose. `code` never changes once released; wording may.

    BettongError
    ├─ BadInput             the caller can fix the request
    │  ├─ LoginRefused      a source does not take this login, perhaps since its password was changed
    │  ├─ TooLarge          more bytes or rows than a limit allows
    │  └─ UnsupportedFormat a content type or framework this release does not know
    ├─ Unauthenticated      nobody we know: no token, or one that does not hold
    ├─ Forbidden            the caller may see it, but not do this with it
    ├─ NotFound             nothing by that name that this caller may see
    ├─ Conflict             the name or state is taken
    ├─ ModelFailed          the model's own code raised, or its worker died under the request
    └─ Unavailable          worth another try later
       ├─ DeadlineExceeded  it took longer than the limit
       └─ StorageFull       no space left for what was sent
    """

    code: ClassVar[str] = "internal"

    def __init__(self, problem: str, next_step: str = "") -> None:
        super().__init__(problem, next_step)  # args rebuild it, so it survives a pickle across processes
        self.problem, self.next_step = problem, next_step

    def __str__(self) -> str:
        return f"{self.problem} {self.next_step}".rstrip()


class BadInput(BettongError):
    code = "bad_input"


class LoginRefused(BadInput):
    """To callers a BadInput like others; whoever has been let in before may wait for a new password."""


class TooLarge(BadInput):
    code = "too_large"


class UnsupportedFormat(BadInput):
    code = "unsupported_format"


class Unauthenticated(BettongError):
    code = "unauthenticated"


class Forbidden(BettongError):
    code = "forbidden"


class NotFound(BettongError):
    code = "not_found"


class Conflict(BettongError):
    code = "conflict"


class ModelFailed(BettongError):
    code = "model_failed"


class Unavailable(BettongError):
    code = "unavailable"


class DeadlineExceeded(Unavailable):
    code = "deadline_exceeded"


class StorageFull(Unavailable):
    code = "storage_full"
