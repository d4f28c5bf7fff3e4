"""Getting an inference to a replica: what to do next is decided by `attempts`; sync and async drivers only do it.

An inference has one request id over all its attempts, so that readers of the log can tell a repeated row.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from wallaroo import inference
from wallaroo._transport import InferenceRequest, Loss, Reply, error_of, new_request_id
from wallaroo.object import CommunicationError, InferenceError, InferenceTimeoutError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import httpx

    from wallaroo.client import Client

DEFAULT_TIMEOUT_S = 15.0
BUSY_RETRIES = 10
BUSY_FACTOR_S = 0.1
LONGEST_PAUSE_S = 2.0


@dataclass(frozen=True)
class Target:
    """Where a deployment takes inferences: its replicas' own address, and the server's forwarding path."""

    direct: str | None
    external: str

    @property
    def first(self) -> str:
        return self.direct or self.external


@dataclass(frozen=True)
class Send:
    url: str


@dataclass(frozen=True)
class Pause:
    seconds: float


class Locate:
    """Read the deployment record again: the replicas may have moved."""


class Renew:
    """Get a new access token: the one in hand was refused, or may be older than the caller's rights."""


@dataclass(frozen=True)
class Answer:
    reply: Reply
    url: str


Order = Send | Pause | Locate | Renew
Plan = Generator[Order, Any, "Answer | Loss"]


def attempts(target: Target, retries: int = 1) -> Plan:
    """What to do, order by order, until there is an answer or a loss that no retry mends.

    It is sent the outcome of each order: a Reply or Loss for `Send`, the Target in force for `Locate`, whether there is
    a new token for `Renew`, else None. 503 is tried again 10 times; a lost connection `retries` times, after looking
    where the replicas are now; a refused one also through the server; a refused token, and a 404 where the replicas
    are, once with a new token. A timeout is final: the model may be at work.
    """
    url, busy, lost, located, renewed = target.first, 0, 0, False, False
    while True:
        outcome: Reply | Loss = yield Send(url)
        if isinstance(outcome, Reply):
            if outcome.status == 503 and busy < BUSY_RETRIES:
                yield Pause(_pause_s(outcome, busy))
                busy += 1
                continue
            if outcome.status == 404 and not located:  # another deployment may have the port now
                located, target = True, (yield Locate())
                if target.first != url:
                    url = target.first
                    continue
            if outcome.status in (401, 404) and not renewed:
                renewed = True
                if (yield Renew()):
                    continue
            return Answer(outcome, url)
        if outcome is Loss.TIMED_OUT:
            return outcome
        if lost < retries:
            lost, located = lost + 1, True
            target = yield Locate()
            url = target.first
        elif outcome is Loss.REFUSED and url != target.external:
            url = target.external
        else:
            return outcome


class InferenceEndpoint:
    """Sends inferences of one deployment. `locate` reads its record; None when it is not deployed."""

    def __init__(self, client: Client, name: str, locate: Callable[[], Mapping[str, Any] | None]) -> None:
        self._client, self._name, self._locate = client, name, locate
        self._target: Target | None = None
        self._workspace_id: int | None = None
        self._replicas = 1

    def forget(self) -> None:
        """Look for the replicas anew at the next inference."""
        self._target = None

    def infer(
        self,
        tensor: Any,
        timeout: int | float | None = None,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
    ) -> Any:
        timeout_s = check_timeout(timeout)
        request, decode = inference.request_of(tensor, dataset, dataset_exclude, dataset_separator)
        result = self._run(request, timeout_s)
        if request.instead is not None and _is_refused(result):
            result = self._run(request.instead(), timeout_s)
        return self._take(result, decode, timeout_s)

    def infer_from_file(
        self, filename: str | Path, data_format: str | None = None, timeout: int | float | None = None, **dataset: Any
    ) -> Any:
        return self.infer(inference.read_file(filename, data_format), timeout, **dataset)

    async def async_infer(
        self,
        tensor: Any,
        async_client: httpx.AsyncClient,
        timeout: int | float | None = None,
        retries: int = 1,
        dataset: Sequence[str] | str | None = None,
        dataset_exclude: Sequence[str] | str | None = None,
        dataset_separator: str | None = None,
    ) -> Any:
        timeout_s = check_timeout(timeout)
        request, decode = inference.request_of(tensor, dataset, dataset_exclude, dataset_separator)
        result = await self._run_async(async_client, request, timeout_s, retries)
        if request.instead is not None and _is_refused(result):
            result = await self._run_async(async_client, request.instead(), timeout_s, retries)
        return self._take(result, decode, timeout_s)

    async def parallel_infer(
        self,
        tensor: Any,
        batch_size: int | None = 1,
        timeout: int | float | None = None,
        num_parallel: int | None = None,
        retries: int = 1,
        **dataset: Any,
    ) -> Any:
        as_table = inference.is_table(tensor)
        if not as_table and not inference.is_frame(tensor):
            raise ValueError(f"parallel_infer takes a DataFrame or an Arrow Table, not a {type(tensor).__name__}.")
        if not isinstance(batch_size, int) or isinstance(batch_size, bool) or batch_size < 1:
            raise ValueError(f"batch_size is {batch_size!r}. Give the number of rows per request, 1 or more.")
        check_timeout(timeout)
        await asyncio.to_thread(self._where)
        seats = asyncio.Semaphore(num_parallel or 2 * self._replicas)

        async with self._client._transport.new_async_http() as http:

            async def one(batch: Any) -> Any:
                async with seats:
                    try:
                        return await self.async_infer(batch, http, timeout, retries, **dataset)
                    except (InferenceError, CommunicationError, ValueError) as error:
                        failed = inference.error_table if as_table else inference.error_frame
                        return failed(batch, str(error))

            parts = await asyncio.gather(*map(one, inference.split(tensor, batch_size)))
        return inference.join(parts, as_table)

    def _run(self, request: InferenceRequest, timeout_s: float) -> Answer | Loss:
        transport, request_id = self._client._transport, new_request_id()
        plan = attempts(self._where())
        outcome: object = None
        while True:
            try:
                order = plan.send(outcome)
            except StopIteration as done:
                return self._settle(done.value)
            if isinstance(order, Send):
                outcome = transport.infer(order.url, request, request_id, timeout_s)
            elif isinstance(order, Pause):
                outcome = None
                self._client._clock.sleep(order.seconds)
            else:
                outcome = self._obey(order)

    async def _run_async(
        self, http: httpx.AsyncClient, request: InferenceRequest, timeout_s: float, retries: int
    ) -> Answer | Loss:
        transport, request_id = self._client._transport, new_request_id()
        plan = attempts(await asyncio.to_thread(self._where), retries)
        outcome: object = None
        while True:
            try:
                order = plan.send(outcome)
            except StopIteration as done:
                return self._settle(done.value)
            if isinstance(order, Send):
                headers = await asyncio.to_thread(transport.inference_headers, request, request_id)
                outcome = await transport.async_infer(http, order.url, request, headers, timeout_s)
            elif isinstance(order, Pause):
                outcome = None
                await asyncio.sleep(order.seconds)
            else:
                outcome = await asyncio.to_thread(self._obey, order)

    def _obey(self, order: Locate | Renew) -> Target | bool:
        if isinstance(order, Renew):
            return self._client._transport.auth.renew()
        known, self._target = self._target, None
        try:
            return self._where()
        except CommunicationError:
            if known is None:
                raise
            self._target = known  # the server is away as well; the replica may be back where it was
            return known

    def learn(self, record: Mapping[str, Any] | None) -> None:
        """Take the addresses of a deployment record, so that the next inference needs no word from the server."""
        if not record or not record.get("deployed", True):
            return
        self._target = Target(record.get("url"), record["external_url"])
        self._workspace_id = int(record["workspace_id"])
        self._client._transport.auth.cover(self._workspace_id)
        replicas = (record.get("engine_config") or {}).get("engine", {}).get("replicas")
        self._replicas = replicas if isinstance(replicas, int) and replicas > 0 else 1

    def _where(self) -> Target:
        """Raises RuntimeError when the pipeline is not deployed."""
        if self._target is None:
            self.learn(self._locate())
        if self._target is None:
            raise RuntimeError(f"Pipeline {self._name} is not deployed. Deploy it first: pipeline.deploy()")
        return self._target

    def _settle(self, result: Answer | Loss) -> Answer | Loss:
        """Remember an address that turned out not to be reachable from here."""
        target = self._target
        if isinstance(result, Answer) and target and result.url == target.external:
            self._target = Target(None, target.external)
        return result

    def _take(self, result: Answer | Loss, decode: inference.Decode, timeout_s: float) -> Any:
        if isinstance(result, Loss):
            raise InferenceTimeoutError(
                f"Inference on pipeline '{self._name}' got no answer within {timeout_s:g} seconds: {result.value}. "
                f"Consider adjusting the timeout, infer(..., timeout={2 * timeout_s:g}), and look at pipeline.status()."
            )
        if result.reply.status >= 400:
            raise error_of(InferenceError, result.reply)
        answer = decode(result.reply.content)
        if answer.time_ms is not None:
            self._client._last_inference_ms[self._workspace_id, self._name] = answer.time_ms
        return answer.value


def _is_refused(result: Answer | Loss) -> bool:
    return isinstance(result, Answer) and result.reply.status == 400


def check_timeout(timeout: int | float | None) -> float:
    """Seconds. Raises TypeError when it is no number, ValueError when it is not above 0."""
    if timeout is None:
        return DEFAULT_TIMEOUT_S
    if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
        raise TypeError(f"timeout is a {type(timeout).__name__}. Give a number of seconds.")
    if not timeout > 0:
        raise ValueError(f"timeout is {timeout}. Give a number of seconds above 0.")
    return float(timeout)


def _pause_s(reply: Reply, retries_so_far: int) -> float:
    try:
        asked_s = float(reply.headers["retry-after"])
    except (KeyError, ValueError):
        asked_s = BUSY_FACTOR_S * 2**retries_so_far
    return min(max(asked_s, 0.0), LONGEST_PAUSE_S)
