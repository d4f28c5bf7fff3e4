"""Secret references in details: `{"$secret": "env:NAME"}`, `file:/path`, `vault:mount/path#field`, `aws:name#field`.

A reference is itself a right: it reaches only what the operator named. It is resolved where the work is done, and what
it gave never leaves that process. What a manager of secrets keeps is asked for by the server, which alone knows how to
log in there (`leases`), and goes to that process with the details.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from bettong.errors import BadInput, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MARK = "$secret"
MAX_FILE_BYTES = 1 * 2**20
FORMS = "Write env:NAME, file:/path, vault:mount/path#field or aws:name#field."
ENVIRONMENT = "{environment}"  # stands for the platform's environment, wherever in a reference
_ELSEWHERE = {
    "vault": ("a vault", "Ask the operator to set BETTONG_VAULT_ADDR and BETTONG_VAULT_TOKEN_FILE."),
    "aws": ("the Secrets Manager of AWS", "Ask the operator to set BETTONG_AWS_SECRETS."),
}


@dataclass(frozen=True, slots=True)
class ReferencePolicy:
    """What references may reach. Nothing by default.

    `env` are names of variables, or prefixes that end in `*`; the platform's own (BETTONG_…) are out of reach whatever
    stands there. `folders` are the roots of `file:` paths, `forbidden` lie inside them and stay out of reach.
    `environment` takes the place of `{environment}`.
    """

    env: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    environment: str = ""

    def allows_variable(self, name: str) -> bool:
        if name.upper().startswith("BETTONG"):
            return False
        return matches(name, self.env)


@dataclass(frozen=True, slots=True)
class Reference:
    """`field` is where it stands in the details, as in "auth.password" or "hosts.0"; `name` is what follows a "#"."""

    field: str
    scheme: str
    path: str
    name: str = ""

    @property
    def place(self) -> str:
        return f"{self.scheme}:{self.path}"

    def at_use(self, environment: str) -> Reference:
        """What it names on a platform of that environment.

        Raises:
            BadInput: it names the environment, and this platform has none.
        """
        if ENVIRONMENT not in self.path and ENVIRONMENT not in self.name:
            return self
        if not environment:
            raise BadInput(
                f"'{self.field}' refers to {self.place}, and this platform has no environment.",
                "Ask the operator to set BETTONG_ENVIRONMENT.",
            )
        path, name = (text.replace(ENVIRONMENT, environment) for text in (self.path, self.name))
        return replace(self, path=path, name=name)


def matches(name: str, patterns: tuple[str, ...]) -> bool:
    """Whether a name is among these, or begins as one of them that ends in `*`."""
    return any(name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns)


def found_in(details: Mapping[str, Any]) -> list[Reference]:
    """Every reference in the details, at any depth.

    Raises:
        BadInput: a `$secret` that is no reference; its field is named.
    """
    return [_parse(field, value[MARK], value) for field, value in _walk("", details)]


def variables_for(
    details: Mapping[str, Any], policy: ReferencePolicy, environment: Mapping[str, str]
) -> dict[str, str]:
    """The variables that references in the details name and may name: all that the working process is given of them."""
    named = {
        each.path for each in _at_use(details, policy) if each.scheme == "env" and policy.allows_variable(each.path)
    }
    return {name: environment[name] for name in named if name in environment}


def kept_elsewhere(details: Mapping[str, Any], policy: ReferencePolicy) -> list[Reference]:
    """Those that name what a manager of secrets keeps. Raises BadInput for a reference that is none."""
    return [each for each in _at_use(details, policy) if each.scheme in _ELSEWHERE]


def nowhere(reference: Reference) -> BadInput:
    """What to say of a manager that this platform does not have."""
    manager, next_step = _ELSEWHERE[reference.scheme]
    return BadInput(f"'{reference.field}' refers to {manager}, and this platform has none.", next_step)


def resolve(
    details: Mapping[str, Any],
    policy: ReferencePolicy,
    variables: Mapping[str, str],
    given: Mapping[str, Any],
    learn: Callable[[str], None],
) -> dict[str, Any]:
    """The details with every reference replaced by what it names. `learn` hears each value before anything else does.

    `given` is what managers gave, as `leases.Loan` takes it.

    Raises:
        BadInput: a reference is none, may not be used here, or names nothing; field and reference are named.
        Unavailable: a manager did not answer.
    """
    found_in(details)  # all are well formed before the first is followed

    def value_of(field: str, holder: Mapping[str, Any]) -> str:
        reference = _parse(field, holder[MARK], holder).at_use(policy.environment)
        match reference.scheme:
            case "env":
                value = _variable(reference, policy, variables)
            case "file":
                value = _file(reference, policy)
            case _:
                value = _elsewhere(reference, given)
        learn(value)
        return value

    resolved: dict[str, Any] = _replaced("", details, value_of)
    return resolved


def _at_use(details: Mapping[str, Any], policy: ReferencePolicy) -> Iterator[Reference]:
    """The references as they are here; those that name an environment which there is not are told of when they are
    resolved."""
    for reference in found_in(details):
        with suppress(BadInput):
            yield reference.at_use(policy.environment)


def _variable(reference: Reference, policy: ReferencePolicy, variables: Mapping[str, str]) -> str:
    if not policy.allows_variable(reference.path):
        raise BadInput(
            f"'{reference.field}' refers to the variable {reference.path}, which references may not name here.",
            "Ask the operator to allow it (BETTONG_SECRET_ENV).",
        )
    if reference.path not in variables:
        raise BadInput(
            f"'{reference.field}' refers to the variable {reference.path}, which is not set where the work runs.",
            "Set it for the server, or name another.",
        )
    return variables[reference.path]


def _file(reference: Reference, policy: ReferencePolicy) -> str:
    real = os.path.realpath(reference.path)
    inside = any(_is_below(real, folder) for folder in policy.folders)
    if not reference.path.startswith("/") or not inside or any(_is_below(real, folder) for folder in policy.forbidden):
        raise BadInput(
            f"'{reference.field}' refers to a file that references may not name here.",
            "Ask the operator to allow its folder (BETTONG_SECRET_FOLDERS).",
        )
    unreadable = BadInput(
        f"'{reference.field}' refers to the file {reference.path}, which cannot be read where the work runs.",
        "Check that it is there, is a file, and that the platform's user may read it.",
    )
    try:
        descriptor = os.open(real, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        raise unreadable from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise unreadable
    with os.fdopen(descriptor, "rb") as opened:
        content = opened.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise BadInput(f"'{reference.field}' refers to a file of more than 1 MiB.", "Name a file that holds a secret.")
    try:
        return content.decode().removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError:
        raise BadInput(
            f"'{reference.field}' refers to a file that is not UTF-8 text.", "Keep the secret as text."
        ) from None


def _elsewhere(reference: Reference, given: Mapping[str, Any]) -> str:
    """Of what a manager gave to the server; raises what it raised there."""
    of_place = given.get(reference.place)
    if of_place is None:
        raise nowhere(reference)
    if "failed" in of_place:
        code, problem, next_step = of_place["failed"]
        raise (BadInput if code == BadInput.code else Unavailable)(problem, next_step)
    if (value := of_place["fields"].get(reference.name)) is None:
        raise BadInput(
            f"'{reference.field}' refers to '{reference.name}' of {reference.place}, which has no text of that name.",
            "Check the name of the field after '#'.",
        )
    return str(value)


def _parse(field: str, text: object, holder: Mapping[str, Any]) -> Reference:
    scheme, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    known = scheme in ("env", "file") or scheme in _ELSEWHERE
    if len(holder) != 1 or not colon or not known or not rest or "\0" in rest:
        raise BadInput(f"'{field}' is no reference to a secret.", FORMS)
    if scheme not in _ELSEWHERE:
        return Reference(field, scheme, rest)
    path, mark, name = rest.partition("#")
    parts = path.split("/")
    if scheme == "vault" and (len(parts) < 2 or not name or any(part in ("", ".", "..") for part in parts)):
        raise BadInput(f"'{field}' is no reference to a vault's secret.", FORMS)
    if not path or (mark and not name):
        raise BadInput(f"'{field}' is no reference to a secret.", FORMS)
    return Reference(field, scheme, path, name)


def _walk(field: str, value: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    if isinstance(value, dict):
        if MARK in value:
            yield field, value
            return
        for name, part in value.items():
            yield from _walk(f"{field}.{name}" if field else str(name), part)
    elif isinstance(value, list):
        for index, part in enumerate(value):
            yield from _walk(f"{field}.{index}" if field else str(index), part)


def _replaced(field: str, value: Any, value_of: Callable[[str, Mapping[str, Any]], str]) -> Any:
    if isinstance(value, dict):
        if MARK in value:
            return value_of(field, value)
        return {k: _replaced(f"{field}.{k}" if field else str(k), part, value_of) for k, part in value.items()}
    if isinstance(value, list):
        return [_replaced(f"{field}.{i}" if field else str(i), part, value_of) for i, part in enumerate(value)]
    return value


def _is_below(real: str, folder: str) -> bool:
    root = os.path.realpath(folder)
    return os.path.commonpath([real, root]) == root
