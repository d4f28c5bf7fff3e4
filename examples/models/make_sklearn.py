"""Make small scikit-learn models, one file each: python make_sklearn.py [FOLDER]

Needs scikit-learn, pandas, joblib and cloudpickle of any age. Three features of made-up houses: rooms, area, age.
"""

import pickle
import sys
from pathlib import Path

import cloudpickle
import joblib
import numpy as np
import pandas as pd
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer
from sklearn.decomposition import PCA
from sklearn.ensemble import RandomForestClassifier
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler
from sklearn.svm import SVC

FEATURES = ["rooms", "area", "age"]


def houses(rows=120):
    """(features as a DataFrame, price, class 0 to 2)"""
    random = np.random.RandomState(7)
    table = pd.DataFrame(random.rand(rows, 3) * [6, 200, 80], columns=FEATURES)
    price = table["area"] * 3.0 + table["rooms"] * 20.0 - table["age"]
    return table, price.to_numpy(), np.digitize(price, [250.0, 450.0])


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    table, price, kind = houses()
    array = table.to_numpy()

    # trained on an array: the rows come as one list column, or as three columns in this order
    (folder / "linear.pkl").write_bytes(pickle.dumps(LinearRegression().fit(array, price)))
    joblib.dump(RandomForestClassifier(10, random_state=1).fit(array, kind), folder / "forest.joblib", compress=3)
    (folder / "clusters.pkl").write_bytes(cloudpickle.dumps(KMeans(3, n_init=2, random_state=1).fit(array)))
    (folder / "svm.pkl").write_bytes(pickle.dumps(SVC(random_state=1).fit(array, kind)))
    pipeline = make_pipeline(StandardScaler(), PCA(2), LogisticRegression())
    joblib.dump(pipeline.fit(array, kind), folder / "pca_pipeline.joblib")
    (folder / "scaler.pkl").write_bytes(pickle.dumps(StandardScaler().fit(array)))

    # trained on a DataFrame: the columns of a request are matched by name
    (folder / "logistic.pkl").write_bytes(pickle.dumps(LogisticRegression(max_iter=5000).fit(table, kind)))
    mixed = table.assign(town=np.where(kind > 0, "north", "south"))
    columns = ColumnTransformer([("town", OneHotEncoder(), ["town"])], remainder=StandardScaler())
    joblib.dump(make_pipeline(columns, LinearRegression()).fit(mixed, price), folder / "towns.joblib")

    # takes texts, one per row
    texts = ["good house", "bad house", "good garden", "bad roof"]
    words = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, ["yes", "no", "yes", "no"])
    (folder / "words.pkl").write_bytes(pickle.dumps(words))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
