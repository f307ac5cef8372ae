"""SVHN, cropped house numbers, not measured: a residual network of 0.7 million parameters teaches one of 0.3 million.

python scripts/run.py --config=configs/svhn.py --config.dataset.data_dir=<prepared TFDS folder>

`--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import ACCELERATOR, COLOUR_IMAGES, SMOKE, reference

VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    # ResNet-34 teaches ResNet-18 on an accelerator, with 10 million views. Not measured.
    "gpu": ACCELERATOR,
    # The settings of the CAKE authors' code: ResNet-18 teaches ResNet-18.
    "reference": reference(network="resnet18", num_batches=512, augment=("autoaugment_svhn",)),
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "svhn_cropped"
    config.teacher.model.name = "resnet_small"
    config.teacher.learning_rate = 0.2
    config.teacher.augment = ("crop",)
    config.student.model.name = "resnet_tiny"
    config.student.epochs = 100  # 1 million views
    config.update_from_flattened_dict(COLOUR_IMAGES)
    config.student.batch_size = 64  # on a CPU, small batches take hardly longer, and the student learns faster
    config.student.augment = ("crop",)  # a digit is not its mirror image
    config.synthesis.num_batches = 20
    return with_variant(config, variant, VARIANTS)
