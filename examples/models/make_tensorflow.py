"""Make small SavedModels with TensorFlow alone, a folder each: python make_tensorflow.py [FOLDER]

Needs tensorflow or tensorflow-cpu. Zip a folder before the upload.
"""

import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import tensorflow as tf


class Houses(tf.Module):
    """Numbers of houses and the names of their towns in, prices and towns in capitals out."""

    def __init__(self):
        super().__init__()
        self.weights = tf.Variable([[3.0], [20.0], [-1.0]])

    @tf.function(
        input_signature=[
            tf.TensorSpec((None, 3), tf.float32, name="numbers"),
            tf.TensorSpec((None,), tf.string, name="town"),
        ]
    )
    def __call__(self, numbers, town):
        return {"price": tf.matmul(numbers, self.weights), "place": tf.strings.upper(town)}


def main(folder):
    model = Houses()
    tf.saved_model.save(model, str(folder / "houses"), signatures=model.__call__)

    # what people upload by mistake: without a signature nothing is served
    tf.saved_model.save(tf.Module(), str(folder / "unsigned"))


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
