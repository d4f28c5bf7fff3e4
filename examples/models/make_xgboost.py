"""Make small XGBoost models, one file each: python make_xgboost.py [FOLDER]

Needs xgboost (or xgboost-cpu), scikit-learn and pandas of any age.
"""

import pickle
import sys
from pathlib import Path

import numpy as np
import xgboost
from make_sklearn import houses

SMALL = {"n_estimators": 5, "max_depth": 3}


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    table, price, kind = houses()
    array, high = table.to_numpy(), (kind > 1).astype(int)

    regressor = xgboost.XGBRegressor(**SMALL).fit(array, price)
    (folder / "regressor.pkl").write_bytes(pickle.dumps(regressor))
    regressor.save_model(folder / "regressor.json")
    (folder / "classifier.pkl").write_bytes(pickle.dumps(xgboost.XGBClassifier(**SMALL).fit(table, high)))
    several = xgboost.XGBClassifier(**SMALL).fit(array, kind)
    several.save_model(folder / "several.json")
    (folder / "forest_regressor.pkl").write_bytes(pickle.dumps(xgboost.XGBRFRegressor(**SMALL).fit(array, price)))
    (folder / "forest_classifier.pkl").write_bytes(pickle.dumps(xgboost.XGBRFClassifier(**SMALL).fit(array, high)))

    binary = xgboost.train({"objective": "binary:logistic", "max_depth": 3}, xgboost.DMatrix(array, high), 5)
    (folder / "booster.pkl").write_bytes(pickle.dumps(binary))
    softprob = {"objective": "multi:softprob", "num_class": 3, "max_depth": 3}
    named = xgboost.DMatrix(np.asarray(table), kind, feature_names=list(table.columns))
    xgboost.train(softprob, named, 5).save_model(folder / "softprob.json")
    if int(xgboost.__version__.split(".")[0]) >= 2:  # before, .ubj was another form
        xgboost.train(softprob, named, 5).save_model(folder / "softprob.ubj")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
