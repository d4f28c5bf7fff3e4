"""Make a zip of an MLflow model: python make_mlflow.py [FOLDER]

Needs mlflow (mlflow-skinny and skops do) and scikit-learn.
"""

import shutil
import sys
import tempfile
from pathlib import Path

import mlflow.sklearn
from make_sklearn import houses
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    table, price, _ = houses()
    model = LinearRegression().fit(table, price)
    with tempfile.TemporaryDirectory() as temporary:
        saved = Path(temporary, "model")
        mlflow.sklearn.save_model(model, saved, signature=infer_signature(table, model.predict(table)))
        shutil.make_archive(str(folder / "mlflow"), "zip", saved)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
