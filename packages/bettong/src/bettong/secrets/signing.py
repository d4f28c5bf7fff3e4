"""Access tokens: short-lived JWTs (EdDSA) that name a user and the workspaces the user belongs to.

Replicas check them against the public key in their deployment file; only the server holds the private one.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any, NoReturn

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from bettong.domain.identity import AUDIENCE, Principal
from bettong.errors import BadInput, Unauthenticated
from bettong.secrets.files import make_once, read_private

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

MAX_LIFE_S = 60
KEY_FILE = "signing.pem"


class Signer:
    """Makes and checks access tokens. Never prints, copies or pickles its key."""

    __slots__ = ("_key", "_public", "public_key")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self._public = key.public_key()
        raw = self._public.public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_key = base64.b64encode(raw).decode()  # raw Ed25519, 32 bytes, as deployment files carry it

    def __repr__(self) -> str:
        return f"Signer(public_key={self.public_key!r})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A signer stays in its process: it is not pickled or copied.")

    def mint(self, principal: Principal, now: datetime, life_s: int = MAX_LIFE_S, *, audience: str = AUDIENCE) -> str:
        """A token that proves `principal` (its origin aside) from `now`, aware, for 1 to 60 seconds.

        With another `audience` it holds at the one deployment that is private to it, and nowhere else.
        """
        if not 1 <= life_s <= MAX_LIFE_S:
            raise ValueError(f"An access token lives 1 to {MAX_LIFE_S} s, not {life_s}.")
        claims: dict[str, Any] = {
            "sub": principal.user_id,
            "email": principal.email,
            "adm": principal.is_admin,
            "ws": sorted(principal.workspace_ids),
            "aud": audience,
            "iat": int(now.timestamp()),
            "exp": int(now.timestamp()) + life_s,
        }
        return jwt.encode(claims, self._key, algorithm="EdDSA")

    def verify(self, token: str, now: datetime) -> Principal:
        """The principal a token proves at `now`; its origin is left for the caller to fill in.

        Raises:
            Unauthenticated: this key did not sign it, it has run out, or it is not an access token of ours.
        """
        try:
            claims = jwt.decode(
                token,
                self._public,
                algorithms=["EdDSA"],
                audience=AUDIENCE,
                options={
                    "require": ["sub", "email", "adm", "ws", "aud", "iat", "exp"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            issued, expires = int(claims["iat"]), int(claims["exp"])
            principal = Principal(
                user_id=str(claims["sub"]),
                email=str(claims["email"]),
                is_admin=claims["adm"] is True,
                workspace_ids=frozenset(int(workspace) for workspace in claims["ws"]),
            )
        except (jwt.InvalidTokenError, TypeError, ValueError):
            raise Unauthenticated("The access token does not hold.", "Ask the server for a new one.") from None
        # Checked here and not by the library, which asks the wall clock. One second is lost to whole seconds.
        at = now.timestamp()
        if not issued - 1 <= at < expires or expires - issued > MAX_LIFE_S:
            raise Unauthenticated("The access token has run out.", "Ask the server for a new one.")
        return principal


def open_signer(folder: Path) -> Signer:
    """The platform's signer, from its key file in `folder`; the key is made at the first call, once for all starters.

    Raises:
        BadInput: the file is not an Ed25519 key, or others than its owner can reach it.
    """
    file = folder / KEY_FILE
    if not file.exists():
        make_once(
            file,
            Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
        )
    try:
        key = load_pem_private_key(read_private(file), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(
            f"{file} is not an Ed25519 private key.",
            "Restore it, or delete it: a new one is made, and running deployments take new tokens after a redeploy.",
        )
    return Signer(key)
