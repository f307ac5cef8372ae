"""Fashion-MNIST, not measured: LeNet-5 teaches LeNet-5-half, with the settings of `configs/mnist.py`.

python scripts/run.py --config=configs/fmnist.py --config.dataset.data_dir=<prepared TFDS folder>

`--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import ACCELERATOR, GREY_IMAGES, SMOKE, grey_reference

VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    # ResNet-34 teaches ResNet-18 on an accelerator, with 10 million views. Not measured.
    "gpu": ACCELERATOR,
    # The settings of the CAKE authors' code: ResNet-18 teaches ResNet-18, at 32 x 32 pixels.
    "reference": {
        **grey_reference(network="resnet18", learning_rate=0.1, augment=("randaugment",)),
        "dataset.name": "fashion_mnist32",
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "fashion_mnist"
    config.teacher.model.name = "lenet5"
    config.teacher.epochs = 12
    config.student.model.name = "lenet5_half"
    config.student.epochs = 300  # 3 million views
    config.update_from_flattened_dict(GREY_IMAGES)
    return with_variant(config, variant, VARIANTS)
