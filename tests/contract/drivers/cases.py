"""What the contract suite has to know of each driver: how to reach a source of that kind, and what it cannot keep."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import psutil
import pyarrow as pa

from bettong.domain.drivers import Capability, Egress, ReadRequest, WriteMode, WriteRequest
from bettong.drivers.processes import DriverProcesses
from bettong.drivers.references import ReferencePolicy
from bettong.drivers.registry import Registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from certificates import Authority

    from bettong.domain.drivers import TestReport
    from bettong.drivers.leases import Manager

SECRET = "s3cr€t & long/enough?"  # what no text may show; not a word that stands anywhere else
TIMEOUT_S = 30.0

CORE = ("SQLITE", "DUCKDB", "FILE", "HTTP")
SERVICES = ("POSTGRES", "MARIADB", "S3", "GCS", "AZURE", "BIGQUERY", "SNOWFLAKE")


def with_capability(capability: Capability) -> list[str]:
    """The kinds of the suite whose driver has a capability, as the registry tells it."""
    registry = Registry()
    infos = {kind: registry.info(kind) for kind in (*CORE, *SERVICES)}
    return [kind for kind, info in infos.items() if info is not None and capability in info.capabilities]


@dataclass(frozen=True)
class Case:
    """One source, reached as a person reaches it.

    Attributes:
        at: the query or table that stands for a name of the test's.
        put: make that table, with these rows, where the driver itself cannot write.
        kept_as: the type in which a column of another type comes back.
        null_list: what a list that is null comes back as.
        without: columns of ROUND_TRIP that the part which stands in for a service cannot take.
        odd_names: a table's name and three columns', as odd as they may be.
        mark: how a parameter is written.
        unique_keys: whether upsert needs an index on the keys.
        wrong_login, nowhere: changes to the details that lead to a refused login, and to a host that is not there.
    """

    kind: str
    details: Mapping[str, Any]
    calls: DriverProcesses
    at: Callable[[str], str] = field(default=lambda name: name)
    put: Callable[[str, pa.Table], None] | None = None
    kept_as: Callable[[pa.DataType], pa.DataType] = field(default=lambda kind: kind)
    null_list: Any = None
    without: tuple[str, ...] = ()
    odd_names: tuple[str, ...] = ('"Odd; DROP TABLE x -- `name`"', 'a "b"; --', "select", "ümlaut `x`")
    mark: str = "?"
    unique_keys: bool = True
    wrong_login: Mapping[str, Any] | None = None
    nowhere: Mapping[str, Any] | None = None

    def make(self, rows: pa.Table) -> str:
        """A new table with these rows; what to read it by."""
        name = new_name()
        if self.put is not None:
            self.put(name, rows)
        else:
            self.write(self.at(name), rows)
        return self.at(name)

    def write(self, table: str, rows: pa.Table | pa.RecordBatchReader, mode: Any = "append", *keys: str) -> int:
        reader = rows.to_reader() if isinstance(rows, pa.Table) else rows
        request = WriteRequest(table, WriteMode(mode), keys)
        return self.calls.write(self.kind, self.details, request, reader, TIMEOUT_S).rows

    @contextmanager
    def reading(self, query: str, *parameters: object, **more: Any) -> Iterator[pa.RecordBatchReader]:
        request = ReadRequest(query, parameters, **more)
        with self.calls.read(self.kind, self.details, request, TIMEOUT_S) as reader:
            yield reader

    def read(self, query: str, *parameters: object, **more: Any) -> pa.Table:
        with self.reading(query, *parameters, **more) as reader:
            return reader.read_all()

    def test(self, **changes: Any) -> TestReport:
        return self.calls.test(self.kind, {**self.details, **changes}, TIMEOUT_S)


def new_calls(
    folder: object = None,
    *,
    egress: Egress | None = None,
    registry: Registry | None = None,
    max_at_once: int = 16,
    keep_ready_s: float = 0.0,
    managers: Mapping[str, Manager] | None = None,
    **policy: Any,
) -> DriverProcesses:
    """Processes that may reach every address and this folder. None waits for a next call unless asked to."""
    folders = (str(folder),) if folder else ()
    reach = egress or Egress(folders=folders)
    variables = {"PATH": os.environ["PATH"], "WAREHOUSE_PASSWORD": SECRET, "BETTONG_KEYS": "not for references"}
    return DriverProcesses(
        registry or Registry(),
        reach,
        ReferencePolicy(**policy),
        variables,
        managers or {},
        max_at_once=max_at_once,
        keep_ready_s=keep_ready_s,
    )


def trusting(authority: Authority, folder: Path) -> DriverProcesses:
    """Processes on a machine whose operator trusts this authority of certificates."""
    file = folder / "authority.pem"
    file.write_text(authority.pem)
    variables = {"PATH": os.environ["PATH"], "SSL_CERT_FILE": str(file)}
    return DriverProcesses(Registry(), Egress(), ReferencePolicy(), variables, keep_ready_s=0.0)


def children() -> list[psutil.Process]:
    """The processes of driver calls that this process has, those that wait among them."""
    found = []
    for child in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it has ended, and nobody has asked how
            if "bettong.drivers._child" in child.cmdline():
                found.append(child)
    return found


def new_name() -> str:
    return f"t_{uuid4().hex[:12]}"
