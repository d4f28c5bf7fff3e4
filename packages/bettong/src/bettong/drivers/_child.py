"""The process in which one call of a driver runs: `python -I -m bettong.drivers._child IN OUT LIFE`.

It says nothing but frames, keeps nothing, and ends when the server does.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, cast

from bettong.drivers import hygiene

if TYPE_CHECKING:
    from bettong.drivers.frames import Line
    from bettong.drivers.opening import Opening


def main(incoming: int, outgoing: int, life: int) -> None:
    hygiene.begin(life)

    # All that any call needs comes before the call does: it may be waited for.
    from bettong.drivers.frames import Ended, Line, words
    from bettong.drivers.handing_over import opening_of  # noqa: F401

    line = Line(incoming, outgoing)
    try:
        asked = words(line.receive()[1])
        if "expect" in asked:
            _expect(asked["expect"])
            asked = words(line.receive()[1])
        _serve(line, asked)
    except Ended:
        pass  # the server is gone, or wants no more
    # Neither threads of libraries nor destructors get a say: what had to be kept is kept.
    os._exit(0)


def _expect(driver: str) -> None:
    """Import what a call of this driver of ours needs; another one may come all the same."""
    from contextlib import suppress
    from importlib import import_module

    module, _, name = driver.partition(":")
    # The call itself tells what is missing. The packages are kept out as its driver keeps them out.
    with suppress(Exception), hygiene.without("pandas", "boto3", "botocore"):
        for needed in getattr(import_module(module), name).needs:
            import_module(needed)


def _serve(line: Line, asked: dict[str, Any]) -> None:
    from bettong.drivers.frames import Ended
    from bettong.drivers.handing_over import opening_of
    from bettong.errors import BettongError

    opening: Opening | None = None
    try:
        opening = opening_of(asked)
        _WORK[asked["do"]](line, opening, asked)
    except (Ended, BrokenPipeError):
        raise
    except BettongError as error:
        clean = opening.clean if opening else str
        line.say({"failed": [error.code, clean(error.problem), clean(error.next_step)]})
    except Exception as unexpected:  # whatever a library does; its text may hold anything
        line.say({"failed": ["unavailable", _where(asked, unexpected), "Tell whoever made that driver."]})


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
    driver = getattr(sys.modules.get(asked["driver"].partition(":")[0]), "__file__", None)
    return f"The driver for {asked['kind']} failed unexpectedly ({hygiene.place_of(unexpected, driver)})."


if __name__ == "__main__":
    main(*(int(number) for number in sys.argv[1:4]))
