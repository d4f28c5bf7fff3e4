"""A pickle is read without unpickling: who wrote it, what it imports, and nothing of it is run."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import sys
import zlib
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from packaging.version import Version

from bettong.errors import BadInput
from bettong.packaging import pickles
from bettong.packaging.interpreters import Interpreters
from bettong.packaging.pickled import look_at_pickle, version_of_booster
from bettong.packaging.pickles import PickleFacts, read_pickle

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def foreign(module: str, name: str) -> type:
    """A class that pickles as one of a library that is not installed here."""
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        sys.modules.setdefault(".".join(parts[:end]), ModuleType(".".join(parts[:end])))
    kind = type(name, (), {"__module__": module, "__qualname__": name})
    setattr(sys.modules[module], name, kind)
    return kind


@pytest.fixture(autouse=True)
def made_up_libraries_are_gone_afterwards() -> Iterator[None]:
    before = dict(sys.modules)
    yield
    for name in sys.modules.keys() - before.keys():
        if not getattr(sys.modules[name], "__file__", None):
            del sys.modules[name]


def estimator(version: str = "1.0.2", **more: Any) -> Any:
    model = foreign("sklearn.linear_model._base", "LinearRegression")()
    model.__dict__.update(more, coef_=[1.0, 2.0], _sklearn_version=version)
    return model


def written(folder: Path, data: bytes, name: str = "model.pkl") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def facts(folder: Path, data: bytes) -> PickleFacts:
    return read_pickle(written(folder, data))


@pytest.mark.parametrize("protocol", range(6))
def test_the_version_and_the_imports_stand_in_a_pickle_of_any_protocol(tmp_path: Path, protocol: int) -> None:
    read = facts(tmp_path, pickle.dumps(estimator("1.0.2"), protocol=protocol))

    assert read.versions == ["1.0.2"]
    assert "sklearn" in read.packages
    assert read.made == "sklearn.linear_model._base.LinearRegression"
    assert read.complete


@pytest.mark.parametrize("pack", [zlib.compress, gzip.compress, bz2.compress, lzma.compress])
def test_compressed_files_of_joblib_are_seen_through(tmp_path: Path, pack: Any) -> None:
    assert facts(tmp_path, pack(pickle.dumps(estimator("1.3.0")))).versions == ["1.3.0"]


@pytest.mark.parametrize("aligned", [True, False])
def test_arrays_that_joblib_writes_raw_are_passed_over(tmp_path: Path, aligned: bool) -> None:
    wrapper = foreign("joblib.numpy_pickle", "NumpyArrayWrapper")
    array = np.arange(12, dtype="<f8").reshape(3, 4)
    out = io.BytesIO()

    base: Any = pickle._Pickler

    class Joblib(base):  # type: ignore[misc]  # the one in Python calls `save` for each object, as joblib's does
        def save(self, obj: Any, save_persistent_id: bool = True) -> None:
            if not isinstance(obj, np.ndarray):
                super().save(obj, save_persistent_id)
                return
            note = wrapper()
            note.__dict__.update(subclass=np.ndarray, shape=obj.shape, order="C", dtype=obj.dtype, allow_mmap=True)
            if aligned:
                note.numpy_array_alignment_bytes = 16
            super().save(note)
            self.framer.commit_frame(force=True)
            if aligned:
                padding = 16 - (out.tell() + 1) % 16
                out.write(bytes([padding]) + b"\xff" * padding)
            out.write(obj.tobytes())

    model = estimator("1.2.1")
    model.__dict__ = {"first": array, "second": array * 2, **model.__dict__}
    Joblib(out, protocol=4).dump(model)

    read = facts(tmp_path, out.getvalue())

    assert read.complete
    assert read.versions == ["1.2.1"]


def test_nothing_in_a_pickle_is_called_or_imported(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return exec, (f"open({str(tmp_path / 'ran')!r}, 'w')",)

    data = pickle.dumps(Bomb())

    assert facts(tmp_path, data).names == {"builtins.exec"}
    assert facts(tmp_path, b"\x80\x04cnot_a_module.at_all\nThing\n.").modules == {"not_a_module.at_all"}
    assert "not_a_module" not in sys.modules
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello, I am text",
        b"\x80\x04",
        b"\x80\x04.",
        b"\x80\x04" + b"\x8e" + b"\xff" * 8 + b"x",
        b"\x80\x04" + b"(" * 50 + b"R" * 50 + b".",
        b"\x80\x04h\x00.",
        b"\x80\x04X\xff\xff\xff\xff",
        b"\x78\x9c" + b"\x00" * 40,
        b"PK\x03\x04zip",
        b"}" * 1000,
    ],
)
def test_what_is_no_pickle_or_a_damaged_one_is_refused_with_words(tmp_path: Path, data: bytes) -> None:
    with pytest.raises(BadInput, match=r"model\.pkl is not a pickle"):
        facts(tmp_path, data)


def test_a_cut_pickle_tells_what_stands_before_the_cut(tmp_path: Path) -> None:
    read = facts(tmp_path, pickle.dumps([estimator("1.1.3"), "x" * 1000])[:-500])

    assert (read.versions, read.complete) == (["1.1.3"], False)


def test_an_endless_pickle_is_left_at_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pickles, "MAX_OPERATIONS", 100)

    read = facts(tmp_path, pickle.dumps([estimator("1.1.3"), list(range(500))]))

    assert (read.versions, read.complete) == (["1.1.3"], False)


# --- what a pickled model needs -------------------------------------------------------------------------------------


def needs(folder: Path, model: Any) -> tuple[str, ...]:
    return look_at_pickle(written(folder, pickle.dumps(model))).needs.requirements


def test_a_model_needs_the_release_that_wrote_it_and_a_python_that_has_wheels_for_it(tmp_path: Path) -> None:
    looked = look_at_pickle(written(tmp_path, pickle.dumps(estimator("1.0.2"))))

    assert looked.needs.requirements == ("scikit-learn==1.0.2",)
    kind = "sklearn.linear_model._base.LinearRegression"
    assert looked.needs.found == (f"Read model.pkl without running it: {kind}, written with scikit-learn 1.0.2.",)
    wish = looked.needs.python
    assert wish is not None
    assert Interpreters({(3, 9): [], (3, 10): [], (3, 11): []}).candidates(wish)[0] == (3, 10)


def test_where_no_python_fits_the_error_names_the_release_and_what_to_do(tmp_path: Path) -> None:
    wish = look_at_pickle(written(tmp_path, pickle.dumps(estimator("1.0.2")))).needs.python

    with pytest.raises(BadInput) as refused:
        Interpreters({(3, 11): [], (3, 12): []}).candidates(wish)

    assert str(refused.value) == (
        "The model was written with scikit-learn 1.0.2, which asks for Python <3.11, which is not installed on the "
        "platform's machine. Installed are: 3.11, 3.12. Install it (for example: pyenv install 3.10), or name its path "
        "in BETTONG_PYTHONS; then upload again. Or name another release in requirements, if the model loads with it: "
        "scikit-learn==X.Y.Z."
    )


def test_a_model_trained_on_a_frame_needs_pandas_and_one_with_new_arrays_new_numpy(tmp_path: Path) -> None:
    named = estimator("1.9.1", feature_names_in_=["a", "b"])
    assert needs(tmp_path, named) == ("scikit-learn==1.9.1", "pandas")

    array = b"cnumpy._core.multiarray\n_reconstruct\n"
    with_array = pickle.dumps([estimator("1.9.1"), 1], protocol=2).replace(b"K\x01", array)
    assert look_at_pickle(written(tmp_path, with_array)).needs.requirements == ("scikit-learn==1.9.1", "numpy>=2")


def test_packages_that_are_known_are_installed_and_others_are_asked_for(tmp_path: Path) -> None:
    light = foreign("lightgbm.sklearn", "LGBMModel")()
    ours = foreign("ourlib.models", "Ours")()
    looked = look_at_pickle(written(tmp_path, pickle.dumps([light, ours])))

    assert looked.needs.requirements == ("lightgbm",)
    assert "It imports ourlib, which the platform does not know" in looked.needs.found[-1]


def test_what_only_the_notebook_had_is_refused_by_name(tmp_path: Path) -> None:
    data = pickle.dumps([estimator(), 1], protocol=2).replace(b"K\x01", b"c__main__\nScaler\n")

    with pytest.raises(BadInput, match=r"model\.pkl needs Scaler, defined in the notebook .* cloudpickle\.dump"):
        look_at_pickle(written(tmp_path, data))


def booster(text: bytes) -> Any:
    made = foreign("xgboost.core", "Booster")()
    made.handle = bytearray(b"{" + b" " * 100 + text + b"}")
    return made


def ubj(*numbers: int) -> bytes:
    return b"version[#L" + b"\0" * 7 + b"\x03" + b"".join(b"i" + bytes([n]) for n in numbers) + b"}"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (b'"version":[1,5,2]', ("xgboost==1.5.2", "setuptools", "scikit-learn")),
        (b'"version":[3,2,0]', ("xgboost-cpu==3.2.0", "scikit-learn")),
        (ubj(2, 1, 4), ("xgboost-cpu==2.1.4", "scikit-learn")),
        (ubj(2, 0, 3), ("xgboost==2.0.3", "setuptools", "scikit-learn")),
        (b"version unknown", ("xgboost-cpu", "scikit-learn")),
    ],
)
def test_a_pickled_booster_needs_the_release_that_wrote_it(tmp_path: Path, text: bytes, lines: tuple[str, ...]) -> None:
    assert needs(tmp_path, booster(text)) == lines


def test_a_pipeline_with_both_libraries_needs_both_in_their_releases(tmp_path: Path) -> None:
    assert needs(tmp_path, [estimator("1.7.2"), booster(ubj(3, 0, 5))]) == ("scikit-learn==1.7.2", "xgboost-cpu==3.0.5")


def test_of_several_versions_in_a_saved_model_the_last_is_its_own() -> None:
    assert version_of_booster(b'{"Config":{"version":[1,7,6]},"version": [2, 0, 3]}') == Version("2.0.3")
    assert version_of_booster(b"{}") is None
