"""An uploaded zip becomes a read-only folder. Nothing the zip says about itself is believed; nothing in it is run."""

from __future__ import annotations

import errno
import os
import re
import stat
import struct
import zipfile
import zlib
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

from bettong.errors import BadInput, StorageFull, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

NOT_A_ZIP = "Not a valid ZIP file."
KEPT_HIDDEN = frozenset({".python-version"})  # the one hidden file that says something to us; at the root only
MAX_NAME_BYTES, MAX_PART_BYTES = 1024, 255
MAX_DIRECTORY_BYTES = 16 * 2**20  # of the zip's own table of contents, which is read at once
CHUNK_BYTES = 2**20
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True, slots=True)
class UnpackLimits:
    """How far a zip may grow. The ratio counts only beyond `ratio_from_bytes`: small texts compress a lot."""

    max_bytes: int = 16 * 2**30
    max_entries: int = 50_000
    max_ratio: int = 100
    ratio_from_bytes: int = 64 * 2**20


class _Bounded:
    """A file whose single reads are bounded, so that a forged table of contents cannot fill the memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = file.seek(0, os.SEEK_END)
        file.seek(0)

    def read(self, size: int = -1) -> bytes:
        if size < 0:
            size = max(0, self._size - self._file.tell())
        if size > MAX_DIRECTORY_BYTES:
            raise TooLarge(
                f"The zip's table of contents has {size} bytes, more than {MAX_DIRECTORY_BYTES}.",
                "Put fewer files into it.",
            )
        return self._file.read(size)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def seekable(self) -> bool:
        return True


def require_zip(upload: BinaryIO) -> None:
    """Raises BadInput 'Not a valid ZIP file.' unless `upload` has a zip's table of contents. Reads no entry, and
    leaves `upload` at its start."""
    _open_zip(upload).close()
    upload.seek(0)


@contextmanager
def looked_into(path: Path) -> Iterator[zipfile.ZipFile]:
    """A zip to look into that is not to be unpacked: a model's own file may be one.

    Raises:
        BadInput: it is none, or turns out to be damaged or encrypted while it is read.
        TooLarge: its table of contents is.
    """
    try:
        with path.open("rb") as file, _open_zip(file) as zipped:
            yield zipped
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as broken:
        raise BadInput(f"{path.name} is a zip that is damaged or not complete.", "Upload it again.") from broken


def unpack(archive: Path, folder: Path, limits: UnpackLimits | None = None) -> list[str]:
    """Write the entries of `archive` below the new folder `folder`: files 0444, folders 0555; their names, sorted.

    Junk (`__MACOSX/`, `__pycache__/`, hidden files) is left out. When this raises, `folder` may be half written and
    is the caller's to remove.

    Raises:
        BadInput: it is no zip, is damaged or encrypted, or holds an entry that leads outside, is a link or a device,
            or comes twice.
        TooLarge: it unpacks to more entries or bytes than `limits` allows, counted while unpacking.
        StorageFull: the disk is.
    """
    limits = limits or UnpackLimits()
    try:
        with archive.open("rb") as file, _open_zip(file) as zipped:
            return _unpack(zipped, folder, limits, os.fstat(file.fileno()).st_size)
    except OSError as failed:
        if failed.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StorageFull("The disk is full while unpacking the model.", "Free space, then upload again.") from None
        raise


def _open_zip(file: BinaryIO) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(cast("BinaryIO", _Bounded(file)))
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as broken:
        raise BadInput(NOT_A_ZIP) from broken


def _unpack(zipped: zipfile.ZipFile, folder: Path, limits: UnpackLimits, archive_bytes: int) -> list[str]:
    entries = zipped.infolist()
    if len(entries) > limits.max_entries:
        raise TooLarge(
            f"The zip has {len(entries)} entries, more than {limits.max_entries}.", "Put fewer files into it."
        )
    folder.mkdir(mode=0o755)
    seen: set[str] = set()
    names: list[str] = []
    room = min(limits.max_bytes, max(limits.ratio_from_bytes, archive_bytes * limits.max_ratio))
    for entry in entries:
        parts = _checked_parts(entry)
        if _is_junk(parts):
            continue
        name = "/".join(parts)
        if name in seen and not entry.is_dir():
            raise BadInput(f"The zip holds {_shown(name)} twice.", "Zip each file once.")
        seen.add(name)
        target = folder.joinpath(*parts)
        try:
            if entry.is_dir():
                target.mkdir(parents=True, exist_ok=True, mode=0o755)
                continue
            target.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
            room -= _write(zipped, entry, target, room, name)
        except (FileExistsError, NotADirectoryError, IsADirectoryError):
            raise BadInput(f"The zip holds {_shown(name)} twice, as a file and as a folder.", "Zip it once.") from None
        names.append(name)
    for here, _, _ in os.walk(folder, topdown=False):
        os.chmod(here, 0o555)
    return sorted(names)


def _checked_parts(entry: zipfile.ZipInfo) -> tuple[str, ...]:
    """The name of an entry in parts that are safe to join to a folder."""
    name = entry.orig_filename  # `filename` has been cut at a NUL already
    parts = name.removesuffix("/").split("/")
    shown = _shown(name)
    if name.startswith("/") or "\\" in name or _DRIVE.match(name) or any(p in ("", ".", "..") for p in parts):
        raise BadInput(f"The zip's entry {shown} leads outside the model's folder.", "Zip it with relative names.")
    encoded = name.encode("utf-8", "surrogatepass")
    if not name.isprintable() or len(encoded) > MAX_NAME_BYTES or any(len(p.encode()) > MAX_PART_BYTES for p in parts):
        raise BadInput(
            f"The zip's entry {shown} has a name that is too long or holds control characters.", "Rename it."
        )
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise BadInput(
            f"The zip's entry {shown} is a link or a device.", "Zip the files themselves (zip without --symlinks)."
        )
    if entry.flag_bits & 0x41:  # bit 0: encrypted, bit 6: strongly
        raise BadInput(f"The zip's entry {shown} is encrypted.", "Zip without a password.")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        # the standard library unpacks bz2 and lzma in steps that are not bounded
        raise BadInput(
            f"The zip's entry {shown} is compressed by method {entry.compress_type}.", "Zip with 'deflate' or 'store'."
        )
    return tuple(parts)


def _is_junk(parts: tuple[str, ...]) -> bool:
    if len(parts) == 1 and parts[0] in KEPT_HIDDEN:
        return False
    return parts[0] == "__MACOSX" or "__pycache__" in parts or any(p.startswith(".") for p in parts)


def _write(zipped: zipfile.ZipFile, entry: zipfile.ZipInfo, target: Path, room: int, name: str) -> int:
    written = 0
    try:
        with zipped.open(entry) as source, target.open("xb") as sink:
            while chunk := source.read(CHUNK_BYTES):
                written += len(chunk)
                if written > room:
                    raise TooLarge(
                        f"The zip unpacks to more than is allowed, at the entry {_shown(name)}.",
                        "Put less into it, or ask for a higher limit.",
                    )
                sink.write(chunk)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError) as broken:
        raise BadInput(f"The zip's entry {_shown(name)} is damaged.", "Zip the files again.") from broken
    target.chmod(0o444)
    return written


def _shown(name: str) -> str:
    """A hostile name in a message: quoted, escaped, cut."""
    return ascii(name if len(name) <= 80 else name[:77] + "...")
