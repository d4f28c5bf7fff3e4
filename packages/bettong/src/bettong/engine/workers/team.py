"""Several workers of one model: a request goes to the least busy one, and a free one takes what waits elsewhere."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from bettong.domain.deployments import as_one

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence
    from typing import Any

    from bettong.domain.deployments import ObservedWorker
    from bettong.engine.workers.frames import Encoded
    from bettong.engine.workers.supervisor import Answer, Supervisor


class Team:
    """The workers of one model in one replica, at least one. Lives on one event loop."""

    def __init__(self, members: Sequence[Supervisor]) -> None:
        self._members = tuple(members)
        if len(self._members) > 1:
            for member in self._members:
                member.on_idle = self._help

    async def start(self) -> None:
        """Load the model in every worker. Raises ModelFailed as one of them does; then nothing is left running."""
        try:
            async with asyncio.TaskGroup() as starts:
                for member in self._members:
                    starts.create_task(member.start())
        except BaseExceptionGroup as failures:
            await self.close()
            raise failures.exceptions[0] from None  # the others were cancelled because of it

    def call(self, rows: int, encoded: Encoded) -> Coroutine[Any, Any, Answer]:
        """As `Supervisor.call`, in the worker that is likely to be free first."""
        return least_busy(self._members).call(rows, encoded)

    async def call_each(self, rows: int, encoded: Encoded) -> list[Answer | BaseException]:
        """Run made-up rows in every worker; what came of it."""
        calls = (member.call(rows, encoded, made_up=True) for member in self._members)
        return await asyncio.gather(*calls, return_exceptions=True)

    async def close(self) -> None:
        await asyncio.gather(*(member.close() for member in self._members))

    @property
    def waiting(self) -> int:
        """Requests that have come and do not run yet."""
        return sum(member.waiting for member in self._members)

    def workers(self) -> list[ObservedWorker]:
        return [member.observed() for member in self._members]

    def observed(self) -> ObservedWorker:
        """All of them as one: running when every one is, with the restarts of all."""
        return as_one(self.workers())

    def _help(self, idle: Supervisor) -> None:
        """Hand the request that waits longest in the longest queue to a worker that is free."""
        fullest = max(self._members, key=lambda member: member.waiting)
        if fullest is not idle and fullest.waiting:
            idle.take(fullest.give_up_oldest())


def least_busy(members: Sequence[Supervisor]) -> Supervisor:
    """One that is free, else the one with the shortest queue among those that run, else among those that will."""
    if members[0].idle or len(members) == 1:
        return members[0]
    return min(members, key=lambda member: (not member.ready, not member.idle, member.waiting))
