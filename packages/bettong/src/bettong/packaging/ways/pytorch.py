"""PYTORCH: a whole model in one file: TorchScript, a pickled module, or an exported program."""

from __future__ import annotations

import io
import zipfile
from typing import TYPE_CHECKING

from bettong.errors import BadInput
from bettong.packaging.artifact import looked_into
from bettong.packaging.frameworks import ZIP_MAGIC, Needs, content_folder, only_file
from bettong.packaging.pickled import DISTRIBUTIONS, NOTEBOOK, STANDARD
from bettong.packaging.pickles import PickleFacts, facts_of, looks_like_pickle

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

SUFFIXES = (".pt", ".pth", ".pt2")
LEGACY_MAGIC = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # torch.save until 1.6
LEGACY_PARTS = 3  # pickles before the model's own: magic number, protocol, machine
MAX_PICKLE_BYTES = 8 * 2**20  # without the tensors, which lie beside it
SCRIPT = "torch.jit.script(model).save('model.pt')"
HOW = f"Write the whole model: {SCRIPT}, or torch.save(model, 'model.pt')."
WEIGHTS = ("collections.OrderedDict", "dict")


def single(archive: Path, head: bytes) -> str:
    if head.startswith(ZIP_MAGIC):
        return _name_in_zip(archive)
    if head.startswith(LEGACY_MAGIC):
        return "model.pt"
    if looks_like_pickle(head):
        raise BadInput("The file is a pickle that torch.save did not write.", HOW)
    if head[8:9] == b"{":
        raise BadInput("The file holds weights without their model (safetensors).", HOW)
    raise BadInput("The file is not one that torch.save or TorchScript's save writes.", HOW)


def look(folder: Path, config: Mapping[str, object]) -> Needs:
    file = only_file(content_folder(folder), SUFFIXES, "PyTorch model")
    entries = _entries(file) if zipfile.is_zipfile(file) else {}
    if "archive_format" in entries:
        return _needs(f"Found an exported program in {file.name}.")
    if any(name.startswith("code/") for name in entries):
        return _needs(f"Found TorchScript in {file.name}.")
    facts = _facts(file, entries)
    if facts.made in WEIGHTS:
        raise BadInput(f"{file.name} holds a state_dict: weights without their model.", HOW)
    if NOTEBOOK in facts.modules:
        names = sorted(n.partition(".")[2] for n in facts.names if n.startswith(f"{NOTEBOOK}."))
        raise BadInput(
            f"{file.name} needs {', '.join(names[:8])}, defined in the notebook or script that wrote it; torch.save "
            "keeps only their names.",
            f"Save TorchScript, which holds the code: {SCRIPT}.",
        )
    return _of_module(file, facts)


def _name_in_zip(archive: Path) -> str:
    """torch's own files are zips, too: all in one folder, with a `data.pkl` or an `archive_format`."""
    entries = _entries(archive)
    if "archive_format" in entries:
        return "model.pt2"
    return "model.pt" if "data.pkl" in entries else ""


def _entries(path: Path) -> dict[str, zipfile.ZipInfo]:
    """What torch's zip holds, by name without its top folder."""
    with looked_into(path) as opened:
        return {entry.filename.partition("/")[2]: entry for entry in opened.infolist()}


def _facts(file: Path, entries: Mapping[str, zipfile.ZipInfo]) -> PickleFacts:
    """What the pickle of a model says of itself, without unpickling it."""
    if entries:
        if "data.pkl" not in entries:
            raise BadInput(f"{file.name} is a zip that torch.save did not write.", HOW)
        with looked_into(file) as opened, opened.open(entries["data.pkl"]) as pickle:
            return facts_of(io.BytesIO(pickle.read(MAX_PICKLE_BYTES)))
    with file.open("rb") as legacy:
        if legacy.read(len(LEGACY_MAGIC)) != LEGACY_MAGIC:
            raise BadInput(f"{file.name} is not a file that torch.save writes.", HOW)
        legacy.seek(0)
        for _ in range(LEGACY_PARTS):
            facts_of(legacy)
        return facts_of(legacy)


def _of_module(file: Path, facts: PickleFacts) -> Needs:
    lines, unknown = list[str](), list[str]()
    for package in sorted(facts.packages - STANDARD - {"torch"}):
        if package in DISTRIBUTIONS:
            lines.append(DISTRIBUTIONS[package])
        elif not (file.parent / package).is_dir() and not (file.parent / f"{package}.py").is_file():
            unknown.append(package)
    found = [f"Found a pickled module in {file.name}{f', a {facts.made}' if facts.made else ''}."]
    if unknown:
        found.append(
            f"It imports {', '.join(unknown)}: the upload's requirements have to name what provides it. TorchScript "
            f"needs neither: {SCRIPT}."
        )
    return _needs(*found, lines=lines)


def _needs(*found: str, lines: list[str] | None = None) -> Needs:
    return Needs(("torch", *(lines or ())), found=found)
