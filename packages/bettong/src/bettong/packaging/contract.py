"""Reads the code of a Python step, without running it, for the function that the worker will call (spec 4.10)."""

from __future__ import annotations

import ast
import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bettong.errors import BadInput, TooLarge

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

STEP, PARAMETER = "process_data", "input_data"
SIGNATURE = f"def {STEP}({PARAMETER}: InferenceData) -> InferenceData"
SEVERAL = "Multiple pre/post-processing steps found in the given files."
MAX_CODE_BYTES = 4 * 2**20  # of all root files: a parsed tree takes a hundred times as much memory

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True)
class Found:
    """A function at the top level of a root file."""

    file: str
    function: Function
    module: ast.Module

    def __str__(self) -> str:
        return f"{self.file} line {self.function.lineno}"


def check_python_step(folder: Path) -> str:
    """The root file that holds the step, if there is exactly one and its signature is right.

    Raises:
        BadInput: no .py file at the root, one that does not parse, no `process_data` or several, or another
            signature than one parameter `input_data`, annotated InferenceData and returning InferenceData.
        TooLarge: the root files hold more code than is read.
    """
    files = sorted(p for p in folder.iterdir() if p.suffix == ".py" and p.is_file())
    if not files:
        raise _no_code(folder)
    modules = parse_files({p.name: p for p in files})
    found = [Found(name, f, module) for name, module in modules.items() for f in _top_level(module.body)]
    steps = [f for f in found if f.function.name == STEP]
    if len(steps) > 1:
        raise BadInput(SEVERAL, f"Keep one {STEP}; found: {', '.join(map(str, steps))}.")
    if not steps:
        raise _no_step(found, modules)
    _check_signature(steps[0])
    return steps[0].file


def parse_files(files: Mapping[str, Path]) -> dict[str, ast.Module]:
    """The code of files by the names that people know them by. Raises BadInput, TooLarge."""
    if (size := sum(path.stat().st_size for path in files.values())) > MAX_CODE_BYTES:
        raise TooLarge(
            f"The zip's .py files have {size} bytes, more than {MAX_CODE_BYTES}.",
            "Move data out of the code into files of its own.",
        )
    return {name: _parsed(path) for name, path in files.items()}


def _parsed(path: Path) -> ast.Module:
    try:
        return ast.parse(path.read_bytes(), filename=path.name)
    except SyntaxError as broken:  # an unknown or wrong encoding too
        at = f"{path.name} line {broken.lineno}" if broken.lineno else path.name
        raise BadInput(f"{at} is not Python code: {broken.msg}.", "Correct it, then upload again.") from None
    except (ValueError, RecursionError, MemoryError):
        raise BadInput(f"{path.name} is not Python code that can be read.", "Correct it, then upload again.") from None


def _top_level(body: Sequence[ast.stmt]) -> list[Function]:
    """The functions that a module has once it ran: of the branches of an `if` or `try`, the first that defines any."""
    found: list[Function] = []
    for statement in body:
        if isinstance(statement, Function):
            found.append(statement)
        elif isinstance(statement, ast.If):
            found += _top_level(statement.body) or _top_level(statement.orelse)
        elif isinstance(statement, ast.Try):
            handlers = [s for handler in statement.handlers for s in handler.body]
            found += _top_level(statement.body) or _top_level(handlers) or _top_level(statement.orelse)
        elif isinstance(statement, ast.With):
            found += _top_level(statement.body)
    return found


def _no_code(folder: Path) -> BadInput:
    holders = sorted({p.relative_to(folder).parts[0] for p in folder.rglob("*.py")})
    if holders:
        top = holders[0]
        return BadInput(
            f"The zip has no .py file at its root; its code sits in the folder '{top}/'.",
            f"Zip the files themselves, not their folder: (cd {top} && zip -r ../model.zip .).",
        )
    return BadInput("The zip has no .py file at its root.", f"Put one there that defines: {SIGNATURE}.")


def _no_step(found: list[Found], modules: dict[str, ast.Module]) -> BadInput:
    names = [f.function.name for f in found]
    close = difflib.get_close_matches(STEP, names, n=1, cutoff=0.6)
    looks_right = [f for f in found if [a.arg for a in arguments_of(f.function)] == [PARAMETER]]
    near = next((f for f in found if close and f.function.name == close[0]), looks_right[0] if looks_right else None)
    if near is not None:
        return BadInput(
            f"No function {STEP}; found '{near.function.name}' in {near}; the function must be called {STEP}.",
            "Rename it, then upload again.",
        )
    if elsewhere := next(_elsewhere(modules), None):
        return BadInput(f"No function {STEP} at the top level of a file; {elsewhere}.", f"Define there: {SIGNATURE}.")
    there = f"found only: {', '.join(sorted(set(names))[:8])}" if names else "they define no function"
    return BadInput(f"No function {STEP} in {', '.join(list(modules)[:8])}; {there}.", f"Define: {SIGNATURE}.")


def _elsewhere(modules: dict[str, ast.Module]) -> Iterator[str]:
    """Where the name stands although no top-level function has it."""
    for file, module in modules.items():
        for node in ast.walk(module):
            if isinstance(node, Function) and node.name == STEP:
                yield f"the one in {file} line {node.lineno} is inside a class or another function"
            elif isinstance(node, ast.ImportFrom | ast.Import) and any(
                (a.asname or a.name) == STEP for a in node.names
            ):
                yield f"{file} line {node.lineno} imports it"
            elif isinstance(node, ast.Name) and node.id == STEP and isinstance(node.ctx, ast.Store):
                yield f"{file} line {node.lineno} assigns to it"


def _check_signature(step: Found) -> None:
    function = step.function
    arguments = arguments_of(function)
    names = [a.arg for a in arguments]
    if names != [PARAMETER]:
        raise BadInput(
            f"{STEP} in {step} takes ({', '.join(names)}); expected one parameter, {PARAMETER}.",
            f"Write: {SIGNATURE}.",
        )
    for what, annotation in (
        (f"parameter {PARAMETER}", arguments[0].annotation),
        ("return value", function.returns),
    ):
        if annotation is None:
            raise BadInput(f"The {what} of {STEP} in {step} has no annotation.", f"Write: {SIGNATURE}.")
        if not is_inference_data(annotation, aliases_of(step.module)):
            raise BadInput(
                f"The {what} of {STEP} in {step} is annotated '{ast.unparse(annotation)[:80]}'; "
                "expected InferenceData (Dict[str, np.ndarray]).",
                f"Write: {SIGNATURE}.",
            )


def arguments_of(function: Function) -> list[ast.arg]:
    """Every parameter; those behind stars count too."""
    a = function.args
    stars = [s for s in (a.vararg, a.kwarg) if s is not None]
    return [*a.posonlyargs, *a.args, *a.kwonlyargs, *stars]


def aliases_of(module: ast.Module) -> dict[str, ast.expr]:
    """What names at the top of the module stand for: imports as dotted names, `Name = expression` as it is."""
    aliases: dict[str, ast.expr] = {}
    for node in module.body:
        if isinstance(node, ast.ImportFrom):
            aliases |= {a.asname: ast.Name(a.name) for a in node.names if a.asname}
        elif isinstance(node, ast.Assign) and len(node.targets) == 1 and isinstance(node.targets[0], ast.Name):
            aliases[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            aliases[node.target.id] = node.value
    return aliases


def is_inference_data(annotation: ast.expr, aliases: dict[str, ast.expr], depth: int = 0) -> bool:
    """InferenceData by its name, or written out as a dict of text to numpy arrays."""
    if depth > 5:
        return False
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        try:
            return is_inference_data(ast.parse(annotation.value, mode="eval").body, aliases, depth + 1)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return False
    name = last_name(annotation)
    if isinstance(annotation, ast.Name) and name in aliases:
        return is_inference_data(aliases[name], aliases, depth + 1)
    if isinstance(annotation, ast.Subscript) and isinstance(annotation.slice, ast.Tuple):
        keys = [*annotation.slice.elts, None, None][:2]
        return (
            len(annotation.slice.elts) == 2
            and last_name(annotation.value) in ("Dict", "dict", "Mapping")
            and last_name(keys[0]) == "str"
            and _is_array(keys[1], aliases)
        )
    return name == "InferenceData"


def _is_array(node: ast.expr | None, aliases: dict[str, ast.expr]) -> bool:
    if isinstance(node, ast.Subscript):
        node = node.value
    name = last_name(node)
    return name in ("ndarray", "NDArray") or (name in aliases and last_name(aliases[name]) in ("ndarray", "NDArray"))


def last_name(node: ast.expr | None) -> str:
    if isinstance(node, ast.Name):
        return node.id
    return node.attr if isinstance(node, ast.Attribute) else ""
