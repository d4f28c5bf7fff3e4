"""A private S3: moto's server, which takes any keys."""

from __future__ import annotations

import ssl
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
