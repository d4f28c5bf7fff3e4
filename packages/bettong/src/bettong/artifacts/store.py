"""Content-addressed files: `ab/abcdef…` under a folder of this machine or any fsspec URL.

A file appears under its name whole or not at all, and its bytes are checked against the name whenever it is fetched.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Protocol, cast
from uuid import uuid4

from bettong.errors import BadInput, NotFound, StorageFull, TooLarge, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

_SHA = re.compile(r"[0-9a-f]{64}")
_CHUNK_BYTES = 2**20
_ABANDONED_AFTER_S = 24 * 3600.0


class Artifacts:
    """Keeps uploaded files. Safe to use from many threads and processes."""

    def __init__(self, shelf: Shelf) -> None:
        self._shelf = shelf

    def put(self, source: BinaryIO, *, max_bytes: int) -> tuple[str, int]:
        """Keep a stream, read to its end; (SHA-256 hex, bytes). The same bytes are kept once, however often they come.

        After any error nothing is kept.

        Raises:
            TooLarge: the stream has more than `max_bytes`.
            StorageFull: the disk has no room for it.
            Unavailable: the store does not take it.
        """
        with _in_our_words(), self._shelf.draft() as (path, draft):
            sha, size = _copy(source.read, draft, max_bytes)
            draft.flush()
            os.fsync(draft.fileno())  # a name must not outlive a power cut that its bytes do not
            self._shelf.publish(path, _key(sha))
        return sha, size

    def fetch(self, sha: str, to: Path) -> Path:
        """Write the artifact to the file `to` (mode 0600), checked against its SHA-256; returns `to`.

        After an error there is no new file at `to`.

        Raises:
            NotFound: no artifact has this SHA-256.
            StorageFull: the disk has no room for it.
            Unavailable: the store does not answer, or what it holds is damaged.
        """
        if not _SHA.fullmatch(sha):
            raise _unknown(sha)
        part = to.with_name(f".{to.name}.{uuid4().hex}")
        try:
            with _in_our_words():
                try:
                    stored = self._shelf.open(_key(sha))
                except FileNotFoundError:
                    raise _unknown(sha) from None
                descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with stored, os.fdopen(descriptor, "wb") as file:
                    found, size = _copy(stored.read, file, None)
                if found != sha:
                    raise Unavailable(
                        f"Artifact {sha} is damaged: its {size} bytes have the SHA-256 {found}.",
                        "Upload the file again, or restore the artifact store from a backup.",
                    )
                part.replace(to)
        finally:
            part.unlink(missing_ok=True)
        return to

    def exists(self, sha: str) -> bool:
        if not _SHA.fullmatch(sha):
            return False
        with _in_our_words():
            return self._shelf.has(_key(sha))


class Shelf(Protocol):
    """Where whole files are kept under keys such as `ab/abcdef…`. Failures are OSErrors."""

    def draft(self) -> AbstractContextManager[tuple[Path, BinaryIO]]:
        """A new private file of this machine, open for writing; closed and gone at the end."""

    def publish(self, draft: Path, key: str) -> None:
        """Make the draft's bytes appear under `key`, all at once, in place of any that are there."""

    def open(self, key: str) -> BinaryIO: ...
    def has(self, key: str) -> bool: ...


class LocalShelf:
    """A folder of this machine, private to its owner; files have mode 0600."""

    def __init__(self, root: Path) -> None:
        self._root, self._incoming = root, root / "incoming"
        with _in_our_words():
            for folder in (root, self._incoming):
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _drop_abandoned(self._incoming, before_s=time.time() - _ABANDONED_AFTER_S)

    @contextmanager
    def draft(self) -> Iterator[tuple[Path, BinaryIO]]:
        path = self._incoming / uuid4().hex
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                yield path, file
        finally:
            path.unlink(missing_ok=True)

    def publish(self, draft: Path, key: str) -> None:
        target = self._root / key
        target.parent.mkdir(mode=0o700, exist_ok=True)
        draft.replace(target)  # also when it is there: fresh bytes mend a file that was damaged

    def open(self, key: str) -> BinaryIO:
        return (self._root / key).open("rb")

    def has(self, key: str) -> bool:
        return (self._root / key).is_file()


class FsspecShelf:
    """Anything fsspec can reach (`memory://`, `s3://` …). A file is uploaded whole, under its final name."""

    def __init__(self, url: str) -> None:
        import fsspec

        try:
            self._files, self._root = fsspec.url_to_fs(url)
        except (ImportError, ValueError) as refused:
            raise BadInput(
                f"The artifact store's URL scheme '{url.partition(':')[0]}' cannot be used ({refused}).",
                "Install the fsspec package for it, or take a folder.",
            ) from None

    @contextmanager
    def draft(self) -> Iterator[tuple[Path, BinaryIO]]:
        with tempfile.NamedTemporaryFile(prefix="bettong-artifact-") as file:  # mode 0600
            yield Path(file.name), cast("BinaryIO", file)

    def publish(self, draft: Path, key: str) -> None:
        target = f"{self._root}/{key}"
        self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(draft), target)

    def open(self, key: str) -> BinaryIO:
        return cast("BinaryIO", self._files.open(f"{self._root}/{key}", "rb"))

    def has(self, key: str) -> bool:
        return bool(self._files.isfile(f"{self._root}/{key}"))


def open_artifacts(url: str) -> Artifacts:
    """The store at `url`: a path or `file://` URL of this machine, else any fsspec URL. A local folder is made.

    Raises:
        BadInput: no such kind of store, or its package is not installed.
        Unavailable: the folder cannot be made.
    """
    scheme, mark, path = url.partition("://")
    if not mark or scheme == "file":
        return Artifacts(LocalShelf(Path(path or url)))
    return Artifacts(FsspecShelf(url))


def _copy(read: Callable[[int], bytes], file: BinaryIO, max_bytes: int | None) -> tuple[str, int]:
    """Copy to the end; (SHA-256 hex, bytes)."""
    digest, size = hashlib.sha256(), 0
    while chunk := read(_CHUNK_BYTES):
        size += len(chunk)
        if max_bytes is not None and size > max_bytes:
            raise TooLarge(f"The file has more than {max_bytes} bytes.", "Send a smaller one, or raise the limit.")
        digest.update(chunk)
        file.write(chunk)
    return digest.hexdigest(), size


def _drop_abandoned(incoming: Path, before_s: float) -> None:
    """Remove what killed uploads left behind; younger files may be another process's uploads in progress."""
    for draft in incoming.iterdir():
        with suppress(FileNotFoundError):  # somebody else was faster
            if draft.stat().st_mtime < before_s:
                draft.unlink()


@contextmanager
def _in_our_words() -> Iterator[None]:
    try:
        yield
    except OSError as refused:
        if refused.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk for artifacts is full.", "Free some space; nothing was kept.") from refused
        reason = refused.strerror or type(refused).__name__
        raise Unavailable(
            f"The artifact store does not answer ({reason}).", "Check the store and its rights, then try again."
        ) from refused


def _key(sha: str) -> str:
    return f"{sha[:2]}/{sha}"


def _unknown(sha: str) -> NotFound:
    return NotFound(f"No artifact has the SHA-256 '{sha}'.", "Upload the file again.")
