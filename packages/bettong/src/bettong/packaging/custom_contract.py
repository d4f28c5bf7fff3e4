"""Reads the code of a CUSTOM model, without running it, for the two classes that the worker will use (spec 4.11).

What cannot be told from the text alone (a base class that comes from an installed package, a class made by a function)
is left to the worker, which looks again when it loads them.
"""

from __future__ import annotations

import ast
import builtins
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bettong.errors import BadInput
from bettong.packaging.contract import Function, aliases_of, arguments_of, is_inference_data, last_name, parse_files

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

ARTIFACTS = "artifacts"  # a folder that is not searched for code
INFERENCES, BUILDERS = ("Inference", "AsyncInference"), ("InferenceBuilder",)
OPENAI = ("handle_completion", "handle_chat_completion")
INPUT = "input_data"
SIGNATURE = f"def _predict(self, {INPUT}: InferenceData) -> InferenceData"


@dataclass(frozen=True, slots=True)
class Class:
    """A class of the artifact. `bases` are names without their modules, aliases resolved."""

    file: str
    node: ast.ClassDef
    module: ast.Module
    bases: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.node.name

    def __str__(self) -> str:
        return f"{self.name} in {self.file} line {self.node.lineno}"


def check_custom(folder: Path) -> list[str]:
    """What was found, as lines for the upload log; among them warnings.

    Raises:
        BadInput: there is no Python file, one does not parse, or the inference or its builder is not as it has to be.
        TooLarge: the files hold more code than is read.
    """
    files = _code_files(folder)
    if not files:
        raise BadInput(
            "No Python modules found in the zip.",
            "Put .py files at its root that define a subclass of Inference and one of InferenceBuilder.",
        )
    modules = parse_files({p.relative_to(folder).as_posix(): p for p in files})
    classes = [c for file, module in modules.items() for c in _classes(file, module)]
    inference = _one(classes, INFERENCES, "Inference", modules)
    builder = _one(classes, BUILDERS, "InferenceBuilder", modules)
    lines = []
    if inference is not None:
        lines += [f"Found the inference {inference}.", *_check_inference(inference, classes)]
    if builder is not None:
        _check_builder(builder, classes)
        lines.append(f"Found the builder {builder}.")
    return lines


def _code_files(folder: Path) -> list[Path]:
    """The .py files at the root, and those of packages: folders with an __init__.py."""
    found = [p for p in folder.glob("*.py") if p.is_file()]
    for package in folder.glob("*/__init__.py"):
        if package.parent.name != ARTIFACTS:
            found += [p for p in package.parent.rglob("*.py") if p.is_file()]
    return sorted(found)


def _classes(file: str, module: ast.Module) -> list[Class]:
    aliases = aliases_of(module)
    found = []
    for node in ast.walk(module):
        if isinstance(node, ast.ClassDef):
            bases = (
                last_name(aliases.get(base.id, base) if isinstance(base, ast.Name) else base) for base in node.bases
            )
            found.append(Class(file, node, module, tuple(bases)))
    return found


def _one(classes: list[Class], bases: tuple[str, ...], what: str, modules: dict[str, ast.Module]) -> Class | None:
    """The one class that derives from one of `bases` and from which none derives; None when that cannot be told."""
    derived: list[Class] = []
    names: set[str] = set(bases)
    while more := [c for c in classes if c not in derived and names.intersection(c.bases)]:
        derived += more
        names |= {c.name for c in more}
    leaves = [c for c in derived if not any(c.name in other.bases for other in derived)]
    if len(leaves) > 1:
        raise BadInput(
            f"Several subclasses of {what} are found: {', '.join(map(str, sorted(leaves, key=str)))}.",
            "Only one is allowed; keep one.",
        )
    if leaves:
        return leaves[0]
    if served := [name for name in OPENAI for module in modules.values() if name in _functions(module.body)]:
        raise BadInput(
            f"The zip serves OpenAI's endpoints ({', '.join(sorted(set(served)))}), which this release does not run.",
            "Define a subclass of Inference and one of InferenceBuilder.",
        )
    if _may_be_elsewhere(classes):
        return None
    there = f" (found the classes {', '.join(c.name for c in classes[:8])})" if classes else ""
    base = f"mac.inference.{'creation.' if what == 'InferenceBuilder' else ''}{what}"
    raise BadInput(
        f"No subclass of {what} is found in the zip's Python files{there}.", f"Define one that derives from {base}."
    )


def _may_be_elsewhere(classes: Iterable[Class]) -> bool:
    """Whether a class has a base that no file of the artifact defines, and that is none of Python's own."""
    known = {c.name for c in classes} | {*INFERENCES, *BUILDERS, *dir(builtins)} | {"ABC", "Protocol", "Generic"}
    return any(base not in known for c in classes for base in c.bases)


def _check_inference(inference: Class, classes: list[Class]) -> list[str]:
    """Warnings. Raises BadInput when something that it must have is missing."""
    members = _members(inference, classes)
    predict = members.get("_predict")
    if not isinstance(predict, Function):
        raise BadInput(f"The inference {inference} has no method _predict.", f"Define: {SIGNATURE}.")
    if "expected_model_types" not in members:
        raise BadInput(
            f"The inference {inference} has no expected_model_types.",
            "Define it as a property that returns the set of types that its model may have.",
        )
    _check_predict(predict, inference)
    if "model" in members:
        return []
    return [f"WARNING: The inference {inference} has no member 'model', which is recommended: a setter that checks it."]


def _check_predict(predict: Function, inference: Class) -> None:
    where = f"_predict of {inference.name} in {inference.file} line {predict.lineno}"
    arguments = {argument.arg: argument for argument in arguments_of(predict)}
    if INPUT not in arguments:
        raise BadInput(
            f"{where} has no parameter {INPUT}; it takes ({', '.join(arguments)}).", f"Write it as: {SIGNATURE}."
        )
    parts = (("parameter " + INPUT, arguments[INPUT].annotation), ("return value", predict.returns))
    for what, annotation in parts:
        if annotation is None:
            raise BadInput(f"The {what} of {where} has no annotation.", f"Write it as: {SIGNATURE}.")
        if not is_inference_data(annotation, aliases_of(inference.module)):
            raise BadInput(
                f"The {what} of {where} is annotated '{ast.unparse(annotation)[:80]}'; "
                "expected a dict of numpy arrays: InferenceData.",
                f"Write it as: {SIGNATURE}.",
            )


def _check_builder(builder: Class, classes: list[Class]) -> None:
    members = _members(builder, classes)
    for name, written in (
        ("inference", "a property that returns a new inference"),
        ("create", "def create(self, config: CustomInferenceConfig), which returns the inference with its model"),
    ):
        if name not in members:
            raise BadInput(f"The builder {builder} has no '{name}'.", f"Define it: {written}.")


def _members(of: Class, classes: list[Class]) -> dict[str, ast.stmt]:
    """What a class defines, and what its bases in the artifact do."""
    by_name = {c.name: c for c in classes}
    members: dict[str, ast.stmt] = {}
    waiting, seen = [of], {of.name}
    while waiting:
        one = waiting.pop(0)
        for name, node in _named(one.node.body):
            members.setdefault(name, node)
        for base in one.bases:
            if base in by_name and base not in seen:
                seen.add(base)
                waiting.append(by_name[base])
    return members


def _named(body: list[ast.stmt]) -> Iterable[tuple[str, ast.stmt]]:
    for statement in body:
        if isinstance(statement, Function):
            yield statement.name, statement
        elif isinstance(statement, ast.Assign):
            yield from ((t.id, statement) for t in statement.targets if isinstance(t, ast.Name))
        elif isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
            yield statement.target.id, statement


def _functions(body: list[ast.stmt]) -> set[str]:
    return {statement.name for statement in body if isinstance(statement, Function)}
