"""A member of a consumer group in a process of its own, to be killed: says what it took and what it committed."""

from __future__ import annotations

import json
import sys

from contract.streams.kit import numbers, opened


def main() -> None:
    asked = json.loads(sys.stdin.readline())
    with opened(asked["kind"], asked["details"]) as source:
        while True:
            found = list(source.consume(asked["topic"], asked["group"], max_messages=asked["size"], wait_s=1.0))
            if not found:
                continue
            say("took", numbers(found))
            if asked["commit"]:
                source.commit(found)
                say("committed", numbers(found))


def say(what: str, which: list[int]) -> None:
    print(json.dumps([what, which]), flush=True)


if __name__ == "__main__":
    main()
