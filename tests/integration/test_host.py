"""Hosts and replicas as real processes, asked by real clients and broken on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
import stat
from collections import Counter
from pathlib import Path
from threading import Timer
from typing import TYPE_CHECKING

import psutil
import pytest
from host_kit import (
    DEADLINE_S,
    Adder,
    Client,
    Gate,
    LineLog,
    Server,
    adder,
    adder_spec,
    aside,
    connect_raw,
    is_alive,
    local_runtime,
    read_answer,
    serving,
    token,
    wait_gone,
    wait_until,
)

from bettong.domain.deployments import State
from bettong.engine import host
from bettong.engine.replica import KEPT_DESCRIPTORS
from bettong.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bettong.domain.deployments import Observed
    from bettong.runtimes.local import LocalRuntime

CLIENTS = 50


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


@pytest.fixture
def runtime(tmp_path: Path, server: Server) -> Iterator[LocalRuntime]:
    with local_runtime(tmp_path, server) as runtime:
        yield runtime


def pids_of(observed: Observed) -> list[int]:
    return [observed.pid, *(r.pid for r in observed.replicas)]


# --- the promise of the whole: a redeploy under load and a killed server fail no request ----------------------------


def test_a_redeploy_and_a_killed_server_under_fifty_clients_fail_no_request(
    runtime: LocalRuntime, server: Server, tmp_path: Path
) -> None:
    tally = Tally()

    async def ask_on_and_on(client: Client, number: int, stop: asyncio.Event) -> int:
        version = 0
        while not stop.is_set():
            version = await client.add(number) - number  # raises when it fails, and with it the whole test
            tally.count(version)
        await client.close()
        return version

    async def go() -> list[int]:
        port = (await aside(wait_until, runtime, serving(1, replicas=2))).port
        stop = asyncio.Event()
        clients = [Client(port) for _ in range(CLIENTS)]
        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask_on_and_on(c, n, stop)) for n, c in enumerate(clients)]
            await tally.more(500)
            await aside(server.kill)
            await aside(wait_gone, server.nursery_pid)
            await tally.more(500)
            await aside(runtime.deploy, adder_spec(tmp_path, 2, replicas=2))
            await aside(wait_until, runtime, serving(2, replicas=2))
            await tally.more(500)
            stop.set()
        assert sum(c.opened for c in clients) <= 2 * CLIENTS  # each moved once
        return [task.result() for task in tasks]

    runtime.deploy(adder_spec(tmp_path, 1, replicas=2))
    last = asyncio.run(go())

    assert set(tally.answers) == {1, 2}
    assert set(last) == {2}
    logs = {path.name: path.read_text().splitlines() for path in (tmp_path / "logs").iterdir()}
    assert sum(len(lines) for lines in logs.values()) == sum(tally.answers.values())
    assert {line for lines in logs.values() for line in lines} == {"1 ok"}
    for generation in (1, 2):
        answered = [len(lines) for name, lines in logs.items() if name.startswith(f"engine-{generation}-")]
        assert len(answered) == 2
        assert min(answered) >= CLIENTS // 2  # each has half of the connections, and each of them asked


class Tally:
    """Answers by version, and a way to wait for more of them."""

    def __init__(self) -> None:
        self.answers: Counter[int] = Counter()
        self._came = asyncio.Event()

    def count(self, version: int) -> None:
        self.answers[version] += 1
        self._came.set()

    async def more(self, number: int) -> None:
        until = sum(self.answers.values()) + number
        while sum(self.answers.values()) < until:
            self._came.clear()
            await self._came.wait()


def test_connections_are_spread_evenly_over_the_replicas(runtime: LocalRuntime, tmp_path: Path) -> None:
    async def go() -> Observed:
        async with Gate(tmp_path / "gate") as gate:
            model = adder(GATE=str(gate.path))
            await aside(runtime.deploy, adder_spec(tmp_path, 1, replicas=2, models=(model,)))
            port = (await aside(wait_until, runtime, serving(1, replicas=2))).port
            clients = [Client(port) for _ in range(CLIENTS)]
            async with asyncio.TaskGroup() as group:
                for client in clients:
                    group.create_task(client.add(1))
                await gate.arrived(CLIENTS)
                observed: Observed = await aside(runtime.observe, 7, "adding-7")
                gate.open()
            for client in clients:
                await client.close()
            return observed

    observed = asyncio.run(go())

    assert [r.in_flight for r in observed.replicas] == [CLIENTS // 2, CLIENTS // 2]


# --- deaths ---------------------------------------------------------------------------------------------------------


def test_a_killed_replica_fails_only_what_it_had_in_flight_and_is_replaced(
    runtime: LocalRuntime, tmp_path: Path
) -> None:
    async def go() -> tuple[list[object], list[int], Observed, Observed]:
        async with Gate(tmp_path / "gate") as gate:
            model = adder(GATE=str(gate.path))
            await aside(runtime.deploy, adder_spec(tmp_path, 1, replicas=2, models=(model,)))
            before: Observed = await aside(wait_until, runtime, serving(1, replicas=2))
            clients = [Client(before.port) for _ in range(10)]
            asked = [asyncio.create_task(c.add(n)) for n, c in enumerate(clients)]
            await gate.arrived(10)

            os.kill(before.replicas[0].pid, signal.SIGKILL)
            await aside(wait_gone, before.replicas[0].pid)
            gate.open()
            results = await asyncio.gather(*asked, return_exceptions=True)
            newcomers = [Client(before.port) for _ in range(10)]
            fresh = await asyncio.gather(*(c.add(n) for n, c in enumerate(newcomers)))
            after: Observed = await aside(wait_until, runtime, serving(1, replicas=2))
            for client in clients + newcomers:
                await client.close()
            return list(results), fresh, before, after

    results, fresh, before, after = asyncio.run(go())

    failed = [r for r in results if isinstance(r, BaseException)]
    assert len(failed) == 5
    assert all(isinstance(f, (ConnectionError, asyncio.IncompleteReadError)) for f in failed)
    assert fresh == list(range(10))
    assert after.replicas[0].pid != after.replicas[1].pid
    assert before.replicas[1].pid in {r.pid for r in after.replicas}
    assert sorted(r.restarts for r in after.replicas) == [0, 1]


def test_with_its_only_replica_dead_a_new_request_waits_for_the_next_one(runtime: LocalRuntime, tmp_path: Path) -> None:
    async def go() -> int:
        await aside(runtime.deploy, adder_spec(tmp_path, 1))
        observed: Observed = await aside(wait_until, runtime, serving(1))
        os.kill(observed.replicas[0].pid, signal.SIGKILL)
        await aside(wait_gone, observed.replicas[0].pid)
        async with asyncio.timeout(DEADLINE_S), Client(observed.port) as client:
            return await client.add(40)

    assert asyncio.run(go()) == 41


def test_a_dead_replica_shows_in_the_status_with_its_reason(runtime: LocalRuntime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    observed = wait_until(runtime, serving(1))

    os.kill(observed.replicas[0].pid, signal.SIGKILL)

    seen = wait_until(runtime, lambda o: any(r.state is State.FAILED for r in o.replicas))
    assert seen.replicas[0].reason == "Was killed by signal 9 (SIGKILL)."
    wait_until(runtime, serving(1))


def test_a_frozen_replica_shows_as_unknown(runtime: LocalRuntime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    pid = wait_until(runtime, serving(1)).replicas[0].pid

    os.kill(pid, signal.SIGSTOP)
    try:
        seen = runtime.observe(7, "adding-7")
    finally:
        os.kill(pid, signal.SIGCONT)

    assert seen is not None
    assert seen.replicas[0].state is State.UNKNOWN
    assert seen.replicas[0].reason == "Did not answer a probe within 2 s."
    wait_until(runtime, serving(1))


@pytest.mark.skipif(not hasattr(psutil.Process, "rlimit"), reason="another process's limits: Linux alone")
def test_a_replica_without_descriptors_refuses_connections_and_takes_them_again(
    runtime: LocalRuntime, tmp_path: Path
) -> None:
    async def go() -> tuple[bytes, int]:
        runtime.deploy(adder_spec(tmp_path, 1))
        observed = await aside(wait_until, runtime, serving(1))
        replica = psutil.Process(observed.replicas[0].pid)
        usual = replica.rlimit(psutil.RLIMIT_NOFILE)
        replica.rlimit(psutil.RLIMIT_NOFILE, (KEPT_DESCRIPTORS + 3, usual[1]))
        async with asyncio.timeout(30), contextlib.AsyncExitStack() as held:
            for n in range(3):
                assert await (await held.enter_async_context(Client(observed.port))).add(n) == n + 1
            for _ in range(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", observed.port)
                refusal = await reader.read()
                writer.close()
        replica.rlimit(psutil.RLIMIT_NOFILE, usual)
        async with Client(observed.port) as client:
            return refusal, await client.add(40)

    refusal, answer = asyncio.run(go())

    assert refusal.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after" in refusal
    assert answer == 41


def test_replicas_of_a_killed_host_end_and_a_deploy_brings_them_back_on_the_same_port(
    runtime: LocalRuntime, tmp_path: Path
) -> None:
    spec = adder_spec(tmp_path, 1, replicas=2)
    runtime.deploy(spec)
    before = wait_until(runtime, serving(1, replicas=2))

    os.kill(before.pid, signal.SIGKILL)
    wait_gone(*pids_of(before))
    assert runtime.observe(7, "adding-7") is None
    assert not (tmp_path / "run" / "adding-7.sock").exists()

    runtime.deploy(spec)
    after = wait_until(runtime, serving(1, replicas=2))
    assert after.port == before.port


def test_a_killed_host_takes_no_request_in_flight_with_it_and_undeploy_waits_for_it(
    runtime: LocalRuntime, tmp_path: Path
) -> None:
    async def go() -> tuple[int, bool]:
        async with Gate(tmp_path / "gate") as gate:
            model = adder(PLUS="1", GATE=str(gate.path))
            await aside(runtime.deploy, adder_spec(tmp_path, 1, models=(model,)))
            before: Observed = await aside(wait_until, runtime, serving(1))
            async with Client(before.port) as client:
                asked = asyncio.create_task(client.add(40))
                await gate.arrived(1)
                os.kill(before.pid, signal.SIGKILL)
                undeploying = asyncio.create_task(aside(runtime.undeploy, 7, "adding-7"))
                gate.open()
                answer = await asked
            await undeploying
            return answer, is_alive(before.replicas[0].pid)

    assert asyncio.run(go()) == (41, False)


def test_undeploy_ends_a_host_that_hangs(
    runtime: LocalRuntime, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bettong.runtimes.local.ANSWER_TIMEOUT_S", 0.2)
    runtime.deploy(adder_spec(tmp_path, 1))
    observed = wait_until(runtime, serving(1))
    os.kill(observed.pid, signal.SIGSTOP)

    with pytest.raises(Unavailable, match=rf"pid {observed.pid}\) of 'adding-7' does not answer"):
        runtime.observe(7, "adding-7")
    runtime.undeploy(7, "adding-7")

    assert not any(is_alive(pid) for pid in pids_of(observed))


# --- the server's coming and going ----------------------------------------------------------------------------------


def test_a_restarted_server_finds_its_hosts_and_leaves_them_as_they_are(
    runtime: LocalRuntime, server: Server, tmp_path: Path
) -> None:
    spec = adder_spec(tmp_path, 1)
    runtime.deploy(spec)
    before = wait_until(runtime, serving(1))
    server.kill()
    wait_gone(server.nursery_pid)

    with Server() as second, local_runtime(tmp_path, second) as found:
        found.deploy(spec)
        after = wait_until(found, serving(1))

    assert pids_of(after) == pids_of(before)


def test_the_nursery_ends_with_its_server_and_says_so_when_it_is_asked(
    runtime: LocalRuntime, server: Server, tmp_path: Path
) -> None:
    os.kill(server.nursery_pid, signal.SIGKILL)

    with pytest.raises(Unavailable, match="Restart the server"):
        runtime.deploy(adder_spec(tmp_path, 1))


def test_a_host_that_cannot_start_says_why(runtime: LocalRuntime, tmp_path: Path) -> None:
    with pytest.raises(
        Unavailable, match=r"The host for 'adding-7' did not start: .*203\.0\.113\.1|did not start: OSE"
    ):
        runtime.deploy(adder_spec(tmp_path, 1, host="203.0.113.1"))  # an address of nobody

    assert runtime.observe(7, "adding-7") is None


def test_a_host_that_cannot_start_has_let_go_of_its_lock_when_it_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "log_json_lines", lambda: None)  # this process keeps its own way of logging
    spec_file, control = tmp_path / "generation-1.json", tmp_path / "run" / "adding-7.sock"
    spec_file.write_text(adder_spec(tmp_path, 1, host="203.0.113.1").to_json())
    said: list[str | None] = []

    def listening(error: str | None) -> None:
        with control.with_suffix(".lock").open() as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        said.append(error)

    host.main(spec_file, control, LineLog, Adder, listening)

    assert said[0] is not None
    assert said[0].startswith("OSError")


def test_a_host_waits_out_who_only_looks_whether_there_is_one(runtime: LocalRuntime, tmp_path: Path) -> None:
    lock = tmp_path / "run" / "adding-7.lock"
    lock.parent.mkdir(mode=0o700, exist_ok=True)
    with lock.open("w") as looking:
        fcntl.flock(looking, fcntl.LOCK_EX)
        Timer(host.LOCK_PATIENCE_S / 5, looking.close).start()
        runtime.deploy(adder_spec(tmp_path, 1))

    assert wait_until(runtime, serving(1)).port


def test_a_taken_port_is_left_alone_and_another_one_told(runtime: LocalRuntime, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        runtime.deploy(adder_spec(tmp_path, 1, port=taken))
        assert wait_until(runtime, serving(1)).port not in {0, taken}


# --- the end --------------------------------------------------------------------------------------------------------


def test_undeploy_leaves_no_process_and_no_socket(runtime: LocalRuntime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, replicas=2))
    observed = wait_until(runtime, serving(1, replicas=2))

    runtime.undeploy(7, "adding-7")

    assert not any(is_alive(pid) for pid in pids_of(observed))
    assert not (tmp_path / "run" / "adding-7.sock").exists()
    assert not list((tmp_path / "deployments" / "adding-7").glob("generation-*"))
    with pytest.raises(ConnectionRefusedError):
        connect_raw(observed.port)


def test_undeploy_answers_what_is_in_flight_and_closes_what_is_idle(runtime: LocalRuntime, tmp_path: Path) -> None:
    async def go() -> tuple[int, bytes]:
        async with Gate(tmp_path / "gate") as gate:
            model = adder(PLUS="1", GATE=str(gate.path))
            await aside(runtime.deploy, adder_spec(tmp_path, 1, models=(model,)))
            port = (await aside(wait_until, runtime, serving(1))).port
            idle, idle_writer = await asyncio.open_connection("127.0.0.1", port)
            idle_writer.write(b"GET /healthz HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n")
            await read_answer(idle)
            async with Client(port) as client:
                asked = asyncio.create_task(client.add(40))
                await gate.arrived(1)
                undeploying = asyncio.create_task(aside(runtime.undeploy, 7, "adding-7"))
                end = await idle.read()
                idle_writer.close()
                gate.open()
                await undeploying
                return await asked, end

    assert asyncio.run(go()) == (41, b"")


def test_a_request_that_outlasts_the_drain_does_not_hold_the_undeploy(runtime: LocalRuntime, tmp_path: Path) -> None:
    async def go() -> BaseException | None:
        async with Gate(tmp_path / "gate") as gate:
            spec = adder_spec(tmp_path, 1, models=(adder(GATE=str(gate.path)),), drain_s=0.2)
            await aside(runtime.deploy, spec)
            port = (await aside(wait_until, runtime, serving(1))).port
            async with Client(port) as client:
                asked = asyncio.create_task(client.add(40))
                await gate.arrived(1)
                await aside(runtime.undeploy, 7, "adding-7")
                [result] = await asyncio.gather(asked, return_exceptions=True)
                return result if isinstance(result, BaseException) else None

    assert isinstance(asyncio.run(go()), (ConnectionError, asyncio.IncompleteReadError))
    assert runtime.observe(7, "adding-7") is None


def test_sigterm_ends_a_host_like_an_undeploy(runtime: LocalRuntime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    observed = wait_until(runtime, serving(1))

    os.kill(observed.pid, signal.SIGTERM)

    wait_gone(*pids_of(observed))
    assert runtime.observe(7, "adding-7") is None


# --- when nobody can take a request ---------------------------------------------------------------------------------


def test_a_deployment_that_cannot_load_answers_503_at_once(runtime: LocalRuntime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, models=(adder(REFUSES="broken"),)))
    port = wait_until(runtime, lambda o: o.error is not None).port

    async def go() -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /infer HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 2\r\n\r\n[]")
        answer = await read_answer(reader)
        writer.close()
        await writer.wait_closed()
        return answer

    status, headers, body = asyncio.run(go())

    assert status == 503
    assert headers["retry-after"] == "1"
    assert json.loads(body)["code"] == 503


def test_while_it_loads_requests_wait_up_to_a_limit_and_the_rest_gets_503(
    runtime: LocalRuntime, tmp_path: Path
) -> None:
    async def go() -> tuple[list[int], int]:
        async with Gate(tmp_path / "gate") as gate:
            model = adder(PLUS="1", LOAD_GATE=str(gate.path))
            await aside(runtime.deploy, adder_spec(tmp_path, 1, models=(model,), max_queued_requests=3))
            await gate.arrived(1)
            observed: Observed = await aside(runtime.observe, 7, "adding-7")
            waiting = [Client(observed.port) for _ in range(3)]
            asked = [asyncio.create_task(c.add(n)) for n, c in enumerate(waiting)]
            await asyncio.gather(*(c.connected.wait() for c in waiting))
            await aside(runtime.observe, 7, "adding-7")  # the host has been through its loop: it has accepted them
            async with Client(observed.port) as fourth:
                with pytest.raises(RuntimeError, match="answered 503"):
                    await fourth.add(3)
            gate.open()
            sums = await asyncio.gather(*asked)
            for client in waiting:
                await client.close()
            return sums, len(observed.replicas)

    assert asyncio.run(go()) == ([1, 2, 3], 1)


# --- what a fork leaves behind --------------------------------------------------------------------------------------


def test_a_replica_has_one_thread_and_none_of_its_hosts_sockets(runtime: LocalRuntime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1, replicas=2))
    observed = wait_until(runtime, serving(1, replicas=2))
    listening = inodes_of_listening_sockets(observed.port)
    control = {inode for inode, path in unix_sockets() if path == str(tmp_path / "run" / "adding-7.sock")}
    assert listening
    assert control
    assert listening | control <= sockets_of(observed.pid)

    for replica in observed.replicas:
        assert len(list(Path(f"/proc/{replica.pid}/task").iterdir())) == 1
        assert not sockets_of(replica.pid) & (listening | control)
        assert not sockets_of(replica.pid) & sockets_of(observed.pid)
    first, second = (sockets_of(r.pid) for r in observed.replicas)
    assert not first & second


def test_a_host_has_one_thread_and_is_a_session_of_its_own(
    runtime: LocalRuntime, server: Server, tmp_path: Path
) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    observed = wait_until(runtime, serving(1))

    assert len(list(Path(f"/proc/{observed.pid}/task").iterdir())) == 1
    assert os.getsid(observed.pid) not in {os.getsid(0), os.getsid(server.pid), os.getsid(server.nursery_pid)}
    assert not sockets_of(observed.pid) & sockets_of(server.nursery_pid)


def test_only_the_owner_can_open_what_a_deployment_leaves_on_disk(runtime: LocalRuntime, tmp_path: Path) -> None:
    runtime.deploy(adder_spec(tmp_path, 1))
    wait_until(runtime, serving(1))
    folder = tmp_path / "deployments" / "adding-7"

    assert stat.S_IMODE((tmp_path / "run").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "run" / "adding-7.sock").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in (folder / "generation-1.json", folder / "host.log"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_host_log_is_lines_of_json_without_tokens(runtime: LocalRuntime, tmp_path: Path) -> None:
    async def ask(port: int) -> None:
        async with Client(port) as client:
            await client.add(1)

    runtime.deploy(adder_spec(tmp_path, 1))
    asyncio.run(ask(wait_until(runtime, serving(1)).port))
    runtime.undeploy(7, "adding-7")

    text = (tmp_path / "deployments" / "adding-7" / "host.log").read_text()
    events = [json.loads(line)["event"] for line in text.splitlines()]
    assert events[0] == "host listens"
    assert events[-1] == "host ends"
    assert "replica is ready" in events
    assert token().split(".")[0] not in text


def test_a_replica_that_has_answered_has_not_loaded_pandas(runtime: LocalRuntime, tmp_path: Path) -> None:
    async def ask(port: int) -> None:
        async with Client(port) as client:
            await client.add(1)

    runtime.deploy(adder_spec(tmp_path, 1))
    observed = wait_until(runtime, serving(1))
    asyncio.run(ask(observed.port))

    mapped = Path(f"/proc/{observed.replicas[0].pid}/maps").read_text()
    assert "pyarrow" in mapped
    assert "pandas" not in mapped  # 45 MB of each replica


def sockets_of(pid: int) -> set[str]:
    found = set()
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        try:
            target = os.readlink(fd)
        except FileNotFoundError:
            continue  # closed between the two looks
        if target.startswith("socket:["):
            found.add(target[8:-1])
    return found


def inodes_of_listening_sockets(port: int) -> set[str]:
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {f[9] for f in lines if f[3] == "0A" and int(f[1].split(":")[1], 16) == port}


def unix_sockets() -> list[tuple[str, str]]:
    lines = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
    return [(f[6], f[7]) for f in lines if len(f) > 7]
