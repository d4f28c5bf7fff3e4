"""A private S3 and Secrets Manager: moto's server, which takes any keys until it is told to look at them."""

from __future__ import annotations

import json
import re
import ssl
import urllib.parse
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from certificates import NAME
from services.place import environment
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BUCKET = "contract"


@contextmanager
def running_moto(certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """The endpoint of a server with one empty bucket; with the files of a certificate and its key, by TLS."""
    binaries, port = environment("moto", "moto[server]==5.2.5"), free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [str(binaries / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    context = None
    if certificate is not None:
        command += ["-s", "-c", str(certificate[0]), "-k", str(certificate[1])]
        endpoint, context = f"https://{NAME}:{port}", ssl._create_unverified_context()  # it is looked at by the driver
    with serving(command, port):
        made = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        with urllib.request.urlopen(made, timeout=30, context=context):
            yield endpoint


class Secrets:
    """A Secrets Manager that can be told to look at keys: `reader` may read secrets, `stranger` may not."""

    REGION = "eu-central-1"

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.reader, self.stranger = self._user("reader"), self._user("stranger")
        may = {"Effect": "Allow", "Action": "secretsmanager:GetSecretValue", "Resource": "*"}
        rules = json.dumps({"Version": "2012-10-17", "Statement": [may]})
        self._iam("PutUserPolicy", UserName="reader", PolicyName="may", PolicyDocument=rules)

    def keep(self, name: str, text: str) -> None:
        words = json.dumps({"Name": name, "SecretString": text}).encode()
        self._ask(
            "secretsmanager",
            words,
            {"X-Amz-Target": "secretsmanager.CreateSecret", "Content-Type": "application/x-amz-json-1.1"},
        )

    def look_at_keys(self) -> None:
        """From now on, whoever asks has to have signed it."""
        url, words = f"{self.endpoint}/moto-api/reset-auth", {"Content-Type": "text/plain"}
        urllib.request.urlopen(urllib.request.Request(url, b"0", words), timeout=30).close()

    def _user(self, name: str) -> dict[str, str]:
        """A new one's keys, as variables."""
        self._iam("CreateUser", UserName=name)
        made = self._iam("CreateAccessKey", UserName=name)
        (access,), (secret,) = (re.findall(f"<{tag}>(.*?)</{tag}>", made) for tag in ("AccessKeyId", "SecretAccessKey"))
        return {"AWS_ACCESS_KEY_ID": access, "AWS_SECRET_ACCESS_KEY": secret}

    def _iam(self, action: str, **words: str) -> str:
        body = urllib.parse.urlencode({"Action": action, "Version": "2010-05-08", **words}).encode()
        return self._ask("iam", body, {})

    def _ask(self, service: str, body: bytes, headers: dict[str, str]) -> str:
        said = f"AWS4-HMAC-SHA256 Credential=any/20260101/{self.REGION}/{service}/aws4_request"
        asked = urllib.request.Request(
            self.endpoint, body, {"Authorization": f"{said}, SignedHeaders=host, Signature=any", **headers}
        )
        with urllib.request.urlopen(asked, timeout=30) as answer:
            return str(answer.read().decode())
