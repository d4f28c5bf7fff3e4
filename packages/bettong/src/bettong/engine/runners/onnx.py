"""An ONNX step, run by onnxruntime in the replica itself."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa

from bettong.domain.deployments import ObservedWorker, State
from bettong.domain.schema import decode_schema_text
from bettong.domain.tensors import ELEMENTS, read_graph
from bettong.engine.arrow_lists import is_list
from bettong.engine.cost import CostModel
from bettong.engine.faults import Fault
from bettong.engine.runners.bound_row import BoundRow
from bettong.engine.sessions import CPU
from bettong.engine.tensor_arrays import from_tensor, to_tensor
from bettong.errors import BadInput, ModelFailed, Unavailable

if TYPE_CHECKING:
    from collections.abc import Sequence

    import onnxruntime

    from bettong.domain.deployments import ModelSpec
    from bettong.domain.tensors import Graph
    from bettong.engine.sessions import Sessions

    NDArray = np.ndarray[Any, np.dtype[Any]]

INLINE_NS = 5_000_000  # what is expected to take longer runs beside the event loop
# A row that took so long by the wall's clock may have waited for the processor: the next is measured in CPU time, which
# takes a call of the system (1.2 µs for a row of 6)
DOUBTED_NS = INLINE_NS // 4
FREE_SIZE = 8  # what dynamic dimensions of a made-up row are given
HOLDS = "no sandbox of its own: it runs in the replica"

log = logging.getLogger("bettong.engine")


class OnnxRunner:
    """Implements `runners.base.Runner`.

    Fields of the model's schemas stand in the order of the graph's inputs and outputs, whatever they are called.
    """

    def __init__(self, model: ModelSpec, sessions: Sessions) -> None:
        """Raises BadInput when a schema of the model is none."""
        self._model, self._sessions = model, sessions
        self._input, self._output = decode_schema_text(model.input_schema), decode_schema_text(model.output_schema)
        self._session: onnxruntime.InferenceSession | None = None
        self._state, self._provider = State.PENDING, "none yet"
        self._cost = CostModel()
        self._clock = time.thread_time_ns  # other than the wall's, it does not count what others do on the machine
        self._doubted = False  # whether the last row took long
        self._beside: set[Any] = set()  # the options of the runs that threads are at
        self._bound: BoundRow | None = None  # what small rows of fixed shapes go through

    @property
    def input_schema(self) -> pa.Schema:
        return self._input

    @property
    def output_schema(self) -> pa.Schema:
        return self._output

    async def start(self) -> None:
        try:
            session = await self._sessions.of(self._model)
        except Exception as failed:  # onnxruntime has a dozen kinds without a common one
            self._state = State.FAILED
            raise ModelFailed(f"Model '{self._model.name}' does not load: {_words(failed)}") from failed
        try:
            self._graph = graph_of(session)
            self._check_schemas()
        except (BadInput, ValueError) as wrong:
            self._state = State.FAILED
            raise ModelFailed(f"Model '{self._model.name}' does not fit its config: {wrong}") from wrong
        self._dtypes = [np.dtype(ELEMENTS[t.element].to_pandas_dtype()) for t in self._graph.inputs]
        self._names = [t.name for t in self._graph.outputs]
        self._chunk = 1 if self._model.row_by_row else self._graph.batch
        self._provider = session.get_providers()[0]
        if self._provider != CPU:
            self._clock = time.perf_counter_ns  # a thread that waits for a device uses no CPU, and blocks all the same
        self._row_plan = self._plan_for_rows()
        self._row_shapes = [(1, -1) if is_list(field.type) else (-1,) for field in self._output]
        self._session = session
        await self._warm_up()
        self._state = State.RUNNING

    async def predict(self, rows: pa.Table) -> pa.Table:
        if (prompt := self.predict_now(rows)) is not None:
            return prompt
        options = _run_options()
        loop = asyncio.get_running_loop()
        self._beside.add(options)
        try:
            answer, took_ns = await loop.run_in_executor(self._sessions.pool, self._timed, self._session, rows, options)
        except asyncio.CancelledError:
            options.terminate = True  # nobody waits for it any more
            raise
        finally:
            self._beside.discard(options)
        self._cost.took(rows.nbytes, took_ns)
        return answer

    def predict_now(self, rows: pa.Table) -> pa.Table | None:
        """Implements `runners.base.Prompt`."""
        if self._session is None:
            raise Unavailable(f"Model '{self._model.name}' was stopped or is not loaded.", "Deploy its pipeline again.")
        if rows.num_rows == 0:
            return self._output.empty_table()
        if self._chunk is not None and rows.num_rows % self._chunk:
            raise BadInput(
                f"Model '{self._model.name}' takes {self._chunk} rows at a time, and the request has {rows.num_rows}.",
                f"Send a multiple of {self._chunk} rows, or save the model with a dynamic first dimension.",
            )
        size = rows.nbytes
        if self._cost.expected_ns(size) > INLINE_NS:
            return None
        answer, took_ns = self._timed(self._session, rows, _run_options())
        self._cost.took(size, took_ns)
        return answer

    def predict_row(self, inputs: Sequence[NDArray]) -> list[NDArray] | None:
        """Implements `runners.base.PromptRow` where shapes and types agree and nothing is to be looked for."""
        session, size = self._session, 0
        for array in inputs:
            size += array.nbytes
        if session is None or (plan := self._row_plan) is None or self._cost.expected_ns(size) > INLINE_NS:
            return None
        for array, (_, dtype, length, _) in zip(inputs, plan, strict=True):
            if array.dtype != dtype or (length is not None and array.size != length):
                return None
        doubted = self._doubted
        began = self._clocks() if doubted else (time.perf_counter_ns(), 0)
        outputs = self._run_row(session, plan, inputs)
        took = self._took_ns(began) if doubted else time.perf_counter_ns() - began[0]
        self._doubted = took > DOUBTED_NS
        if doubted or not self._doubted:
            self._cost.took(size, took)
        return outputs

    async def close(self) -> None:
        self._session, self._bound, self._state = None, None, State.FAILED
        for options in self._beside:
            options.terminate = True

    def observed(self) -> ObservedWorker:
        return ObservedWorker(self._model.uid, os.getpid(), self._state, sandbox=HOLDS, provider=self._provider)

    def _plan_for_rows(self) -> list[_RowInput] | None:
        """How one row goes into each input; None when rows take the general way."""
        plan: list[_RowInput] = []
        for tensor, dtype, field in zip(self._graph.inputs, self._dtypes, self._input, strict=True):
            known = tuple(dim for dim in tensor.dims if dim is not None)
            if tensor.dims == (None,) and is_list(field.type):
                plan.append(_RowInput(tensor.name, dtype, None, None))
            elif len(known) == len(tensor.dims):
                dims = (1, *known) if len(known) != is_list(field.type) else None
                plan.append(_RowInput(tensor.name, dtype, prod(known), dims))
            else:
                return None
        return plan if self._chunk in (None, 1) else None

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _check_schemas(self) -> None:
        for which, schema, tensors in (
            ("input", self._input, self._graph.inputs),
            ("output", self._output, self._graph.outputs),
        ):
            if len(schema) != len(tensors):
                raise BadInput(
                    f"Its {which} schema has {len(schema)} fields, its graph {len(tensors)} {which}s.",
                    "Configure the version again.",
                )

    async def _warm_up(self) -> None:
        """Made-up runs: the first one allocates, the second one's time is the first guess of what a row costs.

        Its failure says nothing: made-up rows may not suit the model.
        """
        assert self._session is not None
        count = self._chunk or 1
        feeds = {
            t.name: np.full((count, *(d or FREE_SIZE for d in t.dims)), "" if t.element == "string" else 0, dtype)
            for t, dtype in zip(self._graph.inputs, self._dtypes, strict=True)
        }
        size = sum(values.nbytes for values in feeds.values())
        session, names = self._session, self._names

        def run() -> tuple[int, BoundRow | None]:
            session.run(names, feeds)
            began = self._clocks()
            outputs = session.run(names, feeds)
            took_ns = self._took_ns(began)
            return took_ns, self._bound_row(session, feeds, outputs) if took_ns <= INLINE_NS else None

        try:
            took_ns, self._bound = await asyncio.get_running_loop().run_in_executor(self._sessions.pool, run)
        except Exception as failed:  # a made-up row may not suit the model; a request that does not is answered so
            log.info("warm_up_failed model=%s error=%s", self._model.uid, type(failed).__name__)
            return
        self._cost.took(size, took_ns)

    def _bound_row(
        self, session: onnxruntime.InferenceSession, feeds: dict[str, NDArray], outputs: list[NDArray]
    ) -> BoundRow | None:
        """A binding for rows like this one; None when others may have other shapes, or when it cannot be made."""
        if self._provider != CPU or self._row_plan is None or any(entry.length is None for entry in self._row_plan):
            return None
        shapes = [(1, *tensor.dims) for tensor in self._graph.outputs]  # with a None in it, it equals none that is seen
        if shapes != [np.shape(values) for values in outputs]:
            return None
        try:
            return BoundRow(session, feeds, dict(zip(self._names, outputs, strict=True)), self._row_shapes)
        except Exception as failed:  # as above: no common kind
            log.debug("row_not_bound model=%s error=%s", self._model.uid, _words(failed))
            return None

    def _run_row(
        self, session: onnxruntime.InferenceSession, plan: list[_RowInput], inputs: Sequence[NDArray]
    ) -> list[NDArray]:
        """The outputs of one row in the shapes of their fields. Raises ModelFailed."""
        if (bound := self._bound) is not None:
            try:
                return bound.run(inputs)
            except Exception as failed:  # the row's fault, unless it has an answer
                words = _words(failed)
        feeds = {
            name: array if dims is None else array.reshape(dims)
            for array, (name, _, _, dims) in zip(inputs, plan, strict=True)
        }
        outputs = self._run(session, feeds, 1, None)
        if bound is not None:
            log.debug("row_not_bound model=%s error=%s", self._model.uid, words)
            self._bound = None
        return [values.reshape(shape) for values, shape in zip(outputs, self._row_shapes, strict=True)]

    def _timed(self, session: onnxruntime.InferenceSession, rows: pa.Table, options: Any) -> tuple[pa.Table, int]:
        began = self._clocks()
        answer = self._compute(session, rows, options)
        return answer, self._took_ns(began)

    def _clocks(self) -> tuple[int, int]:
        return time.perf_counter_ns(), self._clock()

    def _took_ns(self, began: tuple[int, int]) -> int:
        """CPU time since `_clocks`, which the wall's bounds: the clock of CPU time may tick in 10 ms."""
        return min(time.perf_counter_ns() - began[0], self._clock() - began[1])

    def _compute(self, session: onnxruntime.InferenceSession, rows: pa.Table, options: Any) -> pa.Table:
        feeds = {}
        for tensor, dtype, field, column in zip(
            self._graph.inputs, self._dtypes, self._input, rows.columns, strict=True
        ):
            try:
                whole = column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
                feeds[tensor.name] = to_tensor(whole, tensor.dims, dtype)
            except Fault as fault:
                raise fault.as_bad_input(field.name) from None
        count = rows.num_rows
        if self._chunk is None or self._chunk == count:
            outputs = self._run(session, feeds, count, options)
        else:
            parts = [
                self._run(session, {k: v[at : at + self._chunk] for k, v in feeds.items()}, self._chunk, options)
                for at in range(0, count, self._chunk)
            ]
            outputs = self._joined(parts)
        arrays = []
        for field, values in zip(self._output, outputs, strict=True):
            try:
                arrays.append(from_tensor(values, field.type))
            except ValueError as wrong:
                raise self._failed(f"its output '{field.name}' is not what its schema says: {wrong}") from wrong
        return pa.Table.from_arrays(arrays, schema=self._output)

    def _run(
        self, session: onnxruntime.InferenceSession, feeds: dict[str, NDArray], count: int, options: Any
    ) -> list[NDArray]:
        try:
            outputs: list[NDArray] = session.run(self._names, feeds, options)
        except Exception as failed:  # as above: no common kind
            raise self._failed(_words(failed)) from failed
        for name, values in zip(self._names, outputs, strict=True):
            if not isinstance(values, np.ndarray) or values.ndim == 0 or values.shape[0] != count:
                raise self._failed(f"its output '{name}' has the shape {list(np.shape(values))} for {count} rows")
        return outputs

    def _joined(self, parts: list[list[NDArray]]) -> list[NDArray]:
        try:
            return [np.concatenate(values) for values in zip(*parts, strict=True)]
        except ValueError as wrong:
            raise self._failed("its outputs have another shape in each run of a request") from wrong

    def _failed(self, words: str) -> ModelFailed:
        return ModelFailed(
            f"Model '{self._model.name}' failed: {words}", "Look at the request's values and at the model's graph."
        )


class _RowInput(NamedTuple):
    """A tensor's name and type, how many values a row must have (None: any number), and the shape that they are given
    (None: they have it)."""

    name: str
    dtype: np.dtype[Any]
    length: int | None
    dims: tuple[int, ...] | None


def _run_options() -> onnxruntime.RunOptions:
    import onnxruntime  # there since the session is

    return onnxruntime.RunOptions()


def graph_of(session: onnxruntime.InferenceSession) -> Graph:
    """What a loaded session takes and gives. Raises BadInput and ValueError as `read_graph`."""
    return read_graph(
        {
            "inputs": [{"name": i.name, "type": i.type, "shape": _shape(i.shape)} for i in session.get_inputs()],
            "outputs": [
                {"name": o.name, "type": o.type, "shape": _shape(o.shape) or [None]} for o in session.get_outputs()
            ],  # a shape that the file does not tell was found by packaging, and stands in the config's schema
        }
    )


def _shape(shape: list[Any]) -> list[int | None]:
    return [d if isinstance(d, int) and d >= 0 else None for d in shape]


def _words(failed: Exception) -> str:
    """onnxruntime's own words, on one line, without its error code."""
    text = " ".join(str(failed).split())
    if text.startswith("[ONNXRuntimeError]"):
        text = text.split(" : ", 3)[-1]
    return text if len(text) <= 400 else text[:399] + "…"
