"""Secret references in details: `{"$secret": "env:NAME"}`, `file:/path`, `vault:mount/path#field`.

A reference is itself a right: it reaches only what the operator named. It is resolved where the work is done, and what
it gave never leaves that process.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bettong.errors import BadInput, BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

MARK = "$secret"
MAX_FILE_BYTES = 1 * 2**20
FORMS = "Write env:NAME, file:/path or vault:mount/path#field."


@dataclass(frozen=True, slots=True)
class ReferencePolicy:
    """What references may reach. Nothing by default.

    `env` are names of variables, or prefixes that end in `*`; the platform's own (BETTONG_…) are out of reach whatever
    stands there. `folders` are the roots of `file:` paths, `forbidden` lie inside them and stay out of reach.
    """

    env: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()
    vault_addr: str = ""
    vault_token_file: str = ""

    def allows_variable(self, name: str) -> bool:
        if name.upper().startswith("BETTONG"):
            return False
        return any(
            fnmatchcase(name, f"{_literal(pattern[:-1])}*") if pattern.endswith("*") else name == pattern
            for pattern in self.env
        )


@dataclass(frozen=True, slots=True)
class Reference:
    field: str  # where it stands in the details, as in "auth.password" or "hosts.0"
    scheme: str
    rest: str


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
    named = {ref.rest for ref in found_in(details) if ref.scheme == "env" and policy.allows_variable(ref.rest)}
    return {name: environment[name] for name in named if name in environment}


def resolve(
    details: Mapping[str, Any],
    policy: ReferencePolicy,
    variables: Mapping[str, str],
    learn: Callable[[str], None],
    timeout_s: float,
) -> dict[str, Any]:
    """The details with every reference replaced by what it names. `learn` hears each value before anything else does.

    Raises:
        BadInput: a reference is none, may not be used here, or names nothing; field and reference are named.
        Unavailable: the vault does not answer.
    """
    found_in(details)  # all are well formed before the first is followed
    vault = _Vault(policy, timeout_s)

    def value_of(field: str, holder: Mapping[str, Any]) -> str:
        reference = _parse(field, holder[MARK], holder)
        match reference.scheme:
            case "env":
                value = _variable(reference, policy, variables)
            case "file":
                value = _file(reference, policy)
            case _:
                value = vault.value(reference)
        learn(value)
        return value

    resolved: dict[str, Any] = _replaced("", details, value_of)
    return resolved


def _variable(reference: Reference, policy: ReferencePolicy, variables: Mapping[str, str]) -> str:
    if not policy.allows_variable(reference.rest):
        raise BadInput(
            f"'{reference.field}' refers to the variable {reference.rest}, which references may not name here.",
            "Ask the operator to allow it (BETTONG_SECRET_ENV).",
        )
    if reference.rest not in variables:
        raise BadInput(
            f"'{reference.field}' refers to the variable {reference.rest}, which is not set where the work runs.",
            "Set it for the server, or name another.",
        )
    return variables[reference.rest]


def _file(reference: Reference, policy: ReferencePolicy) -> str:
    real = os.path.realpath(reference.rest)
    inside = any(_is_below(real, folder) for folder in policy.folders)
    if not reference.rest.startswith("/") or not inside or any(_is_below(real, folder) for folder in policy.forbidden):
        raise BadInput(
            f"'{reference.field}' refers to a file that references may not name here.",
            "Ask the operator to allow its folder (BETTONG_SECRET_FOLDERS).",
        )
    unreadable = BadInput(
        f"'{reference.field}' refers to the file {reference.rest}, which cannot be read where the work runs.",
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


class _Vault:
    """Reads key-value secrets (version 2) of Vault and OpenBao. Each path is asked for once per call."""

    def __init__(self, policy: ReferencePolicy, timeout_s: float) -> None:
        self._policy, self._timeout_s = policy, timeout_s
        self._read: dict[str, Mapping[str, Any]] = {}

    def value(self, reference: Reference) -> str:
        path, _, name = reference.rest.partition("#")
        if path not in self._read:
            self._read[path] = self._ask(reference.field, path)
        value = self._read[path].get(name)
        if not isinstance(value, str):
            raise BadInput(
                f"'{reference.field}' refers to '{name}' of vault:{path}, which has no text of that name.",
                "Check the name of the field after '#'.",
            )
        return value

    def _ask(self, field: str, path: str) -> Mapping[str, Any]:
        import json

        from bettong.drivers import web

        if not self._policy.vault_addr:
            raise BadInput(
                f"'{field}' refers to a vault, and this platform has none.",
                "Ask the operator to set BETTONG_VAULT_ADDR and BETTONG_VAULT_TOKEN_FILE.",
            )
        mount, _, rest = path.partition("/")
        url = f"{self._policy.vault_addr.rstrip('/')}/v1/{quote(mount, safe='')}/data/{quote(rest)}"
        try:
            status, body = web.get_small(url, {"X-Vault-Token": self._token()}, self._timeout_s)
        except BettongError:
            raise Unavailable(
                f"The vault that '{field}' refers to does not answer.", "Tell the operator of this platform."
            ) from None
        if status != 200:
            said = {404: "has nothing at that path", 403: "does not let this platform read that path"}
            raise BadInput(
                f"The vault {said.get(status, f'answered with status {status}')}: vault:{path}, in '{field}'.",
                "Check mount and path, and the policy of the platform's token.",
            )
        try:
            data = json.loads(body)["data"]["data"]
        except (ValueError, KeyError, TypeError):
            data = None
        if not isinstance(data, dict):
            raise Unavailable(
                f"The vault's answer for '{field}' is no key-value secret of version 2.", "Use such a mount."
            )
        return data

    def _token(self) -> str:
        try:
            with open(self._policy.vault_token_file, encoding="utf-8") as opened:
                return opened.read(MAX_FILE_BYTES).strip()
        except (OSError, UnicodeDecodeError):
            raise Unavailable(
                "The platform's token for the vault cannot be read.",
                "Ask the operator to check BETTONG_VAULT_TOKEN_FILE.",
            ) from None


def _parse(field: str, text: object, holder: Mapping[str, Any]) -> Reference:
    scheme, colon, rest = text.partition(":") if isinstance(text, str) else ("", "", "")
    if len(holder) != 1 or not colon or scheme not in ("env", "file", "vault") or not rest or "\0" in rest:
        raise BadInput(f"'{field}' is no reference to a secret.", FORMS)
    if scheme == "vault":
        path, _, name = rest.partition("#")
        parts = path.split("/")
        if len(parts) < 2 or not name or any(part in ("", ".", "..") for part in parts):
            raise BadInput(f"'{field}' is no reference to a vault's secret.", FORMS)
    return Reference(field, scheme, rest)


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


def _literal(prefix: str) -> str:
    """A prefix without a meaning for fnmatch."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in prefix)
