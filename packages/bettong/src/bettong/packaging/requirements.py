"""What an artifact asks for: its requirements.txt and the upload's own list, read, checked and made safe to hand to uv.

Taken: PEP 508 lines with markers and hashes, comments, continued lines, `-r` and `-c` of files inside the artifact, and
the options in `_OPTIONS`. Refused, with words: editable and local installs, version control (git is never fetched: a
commit is not a release and needs credentials), URLs other than https, environment variables.
Lines that name a distribution of ours or a foreign one under our import names are answered by the wheels we carry.
"""

from __future__ import annotations

import codecs
import re
import shlex
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import (
    InvalidSdistFilename,
    InvalidWheelFilename,
    canonicalize_name,
    parse_sdist_filename,
    parse_wheel_filename,
)

from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

FILE_NAME = "requirements.txt"
MAX_BYTES = 2**20
MAX_DEPTH = 8

# The index has foreign distributions called `wallaroo` and `mac`: a line that names one always means ours.
OWN = {
    "mac": "bettong-mac",
    "bettong-mac": "bettong-mac",
    "wallaroo": "bettong-sdk",
    "bettong-sdk": "bettong-sdk",
}

_URL_OPTIONS = {
    "-i": "--default-index",
    "--index-url": "--default-index",
    "--extra-index-url": "--index",
    "-f": "--find-links",
    "--find-links": "--find-links",
}
_NAME_OPTIONS = {"--no-binary": "--no-binary", "--only-binary": "--only-binary"}
_FLAGS: dict[str, tuple[str, ...]] = {
    "--pre": ("--prerelease", "allow"),
    "--prefer-binary": (),  # wheels are tried first anyway
    "--require-hashes": (),  # every hash that is given is checked anyway
}
_OPTIONS = "--index-url, --extra-index-url, --find-links (http, https), --pre, --no-binary, --only-binary"
_COMMENT = re.compile(r"(^|\s)#.*$")
_HASH = re.compile(r"\s--hash[=\s]\s*(\S+)")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_VCS = re.compile(r"(git|hg|svn|bzr)(\+|@|:)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Requirements:
    """What is to be installed. `lines` and `constraints` are safe for uv's files, `options` for its command line.

    `own` are our distributions that were asked for by some name; `replaced` the lines as written. `swapped` are lines
    that another distribution with the same code answers: (as written, as taken).
    """

    wanted: tuple[Requirement, ...] = ()
    lines: tuple[str, ...] = ()
    constraints: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    own: frozenset[str] = frozenset()
    replaced: tuple[str, ...] = ()
    swapped: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Reader:
    folder: Path
    instead: Mapping[str, str]
    wanted: list[Requirement] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    constraints: list[str] = field(default_factory=list)
    options: list[str] = field(default_factory=list)
    own: set[str] = field(default_factory=set)
    replaced: list[str] = field(default_factory=list)
    swapped: list[tuple[str, str]] = field(default_factory=list)

    def read_file(self, path: Path, *, constraint: bool, depth: int) -> None:
        name = path.relative_to(self.folder).as_posix()
        if depth > MAX_DEPTH:
            raise BadInput(f"{name} includes itself, or files are nested deeper than {MAX_DEPTH}.", "Flatten them.")
        for number, line in _logical_lines(_text(path, name)):
            self.read_line(line, f"{name} line {number}", path, constraint=constraint, depth=depth)

    def read_line(self, line: str, at: str, path: Path | None, *, constraint: bool, depth: int) -> None:
        if "${" in line:
            raise BadInput(f"{at} uses an environment variable.", "Write the value; variables are not filled in.")
        if line.startswith("-"):
            self._option(line, at, path, depth)
            return
        hashes = _HASH.findall(line)
        requirement = _requirement(_HASH.sub("", line).strip(), at)
        if own := OWN.get(canonicalize_name(requirement.name)):
            self.replaced.append(str(requirement))
            if not constraint:
                self.own.add(own)
            return
        if (other := self.instead.get(canonicalize_name(requirement.name))) and not requirement.url:
            asked, hashes = str(requirement), []  # of other files
            requirement.name, requirement.extras = other, set()
            self.swapped.append((asked, str(requirement)))
        kept = " ".join([str(requirement), *(f"--hash={h}" for h in hashes)])
        self.wanted.append(requirement)
        (self.constraints if constraint else self.lines).append(kept)

    def _option(self, line: str, at: str, path: Path | None, depth: int) -> None:
        try:
            words = shlex.split(line)
        except ValueError:
            raise BadInput(f"{at} has an unclosed quotation mark.", "Correct it.") from None
        name, equals, value = words[0].partition("=")
        if not equals:
            value = " ".join(words[1:])
        if name in _FLAGS:
            self.options += _FLAGS[name]
        elif name in _URL_OPTIONS:
            if urlsplit(value).scheme not in ("http", "https") or not urlsplit(value).hostname:
                raise BadInput(f"{at}: {name} names no http or https address.", "Give one that this machine can reach.")
            self.options += (_URL_OPTIONS[name], value)
        elif name in _NAME_OPTIONS:
            for part in value.replace(",", " ").split():
                self.options += (_NAME_OPTIONS[name], _package_name(part, at))
        elif name in ("-r", "--requirement", "-c", "--constraint"):
            self._include(name, value, at, path, depth)
        elif name in ("-e", "--editable"):
            raise BadInput(
                f"{at} asks for an editable install.", "Put the package's files into the zip's root, or name a release."
            )
        else:
            raise BadInput(f"{at} has the option {name[:40]}, which is not taken.", f"Taken are: {_OPTIONS}.")

    def _include(self, name: str, value: str, at: str, path: Path | None, depth: int) -> None:
        base = path.parent if path else self.folder
        target = (base / value).resolve()
        if not value or not target.is_relative_to(self.folder) or not target.is_file():
            raise BadInput(f"{at}: {name} names a file that is not in the artifact.", "Put it into the zip.")
        self.read_file(target, constraint=name in ("-c", "--constraint"), depth=depth + 1)


def read_requirements(
    folder: Path,
    more: Sequence[str] = (),
    unless_named: Sequence[str] = (),
    instead: Mapping[str, str] | None = None,
) -> Requirements:
    """Read `folder`/requirements.txt, if there is one, and the lines `more` that came with the upload.

    `unless_named` are lines for distributions that neither of them names a version of. `instead` maps names of
    distributions to those that are taken for them.

    Raises:
        BadInput: a line cannot be taken; it says which and why.
    """
    reader = _Reader(folder.resolve(), instead or {})
    path = reader.folder / FILE_NAME
    if path.is_file():
        reader.read_file(path, constraint=False, depth=0)
    for number, text in enumerate(more, 1):
        for _, line in _logical_lines(text):
            reader.read_line(line, f"The upload's requirement {number}", None, constraint=False, depth=0)
    decided = {canonicalize_name(r.name) for r in reader.wanted if r.specifier or r.url}
    named = {canonicalize_name(r.name) for r in reader.wanted}
    for text in unless_named:
        requirement = Requirement(text)
        name = canonicalize_name(requirement.name)
        if name not in (decided if requirement.specifier else named):
            reader.read_line(text, "What the model needs", None, constraint=False, depth=0)
    return Requirements(
        wanted=tuple(reader.wanted),
        lines=tuple(dict.fromkeys(reader.lines)),
        constraints=tuple(dict.fromkeys(reader.constraints)),
        options=tuple(reader.options),
        own=frozenset(reader.own),
        replaced=tuple(dict.fromkeys(reader.replaced)),
        swapped=tuple(dict.fromkeys(reader.swapped)),
    )


def _text(path: Path, name: str) -> str:
    """A requirements file as text; editors and shells on Windows write UTF-16."""
    data = path.read_bytes()
    if len(data) > MAX_BYTES:
        raise BadInput(f"{name} has {len(data)} bytes, more than {MAX_BYTES}.", "Shorten it.")
    utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise BadInput(f"{name} is not text in UTF-8.", "Save it as UTF-8.") from None


def _logical_lines(text: str) -> list[tuple[int, str]]:
    """(number of the first line, text) with comments gone and continued lines joined; empty ones left out."""
    joined: list[tuple[int, str]] = []
    start, parts = 1, list[str]()
    for number, raw in enumerate([*text.splitlines(), ""], 1):
        line = _COMMENT.sub("", raw).rstrip()
        if not parts:
            start = number
        if line.endswith("\\"):
            parts.append(line[:-1].strip())
            continue
        whole = " ".join([*parts, line.strip()]).strip()
        if whole:
            joined.append((start, whole))
        start, parts = number + 1, []
    return joined


def _requirement(text: str, at: str) -> Requirement:
    if _VCS.match(text) or _VCS.match(text.partition("@")[2].strip()):
        raise BadInput(
            f"{at} asks for a version control checkout, which is not fetched.",
            "Name a released version (name==1.2.3), or an https URL of a wheel.",
        )
    if _SCHEME.match(text) and "://" in text:
        return _from_url(text, at)
    if text.startswith((".", "/", "~")) or (text.endswith((".whl", ".tar.gz", ".zip")) and "@" not in text):
        raise _local(at)
    try:
        requirement = Requirement(text)
    except InvalidRequirement:
        raise BadInput(f"{at} is not a requirement.", "Write it as name==1.2.3.") from None
    if requirement.url is not None:
        _check_url(requirement.url, at)
    return requirement


def _from_url(text: str, at: str) -> Requirement:
    """A bare URL: the distribution's name stands in the file's name."""
    url, _, marker = text.partition(" ")
    _check_url(url, at)
    file = unquote(urlsplit(url).path.rpartition("/")[2])
    try:
        name = parse_wheel_filename(file)[0] if file.endswith(".whl") else parse_sdist_filename(file)[0]
        return Requirement(f"{name} @ {url} {marker}".strip())
    except (InvalidWheelFilename, InvalidSdistFilename, InvalidRequirement):
        raise BadInput(f"{at} is a URL whose file name does not say what it is.", "Write it as name @ URL.") from None


def _check_url(url: str, at: str) -> None:
    parts = urlsplit(url)
    if parts.scheme == "file" or not parts.scheme:
        raise _local(at)
    if parts.scheme != "https" or not parts.hostname:
        raise BadInput(f"{at} fetches from a '{parts.scheme[:20]}' URL.", "Use an https URL, or name a release.")


def _local(at: str) -> BadInput:
    return BadInput(
        f"{at} names a file of the machine it was written on.",
        "Name a release (name==1.2.3); code of your own goes into the zip's root.",
    )


def _package_name(text: str, at: str) -> str:
    if text in (":all:", ":none:") or re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?", text):
        return text
    raise BadInput(f"{at} names no package.", "Name one, or :all:.")
