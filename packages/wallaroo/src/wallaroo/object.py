"""Exceptions of the SDK, and the base of objects that stand for something on the platform.

Exception
├─ EntityNotFoundError            nothing by that id or name that the caller may see
├─ RequiredAttributeMissing       a record lacks an attribute even after it was fetched again
├─ InvalidNameError               a name breaks the rule for names
├─ ModelConversionError           a version ended in `error` while it was waited for
├─ ModelConversionTimeoutError    a version was not ready in time
├─ InvalidAccelerationError       an architecture and an acceleration that do not go together
├─ ModelOptimizationConfigError   a framework_config that does not fit
├─ LimitError                     a cap of the platform
│  └─ UserLimitError              no more users
├─ DeploymentError                a deployment could not be made
├─ JobError                       a job failed while it was waited for
├─ WaitForError                   a state was not reached in time; carries the last status
│  └─ WaitForDeployError
├─ CommunicationError             the platform could not be reached
│  └─ InferenceTimeoutError       no answer to an inference in time
└─ WallarooAPIError               the platform answered with an error
   ├─ RequestRefused              one that starts with what was refused
   ├─ ModelUploadError
   └─ InferenceError
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

from wallaroo import _times

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from wallaroo.client import Client


class EntityNotFoundError(Exception):
    """Nothing by that id or name. `text` replaces the usual wording where notebooks expect another."""

    def __init__(self, entity_type: str, params: object, text: str | None = None) -> None:
        super().__init__(entity_type, params, text)
        self.entity_type, self.params, self.text = entity_type, params, text

    def __str__(self) -> str:
        return self.text or f"{self.entity_type} not found: {self.params}"


class RequiredAttributeMissing(Exception):
    def __init__(self, class_name: str, attribute_name: str) -> None:
        super().__init__(class_name, attribute_name)
        self.class_name, self.attribute_name = class_name, attribute_name

    def __str__(self) -> str:
        return f"{self.class_name} has no '{self.attribute_name}', also after it was fetched again."


class InvalidNameError(Exception):
    def __init__(self, name: str, requirement: str) -> None:
        super().__init__(name, requirement)
        self.name, self.requirement = name, requirement

    def __str__(self) -> str:
        return f"Name '{self.name}' is invalid: {self.requirement}"


class ModelConversionError(Exception):
    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return f"Model failed to convert: {self.error}"


class ModelConversionTimeoutError(Exception):
    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return f"Model conversion did not finish: {self.error}"


class InvalidAccelerationError(Exception):
    """An architecture and an acceleration that do not go together."""


class ModelOptimizationConfigError(Exception):
    """A framework_config that does not fit the framework."""


class LimitError(Exception):
    """A cap of the platform, in the server's words."""


class UserLimitError(LimitError):
    """No more users may be added."""


class DeploymentError(Exception):
    """A deployment could not be made."""


class JobError(Exception):
    """A job failed while it was waited for. `error` has its reason, in the platform's words."""

    def __init__(self, job_id: str, error: str) -> None:
        super().__init__(job_id, error)
        self.job_id, self.error = job_id, error

    def __str__(self) -> str:
        return f"Job {self.job_id} failed: {self.error}"


class WaitForError(Exception):
    """A state was not reached. `status` is the last status seen, None when there was none."""

    def __init__(self, message: str, status: Mapping[str, Any] | None) -> None:
        super().__init__(message, status)
        self.message, self.status = message, status

    def __str__(self) -> str:
        return self.message if self.status is None else f"{self.message}\nStatus: {self.status}"


class WaitForDeployError(WaitForError):
    pass


class CommunicationError(Exception):
    def __init__(self, error: object) -> None:
        super().__init__(error)
        self.error = error

    def __str__(self) -> str:
        return f"Network communication failed: {self.error}"


class InferenceTimeoutError(CommunicationError):
    """No answer to an inference: it took longer than the timeout, or nothing listens there."""

    def __str__(self) -> str:
        return str(self.error)


class WallarooAPIError(Exception):
    """The platform answered with an error.

    Attributes:
        code: HTTP status, or the code of the answer's body.
        error: the reason, in the platform's words, with what to do next.
        status, source: of an engine's answer ("error", "engine" or "sidekick"); "" from the control plane.
        response: the answer's body as it was parsed, None when it was no JSON.
        error_code: the platform's stable word for the error, such as "not_found"; "" when it gave none.
        request_id: how the platform's log names the request; "" when it gave none.
    """

    default_prefix: ClassVar[str] = "Request failed"

    def __init__(
        self,
        code: int,
        status: str = "",
        error: str = "",
        source: str = "",
        response: Mapping[str, Any] | None = None,
        prefix: str | None = None,
    ) -> None:
        super().__init__(code, status, error, source, response, prefix)
        self.code, self.status, self.error, self.source, self.response = code, status, error, source, response
        self.prefix = self.default_prefix if prefix is None else prefix
        body = response or {}
        self.error_code = str(body.get("error") or "") if "msg" in body else ""
        self.request_id = str(body.get("request_id") or "")

    def __str__(self) -> str:
        origin = f" (source: {self.source}, status: {self.status})" if self.source else ""
        return f"{self.prefix}: [{self.code}] {self.error}{origin}"


class RequestRefused(WallarooAPIError):
    """A refusal that starts with what was refused, in words that notebooks know where they do, before the reason."""

    @classmethod
    def because(cls, first_words: str, cause: WallarooAPIError) -> RequestRefused:
        return cls(cause.code, cause.status, cause.error, cause.source, cause.response, first_words)

    def __str__(self) -> str:
        return f"{self.prefix} {self.error}".strip()


@contextmanager
def refused_as(first_words: str) -> Iterator[None]:
    """Has what the platform refuses in the block start with these words. A refusal that has its own keeps them."""
    try:
        yield
    except RequestRefused:
        raise
    except WallarooAPIError as error:
        raise RequestRefused.because(first_words, error) from None


class ModelUploadError(WallarooAPIError):
    default_prefix = "Model failed to upload"


class InferenceError(WallarooAPIError):
    default_prefix = "Inference failed"


class Object:
    """Something on the platform, known by a record that may be partial: what is missing is fetched when asked for."""

    def __init__(self, client: Client, record: Mapping[str, Any]) -> None:
        self._client = client
        self._record: dict[str, Any] = dict(record)

    def rehydrate(self) -> None:
        """Fetch the record again; afterwards the object says what the platform says now."""
        self._record.update(self._fetch())

    def _fetch(self) -> Mapping[str, Any]:
        """The whole record, from the platform."""
        return {}

    def _get(self, name: str) -> Any:
        """An attribute that a whole record always has; its value may be None.

        Raises:
            RequiredAttributeMissing: the platform's own record lacks it.
        """
        if name not in self._record:
            self.rehydrate()
        if name not in self._record:
            raise RequiredAttributeMissing(type(self).__name__, name)
        return self._record[name]

    def _time(self, name: str) -> datetime | None:
        value: str | None = self._get(name)
        return _times.parse(value)
