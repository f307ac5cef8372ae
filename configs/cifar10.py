"""CIFAR-10: a residual network of 0.7 million parameters teaches one of 0.3 million.

python scripts/run.py --config=configs/cifar10.py --config.dataset.data_dir=<prepared TFDS folder>

Cost: 28 minutes on 2 CPU cores, of which the teacher takes 16 and the student 11 (`results/cifar10.json`). Test
accuracy over three seeds: teacher 86.1 %, student 77.3 % (`results/cifar10_seeds.json`). The settings were chosen on
training images. `docs/results.md` has the controls. There, `inversion` with 64 steps, which reads the teacher's
batch-norm statistics, reaches 80.9 % (one seed).
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import ACCELERATOR, COLOUR_IMAGES, SMOKE, reference

VARIANTS: dict[str, dict[str, Any]] = {
    "smoke": SMOKE,
    # ResNet-34 teaches ResNet-18 on an accelerator, with 10 million views. Not measured.
    "gpu": ACCELERATOR,
    # The settings of the CAKE authors' code: ResNet-18 teaches ResNet-18. `:reference4` has its smallest networks.
    "reference": reference(network="resnet18", augment=("randaugment",)),
    "reference4": reference(network="resnet4", augment=("randaugment",)),
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "cifar10"
    config.teacher.model.name = "resnet_small"
    config.teacher.learning_rate = 0.2
    config.teacher.augment = ("crop", "flip")
    config.student.model.name = "resnet_tiny"
    config.student.epochs = 100  # 1 million views
    config.update_from_flattened_dict(COLOUR_IMAGES)
    config.student.batch_size = 64  # on a CPU, small batches take hardly longer, and the student learns faster
    config.synthesis.num_batches = 20
    return with_variant(config, variant, VARIANTS)
