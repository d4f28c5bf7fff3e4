"""A NATS connection that plain code can use: its event loop runs in a thread, every call has a deadline."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bettong.drivers import sql_errors, web
from bettong.drivers.layers import HANDSHAKE_S
from bettong.drivers.loop_thread import LoopThread
from bettong.errors import BadInput, BettongError, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Coroutine, Mapping, Sequence

KIND = "NATS"
_PING_S = 5  # a server that is gone without a word is noticed after two of these
_SLACK_S = 5.0  # what a call may take beyond the waits that it names itself


class NatsConnection:
    """Connected from the start, once: it never connects anew, so it never goes where a server sends it. What it meets
    is told in our words. Close it."""

    def __init__(
        self,
        addresses: Sequence[tuple[str, int]],
        host: str,
        login: Mapping[str, str],
        tls: ssl.SSLContext | None,
        timeout_s: float,
    ) -> None:
        """
        Raises:
            BadInput: the login is refused.
            Unavailable: no answer, or TLS is wanted and not there.
        """
        self.timeout_s = timeout_s
        self._loop = LoopThread()
        self._client: Any = None
        try:
            self.run(lambda: self._connect(addresses, host, login, tls), 0.0)
        except BaseException:
            self.close()
            raise

    @property
    def client(self) -> Any:
        return self._client

    def run(self, work: Callable[[], Coroutine[Any, Any, Any]], wait_s: float) -> Any:
        """What the coroutine gives that `work` makes, which may wait for `wait_s` and the time of an answer.

        Raises:
            BettongError: what went wrong, in our words.
        """
        failed: BaseException
        try:
            return self._loop.run(work, wait_s + self.timeout_s + _SLACK_S)
        except Exception as error:
            failed = error
        raise self._translated(failed)

    def start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Have a coroutine run beside, until the connection is closed."""
        self._loop.start(work)

    def check(self) -> None:
        """Raises Unavailable when the connection is gone."""
        if self._client is None or not self._client.is_connected:
            raise sql_errors.broken(KIND)

    def close(self) -> None:
        """End the connection, whatever state it is in, and the thread."""
        self._loop.close(self._ended, self.timeout_s + _SLACK_S)

    async def _connect(
        self, addresses: Sequence[tuple[str, int]], host: str, login: Mapping[str, str], tls: ssl.SSLContext | None
    ) -> None:
        from nats.aio.client import Client

        client = Client()
        refused: list[BaseException] = []
        decided = asyncio.Event()

        async def note(error: Exception) -> None:
            refused.append(error)
            if _why(host, error) is not None:
                decided.set()

        def guarded(secret: str) -> Callable[[], str]:
            def give() -> str:  # asked for when TLS stands, if there is to be any
                if tls is not None and not _encrypted(client):
                    raise _NoTls
                return secret

            return give

        # The library would try again, and wait in vain for the end of TLS that never was: its first reason is enough.
        connecting = asyncio.ensure_future(
            client.connect(
                servers=[f"nats://{f'[{ip}]' if ':' in ip else ip}:{port}" for ip, port in addresses],
                error_cb=note,
                name="bettong",
                allow_reconnect=False,
                max_reconnect_attempts=1,
                reconnect_time_wait=0,
                dont_randomize=True,
                connect_timeout=max(1, int(self.timeout_s)),
                ping_interval=_PING_S,
                **({"tls": tls, "tls_hostname": host} if tls else {}),
                **{name: guarded(value) for name, value in login.items()},
            )
        )
        deciding = asyncio.ensure_future(decided.wait())
        await asyncio.wait({connecting, deciding}, timeout=self.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        deciding.cancel()
        if not connecting.done():
            connecting.cancel()
            refused.append(TimeoutError())
        elif (error := connecting.exception()) is not None:
            refused.append(error)
        elif tls is not None and not _encrypted(client):
            refused.append(_NoTls())
        else:
            self._client = client
            return
        await _closed(client)
        words = [why for error in refused if (why := _why(host, error)) is not None]
        if words:
            raise words[0]
        if any(isinstance(error, TimeoutError) for error in refused):
            raise Unavailable(f"'{host}' did not answer as NATS does in time.", "Check host and port.")
        raise Unavailable(f"'{host}' takes no connection as NATS does.", "Check host and port, and that it runs.")

    def _translated(self, failed: BaseException) -> BettongError:
        import nats
        from nats.js import errors

        if isinstance(failed, BettongError):
            return failed
        if self._client is not None and not self._client.is_connected:
            return sql_errors.broken(KIND)
        refused = self._client is not None and "permissions violation" in str(self._client.last_error).lower()
        if refused:
            return sql_errors.no_right(KIND)
        if isinstance(failed, (errors.NoStreamResponseError, nats.errors.NoRespondersError)):
            return BadInput("This NATS has no JetStream for this login.", "Turn JetStream on for its account.")
        if isinstance(failed, errors.ServiceUnavailableError):
            return Unavailable("JetStream of this NATS does not answer.", "Look at its log, or try again.")
        if isinstance(failed, nats.errors.MaxPayloadError):
            return BadInput("A message is longer than this NATS takes.", "Send less, or raise its max_payload.")
        if isinstance(failed, nats.errors.BadHeaderError):
            return BadInput("The name of a header holds what NATS does not allow.", "Name it in letters and '-'.")
        if isinstance(failed, errors.APIError):
            return BadInput(f"JetStream refused that (code {failed.err_code}).", "Look the code up in its manual.")
        if isinstance(failed, TimeoutError):
            return DeadlineExceeded("NATS did not answer in time.", "Try again, or look at that server.")
        if isinstance(failed, (nats.errors.Error, OSError)):
            return sql_errors.broken(KIND)
        raise failed

    async def _ended(self) -> None:
        if self._client is not None:
            await _closed(self._client)


class _NoTls(Exception):
    pass


def _why(host: str, error: BaseException) -> BettongError | None:
    """The words for an error that another try would meet again; None for others."""
    import ssl

    from nats.errors import SecureConnRequiredError, SecureConnWantedError

    if isinstance(error, _NoTls):
        return Unavailable(f"'{host}' does not demand TLS.", "Turn it on there, or set ssl to 'disable'.")
    if isinstance(error, ssl.SSLError):
        return web.tls_failed(host, error)
    if isinstance(error, (SecureConnRequiredError, SecureConnWantedError)):
        return Unavailable(f"'{host}' wants TLS.", "Set ssl to 'verify', or to 'require'.")
    text = str(error).lower()
    return sql_errors.no_login(KIND) if "authorization" in text or "authentication" in text else None


async def _closed(client: Any) -> None:
    with suppress(Exception):  # whatever it meets there, it is not used any more
        async with asyncio.timeout(1.0):
            await client.close()


def _encrypted(client: Any) -> bool:
    """Whether the handshake came before the login: nats-py does one when the server demands it, and only then."""
    return bool(client._server_info.get("tls_required"))


def shake_hands(target: Any, details: Any, timeout_s: float) -> str:
    """What a login meets: the server greets in the clear and says whether it wants TLS. Raises Unavailable."""
    import json

    from bettong.drivers import egress as reach

    with reach.connect(target, timeout_s) as raw:
        raw.settimeout(min(timeout_s, HANDSHAKE_S))
        try:
            with raw.makefile("rb") as lines:
                greeting = lines.readline(2**20)
            info = json.loads(greeting.removeprefix(b"INFO "))
            wanted = bool(info.get("tls_required"))
        except (OSError, ValueError, AttributeError):
            raise Unavailable(f"'{target.host}' does not answer as NATS does.", "Check host and port.") from None
        if not wanted:
            raise Unavailable(f"'{target.host}' does not demand TLS.", "Turn it on there, or set ssl to 'disable'.")
        context = web.tls_context_for(details.ssl, details.ssl_ca)
        with web.secured(raw, context, target.host, timeout_s) as wrapped:
            return wrapped.version() or "TLS"
