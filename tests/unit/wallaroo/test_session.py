"""Finding the platform, logging in, and what happens when either fails."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from unit.wallaroo.stub import Asked, FakeClock, Reply, StubPlatform, error, status

import wallaroo
from wallaroo import _embedded, deployment
from wallaroo.auth import AuthError, TokenAuth, TokenFetchError, TokenRefreshError
from wallaroo.object import CommunicationError, WallarooAPIError

HEALTH = "/v1/api/health"
EXCHANGE = "/v1/api/auth/token"
SECRET = "bt_long-lived-secret"


def access(number: int = 1, *workspace_ids: int, is_admin: bool = False) -> dict[str, Any]:
    return {
        "access_token": f"jwt-{number}",
        "expires_in": 60,
        "user_id": "u-ann",
        "email": "ann@example.org",
        "username": "ann",
        "is_admin": is_admin,
        "workspace_ids": list(workspace_ids),
    }


@pytest.fixture
def home(tmp_path: Path, platform: StubPlatform, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a running embedded platform."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("BETTONG_HOME", str(folder))
    write_record(folder, platform)
    (folder / "token").write_text(f"{SECRET}\n")
    platform.on(HEALTH, {"status": "ok", "instance": "i-1", "version": "0.1.0"})
    platform.on(EXCHANGE, access())
    return folder


def write_record(folder: Path, platform: StubPlatform, instance: str = "i-1", pid: int | None = None) -> None:
    """As a server of this process, or of process `pid`, leaves it."""
    pid = os.getpid() if pid is None else pid
    record = {"url": platform.url, "pid": pid, "instance": instance, "version": "0.1.0", "started_at": ""}
    (folder / "server.json").write_text(json.dumps(record))


@pytest.fixture
def dead_pid() -> int:
    """The number of a process that has ended."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


class Starter:
    """Stands in for `python -m bettong up`; what it does is `then`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.command: list[str] = []
        self.environ: dict[str, str] = {}
        self.then: Any = lambda: None
        self.complaint, self.status = b"", 0
        monkeypatch.setattr(_embedded, "find_spec", lambda name: ModuleSpec(name, None))
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command: list[str], *, env: dict[str, str], stderr: Any, **_: Any) -> Any:
        self.command, self.environ = command, env
        self.then()
        stderr.write(self.complaint)
        return subprocess.CompletedProcess(command, self.status)


@pytest.fixture
def starter(monkeypatch: pytest.MonkeyPatch) -> Starter:
    return Starter(monkeypatch)


def test_a_client_without_anything_given_finds_the_platform_that_runs_here(
    home: Path, platform: StubPlatform, capsys: pytest.CaptureFixture[str]
) -> None:
    with wallaroo.Client() as client:
        assert client.auth.auth_header() == {"Authorization": "Bearer jwt-1"}
        assert client.auth.user_email() == "ann@example.org"
        assert SECRET not in repr(client) + repr(client.auth)
    assert "authorization" not in platform.calls(HEALTH)[0].headers
    assert platform.calls(EXCHANGE)[0].headers["authorization"] == f"Bearer {SECRET}"
    assert capsys.readouterr().out == f"bettong 0.1.0 is running at {platform.url} (home {home}).\n"


@pytest.mark.parametrize("stale", ["none", "torn", "no process", "ended", "another program", "dead"])
def test_a_stale_record_is_noticed_and_the_platform_started(
    home: Path,
    platform: StubPlatform,
    starter: Starter,
    stale: str,
    unused_port: int,
    dead_pid: int,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = home / "server.json"
    if stale == "none":
        path.unlink()
    elif stale == "torn":
        path.write_text('{"url": ')
    elif stale == "no process":
        write_record(home, platform, pid=0)
    elif stale == "ended":
        write_record(home, platform, pid=dead_pid)
    elif stale == "another program":
        write_record(home, platform, instance="i-0")
    else:
        dead = {"url": f"http://127.0.0.1:{unused_port}", "pid": os.getpid(), "instance": "i-1", "version": "0.1.0"}
        path.write_text(json.dumps(dead))
    starter.then = lambda: write_record(home, platform)

    wallaroo.Client().close()

    assert starter.command == [sys.executable, "-m", "bettong", "up"]
    assert starter.environ["BETTONG_HOME"] == str(home)
    assert capsys.readouterr().out == f"bettong 0.1.0 is running at {platform.url} (started now, home {home}).\n"


def test_a_start_that_fails_gives_the_last_line_of_its_complaint(home: Path, starter: Starter) -> None:
    (home / "server.json").unlink()
    starter.complaint, starter.status = b"first\nThe port is taken.\n", 1
    with pytest.raises(ValueError, match=r"could not be started: The port is taken\. See `bettong logs`"):
        wallaroo.Client()


def test_without_bettong_the_error_says_the_three_ways_out(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (home / "server.json").unlink()
    monkeypatch.setattr(_embedded, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"api_endpoint.*WALLAROO_URL.*pip install bettong"):
        wallaroo.Client()


@pytest.mark.parametrize(
    ("auth_type", "variable", "told"),
    [
        ("token", None, "An auth_type is given"),
        (None, "WALLAROO_SDK_AUTH_TYPE", "WALLAROO_SDK_AUTH_TYPE is set"),
        (None, "WALLAROO_SDK_CREDENTIALS", "WALLAROO_SDK_CREDENTIALS is set"),
    ],
)
def test_a_login_without_the_platform_that_it_is_for_does_not_make_one_here(
    home: Path,
    platform: StubPlatform,
    starter: Starter,
    monkeypatch: pytest.MonkeyPatch,
    auth_type: str | None,
    variable: str | None,
    told: str,
) -> None:
    if variable:
        monkeypatch.setenv(variable, "token")
    with pytest.raises(ValueError, match=rf"^{told}, but no platform: pass api_endpoint=.*or set WALLAROO_URL"):
        wallaroo.Client(auth_type=auth_type)
    assert platform.asked == []
    assert starter.command == []


def test_the_home_is_a_folder_of_the_user_unless_named() -> None:
    assert _embedded.home_folder({}) == Path.home() / ".bettong"
    assert _embedded.home_folder({"BETTONG_HOME": "/srv/x"}) == Path("/srv/x")


def test_an_endpoint_from_the_environment_with_a_credentials_file(
    platform: StubPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials.json"
    credentials.write_text(json.dumps({"token": SECRET, "user_email": "", "user_id": ""}))
    monkeypatch.setenv("WALLAROO_URL", f"{platform.url}/")
    monkeypatch.setenv("WALLAROO_SDK_CREDENTIALS", str(credentials))
    platform.on(EXCHANGE, access())
    platform.on("/v1/api/users/query", {"users": {}})

    with wallaroo.Client() as client:
        client.list_users()
        assert client.auth.user_id() == "u-ann"

    asked = platform.calls("/v1/api/users/query")[0]
    assert asked.headers["authorization"] == "Bearer jwt-1"
    assert asked.headers["user-agent"] == f"WallarooSDK/{wallaroo.__version__}"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (None, "No token was provided"),
        ("absent", "cannot be read"),
        ("[]", "has no 'token'"),
        ("bt_no-json", "is not JSON"),
    ],
)
def test_credentials_that_are_none_say_what_is_wrong_and_not_what_is_in_them(
    platform: StubPlatform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str | None, text: str
) -> None:
    path = tmp_path / "credentials.json"
    if content is not None:
        monkeypatch.setenv("WALLAROO_SDK_CREDENTIALS", str(path))
        if content != "absent":
            path.write_text(content)
    with pytest.raises(AuthError, match=text) as caught:
        wallaroo.Client(platform.url)
    assert "bt_no-json" not in str(caught.value)


@pytest.mark.parametrize("auth_type", ["sso", "user_password", "orch"])
def test_other_logins_are_refused_with_what_there_is(platform: StubPlatform, auth_type: str) -> None:
    with pytest.raises(AuthError, match=f"no login of type '{auth_type}'.*auth_type='token'"):
        wallaroo.Client(platform.url, auth_type=auth_type)


def test_a_refused_token_is_noticed_when_the_session_starts(home: Path, platform: StubPlatform) -> None:
    platform.on(EXCHANGE, Reply(b"Jwt verification fails", 401))
    with pytest.raises(TokenFetchError) as caught:
        wallaroo.Client()
    assert str(caught.value).startswith("[HTTP 401] Jwt verification fails. The platform does not take this API token")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("endpoint", ["ftp://x", "localhost:80", "http://", "http://h:secret-port"])
def test_an_endpoint_that_is_no_address_is_refused_without_repeating_it(endpoint: str) -> None:
    with pytest.raises(ValueError, match="is no HTTP address") as caught:
        wallaroo.Client(endpoint, auth_type="none")
    assert "secret" not in str(caught.value)


def test_a_platform_that_is_not_there_is_a_communication_error_without_secrets(unused_port: int) -> None:
    endpoint = f"http://user:hidden@127.0.0.1:{unused_port}"
    with (
        wallaroo.Client(endpoint, auth_type="none") as client,
        pytest.raises(CommunicationError, match=r"^Network communication failed: .*nothing accepts") as caught,
    ):
        client.list_workspaces()
    assert "hidden" not in str(caught.value) + repr(client)
    assert caught.value.__cause__ is None
    assert caught.value.__context__ is None


class Server:
    """The exchange of tokens as a function; raises what it is told to."""

    def __init__(self) -> None:
        self.calls = 0
        self.fails: Exception | None = None

    def __call__(self, token: str) -> dict[str, Any]:
        if self.fails:
            raise self.fails
        self.calls += 1
        return access(self.calls)


def token_of(auth: TokenAuth) -> str:
    return auth.auth_header()["Authorization"].removeprefix("Bearer ")


def test_a_token_is_renewed_after_a_third_of_its_life(clock: FakeClock) -> None:
    auth = TokenAuth(SECRET, Server(), clock)  # type: ignore[arg-type]
    assert token_of(auth) == "jwt-1"
    clock.now += 19.9
    assert token_of(auth) == "jwt-1"
    clock.now += 0.2
    assert token_of(auth) == "jwt-2"


def test_the_old_token_is_kept_while_the_server_is_away_until_it_expires(clock: FakeClock) -> None:
    server = Server()
    auth = TokenAuth(SECRET, server, clock)  # type: ignore[arg-type]
    auth.auth_header()
    server.fails = CommunicationError("away")
    for now in (1030.0, 1031.0, 1059.0):
        clock.now = now
        assert token_of(auth) == "jwt-1"
    clock.now = 1060.0
    with pytest.raises(CommunicationError):
        auth.auth_header()
    server.fails = None
    assert token_of(auth) == "jwt-2"


def test_a_token_that_the_server_takes_back_is_not_kept(clock: FakeClock) -> None:
    server = Server()
    auth = TokenAuth(SECRET, server, clock)  # type: ignore[arg-type]
    auth.auth_header()
    clock.now += 21
    server.fails = WallarooAPIError(401, error="Jwt verification fails")
    with pytest.raises(TokenRefreshError, match=r"\[HTTP 401\]"):
        auth.auth_header()


def test_a_refused_access_token_is_replaced_and_the_call_made_again(home: Path, platform: StubPlatform) -> None:
    platform.on(EXCHANGE, access(1), access(2))

    def only_the_second(asked: Asked) -> Reply:
        if asked.headers["authorization"] != "Bearer jwt-2":
            return Reply(b"Jwt verification fails", 401)
        return Reply({"users": {}})

    platform.on("/v1/api/users/query", only_the_second)
    with wallaroo.Client() as client:
        assert client.list_users() == []


def moved(home: Path, to: StubPlatform) -> None:
    """The platform of `home` was restarted, and has another port now."""
    write_record(home, to, instance="i-2")
    to.on(HEALTH, {"status": "ok", "instance": "i-2", "version": "0.1.0"})
    to.on(EXCHANGE, access(2))
    to.on("/v1/api/users/query", {"users": {}})


def test_a_client_follows_the_platform_of_this_machine_to_another_port(home: Path, platform: StubPlatform) -> None:
    restarted = StubPlatform()
    try:
        with wallaroo.Client() as client:
            platform.close()
            moved(home, restarted)

            assert client.list_users() == []

            assert client.api_endpoint == restarted.url
            assert restarted.calls("/v1/api/users/query")[0].headers["authorization"] == "Bearer jwt-1"
    finally:
        restarted.close()


@pytest.mark.parametrize("record", ["stale", "gone", "of another program"])
def test_a_platform_of_this_machine_that_is_away_is_not_looked_for_elsewhere_and_the_error_says_what_to_do(
    home: Path, platform: StubPlatform, record: str
) -> None:
    other = StubPlatform()
    try:
        with wallaroo.Client() as client:
            platform.close()
            if record == "gone":
                (home / "server.json").unlink()
            elif record == "of another program":
                moved(home, other)
                write_record(home, other, instance="i-3")

            with pytest.raises(CommunicationError, match=r"nothing accepts.*`bettong up`.*wallaroo\.Client\(\)"):
                client.list_users()

            assert other.calls("/v1/api/users/query") == []
    finally:
        other.close()


def test_the_api_token_is_kept_from_whatever_listens_where_the_platform_was(
    home: Path, platform: StubPlatform, dead_pid: int
) -> None:
    with wallaroo.Client() as client:
        write_record(home, platform, pid=dead_pid)
        client.logout()

        with pytest.raises(CommunicationError, match=f"no longer at {platform.url}.*`bettong up`"):
            client.list_users()

    assert len(platform.calls(EXCHANGE)) == 1


def test_the_api_token_goes_where_the_record_says_although_something_answers_at_the_old_address(
    home: Path, platform: StubPlatform
) -> None:
    restarted = StubPlatform()
    try:
        with wallaroo.Client() as client:
            moved(home, restarted)
            client.logout()

            assert client.list_users() == []

        assert len(platform.calls(EXCHANGE)) == 1
        assert restarted.calls(EXCHANGE)[0].headers["authorization"] == f"Bearer {SECRET}"
    finally:
        restarted.close()


def test_a_client_of_a_named_endpoint_stays_there(home: Path, platform: StubPlatform) -> None:
    named = StubPlatform()
    with wallaroo.Client(named.url, auth_type="none") as client:
        named.close()
        with pytest.raises(CommunicationError, match=named.url):
            client.list_users()
    assert platform.asked == []


def test_a_client_that_nobody_closed_closes_itself_when_it_is_collected(platform: StubPlatform) -> None:
    platform.on("/v1/api/users/query", {"users": {}})
    client = wallaroo.Client(platform.url, auth_type="none")
    client.list_users()
    client.set_current_workspace(client.get_current_workspace())  # a cycle: the workspace knows its client
    transport = client._transport

    del client
    gc.collect()

    assert transport._http.is_closed


def test_a_program_that_ends_without_closing_its_client_sees_no_warning(platform: StubPlatform) -> None:
    platform.on("/v1/api/users/query", {"users": {}})
    code = f"import wallaroo; wl = wallaroo.Client({platform.url!r}, auth_type='none'); print(wl.list_users())"
    command = [sys.executable, "-X", "dev", "-W", "error::ResourceWarning", "-c", code]

    done = subprocess.run(command, capture_output=True, text=True, check=True)

    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_addresses_of_a_platform(client: wallaroo.Client, platform: StubPlatform) -> None:
    assert client.get_urls() == {"api": platform.url, "docs": f"{platform.url}/docs"}


def test_an_ordinary_http_client_is_logged_in_here_and_nowhere_else(home: Path, platform: StubPlatform) -> None:
    elsewhere = StubPlatform()
    elsewhere.on("/x", {})
    platform.on("/v1/api/health", {"status": "ok", "instance": "i-1", "version": "0.1.0"})
    platform.on("/v1/api/users/query", Reply(b"Jwt verification fails", 401), Reply({"users": {}}))
    platform.on(EXCHANGE, access(1), access(2))
    try:
        with wallaroo.Client() as client:
            assert client.httpx_client.post("/v1/api/users/query", json={}).json() == {"users": {}}
            client.httpx_client.get(f"{elsewhere.url}/x")
            kept = client.httpx_client
    finally:
        elsewhere.close()
    tokens = [asked.headers["authorization"] for asked in platform.calls("/v1/api/users/query")]
    assert tokens == ["Bearer jwt-1", "Bearer jwt-2"]
    assert "authorization" not in elsewhere.calls("/x")[0].headers
    assert kept.is_closed


@pytest.mark.parametrize(("terminal", "shown"), [(True, " ok\n"), (False, "")])
def test_waits_are_shown_in_a_terminal_and_not_in_a_pipe(
    platform: StubPlatform,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    terminal: bool,
    shown: str,
) -> None:
    platform.on("/v1/api/pipelines/deploy", {"id": 5, "generation": 1})
    platform.on("/v1/api/status/get_deployment", status())
    monkeypatch.setattr(sys.stdout, "isatty", lambda: terminal)

    with wallaroo.Client(platform.url, auth_type="none") as client:
        deployment.start(client, "rental", {}, wait=True)

    assert capsys.readouterr().out == shown


@pytest.mark.parametrize(("interactive", "logged"), [(None, True), (False, False), (True, False)])
def test_a_script_is_told_of_long_waits_unless_it_wants_none(
    platform: StubPlatform, monkeypatch: pytest.MonkeyPatch, interactive: bool | None, logged: bool
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: False)
    with wallaroo.Client(platform.url, auth_type="none", interactive=interactive) as client:
        assert client._screen.logged is logged


def test_an_error_of_the_platform_carries_its_code_reason_and_request_id(
    client: wallaroo.Client, platform: StubPlatform
) -> None:
    platform.on("/v1/api/users/query", error(503, "Busy. Try later.", "unavailable"))
    with pytest.raises(WallarooAPIError, match=r"^Request failed: \[503\] Busy\. Try later\.$") as caught:
        client.list_users()
    assert (caught.value.code, caught.value.error_code, caught.value.request_id) == (503, "unavailable", "r-1")


def test_importing_the_package_loads_neither_pandas_nor_pyarrow_nor_the_server() -> None:
    code = "import sys, wallaroo; print({'pandas', 'pyarrow', 'numpy', 'bettong', 'mac'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_the_version_is_that_of_the_distribution() -> None:
    project = Path(wallaroo.__file__).parents[2] / "pyproject.toml"
    assert f'version = "{wallaroo.__version__}"' in project.read_text()
