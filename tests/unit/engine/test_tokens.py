from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from inference_builders import PUBLIC_KEY, access_token

from bettong.domain.identity import Principal
from bettong.engine.tokens import TokenVerifier
from bettong.errors import BadInput, Unauthenticated

NOW = 1_750_000_000.0


class Clock:
    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def bearer(**claims: object) -> bytes:
    return f"Bearer {access_token(now=NOW, **claims)}".encode()  # type: ignore[arg-type]


def test_a_token_that_holds_tells_who_calls() -> None:
    caller = TokenVerifier(PUBLIC_KEY, clock=Clock()).verify(bearer(adm=True, ws=[3, 5]))

    assert caller == Principal("u-1", "ada@example.org", True, frozenset({3, 5}))


@pytest.mark.parametrize("header", [None, b"", b"Basic abc", b"Bearer ", b"Bearer"])
def test_without_a_bearer_token_the_caller_is_told_that_it_is_missing(header: bytes | None) -> None:
    with pytest.raises(Unauthenticated, match=r"^Jwt is missing$"):
        TokenVerifier(PUBLIC_KEY, clock=Clock()).verify(header)


@pytest.mark.parametrize(
    "header",
    [
        pytest.param(b"Bearer rubbish", id="not a token"),
        pytest.param(b"Bearer \xff\xfe.a.b", id="not even text"),
        pytest.param(b"Bearer " + b"a" * 100_000, id="endless"),
        pytest.param(bearer(key=Ed25519PrivateKey.generate()), id="signed by another"),
        pytest.param(bearer(aud="elsewhere"), id="for another audience"),
        pytest.param(bearer(aud=None), id="for nobody"),
        pytest.param(bearer(life_s=0), id="expired"),
        pytest.param(bearer(life_s=3600), id="of a longer life than a minute"),
        pytest.param(bearer(iat=int(NOW) + 600, exp=int(NOW) + 660), id="from the future"),
        pytest.param(bearer(exp=None), id="without an end"),
        pytest.param(bearer(exp="9999999999"), id="with an end in text"),
        pytest.param(bearer(ws=["5"]), id="with workspaces in text"),
        pytest.param(bearer(ws=None), id="without workspaces"),
        pytest.param(bearer(adm="yes"), id="with an odd adm"),
        pytest.param(bearer(sub=None), id="of nobody"),
    ],
)
def test_a_token_that_does_not_hold_is_refused_without_a_reason(header: bytes) -> None:
    with pytest.raises(Unauthenticated, match=r"^Jwt verification fails$"):
        TokenVerifier(PUBLIC_KEY, clock=Clock()).verify(header)


def test_a_token_signed_with_another_algorithm_is_refused() -> None:
    import jwt

    claims = jwt.decode(access_token(now=NOW), options={"verify_signature": False})
    forged = jwt.encode(claims, PUBLIC_KEY, algorithm="HS256")

    with pytest.raises(Unauthenticated, match="verification fails"):
        TokenVerifier(PUBLIC_KEY, clock=Clock()).verify(f"Bearer {forged}".encode())


def test_a_remembered_token_ends_when_it_expires() -> None:
    clock = Clock()
    verifier = TokenVerifier(PUBLIC_KEY, clock=clock)
    header = bearer(life_s=60)
    first = verifier.verify(header)

    clock.now = NOW + 59.9
    assert verifier.verify(header) is first, "a remembered token is not verified again"
    for clock.now in (NOW + 60, NOW + 61):
        with pytest.raises(Unauthenticated, match="verification fails"):
            verifier.verify(header)


def test_what_is_remembered_is_bounded_and_the_forgotten_still_hold() -> None:
    verifier = TokenVerifier(PUBLIC_KEY, clock=Clock(), max_cached=2)
    headers = [bearer(sub=f"u-{i}") for i in range(4)]
    for header in headers:
        verifier.verify(header)

    assert len(verifier._verified) == 2
    assert verifier.verify(headers[0]).user_id == "u-0"


def test_a_signers_clock_a_little_ahead_does_no_harm() -> None:
    ahead = f"Bearer {access_token(now=NOW + 4)}".encode()

    assert TokenVerifier(PUBLIC_KEY, clock=Clock()).verify(ahead).user_id == "u-1"


@pytest.mark.parametrize("key", ["", "not base64!", "c2hvcnQ="])
def test_a_public_key_that_is_none_is_noticed_at_once(key: str) -> None:
    with pytest.raises(BadInput, match="not an Ed25519 key"):
        TokenVerifier(key)
