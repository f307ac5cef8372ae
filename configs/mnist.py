"""MNIST: LeNet-5 teaches LeNet-5-half.

python scripts/run.py --config=configs/mnist.py --config.dataset.data_dir=<prepared TFDS folder>

Cost: 2 minutes on 2 CPU cores. Test accuracy over three seeds: teacher 99.3 %, student 98.5 % (`results/mnist.json`).
The settings were chosen on training images.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import GREY_IMAGES, SMOKE, grey_reference, stored_labels

VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    # The same samples without views: the student learns from stored labels. To compare methods by their samples alone.
    "few": {
        **stored_labels(),
        "student.epochs": 30,
        "student.batch_size": 128,
        "student.temperature": 20.0,  # practically the same as matching the logits
    },
    # The settings of the CAKE authors' code: ResNet-18 teaches ResNet-18, at 32 x 32 pixels. `:reference4` has its
    # smallest residual networks.
    "reference": {**grey_reference(network="resnet18"), "dataset.name": "mnist32"},
    "reference4": {**grey_reference(network="resnet4"), "dataset.name": "mnist32"},
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "mnist"
    config.teacher.model.name = "lenet5"
    config.teacher.epochs = 12
    config.student.model.name = "lenet5_half"
    config.student.epochs = 300  # 3 million views
    config.update_from_flattened_dict(GREY_IMAGES)
    return with_variant(config, variant, VARIANTS)
