"""IDEAL on MNIST: a teacher that answers with hard labels alone is copied with 25,000 queries in all.

python scripts/run.py --config=configs/ideal.py --config.dataset.data_dir=<prepared TFDS folder>

Cost: half an hour on one CPU core. Expect, over seeds 0, 1 and 2, a teacher of 99.3 % and a student of 97.0 %
(`results/ideal_mnist.json`). Settings were chosen on images held out of the training set.

The teacher is a black box in disguise; behind an address it takes `--config.black_box.url` and nothing else.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant

VARIANTS: dict[str, dict[str, Any]] = {
    # A short trial.
    "smoke": {
        "dataset.max_train_examples": 2000,
        "teacher.epochs": 2,
        "student.epochs": 2,
        "synthesis.num_batches": 3,
        "methods.ideal.num_steps": 4,
    },
    # LeNet-5 teaches LeNet-5-half, as in configs/mnist.py.
    "lenet5": {"teacher.model.name": "lenet5", "student.model.name": "lenet5_half"},
    # The generator, the augmentation and the training of IDEAL's released code, which trains one student all the way.
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
    """The config of a variant: none, or a name in `VARIANTS`."""
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
