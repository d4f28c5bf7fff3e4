"""Where packages come from: what pip is told on this machine, handed on to uv, which does not read it itself."""

from __future__ import annotations

import configparser
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

_MANY = ("extra-index-url", "find-links", "constraint", "trusted-host")
_ONE = ("index-url", "cert", "no-index", "pre")
_TRUE = ("1", "true", "yes", "on")


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """The part of pip's configuration that says where packages come from. Addresses may hold credentials."""

    index_url: str = ""
    extra_index_urls: tuple[str, ...] = ()
    find_links: tuple[str, ...] = ()
    constraints: tuple[Path, ...] = ()
    trusted_hosts: tuple[str, ...] = ()
    no_index: bool = False
    pre: bool = False
    certificates: str = ""

    def __repr__(self) -> str:  # the addresses stay out of logs
        return f"IndexOptions({len(self.extra_index_urls) + bool(self.index_url)} indexes)"

    @property
    def arguments(self) -> list[str]:
        """The same for uv's command line, but for the constraints."""
        words: list[str] = ["--no-index"] if self.no_index else []
        if self.index_url:
            words += ["--default-index", self.index_url]
        for url in self.extra_index_urls:
            words += ["--index", url]
        for place in self.find_links:
            words += ["--find-links", place]
        for host in self.trusted_hosts:
            words += ["--allow-insecure-host", host]
        return [*words, *(["--prerelease", "allow"] if self.pre else [])]

    @property
    def local_folders(self) -> list[str]:
        """Folders of this machine that packages come from; an index of files keeps them beside its pages."""
        places = [*self.extra_index_urls, *self.find_links, self.index_url]
        folders = [Path(p.removeprefix("file://")) for p in places if p.startswith(("/", "file:///"))]
        beside = [f.parent / name for f in folders for name in ("files", "packages")]
        return [str(f) for f in (*folders, *beside) if f.is_dir()]


def from_pip(environment: Mapping[str, str], *, home: Path, prefix: Path) -> IndexOptions:
    """What pip would use: its configuration files (system, user, `prefix`), then PIP_* variables, the later ones win.

    `home` is the person's home folder, `prefix` that of the interpreter. Files that cannot be read count as absent.
    """
    values: dict[str, str] = {}
    for path in _files(environment, home, prefix):
        values |= _read(path)
    values |= {k[4:].lower().replace("_", "-"): v for k, v in environment.items() if k.startswith("PIP_")}
    many = {name: tuple(values.get(name, "").split()) for name in _MANY}
    one = {name: values.get(name, "").strip() for name in _ONE}
    return IndexOptions(
        index_url=one["index-url"],
        extra_index_urls=many["extra-index-url"],
        find_links=many["find-links"],
        constraints=tuple(p for c in many["constraint"] if (p := Path(c)).is_file()),
        trusted_hosts=many["trusted-host"],
        no_index=one["no-index"].lower() in _TRUE,
        pre=one["pre"].lower() in _TRUE,
        certificates=one["cert"],
    )


def _files(environment: Mapping[str, str], home: Path, prefix: Path) -> list[Path]:
    shared = environment.get("XDG_CONFIG_DIRS", "") or "/etc/xdg"
    own = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    given = environment.get("PIP_CONFIG_FILE", "")
    if given == "/dev/null":
        return []
    return [
        *(Path(folder) / "pip" / "pip.conf" for folder in reversed(shared.split(":")) if folder),
        Path("/etc/pip.conf"),
        home / ".pip" / "pip.conf",
        home / "Library" / "Application Support" / "pip" / "pip.conf",
        own / "pip" / "pip.conf",
        prefix / "pip.conf",
        *([Path(given)] if given else []),
    ]


def _read(path: Path) -> dict[str, str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read_string(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, configparser.Error):
        return {}
    found: dict[str, str] = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            found |= {k.lower().replace("_", "-"): v for k, v in parser.items(section)}
    return found
