"""Files of PyTorch, Keras, TensorFlow and Hugging Face, told by their bytes alone: what they need, what is wrong."""

from __future__ import annotations

import io
import json
import pickle
import struct
import sys
import zipfile
from collections import OrderedDict
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pytest

from bettong.errors import BadInput
from bettong.packaging.frameworks import Needs, head_of, way_of
from bettong.packaging.hdf5 import MAGIC, has_attribute, text_attribute
from bettong.packaging.saved_model import read_saved_model

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Files = dict[str, bytes | str]
SKIPPED = pickle.dumps(1, protocol=2)


def a_zip(files: Files) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def looked_at(folder: Path, framework: str, data: bytes) -> Needs:
    """What packaging says of an upload with this content."""
    upload, unpacked = folder / "upload", folder / "unpacked"
    upload.write_bytes(data)
    way = way_of(framework)
    unpacked.mkdir()
    if name := way.single(upload, head_of(upload)):
        upload.rename(unpacked / name)
    else:
        with zipfile.ZipFile(upload) as archive:
            archive.extractall(unpacked)
    return way.look(unpacked, {})


def a_class(module: str, name: str) -> Any:
    """An object of a class that pickles as one of a library that is not installed here."""
    kind = type(name, (), {"__module__": module, "__qualname__": name})
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        parent = ".".join(parts[:end])
        sys.modules.setdefault(parent, ModuleType(parent))
    setattr(sys.modules[module], name, kind)
    return kind()


@pytest.fixture(autouse=True)
def modules_stay_as_they_are() -> Iterator[None]:
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] in ("torch", "torchvision", "my_nets"):
            del sys.modules[name]


# --- PyTorch --------------------------------------------------------------------------------------------------------


def torch_file(held: object, **beside: str) -> bytes:
    """As torch.save writes it; `beside` are more entries, their underscores slashes."""
    entries: Files = {
        "model/data.pkl": pickle.dumps(held, protocol=2),
        "model/version": "3\n",
        "model/data/0": b"\0" * 8,
    }
    return a_zip(entries | {f"model/{name.replace('_', '/')}": content for name, content in beside.items()})


def legacy_file(held: object) -> bytes:
    """As torch.save wrote it until 1.6: pickles of a magic number, the protocol and the machine before the model's."""
    magic = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)
    return (
        magic
        + pickle.dumps(1001, protocol=2)
        + pickle.dumps({"little_endian": True}, protocol=2)
        + pickle.dumps(held, protocol=2)
    )


def test_torchscript_and_exported_programs_and_pickled_modules_are_told_apart(tmp_path: Path) -> None:
    module = a_class("torch.nn.modules.linear", "Linear")
    for name, data, words in (
        ("script", torch_file((), code_net="pass"), "Found TorchScript in model.pt."),
        ("exported", a_zip({"m/archive_format": "pt2", "m/models/model.json": "{}"}), "exported program in model.pt2"),
        ("whole", torch_file(module), "a pickled module in model.pt, a torch.nn.modules.linear.Linear."),
        ("legacy", legacy_file(module), "a pickled module in model.pt, a torch.nn.modules.linear.Linear."),
    ):
        (tmp_path / name).mkdir()
        needs = looked_at(tmp_path / name, "pytorch", data)
        assert needs.requirements == ("torch",)
        assert words in needs.found[0], name


def test_a_torch_file_in_a_zip_may_have_its_code_and_requirements_beside_it(tmp_path: Path) -> None:
    model = torch_file(a_class("my_nets", "Net"))

    needs = looked_at(
        tmp_path, "pytorch", a_zip({"net.pth": model, "my_nets.py": "", "requirements.txt": "torch==2.1"})
    )

    assert needs.found == ("Found a pickled module in net.pth, a my_nets.Net.",)


def test_what_a_pickled_module_imports_besides_is_told(tmp_path: Path) -> None:
    needs = looked_at(tmp_path, "pytorch", torch_file(a_class("torchvision.models.resnet", "ResNet")))

    assert "It imports torchvision: the upload's requirements have to name what provides it." in needs.found[1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (torch_file(OrderedDict(weight=1)), "model.pt holds a state_dict: weights without their model"),
        (torch_file({"weight": 1}), "holds a state_dict"),
        (legacy_file(OrderedDict(weight=1)), "holds a state_dict"),
        (pickle.dumps({"a": 1}), "a pickle that torch.save did not write"),
        (struct.pack("<Q", 60) + b'{"weight":{"dtype":"F32"}}', "weights without their model (safetensors)"),
        (b"\x08\x08onnx", "not one that torch.save or TorchScript's save writes"),
        (a_zip({"readme.txt": "x"}), "The zip holds no PyTorch model (.pt, .pth, .pt2) at its root; found: readme.txt"),
        (a_zip({"a.pt": "x", "b.pt": "x"}), "The zip holds 2 files that may be the PyTorch model: a.pt, b.pt"),
        (a_zip({"a.pt": b"PK\x03\x04 and nothing"}), "a.pt is not a file that torch.save writes"),
        (a_zip({"a.pt": a_zip({"x/y": b""})}), "a.pt is a zip that torch.save did not write"),
        (torch_file(1)[:200], "Not a valid ZIP file"),
    ],
)
def test_a_file_that_is_no_whole_torch_model_is_refused_with_words(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        looked_at(tmp_path, "pytorch", data)

    assert words in str(refused.value)


def test_a_class_of_a_notebook_is_named(tmp_path: Path) -> None:
    file = torch_file(a_class("__main__", "NetOfNotebook"))

    with pytest.raises(BadInput, match=r"needs NetOfNotebook, defined in the notebook.*jit\.script\(model\)\.save"):
        looked_at(tmp_path, "pytorch", file)

    delattr(sys.modules["__main__"], "NetOfNotebook")


# --- Keras ----------------------------------------------------------------------------------------------------------


def attribute(name: str, value: bytes, kind: int, size: int) -> bytes:
    """An attribute message of version 1, as HDF5 has it: sizes, name, datatype, dataspace and value, each padded."""
    key = name.encode() + b"\0"
    parts = [key, struct.pack("<BxxxI", 1 << 4 | kind, size), struct.pack("<BBxxxxxx", 1, 0)]
    head = struct.pack("<BxHHH", 1, *map(len, parts))
    return head + b"".join(part + bytes(-len(part) % 8) for part in parts) + value


def fixed_text(name: str, text: str) -> bytes:
    """As Keras 2 wrote it: the text in the attribute."""
    return attribute(name, text.encode(), 3, len(text))


def hdf5_with_heap(name: str, text: str) -> bytes:
    """As Keras 3 writes it: the attribute says where in a heap the text lies."""
    objects = struct.pack("<HHxxxxQ", 7, 1, 3) + b"abc".ljust(8, b"\0")
    objects += struct.pack("<HHxxxxQ", 8, 1, len(text)) + text.encode().ljust(16, b"\0")
    collection = b"GCOL" + struct.pack("<BxxxQ", 1, 16 + len(objects)) + objects
    at = len(MAGIC)
    return MAGIC + collection + attribute(name, struct.pack("<IQI", len(text), at, 8), 9, 16)


@pytest.mark.parametrize(
    ("version", "data"),
    [
        ("2.9.0", MAGIC + fixed_text("backend", "tensorflow") + fixed_text("keras_version", "2.9.0")),
        ("3.15.1", hdf5_with_heap("keras_version", "3.15.1")),
        ("2.2.4", MAGIC + b"keras_version\0 by chance" + fixed_text("keras_version", "2.2.4")),
        ("", MAGIC + fixed_text("other", "2.9.0")),
        ("", (MAGIC + fixed_text("keras_version", "2.9.0"))[:-30]),
        ("", MAGIC + b"keras_version\0"),
        ("", hdf5_with_heap("keras_version", "3.15.1").replace(b"GCOL", b"lost")),
    ],
)
def test_the_version_of_keras_is_read_from_hdf5(tmp_path: Path, version: str, data: bytes) -> None:
    file = tmp_path / "model.h5"
    file.write_bytes(data)

    assert text_attribute(file, "keras_version") == version
    assert has_attribute(file, "keras_version") is (b"keras_version\0" in data)


def keras_file(version: str = "3.15.1", **config: object) -> bytes:
    return a_zip({"metadata.json": json.dumps({"keras_version": version}), "config.json": json.dumps(config)})


def test_keras_2_asks_for_the_tensorflow_that_it_came_with_and_keras_3_for_any(tmp_path: Path) -> None:
    hdf5 = MAGIC + fixed_text("model_config", "{}")
    for name, data, version in (
        ("h5-2", hdf5 + fixed_text("keras_version", "2.9.0"), "==2.15.*"),
        ("keras-2", keras_file("2.13.1"), "==2.15.*"),
        ("keras-3", keras_file(), ""),
        ("unknown", hdf5, ""),
    ):
        (tmp_path / name).mkdir()
        (line,) = looked_at(tmp_path / name, "keras", data).requirements
        assert line in (f"tensorflow-cpu{version}", f"tensorflow{version}"), name


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (MAGIC + fixed_text("backend", "tensorflow"), "model.h5 holds weights without their model"),
        (keras_file(layers=[{"module": None, "class_name": "Twice", "registered_name": "Twice"}]), "your own, Twice;"),
        (
            keras_file(a={"module": "builtins", "class_name": "function", "config": "swish_of_mine"}),
            "your own, swish_of_mine;",
        ),
        (a_zip({"metadata.json": "{", "config.json": "{}"}), "model.keras is not a file that Keras writes"),
        (a_zip({"notes.txt": "x"}), "The zip holds no Keras model (.keras, .h5, .hdf5) at its root; found: notes.txt"),
        (b"PK\x03\x04 and then nothing", "Not a valid ZIP file"),
        (b"\x80\x04N.", "neither .keras nor .h5, nor a zip"),
    ],
)
def test_a_file_that_is_no_whole_keras_model_is_refused_with_words(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        looked_at(tmp_path, "keras", data)

    assert words in str(refused.value)


def test_layers_of_keras_itself_are_nobodys_own(tmp_path: Path) -> None:
    layer = {"module": "keras.layers", "class_name": "Dense", "registered_name": None}

    assert looked_at(tmp_path, "keras", keras_file(layers=[layer, {"class_name": "x"}])).found[0].endswith("3.15.1.")


# --- TensorFlow -----------------------------------------------------------------------------------------------------


def varint(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])


def part(number: int, value: bytes | str | int) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value % 2**64)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def tensor(name: str, kind: int, *shape: int) -> bytes:
    dims = b"".join(part(2, part(1, size)) for size in shape)
    return part(1, name) + part(2, part(1, f"op_{name}:0") + part(2, kind) + part(3, dims))


def a_saved_model(**signatures: bytes) -> bytes:
    graph = part(1, part(4, "serve") + part(5, "2.9.1"))
    for name, signature in signatures.items():
        graph += part(5, part(1, name) + part(2, signature))
    return part(1, 1) + part(2, graph + part(3, b"saver"))


SERVED = (
    part(1, tensor("town", 7, -1)) + part(1, tensor("numbers", 1, -1, 3)) + part(2, tensor("price", 2, -1, 1))
) + part(3, "tensorflow/serving/predict")


def test_a_saved_model_says_what_it_takes_and_gives_without_tensorflow(tmp_path: Path) -> None:
    file = tmp_path / "saved_model.pb"
    file.write_bytes(a_saved_model(__saved_model_init_op=part(2, tensor("init", 1)), serving_default=SERVED))

    found = read_saved_model(file)

    assert (found.version, list(found.signatures)) == ("2.9.1", ["serving_default"])
    assert found.graph().input_schema == pa.schema({"numbers": pa.list_(pa.float32(), 3), "town": pa.string()})
    assert found.graph().output_schema.field("price").type.value_type == pa.float64()


def test_a_saved_model_may_lie_in_one_folder_of_the_zip(tmp_path: Path) -> None:
    files: Files = {
        "house/saved_model.pb": a_saved_model(serving_default=SERVED),
        "house/variables/variables.index": "",
    }

    needs = looked_at(tmp_path, "tensorflow", a_zip(files))

    assert needs.found == ("Found a SavedModel, written by TensorFlow 2.9.1; its signatures: serving_default.",)
    assert needs.requirements[0] in ("tensorflow-cpu", "tensorflow")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (MAGIC, "Upload it as Framework.KERAS"),
        (b"text", "Not a valid ZIP file."),
        (a_zip({"variables/x": ""}), "The zip has no saved_model.pb at its root or in its one folder."),
        (a_zip({"a.txt": "", "m/saved_model.pb": ""}), "there is one in 'm/', which is not the only folder"),
        (a_zip({"saved_model.pb": ""}), "saved_model.pb is no SavedModel, or a damaged one"),
        (a_zip({"saved_model.pb": a_saved_model(serving_default=SERVED)[:60]}), "or a damaged one"),
        (a_zip({"saved_model.pb": a_saved_model(a=SERVED, b=SERVED)}), "no signature 'serving_default'; it has: a, b"),
        (a_zip({"saved_model.pb": a_saved_model()}), "it has: none"),
    ],
)
def test_a_zip_that_is_no_saved_model_is_refused_with_words(tmp_path: Path, data: bytes, words: str) -> None:
    with pytest.raises(BadInput) as refused:
        looked_at(tmp_path, "tensorflow", data)

    assert words in str(refused.value)


@pytest.mark.parametrize(
    ("signature", "words"),
    [
        (part(1, tensor("numbers", 8, -1, 3)), "The model's tensor 'numbers' has a type that rows cannot carry"),
        (part(1, tensor("factor", 1)), "The model's tensor 'factor' has no dimension that counts rows"),
    ],
)
def test_a_tensor_that_rows_cannot_carry_is_named(tmp_path: Path, signature: bytes, words: str) -> None:
    file = tmp_path / "saved_model.pb"
    file.write_bytes(a_saved_model(only=signature))

    with pytest.raises(BadInput, match=words):
        read_saved_model(file).graph()


# --- Hugging Face ---------------------------------------------------------------------------------------------------


def saved_pipeline(version: str = "4.57.6", tokenizer: str = "BertTokenizer", **changes: bytes | str | None) -> bytes:
    """As save_pretrained writes it; `changes` are entries by name, dots as underscores, None for none."""
    files: dict[str, bytes | str | None] = {
        "config.json": json.dumps({"model_type": "bert", "transformers_version": version}),
        "model.safetensors": b"",
        "tokenizer_config.json": json.dumps({"tokenizer_class": tokenizer}),
        "tokenizer.json": "{}",
    }
    files |= {name.replace("__", "."): content for name, content in changes.items()}
    return a_zip({name: content for name, content in files.items() if content is not None})


@pytest.mark.parametrize(
    ("framework", "version", "library"),
    [
        ("hugging-face-text-classification", "4.30.1", "transformers<5"),
        ("hugging-face-text-classification", "5.3.0", "transformers>=5.3,<6"),
        ("hugging-face-text-classification", "unknown", "transformers<5"),
        ("hugging-face-summarization", "4.30.1", "transformers<5"),
        ("hugging-face-summarization", "5.3.0", "transformers<5"),
    ],
)
def test_a_pipeline_gets_the_transformers_that_reads_it_and_has_its_task(
    tmp_path: Path, framework: str, version: str, library: str
) -> None:
    assert looked_at(tmp_path, framework, saved_pipeline(version)).requirements == (library, "torch", "pillow")


def test_tokenizers_of_sentencepiece_bring_what_reads_them(tmp_path: Path) -> None:
    data = saved_pipeline(tokenizer__json=None, source__spm=b"")

    assert "sentencepiece" in looked_at(tmp_path, "hugging-face-translation", data).requirements


@pytest.mark.parametrize(
    ("framework", "data", "words"),
    [
        ("text-generation", b"text", "Not a valid ZIP file."),
        ("text-generation", saved_pipeline(config__json=None), "The zip has no config.json at its root or in its one"),
        ("text-generation", saved_pipeline(config__json="[]"), "config.json holds no JSON object"),
        ("text-generation", saved_pipeline(model__safetensors=None), "holds no weights (*.safetensors, pytorch_model"),
        (
            "text-generation",
            saved_pipeline(model__safetensors=None, tf_model__h5=b""),
            "holds weights of TensorFlow and none of PyTorch",
        ),
        (
            "text-generation",
            saved_pipeline(tokenizer__json=None, tokenizer_config__json=None),
            "holds a model without its tokenizer or image processor",
        ),
        (
            "question-answering",
            saved_pipeline("5.3.0", "TokenizersBackend"),
            "saved by transformers 5.3.0, which has no pipeline for this task any more",
        ),
        ("stable-diffusion-text-2-img", saved_pipeline(), "The zip has no model_index.json"),
    ],
)
def test_a_zip_that_is_no_saved_pipeline_is_refused_with_words(
    tmp_path: Path, framework: str, data: bytes, words: str
) -> None:
    with pytest.raises(BadInput) as refused:
        looked_at(tmp_path, f"hugging-face-{framework}", data)

    assert words in str(refused.value)
