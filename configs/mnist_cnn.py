"""MNIST, not measured: a convolutional network teaches the same architecture, the reference's first experiment.

python scripts/run.py --config=configs/mnist_cnn.py --config.dataset.data_dir=<prepared TFDS folder>

`--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import GREY_IMAGES, SMOKE, grey_reference

VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    # The settings of the CAKE authors' code for this experiment.
    "reference": {
        **grey_reference(network="cnn", learning_rate=0.1),
        "teacher.epochs": 10,
        "student.epochs": 10,
        "student.batch_size": 128,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "mnist"
    config.teacher.model.name = "cnn"
    config.teacher.epochs = 4
    config.student.model.name = "cnn"
    config.student.epochs = 50  # half a million views
    config.update_from_flattened_dict(GREY_IMAGES)
    return with_variant(config, variant, VARIANTS)
