"""Secrets that AWS Secrets Manager keeps, by our own signed requests: those whose names the operator allows."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from bettong.drivers import web
from bettong.drivers.aws_login import LOOK_AT, keys_of, signed
from bettong.drivers.leases import Given
from bettong.drivers.references import matches, nowhere
from bettong.errors import BadInput, BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bettong.drivers.references import Reference

SERVICE = "secretsmanager"
_CODE = re.compile(rb'"__type"\s*:\s*"(?:[^"#]*#)?(\w{1,80})"|<Code>(\w{1,80})</Code>')
_SAID = {
    "ResourceNotFoundException": "has no secret of that name",
    "AccessDeniedException": "does not let this platform read that secret",
    "AccessDenied": "does not let this platform read that secret",
    "InvalidRequestException": "has marked that secret for deletion",
    "DecryptionFailure": "cannot decrypt that secret",
}
_KEYS_REFUSED = frozenset(
    {
        *("UnrecognizedClientException", "InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch"),
        *("ExpiredTokenException", "ExpiredToken", "IncompleteSignatureException", "MissingAuthenticationToken"),
    }
)


class SecretsManager:
    """Implements `leases.Manager`.

    Args:
        allowed: names of secrets that references may name, or prefixes that end in `*`; none, and there is no manager.
        variables: the server's, in which AWS's own tools have region, keys and an endpoint.
    """

    def __init__(self, allowed: tuple[str, ...], variables: Mapping[str, str]) -> None:
        self._allowed, self._variables = allowed, variables

    def __repr__(self) -> str:
        return f"SecretsManager({', '.join(self._allowed)})"

    def ask(self, reference: Reference, timeout_s: float) -> Given:
        if not self._allowed:
            raise nowhere(reference)
        if not matches(reference.path, self._allowed):
            raise BadInput(
                f"'{reference.field}' refers to {reference.place}, which references may not name here.",
                "Ask the operator to allow it (BETTONG_AWS_SECRETS).",
            )
        status, body = self._send(json.dumps({"SecretId": reference.path}).encode(), timeout_s)
        if status != 200:
            raise _refused(reference, status, body)
        text = _text(body)
        if text is None:
            raise BadInput(
                f"'{reference.field}' refers to {reference.place}, which is no text.", "Keep the secret as text."
            )
        return Given({"": text, **_fields(text)})

    def _send(self, body: bytes, timeout_s: float) -> tuple[int, bytes]:
        variables = self._variables
        region = variables.get("AWS_REGION") or variables.get("AWS_DEFAULT_REGION")
        if not region:
            raise Unavailable(
                "This platform has no region of AWS.", "Ask the operator to set AWS_REGION for the server."
            )
        url = (
            variables.get("AWS_ENDPOINT_URL_SECRETS_MANAGER")
            or variables.get("AWS_ENDPOINT_URL")
            or f"https://{SERVICE}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}"
        )
        asked = {"content-type": "application/x-amz-json-1.1", "x-amz-target": f"{SERVICE}.GetSecretValue"}
        headers = signed(keys_of(variables, timeout_s), region, SERVICE, url, asked, body, datetime.now(UTC))
        try:
            return web.send_small("POST", url, headers, body, timeout_s)
        except BettongError:
            raise Unavailable(
                "The Secrets Manager of AWS does not answer.", "Tell the operator of this platform."
            ) from None


def _text(body: bytes) -> str | None:
    try:
        text = json.loads(body).get("SecretString")
    except (ValueError, AttributeError):
        return None
    return text if isinstance(text, str) else None


def _fields(text: str) -> dict[str, Any]:
    """The fields of a secret that is a JSON object, as most are. Whole numbers, such as ports, as their text."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    if not isinstance(found, dict):
        return {}
    return {name: str(value) if type(value) is int else value for name, value in found.items() if name}


def _refused(reference: Reference, status: int, body: bytes) -> BadInput | Unavailable:
    """In our words; AWS's own text may hold more than its reader should know."""
    found = _CODE.search(body)
    code = (found[1] or found[2]).decode() if found else ""
    if code in _KEYS_REFUSED:
        return Unavailable(f"AWS does not take the keys of this platform ({code}).", LOOK_AT)
    if status >= 500 or "Throttling" in code:
        return Unavailable(f"The Secrets Manager of AWS answered with status {status}.", "Try again in a moment.")
    said = _SAID.get(code, f"answered with status {status}{f' ({code})' if code else ''}")
    return BadInput(
        f"The Secrets Manager of AWS {said}: {reference.place}, in '{reference.field}'.",
        "Check name and region, and what the platform's identity may read.",
    )
