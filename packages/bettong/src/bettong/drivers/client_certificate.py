"""A certificate of ours for TLS, from memory: Python's ssl reads files alone, and a key is written to no disk."""

from __future__ import annotations

import os
import ssl
from contextlib import ExitStack

from bettong.errors import BadInput

LONGEST = 16_384  # what a pipe holds on every system while nobody reads


def add_client_certificate(context: ssl.SSLContext, certificate: str, key: str) -> None:
    """Both as PEM text of at most `LONGEST` bytes, the key without a password.

    Raises:
        BadInput: they are none, or do not belong together.
    """
    with ExitStack() as stack:
        certificate_path, key_path = (_pipe(text.encode(), stack) for text in (certificate, key))
        try:
            context.load_cert_chain(certificate_path, key_path, _no_password)
            return
        except (ssl.SSLError, OSError, ValueError):
            pass
    raise BadInput(
        "The client's certificate and its key do not hold.",
        "Paste both in PEM form, with BEGIN and END, and the key without a password.",
    )


def _pipe(text: bytes, stack: ExitStack) -> str:
    if len(text) > LONGEST:
        raise BadInput(f"A certificate or key is longer than {LONGEST} bytes.", "Leave the authorities out.")
    reading, writing = os.pipe()
    stack.callback(os.close, reading)
    try:
        os.write(writing, text)
    finally:
        os.close(writing)
    return f"/dev/fd/{reading}"


def _no_password() -> str:
    """Else OpenSSL would ask a terminal."""
    return ""
