"""Make small Keras models with random weights: python make_keras.py [FOLDER]

Needs tensorflow or tensorflow-cpu, with Keras 2 or 3. A folder in the result is a SavedModel: zip it before the upload.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf
from tensorflow import keras


def plain():
    """Ten numbers in, 32 out."""
    dense = keras.layers.Dense
    return keras.Sequential([keras.layers.Input((10,)), dense(16, activation="relu"), dense(32)])


def houses():
    """Two inputs and two outputs with names: numbers of a house, and an image of 4 x 4 grey values."""
    numbers, image = keras.Input((3,), name="numbers"), keras.Input((4, 4), name="image")
    joined = keras.layers.Concatenate()([numbers, keras.layers.Flatten()(image)])
    price, kind = keras.layers.Dense(1, name="price")(joined), keras.layers.Dense(3, name="kind")(joined)
    return keras.Model([numbers, image], [price, kind])


class Twice(keras.layers.Layer):
    """A layer of one's own."""

    def call(self, inputs):
        return inputs * 2.0


def main(folder):
    folder.mkdir(parents=True, exist_ok=True)
    tf.random.set_seed(7)
    model = plain()
    model.save(str(folder / "plain.keras"))
    model.save(str(folder / "plain.h5"))
    houses().save(str(folder / "houses.keras"))
    own = keras.Sequential([keras.layers.Input((10,)), Twice()])
    model.export(str(folder / "plain"))
    own.export(str(folder / "own"))  # a SavedModel holds what the layer computes

    # what people upload by mistake
    own.save(str(folder / "own.keras"))  # ... and this file its name
    model.save_weights(str(folder / "only.weights.h5"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
