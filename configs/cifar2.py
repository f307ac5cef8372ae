"""Airplanes and automobiles of CIFAR-10, not measured: a small residual network teaches a smaller one.

python scripts/run.py --config=configs/cifar2.py --config.dataset.data_dir=<prepared TFDS folder>

`--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import COLOUR_IMAGES, SMOKE, reference

VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    # The settings of the CAKE authors' code for CIFAR-10. It trains the teacher of this set without augmentation.
    "reference": reference(network="resnet18"),
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "cifar2"
    config.teacher.model.name = "resnet_small"
    config.teacher.learning_rate = 0.2
    config.teacher.augment = ("crop", "flip")
    config.student.model.name = "resnet_tiny"
    config.student.epochs = 100  # 1 million views
    config.update_from_flattened_dict(COLOUR_IMAGES)
    config.student.batch_size = 64  # on a CPU, small batches take hardly longer, and the student learns faster
    config.synthesis.num_groups = 2
    config.synthesis.num_batches = 20
    return with_variant(config, variant, VARIANTS)
