"""Who this platform is at AWS, and the signature (version 4) by which a request says so.

Keys come from where AWS's own tools have them: the server's variables, the agent of a container (ECS, EKS Pod
Identity), or a profile in the shared credentials file. They are looked up for every request, so that new ones count.
"""

from __future__ import annotations

import configparser
import hashlib
import hmac
import json
import os
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from bettong.drivers import web
from bettong.errors import BettongError, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

AGENT = "http://169.254.170.2"  # of a container that is told a path alone
MAX_TOKEN_BYTES = 64 * 2**10
LOOK_AT = (
    "Ask the operator to set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile in the shared credentials file, "
    "for the server."
)


@dataclass(frozen=True, slots=True)
class Keys:
    access: str
    secret: str = field(repr=False)
    session: str = field(default="", repr=False)


def credentials_file(variables: Mapping[str, str]) -> str:
    return os.path.expanduser(variables.get("AWS_SHARED_CREDENTIALS_FILE") or "~/.aws/credentials")


def keys_of(variables: Mapping[str, str], timeout_s: float) -> Keys:
    """Raises Unavailable when there are none, or the agent does not give any."""
    access, secret = variables.get("AWS_ACCESS_KEY_ID"), variables.get("AWS_SECRET_ACCESS_KEY")
    if access and secret:
        return Keys(access, secret, variables.get("AWS_SESSION_TOKEN", ""))
    path = variables.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
    if url := f"{AGENT}{path}" if path else variables.get("AWS_CONTAINER_CREDENTIALS_FULL_URI"):
        return _from_agent(url, variables, timeout_s)
    return _from_profile(credentials_file(variables), variables.get("AWS_PROFILE") or "default")


def signed(
    keys: Keys, region: str, service: str, url: str, headers: Mapping[str, str], body: bytes, now: datetime
) -> dict[str, str]:
    """The headers of a POST to a URL without a query, names in lower case, its signature among them."""
    stamp = now.astimezone(UTC).strftime("%Y%m%dT%H%M%SZ")
    parts = urlsplit(url)
    sent = {**headers, "host": web.host_header(web.parse(url)), "x-amz-date": stamp}
    if keys.session:
        sent["x-amz-security-token"] = keys.session
    names = ";".join(sorted(sent))
    lines = "".join(f"{name}:{sent[name].strip()}\n" for name in sorted(sent))
    canonical = f"POST\n{parts.path or '/'}\n\n{lines}\n{names}\n{hashlib.sha256(body).hexdigest()}"
    scope = f"{stamp[:8]}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{stamp}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{keys.secret}".encode()
    for part in (stamp[:8], region, service, "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    signature = hmac.digest(key, to_sign.encode(), "sha256").hex()
    words = f"AWS4-HMAC-SHA256 Credential={keys.access}/{scope}, SignedHeaders={names}, Signature={signature}"
    return {**sent, "authorization": words}


def _from_agent(url: str, variables: Mapping[str, str], timeout_s: float) -> Keys:
    token = variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN", "")
    try:
        if file := variables.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"):
            with open(file, encoding="utf-8") as opened:
                token = opened.read(MAX_TOKEN_BYTES).strip()
        status, body = web.send_small("GET", url, {"authorization": token} if token else {}, b"", timeout_s)
        told = json.loads(body) if status == 200 else {}
        return Keys(str(told["AccessKeyId"]), str(told["SecretAccessKey"]), str(told.get("Token") or ""))
    except (BettongError, OSError, ValueError, KeyError, TypeError):
        raise Unavailable("The container's agent gives this platform no keys of AWS.", LOOK_AT) from None


def _from_profile(file: str, profile: str) -> Keys:
    parser = configparser.RawConfigParser()
    try:
        parser.read(file, encoding="utf-8")
        section = parser[profile]
        return Keys(
            section["aws_access_key_id"], section["aws_secret_access_key"], section.get("aws_session_token") or ""
        )
    except (configparser.Error, KeyError, OSError, UnicodeDecodeError):
        raise Unavailable("This platform has no keys of AWS.", LOOK_AT) from None
