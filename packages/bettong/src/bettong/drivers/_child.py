"""The process in which one call of a driver runs: `python -I -m bettong.drivers._child IN OUT LIFE`.

It says nothing but frames, keeps nothing, and ends when the server does.
"""

from __future__ import annotations

import os
import resource
import sys
import threading
from importlib import import_module
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from bettong.domain.drivers import Driver
    from bettong.drivers.frames import Line
    from bettong.drivers.opening import Opening

_PR_SET_DUMPABLE = 4


def main(incoming: int, outgoing: int, life: int) -> None:
    _say_nothing()
    _leave_no_dump()
    threading.Thread(target=_end_with_the_server, args=(life,), daemon=True).start()
    _keep_pandas_out()

    # All that any call needs comes before the call does: it may be waited for.
    from bettong.drivers.frames import Ended, Line, words
    from bettong.drivers.opening import Opening  # noqa: F401

    line = Line(incoming, outgoing)
    try:
        _, body = line.receive()
        _serve(line, words(body))
    except Ended:
        pass  # the server is gone, or wants no more
    # Neither threads of libraries nor destructors get a say: what had to be kept is kept.
    os._exit(0)


def _serve(line: Line, asked: dict[str, Any]) -> None:
    from bettong.drivers.frames import Ended
    from bettong.errors import BettongError

    opening: Opening | None = None
    try:
        opening = _opening(asked)
        _WORK[asked["do"]](line, opening, asked)
    except (Ended, BrokenPipeError):
        raise
    except BettongError as error:
        clean = opening.clean if opening else str
        line.say({"failed": [error.code, clean(error.problem), clean(error.next_step)]})
    except Exception as unexpected:  # whatever a library does; its text may hold anything
        line.say({"failed": ["unavailable", _where(asked, unexpected), "Tell whoever made that driver."]})


def _opening(asked: dict[str, Any]) -> Opening:
    from bettong.domain.drivers import Egress
    from bettong.drivers.opening import Opening, Reach
    from bettong.drivers.references import ReferencePolicy

    def tuples(values: dict[str, Any]) -> dict[str, Any]:
        return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}

    sys.path += [folder for folder in asked["folders"] if folder not in sys.path]
    policy = ReferencePolicy(**tuples(asked["references"]))
    reach = Reach(Egress(**tuples(asked["egress"])), policy, asked["variables"])
    module, _, name = asked["driver"].partition(":")
    driver = cast("type[Driver]", getattr(import_module(module), name))
    return Opening(asked["kind"], driver, asked["details"], reach, asked["timeout_s"])


def _test(line: Line, opening: Opening, asked: dict[str, Any]) -> None:
    for result in opening.stages():
        line.say({"stage": [result.stage, result.ok, result.took_ms, result.said, result.next_step]})
    line.say({"done": True})


def _browse(line: Line, opening: Opening, asked: dict[str, Any]) -> None:
    from bettong.domain.drivers import Browsable, Capability

    with opening.source(Capability.BROWSE) as source:
        entries = cast("Browsable", source).browse(asked["path"])
    line.say({"entries": [[entry.name, entry.kind, entry.detail] for entry in entries]})


def _read(line: Line, opening: Opening, asked: dict[str, Any]) -> None:
    from bettong.domain.drivers import Capability, Readable
    from bettong.drivers.arrow_forms import bounded, plain_reader
    from bettong.drivers.frames import END

    request = _read_request(asked)
    with opening.source(Capability.READ) as source:
        reader = plain_reader(cast("Readable", source).read(request))
        line.send_schema(reader.schema)
        for batch in bounded(reader, request.batch_rows, request.limit):
            line.send_batch(batch)
        line.send(END)
        # The rest, closing politely, is nobody's concern any more: the server has ended us by then.


def _write(line: Line, opening: Opening, asked: dict[str, Any]) -> None:
    import pyarrow as pa

    from bettong.domain.drivers import Capability, Writable, WriteMode, WriteRequest
    from bettong.drivers.frames import SCHEMA, Ended

    kind, body = line.receive()
    if kind != SCHEMA:
        raise Ended
    schema = pa.ipc.read_schema(body)
    mode = WriteMode(asked["mode"])
    needed = Capability.UPSERT if mode is WriteMode.UPSERT else Capability.WRITE
    with opening.source(needed) as source:
        rows = pa.RecordBatchReader.from_batches(schema, line.batches(schema))
        result = cast("Writable", source).write(WriteRequest(asked["table"], mode, tuple(asked["keys"])), rows)
    line.say({"rows": result.rows})


_WORK = {"test": _test, "browse": _browse, "read": _read, "write": _write}


def _read_request(asked: dict[str, Any]) -> Any:
    import base64

    import pyarrow as pa

    from bettong.domain.drivers import ReadRequest

    parameters: tuple[Any, ...] = ()
    if asked["parameters"]:
        with pa.ipc.open_stream(base64.b64decode(asked["parameters"])) as opened:
            parameters = tuple(opened.read_all().to_pylist()[0].values())
    return ReadRequest(asked["query"], parameters, asked["batch_rows"], asked["limit"])


def _where(asked: dict[str, Any], unexpected: Exception) -> str:
    """Type and place of an error of nobody's making. Its text stays here."""
    import traceback

    driver = getattr(sys.modules.get(asked["driver"].partition(":")[0]), "__file__", None)
    frames = list(traceback.extract_tb(unexpected.__traceback__))
    frame = next((frame for frame in reversed(frames) if frame.filename == driver), frames[-1])
    place = f"{os.path.basename(frame.filename)}, line {frame.lineno}"
    return f"The driver for {asked['kind']} failed unexpectedly ({type(unexpected).__name__} in {place})."


def _end_with_the_server(life: int) -> None:
    """Nothing is ever written to this pipe: it can be read when the server is gone."""
    os.read(life, 1)
    os._exit(1)


class _NoPandas:
    """A finder that answers for pandas alone: there is none."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        if name == "pandas":
            raise ModuleNotFoundError(name=name)


def _keep_pandas_out() -> None:
    """pyarrow imports pandas, when it is installed, to look at the first list it is given: a quarter of a second that
    no driver has use for. It asks once; drivers of others may import pandas for themselves afterwards."""
    finder: Any = _NoPandas()
    sys.meta_path.insert(0, finder)
    import pyarrow as pa

    pa.array([0])
    sys.meta_path.remove(finder)


def _say_nothing() -> None:
    """What libraries print may hold anything: nobody gets to see it."""
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)


def _leave_no_dump() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":  # the limit does not hold where dumps are piped to a program
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:4]))
