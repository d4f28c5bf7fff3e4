"""The last gate before a text leaves a driver's process: known secrets are taken out of it, in every usual spelling."""

from __future__ import annotations

import base64
import html
import json
import re
from typing import TYPE_CHECKING
from urllib.parse import quote, quote_plus

if TYPE_CHECKING:
    from collections.abc import Iterable

MASK = "*****"
SHORTEST = 5  # a shorter one would tear words apart and could be read off the holes

_PERCENT = re.compile("%[0-9A-F]{2}")
_URL_SAFE = str.maketrans("+/", "-_")


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
    json_forms = {json.dumps(secret, ensure_ascii=flag)[1:-1] for flag in (True, False)}
    twice = {json.dumps(form)[1:-1] for form in json_forms}  # JSON as a text within JSON
    in_urls = {quote(secret, safe=""), quote(secret), quote_plus(secret)}
    small = {_PERCENT.sub(lambda code: code[0].lower(), form) for form in in_urls}
    in_html = {html.escape(secret), html.escape(secret, quote=False)}
    return {secret, repr(secret)[1:-1], *json_forms, *twice, *in_urls, *small, *in_html, *_in_base64(secret.encode())}


def _in_base64(secret: bytes) -> set[str]:
    """What a longer base64 text that holds the secret shows of it, wherever in it the secret starts: the characters
    that nothing else has a part in."""
    forms = {base64.b64encode(secret).decode().rstrip("=")}
    for shift in range(3):
        encoded = base64.b64encode(bytes(shift) + secret).decode()
        forms.add(encoded[-(-8 * shift // 6) : 8 * (shift + len(secret)) // 6])
    return forms | {form.translate(_URL_SAFE) for form in forms}
