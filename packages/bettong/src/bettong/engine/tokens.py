"""Access tokens, verified without asking anyone.

An access token is a JWT signed with Ed25519 by the server. Its claims are `sub` (user id), `email`, `adm` (bool),
`ws` (list of workspace ids), `aud` = "bettong", `iat` and `exp` (seconds since the epoch, at most 60 apart). The
server's own code signs them; whoever holds the public key verifies them here.
"""

from __future__ import annotations

import base64
import binascii
import time
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bettong.domain.identity import AUDIENCE, Principal
from bettong.errors import BadInput, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAX_LIFE_S = 60
CLOCK_LEEWAY_S = 5  # how far the signer's clock may run ahead of ours; it never lengthens a token's life
MAX_TOKEN_BYTES = 16 * 2**10
MAX_CACHED = 1024

MISSING = "Jwt is missing"
DOES_NOT_HOLD = "Jwt verification fails"


class TokenVerifier:
    """Verifies access tokens against one public key, and remembers verified ones until they expire.

    Args:
        public_key: base64 of the raw 32 bytes of an Ed25519 public key.
        audience: whom tokens must be for.
        clock: seconds since the epoch, now.

    Raises:
        BadInput: `public_key` is not such a key.
    """

    def __init__(
        self,
        public_key: str,
        *,
        audience: str = AUDIENCE,
        clock: Callable[[], float] = time.time,
        max_cached: int = MAX_CACHED,
    ) -> None:
        try:
            self._key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public_key, validate=True))
        except (binascii.Error, ValueError) as broken:
            raise BadInput(
                "The public key for access tokens is not an Ed25519 key.", "Give base64 of its 32 raw bytes."
            ) from broken
        self._audience, self._clock = audience, clock
        self._max_cached = max_cached
        self._verified: dict[bytes, tuple[Principal, float]] = {}

    def verify(self, authorization: bytes | None) -> Principal:
        """The caller that an `Authorization` header proves.

        Raises:
            Unauthenticated: there is no bearer token, or it does not hold: forged, expired, of another audience, or
                of a longer life than 60 s. Which of these is not told.
        """
        if authorization is None or authorization[:7].lower() != b"bearer ":
            raise Unauthenticated(MISSING)
        token = authorization[7:].strip()
        if not token:
            raise Unauthenticated(MISSING)
        now = self._clock()
        if (known := self._verified.get(token)) is not None:
            principal, expires_at = known
            if now < expires_at:
                return principal
            del self._verified[token]
            raise Unauthenticated(DOES_NOT_HOLD)
        principal, expires_at = self._check(token, now)
        self._remember(token, principal, expires_at, now)
        return principal

    def _check(self, token: bytes, now: float) -> tuple[Principal, float]:
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(DOES_NOT_HOLD)
        try:
            claims = jwt.decode(
                token,
                self._key,
                algorithms=["EdDSA"],
                audience=self._audience,
                # times are checked below, by the clock we were given
                options={
                    "require": ["sub", "iat", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                    "verify_nbf": False,
                },
            )
            return _principal(claims, now)
        except (jwt.PyJWTError, ValueError, TypeError, KeyError, RecursionError):
            raise Unauthenticated(DOES_NOT_HOLD) from None

    def _remember(self, token: bytes, principal: Principal, expires_at: float, now: float) -> None:
        if len(self._verified) >= self._max_cached:
            self._verified = {kept: v for kept, v in self._verified.items() if now < v[1]}
        if len(self._verified) >= self._max_cached:
            del self._verified[next(iter(self._verified))]  # the oldest
        self._verified[token] = (principal, expires_at)


def _principal(claims: Mapping[str, object], now: float) -> tuple[Principal, float]:
    issued_at, expires_at = _seconds(claims["iat"]), _seconds(claims["exp"])
    if not now < expires_at <= min(issued_at, now + CLOCK_LEEWAY_S) + MAX_LIFE_S:
        raise ValueError("expired, or of a longer life than an access token has")
    user_id, email, is_admin, workspaces = claims["sub"], claims["email"], claims["adm"], claims["ws"]
    if not isinstance(user_id, str) or not isinstance(email, str) or not isinstance(is_admin, bool):
        raise TypeError("claims of other types")
    if not isinstance(workspaces, list) or any(type(workspace) is not int for workspace in workspaces):
        raise TypeError("ws is not a list of ids")
    return Principal(user_id, email, is_admin, frozenset(workspaces)), expires_at


def _seconds(claim: object) -> float:
    if isinstance(claim, bool) or not isinstance(claim, (int, float)):
        raise TypeError("a time that is not a number")
    return float(claim)
