"""Hands things from one thread to another, a few at a time: who is faster waits for the other."""

from __future__ import annotations

import threading
from collections import deque
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """At most `room` things lie here. Either side may end it at any time."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._things: deque[T] = deque()
        self._changed = threading.Condition()
        self._complete = self._closed = False

    def put(self, thing: T) -> bool:
        """Wait for room and leave it. False, and nothing left, when nobody takes anything any more."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._things) < self._room or self._closed)
            if self._closed:
                return False
            self._things.append(thing)
            self._changed.notify_all()
            return True

    def complete(self) -> None:
        """Nothing more will come."""
        with self._changed:
            self._complete = True
            self._changed.notify_all()

    def get(self) -> T | None:
        """Wait for the next thing; None when all were taken."""
        with self._changed:
            self._changed.wait_for(lambda: self._things or self._complete)
            if not self._things:
                return None
            thing = self._things.popleft()
            self._changed.notify_all()
            return thing

    def close(self) -> None:
        """Nothing more will be taken."""
        with self._changed:
            self._closed = True
            self._things.clear()
            self._changed.notify_all()
