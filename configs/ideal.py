"""IDEAL on MNIST: the teacher answers with hard labels only, and the budget is 25,000 queries.

python scripts/run.py --config=configs/ideal.py --config.dataset.data_dir=<prepared TFDS folder>

Cost: half an hour on one CPU core. Mean test accuracy over seeds 0, 1 and 2: teacher 99.3 %, student 97.0 %
(`results/ideal_mnist.json`). The settings were chosen on images held out of the training set.

The run trains the teacher itself and then queries it as a black box. For a teacher behind an HTTP endpoint, only
`--config.black_box.url` has to be set.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant

VARIANTS: dict[str, dict[str, Any]] = {
    # A short trial run.
    "smoke": {
        "dataset.max_train_examples": 2000,
        "teacher.epochs": 2,
        "student.epochs": 2,
        "synthesis.num_batches": 3,
        "methods.ideal.num_steps": 4,
    },
    # The teacher alone. Other runs take it with --config.teacher.from_run=runs/ideal-pretrain.
    "pretrain": {"black_box.answers": "", "run.synthesis": False, "run.student": False},
    # The networks of configs/mnist.py: LeNet-5 teaches LeNet-5-half.
    "lenet5": {"teacher.model.name": "lenet5", "student.model.name": "lenet5_half"},
    # The generator, augmentation and training of IDEAL's released code. There the guide student is the final student.
    "reference": {
        "methods.ideal.features": (128, 128, 64),
        "methods.ideal.spread": 0.0,
        "methods.ideal.moments": False,
        "methods.ideal.blur": 0.0,
        "methods.ideal.smoothness": 0.0,
        "methods.ideal.student.augment": ("flip",),
        "methods.ideal.student.batch_size": 250,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "mnist"
    config.method = "ideal"
    config.black_box.answers = "labels"
    config.black_box.budget = 25_000
    config.teacher.model.name = "ideal_lenet"
    config.teacher.epochs = 8
    config.student.model.name = "ideal_lenet"
    config.student.batch_size = 128
    config.student.hard_weight = 1.0
    config.synthesis.num_batches = 100
    config.synthesis.batch_size = 250
    config.methods.ideal.blur = 1.0
    config.methods.ideal.smoothness = 2.0
    config.methods.ideal.student.epochs = 1
    config.methods.ideal.student.batch_size = 25
    config.methods.ideal.student.learning_rate = 0.01
    config.methods.ideal.student.augment = ("crop",)
    return with_variant(config, variant, VARIANTS)
