"""Who the caller is: API tokens, the short-lived access tokens made from them, and nobody.

AuthError
├─ TokenFetchError      no access token could be had for the token given
└─ TokenRefreshError    the access token ran out and no new one could be had
"""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from wallaroo.object import CommunicationError, WallarooAPIError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from wallaroo._wait import Clock

PAUSE_AFTER_FAILED_RENEWAL_S = 2.0
_NOT_TAKEN = (
    "The platform does not take this API token, or no longer. "
    "An administrator makes a new one with `bettong tokens create`."
)
ANONYMOUS_EMAIL = "default@ex.co"
ANONYMOUS_ID = "00000000-0000-0000-0000-000000000000"


class AuthError(Exception):
    def __init__(self, message: str, code: int | None = None) -> None:
        super().__init__(message, code)
        self.message, self.code = message, code

    def __str__(self) -> str:
        return self.message if self.code is None else f"[HTTP {self.code}] {self.message}"


class TokenFetchError(AuthError):
    pass


class TokenRefreshError(AuthError):
    pass


class Auth(Protocol):
    """What the rest of the SDK asks of a login."""

    def auth_header(self) -> dict[str, str]:
        """Headers for one call, valid now. May ask the server for a new token."""
        ...

    def user_id(self) -> str: ...

    def user_email(self) -> str: ...

    def renew(self) -> bool:
        """Drop a token that was refused. False when there is no other to be had."""
        ...

    def cover(self, workspace_id: int) -> None:
        """Have the next header name this workspace, if the platform grants it: replicas go by what a token names."""
        ...

    def forget(self) -> None:
        """Drop what was had of the platform; the next call logs in anew."""
        ...


class NoAuth:
    """No header at all, for platforms that ask for none."""

    def auth_header(self) -> dict[str, str]:
        return {}

    def user_id(self) -> str:
        return ANONYMOUS_ID

    def user_email(self) -> str:
        return ANONYMOUS_EMAIL

    def renew(self) -> bool:
        return False

    def cover(self, workspace_id: int) -> None:
        pass  # nothing is asked for, so nothing is missing

    def forget(self) -> None:
        pass


class TokenAuth:
    """Exchanges an API token for access tokens, and renews them once a third of their life has passed.

    While the server does not answer, the current access token is kept until it expires. Safe in several threads.

    Args:
        token: the API token; it goes to `exchange` and nowhere else.
        exchange: asks the server for `{"access_token", "expires_in", "user_id", "email", "is_admin", "workspace_ids"}`.
    """

    def __init__(self, token: str, exchange: Callable[[str], Mapping[str, Any]], clock: Clock) -> None:
        self._token, self._exchange, self._clock = token, exchange, clock
        self._lock = threading.Lock()
        self._answer: Mapping[str, Any] | None = None
        self._renew_at_s = self._expires_at_s = 0.0

    def __repr__(self) -> str:
        return f"TokenAuth(user_email={(self._answer or {}).get('email')!r})"

    def auth_header(self) -> dict[str, str]:
        """Raises TokenFetchError, TokenRefreshError, or CommunicationError when no valid token can be had."""
        return {"Authorization": f"Bearer {self._current()['access_token']}"}

    def user_id(self) -> str:
        return str(self._current()["user_id"])

    def user_email(self) -> str:
        return str(self._current()["email"])

    def renew(self) -> bool:
        with self._lock:
            self._renew_at_s = self._expires_at_s = 0.0
        return True

    def cover(self, workspace_id: int) -> None:
        with self._lock:
            answer = self._answer
            if answer and not answer["is_admin"] and workspace_id not in answer["workspace_ids"]:
                self._renew_at_s = 0.0

    def forget(self) -> None:
        with self._lock:
            self._answer = None

    def _current(self) -> Mapping[str, Any]:
        with self._lock:
            now_s = self._clock.now_s()
            if self._answer is None or now_s >= self._renew_at_s:
                self._fetch(now_s)
            assert self._answer is not None
            return self._answer

    def _fetch(self, now_s: float) -> None:
        try:
            answer = self._exchange(self._token)
        except CommunicationError:
            if not self._outlast(now_s):
                raise
            return
        except WallarooAPIError as error:
            if error.code >= 500 and self._outlast(now_s):
                return
            kind = TokenFetchError if self._answer is None else TokenRefreshError
            advice = f". {_NOT_TAKEN}" if error.code == 401 else ""
            raise kind(f"{error.error}{advice}", error.code) from None
        life_s = float(answer["expires_in"])
        self._answer = answer
        self._renew_at_s, self._expires_at_s = now_s + life_s / 3, now_s + life_s

    def _outlast(self, now_s: float) -> bool:
        """Keep the token in hand while it holds, and leave the server alone for a moment."""
        if self._answer is None or now_s >= self._expires_at_s:
            return False
        self._renew_at_s = min(now_s + PAUSE_AFTER_FAILED_RENEWAL_S, self._expires_at_s)
        return True


def read_credentials(path: str | None) -> str:
    """The token of a credentials file `{"token", "user_email", "user_id"}`.

    Raises:
        AuthError: there is no file, or no token in it. What the file holds is not part of the text.
    """
    variable = "WALLAROO_SDK_CREDENTIALS"
    if not path:
        raise AuthError(f"No token was provided. Set {variable} to the path of a JSON file with a 'token'.")
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise AuthError(f"The token file '{path}' named by {variable} cannot be read: {error.strerror}.") from None
    except ValueError:
        raise AuthError(f"The token file '{path}' named by {variable} is not JSON.") from None
    token = content.get("token") if isinstance(content, dict) else None
    if not isinstance(token, str) or not token:
        raise AuthError(f"The token file '{path}' named by {variable} has no 'token' text in it.")
    return token
