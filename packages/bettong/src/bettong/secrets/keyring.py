"""The key ring: AES-256-GCM for connection details, with keys that live outside the database.

A sealed value is `version (1 byte) | key id (8) | nonce (12) | ciphertext and tag`. Version, key id and the id of
the record it belongs to are authenticated: a sealed value that was copied to another record does not open.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
from typing import TYPE_CHECKING, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from bettong.errors import BadInput, Unavailable
from bettong.secrets.files import make_once, read_private, replace_private

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from bettong.domain.ports import FactStore

KEY_BYTES = 32
KEY_FILE = "connections.keys"
CANARY = "key-canary"
_VERSION = b"\x01"
_ID_BYTES, _NONCE_BYTES, _TAG_BYTES = 8, 12, 16
_HEAD_BYTES = 1 + _ID_BYTES
_CANARY_TEXT = b"the right key opens this"


class KeyUnavailable(Unavailable):
    """No key of the ring opens (or, with an empty ring, seals) a value. Names key ids, never keys."""


class KeyRing:
    """Several keys: the first one seals, any opens. Safe to use from many threads; never prints, copies or pickles."""

    __slots__ = ("_ciphers", "_sealing", "problems")

    def __init__(self, keys: Iterable[bytes], *, problems: tuple[str, ...] = (), may_seal: bool = True) -> None:
        """`keys` have 32 bytes each. `problems` say, for people, what is wrong with the ring."""
        self._ciphers: dict[bytes, AESGCM] = {}
        for key in keys:
            if len(key) != KEY_BYTES:
                raise BadInput(f"A key has {len(key)} bytes.", f"A key is {KEY_BYTES} random bytes.")
            self._ciphers.setdefault(_id_of(key), AESGCM(key))
        self._sealing = next(iter(self._ciphers), None) if may_seal else None
        self.problems = problems

    def __repr__(self) -> str:
        return f"KeyRing(key_ids={list(self.key_ids)})"

    def __reduce__(self) -> NoReturn:
        raise TypeError("A key ring stays in its process: it is not pickled or copied.")

    @property
    def key_ids(self) -> tuple[str, ...]:
        """Public names of the keys, the sealing one first."""
        return tuple(key_id.hex() for key_id in self._ciphers)

    def seal(self, plain: bytes, *, bound_to: str) -> bytes:
        """Encrypt with the first key. Opens only with the same `bound_to`.

        Raises:
            KeyUnavailable: the ring has no key to seal with.
        """
        if (sealing := self._sealing) is None:
            raise KeyUnavailable(
                "There is no key to seal connection details with.", " ".join(self.problems) or "Provide a key."
            )
        head = _VERSION + sealing
        nonce = os.urandom(_NONCE_BYTES)
        return head + nonce + self._ciphers[sealing].encrypt(nonce, plain, head + bound_to.encode())

    def open(self, sealed: bytes, *, bound_to: str) -> bytes:
        """Decrypt what `seal` made for the same `bound_to`.

        Raises:
            KeyUnavailable: the ring lacks its key (the id is named), or the value was altered or belongs elsewhere.
        """
        if sealed[:1] != _VERSION or len(sealed) < _HEAD_BYTES + _NONCE_BYTES + _TAG_BYTES:
            raise KeyUnavailable(
                "The sealed details are not of a form that this release knows.",
                "Restore the database from a backup, or start the bettong that wrote it.",
            )
        head, key_id = sealed[:_HEAD_BYTES], sealed[1:_HEAD_BYTES]
        if (cipher := self._ciphers.get(key_id)) is None:
            raise KeyUnavailable(
                f"The details are sealed with key {key_id.hex()}, which this platform does not have "
                f"(it has: {', '.join(self.key_ids) or 'none'}).",
                "Bring that key back: its file in the keys folder, or its text in BETTONG_KEYS.",
            )
        nonce, ciphertext = sealed[_HEAD_BYTES : _HEAD_BYTES + _NONCE_BYTES], sealed[_HEAD_BYTES + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, ciphertext, head + bound_to.encode())
        except InvalidTag:
            raise KeyUnavailable(
                f"The details do not open with key {key_id.hex()}: they were altered or copied from another record.",
                "Restore the record from a backup, or delete it and make it again.",
            ) from None

    def put_first(self, key: bytes) -> str:
        """Seal with `key` from now on; every other one goes on opening. The new key's id.

        Raises:
            BadInput: it has not 32 bytes.
            KeyUnavailable: the ring has no key to seal with: what is wrong with it is to be mended first.
        """
        if self._sealing is None:
            raise KeyUnavailable("The keys of this platform are not whole.", " ".join(self.problems) or "Mend them.")
        if len(key) != KEY_BYTES:
            raise BadInput(f"A key has {len(key)} bytes.", f"A key is {KEY_BYTES} random bytes.")
        added = _id_of(key)
        self._ciphers = {added: AESGCM(key), **self._ciphers}  # before it is the one that seals: others run meanwhile
        self._sealing = added
        return added.hex()

    def sealed_by_first(self, sealed: bytes) -> bool:
        """Whether a value carries the id of the sealing key, that is, needs no re-sealing."""
        return self._sealing is not None and sealed[:_HEAD_BYTES] == _VERSION + self._sealing


def key_id_of(sealed: bytes) -> str:
    """The id of the key that a value is sealed under; "" when it is not of a form that this release knows."""
    return sealed[1:_HEAD_BYTES].hex() if sealed[:1] == _VERSION and len(sealed) >= _HEAD_BYTES else ""


def add_key_to_file(folder: Path, ring: KeyRing) -> str:
    """Make a key, keep it in front of those in the key file, and have `ring` seal with it; its id.

    The file has it before the ring: what is sealed under a key can be opened after any crash. Not for two callers at
    once; the server that has the platform's home is the only one.

    Raises:
        BadInput: others than its owner can reach the file, or it is not whole.
        KeyUnavailable: there is no file, or the ring has no key to seal with.
    """
    file = folder / KEY_FILE
    try:
        kept = read_private(file)
    except FileNotFoundError:
        raise KeyUnavailable(f"The key file {file} is missing.", "Bring it back.") from None
    if ring.problems:
        raise KeyUnavailable("The keys of this platform are not whole.", " ".join(ring.problems))
    key = os.urandom(KEY_BYTES)
    replace_private(file, base64.b64encode(key) + b"\n" + kept)
    return ring.put_first(key)


def open_ring(folder: Path, keys: tuple[str, ...], *, sealed_rows_exist: bool, keys_required: bool = False) -> KeyRing:
    """The ring from `keys` if there are any, else from the key file in `folder`.

    Only when neither exists, and no sealed row either, a key is made, once: of two platforms starting together both
    get the same. Everything that is wrong with the keys is told in the ring's `problems`; the ring then holds what is
    left, and a value whose key is missing does not open. Nothing is ever replaced.

    Args:
        folder: the platform's keys folder.
        keys: base64 texts of 32 bytes each, the sealing one first; they come from BETTONG_KEYS.
        sealed_rows_exist: whether the database has sealed details already.
        keys_required: a key may not live on this machine alone (PostgreSQL).

    Raises:
        BadInput: `keys_required` and there are none.
    """
    if keys:
        return _from_texts(keys, "BETTONG_KEYS")
    if keys_required:
        raise BadInput(
            "A platform on PostgreSQL has no BETTONG_KEYS: its keys must not live on one machine alone.",
            "Set it to the base64 of 32 random bytes, for example from: openssl rand -base64 32",
        )
    file = folder / KEY_FILE
    if not file.exists() and not sealed_rows_exist:
        make_once(file, base64.b64encode(os.urandom(KEY_BYTES)) + b"\n")
    try:
        texts = read_private(file).decode("ascii", "replace").split()
    except FileNotFoundError:
        return KeyRing((), problems=(f"The key file {file} is missing while sealed connections exist. Bring it back.",))
    except (BadInput, OSError) as refused:
        return KeyRing((), problems=(str(refused),))
    if not texts:
        return KeyRing((), problems=(f"The key file {file} is empty. Bring its keys back.",))
    return _from_texts(tuple(texts), str(file))


def check_canary(ring: KeyRing, facts: FactStore, *, sealed_rows_exist: bool = True) -> str | None:
    """Whether the ring is the one this platform was used with; None if so, else what is wrong, in words.

    The canary is a value sealed at first use and opened at each start. It follows the first key, so that an old key
    can be retired. While no sealed row exists nothing can be lost: a canary that does not open is replaced.
    """
    kept = facts.get(CANARY)
    try:
        if kept is not None and ring.open(kept, bound_to=CANARY) == _CANARY_TEXT:
            if ring.sealed_by_first(kept):
                return None
        elif kept is not None and sealed_rows_exist:
            return "The key canary opens to something else. Restore the database from a backup."
    except KeyUnavailable as wrong:
        if sealed_rows_exist:
            return f"The keys are not those this platform was used with. {wrong.problem} {wrong.next_step}"
    try:
        facts.put(CANARY, ring.seal(_CANARY_TEXT, bound_to=CANARY))
    except KeyUnavailable as wrong:
        return str(wrong)
    return None


def _from_texts(texts: tuple[str, ...], source: str) -> KeyRing:
    keys: list[bytes] = []
    problems: list[str] = []
    for place, text in enumerate(texts, start=1):
        try:
            key = base64.b64decode(text.strip(), altchars=b"-_" if set(text) & {"-", "_"} else None, validate=True)
        except (binascii.Error, ValueError):
            key = b""
        if len(key) == KEY_BYTES:
            keys.append(key)
        else:
            problems.append(f"Key {place} of {source} is not the base64 of {KEY_BYTES} bytes. Correct it.")
    # With the first key unreadable nothing is sealed: the second may be one on its way out.
    first_is_readable = not any(problem.startswith("Key 1 ") for problem in problems)
    return KeyRing(keys, problems=tuple(problems), may_seal=first_is_readable)


def _id_of(key: bytes) -> bytes:
    return hashlib.sha256(b"bettong key id\0" + key).digest()[:_ID_BYTES]
