"""A platform of canned answers on a loopback port, which remembers what it was asked; and records of the wire."""

from __future__ import annotations

import json
import socket
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Asked:
    """A request as it arrived."""

    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Reply:
    body: Any = None  # bytes go as they are, anything else as JSON
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hang_up: bool = False  # end the connection without an answer


class StubPlatform:
    """Answers each path with its replies in turn, the last one for ever."""

    def __init__(self) -> None:
        self.asked: list[Asked] = []
        self.connections: set[socket.socket] = set()
        self._replies: dict[str, list[Reply | Callable[[Asked], Reply]]] = defaultdict(list)
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler_of(self))
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def on(self, path: str, *replies: Reply | Callable[[Asked], Reply] | dict[str, Any] | list[Any]) -> None:
        """From now on `path` answers with these."""
        self._replies[path] = [Reply(r) if isinstance(r, (dict, list)) else r for r in replies]

    def calls(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def close(self) -> None:
        """Be gone: nothing listens here any more, and kept connections end. Twice is no error."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()
        for connection in list(self.connections):
            with suppress(OSError):  # its client has left already
                connection.shutdown(socket.SHUT_RDWR)

    def answer(self, asked: Asked) -> Reply:
        self.asked.append(asked)
        replies = self._replies.get(asked.path)
        if not replies:
            return error(404, f"The stub has no answer for {asked.path}.")
        reply = replies.pop(0) if len(replies) > 1 else replies[0]
        return reply if isinstance(reply, Reply) else reply(asked)


def error(status: int, message: str, code: str = "") -> Reply:
    """A control-plane error."""
    body = {"msg": message, "code": status, "error": code, "next_step": "", "request_id": "r-1"}
    return Reply(body, status)


def engine_error(status: int, message: str) -> Reply:
    return Reply({"code": status, "status": "error", "error": message, "source": "engine"}, status)


def _handler_of(platform: StubPlatform) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 2**16  # head and body in one packet: two would wait for a delayed acknowledgement

        def setup(self) -> None:
            super().setup()
            platform.connections.add(self.connection)

        def finish(self) -> None:
            platform.connections.discard(self.connection)
            super().finish()

        def _serve(self) -> None:
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = b""
                while size := int(self.rfile.readline(), 16):
                    body += self.rfile.read(size)
                    self.rfile.readline()
                self.rfile.readline()
            else:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            query = parse_qsl(parts.query, keep_blank_values=True)
            headers = {name.lower(): value for name, value in self.headers.items()}
            reply = platform.answer(Asked(parts.path, query, headers, body))
            if reply.hang_up:
                self.close_connection = True
                return
            content = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = _serve

        def log_message(self, format: str, *args: object) -> None:
            pass

    return Handler


@dataclass
class FakeClock:
    """Time that passes only while something sleeps."""

    now: float = 1000.0
    slept: list[float] = field(default_factory=list)

    def now_s(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


CREATED = "2024-10-29T20:52:00.744998+00:00"
UPDATED = "2024-10-29T21:36:20.000000+00:00"
UUIDS = [f"{n:08d}-0000-4000-8000-000000000000" for n in range(10)]
WORKSPACE = {"id": 8, "name": "forecast", "archived": False, "created_at": CREATED, "created_by": UUIDS[9]}


def model_version(name: str = "control", id: int = 6, *, status: str = "ready", **more: Any) -> dict[str, Any]:
    return {
        "id": id,
        "name": name,
        "models_pk_id": 3,
        "visibility": "private",
        "workspace_id": 8,
        "workspace": {"id": 8, "name": "forecast"},
        "conversion": {"framework": "python", "python_version": "3.11", "requirements": []},
        "arch": "x86",
        "accel": "none",
        "status": status,
        "file_info": {"version": UUIDS[id], "sha": "ab" * 32, "file_name": "step.zip", "size": 12},
        "image_path": "bettong/python:3.11",
        "created_by": UUIDS[9],
        "created_at": CREATED,
        "updated_at": UPDATED,
        "deployed": False,
        "error_summary": None,
        **more,
    }


def model_config(version_id: int = 6) -> dict[str, Any]:
    return {
        "id": 2,
        "model_version_id": version_id,
        "runtime": "flight",
        "tensor_fields": None,
        "filter_threshold": None,
        "input_schema": None,
        "output_schema": None,
        "batch_config": None,
        "dynamic_batching_config": None,
    }


def fetched_version(**more: Any) -> dict[str, Any]:
    """The answer of get_version_by_id."""
    return {"model_version": {"model_version": model_version(**more), "config": model_config()}}


def model_entry(*versions: dict[str, Any], name: str = "control") -> dict[str, Any]:
    model = {
        "id": 3,
        "name": name,
        "owner_id": "u-ann",
        "workspace_id": 8,
        "created_at": CREATED,
        "updated_at": UPDATED,
    }
    items = [{"model_version": version, "config": model_config(version["id"])} for version in versions]
    return {"model": model, "model_versions": items, "workspace": WORKSPACE}


def definition(*models: str, pipeline: str = "rental") -> dict[str, Any]:
    references = [{"name": name, "version": UUIDS[6], "sha": "ab" * 32} for name in models]
    return {"id": pipeline, "steps": [{"ModelInference": {"models": [reference]}} for reference in references]}


def pipeline_version(number: int = 1, *models: str) -> dict[str, Any]:
    document = definition(*models)
    return {
        "pk_id": number,
        "id": "rental",
        "pipeline_id": 4,
        "workspace_id": 8,
        "version": UUIDS[number],
        "steps": document["steps"],
        "definition": document,
        "created_at": CREATED,
        "updated_at": UPDATED,
        "created_by": UUIDS[9],
        "deployed": False,
        "tags": [],
    }


def pipeline_entry(**more: Any) -> dict[str, Any]:
    return {
        "pipeline": {"id": 4, "name": "rental", "owner_id": "u-ann", "created_at": CREATED, "updated_at": UPDATED},
        "plateau_topic": "workspace-8-pipeline-rental-inference",
        "workspace": WORKSPACE,
        "versions": [UUIDS[2], UUIDS[1]],
        "pipeline_version": pipeline_version(2),
        "deployed": None,
        "deployed_steps": [],
        "arch": "x86",
        "accel": "none",
        "tags": [],
        "published": False,
        "deployment": None,
        **more,
    }


def deployment(platform_url: str, url: str | None, *, deployed: bool = True, generation: int = 1) -> dict[str, Any]:
    return {
        "id": 5,
        "name": "rental",
        "label": "rental-5",
        "deployed": deployed,
        "pipeline_id": 4,
        "pipeline_name": "rental",
        "workspace_id": 8,
        "generation": generation,
        "pipeline_version": UUIDS[2],
        "pipeline_version_pk_id": 2,
        "engine_config": {"engine": {"replicas": 1}},
        "model_configs": [model_config()],
        "models": [model_version()],
        "url": url,
        "external_url": f"{platform_url}/v1/api/pipelines/infer/rental-5/rental",
        "created_at": CREATED,
        "updated_at": UPDATED,
    }


def status(
    top: str = "Running", *, generation: int = 1, serving: bool = True, error: str | None = None
) -> dict[str, Any]:
    target = {"generation": generation, "pipeline_version": UUIDS[2], "serving": serving, "error": error}
    return {"status": top, "details": [], "engines": [], "engine_lbs": [], "sidekicks": [], "target": target}
