"""A private RabbitMQ: on loopback and free ports, with users, a vhost and an epmd of its own."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import tempfile
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pika
from services.debian import unpacked
from services.running import free_port, serving

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator, Mapping

USER, PASSWORD, VHOST = "bettong", "s3cr€t & long/enough?", "test/bettong"
READER, STRANGER = "reader", "stranger"  # who may read `open-…` alone, and who may not enter the vhost; same password
OPEN = "open-"


@dataclass(frozen=True)
class RabbitMqServer:
    port: int
    process: subprocess.Popen[bytes]

    @property
    def details(self) -> dict[str, object]:
        return {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD, "vhost": VHOST}

    @contextmanager
    def channel(self) -> Iterator[Any]:
        login = pika.PlainCredentials(USER, PASSWORD)
        wanted = pika.ConnectionParameters("127.0.0.1", self.port, VHOST, login)
        with pika.BlockingConnection(wanted) as connection:
            yield connection.channel()

    def make(self, queue: str, **arguments: object) -> None:
        """An empty durable queue."""
        with self.channel() as channel:
            channel.queue_declare(queue, durable=True, arguments=arguments)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextmanager
def running_rabbitmq(
    folder: Path | None = None, port: int = 0, *, tls_port: int = 0, more: Mapping[str, object] | None = None
) -> Iterator[RabbitMqServer]:
    """With a folder, what is durable is there again when it is started anew in it. With `tls_port` it speaks TLS there,
    as `more`, lines of its configuration, says."""
    port, epmd_port = port or free_port(), free_port()
    with tempfile.TemporaryDirectory(prefix="bettong-rabbitmq-") as empty, ExitStack() as stack:
        home = folder or Path(empty)
        script, epmd, paths = _programs(Path(empty))
        environment = _environment(home, paths, epmd_port)
        _configure(home, {"listeners.tcp.1": f"127.0.0.1:{port}", **(more or {})}, tls_port)
        names = [epmd, "-address", "127.0.0.1", "-port", str(epmd_port)]
        stack.enter_context(serving(names, epmd_port, environment=environment))
        yield RabbitMqServer(port, stack.enter_context(serving([script], port, environment=environment)))


def _configure(home: Path, lines: dict[str, object], tls_port: int) -> None:
    definitions = home / "definitions.json"
    definitions.write_text(json.dumps(_definitions()))
    wanted = {
        "loopback_users": "none",
        "log.console": "true",
        "log.console.level": "warning",
        "load_definitions": definitions,
        "collect_statistics": "none",
        "disk_free_limit.absolute": "10MB",
        **({"listeners.ssl.1": f"127.0.0.1:{tls_port}"} if tls_port else {}),
        **lines,
    }
    (home / "rabbitmq.conf").write_text("".join(f"{name} = {value}\n" for name, value in wanted.items()))
    (home / "enabled_plugins").write_text("[].\n")


def _definitions() -> dict[str, object]:
    def hashed(password: str) -> str:
        salt = os.urandom(4)
        return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()

    everything = {"configure": ".*", "write": ".*", "read": ".*"}
    some = {"configure": f"^{OPEN}.*", "write": "^$", "read": f"^{OPEN}.*"}
    return {
        "users": [{"name": name, "password_hash": hashed(PASSWORD), "tags": ""} for name in (USER, READER, STRANGER)],
        "vhosts": [{"name": VHOST}],
        "permissions": [
            {"user": USER, "vhost": VHOST, **everything},
            {"user": READER, "vhost": VHOST, **some},
        ],
    }


def _environment(home: Path, paths: str, epmd_port: int) -> dict[str, str]:
    return {
        "PATH": paths,
        "LANG": "C.UTF-8",
        "HOME": str(home),  # where the cookie is made
        "ERL_EPMD_ADDRESS": "127.0.0.1",
        "ERL_EPMD_PORT": str(epmd_port),
        "RABBITMQ_NODENAME": "bettong@localhost",
        "RABBITMQ_DIST_PORT": str(free_port()),
        "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1} +S 1:1",
        "RABBITMQ_MNESIA_BASE": str(home / "mnesia"),
        "RABBITMQ_LOG_BASE": str(home / "log"),
        "RABBITMQ_CONFIG_FILE": str(home / "rabbitmq"),
        "RABBITMQ_CONF_ENV_FILE": str(home / "none"),
        "RABBITMQ_ENABLED_PLUGINS_FILE": str(home / "enabled_plugins"),
        "RABBITMQ_GENERATED_CONFIG_DIR": str(home / "config"),
        "RUNNING_UNDER_SYSTEMD": "true",  # the script is replaced by the server, and a signal goes to it
    }


def _programs(folder: Path) -> tuple[str, str, str]:
    """What starts the server, `epmd`, and a PATH on which they find `erl`; `folder` is for one that is made here."""
    installed = sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"))
    epmd = shutil.which("epmd")
    if installed and epmd:
        return str(installed[-1]), epmd, os.environ["PATH"]
    root = unpacked("rabbitmq", "rabbitmq-server") / "usr" / "lib"
    binaries = next((root / "erlang").glob("erts-*/bin"))
    libraries = ":".join(str(path) for path in sorted(root.glob("*-linux-gnu")))
    # Debian's own script knows but the folder that it is installed in.
    script = folder / "erl"
    script.write_text(
        f"#!/bin/sh\nexport EMU=beam PROGNAME=erl ROOTDIR='{root / 'erlang'}' BINDIR='{binaries}'\n"
        f"export LD_LIBRARY_PATH='{libraries}'\nexec '{binaries / 'erlexec'}' \"$@\"\n"
    )
    script.chmod(0o755)
    server = next((root / "rabbitmq" / "lib").glob("rabbitmq_server-*")) / "sbin" / "rabbitmq-server"
    return str(server), str(binaries / "epmd"), f"{folder}:{os.environ['PATH']}"
