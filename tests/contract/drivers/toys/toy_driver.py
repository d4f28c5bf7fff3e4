"""Drivers of nobody's that do what drivers should not."""

from __future__ import annotations

import ctypes
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar

import pyarrow as pa
from pydantic import BaseModel, SecretStr

from bettong.domain.drivers import ReadRequest, Stage, StageResult, WriteMode, WriteRequest, WriteResult
from bettong.errors import BadInput

if TYPE_CHECKING:
    from collections.abc import Iterator


class ToyDetails(BaseModel):
    do: str = ""
    password: SecretStr = SecretStr("")
    batches: int = 1


class ToySource:
    def __init__(self, details: ToyDetails) -> None:
        self.details = details

    def read(self, request: ReadRequest) -> pa.RecordBatchReader:
        match self.details.do:
            case "hang":
                threading.Event().wait()
            case "crash":
                ctypes.string_at(0)
            case "raise":
                raise KeyError(self.details.password.get_secret_value())
            case "slip":
                raise BadInput(f"The password {self.details.password.get_secret_value()} is wrong.")
            case "print":
                print("out", flush=True)
            case "parameters":
                seen = [repr(value) for value in request.parameters]
                return pa.table({"seen": seen}).to_reader()
        return pa.RecordBatchReader.from_batches(pa.schema({"n": pa.int64()}), self._batches())

    def _batches(self) -> Iterator[pa.RecordBatch]:
        yield pa.record_batch({"n": [1, 2, 3]})
        if self.details.do == "break":
            raise BadInput("the third batch is bad")
        if self.details.do == "flood":
            for _ in range(self.details.batches):
                yield pa.record_batch({"n": pa.array(range(2**20), pa.int64())})


class ToyDriver:
    types: ClassVar[tuple[str, ...]] = ("TOY",)
    title: ClassVar[str] = "A toy"
    extra: ClassVar[str] = ""
    needs: ClassVar[tuple[str, ...]] = ()
    rebinding_safe: ClassVar[bool] = False
    details: ClassVar[type[ToyDetails]] = ToyDetails
    source: ClassVar[type[Any]] = ToySource

    @contextmanager
    def open(self, details: ToyDetails, egress: object, timeout_s: float) -> Iterator[Any]:
        yield self.source(details)

    def test(self, details: ToyDetails, egress: object, timeout_s: float) -> Iterator[StageResult]:
        yield StageResult(Stage.DNS, True, said="one address")
        yield StageResult(Stage.TCP, True, said="open")
        threading.Event().wait()


class SinkSource:
    modes: ClassVar[frozenset[WriteMode]] = frozenset({WriteMode.APPEND})

    def __init__(self, details: ToyDetails) -> None:
        """Needs nothing."""

    def write(self, request: WriteRequest, rows: pa.RecordBatchReader) -> WriteResult:
        for _ in range(3):
            rows.read_next_batch()
        raise BadInput("took 3 batches and is full")


class SinkDriver(ToyDriver):
    types = ("SINK",)
    source = SinkSource
