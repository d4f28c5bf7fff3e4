"""What a server says when it cannot listen where it was told to."""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from bettong import compose
from bettong.cli import server
from bettong.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from bettong.settings import Settings


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.setenv("BETTONG_HOME", str(tmp_path))
    return compose.settings_from_environment()


def test_a_port_that_is_taken_is_named_with_what_to_do(settings: Settings) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]

        with pytest.raises(Unavailable, match=rf"Port {port} on 127\.0\.0\.1 cannot .* another one with --port"):
            server._listen(replace(settings, port=port))


@pytest.mark.parametrize("host", ["192.0.2.1", "no-such-host.invalid"])
def test_an_address_of_another_machine_is_no_matter_of_ports(settings: Settings, host: str) -> None:
    with pytest.raises(Unavailable, match=f"'{host}' is no address of this machine .* with --host or BETTONG_HOST"):
        server._listen(replace(settings, host=host))
