"""A private Azure Storage: azurite, by npm. It checks keys as the real one does."""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import shutil
import ssl
import urllib.request
from contextlib import contextmanager
from email.utils import formatdate
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from certificates import NAME
from services.place import made_once, run
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

VERSION = "3.37.0"
CONTAINER = "contract"
ACCOUNT = "devstoreaccount1"
# The key that azurite documents for its only account; it opens nothing else anywhere.
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@contextmanager
def running_azurite(certificate: tuple[Path, Path] | None = None) -> Iterator[str]:
    """The endpoint of the account, with one empty container. With the files of a certificate and its key it speaks TLS,
    and takes tokens of Microsoft's login, whose every claim but the signature it checks."""
    folder, port = made_once("azurite", [VERSION], _install), free_port()
    endpoint = f"http://127.0.0.1:{port}/{ACCOUNT}"
    program = folder / "node_modules" / ".bin" / "azurite-blob"
    command = [
        *(str(program), "--blobHost", "127.0.0.1", "--blobPort", str(port), "--inMemoryPersistence"),
        *("--skipApiVersionCheck", "--silent", "--disableTelemetry"),
    ]
    context = None
    if certificate is not None:
        command += ["--cert", str(certificate[0]), "--key", str(certificate[1]), "--oauth", "basic"]
        endpoint, context = f"https://{NAME}:{port}/{ACCOUNT}", ssl._create_unverified_context()
    with serving(command, port, cwd=folder):
        _make_container(endpoint, context)
        yield endpoint


def shared_access(permissions: str, *, hours: float = 1.0) -> str:
    """A token of shared access to the account's blobs, signed with its key: "r" reads, "l" lists, "w" writes, …"""
    ends = (dt.datetime.now(dt.UTC) + dt.timedelta(hours=hours)).strftime("%Y-%m-%dT%H:%M:%SZ")
    version, services, kinds = "2018-11-09", "b", "sco"
    text = "\n".join([ACCOUNT, permissions, services, kinds, "", ends, "", "", version, ""])
    fields = {"sv": version, "ss": services, "srt": kinds, "sp": permissions, "se": ends, "sig": _signed(text)}
    return urlencode(fields)


def _install(folder: Path) -> None:
    if shutil.which("npm") is None:
        raise RuntimeError("These tests need node and npm (Debian, Ubuntu: apt install nodejs npm).")
    run(["npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder), f"azurite@{VERSION}"], cwd=folder)


def _make_container(endpoint: str, context: ssl.SSLContext | None) -> None:
    date, version = formatdate(usegmt=True), "2021-08-06"
    headers = f"x-ms-date:{date}\nx-ms-version:{version}"
    text = f"PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}\n/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
    made = urllib.request.Request(
        f"{endpoint}/{CONTAINER}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": version,
            "authorization": f"SharedKey {ACCOUNT}:{_signed(text)}",
            "content-length": "0",
        },
    )
    urllib.request.urlopen(made, timeout=30, context=context).close()


def _signed(text: str) -> str:
    return base64.b64encode(hmac.new(base64.b64decode(KEY), text.encode(), hashlib.sha256).digest()).decode()
