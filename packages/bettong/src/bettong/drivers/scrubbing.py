"""The last gate before a text leaves a driver's process: known secrets are taken out of it, in every usual spelling."""

from __future__ import annotations

import base64
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "*****"
SHORTEST = 5  # a shorter one would tear words apart and could be read off the holes


class Scrubber:
    """Knows the secrets of one call. No text of ours should hold one; this makes sure of it."""

    def __init__(self) -> None:
        self._forms: set[str] = set()

    def learn(self, secrets: Iterable[str]) -> None:
        """Keep these out of every text from now on. A secret of several lines is kept out line by line, too."""
        for secret in secrets:
            for part in {secret, *secret.splitlines()}:
                if len(part.strip()) >= SHORTEST:
                    self._forms |= _spellings(part)

    def clean(self, text: str) -> str:
        """The text with a mask in place of each secret; longer ones first, since one may hold another."""
        if not self._forms:
            return text
        pattern = "|".join(re.escape(form) for form in sorted(self._forms, key=len, reverse=True))
        return re.sub(pattern, MASK, text)


def _spellings(secret: str) -> set[str]:
    escaped = (json.dumps(secret, ensure_ascii=flag)[1:-1] for flag in (True, False))
    # base64 of a longer text that holds the secret shows a middle part that depends on where it starts: three of them.
    encoded = secret.encode()
    cores = {base64.b64encode(b"\0" * shift + encoded).decode()[4 if shift else 0 : -4] for shift in range(3)}
    whole = base64.b64encode(encoded).decode().rstrip("=")
    safe = {core for core in cores if len(core) >= 2 * SHORTEST}
    return {
        secret,
        quote(secret, safe=""),
        quote(secret),
        quote_plus(secret),
        repr(secret)[1:-1],
        whole,
        *escaped,
        *safe,
    }
