"""Twelve classes of ImageNet at 64 x 64 pixels, not measured: teacher and student are ResNet-18.

python scripts/run.py --config=configs/imagenet12.py --config.dataset.data_dir=<folder that holds imagenet12/>

`imagenet12/` holds `train/` and `val/`, each with one folder for each of twelve classes. Images of any size are scaled
and cut to 64 x 64. The networks need an accelerator. The variant `smoke` has the plain convolutional network instead.

`--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import ACCELERATOR, COLOUR_IMAGES, SMOKE, reference

VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": {
        **SMOKE,
        "teacher.model.name": "cnn",
        "student.model.name": "cnn",
        "dataset.max_train_examples": 500,
        "synthesis.batch_size": 100,
    },
    # The same networks in bf16, with a longer training of the teacher.
    "gpu": {**ACCELERATOR, "teacher.model.name": "resnet18", "synthesis.num_batches": 50},
    # The settings of the CAKE authors' code for CIFAR, with the networks and augmentation of this config.
    "reference": reference(augment=("crop", "flip")),
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "imagenet12"
    config.teacher.model.name = "resnet18"
    config.teacher.augment = ("crop", "flip")
    config.student.model.name = "resnet18"
    config.student.epochs = 200  # 5 million views
    config.update_from_flattened_dict(COLOUR_IMAGES)
    config.synthesis.num_batches = 50
    return with_variant(config, variant, VARIANTS)
