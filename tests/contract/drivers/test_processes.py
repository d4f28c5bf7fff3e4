"""What holds for every call, whatever the driver: a deadline, an end, and nothing that is left over."""

from __future__ import annotations

import os
import select
import signal
import socket
import subprocess
import sys
import threading
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import pyarrow as pa
import pytest
from contract.drivers.cases import SECRET, children, new_calls
from contract.streams.kit import until

from bettong.domain.drivers import Capability, ReadRequest, Stage, WriteRequest
from bettong.drivers.processes import expected_after
from bettong.drivers.registry import Registry
from bettong.errors import BadInput, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.drivers.processes import DriverProcesses

TESTS = Path(__file__).parents[2]
TOYS = str(Path(__file__).parent / "toys")


@pytest.fixture
def toys() -> DriverProcesses:
    """Drivers that misbehave, as somebody else's might."""
    return new_calls(registry=Registry(folders=(TOYS,)))


def child() -> psutil.Process:
    (found,) = children()
    return found


@contextmanager
def silent_server() -> Iterator[int]:
    """A port that takes connections and says nothing."""
    held = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def take() -> None:
            while True:
                try:
                    held.append(server.accept()[0])
                except OSError:
                    return

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield server.getsockname()[1]
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in held:
                connection.close()


def test_a_source_that_never_answers_costs_the_deadline_and_no_more(toys: DriverProcesses) -> None:
    with (
        pytest.raises(DeadlineExceeded, match="did not answer within 1 s"),
        toys.read("TOY", {"do": "hang"}, ReadRequest("rows"), 1.0),
    ):
        pass

    assert children() == []


def test_a_layer_that_never_answers_is_named_in_the_report(toys: DriverProcesses) -> None:
    report = toys.test("TOY", {"do": "hang"}, 3.0)

    assert [(result.stage, result.ok) for result in report.stages[-2:]] == [(Stage.TCP, True), (Stage.TLS, False)]
    assert "did not answer" in report.stages[-1].said


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("HTTP", {"url": "http://127.0.0.1:{port}/x.json"}),
        ("S3", {"bucket": "b", "endpoint": "http://127.0.0.1:{port}", "anonymous": True}),
        ("POSTGRES", {"host": "127.0.0.1", "port": "{port}", "user": "u"}),
        ("MYSQL", {"host": "127.0.0.1", "port": "{port}", "user": "u"}),
    ],
)
def test_a_server_that_says_nothing_does_not_hold_a_call(kind: str, details: dict[str, object]) -> None:
    with silent_server() as port:
        filled = {name: v.format(port=port) if isinstance(v, str) else v for name, v in details.items()}

        report = new_calls().test(kind, filled, 2.0)

        assert not report.ok
        with pytest.raises(Unavailable), new_calls().read(kind, filled, ReadRequest("x.json"), 2.0) as reader:
            reader.read_all()

    assert children() == []


def test_a_crash_of_a_driver_is_an_error_of_its_call(toys: DriverProcesses) -> None:
    with (
        pytest.raises(Unavailable, match="ended by signal 11"),
        toys.read("TOY", {"do": "crash"}, ReadRequest("rows"), 30) as reader,
    ):
        reader.read_all()


def test_an_error_that_nobody_foresaw_tells_its_place_and_not_its_text(toys: DriverProcesses) -> None:
    with pytest.raises(Unavailable) as failed, toys.read("TOY", {"do": "raise", "password": SECRET}, ReadRequest(), 30):
        pass

    assert "KeyError" in failed.value.problem
    assert "toy_driver.py" in failed.value.problem
    assert SECRET not in str(failed.value)


def test_an_error_in_the_middle_of_a_stream_comes_after_the_rows_before_it(toys: DriverProcesses) -> None:
    with toys.read("TOY", {"do": "break"}, ReadRequest(), 30) as reader:
        assert reader.read_next_batch().num_rows == 3

        with pytest.raises(BadInput, match="the third batch is bad"):
            reader.read_all()


def test_a_secret_that_a_driver_lets_slip_is_masked(toys: DriverProcesses) -> None:
    with pytest.raises(BadInput) as failed, toys.read("TOY", {"do": "slip", "password": SECRET}, ReadRequest(), 30):
        pass

    assert SECRET not in str(failed.value)
    assert "*****" in str(failed.value)


def test_what_a_driver_prints_goes_nowhere(toys: DriverProcesses, capfd: pytest.CaptureFixture[str]) -> None:
    with toys.read("TOY", {"do": "print"}, ReadRequest(), 30) as reader:
        assert reader.read_all().num_rows == 3

    assert capfd.readouterr() == ("", "")


def test_a_capability_that_a_driver_lacks_is_refused_with_what_there_is(toys: DriverProcesses) -> None:
    with pytest.raises(BadInput, match="cannot write") as refused:
        toys.write("TOY", {}, WriteRequest("t"), pa.table({"a": [1]}).to_reader(), 30)

    assert "test, read" in refused.value.next_step


def test_a_type_without_a_driver_is_stored_only() -> None:
    calls = new_calls()

    assert calls.info("mongodb") is None
    with pytest.raises(BadInput, match="stored only") as refused:
        calls.test("mongodb", {}, 30)
    assert refused.value.next_step.startswith("Types with a driver: ")


def test_a_mistyped_type_is_answered_with_the_one_that_was_meant() -> None:
    with pytest.raises(BadInput, match="'SQLIT'") as refused:
        new_calls().test("SQLIT", {}, 30)
    assert refused.value.next_step.startswith("Did you mean SQLITE? ")


def test_types_are_compared_without_case() -> None:
    calls = new_calls()

    assert calls.info("sqlite") == calls.info("SQLite") == calls.info("SQLITE")


def test_memory_is_the_same_for_a_short_stream_and_a_long_one(toys: DriverProcesses) -> None:
    """The reader takes its time; the source makes a gigabyte as fast as it is let."""
    peaks = []
    for batches in (4, 128):
        with toys.read("TOY", {"do": "flood", "batches": batches}, ReadRequest(batch_rows=2**20), 60) as reader:
            peak = 0
            for n, _ in enumerate(reader):
                if n % 4 == 0:
                    peak = max(peak, *(process.memory_info().rss for process in children()), 0)
            peaks.append(peak)

    assert peaks[1] < peaks[0] + 150 * 2**20


def test_a_slow_sink_holds_the_rows_back(toys: DriverProcesses) -> None:
    """Rows are asked for as they are taken: those in hand, in the pipe and on the way are all that are made ahead."""
    made = 0

    def rows() -> Iterator[pa.RecordBatch]:
        nonlocal made
        for _ in range(200):
            made += 1
            yield pa.record_batch({"a": pa.array(range(100_000), pa.int64())})

    reader = pa.RecordBatchReader.from_batches(pa.schema({"a": pa.int64()}), rows())
    with pytest.raises(BadInput, match="took 3 batches"):
        toys.write("SINK", {}, WriteRequest("t"), reader, 30)

    assert made < 20


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("work", ["hang", "flood"])
def test_nothing_is_left_when_the_server_is_killed(how: signal.Signals, work: str) -> None:
    """`hang` sleeps in a driver, `flood` waits for a reader: in both the process ends with its server."""
    script = f"""
import sys; sys.path.insert(0, {str(TESTS)!r})
import threading, time, psutil
from contract.drivers.cases import new_calls
from bettong.drivers.registry import Registry
from bettong.domain.drivers import ReadRequest
calls = new_calls(registry=Registry(folders=({TOYS!r},)))
def read():
    with calls.read("TOY", {{"do": {work!r}, "batches": 1000}}, ReadRequest(), 600) as reader:
        for batch in reader: time.sleep(3600)
threading.Thread(target=read, daemon=True).start()
while not psutil.Process().children(): time.sleep(0.01)
print(psutil.Process().children()[0].pid, flush=True)
time.sleep(3600)
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        started = psutil.Process(int(server.stdout.readline()))
        os.kill(server.pid, how)
        server.wait()

    started.wait(20)  # raises when it is still there after that


def test_there_are_only_so_many_at_once() -> None:
    calls = new_calls(registry=Registry(folders=(TOYS,)), max_at_once=1)
    with calls.read("TOY", {"do": "flood", "batches": 100}, ReadRequest(), 30) as reader:
        reader.read_next_batch()

        with pytest.raises(Unavailable, match="Too many"), calls.read("TOY", {"do": "print"}, ReadRequest(), 0.2):
            pass

    with calls.read("TOY", {"do": "print"}, ReadRequest(), 30) as again:
        assert again.read_all().num_rows == 3


@pytest.fixture
def ready() -> Iterator[DriverProcesses]:
    """With a process that waits for the next call."""
    calls = new_calls(registry=Registry(folders=(TOYS,)), keep_ready_s=60)
    yield calls
    calls.close()


def toy_rows(calls: DriverProcesses) -> int:
    with calls.read("TOY", {"do": "print"}, ReadRequest(), 30) as reader:
        return reader.read_all().num_rows


def test_a_process_that_waits_serves_one_call_and_no_other(ready: DriverProcesses) -> None:
    toy_rows(ready)
    first = child()

    assert toy_rows(ready) == 3

    first.wait(0)  # it is gone
    assert child().pid != first.pid
    ready.close()
    assert children() == []


def test_a_process_that_waits_has_imported_what_the_last_call_needed(tmp_path: Path) -> None:
    details, rows = {"path": str(tmp_path / "sales.db")}, pa.table({"n": [1]})
    with closing(new_calls(tmp_path, registry=Registry(folders=(TOYS,)), keep_ready_s=100)) as ready:
        ready.write("SQLITE", details, WriteRequest("sales"), rows.to_reader(), 60)
        waiting = child()

        until(lambda: "adbc_driver_manager" in Path(f"/proc/{waiting.pid}/maps").read_text())

        with ready.read("SQLITE", details, ReadRequest("sales"), 60) as reader:
            assert reader.read_all().num_rows == 1
        waiting.wait(0)  # it was the one that served, and is gone
        assert toy_rows(ready) == 3  # it takes any call


def test_a_driver_of_others_is_loaded_for_calls_of_its_own_type_alone() -> None:
    assert expected_after("bettong.drivers.sqlite:SqliteDriver") == "bettong.drivers.sqlite:SqliteDriver"
    assert expected_after("toy_driver:ToyDriver") == ""


def test_a_waiting_process_that_died_is_replaced(ready: DriverProcesses) -> None:
    toy_rows(ready)
    waiting = child()
    waiting.kill()
    select.select([os.pidfd_open(waiting.pid)], [], [], 20)

    assert toy_rows(ready) == 3


def test_a_process_does_not_wait_for_ever() -> None:
    calls = new_calls(registry=Registry(folders=(TOYS,)), keep_ready_s=0.05)

    toy_rows(calls)

    for waiting in children():
        waiting.wait(20)


def test_the_environment_of_a_process_holds_none_of_the_servers_variables(toys: DriverProcesses) -> None:
    with toys.read("TOY", {"do": "flood", "batches": 100}, ReadRequest(), 30) as reader:
        reader.read_next_batch()
        variables = Path(f"/proc/{child().pid}/environ").read_bytes().decode().split("\0")

    names = {variable.partition("=")[0] for variable in variables}
    assert "WAREHOUSE_PASSWORD" not in names
    assert not any(name.startswith("BETTONG") for name in names)


def test_parameters_keep_their_types(toys: DriverProcesses) -> None:
    import datetime as dt
    from decimal import Decimal

    values = (1, 2.5, "x", None, True, b"\x00", dt.date(2024, 1, 1), dt.datetime(2024, 1, 1, 12), Decimal("1.50"))
    with toys.read("TOY", {"do": "parameters"}, ReadRequest(parameters=values), 30) as reader:
        assert reader.read_all()["seen"].to_pylist() == [repr(value) for value in values]

    with (
        pytest.raises(BadInput, match="Parameter 2 of the query is a object"),
        toys.read("TOY", {"do": "parameters"}, ReadRequest(parameters=(1, object())), 30),
    ):
        pass


def test_what_a_driver_can_do_is_told_by_what_it_opens() -> None:
    registry = Registry(folders=(TOYS,))
    toy, sink = registry.info("toy"), registry.info("sink")

    assert toy is not None
    assert sink is not None
    assert toy.capabilities == {Capability.TEST, Capability.READ}
    assert sink.capabilities == {Capability.TEST, Capability.WRITE}
