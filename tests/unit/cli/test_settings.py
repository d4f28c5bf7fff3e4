"""What the environment may say of the platform."""

from __future__ import annotations

import pytest

from bettong import compose
from bettong.errors import BadInput


def test_an_environment_is_a_word_that_reaches_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    for word in ("staging", "EU-west_1", ""):
        monkeypatch.setenv("BETTONG_ENVIRONMENT", word)
        assert compose.settings_from_environment().drivers.environment == word

    for word in ("../production", "a/b", "a#b", "a b", "ä", "x" * 65, "staging\n"):
        monkeypatch.setenv("BETTONG_ENVIRONMENT", word)
        with pytest.raises(BadInput, match=r"(?s)BETTONG_ENVIRONMENT is .* letters, digits, - and _"):
            compose.settings_from_environment()
