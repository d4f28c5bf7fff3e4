"""What a pickled model needs: the packages it is made of, in the versions that wrote it."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from packaging.specifiers import SpecifierSet
from packaging.version import InvalidVersion, Version

from bettong.errors import BadInput
from bettong.packaging.frameworks import Needs
from bettong.packaging.interpreters import Wish
from bettong.packaging.pickles import PickleFacts, read_pickle

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

SUFFIXES = (".pkl", ".pickle", ".joblib")
FIRST_CPU_BUILD = Version("2.1.1")  # of xgboost: since then there is an xgboost-cpu, a tenth of the size
NOTEBOOK = "__main__"
SKLEARN = "scikit-learn"
BROUGHT = {"sklearn": {"joblib", "numpy", "scipy"}, "xgboost": {"numpy", "scipy"}}  # by the distributions themselves

DISTRIBUTIONS = {
    "sklearn": "scikit-learn",
    "imblearn": "imbalanced-learn",
    "category_encoders": "category-encoders",
    "feature_engine": "feature-engine",
    "umap": "umap-learn",
    "skopt": "scikit-optimize",
} | {
    name: name
    for name in (
        "catboost", "cloudpickle", "dill", "hdbscan", "joblib", "lightgbm", "mlxtend", "nltk", "numpy", "pandas",
        "polars", "prophet", "pyarrow", "scipy", "statsmodels", "xgboost",
    )
}  # fmt: skip
STANDARD = sys.stdlib_module_names | {"__builtin__", "copy_reg", "exceptions", "UserDict", "StringIO", "cPickle"}

# Releases of scikit-learn before one have wheels for Pythons below another: (release, Python, the newest that has)
_SKLEARN_WHEELS = (
    ("0.24", "3.9", "3.8"),
    ("1.0", "3.10", "3.9"),
    ("1.1.3", "3.11", "3.10"),
    ("1.3.1", "3.12", "3.11"),
    ("1.5.2", "3.13", "3.12"),
    ("1.7.2", "3.14", "3.13"),
)
_JSON_VERSION = re.compile(rb'"version"\s*:\s*\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]')
_UBJ_NUMBER = rb"(?:i(?P<i%d>.)|U(?P<u%d>.)|I(?P<s%d>..))"
_UBJ_VERSION = re.compile(
    rb"version\[(?:\$L)?#L\x00{7}\x03" + b"".join(_UBJ_NUMBER.replace(b"%d", b"%d" % n) for n in range(3)), re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Written:
    """A pickled model: what is known of it, and what it needs."""

    facts: PickleFacts
    sklearn: Version | None
    xgboost: Version | None
    needs: Needs


def look_at_pickle(file: Path) -> Written:
    """Raises BadInput when the file is no pickle, or needs what only the notebook had that wrote it."""
    facts = read_pickle(file)
    _check_notebook(file, facts)
    sklearn = max((v for text in facts.versions if (v := _version(text))), default=None)
    xgboost = next((v for blob in facts.blobs if (v := version_of_booster(blob))), None)
    lines: list[str] = []
    unknown: list[str] = []
    packages = facts.packages - STANDARD
    for brings in packages & BROUGHT.keys():
        packages -= BROUGHT[brings]  # so that models of one release share one environment
    for package in sorted(packages):
        if package == "sklearn":
            lines.append(f"{SKLEARN}=={sklearn}" if sklearn else SKLEARN)
        elif package == "xgboost":
            lines += [line for line in xgboost_lines(xgboost, exactly=True) if line != SKLEARN or sklearn is None]
        elif package in DISTRIBUTIONS:
            lines.append(DISTRIBUTIONS[package])
        elif not (file.parent / package).is_dir() and not (file.parent / f"{package}.py").is_file():
            unknown.append(package)
    if any(module.startswith("numpy._core") for module in facts.modules):
        lines.append("numpy>=2")  # it holds arrays that numpy 1 cannot read
    if "feature_names_in_" in facts.words and "pandas" not in lines:
        lines.append("pandas")  # it was trained on a DataFrame, and columns may be chosen by name
    found = [f"Read {file.name} without running it: {facts.made or 'a model'}{_written_with(sklearn, xgboost)}."]
    if not facts.complete:
        found.append(f"{file.name} could not be read to its end; it may need more than what was found.")
    if unknown:
        found.append(
            f"It imports {', '.join(unknown)}, which the platform does not know: "
            "requirements.txt beside the pickle, in a zip, has to name what provides it."
        )
    return Written(facts, sklearn, xgboost, Needs(tuple(lines), python=_python_for(sklearn), found=tuple(found)))


def version_of_booster(data: bytes | mmap.mmap) -> Version | None:
    """The version of XGBoost that wrote a model in JSON or UBJSON; of several the last, which is the model's own."""
    if texts := _JSON_VERSION.findall(data):
        return Version(".".join(part.decode() for part in texts[-1]))
    found = None
    for match in _UBJ_VERSION.finditer(data):
        found = match
    if found is None:
        return None
    numbers = [
        int.from_bytes(next(found[f"{kind}{n}"] for kind in "ius" if found[f"{kind}{n}"] is not None), "big")
        for n in range(3)
    ]
    return Version(".".join(map(str, numbers)))


def xgboost_lines(version: Version | None, *, exactly: bool) -> list[str]:
    """What to install for a model of this version: the CPU build where there is one. `exactly` for pickles, which only
    their own version is sure to read.

    The wrappers stand on scikit-learn without saying so; Boosters get it too, so that models of one release share one
    environment.
    """
    if version is None:
        return ["xgboost-cpu", SKLEARN]
    if version >= FIRST_CPU_BUILD:
        return [f"xgboost-cpu=={version}", SKLEARN]
    if exactly:
        return [f"xgboost=={version}", "setuptools", SKLEARN]  # releases of that time import pkg_resources
    return [f"xgboost-cpu>={FIRST_CPU_BUILD}", SKLEARN]


def _check_notebook(file: Path, facts: PickleFacts) -> None:
    if NOTEBOOK not in facts.modules:
        return
    names = sorted(n.partition(".")[2] for n in facts.names if n.startswith(f"{NOTEBOOK}."))
    raise BadInput(
        f"{file.name} needs {', '.join(names[:8])}, defined in the notebook or script that wrote it, which it lacks.",
        "Write it with cloudpickle.dump, or move that code into a .py file, import it from there, and zip both.",
    )


def _python_for(sklearn: Version | None) -> Wish | None:
    """Pythons that this release of scikit-learn has wheels for; None when any may do."""
    if sklearn is None:
        return None
    for before, below, newest in _SKLEARN_WHEELS:
        if sklearn < Version(before):
            return Wish(
                SpecifierSet(f"<{below}"),
                f"The model was written with scikit-learn {sklearn}, which",
                example=newest,
                otherwise="Or name another release in requirements, if the model loads with it: scikit-learn==X.Y.Z.",
            )
    return None


def _written_with(sklearn: Version | None, xgboost: Version | None) -> str:
    known = [f"scikit-learn {sklearn}"] if sklearn else []
    known += [f"XGBoost {xgboost}"] if xgboost else []
    return f", written with {' and '.join(known)}" if known else ""


def _version(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None
