"""Residual networks of four sizes, each teaching all four, on scikit-learn's digits or on CIFAR-10.

python scripts/matrix.py --config=configs/ladder.py --models=resnet20,resnet14,resnet8,thin8 --seeds=0,1,2

The variant `<teacher>-<student>` is one cell of the matrix: `configs/ladder.py:resnet20-resnet8`. The experiment
follows Fig. 2 of CAKE (arXiv 2306.02090), whose networks are ResNet-152, 101, 50, 34, 18 and 4 on CIFAR-10. With those
names, the config is that of `configs/cifar10.py:gpu` with these networks:

python scripts/matrix.py --config=configs/ladder.py --models=resnet152,resnet101,resnet50,resnet34,resnet18,resnet4

Cost on digits: 22 minutes on 2 CPU cores. Test accuracy: teachers 98.1 to 98.7 %, students 94.5 to 97.9 %
(`results/ladder_digits.json`). Not measured on CIFAR-10.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default
from cake_jax.recipes import ACCELERATOR, ASKING, COLOUR_IMAGES
from cake_jax.types import CakeError

# By size, the options of a residual network for the digits. `thin8` has half the channels of ResNet-8.
SMALL: dict[str, dict[str, Any]] = {
    "resnet20": {"blocks": (3, 3, 3)},
    "resnet14": {"blocks": (2, 2, 2)},
    "resnet8": {"blocks": (1, 1, 1)},
    "thin8": {"blocks": (1, 1, 1), "features": (8, 16, 32)},
}
LARGE = ("resnet152", "resnet101", "resnet50", "resnet34", "resnet18", "resnet4")


def get_config(variant: str = "resnet8-thin8") -> ConfigDict:
    """The config of a cell. `variant` is `<teacher>-<student>`, with `-smoke` behind it for a short trial run."""
    teacher, _, rest = variant.partition("-")
    student, _, trial = rest.partition("-")
    small = {teacher, student} <= set(SMALL)
    if not (small or {teacher, student} <= set(LARGE)) or trial not in ("", "smoke"):
        raise CakeError(
            f"config: no variant '{variant}'; it is <teacher>-<student>, both of {', '.join(SMALL)}, or both of "
            f"{', '.join(LARGE)}"
        )
    config = default()
    if small:
        config.dataset.name = "digits"
        config.update_from_flattened_dict(ASKING)
        config.synthesis.num_batches = 4
        config.synthesis.num_steps = 64
        config.synthesis.weights.contr = 0.5
        config.student.epochs = 50  # 100,000 views
        for section, name in ((config.teacher, teacher), (config.student, student)):
            section.model.name = "resnet20"
            section.model.options = ConfigDict(SMALL[name])
            section.batch_size = 64
    else:
        config.dataset.name = "cifar10"
        config.update_from_flattened_dict({**COLOUR_IMAGES, **ACCELERATOR})
        config.teacher.learning_rate = 0.2
        config.teacher.augment = ("crop", "flip")
        config.teacher.model.name, config.student.model.name = teacher, student
    if trial:
        config.dataset.max_train_examples = 500
        config.teacher.epochs = config.student.epochs = config.synthesis.num_batches = 1
        config.synthesis.num_steps = 4
    return config
