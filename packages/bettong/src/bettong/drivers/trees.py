"""What a folder of this machine and a bucket somewhere have in common: files by relative path."""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from uuid import uuid4

from bettong.domain.drivers import Entry
from bettong.drivers.paths import inside
from bettong.errors import BadInput, Conflict, NotFound, StorageFull

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from bettong.domain.drivers import Egress

HIDDEN = (".", "_")  # how names begin that are nobody's data


class Tree(Protocol):
    """Paths are relative, with `/`, and without `..`: `files.checked` saw to that."""

    def files(self, folder: str) -> Iterator[str]:
        """Every file below a folder, at any depth, in order; none when there is no such folder."""

    def entries(self, folder: str) -> list[Entry]:
        """What lies right in a folder."""

    def is_file(self, path: str) -> bool: ...

    def open(self, path: str) -> AbstractContextManager[BinaryIO]:
        """A file to read, back and forth. Raises NotFound."""

    def create(self, path: str, *, replace: bool) -> AbstractContextManager[BinaryIO]:
        """A file to write. It is there, whole, when the block ends well, and not at all when it does not.

        Raises:
            Conflict: without `replace`: there is one.
        """

    def remove(self, path: str) -> None:
        """No error when it is gone."""


class LocalTree:
    """A folder below the allowed ones. Each path is checked again, links resolved, when it is used."""

    def __init__(self, root: Path, egress: Egress) -> None:
        self._root, self._egress = root, egress

    def files(self, folder: str) -> Iterator[str]:
        top = self._real(folder)
        for here, folders, names in os.walk(top):
            folders[:] = sorted(name for name in folders if not name.startswith(HIDDEN))
            for name in sorted(names):
                if not name.startswith(HIDDEN):
                    yield str(Path(folder) / Path(here).relative_to(top) / name)

    def entries(self, folder: str) -> list[Entry]:
        try:
            found = sorted(self._real(folder).iterdir())
        except OSError:
            raise NotFound(f"There is no folder '{folder or '.'}'.", "Browse from the top.") from None
        return [
            Entry(p.name, "folder" if p.is_dir() else "file", "" if p.is_dir() else f"{p.stat().st_size} bytes")
            for p in found
            if not p.name.startswith(".") and p.exists()
        ]

    def is_file(self, path: str) -> bool:
        return self._real(path).is_file()

    @contextmanager
    def open(self, path: str) -> Iterator[BinaryIO]:
        try:
            descriptor = os.open(self._real(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError:
            raise NotFound(
                f"The file '{path}' cannot be read.", "Check that it is there and who may read it."
            ) from None
        with os.fdopen(descriptor, "rb") as file:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise BadInput(f"'{path}' is not a regular file.", "Name a file.")
            yield file

    @contextmanager
    def create(self, path: str, *, replace: bool) -> Iterator[BinaryIO]:
        target = self._real(path)
        part = target.with_name(f".{target.name}.{uuid4().hex}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            if replace:
                part.replace(target)
            else:
                os.link(part, target)
        except FileExistsError:
            raise Conflict(f"There is a file '{path}' already.", "Use mode replace, or another name.") from None
        except OSError as refused:
            if refused.errno == errno.ENOSPC:
                raise StorageFull("The platform's machine has no space left for that file.", "Make some.") from None
            raise BadInput(
                f"The file '{path}' cannot be written ({os.strerror(refused.errno or 0)}).",
                "Check who may write there.",
            ) from None
        finally:
            with suppress(OSError):
                part.unlink(missing_ok=True)

    def remove(self, path: str) -> None:
        self._real(path).unlink(missing_ok=True)

    def _real(self, path: str) -> Path:
        return inside(str(self._root / path), self._egress)
