"""Who is calling: tokens to Principals, and the users of this platform."""

from __future__ import annotations

import hashlib
import re
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bettong.domain.identity import AuditEvent, Principal
from bettong.errors import BadInput, Conflict, Forbidden, NotFound, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from bettong.domain.identity import User
    from bettong.domain.ports import AuditStore, UserStore, WorkspaceStore

TOKEN_PREFIX = "bt_"
ACCESS_TOKEN_LIFE_S = 60
_EMAIL = re.compile(r"[^\s@\x00-\x1f\x7f]{1,64}@[^\s@\x00-\x1f\x7f]{1,189}")


class AccessTokens(Protocol):
    """Makes and checks access tokens. `secrets.signing.Signer` does."""

    def mint(self, principal: Principal, now: datetime) -> str: ...
    def verify(self, token: str, now: datetime) -> Principal:
        """Whom a token names. Raises Unauthenticated when it does not hold."""


@dataclass(frozen=True, slots=True)
class Session:
    """An access token and whom it names. `expires_in` is in seconds. The token is kept out of reprs."""

    access_token: str
    expires_in: int
    principal: Principal
    username: str

    def __repr__(self) -> str:
        return f"Session(user={self.principal.email!r}, expires_in={self.expires_in})"


class IdentityService:
    """`clock` gives aware UTC times."""

    def __init__(
        self,
        users: UserStore,
        workspaces: WorkspaceStore,
        tokens: AccessTokens,
        audit: AuditStore,
        clock: Callable[[], datetime],
    ) -> None:
        self._users, self._workspaces, self._tokens = users, workspaces, tokens
        self._audit, self._clock = audit, clock

    def authenticate(self, bearer: str | None, origin: str) -> Principal:
        """The caller that a token proves, whichever of the two kinds it is.

        Of an access token just the user is taken; memberships and rights are looked up afresh, so that a workspace
        made a second ago is there and a user switched off a second ago is not.

        Raises:
            Unauthenticated: no token, or one that does not hold.
        """
        if not bearer:
            raise Unauthenticated("Jwt is missing")
        is_api_token = bearer.startswith(TOKEN_PREFIX)
        user = self._users.by_token(_hash(bearer)) if is_api_token else self._named_by(bearer)
        if user is None or not user.enabled:
            raise Unauthenticated("Jwt verification fails")
        return self._principal(user, origin)

    def exchange(self, principal: Principal) -> Session:
        """An access token for a caller that is known already; replicas take no other kind."""
        user = self._users.get(principal.user_id)
        token = self._tokens.mint(principal, self._clock())
        return Session(token, ACCESS_TOKEN_LIFE_S, principal, user.username)

    def query(self, principal: Principal, user_ids: Iterable[str] | None = None) -> list[User]:
        """The users with these ids, unknown ones left out; all for None. Anyone who is logged in may ask."""
        wanted = None if user_ids is None else frozenset(user_ids)
        return [u for u in self._users.all() if wanted is None or u.id in wanted]

    def invite(self, principal: Principal, email: str, *, password: str | None = None) -> User:
        """Make a user; one whose address is known is the answer already.

        Raises:
            NotFound: the caller is not an administrator.
            BadInput: this is no e-mail address, or a password was given.
        """
        _administrators_only(principal)
        if password is not None:
            raise BadInput(
                "A password was given, and this release has no login by password.",
                "Leave 'password' out; give the user an API token with 'bettong tokens create'.",
            )
        check_email(email)
        if (known := self._users.by_email(email)) is not None:
            return known
        try:
            user = self._users.add(email, email.partition("@")[0], is_admin=False)
        except Conflict:  # invited twice at once
            if (known := self._users.by_email(email)) is None:
                raise
            return known
        self._record(principal, "user.invite", user)
        return user

    def set_enabled(self, principal: Principal, email: str, enabled: bool) -> User:
        """Let a user in, or lock one out; open access tokens of a locked-out user end within their minute.

        Raises:
            NotFound: the caller is not an administrator, or nobody has that address.
            BadInput: the caller would lock themselves out.
        """
        _administrators_only(principal)
        user = self._known(email)
        if user.id == principal.user_id and not enabled:
            raise BadInput("You cannot deactivate yourself.", "Ask another administrator to do it.")
        changed = self._users.set_enabled(user.id, enabled)
        self._record(principal, "user.activate" if enabled else "user.deactivate", changed)
        return changed

    def ensure_owner(self, email: str, username: str, token: str) -> User:
        """The first administrator, known by `token`. Running it again changes nothing.

        Raises:
            Conflict: a user of that address exists and is no administrator.
        """
        user = self._users.by_email(email)
        if user is None:
            user = self._users.add(email, username, is_admin=True)
        elif not user.is_admin:
            raise Conflict(f"User {email} exists and is no administrator.", "Start with another owner's address.")
        self._users.add_token(user.id, _hash(token), "owner")
        return user

    def create_token(self, principal: Principal, email: str, label: str) -> tuple[str, User]:
        """A new API token for a user: the only time it is told; what is kept is its SHA-256.

        Raises:
            NotFound: the caller is not an administrator, or nobody has that address.
            BadInput: the user is locked out.
        """
        _administrators_only(principal)
        user = self._known(email)
        if not user.enabled:
            raise BadInput(
                "That user is deactivated; a token would let nobody in.",
                "Activate the user first: wl.activate_user(email), or POST /v1/api/users/activate.",
            )
        token = TOKEN_PREFIX + secrets.token_urlsafe(32)
        self._record(principal, "user.token", user)  # first: no token without a word
        self._users.add_token(user.id, _hash(token), label)
        return token, user

    def acting_for(self, user_id: str, origin: str) -> Principal:
        """The Principal of a user for whom the platform itself works, with the rights that the user has now.

        Raises:
            Forbidden: the user is gone, or switched off.
        """
        try:
            user = self._users.get(user_id)
        except NotFound:
            user = None
        if user is None or not user.enabled:
            raise Forbidden("The user who made this is deactivated, or gone.", "Have somebody else make it anew.")
        return self._principal(user, origin)

    def principal_of(self, email: str, origin: str) -> Principal:
        """The Principal for a user who is known by other means than a token: the person at the command line."""
        return self._principal(self._known(email), origin)

    def _named_by(self, access_token: str) -> User | None:
        try:
            return self._users.get(self._tokens.verify(access_token, self._clock()).user_id)
        except (Unauthenticated, NotFound):
            return None

    def _principal(self, user: User, origin: str) -> Principal:
        return Principal(user.id, user.email, user.is_admin, self._workspaces.ids_of(user.id), origin)

    def _known(self, email: str) -> User:
        if (user := self._users.by_email(email)) is None:
            raise NotFound(
                "No user of this platform has that e-mail address.",
                "Invite the user first: wl.invite_user(email), or bettong tokens create EMAIL --invite.",
            )
        return user

    def _record(self, principal: Principal, action: str, user: User) -> None:
        self._audit.record(
            AuditEvent(
                self._clock(), principal.user_id, principal.email, principal.origin, action, "user", user.id, user.email
            )
        )


def check_email(email: str) -> str:
    """Return `email` if it looks like one. Raises BadInput otherwise."""
    if not _EMAIL.fullmatch(email):
        raise BadInput("This is not an e-mail address.", "Write it as name@host, without spaces.")
    return email


def _administrators_only(principal: Principal) -> None:
    if not principal.is_admin:
        raise NotFound("There is nothing here that you may do.", "Ask an administrator of this platform to do it.")


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "replace")).digest()
