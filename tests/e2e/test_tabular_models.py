"""scikit-learn, XGBoost and MLflow models from the file to the answer, compared with the library called directly."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from framework_kit import SAMPLES, Bench, Library, library

from bettong.errors import ModelFailed
from wallaroo.framework import CustomConfig, Framework

if TYPE_CHECKING:
    from pathlib import Path

    import wallaroo

pytestmark = [pytest.mark.framework, pytest.mark.timeout(600)]

TABLE = {"rooms": [2.0, 4.0, 5.5], "area": [40.0, 95.0, 180.0], "age": [70.0, 10.0, 3.0]}
ROWS = np.array(list(TABLE.values())).T
AS_LIST = {"inputs": pa.array(ROWS.tolist(), pa.list_(pa.float64()))}
AS_COLUMNS = {name: pa.array(values) for name, values in TABLE.items()}
NUMBER, WHOLE, NUMBERS = pa.float64(), pa.int64(), pa.list_(pa.float64())
TOWNS = ["north", "south", "north"]
TEXTS = ["good roof", "bad"]

# What each model is asked directly: (file, rows, methods, class of a saved wrapper)
ASKED: list[tuple[str, object, list[str], str]] = [
    ("linear.pkl", ROWS.tolist(), ["predict"], ""),
    ("forest.joblib", ROWS.tolist(), ["predict", "predict_proba"], ""),
    ("clusters.pkl", ROWS.tolist(), ["predict", "transform"], ""),
    ("svm.pkl", ROWS.tolist(), ["predict", "decision_function"], ""),
    ("pca_pipeline.joblib", ROWS.tolist(), ["predict", "predict_proba"], ""),
    ("scaler.pkl", ROWS.tolist(), ["transform"], ""),
    ("logistic.pkl", TABLE, ["predict", "predict_proba"], ""),
    ("towns.joblib", {**TABLE, "town": TOWNS}, ["predict"], ""),
    ("words.pkl", TEXTS, ["predict"], ""),
    ("regressor.pkl", ROWS.tolist(), ["predict"], ""),
    ("forest_regressor.pkl", ROWS.tolist(), ["predict"], ""),
    ("classifier.pkl", ROWS.tolist(), ["predict", "predict_proba"], ""),
    ("forest_classifier.pkl", ROWS.tolist(), ["predict"], ""),
    ("several.json", ROWS.tolist(), ["predict"], "XGBClassifier"),
    ("regressor.json", ROWS.tolist(), ["predict"], "XGBRegressor"),
    ("booster.pkl", ROWS.tolist(), ["predict"], ""),
    ("softprob.json", ROWS.tolist(), ["predict"], ""),
    ("softprob.ubj", ROWS.tolist(), ["predict"], ""),
]
DIRECT = """
import json, sys, joblib, numpy as np, pandas as pd, xgboost

def answers(file, table, methods, saved):
    path = sys.argv[1] + "/" + file
    if path.endswith(("json", "ubj")):
        model = getattr(xgboost, saved or "Booster")()
        model.load_model(path)
    else:
        model = joblib.load(path)
    table = pd.DataFrame(table) if isinstance(table, dict) else np.array(table) if isinstance(table[0], list) else table
    if isinstance(model, xgboost.Booster):
        table = xgboost.DMatrix(table, feature_names=model.feature_names)
    return {name: np.asarray(getattr(model, name)(table)).tolist() for name in methods}

print(json.dumps({one[0]: answers(*one) for one in json.loads(sys.argv[2])}))
"""
PYFUNC = """
import json, sys, pandas as pd, mlflow.pyfunc
print(json.dumps(mlflow.pyfunc.load_model(sys.argv[1]).predict(pd.DataFrame(json.loads(sys.argv[2]))).tolist()))
"""


@pytest.fixture(scope="module")
def bench(shared_home: Path) -> Bench:
    return Bench(shared_home)


@pytest.fixture(scope="module")
def today(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """The libraries of today, on the platform's own Python."""
    packages = ("scikit-learn", "xgboost-cpu", "pandas", "joblib", "cloudpickle", "mlflow-skinny", "skops")
    return library(tmp_path_factory.mktemp("today"), (3, 11), *packages)


@pytest.fixture(scope="module")
def models(today: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for script in ("make_sklearn.py", "make_xgboost.py", "make_mlflow.py"):
        today.make(script, folder)
    return folder


@pytest.fixture(scope="module")
def of_2022(tmp_path_factory: pytest.TempPathFactory) -> Library:
    """scikit-learn 1.0 and XGBoost 1.5, which have no wheels for today's Python or do not go with today's numpy."""
    packages = ("scikit-learn==1.0.2", "xgboost==1.5.2", "pandas<1.5.2", "numpy<1.24", "setuptools<65", "cloudpickle")
    return library(tmp_path_factory.mktemp("of-2022"), (3, 10), *packages)


@pytest.fixture(scope="module")
def old_models(of_2022: Library, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("old-models")
    for script in ("make_sklearn.py", "make_xgboost.py"):
        of_2022.make(script, folder)
    return folder


@pytest.fixture(scope="module")
def direct(today: Library, models: Path) -> dict[str, dict[str, Any]]:
    """What the libraries answer when they are called directly, by file and method."""
    found: dict[str, dict[str, Any]] = today.says(DIRECT, models, json.dumps(ASKED))
    return found


@pytest.fixture(scope="module")
def direct_of_2022(of_2022: Library, old_models: Path) -> dict[str, dict[str, Any]]:
    files = ("forest.joblib", "booster.pkl")
    found: dict[str, dict[str, Any]] = of_2022.says(
        DIRECT, old_models, json.dumps([one for one in ASKED if one[0] in files])
    )
    return found


# --- scikit-learn ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "outputs", "methods"),
    [
        ("linear.pkl", {"predictions": NUMBER}, ["predict"]),
        ("forest.joblib", {"kind": WHOLE, "chances": NUMBERS}, ["predict", "predict_proba"]),
        ("clusters.pkl", {"predictions": pa.int32(), "transformed": NUMBERS}, ["predict", "transform"]),
        ("svm.pkl", {"predictions": WHOLE, "decision": NUMBERS}, ["predict", "decision_function"]),
        ("pca_pipeline.joblib", {"probabilities": NUMBERS, "predictions": WHOLE}, ["predict_proba", "predict"]),
        ("scaler.pkl", {"scaled": NUMBERS}, ["transform"]),
    ],
)
def test_a_model_answers_what_the_library_does(
    bench: Bench, models: Path, direct: Any, file: str, outputs: dict[str, pa.DataType], methods: list[str]
) -> None:
    answer = bench.answers("sklearn", models / file, AS_LIST, outputs)

    assert answer == dict(zip(outputs, (direct[file][method] for method in methods), strict=True))


def test_a_column_per_feature_in_the_order_of_training_is_the_same_as_a_list(
    bench: Bench, models: Path, direct: Any
) -> None:
    outputs = {"predictions": WHOLE}

    answer = bench.answers("sklearn", models / "pca_pipeline.joblib", AS_COLUMNS, outputs)

    assert answer["predictions"] == direct["pca_pipeline.joblib"]["predict"]


def test_columns_are_matched_by_the_names_of_training_whatever_their_order(
    bench: Bench, models: Path, direct: Any
) -> None:
    expected = direct["logistic.pkl"]
    backwards = dict(reversed(AS_COLUMNS.items()))
    outputs = {"predictions": WHOLE, "probabilities": NUMBERS}

    answer = bench.answers("sklearn", models / "logistic.pkl", backwards, outputs)

    assert answer == {"predictions": expected["predict"], "probabilities": expected["predict_proba"]}
    assert bench.answers("sklearn", models / "logistic.pkl", AS_LIST, outputs) == answer


def test_texts_and_numbers_of_a_table_keep_their_types(bench: Bench, models: Path, direct: Any) -> None:
    rows: dict[str, Any] = {"town": pa.array(TOWNS), **AS_COLUMNS}

    answer = bench.answers("sklearn", models / "towns.joblib", rows, {"price": NUMBER})

    assert answer["price"] == pytest.approx(direct["towns.joblib"]["predict"], rel=1e-12)


def test_a_column_of_texts_goes_to_a_model_of_texts(bench: Bench, models: Path, direct: Any) -> None:
    answer = bench.answers("sklearn", models / "words.pkl", {"text": pa.array(TEXTS)}, {"label": pa.string()})

    assert answer["label"] == direct["words.pkl"]["predict"]
    assert answer["label"] == ["yes", "no"]


@pytest.mark.parametrize(
    ("inputs", "outputs", "words"),
    [
        (
            {"rooms": NUMBER, "area": NUMBER},
            {"predictions": WHOLE},
            "has 2 fields, the model was trained on 3 features",
        ),
        (
            {"rooms": NUMBER, "area": NUMBER, "old": NUMBER},
            {"predictions": WHOLE},
            "fields old, which the model was not",
        ),
        ({"inputs": NUMBERS}, {"transformed": NUMBERS}, "asks for what a LogisticRegression does not have: transform"),
        ({"inputs": NUMBERS}, {"a": WHOLE, "b": NUMBERS, "c": NUMBER}, "predict gives 1 values per row"),
        ({"inputs": NUMBERS}, {"probabilities": NUMBER}, "predict_proba gives 3 values per row"),
    ],
)
def test_schemas_that_do_not_fit_the_model_are_refused_with_words(
    bench: Bench, models: Path, inputs: dict[str, pa.DataType], outputs: dict[str, pa.DataType], words: str
) -> None:
    rows = {name: pa.array([[1.0] * 3] if kind == NUMBERS else [1.0], kind) for name, kind in inputs.items()}

    with pytest.raises(ModelFailed, match=words):
        bench.answers("sklearn", models / "logistic.pkl", rows, outputs)


def test_a_pickle_of_scikit_learn_1_0_runs_on_the_release_and_the_python_that_fit_it(
    bench: Bench, old_models: Path, direct_of_2022: Any
) -> None:
    expected = direct_of_2022["forest.joblib"]
    outputs = {"predictions": WHOLE, "probabilities": NUMBERS}

    packaged = bench.package("sklearn", old_models / "forest.joblib")
    answer = bench.answers("sklearn", old_models / "forest.joblib", AS_LIST, outputs)

    assert packaged.installed["scikit-learn"] == "1.0.2"
    assert (packaged.environment / "lib" / "python3.10").is_dir()
    assert "written with scikit-learn 1.0.2" in "\n".join(packaged.log)
    assert answer == {"predictions": expected["predict"], "probabilities": expected["predict_proba"]}


# --- XGBoost --------------------------------------------------------------------------------------------------------

FLOAT, FLOATS = pa.float32(), pa.list_(pa.float32())


@pytest.mark.parametrize(
    ("file", "outputs", "methods"),
    [
        ("regressor.pkl", {"predictions": FLOAT}, ["predict"]),
        ("regressor.json", {"output": FLOAT}, ["predict"]),
        ("classifier.pkl", {"predictions": WHOLE, "probabilities": FLOATS}, ["predict", "predict_proba"]),
        ("several.json", {"predictions": WHOLE}, ["predict"]),
        ("forest_regressor.pkl", {"output": FLOAT}, ["predict"]),
        ("forest_classifier.pkl", {"predictions": FLOAT}, ["predict"]),
        ("booster.pkl", {"predictions": FLOAT}, ["predict"]),
        ("softprob.ubj", {"predictions": FLOATS}, ["predict"]),
    ],
)
def test_xgboost_answers_what_the_library_does(
    bench: Bench, models: Path, direct: Any, file: str, outputs: dict[str, pa.DataType], methods: list[str]
) -> None:
    answer = bench.answers("xgboost", models / file, AS_LIST, outputs)

    for name, method in zip(outputs, methods, strict=True):
        assert np.array_equal(np.array(answer[name], np.float32), np.array(direct[file][method], np.float32))


@pytest.mark.parametrize(("file", "rows"), [("booster.pkl", AS_LIST), ("softprob.json", AS_COLUMNS)])
def test_a_booster_of_classes_has_probabilities(
    bench: Bench, models: Path, direct: Any, file: str, rows: dict[str, Any]
) -> None:
    predicted = np.array(direct[file]["predict"], np.float32)

    answer = bench.answers("xgboost", models / file, rows, {"probabilities": FLOATS})

    both = predicted if predicted.ndim == 2 else np.stack([1 - predicted, predicted], axis=1)
    assert np.array_equal(np.array(answer["probabilities"], np.float32), both)


def test_a_pickle_of_xgboost_1_5_runs_on_its_own_release_with_the_packages_of_its_time(
    bench: Bench, old_models: Path, direct_of_2022: Any
) -> None:
    expected = np.array(direct_of_2022["booster.pkl"]["predict"], np.float32)

    packaged = bench.package("xgboost", old_models / "booster.pkl")
    answer = bench.answers("xgboost", old_models / "booster.pkl", AS_LIST, {"output": FLOAT})

    assert packaged.installed["xgboost"] == "1.5.2"
    assert packaged.installed["numpy"].startswith("1.")
    assert np.array_equal(np.array(answer["output"], np.float32), expected)


# --- MLflow ---------------------------------------------------------------------------------------------------------


def test_an_mlflow_model_answers_what_its_pyfunc_does(
    bench: Bench, today: Library, models: Path, tmp_path: Path
) -> None:
    with zipfile.ZipFile(models / "mlflow.zip") as zipped:
        zipped.extractall(tmp_path)
    expected = today.says(PYFUNC, tmp_path, json.dumps(TABLE))

    packaged = bench.package("mlflow", models / "mlflow.zip")
    answer = bench.answers("mlflow", models / "mlflow.zip", AS_COLUMNS, {"price": NUMBER})

    assert answer["price"] == pytest.approx(expected, rel=1e-12)
    assert "mlflow" not in packaged.installed
    assert "mlflow-skinny" in packaged.installed
    assert "is answered by 'mlflow-skinny==" in "\n".join(packaged.log)


# --- as a person does it --------------------------------------------------------------------------------------------


def test_a_person_uploads_deploys_and_asks(wl: wallaroo.Client, models: Path, direct: Any) -> None:
    schemas = pa.schema([pa.field("inputs", NUMBERS)]), pa.schema([pa.field("predictions", NUMBER)])

    version = wl.upload_model(
        "linear", models / "linear.pkl", Framework.SKLEARN, input_schema=schemas[0], output_schema=schemas[1]
    )
    assert version.status() == "ready", (version.error_summary(), version.get_upload_logs())
    pipeline = wl.build_pipeline("linear").clear().add_model_step(version).deploy()
    answer = pipeline.infer(pd.DataFrame({"inputs": ROWS.tolist()}))
    pipeline.undeploy()

    assert answer["out.predictions"].tolist() == direct["linear.pkl"]["predict"]
    assert str(version.image_path()).startswith("bettong/model-worker:")
    assert version.config().runtime() == "flight"


def test_a_custom_model_gets_its_file_and_its_options(wl: wallaroo.Client, tmp_path: Path) -> None:
    subprocess.run([sys.executable, SAMPLES / "make_custom.py", tmp_path], check=True)
    inputs = pa.schema([pa.field("price", NUMBER)])
    fields: list[pa.Field[Any]] = [pa.field("band", pa.int32()), pa.field("name", pa.string())]

    version = wl.upload_model(
        "bands", tmp_path / "bands.zip", Framework.CUSTOM, input_schema=inputs, output_schema=pa.schema(fields),
        framework_config=CustomConfig(shift=100.0),
    )  # fmt: skip
    assert version.status() == "ready", (version.error_summary(), version.get_upload_logs())
    pipeline = wl.build_pipeline("bands").clear().add_model_step(version).deploy()
    answer = pipeline.infer(pd.DataFrame({"price": [100.0, 200.0, 400.0]}))
    pipeline.undeploy()

    assert answer["out.band"].tolist() == [0, 1, 2]
    assert answer["out.name"].tolist() == ["low", "mid", "high"]
