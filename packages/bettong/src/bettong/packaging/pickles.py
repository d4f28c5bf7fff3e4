"""What a pickle says about itself, read without unpickling: nothing of it is imported, called or built.

A pickle is a program for a small stack machine. This one runs it with stand-ins: a global stays its name, a call and
an object stay notes of what they were made from. joblib's files are pickles whose numpy arrays lie raw in between, and
they may be compressed as a whole; both are seen through. Reading stops, with what was found until then, at the end of
a damaged file and beyond `MAX_OPERATIONS`: libraries write their version within the first object.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import pickletools
import re
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, BinaryIO

from bettong.errors import BadInput

if TYPE_CHECKING:
    from pathlib import Path

MAX_OPERATIONS = 500_000  # a second or two
MAX_UNPACKED_BYTES = 64 * 2**20  # of a compressed file; beyond it reading stops
MAX_WORD = 200
MAX_DEPTH = 20  # of pickles within joblib's files
NOT_READ = (
    EOFError, ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, MemoryError, struct.error,
    UnicodeDecodeError, RecursionError, zlib.error, lzma.LZMAError, OSError,
)  # fmt: skip

_PLAIN = re.compile(rb"\x80[\x02-\x05]|[(\]}c\]]|ccopy_reg|cnumpy")
_DTYPE = re.compile(r"[<>|=]?([biufcSUVmM])(\d+)")


@dataclass(slots=True)
class PickleFacts:
    """`modules` are those that unpickling imports, `names` what it takes from them as 'module.name'; `versions` what
    estimators of scikit-learn say they were written with; `words` every text that is a key or value in it; `blobs`
    the byte strings in which a library says its version. `complete` is false when reading stopped before the end."""

    modules: set[str] = field(default_factory=set)
    names: set[str] = field(default_factory=set)
    versions: list[str] = field(default_factory=list)
    words: set[str] = field(default_factory=set)
    blobs: list[bytes] = field(default_factory=list)
    made: str = ""  # what the whole pickle is, as 'module.name', when that can be told
    complete: bool = False
    operations: int = 0

    @property
    def packages(self) -> set[str]:
        """The top-level packages that unpickling imports."""
        return {module.partition(".")[0] for module in self.modules}


def looks_like_pickle(head: bytes) -> bool:
    """Whether a file that begins so may be a pickle, plain or as joblib writes it."""
    return bool(_PLAIN.match(head)) or _unpacker(head) is not None


def read_pickle(path: Path) -> PickleFacts:
    """Raises BadInput when the file is no pickle at all."""
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if not looks_like_pickle(head):
            raise BadInput(
                f"{path.name} is not a pickle.", "Write the model with pickle.dump, joblib.dump or cloudpickle.dump."
            )
        try:
            plain = _plain(file, head)
        except NOT_READ:
            plain = io.BytesIO()
        facts = facts_of(plain)
    if not facts.names and not facts.complete:
        raise BadInput(
            f"{path.name} is not a pickle, or a damaged one.",
            "Write the model with pickle.dump, joblib.dump or cloudpickle.dump, and upload that file.",
        )
    return facts


def facts_of(file: BinaryIO) -> PickleFacts:
    """What the pickle that begins here says; `file` stands behind it afterwards, if its end was reached."""
    facts = PickleFacts()
    try:
        facts.complete = _Machine(file, facts).run()
    except NOT_READ:
        facts.complete = False
    return facts


# --- compressed files -----------------------------------------------------------------------------------------------


def _unpacker(head: bytes) -> Any:
    if head[:1] == b"\x78" and len(head) > 1 and int.from_bytes(head[:2], "big") % 31 == 0:
        return lambda file: _Zlib(file)
    for magic, opener in ((b"\x1f\x8b", gzip.open), (b"BZ", bz2.open), (b"\xfd7zXZ", lzma.open), (b"]\x00", lzma.open)):
        if head.startswith(magic):
            return opener
    return None


def _plain(file: BinaryIO, head: bytes) -> BinaryIO:
    unpacker = _unpacker(head)
    if unpacker is None or _PLAIN.match(head):
        return file
    with unpacker(file) as unpacked:
        return io.BytesIO(unpacked.read(MAX_UNPACKED_BYTES))


class _Zlib:
    """The one thing of a file that is asked here."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def __enter__(self) -> _Zlib:
        return self

    def __exit__(self, *_: object) -> None: ...

    def read(self, size: int) -> bytes:
        return zlib.decompressobj().decompress(self._file.read(), size)


# --- the stack machine ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Global:
    name: str


@dataclass(slots=True, eq=False)
class _Object:
    """What a call or a class made; `made_by` is its name, `arguments` what it was given."""

    made_by: str
    arguments: Any = ()
    state: Any = None


class _Mark: ...


_MARK = _Mark()
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
_TEXTS = {
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8",
}  # fmt: skip
_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}


class _Machine:
    def __init__(self, file: BinaryIO, facts: PickleFacts, depth: int = 0) -> None:
        self._file, self._facts, self._depth = file, facts, depth
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> bool:
        """Whether the pickle's end was reached."""
        for opcode, argument, _ in pickletools.genops(self._file):
            self._facts.operations += 1
            if self._facts.operations > MAX_OPERATIONS:
                return False
            if opcode.name == "STOP":
                if self._depth == 0 and self._stack:
                    self._facts.made = _made(self._stack[-1])
                return bool(self._stack)
            self._do(opcode.name, argument)
        return False

    def _do(self, name: str, argument: Any) -> None:
        push = self._stack.append
        if name in _TEXTS:
            if len(argument) < MAX_WORD:
                self._facts.words.add(argument)
            push(argument)
        elif name in _BYTES:
            if b"version" in argument:
                self._facts.blobs.append(bytes(argument))
            push(argument)
        elif name in _NUMBERS:
            push(argument)
        elif name in _CONSTANTS:
            push(_CONSTANTS[name])
        elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
            self._memo[argument] = self._stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = self._stack[-1]
        elif name in ("GET", "BINGET", "LONG_BINGET"):
            push(self._memo[argument])
        elif name == "MARK":
            push(_MARK)
        elif name in _CONTAINERS:
            _CONTAINERS[name](self)
        elif name in ("GLOBAL", "STACK_GLOBAL"):
            self._take(*(argument.split(" ", 1) if name == "GLOBAL" else reversed([self._pop(), self._pop()])))
        elif name in ("REDUCE", "NEWOBJ", "NEWOBJ_EX", "OBJ", "INST"):
            self._make(name, argument)
        elif name == "BUILD":
            self._build()
        elif name == "POP":
            self._pop()
        elif name == "POP_MARK":
            self._since_mark()
        elif name == "DUP":
            push(self._stack[-1])
        elif name in ("PERSID", "BINPERSID", "EXT1", "EXT2", "EXT4", "NEXT_BUFFER"):
            if name == "BINPERSID":
                self._pop()
            push(None)
        elif name not in ("PROTO", "FRAME", "READONLY_BUFFER"):
            raise ValueError(name)

    def _pop(self) -> Any:
        return self._stack.pop()

    def _since_mark(self) -> list[Any]:
        at = len(self._stack) - 1
        while self._stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise ValueError("no mark")
        taken = self._stack[at + 1 :]
        del self._stack[at:]
        return taken

    # containers: only as much of them as is asked later

    def _collect(self, empty: Any) -> None:
        self._stack.append(type(empty)(self._since_mark()))

    def _new(self, empty: Any) -> None:
        self._stack.append(empty)

    def _dict(self) -> None:
        self._stack.append(_pairs(self._since_mark()))

    def _few(self, count: int) -> None:
        taken = self._stack[-count:]
        del self._stack[-count:]
        self._stack.append(tuple(taken))

    def _append(self, many: bool) -> None:
        items = self._since_mark() if many else [self._pop()]
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set(self, many: bool) -> None:
        items = self._since_mark() if many else [self._pop(), self._pop()][::-1]
        pairs = _pairs(items)
        self._note(pairs)
        if isinstance(self._stack[-1], dict):
            self._stack[-1].update(pairs)

    def _drop_items(self) -> None:
        self._since_mark()

    # globals and objects

    def _take(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise ValueError("a global without a name")
        self._facts.modules.add(module)
        self._facts.names.add(f"{module}.{name}")
        self._stack.append(_Global(f"{module}.{name}"))

    def _make(self, name: str, argument: Any) -> None:
        if name == "INST":
            arguments = self._since_mark()
            self._take(*argument.split(" ", 1))
            self._stack.append(_Object(_named(self._pop()), tuple(arguments)))
            return
        if name == "OBJ":
            made_by, *arguments = self._since_mark()
            self._stack.append(_Object(_named(made_by), tuple(arguments)))
            return
        if name == "NEWOBJ_EX":
            self._pop()
        given = self._pop()
        made_by = _named(self._pop())
        if made_by.endswith("._reconstructor") and isinstance(given, tuple) and given:
            made_by = _named(given[0])  # what protocols 0 and 1 make objects with
        self._stack.append(_Object(made_by, given))

    def _build(self) -> None:
        state = self._pop()
        made = self._stack[-1]
        if isinstance(state, dict):
            self._note(state)
        if isinstance(made, _Object):
            made.state = state
            if made.made_by.endswith("numpy_pickle.NumpyArrayWrapper") and isinstance(state, dict):
                self._skip_array(state)

    def _note(self, pairs: dict[Any, Any]) -> None:
        version = pairs.get("_sklearn_version")
        if isinstance(version, str) and version not in self._facts.versions:
            self._facts.versions.append(version)

    def _skip_array(self, state: dict[Any, Any]) -> None:
        """Past the raw array that joblib writes behind its note of it."""
        dtype = state["dtype"]
        code = dtype.arguments[0] if isinstance(dtype, _Object) else ""
        code = code.decode("latin-1") if isinstance(code, bytes) else code
        if code in ("O8", "O4", "O", "|O"):
            if self._depth >= MAX_DEPTH:
                raise ValueError("too deep")
            if not _Machine(self._file, self._facts, self._depth + 1).run():
                raise EOFError
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            self._file.seek(self._file.read(1)[0], io.SEEK_CUR)
        match = _DTYPE.fullmatch(code)
        if match is None:
            raise ValueError("an array of a type that is not known")
        size = int(match[2]) * (4 if match[1] == "U" else 1)
        self._file.seek(math.prod(state["shape"]) * size, io.SEEK_CUR)


def _pairs(items: list[Any]) -> dict[Any, Any]:
    """Items as key and value by turns; keys other than texts and numbers are of no interest."""
    return {k: v for k, v in zip(items[::2], items[1::2], strict=False) if isinstance(k, (str, int))}


def _named(value: Any) -> str:
    return value.name if isinstance(value, _Global) else ""


def _made(value: Any) -> str:
    return value.made_by if isinstance(value, _Object) else type(value).__name__


_CONTAINERS: dict[str, Any] = {
    "EMPTY_LIST": lambda m: m._new([]),
    "EMPTY_TUPLE": lambda m: m._new(()),
    "EMPTY_DICT": lambda m: m._new({}),
    "EMPTY_SET": lambda m: m._new(_Object("builtins.set")),
    "LIST": lambda m: m._collect([]),
    "TUPLE": lambda m: m._collect(()),
    "FROZENSET": lambda m: m._collect(()),
    "DICT": lambda m: m._dict(),
    "TUPLE1": lambda m: m._few(1),
    "TUPLE2": lambda m: m._few(2),
    "TUPLE3": lambda m: m._few(3),
    "APPEND": lambda m: m._append(False),
    "APPENDS": lambda m: m._append(True),
    "ADDITEMS": lambda m: m._drop_items(),
    "SETITEM": lambda m: m._set(False),
    "SETITEMS": lambda m: m._set(True),
}
