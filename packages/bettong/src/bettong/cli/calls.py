"""What commands share: how they teach, and how they ask the server that runs."""

from __future__ import annotations

import difflib
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

import click
import httpx

from bettong import __version__, compose
from bettong.cli import record
from bettong.errors import BettongError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from bettong.settings import Settings

CALL_TIMEOUT_S = 60.0
WHOLE = 200  # characters of a first sentence: click cuts it at 45 otherwise


class Teaching(click.Group):
    """A group that lists its commands with whole sentences, answers a mistyped one with the commands there are, and our
    errors with two sentences."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl([(name, one.get_short_help_str(limit=WHOLE)) for name, one in commands if one])

    def resolve_command(self, ctx: click.Context, args: list[str]) -> Any:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError:
            known = self.list_commands(ctx)
            near = difflib.get_close_matches(args[0], known, n=1)
            meant = f"Did you mean '{near[0]}'? " if near else ""
            problem = f"There is no command '{args[0]}'. {meant}The commands are: {', '.join(known)}."
            raise click.UsageError(problem, ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except BettongError as error:
            raise click.ClickException(str(error)) from error


def running(settings: Settings) -> record.Record:
    if (found := record.running(settings.home)) is None:
        fail(f"No platform runs in {settings.home}. Start it with: bettong up")
    return found


def call(settings: Settings, found: record.Record, method: str, path: str, body: object = None) -> Any:
    """One call to the running server as the owner; our error's own sentences when it refuses."""
    try:
        with _client(settings, found) as client:
            answer = client.request(method, path, json=None if method == "GET" else body or {})
    except httpx.HTTPError as broken:
        fail(_no_answer(found, broken))
    if answer.is_success:
        return answer.json() if answer.content else None
    fail(_words(answer, path))


class Server:
    """The platform that runs on this machine, asked as its owner. Each call fails in the server's own words."""

    def __init__(self) -> None:
        self._settings = compose.settings_from_environment()
        self._found = running(self._settings)

    def post(self, path: str, body: object = None) -> Any:
        return call(self._settings, self._found, "POST", path, body)

    def get(self, path: str) -> Any:
        return call(self._settings, self._found, "GET", path)

    @contextmanager
    def stream(self, path: str, body: object = None) -> Iterator[Iterator[bytes]]:
        """The bytes of an answer, as they come: to a POST of `body`, or to a GET without one."""
        try:
            with (
                _client(self._settings, self._found) as client,
                client.stream("GET" if body is None else "POST", path, json=body, timeout=None) as answer,
            ):
                if not answer.is_success:
                    answer.read()
                    fail(_words(answer, path))
                yield answer.iter_raw()
        except httpx.HTTPError as broken:
            fail(_no_answer(self._found, broken))

    def send(self, path: str, params: Sequence[tuple[str, str]], content: Iterator[bytes], kind: str) -> Any:
        """POST bytes as they are made."""
        try:
            with _client(self._settings, self._found) as client:
                answer = client.post(
                    path,
                    params=httpx.QueryParams(tuple(params)),
                    content=content,
                    headers={"Content-Type": kind},
                    timeout=None,
                )
        except httpx.HTTPError as broken:
            fail(_no_answer(self._found, broken))
        return answer.json() if answer.is_success else fail(_words(answer, path))


def token_of(home: Path) -> str:
    try:
        return (home / "token").read_text().strip()
    except OSError:
        fail(f"There is no token that you can read in {home}. Start the platform with: bettong up")


def fail(text: str) -> NoReturn:
    raise click.ClickException(text)


def _client(settings: Settings, found: record.Record) -> httpx.Client:
    headers = {"Authorization": f"Bearer {token_of(settings.home)}", "X-Bettong-Client": f"cli/{__version__}"}
    return httpx.Client(base_url=found.url, headers=headers, timeout=CALL_TIMEOUT_S, trust_env=False)


def _words(answer: httpx.Response, path: str) -> str:
    try:
        return str(answer.json()["msg"])
    except (ValueError, KeyError, TypeError):
        return f"The server at {answer.url.host} answered {answer.status_code} to {path}: {answer.text[:200]}"


def _no_answer(found: record.Record, broken: httpx.HTTPError) -> str:
    return f"The server at {found.url} did not answer ({type(broken).__name__}). See: bettong logs"
