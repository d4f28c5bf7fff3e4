"""What a driver can do for a connection, and what is said of it: values and Protocols, no I/O.

A driver knows one family of data sources. Details reach it in clear only inside the process that does the work; what it
gives back are Arrow batches and words of ours, never a library's own text.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    import pyarrow as pa
    from pydantic import BaseModel


class Capability(StrEnum):
    """What a connection of a type can be asked for."""

    TEST = "test"
    BROWSE = "browse"
    READ = "read"
    WRITE = "write"
    UPSERT = "upsert"
    TRANSACTION = "transaction"  # a batch and its checkpoint are kept together or not at all
    CONSUME = "consume"
    PRODUCE = "produce"


class ReadOrder(StrEnum):
    """In which order a source gives its rows: what decides whether reading can go on where it stopped."""

    NONE = "none"  # any
    STABLE = "stable"  # always the same, as long as nobody changes what is read
    KEYS = "keys"  # that of `ReadRequest.order_by`


class Stage(StrEnum):
    """The layers of a test, in their order. One that does not apply to a driver is skipped."""

    DETAILS = "details"
    SECRET = "secret"
    DNS = "dns"
    TCP = "tcp"
    TLS = "tls"
    LOGIN = "login"
    PERMISSION = "permission"
    SAMPLE = "sample"


class WriteMode(StrEnum):
    APPEND = "append"
    REPLACE = "replace"  # all or nothing where the sink has transactions
    UPSERT = "upsert"


@dataclass(frozen=True, slots=True)
class StageResult:
    """One layer of a test: `ok` is None when it was not reached or does not apply. `said` never holds a secret.
    One that holds and has a `next_step` all the same says something that is worth a look."""

    stage: Stage
    ok: bool | None
    took_ms: float = 0.0
    said: str = ""
    next_step: str = ""


@dataclass(frozen=True, slots=True)
class TestReport:
    """Every layer down to the first that failed. The connection works when none did."""

    __test__ = False  # pytest: not a test class

    stages: tuple[StageResult, ...]

    @property
    def ok(self) -> bool:
        return all(stage.ok is not False for stage in self.stages)


@dataclass(frozen=True, slots=True)
class DriverInfo:
    """What is told of a driver: its type names, what it can do, and the JSON schema of its details."""

    types: tuple[str, ...]
    title: str
    capabilities: frozenset[Capability]
    details_schema: Mapping[str, Any]
    secret_fields: tuple[str, ...]
    extra: str  # what to install, as in `pip install "bettong[postgres]"`; "" when it needs nothing more
    installed: bool
    rebinding_safe: bool = True  # whether the address that was checked is the one that is connected to
    read_order: ReadOrder = ReadOrder.NONE


@dataclass(frozen=True, slots=True)
class Egress:
    """Which addresses and folders drivers may reach. Empty `allow` means any address that `deny` does not name.

    Networks are CIDR texts. `folders` are the roots below which FILE, SQLITE and DUCKDB paths may lie; `forbidden` lie
    inside them and stay out of reach (the platform's own home).
    """

    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    folders: tuple[str, ...] = ()
    forbidden: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """`query` is SQL, a table name, a path or glob, a topic: what the driver's page says; "" means what the details
    name. `parameters` are bound, never formatted in. `limit` counts rows; None means all.

    A source whose order is KEYS gives the rows in the order of the columns `order_by`, and with `after` only those
    behind these values of them, and those with a null among them, which are behind and before nothing. It takes texts
    for the same only if their bytes are. Other sources ignore both; only who opened a source itself asks for it.
    """

    query: str = ""
    parameters: tuple[Any, ...] = ()
    batch_rows: int = 65_536
    limit: int | None = None
    order_by: tuple[str, ...] = ()
    after: tuple[Any, ...] | None = None


@dataclass(frozen=True, slots=True)
class WriteRequest:
    table: str
    mode: WriteMode = WriteMode.APPEND
    keys: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class WriteResult:
    rows: int


@dataclass(frozen=True, slots=True)
class Entry:
    """One thing that browsing shows: `kind` is schema, table, view, file, folder, topic, …"""

    name: str
    kind: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of a stream. `position` says where it stands, in words of the driver, such as "topic/2@417".

    With `new` its broker says that nobody was given it before: what is known of its position is about another one.
    With `unsure` it says that somebody was, and nobody can tell whether they dealt with it: it may be done twice.
    """

    value: bytes
    key: bytes | None = None
    position: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)
    new: bool = field(default=False, compare=False)
    unsure: bool = field(default=False, compare=False)


class Driver(Protocol):
    """One family of data sources. Found by the entry point group `bettong.drivers`; made without arguments."""

    types: ClassVar[tuple[str, ...]]  # upper case; the first one names the driver
    title: ClassVar[str]
    extra: ClassVar[str]
    needs: ClassVar[tuple[str, ...]]  # modules that must be installed; imported only by an open source
    rebinding_safe: ClassVar[bool]
    details: ClassVar[type[BaseModel]]  # secret fields are pydantic's SecretStr; unknown keys are ignored
    source: ClassVar[type[Any]]  # what `open` gives; its methods tell the capabilities before anything is opened

    def open(self, details: Any, egress: Egress, timeout_s: float) -> AbstractContextManager[Source]:
        """Connect. `details` is an instance of `self.details`.

        Raises:
            BadInput: the details do not fit together, or name what `egress` forbids.
            Unavailable: the source does not answer; which layer failed is said.
        """

    def test(self, details: Any, egress: Egress, timeout_s: float) -> Iterator[StageResult]:
        """The layers from DNS on, each as it is known; ends after the first that fails."""


class Source(Protocol):
    """An open connection. What it can do beyond is told by the Protocols below: a capability is a type."""


@runtime_checkable
class Readable(Protocol):
    """`read_order`, a ClassVar of the source, says in which order rows come; without it, in any."""

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        """Stream rows, one batch in memory at a time. After an error the source can only be closed."""


@runtime_checkable
class Browsable(Protocol):
    def browse(self, path: str) -> list[Entry]:
        """What lies under `path`; "" is the top."""


@runtime_checkable
class Writable(Protocol):
    modes: ClassVar[frozenset[WriteMode]]

    def write(self, request: WriteRequest, rows: pa.RecordBatchReader) -> WriteResult:
        """Write every batch. With a transactional source all of them are kept, or none."""


@runtime_checkable
class Transactional(Writable, Protocol):
    """A sink that keeps a batch together with the checkpoint of the job that writes it."""

    def position(self, job_id: str) -> str | None:
        """The checkpoint that the last kept batch of this job carried; None when it kept none."""

    def write_batch(self, request: WriteRequest, batch: pa.RecordBatch, job_id: str, position: str) -> None:
        """Keep the rows and the checkpoint in one transaction. `mode` REPLACE empties the table at the first batch.

        Raises:
            Unavailable: someone else has kept a checkpoint of this job since this source saw it last; nothing is kept.
        """


@runtime_checkable
class Consumable(Protocol):
    def consume(self, topic: str, group: str, *, max_messages: int, wait_s: float) -> Sequence[Message]:
        """The next messages of a consumer group, at least none after `wait_s`. They count as read once `commit`
        returned; a group that is joined again without it gets them again."""

    def commit(self, messages: Iterable[Message]) -> None: ...


@runtime_checkable
class Measurable(Consumable, Protocol):
    """A broker that can tell how far behind a group is. `drivers.streams.StreamSource` is one that cannot."""

    def lag(self, topic: str, group: str) -> int | None:
        """How many messages of the topic the group has not committed, those in hand among them; None where the broker
        cannot tell. Of a group that nobody has used: how many it would get. Changes nothing, and makes no group.

        Costs a question to the broker: ask now and then, not for each message.

        Raises:
            NotFound: the topic is not there.
            Unavailable: the broker does not answer.
        """


@runtime_checkable
class Producible(Protocol):
    def produce(self, topic: str, messages: Sequence[Message]) -> None:
        """The broker has them, as safely as it promises, when this returns."""


class DriverCalls(Protocol):
    """The port that services use: each call runs in a process of its own under a deadline of ours.

    `details` are the connection's, references still in them: they are resolved behind this port. Raises BadInput for a
    type without a driver, details that do not fit, or a capability that the driver lacks, naming what there is;
    Unavailable when the source or a layer on the way to it does not answer in time.
    """

    def info(self, kind: str) -> DriverInfo | None:
        """None for a type that is stored only."""

    def all(self) -> list[DriverInfo]: ...
    def upgraded(self, kind: str, details: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
        """Details in the form that the type's driver takes now, and in words each step from an earlier one; as they
        are where there is no driver."""

    def test(self, kind: str, details: Mapping[str, Any], timeout_s: float) -> TestReport: ...
    def browse(self, kind: str, details: Mapping[str, Any], path: str, timeout_s: float) -> list[Entry]: ...
    def read(
        self, kind: str, details: Mapping[str, Any], request: ReadRequest, timeout_s: float
    ) -> AbstractContextManager[pa.RecordBatchReader]:
        """`timeout_s` bounds the time to each batch. Leaving the context ends the process, read to the end or not."""

    def write(
        self,
        kind: str,
        details: Mapping[str, Any],
        request: WriteRequest,
        rows: pa.RecordBatchReader,
        timeout_s: float,
    ) -> WriteResult: ...
