"""Secrets of Vault and OpenBao: values that are kept, and credentials that are made for a while."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from bettong.drivers import web
from bettong.drivers.leases import Given, granted
from bettong.errors import BadInput, BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from bettong.drivers.leases import Lease
    from bettong.drivers.references import Reference

MAX_TOKEN_BYTES = 64 * 2**10
# What engines other than key-value ones give out below these, and nothing else of theirs: their configuration, and
# what belongs to the platform's own token, are none of the users' business.
CREDENTIALS = frozenset({"creds", "static-creds", "static-cred", "sts"})
OWN = frozenset({"cubbyhole", "ns_cubbyhole"})  # a token's own store, in which any path may be


class Vault:
    """Implements `leases.Leasing` with the operator's address and token, which is read anew for every request."""

    def __init__(self, address: str, token_file: str, now_s: Callable[[], float] = time.monotonic) -> None:
        self._address, self._token_file, self._now_s = address.rstrip("/"), token_file, now_s
        self._mounts: dict[str, str] = {}  # mount, such as "secret/": the kind of its engine; see `_engine`

    def __repr__(self) -> str:
        return f"Vault({self._address})"

    def ask(self, reference: Reference, timeout_s: float) -> Given:
        if not self._address:
            raise BadInput(
                f"'{reference.field}' refers to a vault, and this platform has none.",
                "Ask the operator to set BETTONG_VAULT_ADDR and BETTONG_VAULT_TOKEN_FILE.",
            )
        mount, engine = self._mount(reference, timeout_s)
        path = self._path(reference, mount, engine)
        asked_s = self._now_s()
        status, answer = self._send("GET", path, timeout_s)
        if status != 200:
            self._mounts.pop(mount, None)  # it may have become another one
            raise _refused(reference, status)
        fields = answer.get("data")
        if engine == "kv2":
            fields = fields.get("data") if isinstance(fields, dict) else None
        if not isinstance(fields, dict):
            raise Unavailable(
                f"The vault's answer for '{reference.field}' is neither a key-value secret nor credentials.",
                "Name a path of another mount.",
            )
        return Given(fields, _lease(answer, asked_s))

    def renew(self, lease: Lease, timeout_s: float) -> Lease:
        now = self._now_s()
        words = {"lease_id": lease.id, "increment": int(lease.asked_s)}
        status, answer = self._send("PUT", "sys/leases/renew", timeout_s, words)
        if status == 200 and isinstance(lasts_s := answer.get("lease_duration"), int):
            return lease.renewed(now, float(lasts_s))
        if status >= 500:
            raise Unavailable(f"The vault answered with status {status}.", "Look at the vault.")
        return lease.at_its_last()

    def give_back(self, lease: Lease, timeout_s: float) -> None:
        status, _ = self._send("PUT", "sys/leases/revoke", timeout_s, {"lease_id": lease.id})
        if status not in (200, 204):
            raise Unavailable(
                f"The vault answered with status {status}.",
                "Allow the platform's token to update sys/leases/revoke.",
            )

    def _mount(self, reference: Reference, timeout_s: float) -> tuple[str, str]:
        """Where the engine of a path is mounted, and its kind. Vaults that do not tell have a key-value engine of
        version 2 there."""
        for mount, engine in list(self._mounts.items()):
            if f"{reference.path}/".startswith(mount):
                return mount, engine
        status, answer = self._send("GET", f"sys/internal/ui/mounts/{quote(reference.path)}", timeout_s)
        if status == 403:
            raise _refused(reference, status)
        told = answer.get("data")
        if status == 200 and isinstance(told, dict) and isinstance(told.get("path"), str) and told["path"]:
            mount, engine = told["path"], _engine(told)
            if not f"{reference.path}/".startswith(mount):  # a mount of logins: theirs begin with auth/
                raise _no_credentials(reference)
        else:
            mount, engine = reference.path.partition("/")[0] + "/", "kv2"
        self._mounts[mount] = engine
        return mount, engine

    def _path(self, reference: Reference, mount: str, engine: str) -> str:
        rest = reference.path.removeprefix(mount)
        if engine == "kv2":
            return f"{quote(mount)}data/{quote(rest)}"
        if engine in OWN or (engine != "kv" and rest.partition("/")[0] not in CREDENTIALS):
            raise _no_credentials(reference)
        return quote(reference.path)

    def _send(
        self, method: str, path: str, timeout_s: float, words: Mapping[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        headers = {"X-Vault-Token": self._token(), "X-Vault-Request": "true"}
        content = b"" if words is None else json.dumps(words).encode()
        try:
            status, body = web.send_small(method, f"{self._address}/v1/{path}", headers, content, timeout_s)
        except BettongError:
            raise Unavailable("The vault does not answer.", "Tell the operator of this platform.") from None
        try:
            answer = json.loads(body) if body else {}
        except ValueError:
            answer = {}
        return status, answer if isinstance(answer, dict) else {}

    def _token(self) -> str:
        try:
            with open(self._token_file, encoding="utf-8") as opened:
                return opened.read(MAX_TOKEN_BYTES).strip()
        except (OSError, UnicodeDecodeError):
            raise Unavailable(
                "The platform's token for the vault cannot be read.",
                "Ask the operator to check BETTONG_VAULT_TOKEN_FILE.",
            ) from None


def _engine(told: Mapping[str, Any]) -> str:
    """ "kv2", "kv", or the name of another kind of engine."""
    kind, options = str(told.get("type")), told.get("options")
    if kind == "generic":
        return "kv"
    return "kv2" if kind == "kv" and isinstance(options, dict) and options.get("version") == "2" else kind


def _lease(answer: Mapping[str, Any], asked_s: float) -> Lease | None:
    """The lease that an answer tells of, from when it was asked for."""
    name, lasts_s = answer.get("lease_id"), answer.get("lease_duration")
    if not isinstance(name, str) or not name or not isinstance(lasts_s, int):
        return None
    return granted(name, asked_s, float(lasts_s), renewable=answer.get("renewable") is True)


def _refused(reference: Reference, status: int) -> BadInput | Unavailable:
    if status >= 500:
        return Unavailable(
            f"The vault answered with status {status}: {reference.place}, in '{reference.field}'.", "Look at the vault."
        )
    said = {404: "has nothing at that path", 403: "does not let this platform read that path"}
    return BadInput(
        f"The vault {said.get(status, f'answered with status {status}')}: {reference.place}, in '{reference.field}'.",
        "Check mount and path, and the policy of the platform's token.",
    )


def _no_credentials(reference: Reference) -> BadInput:
    return BadInput(
        f"'{reference.field}' refers to {reference.place}, which holds neither values nor credentials.",
        f"Name a key-value secret, or a path below one of: {', '.join(sorted(CREDENTIALS))}.",
    )
