"""The login of a Google service account: the fields of its JSON in the details, and access tokens for it."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlencode

from pydantic import AliasChoices, Field, SecretStr, model_validator

from bettong.drivers.details import Details
from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.drivers import web

TOKENS = "https://oauth2.googleapis.com/token"
_FORM = "application/x-www-form-urlencoded"
_WHOLE = ("service_account", "service_account_json")
_BESIDE = frozenset(  # what Google puts into a service account's JSON, too
    {
        "type",
        "project_id",
        "client_id",
        "auth_uri",
        "auth_provider_x509_cert_url",
        "client_x509_cert_url",
        "universe_domain",
    }
)


@dataclass(frozen=True, slots=True)
class Account:
    """Who asks for tokens, and where."""

    client_email: str
    private_key: str = field(repr=False)
    private_key_id: str
    token_uri: str


class ServiceAccountDetails(Details):
    """A service account's JSON, field by field or as one text. What stands in the text counts where a field of its own
    is not given."""

    stand_ins: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(_WHOLE, ("project_id",))
    also_known: ClassVar[frozenset[str]] = _BESIDE

    client_email: str = ""
    private_key: SecretStr = SecretStr("")
    private_key_id: str = ""
    token_uri: str = TOKENS
    service_account: SecretStr = Field(
        SecretStr(""),
        validation_alias=AliasChoices(*_WHOLE),
        description="The service account's JSON as one text, instead of its fields.",
    )

    @model_validator(mode="before")
    @classmethod
    def _from_whole(cls, values: Any) -> Any:
        whole = next((values[name] for name in _WHOLE if values.get(name)), None)
        if not isinstance(whole, str):
            return values
        try:
            found = json.loads(whole)
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise ValueError("'service_account' is not a service account's JSON")
        return {**found, **values}

    def account(self) -> Account | None:
        """The login; None when these details hold none, or half of one."""
        key = self.private_key.get_secret_value()
        if not self.client_email or not key:
            return None
        return Account(self.client_email, key, self.private_key_id, self.token_uri)


class Tokens:
    """Access tokens of a service account, each for as long as it holds."""

    def __init__(self, client: web.Client, account: Account, scope: str) -> None:
        self._client, self._account, self._scope = client, account, scope
        self._token, self._until = "", 0.0

    def current(self) -> str:
        """Raises BadInput for a login that is refused, Unavailable when nobody answers."""
        if time.time() > self._until - 60:
            self._token, life_s = self._ask()
            self._until = time.time() + life_s
        return self._token

    def _ask(self) -> tuple[str, float]:
        import jwt

        from bettong.drivers import web

        now = int(time.time())
        account = self._account
        claims = {
            "iss": account.client_email,
            "scope": self._scope,
            "aud": account.token_uri,
            "iat": now,
            "exp": now + 3600,
        }
        key = account.private_key.replace("\\n", "\n")
        try:
            signed = jwt.encode(claims, key, "RS256", {"kid": account.private_key_id})
        except (ValueError, TypeError, jwt.PyJWTError):
            raise BadInput(
                "The private key of the service account is none.", "Paste it whole, from its JSON."
            ) from None
        body = urlencode({"grant_type": "urn:ietf:params:oauth:grant-type:jwt-bearer", "assertion": signed}).encode()
        address, headers = web.parse(account.token_uri), {"content-type": _FORM, "content-length": str(len(body))}
        with self._client.send("POST", address, headers, body, max_bytes=web.MAX_SMALL_BYTES) as answer:
            if answer.status == 429 or answer.status >= 500:
                raise Unavailable("The token service cannot answer just now.", "Try again in a moment.")
            if answer.status != 200:
                raise BadInput(
                    "Google refuses the login of this service account.", "Check that its key is still valid."
                )
            try:
                found = json.loads(b"".join(answer.chunks))
                return str(found["access_token"]), float(found.get("expires_in", 3600))
            except (ValueError, KeyError, TypeError):
                raise Unavailable("The token service gives an answer that is none.", "Check token_uri.") from None
