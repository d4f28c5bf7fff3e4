"""What an operator can set. Read from the environment in `compose.py` alone, then passed down."""

from __future__ import annotations

import hashlib
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

MAX_SOCKET_PATH_BYTES = 100  # sun_path holds 108 on Linux and 104 on macOS, its closing zero included


JOB_DAYS = 30
JOB_BYTES = 10 * 2**30


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds on what one request may cost. A request beyond one gets a 4xx that names the limit."""

    max_body_bytes: int = 128 * 2**20
    max_upload_bytes: int = 4 * 2**30
    max_unpacked_bytes: int = 16 * 2**30
    head_timeout_s: float = 10.0
    body_idle_timeout_s: float = 20.0  # no byte of a body for this long ends the connection
    keep_alive_timeout_s: float = 75.0
    request_timeout_s: float = 60.0  # from the full body to the answer
    max_queued_requests: int = 1024


@dataclass(frozen=True, slots=True)
class LogRules:
    """How much of each inference is logged, and for how long."""

    bytes_per_topic: int = 10 * 2**30  # the oldest rows go first
    days: int = 0  # 0 = for as long as there is room
    max_row_bytes: int = 2**20  # an input column that takes more per row stays out
    sql_timeout_s: int = 30
    sql_memory_bytes: int = 2**30
    on_full: str = "stop"  # no answer without its row; "continue" = answers go on, missing rows are counted


@dataclass(frozen=True, slots=True)
class DriverRules:
    """What connections may reach, and which secrets of this machine their details may name.

    `file_folders` None means: the home folder of the user who runs the platform, where it listens on loopback alone,
    and no folder elsewhere. The platform's own home is out of reach whatever stands here.
    """

    egress_allow: tuple[str, ...] = ()  # networks; () = any that `egress_deny` does not name
    egress_deny: tuple[str, ...] = ()
    file_folders: tuple[str, ...] | None = None
    secret_env: tuple[str, ...] = ()  # names of variables, or prefixes that end in *
    secret_folders: tuple[str, ...] = ()
    vault_addr: str = ""
    vault_token_file: str = ""
    aws_secrets: tuple[str, ...] = ()  # names, or prefixes that end in *
    environment: str = ""  # what {environment} in references stands for


@dataclass(frozen=True, slots=True)
class Settings:
    """Where the platform lives and how it listens.

    `home` holds everything: database, keys, artifacts, environments, logs. It is the only folder that a backup needs.
    """

    home: Path
    host: str = "127.0.0.1"
    port: int = 0  # 0 = the port of the last run if it is free, else any
    database_url: str = ""  # "" = SQLite in `home`
    artifacts_url: str = ""  # "" = a folder in `home`; else any fsspec URL
    keys: tuple[str, ...] = field(default=(), repr=False)  # from BETTONG_KEYS; () = key files in `home`
    allowed_hosts: tuple[str, ...] = ()  # Host headers taken besides loopback and `host`
    pythons: tuple[str, ...] = ()  # interpreters for model environments besides the discovered ones
    log: LogRules = field(default_factory=LogRules)
    drivers: DriverRules = field(default_factory=DriverRules)
    limits: Limits = field(default_factory=Limits)
    job_days: int = JOB_DAYS  # how long a job that has ended is kept; 0 = for good
    job_bytes: int = JOB_BYTES  # of what all jobs leave in their folders; 0 = as many as the disk takes

    @property
    def database(self) -> str:
        """The database URL in force."""
        return self.database_url or f"sqlite:///{self.home / 'bettong.db'}"

    @property
    def run_folder(self) -> Path:
        """Where Unix sockets live: in `home` if its path is short enough, else in a private temporary folder."""
        inside = self.home / "run"
        if len(os.fsencode(str(inside))) + 40 <= MAX_SOCKET_PATH_BYTES:
            return inside
        digest = hashlib.sha256(os.fsencode(str(self.home))).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"bettong-{os.getuid()}-{digest}"
