"""CIFAR-100, not measured: ResNet-34 teaches ResNet-18.

python scripts/run.py --config=configs/cifar100.py --config.dataset.data_dir=<prepared TFDS folder>

The networks need an accelerator. The variant `smoke` has the plain convolutional network instead.

`--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import ACCELERATOR, COLOUR_IMAGES, SMOKE, reference

VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": {**SMOKE, "teacher.model.name": "cnn", "student.model.name": "cnn"},
    # The same networks in bf16, with a longer training of the teacher.
    "gpu": ACCELERATOR,
    # The settings of the CAKE authors' code: ResNet-18 teaches ResNet-18.
    "reference": reference(network="resnet18", augment=("autoaugment_cifar10",)),
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "cifar100"
    config.teacher.model.name = "resnet34"
    config.teacher.augment = ("crop", "flip")
    config.student.model.name = "resnet18"
    config.student.epochs = 200  # 10 million views
    config.update_from_flattened_dict(COLOUR_IMAGES)
    config.synthesis.num_batches = 100
    return with_variant(config, variant, VARIANTS)
