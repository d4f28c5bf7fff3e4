"""Markers go in as secrets by every door, with everything that can go wrong; then every byte that came out is read.

What was found is compared with the few places where each kind of marker may be: a Connection's details in the answer
of a reveal and nowhere else, a worker's variables in the file it is started from, rows in the inference log.
"""

from __future__ import annotations

import base64
import json
import re
import sqlite3
import stat
import threading
import urllib.parse
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import httpx
import pyarrow as pa
import pytest
from builders import python_model_zip
from platforms import bettong, processes_of

import wallaroo
from wallaroo.framework import Framework
from wallaroo.object import InferenceError, RequestRefused

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.timeout(240)

SCHEMA_IN, SCHEMA_OUT = pa.schema([pa.field("text", pa.string())]), pa.schema([pa.field("size", pa.int64())])
CODE = """
import os, signal
import numpy as np
from mac.types import InferenceData

def process_data(input_data: InferenceData) -> InferenceData:
    texts = [str(t) for t in input_data["text"]]
    if any(t.startswith("raise") for t in texts):
        raise ValueError("this model takes no such text")
    if any(t.startswith("die") for t in texts):
        os.kill(os.getpid(), signal.SIGKILL)
    if not os.environ.get("MODEL_SECRET"):
        raise RuntimeError("the variable is not there")
    return {"size": np.array([len(t) for t in texts], dtype=np.int64)}
"""


def marker(kind: str) -> str:
    return f"{kind}-märker-{uuid4().hex}"


@dataclass
class Story:
    """What was put in, and everything that came out."""

    home: Path
    url: str
    detail: str = field(default_factory=lambda: marker("detail"))
    refused: str = field(default_factory=lambda: marker("refused"))
    used: str = field(default_factory=lambda: marker("used"))  # in details that drivers use, and tries that fail
    variable: str = field(default_factory=lambda: marker("variable"))
    row: str = field(default_factory=lambda: marker("row"))
    tokens: list[str] = field(default_factory=list)
    answers: list[httpx.Response] = field(default_factory=list)
    reveals: list[httpx.Response] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)  # reprs, HTML, printed output, messages of exceptions
    arguments: list[str] = field(default_factory=list)  # of every process while all ran, its variables too
    driving: int = 0  # how many of them used a connection just then
    places: dict[str, set[str]] = field(default_factory=dict)  # marker kind → files while all ran
    modes: dict[str, int] = field(default_factory=dict)
    name: str = field(default_factory=lambda: f"atlas-{uuid4().hex[:8]}")

    def send(self, method: str, path: str, **more: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.tokens[0]}", "X-Bettong-Client": "test", **more.pop("headers", {})}
        answered = httpx.request(method, f"{self.url}{path}", headers=headers, timeout=60, **more)
        self.answers.append(answered)
        return answered

    def post(self, route: str, body: object) -> httpx.Response:
        return self.send("POST", f"/v1/api{route}", json=body)


def forms(secret: str) -> re.Pattern[bytes]:
    """Every form in which a text may lie somewhere: plain, quoted, escaped, base64 at each of its three offsets."""
    raw = secret.encode()
    found = {raw, secret.encode("utf-16-le"), raw.hex().encode(), urllib.parse.quote(secret).encode()}
    found |= {json.dumps(secret)[1:-1].encode(), repr(raw)[2:-1].encode()}
    for shift in range(3):  # without the characters that what stands around it has a part in
        encoded = base64.b64encode(bytes(shift) + raw).rstrip(b"=")
        inner = encoded[(0, 2, 3)[shift] : -1]
        found |= {inner, inner.replace(b"+", b"-").replace(b"/", b"_")}
    return re.compile(b"|".join(re.escape(form) for form in found))


def files_with(home: Path, secret: str) -> set[str]:
    """Names of the files under `home` that hold a form of `secret`; installed packages are nobody's place for one."""
    pattern, found = forms(secret), set()
    for path in home.rglob("*"):
        inside = path.relative_to(home).parts
        if inside[0] in ("environments", "cache") or path.is_symlink() or not path.is_file():
            continue
        if pattern.search(path.read_bytes()):
            found.add(str(path.relative_to(home)))
    return found


def seen_by_others(home: Path) -> list[str]:
    """The command line and the first environment of every process of the platform."""
    found = processes_of(home)
    every = {one.pid: one for process in found for one in (process, *process.children(recursive=True))}
    return ["\n".join([*p.cmdline(), *(f"{k}={v}" for k, v in p.environ().items())]) for p in every.values()]


@pytest.fixture(scope="module")
def story(own_module_home: Path, tmp_path_factory: pytest.TempPathFactory) -> Story:
    """The whole story, told once."""
    home, folder = own_module_home, tmp_path_factory.mktemp("secrets")
    wl = wallaroo.Client()
    story = Story(home, wl.api_endpoint, tokens=[(home / "token").read_text().strip()])
    details = {
        "url": f"https://user:{story.detail}@host.example/",
        "nested": [{"deep": {story.detail: [story.detail.upper(), story.detail]}}],
        "bytes": base64.b64encode(story.detail.encode()).decode(),
    }
    _connections(story, wl, details)
    _uses(story, wl, folder)
    pipeline = _deployment(story, wl, folder)
    _inferences(story, wl, pipeline)
    story.arguments += seen_by_others(home)
    for kind in ("detail", "refused", "used", "variable", "row"):
        story.places[kind] = files_with(home, getattr(story, kind))
    story.places["tokens"] = set.union(*(files_with(home, token) for token in story.tokens))
    story.modes = {str(p.relative_to(home)): stat.S_IMODE(p.stat().st_mode) for p in home.rglob("*") if p.is_file()}
    for words in (["status"], ["status", "--json"], ["logs", "-n", "10000"]):
        story.texts.append(bettong(*words, home=home).stdout)
    story.texts.append(
        bettong("logs", "-n", "10000", "--deployment", _label(pipeline), home=home).stdout,
    )
    pipeline.undeploy()
    return story


@pytest.fixture(scope="module")
def own_module_home() -> Iterator[Path]:
    from platforms import new_home

    with new_home() as home:
        yield home


def _label(pipeline: Any) -> str:
    return str(urllib.parse.urlsplit(pipeline.get_external_url()).path.split("/")[-2])


def _connections(story: Story, wl: wallaroo.Client, details: dict[str, Any]) -> None:
    made = wl.create_connection(story.name, "mongodb", details)
    for body in (
        {"name": story.name, "type": "mongodb", "details": {"password": story.refused}},  # the name is taken
        {"name": 7, "type": "mongodb", "details": {"password": story.refused}},
        {"name": "other", "type": [story.refused], "details": {story.refused: story.refused}},
        {"name": "other", "type": "mongodb", "details": [story.refused]},
        {"name": "other\n", "type": "mongodb", "details": {"a": story.refused}},
        [story.refused],
    ):
        assert 400 <= story.post("/connections/create", body).status_code < 500
    broken = json.dumps({"name": "other", "type": "t", "details": {"a": story.refused}}).encode()[:-2]
    kind = {"Content-Type": "application/json"}
    story.send("POST", "/v1/api/connections/create", content=broken, headers=kind)
    story.send("POST", "/v1/api/connections/create", data={"details": story.refused})
    story.post("/connections/make", {"details": story.refused})
    story.send("PUT", "/v1/api/connections/create", json={"details": story.refused})
    story.send("POST", "/v1/api/models/upload_and_convert", files={"metadata": (None, story.refused), "file": b"x"})
    story.send("POST", "/v1/api/connections/get", json={"name": story.refused[:40] + "\0"})
    story.post("/connections/get", {"name": story.name, "reveal": False})
    story.post("/connections/list", {})
    story.reveals.append(story.post("/connections/get", {"name": story.name, "reveal": True}))
    story.answers.remove(story.reveals[0])
    workspace = wl.get_current_workspace()
    workspace.add_connection(story.name)
    for shown in (made, wl.get_connection(story.name), wl.list_connections(), workspace.list_connections()):
        story.texts += [repr(shown), str(shown), shown._repr_html_()]
    assert wl.get_connection(story.name).details() == details


def _uses(story: Story, wl: wallaroo.Client, folder: Path) -> None:
    """Connections that are used in every way, at sources that refuse, repeat what they were sent, and hang."""
    with echoing() as source:
        details: dict[str, dict[str, Any]] = {
            "HTTP": {"url": f"{source.url}/rows?token={story.used}", "user": "u", "password": story.used},
            "HTTPFILE": {"host": f"{source.url}/rows.csv", "headers": {"X-Key": f"{story.used}!"}, "token": story.used},
            "POSTGRES": {"host": "127.0.0.1", "port": 1, "user": story.used, "password": story.used},
            "MYSQL": {"host": "nowhere.invalid", "user": "u", "password": story.used, "database": "d"},
            "SQLITE": {"path": "/nowhere/a.db", "password": story.used},
        }
        for kind, holding in details.items():
            connection = wl.create_connection(f"{kind}-{story.name}", kind, holding)
            which = {"id": connection.id()}
            for call, more in (
                ("test", {}),
                ("test", {"details": {"password": f"{story.used}-tried"}}),
                ("browse", {}),
                ("preview", {"table": story.used}),
                ("read", {"query": f"select '{story.used}'", "parameters": [story.used]}),
                ("update", {"details": {"password": f"{story.used}-2"}}),
                ("rotate", {"details": {"password": f"{story.used}-3"}}),
                ("update", {"details": {"more": {"deep": "*****"}, "other": story.used}}),
                ("rollback", {"version": 1}),
                ("masked", {}),
                ("versions", {}),
                ("used_by", {}),
                ("audit", {}),
            ):
                story.post(f"/connections/{call}", {**which, **more})
            story.post("/connections/test", {"type": kind, "details": holding})
            story.texts += [repr(connection.test()), connection.test()._repr_html_(), repr(connection.versions())]
            with pytest.raises(RequestRefused) as refused:
                connection.read(limit=1)
            story.texts.append(str(refused.value))
            told = bettong("connections", "test", connection.name(), home=story.home, check=False)
            story.texts += [told.stdout, told.stderr]
        hanging = wl.create_connection(
            f"hanging-{story.name}", "HTTP", {"url": source.hang, "password": story.used, "user": "u"}
        )
        with ThreadPoolExecutor(1) as threads:
            reading = threads.submit(hanging.test)
            assert source.hung.wait(60)
            story.arguments = seen_by_others(story.home)
            story.driving = sum("bettong.drivers._child" in text for text in story.arguments)
            source.go_on.set()
            story.texts.append(repr(reading.result()))
    told = bettong("keys", "rotate", "--new-key", home=story.home)
    story.texts += [told.stdout, bettong("keys", "list", home=story.home).stdout]


class Echo:
    """A server that answers 401 with all that it was sent, and hangs at one path until it is let go on."""

    def __init__(self, port: int) -> None:
        self.port, self.url = port, f"http://127.0.0.1:{port}"
        self.hang = f"{self.url}/hang"
        self.hung, self.go_on = threading.Event(), threading.Event()


@contextmanager
def echoing() -> Iterator[Echo]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path == "/hang":
                echo.hung.set()
                echo.go_on.wait(60)
            body = f"{self.path}\n{self.headers}".encode("latin-1", "replace")
            self.send_response(401, f"no {self.path}".replace("\n", " ")[:200])
            self.send_header("Content-Length", str(len(body)))
            self.send_header("WWW-Authenticate", f'Basic realm="{self.headers.get("Authorization", "")}"')
            self.end_headers()
            self.wfile.write(body)

        do_HEAD = do_GET

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    echo = Echo(server.server_port)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    serving.start()
    try:
        yield echo
    finally:
        echo.go_on.set()
        server.shutdown()
        serving.join()
        server.server_close()


def _deployment(story: Story, wl: wallaroo.Client, folder: Path) -> Any:
    name = f"secret-{uuid4().hex[:8]}"
    archive = python_model_zip(folder / "model.zip", CODE)
    model = wl.upload_model(name, str(archive), Framework.PYTHON, input_schema=SCHEMA_IN, output_schema=SCHEMA_OUT)
    pipeline = wl.build_pipeline(name).add_model_step(model)
    config = wallaroo.DeploymentConfigBuilder().replica_count(1).cpus(0.5).memory("512Mi")
    config = config.sidekick_cpus(model, 0.5).sidekick_env(model, {"MODEL_SECRET": story.variable})
    pipeline.deploy(deployment_config=config.build())
    story.texts += [repr(pipeline), pipeline._repr_html_(), json.dumps(pipeline.status())]
    return pipeline


def _inferences(story: Story, wl: wallaroo.Client, pipeline: Any) -> None:
    story.tokens.append(wl.auth.auth_header()["Authorization"].split()[1])
    assert pipeline.infer(pa.table({"text": [story.row]}))["out.size"].to_pylist() == [len(story.row)]
    for text in (f"raise {story.row}", f"die {story.row}"):
        with pytest.raises(InferenceError) as refused:
            pipeline.infer(pa.table({"text": [text]}))
        story.texts.append(str(refused.value))
    bearer = {"Authorization": f"Bearer {story.tokens[1]}"}
    for body in (
        [{"text": [story.row]}],
        [{story.row: 1}],
        [{"text": "a", "txet": story.row}],
        {"text": story.row},
        story.row,
        [{"text": None, "size": story.row}],
    ):
        answered = httpx.post(pipeline.url(), json=body, headers=bearer, timeout=30)
        assert 400 <= answered.status_code < 500
        if not (isinstance(body, list) and story.row in str(list(body[0]))):  # names of columns are told: no values
            story.answers.append(answered)
    half = json.dumps([{"text": story.row}])[:-1]
    story.send("POST", urllib.parse.urlsplit(pipeline.get_external_url()).path, content=half.encode())
    story.answers.append(httpx.post(f"{pipeline.url()}?dataset[]={story.row}", json=[{"text": "a"}], headers=bearer))
    story.answers.append(httpx.post(f"{pipeline.url()}/{story.row}", json=[{"text": "a"}], headers=bearer))


def test_details_of_a_connection_are_in_the_answer_of_a_reveal_alone(story: Story) -> None:
    pattern = forms(story.detail)

    assert story.detail in str(story.reveals[0].json()["details"])
    assert [r.request.url.path for r in story.answers if pattern.search(r.content)] == []
    assert [text for text in story.texts if pattern.search(text.encode())] == []
    assert story.places["detail"] == set()
    assert [text for text in story.arguments if pattern.search(text.encode("utf-8", "surrogateescape"))] == []


def test_what_was_refused_has_left_no_trace(story: Story) -> None:
    pattern = forms(story.refused)

    assert len(story.answers) > 20
    assert [r.text for r in story.answers if pattern.search(r.content)] == []
    assert [text for text in story.texts if pattern.search(text.encode())] == []
    assert story.places["refused"] == set()


def test_secrets_of_connections_that_were_used_are_nowhere(story: Story) -> None:
    pattern = forms(story.used)

    assert [(r.request.url.path, r.text) for r in story.answers if pattern.search(r.content)] == []
    assert [text for text in story.texts if pattern.search(text.encode())] == []
    assert story.places["used"] == set()
    assert story.driving == 1  # the processes were looked at while one of them held a secret
    assert [text for text in story.arguments if pattern.search(text.encode("utf-8", "surrogateescape"))] == []


def test_rows_are_in_the_inference_log_alone(story: Story) -> None:
    pattern = forms(story.row)

    assert [r.text for r in story.answers if pattern.search(r.content)] == []
    assert [text for text in story.texts if pattern.search(text.encode())] == []
    assert story.places["row"] != set()
    assert {place.split("/")[0] for place in story.places["row"]} == {"logs"}


def test_variables_of_a_worker_are_where_it_is_started_from_and_for_the_owner_alone(story: Story) -> None:
    pattern = forms(story.variable)
    of_workers = [text for text in story.arguments if pattern.search(text.encode("utf-8", "surrogateescape"))]

    assert len(story.places["variable"]) == 1
    (place,) = story.places["variable"]
    assert re.fullmatch(r"deployments/[^/]+/generation-1\.json", place)
    assert story.modes[place] == 0o600
    assert [text for text in story.texts if pattern.search(text.encode())] == []
    assert len(of_workers) == 1  # its own environment; its command line has not got it
    assert pattern.search(of_workers[0].split("MODEL_SECRET=")[0].encode()) is None


def test_an_undeployed_pipeline_leaves_no_variable_behind(story: Story) -> None:
    assert files_with(story.home, story.variable) == set()


def test_tokens_are_in_the_owners_file_and_nowhere_else(story: Story) -> None:
    shown = [*story.texts, *story.arguments]

    assert story.places["tokens"] == {"token"}
    assert story.modes["token"] == 0o600
    for token in story.tokens:
        pattern = forms(token)
        assert [text for text in shown if pattern.search(text.encode("utf-8", "surrogateescape"))] == []
        assert [r.text for r in story.answers if pattern.search(r.content)] == []


def test_each_reveal_is_audited_with_who_when_and_from_where(story: Story) -> None:
    with sqlite3.connect(f"file:{story.home / 'bettong.db'}?mode=ro", uri=True) as database:
        rows = database.execute(
            "SELECT action, email, origin, at FROM audit_events WHERE subject_name = ? ORDER BY seq", [story.name]
        ).fetchall()
    database.close()

    reveals = [row for row in rows if row[0] == "connection.reveal"]
    assert next(row[0] for row in rows) == "connection.create"
    assert len(reveals) == 2  # the one over HTTP and the SDK's details(); lists, reprs and pages needed none
    for _, email, origin, at in reveals:
        assert email.endswith("@localhost")
        assert origin == "127.0.0.1"
        assert at
