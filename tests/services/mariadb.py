"""A private MariaDB: on loopback and a free port, with a user and a database, gone at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pymysql
from services.debian import unpacked
from services.place import run
from services.running import free_port, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from certificates import Certificate

USER, PASSWORD, DATABASE = "bettong", "sehr geheim & lang", "contract"


@dataclass(frozen=True)
class MariaDb:
    port: int

    @property
    def details(self) -> dict[str, object]:
        return {"host": "127.0.0.1", "port": self.port, "user": USER, "password": PASSWORD, "database": DATABASE}

    def execute(self, *statements: str) -> None:
        """As the administrator."""
        with pymysql.connect(host="127.0.0.1", port=self.port, user="root", database=DATABASE) as connection:
            for statement in statements:
                with connection.cursor() as cursor:
                    cursor.execute(statement)
            connection.commit()


@contextmanager
def running_mariadb(certificate: Certificate | None = None) -> Iterator[MariaDb]:
    """A server; with a certificate it speaks TLS, too."""
    root, more = _programs()
    folder = Path(tempfile.mkdtemp(prefix="bettong-mariadb-"))
    try:
        data, port = folder / "data", free_port()
        user = ["--user=root"] if os.geteuid() == 0 else []
        common = ["--no-defaults", f"--basedir={root}", f"--datadir={data}"]
        install = [str(_find(root, "mariadb-install-db")), *common, *user, "--auth-root-authentication-method=normal"]
        run([*install, "--skip-test-db", "--skip-name-resolve"], more)
        command = [
            *(str(_find(root, "mariadbd")), *common, *user, f"--port={port}", "--bind-address=127.0.0.1"),
            *(f"--socket={folder / 'sock'}", f"--pid-file={folder / 'pid'}", "--local-infile=1", "--skip-name-resolve"),
            *("--innodb-flush-log-at-trx-commit=0", "--innodb-buffer-pool-size=64M", "--performance-schema=OFF"),
            f"--lc-messages-dir={root / 'share' / 'mysql'}",
        ]
        if certificate is not None:
            paths = certificate.write(folder)
            command += [f"--ssl-cert={paths[0]}", f"--ssl-key={paths[1]}"]
        with serving(command, port, environment={**os.environ, **more}):
            with pymysql.connect(host="127.0.0.1", port=port, user="root") as connection, connection.cursor() as cursor:
                cursor.execute(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
                cursor.execute(f"CREATE USER {USER}@'127.0.0.1' IDENTIFIED BY %s", (PASSWORD,))
                cursor.execute(f"GRANT ALL ON {DATABASE}.* TO {USER}@'127.0.0.1'")
            yield MariaDb(port)
    finally:
        shutil.rmtree(folder)


def _programs() -> tuple[Path, dict[str, str]]:
    """The folder above bin and sbin, and the variables that its programs need to find their libraries."""
    if installed := shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin"):
        return Path(installed).parents[1], {}
    root = unpacked("mariadb", "mariadb-server-core", "mariadb-client-core") / "usr"
    libraries = [str(path) for path in sorted((root / "lib").iterdir()) if path.is_dir()]
    return root, {"LD_LIBRARY_PATH": ":".join(libraries)}


def _find(root: Path, name: str) -> Path:
    found = next((path for part in ("sbin", "bin", "scripts") if (path := root / part / name).exists()), None)
    if found is None:
        raise RuntimeError(f"There is no {name} below {root}.")
    return found
