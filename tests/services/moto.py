"""A private S3: moto's server, which takes any keys."""

from __future__ import annotations

import urllib.request
from contextlib import contextmanager
from typing import TYPE_CHECKING

from services.place import environment
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

BUCKET = "contract"


@contextmanager
def running_moto() -> Iterator[str]:
    """The endpoint of a server with one empty bucket."""
    binaries, port = environment("moto", "moto[server]==5.2.5"), free_port()
    endpoint = f"http://127.0.0.1:{port}"
    with serving([str(binaries / "moto_server"), "-H", "127.0.0.1", "-p", str(port)], port):
        made = urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT")
        with urllib.request.urlopen(made, timeout=30):
            yield endpoint
