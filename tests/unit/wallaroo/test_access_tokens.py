"""Replicas go by the workspaces that an access token names; one that is older than a workspace does not name it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pandas as pd
import pytest
from unit.wallaroo.stub import Asked, Reply, StubPlatform, deployment, engine_error, pipeline_entry

import wallaroo
from wallaroo.object import InferenceError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EXCHANGE = "/v1/api/auth/token"
ANSWER = [{"time": 1752681130155, "out.forecast": [3, 4]}]
ROWS = pd.DataFrame({"count": [[1, 2]]})


def access(number: int, *workspace_ids: int, is_admin: bool = False) -> dict[str, Any]:
    return {
        "access_token": f"jwt-{number}",
        "expires_in": 60,
        "user_id": "u-bob",
        "email": "bob@example.org",
        "username": "bob",
        "is_admin": is_admin,
        "workspace_ids": list(workspace_ids),
    }


@pytest.fixture
def bob(platform: StubPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[wallaroo.Client]:
    """A client with a token of workspace 7, on a platform where pipeline `rental` of workspace 8 is deployed."""
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"token": "bt_bobs"}))
    monkeypatch.setenv("WALLAROO_SDK_CREDENTIALS", str(credentials))
    record = deployment(platform.url, f"{platform.url}/replica")
    platform.on("/v1/api/pipelines/get_pipeline_by_name", pipeline_entry(deployed=True, deployment=record))
    platform.on(EXCHANGE, access(1, 7), access(2, 7, 8))
    with wallaroo.Client(platform.url) as made:
        made.set_current_workspace(made.get_current_workspace())
        yield made


def only_for(*tokens: str) -> Any:
    """A replica that knows its workspace's members by their tokens, and has nothing for others."""

    def answer(asked: Asked) -> Reply:
        if asked.headers["authorization"].removeprefix("Bearer ") in tokens:
            return Reply(ANSWER)
        return engine_error(404, "There is nothing here.")

    return answer


def sent_tokens(platform: StubPlatform) -> list[str]:
    return [asked.headers["authorization"].removeprefix("Bearer ") for asked in platform.calls("/replica")]


def test_a_token_that_does_not_name_the_workspace_of_a_pipeline_is_renewed_before_the_first_inference(
    bob: wallaroo.Client, platform: StubPlatform
) -> None:
    platform.on("/replica", only_for("jwt-2"))
    pipeline = bob.get_pipeline("rental")

    for _ in range(3):
        pipeline.infer(ROWS)

    assert sent_tokens(platform) == ["jwt-2"] * 3
    assert len(platform.calls(EXCHANGE)) == 2


def test_the_header_that_a_program_takes_beside_a_pipelines_url_names_its_workspace(
    bob: wallaroo.Client, platform: StubPlatform
) -> None:
    url = bob.get_pipeline("rental").url()

    assert url == f"{platform.url}/replica"
    assert bob.auth.auth_header() == {"Authorization": "Bearer jwt-2"}


@pytest.mark.parametrize("first", [access(1, 7, 8), access(1, is_admin=True)])
def test_a_token_that_does_or_is_an_administrators_is_kept(
    bob: wallaroo.Client, platform: StubPlatform, first: dict[str, Any]
) -> None:
    bob.logout()
    platform.on(EXCHANGE, first)
    platform.on("/replica", ANSWER)
    pipeline = bob.get_pipeline("rental")
    exchanges = len(platform.calls(EXCHANGE))

    pipeline.infer(ROWS)

    assert len(platform.calls(EXCHANGE)) == exchanges
    assert sent_tokens(platform) == ["jwt-1"]


def test_a_replica_that_finds_nothing_is_asked_once_more_with_a_new_token(
    bob: wallaroo.Client, platform: StubPlatform
) -> None:
    platform.on(EXCHANGE, access(2, 7, 8), access(3, 7, 8))
    platform.on("/replica", only_for("jwt-3"))

    result = bob.get_pipeline("rental").infer(ROWS)

    assert list(result["out.forecast"]) == [[3, 4]]
    assert sent_tokens(platform) == ["jwt-2", "jwt-3"]
    assert len({asked.headers["x-request-id"] for asked in platform.calls("/replica")}) == 1


def test_a_stranger_gets_the_replicas_word_after_one_more_try_and_not_a_loop(
    bob: wallaroo.Client, platform: StubPlatform
) -> None:
    platform.on(EXCHANGE, access(2, 7))
    platform.on("/replica", only_for())

    with pytest.raises(InferenceError, match=r"\[404\] There is nothing here"):
        bob.get_pipeline("rental").infer(ROWS)

    assert len(platform.calls("/replica")) == 2
    assert len(platform.calls(EXCHANGE)) <= 4


def test_while_the_server_is_away_the_token_in_hand_is_used(bob: wallaroo.Client, platform: StubPlatform) -> None:
    platform.on(EXCHANGE, Reply(hang_up=True))
    platform.on("/replica", only_for("jwt-1"))

    bob.get_pipeline("rental").infer(ROWS)

    assert sent_tokens(platform) == ["jwt-1"]


def test_logging_out_forgets_the_access_token_and_the_next_call_logs_in_again(
    bob: wallaroo.Client, platform: StubPlatform
) -> None:
    assert bob.auth.auth_header() == {"Authorization": "Bearer jwt-1"}

    bob.logout()

    assert bob.auth.auth_header() == {"Authorization": "Bearer jwt-2"}
    assert platform.calls(EXCHANGE)[-1].headers["authorization"] == "Bearer bt_bobs"
