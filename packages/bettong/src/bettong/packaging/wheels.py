"""The wheels that bettong carries: its own distributions, made from what is installed here.

A model's environment needs `bettong-mac` in exactly the version that the platform runs, with no index asked, and the
index has foreign distributions called `mac` and `wallaroo`. So the wheel is put together from the installed package,
whether that is an editable checkout or was itself a wheel. The same files give the same bytes.
"""

from __future__ import annotations

import base64
import hashlib
import json
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from bettong.errors import Unavailable
from bettong.packaging.trees import exclusive

if TYPE_CHECKING:
    from collections.abc import Mapping

IMPORT_NAMES: Mapping[str, str] = {"bettong-mac": "mac", "bettong-sdk": "wallaroo"}
_FIELDS = ("Name", "Version", "Summary", "License-Expression", "Requires-Python", "Requires-Dist", "Provides-Extra")
_WHEEL = "Wheel-Version: 1.0\nGenerator: bettong\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
_EPOCH = (1980, 1, 1, 0, 0, 0)
_LEFT_OUT = frozenset({"__pycache__"})


@dataclass(frozen=True, slots=True)
class CarriedWheel:
    """A wheel of ours on disk. `digest` (SHA-256) is of its bytes."""

    name: str
    version: str
    path: Path
    digest: str


def carried_wheel(name: str, cache: Path) -> CarriedWheel:
    """The wheel of our distribution `name`, made below `cache` unless these very files were wrapped before.

    Raises:
        Unavailable: the distribution is not installed beside the platform, or its files are not where it says.
    """
    distribution = _distribution(name)
    content = _content(name, distribution)
    digest = hashlib.sha256(b"".join(hashlib.sha256(n.encode() + b"\0" + d).digest() for n, d in content)).hexdigest()
    stem = f"{name.replace('-', '_')}-{distribution.version}"
    path = cache / digest[:16] / f"{stem}-py3-none-any.whl"
    if not path.is_file():
        with exclusive(cache / ".locks" / digest[:16], wait_s=60):
            if not path.is_file():
                _write(path, content)
    return CarriedWheel(name, distribution.version, path, digest)


def package_folder(name: str) -> Path:
    """Where the files of our distribution `name` lie on this machine: the folder of its import package.

    Raises:
        Unavailable: it is not installed beside the platform, or its files are not where it says.
    """
    distribution = _distribution(name)
    top = IMPORT_NAMES[name]
    candidates = [Path(str(distribution.locate_file(top)))]
    if (project := _editable_project(distribution)) is not None:
        candidates = [project / "src" / top, project / top]
    for folder in candidates:
        if (folder / "__init__.py").is_file():
            return folder
    raise Unavailable(
        f"The files of {name} are not where its installation says.", f"Install it again: pip install {name}."
    )


def _distribution(name: str) -> metadata.Distribution:
    try:
        return metadata.distribution(name)
    except metadata.PackageNotFoundError:
        raise Unavailable(
            f"The distribution {name} is not installed beside the platform.", f"Install it: pip install {name}."
        ) from None


def _editable_project(distribution: metadata.Distribution) -> Path | None:
    """The checkout that an editable installation points to (PEP 610), None for any other installation."""
    text = distribution.read_text("direct_url.json")
    record = json.loads(text) if text else {}
    if not record.get("dir_info", {}).get("editable"):
        return None
    return Path(unquote(urlsplit(record["url"]).path))


def _content(name: str, distribution: metadata.Distribution) -> list[tuple[str, bytes]]:
    """(name in the wheel, bytes) of everything in it, RECORD last."""
    folder = package_folder(name)
    files = sorted(
        p
        for p in folder.rglob("*")
        if p.is_file() and p.suffix != ".pyc" and not _LEFT_OUT.intersection(p.relative_to(folder).parts)
    )
    content = [(f"{folder.name}/{p.relative_to(folder).as_posix()}", p.read_bytes()) for p in files]
    info = f"{name.replace('-', '_')}-{distribution.version}.dist-info"
    fields = [(f, v) for f in _FIELDS for v in distribution.metadata.get_all(f) or ()]
    content.append(
        (f"{info}/METADATA", ("Metadata-Version: 2.4\n" + "".join(f"{f}: {v}\n" for f, v in fields)).encode())
    )
    content.append((f"{info}/WHEEL", _WHEEL.encode()))
    record = [f"{n},sha256={_urlsafe(hashlib.sha256(d).digest())},{len(d)}\n" for n, d in content]
    return [*content, (f"{info}/RECORD", "".join([*record, f"{info}/RECORD,,\n"]).encode())]


def _urlsafe(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def _write(path: Path, content: list[tuple[str, bytes]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_suffix(".part")
    with zipfile.ZipFile(staged, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in content:
            entry = zipfile.ZipInfo(name, _EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            wheel.writestr(entry, data)
    staged.rename(path)
