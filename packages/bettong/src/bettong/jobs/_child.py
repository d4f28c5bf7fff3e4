"""The process in which one attempt at a job runs: `python -I -m bettong.jobs._child IN OUT LIFE`.

It says nothing but frames, and ends when the server does; what it leaves in the job's folder is its owner's alone.
"""

from __future__ import annotations

import os
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

from bettong.drivers import hygiene

if TYPE_CHECKING:
    from bettong.drivers.frames import Line
    from bettong.jobs.work import Kind


def main(incoming: int, outgoing: int, life: int) -> None:
    hygiene.begin(life)
    os.umask(0o077)

    from bettong.drivers.frames import Ended, Line, words

    line = Line(incoming, outgoing)
    try:
        _, body = line.receive()
        _work(line, words(body))
    except Ended:
        pass  # the server is gone
    # Neither threads of libraries nor destructors get a say: what had to be kept is kept.
    os._exit(0)


def _work(line: Line, told: dict[str, Any]) -> None:
    from bettong.drivers.frames import Ended
    from bettong.errors import BettongError
    from bettong.jobs.child_work import ChildWork, plain

    work = ChildWork(line, told)
    threading.Thread(target=work.listen, daemon=True).start()
    module, _, name = told["program"].partition(":")
    try:
        sys.path += [folder for folder in told["folders"] if folder not in sys.path]
        kind = cast("Kind", getattr(import_module(module), name))
        result = plain(kind(work))
    except Ended:
        raise
    except BettongError as error:
        work.end({"failed": [error.code, work.clean(error.problem), work.clean(error.next_step)]})
    except Exception as unexpected:  # whatever a library does; its text may hold anything
        file = getattr(sys.modules.get(module), "__file__", None)
        place = hygiene.place_of(unexpected, file)
        work.end({"failed": ["internal", f"The job failed unexpectedly ({place}).", "Tell whoever made that kind."]})
    else:
        work.end({"done": result, "stopped": work.stopped})


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:4]))
