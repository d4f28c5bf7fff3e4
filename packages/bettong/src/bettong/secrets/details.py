"""What the details of a connection are bound to when they are sealed: its id and their version.

A value that was sealed by a release without versions is bound to the id alone. It opens as version 1 and as no other,
so an old password cannot be put back in force by copying its row to a later version. Re-sealing ends that form.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from bettong.errors import Unavailable

if TYPE_CHECKING:
    from bettong.domain.connections import SealedDetails
    from bettong.domain.ports import Keyring

FIRST = 1


def seal_details(keyring: Keyring, plain: bytes, connection_id: str, version: int) -> bytes:
    """Raises Unavailable when the ring has no key to seal with."""
    return keyring.seal(plain, bound_to=_bound(connection_id, version))


def open_details(keyring: Keyring, kept: SealedDetails) -> bytes:
    """The details in clear. Raises Unavailable when no key of the ring opens them, or they do not belong there."""
    try:
        return keyring.open(kept.sealed, bound_to=_bound(kept.connection_id, kept.version))
    except Unavailable:
        if kept.version != FIRST:
            raise
        return keyring.open(kept.sealed, bound_to=kept.connection_id)


def is_of_old_form(keyring: Keyring, kept: SealedDetails) -> bool:
    """Whether details that can be opened are bound to the id alone."""
    if kept.version != FIRST:
        return False
    try:
        keyring.open(kept.sealed, bound_to=_bound(kept.connection_id, kept.version))
    except Unavailable:
        return True
    return False


def _bound(connection_id: str, version: int) -> str:
    return f"{connection_id}/{version}"
