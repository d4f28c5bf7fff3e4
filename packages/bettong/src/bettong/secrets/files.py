"""Files that only their owner may read: made once and whole, refused when anybody else could read them."""

from __future__ import annotations

import os
import secrets
import stat
from typing import TYPE_CHECKING

from bettong.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 64 * 2**10


def make_once(path: Path, content: bytes) -> bool:
    """Make the file with mode 0600, in a folder of mode 0700, unless it is there. True if this call made it.

    Of several callers at once exactly one makes it; the others find its whole content, never a part.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # a key that a power cut takes away would take what it sealed with it
        try:
            os.link(draft, path)  # unlike a rename, fails when the name is taken
        except FileExistsError:
            return False
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return True


def replace_private(path: Path, content: bytes) -> None:
    """Put `content` in place of what the file holds, in one step: killed at any moment, the old or the new is there."""
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def read_private(path: Path) -> bytes:
    """The content of a file that nobody but its owner can reach.

    Raises:
        BadInput: group or others may read or write the file, or enter its folder; or it is not a file of this user.
        FileNotFoundError: there is none.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in (os.geteuid(), 0):
            raise BadInput(f"{path} is not a file of the user who runs bettong.", "Put the right file there.")
        if stat.S_IMODE(found.st_mode) & 0o077:
            raise BadInput(
                f"{path} has mode {stat.S_IMODE(found.st_mode):04o}: others than its owner may read it.",
                f"If nobody has, run: chmod 600 '{path}'; else replace the key.",
            )
        folder = os.stat(path.parent)
        if stat.S_IMODE(folder.st_mode) & 0o022:
            raise BadInput(
                f"The folder {path.parent} has mode {stat.S_IMODE(folder.st_mode):04o}: others may change its files.",
                f"Run: chmod 700 '{path.parent}'",
            )
        return file.read(MAX_BYTES)


def _sync_folder(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
