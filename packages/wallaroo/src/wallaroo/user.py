"""People of the platform."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wallaroo.object import EntityNotFoundError, Object, UserLimitError, WallarooAPIError

if TYPE_CHECKING:
    from wallaroo.client import Client

REMOVED = "Removed User"


class User(Object):
    def id(self) -> str:
        return str(self._get("id"))

    def email(self) -> str:
        return str(self._get("email"))

    def username(self) -> str:
        return str(self._get("username"))

    def enabled(self) -> bool:
        return bool(self._get("enabled"))

    def __repr__(self) -> str:
        shown = {"id": self.id(), "email": self.email(), "username": self.username(), "enabled": self.enabled()}
        return f"User({shown})"


def query(client: Client, user_ids: list[str] | None = None) -> list[User]:
    """All users, or the ones of these ids."""
    answer = client._transport.post("/v1/api/users/query", {} if user_ids is None else {"user_ids": user_ids})
    return [User(client, record) for record in answer["users"].values()]


def by_email(client: Client, email: str) -> User | None:
    return next((user for user in query(client) if user.email() == email), None)


def invite(client: Client, email: str, password: str | None) -> User:
    """The user of this address, invited if there was none.

    Raises:
        UserLimitError: the platform takes no more users.
    """
    if known := by_email(client, email):
        return known
    request = {"email": email} if password is None else {"email": email, "password": password}
    try:
        user_id = client._transport.post("/v1/api/users/invite", request)["id"]
    except WallarooAPIError as error:
        if error.code == 403:
            raise UserLimitError(error.error) from None
        raise
    return query(client, [user_id])[0]


def set_enabled(client: Client, email: str, enabled: bool) -> None:
    """Raises EntityNotFoundError for an unknown address."""
    try:
        client._transport.post(f"/v1/api/users/{'activate' if enabled else 'deactivate'}", {"email": email})
    except WallarooAPIError as error:
        if error.code == 404:
            raise EntityNotFoundError("User", {"email": email}, f"User not found: {email}. {error.error}") from None
        raise
