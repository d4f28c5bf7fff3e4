"""What each framework takes, from the file to an answer: `make bench-frameworks`. With names, such as
`python benchmarks/frameworks.py sklearn onnx`, only those are measured, and no page is written.

A fresh platform with an empty cache takes one sample of each framework. Packages come from wherever pip has them, so an
environment's time has the way from there in it. Each model is then asked for one row at a time through
`pipeline.infer`, and its library is called directly, with the same row, in the very environment that was built.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa
import report  # type: ignore[import-not-found]  # lies beside this file
import uv
from main_job import fresh_home, ours, timed  # type: ignore[import-not-found]

from wallaroo.framework import Framework

if TYPE_CHECKING:
    from collections.abc import Sequence

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "examples" / "models"
COMMAND = "make bench-frameworks"
WARM, CALLS, KEPT = 100, 400, 40  # of one row; the fastest tenth counts: others use the machine too
NUMBER, FLOAT, WHOLE, TEXT = pa.float64(), pa.float32(), pa.int64(), pa.string()
THREE, TEN = pa.list_(NUMBER, 3), pa.list_(NUMBER, 10)
HOUSE, TEN_ONES = [4.0, 90.0, 10.0], [1.0] * 10
SETTLED = re.compile(r"Environment (?:ready|found): (\d+) packages, (\d+) MB, ([\d.]+) s")

# `call` is what is timed, `sys.argv[1]` the sample
TIMED = """
import statistics, sys, time
{code}
for _ in range({warm}): call()
took = []
for _ in range({calls}):
    began = time.perf_counter()
    call()
    took.append(time.perf_counter() - began)
print(statistics.median(sorted(took)[:{kept}]) * 1e3)
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One sample: how it is made, what goes in and comes out, and how its library is called without us.

    Attributes:
        script, file: the script of examples/models that makes it, and what of that is uploaded; a folder is zipped.
        needs: what the script needs; "" when it runs on the Python that measures.
        direct: Python that defines `call()`.
    """

    title: str
    framework: Framework
    script: str
    file: str
    needs: tuple[str, ...]
    inputs: dict[str, Any]  # types of Arrow by column
    outputs: dict[str, Any]
    row: dict[str, Any]
    direct: str


CASES = {
    "onnx": Case(
        *("ONNX, 18-64-64-1, in the replica", Framework.ONNX, "", "model.onnx", ()),
        *({}, {}, {"x": [1.0] * 18}),
        "import numpy as np, onnxruntime\n"
        "session = onnxruntime.InferenceSession(sys.argv[1])\n"
        "row = {'x': np.ones((1, 18), np.float32)}\n"
        "def call(): session.run(None, row)\n",
    ),
    "python": Case(
        *("Python, numpy alone", Framework.PYTHON, "", "step.zip", ()),
        *({"inputs": THREE}, {"total": NUMBER}, {"inputs": HOUSE}),
        f"import numpy as np\nrow = np.array([{HOUSE}])\ndef call(): row.sum(axis=1)\n",
    ),
    "custom": Case(
        *("custom, numpy alone", Framework.CUSTOM, "make_custom.py", "bands.zip", ()),
        *({"price": NUMBER}, {"band": pa.int32(), "name": TEXT}, {"price": 300.0}),
        "import numpy as np\nrow, edges = np.array([300.0]), [250.0, 450.0]\n"
        "names = np.array(['low', 'mid', 'high'])\ndef call(): names[np.digitize(row, edges)]\n",
    ),
    "sklearn": Case(
        *("scikit-learn, one list column", Framework.SKLEARN, "make_sklearn.py", "pca_pipeline.joblib"),
        ("scikit-learn", "pandas", "joblib", "cloudpickle"),
        *({"inputs": THREE}, {"predictions": WHOLE}, {"inputs": HOUSE}),
        f"import joblib, numpy as np\nmodel, row = joblib.load(sys.argv[1]), np.array([{HOUSE}])\n"
        "def call(): model.predict(row)\n",
    ),
    "frame": Case(
        *("scikit-learn, a DataFrame", Framework.SKLEARN, "make_sklearn.py", "logistic.pkl"),
        ("scikit-learn", "pandas", "joblib", "cloudpickle"),
        {"rooms": NUMBER, "area": NUMBER, "age": NUMBER},
        *({"predictions": WHOLE}, {"rooms": 4.0, "area": 90.0, "age": 10.0}),
        "import joblib, pandas as pd\nmodel = joblib.load(sys.argv[1])\n"
        "row = pd.DataFrame({'rooms': [4.0], 'area': [90.0], 'age': [10.0]})\ndef call(): model.predict(row)\n",
    ),
    "xgboost": Case(
        *("XGBoost", Framework.XGBOOST, "make_xgboost.py", "regressor.json"),
        ("xgboost-cpu", "scikit-learn", "pandas", "joblib", "cloudpickle"),
        *({"inputs": THREE}, {"predictions": FLOAT}, {"inputs": HOUSE}),
        "import numpy as np, xgboost\nmodel = xgboost.XGBRegressor()\nmodel.load_model(sys.argv[1])\n"
        f"row = np.array([{HOUSE}])\ndef call(): model.predict(row)\n",
    ),
    "mlflow": Case(
        *("MLflow, scikit-learn in it", Framework.MLFLOW, "make_mlflow.py", "mlflow.zip"),
        ("mlflow-skinny", "skops", "scikit-learn", "pandas", "joblib", "cloudpickle"),
        {"rooms": NUMBER, "area": NUMBER, "age": NUMBER},
        *({"price": NUMBER}, {"rooms": 4.0, "area": 90.0, "age": 10.0}),
        "import mlflow.pyfunc, pandas as pd, shutil, tempfile\nfolder = tempfile.mkdtemp()\n"
        "shutil.unpack_archive(sys.argv[1], folder)\nmodel = mlflow.pyfunc.load_model(folder)\nshutil.rmtree(folder)\n"
        "row = pd.DataFrame({'rooms': [4.0], 'area': [90.0], 'age': [10.0]})\ndef call(): model.predict(row)\n",
    ),
    "pytorch": Case(
        *("PyTorch, TorchScript", Framework.PYTORCH, "make_torch.py", "script.pt", ("torch",)),
        *({"input": TEN}, {"output": pa.list_(FLOAT, 3)}, {"input": TEN_ONES}),
        "import torch\ntorch.set_num_threads(1)\nmodel, row = torch.jit.load(sys.argv[1]).eval(), torch.ones((1, 10))\n"
        "def call():\n    with torch.no_grad(): model(row)\n",
    ),
    "keras": Case(
        *("Keras 3", Framework.KERAS, "make_keras.py", "plain.keras", ("tensorflow-cpu",)),
        *({"input": TEN}, {"output": pa.list_(FLOAT, 32)}, {"input": TEN_ONES}),
        "import numpy as np, tensorflow as tf, keras\nmodel = keras.models.load_model(sys.argv[1])\n"
        "ask = tf.function(lambda rows: model(rows, training=False))\nrow = tf.ones((1, 10))\n"
        "def call(): ask(row).numpy()\n",
    ),
    "tensorflow": Case(
        *("TensorFlow, a SavedModel", Framework.TENSORFLOW, "make_tensorflow.py", "houses", ("tensorflow-cpu",)),
        *({}, {}, {"numbers": HOUSE, "town": "bonn"}),
        "import shutil, tempfile, tensorflow as tf\nfolder = tempfile.mkdtemp()\n"
        "shutil.unpack_archive(sys.argv[1], folder)\nloaded = tf.saved_model.load(folder)\nshutil.rmtree(folder)\n"
        "ask = loaded.signatures['serving_default']\n"
        f"row = {{'numbers': tf.constant([{HOUSE}]), 'town': tf.constant(['bonn'])}}\n"
        "def call(): {name: value.numpy() for name, value in ask(**row).items()}\n",
    ),
    "hugging-face": Case(
        *("Hugging Face, text classification", Framework.HUGGING_FACE_TEXT_CLASSIFICATION, "make_hugging_face.py"),
        *("text-classification", ("transformers<5", "torch", "pillow")),
        *({"inputs": TEXT}, {"label": TEXT, "score": NUMBER}, {"inputs": "I love this film"}),
        "import os, shutil, tempfile\nos.environ['HF_HUB_OFFLINE'] = '1'\nimport torch, transformers\n"
        "torch.set_num_threads(1)\nfolder = tempfile.mkdtemp()\nshutil.unpack_archive(sys.argv[1], folder)\n"
        "model = transformers.pipeline('text-classification', model=folder, device='cpu')\n"
        "def call(): model('I love this film')\n",
    ),
}


def main(names: Sequence[str]) -> None:
    """Measure the named cases, or all and write the section of docs/performance.md."""
    rows = []
    with fresh_home() as home, tempfile.TemporaryDirectory(prefix="bettong-bench-") as folder:
        import wallaroo

        wl = wallaroo.Client()
        for name in names or CASES:
            row = measured(wl, CASES[name], made(CASES[name], Path(folder)), home)
            print(" | ".join(row), flush=True)
            rows.append(row)
        if not names:
            report.write_section("frameworks", section(rows), COMMAND)


def made(case: Case, folder: Path) -> Path:
    """The sample, made in an environment of its own that is kept for the next case with the same needs."""
    files = folder / (case.script or case.title).replace(" ", "-")
    if not files.exists():
        files.mkdir()
        if not case.script:
            _own_sample(case, files / case.file)
        else:
            python = _environment(folder, case.needs) if case.needs else Path(sys.executable)
            command = [str(python), str(SAMPLES / case.script), str(files)]
            environment = {**os.environ, "HOME": str(folder), "PYTHONWARNINGS": "ignore"}
            subprocess.run(command, cwd=SAMPLES, env=environment, check=True, stdout=subprocess.DEVNULL)
    file = files / case.file
    return Path(shutil.make_archive(str(file), "zip", file)) if file.is_dir() else file


def measured(wl: Any, case: Case, file: Path, home: Path) -> list[str]:
    """A line of the table."""
    schemas = {}
    if case.inputs:
        schemas = {"input_schema": pa.schema(case.inputs), "output_schema": pa.schema(case.outputs)}

    def upload() -> None:
        version = wl.upload_model("sample", str(file), case.framework, **schemas)
        assert version.status() == "ready", version.get_upload_logs()

    known = _environments(home)
    first_s, again_s = timed(upload), timed(upload)
    model = wl.get_model("sample")
    built = SETTLED.search("\n".join(model.get_upload_logs()))
    is_new = _environments(home) != known
    pipeline = wl.build_pipeline("sample").clear().add_model_step(model)
    deploy_s = timed(pipeline.deploy)
    frame = pd.DataFrame({name: [value] for name, value in case.row.items()})
    step = []
    for _ in range(WARM + CALLS):
        answer = pipeline.infer(frame, dataset=["time", "out", "metadata"])
        step.append(int(answer.loc[0, "metadata.elapsed"][1]) / 1e6)
    library_ms = called_directly(case, file, _interpreter_of_the_worker(home))
    pipeline.undeploy()
    packages, size, took = built.groups() if built else ("", "", "")
    return [
        case.title,
        f"{float(took):.0f} s" if is_new else "there already" if built else "none",
        f"{packages}, {size} MB" if built else "",
        f"{first_s:.1f} s",
        f"{again_s:.1f} s",
        f"{deploy_s:.1f} s",
        f"{library_ms:.2f} ms",
        f"{best(step[WARM:]) - library_ms:.2f} ms",
    ]


def best(taken: list[float]) -> float:
    """The median of the fastest tenth."""
    return statistics.median(sorted(taken)[:KEPT])


def called_directly(case: Case, file: Path, python: str) -> float:
    """One call of the library without the platform, in ms."""
    done = subprocess.run(
        [python, "-c", TIMED.format(code=case.direct, warm=WARM, calls=CALLS, kept=KEPT), str(file)],
        env={"PATH": os.environ["PATH"], "HOME": str(file.parent), "OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "2"},
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return float(done.stdout.splitlines()[-1])


def section(rows: Sequence[Sequence[str]]) -> str:
    heads = (
        *("model", "environment built in", "packages, size", "first upload", "the same again", "deploy"),
        *("one row: the library", "over it in the step"),
    )
    return f"""## Frameworks

{report.made_by(COMMAND)}

{report.table(heads, rows)}

One of the small samples of [examples/models](../examples/models) each, on a platform whose cache is empty; packages
come from where pip has them on that machine. *The library* is a direct call in the same environment. *Over it in the
step* is the way to the worker and back, with what it takes to make of columns what the framework wants. What the SDK,
HTTP, checks and the log add is the same for all of them: it stands under the main job. Of {CALLS} calls the fastest
tenth counts. How each is got: [benchmarks/frameworks.py](../benchmarks/frameworks.py).
"""


def _own_sample(case: Case, file: Path) -> None:
    """The samples that no script makes."""
    if case.framework is Framework.ONNX:
        from batching import network  # type: ignore[import-not-found]

        file.write_bytes(network(18, 64, 2))
        return
    import zipfile

    step = (
        "from mac.types import InferenceData\n\n\n"
        "def process_data(input_data: InferenceData) -> InferenceData:\n"
        '    return {"total": input_data["inputs"].sum(axis=1)}\n'
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("step.py", step)


def _environment(folder: Path, needs: Sequence[str]) -> Path:
    """The Python of a throwaway environment with these packages, from the index that pip is configured for."""
    from bettong.packaging.index import from_pip

    venv = folder / re.sub(r"[^a-z0-9]+", "-", " ".join(needs))
    python = venv / "bin" / "python"
    if not venv.exists():
        index = from_pip(os.environ, home=Path.home(), prefix=Path(sys.prefix))
        subprocess.run([uv.find_uv_bin(), "venv", "-q", "--python", sys.executable, str(venv)], check=True)
        words = ["pip", "install", "-q", "--python", str(python), "--index-strategy", "unsafe-best-match"]
        subprocess.run([uv.find_uv_bin(), *words, *index.arguments, *needs], check=True)
    return python


def _environments(home: Path) -> set[Path]:
    return {p for p in (home / "environments").iterdir() if (p / "built.json").is_file()}


def _interpreter_of_the_worker(home: Path) -> str:
    """The Python of the one model that is deployed; that of this process for a model that runs in the replica."""
    workers = (words for process in ours(home) if "mac._worker" in " ".join(words := process.cmdline()))
    return next((words[0] for words in workers), sys.executable)


if __name__ == "__main__":
    main(sys.argv[1:])
