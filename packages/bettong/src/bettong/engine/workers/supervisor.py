"""The thin shell around a worker's life: starts the process, carries frames, and does what `lifecycle` orders."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bettong.domain.deployments import ObservedWorker, State
from bettong.engine.workers import lifecycle
from bettong.engine.workers.channel import Channel
from bettong.engine.workers.lifecycle import Fail, Kill, Launch, Order, Outcome, Phase, Refuse, Send, WakeAt, Worker
from bettong.engine.workers.process import Plan, WorkerProcess
from bettong.errors import BettongError, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from bettong.engine.workers.frames import Encoded

NO_FIT = "Misfit"  # what `mac` calls an answer that does not fit its schema: a name for it, not for people
DRAIN_S = 1.0  # between the end of a worker's process and the end of its socket, whichever comes first
GONE_S = 10.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What a worker returned, not yet trusted: column trees and the bytes behind them."""

    columns: Any
    body: memoryview


@dataclass(slots=True, eq=False)
class Call:
    """A request to a model, and the future of its answer. It may be handed from one worker's queue to another's."""

    rows: int
    encoded: Encoded
    answer: asyncio.Future[Answer]
    made_up: bool = False  # nobody sent it; its failure is no news
    home: Supervisor | None = None
    number: int = 0  # at home


class Supervisor:
    """One model's worker, kept alive. Lives on one event loop; nothing here blocks it."""

    def __init__(self, name: str, uid: str, plan: Plan, load: dict[str, Any], patience: lifecycle.Patience) -> None:
        """`name` is the model's, for people. `load` is the load message without its `do`."""
        self._name, self._uid, self._plan, self._load = name, uid, plan, load
        self._worker = Worker(patience)
        self.on_idle: Callable[[Supervisor], None] | None = None  # called when its worker has nothing to do
        self._calls: dict[int, Call] = {}
        self._last_call = 0
        self._run: _Run | None = None
        self._loaded: asyncio.Future[None] | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._endings: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        """Load the model. Raises ModelFailed with its last words; then nothing is left running."""
        self._loaded = asyncio.get_running_loop().create_future()
        try:
            self._apply(lifecycle.on_start(self._worker, self._now()))
            await self._loaded
        except BaseException:
            self._loaded.cancel()
            await self.close()
            raise

    async def call(self, rows: int, encoded: Encoded, *, made_up: bool = False) -> Answer:
        """Run the model on these columns. If this is cancelled the worker may go on with them for a while.

        Raises:
            ModelFailed: the model raised, or the worker died under it.
            Unavailable: no worker came up in time; it never ran.
        """
        call = Call(rows, encoded, asyncio.get_running_loop().create_future(), made_up)
        self.take(call)
        try:
            return await call.answer
        except asyncio.CancelledError:
            assert call.home is not None
            call.home.abandon(call)
            raise
        finally:
            assert call.home is not None
            del call.home._calls[call.number]

    def take(self, call: Call) -> None:
        """Have this worker run a call, at once or in its turn."""
        self._last_call += 1
        call.home, call.number = self, self._last_call
        self._calls[call.number] = call
        self._apply(lifecycle.on_request(self._worker, call.number, self._now()))

    def give_up_oldest(self) -> Call:
        """Take the call that waits longest out of this worker's queue, which is not empty."""
        call = self._calls.pop(self._worker.waiting[0].request)
        self._apply(lifecycle.on_abandoned(self._worker, call.number, self._now()))
        return call

    def abandon(self, call: Call) -> None:
        """Nobody waits for this call of this worker any more."""
        self._apply(lifecycle.on_abandoned(self._worker, call.number, self._now()))

    async def close(self) -> None:
        """End the worker; requests in flight fail. When this returns the process is gone. Twice is no error."""
        self._apply(lifecycle.on_close(self._worker, self._now()))
        for timer in self._timers:
            timer.cancel()
        self._timers.clear()
        if self._loaded and not self._loaded.done():
            self._loaded.set_exception(ModelFailed(f"The worker of model '{self._name}' was stopped while it loaded."))
        if self._endings:
            await asyncio.wait(set(self._endings), timeout=GONE_S)

    @property
    def ready(self) -> bool:
        """Whether a worker is there that requests can be sent to."""
        return self._worker.phase is Phase.READY

    @property
    def idle(self) -> bool:
        """Whether a request would be sent at once."""
        return self.ready and self._worker.running is None

    @property
    def waiting(self) -> int:
        """Requests that have come and do not run yet."""
        return len(self._worker.waiting)

    def observed(self) -> ObservedWorker:
        """The worker as it is now. It is running when its process is loaded and alive."""
        worker, run = self._worker, self._run
        state = State.PENDING
        if worker.phase is Phase.READY:
            state = State.RUNNING
        elif worker.phase in (Phase.FAILED, Phase.CLOSED) or worker.crashes >= lifecycle.CRASHES_UNTIL_FAILED:
            state = State.FAILED
        reason = None if state is State.RUNNING else worker.reason
        return ObservedWorker(
            uid=self._uid,
            pid=run.process.pid if run else 0,
            state=state,
            reason=f"The worker of model '{self._name}' {_sentence(reason)}" if reason else None,
            restarts=worker.restarts,
            sandbox=run.sandbox if run else "",
        )

    # --- events of the process ---

    def received(self, run: _Run, header: dict[str, Any], body: memoryview) -> None:
        match header:
            case {"do": "result", "id": int(request), "columns": columns}:
                if call := self._calls.get(request):
                    _settle(call.answer, Answer(columns, body))
                self._apply(lifecycle.on_answer(self._worker, request, self._now()))
            case {"do": "failed", "id": int(request), "error": str(error), "message": str(message)}:
                if call := self._calls.get(request):
                    _settle(call.answer, self._raised(error, message))
                self._apply(lifecycle.on_answer(self._worker, request, self._now()))
            case {"do": "failed", "id": None, "error": str(error), "message": str(message)}:
                words = message if error in ("AttributeError", "ValueError", "LaunchError") else f"{error}: {message}"
                self._apply(lifecycle.on_load_failed(self._worker, f"did not load: {words}", self._now()))
            case {"do": "sandbox", "holds": str(holds)} if not run.sandbox:  # the launcher's; model code comes later
                run.sandbox = holds
            case {"do": "ready"}:
                self._apply(lifecycle.on_ready(self._worker, self._now()))
                if self._loaded and not self._loaded.done():
                    self._loaded.set_result(None)
            case _:
                self.broken("a message of no known kind")

    def broken(self, why: str) -> None:
        words = f"broke its protocol: it sent {why}"
        self._apply(lifecycle.on_broken(self._worker, words, self._now()))

    def exited(self, run: _Run, how: str) -> None:
        if run is self._run:
            self._run = None
        if self._worker.phase is Phase.LOADING:
            words = run.process.last_words()
            how = f"{how} while it loaded" + (f"; its last words: {words}" if words else "")
        self._gone(how)

    def _gone(self, how: str) -> None:
        self._apply(lifecycle.on_exit(self._worker, how, self._now()))
        if self._worker.phase is Phase.FAILED and self._loaded and not self._loaded.done():
            self._loaded.set_exception(
                ModelFailed(
                    f"The worker of model '{self._name}' {_sentence(self._worker.reason)}",
                    "Correct the model and upload it again; its log has the whole story.",
                )
            )

    # --- orders ---

    def _apply(self, outcome: Outcome) -> None:
        self._worker, orders = outcome
        for order in orders:
            self._do(order)
        if self.on_idle is not None and self.idle:
            self.on_idle(self)

    def _do(self, order: Order) -> None:
        match order:
            case Send(request):
                call = self._calls[request]
                assert self._run is not None
                header = {"do": "predict", "id": request, "rows": call.rows, "columns": call.encoded.columns}
                if call.made_up:
                    header["made_up"] = True
                self._run.send(header, call.encoded)
            case Launch():
                self._launch()
            case Kill():
                if self._run is not None:
                    self._run.process.kill()
            case WakeAt(at_s):
                self._wake_at(at_s)
            case Fail(request, why):
                problem = f"The worker of model '{self._name}' {why} while it ran this request."
                self._reject(request, ModelFailed(problem, "It is being started again; send the request once more."))
            case Refuse(request, why):
                problem = f"The worker of model '{self._name}' {_sentence(why)}"
                self._reject(request, Unavailable(problem, "This request did not run; send it again later."))

    def _launch(self) -> None:
        try:
            run = _Run(self, self._plan, self._load)
        except (OSError, Unavailable) as failed:
            self._gone(f"could not be started: {failed}")
            return
        self._run = run
        self._endings.add(run.task)
        run.task.add_done_callback(self._endings.discard)

    def _reject(self, request: int, error: BettongError) -> None:
        if call := self._calls.get(request):
            _settle(call.answer, error)

    def _wake_at(self, at_s: float) -> None:
        loop = asyncio.get_running_loop()

        def wake() -> None:
            self._timers.discard(timer)
            if self._now() < at_s:  # uvloop counts whole milliseconds: a tick before its time would decide nothing
                self._wake_at(at_s)
            else:
                self._apply(lifecycle.on_tick(self._worker, self._now()))

        timer = loop.call_at(at_s, wake)
        self._timers.add(timer)

    def _raised(self, error: str, message: str) -> ModelFailed:
        words = message if error == NO_FIT else f"{error}: {message}" if message else error
        deployment = self._plan.log_file.parent.name
        return ModelFailed(
            f"Model '{self._name}' failed: {words.rstrip('.')}.",
            f"The traceback is in its log: bettong logs --deployment {deployment} --model {self._name}.",
        )

    @staticmethod
    def _now() -> float:
        return asyncio.get_running_loop().time()


class _Run:
    """One process of the worker, from its start until it is gone and tidied up."""

    def __init__(self, supervisor: Supervisor, plan: Plan, load: dict[str, Any]) -> None:
        """Raises OSError or Unavailable when the process cannot be started; then there is nothing to end."""
        self._supervisor = supervisor
        self._exit: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._end_of_file: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._channel: Channel | None = None
        self.process = WorkerProcess(plan, self._exit.set_result)
        self.sandbox = ""
        self.task = asyncio.create_task(self._live(plan, load))

    def send(self, header: dict[str, Any], encoded: Encoded) -> None:
        assert self._channel is not None
        self._channel.send(header, encoded.buffers, encoded.body_bytes)

    # channel.Receiver

    def received(self, header: dict[str, Any], body: memoryview) -> None:
        self._supervisor.received(self, header, body)

    def broken(self, why: str) -> None:
        self._supervisor.broken(why)

    def ended(self) -> None:
        self._end_of_file.set_result(None)

    async def _live(self, plan: Plan, load: dict[str, Any]) -> None:
        channel = self._channel = await Channel.open(self.process.connection, self)
        channel.send(self.process.message(plan))
        channel.send({"do": "load", **load})
        both: list[asyncio.Future[Any]] = [self._exit, self._end_of_file]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        # The other of the two follows at once: an answer may still be in the socket of a process that is gone, and a
        # process that closed its socket is about to go. One that does not is of no use any more.
        await asyncio.wait(both, timeout=DRAIN_S)
        if not self._exit.done():
            self.process.kill()
        how = await self._exit
        channel.close()
        self._supervisor.exited(self, how)
        await self.process.remove_temporary()


def _settle(answer: asyncio.Future[Answer], result: Answer | BettongError) -> None:
    if answer.done():
        return
    if isinstance(result, BettongError):
        answer.set_exception(result)
    else:
        answer.set_result(result)


def _sentence(text: str | None) -> str:
    text = text or "is not running"
    return text if text.endswith((".", "!", "?")) else text + "."
