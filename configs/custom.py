"""A template for your own teacher and your own data. Copy it and change the fields.

python scripts/run.py --config=configs/custom.py --config.dataset.data_dir=<file.npz> --config.teacher.weights=<file>

Cost and accuracy depend on your networks and data. `--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import reference

VARIANTS: dict[str, dict[str, Any]] = {
    # A short trial run, to see whether everything works together.
    "smoke": {
        "dataset.max_train_examples": 2000,
        "teacher.epochs": 1,
        "student.epochs": 1,
        "synthesis.num_batches": 1,
        "synthesis.num_steps": 8,
    },
    # The CAKE reference's settings for colour images.
    "reference": reference(),
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()

    # Data: one file with x_train, y_train, x_test and y_test. Or set name = "folder", and data_dir to a folder with
    # train/<class>/*.png and test/<class>/*.png. The data evaluate the student, and train the teacher if it has no
    # weights yet.
    config.dataset.name = "npz"
    config.dataset.data_dir = "data/mine.npz"
    # Mean and standard deviation that your weights were trained with, for pixels from 0 to 1. ImageNet's are
    # (0.485, 0.456, 0.406) and (0.229, 0.224, 0.225). If empty, they are measured on the training data, which is right
    # for a teacher that is trained here.
    config.dataset.mean = ()
    config.dataset.std = ()

    # Teacher: an architecture (a name in `cake_jax.models.MODELS`), its options (fields of its Flax module), and a file
    # of weights: .safetensors or a PyTorch state_dict. If weights is empty, the teacher is trained here. With
    # teacher.from_run = "runs/..." the teacher of an earlier run is used. A live PyTorch module or a function can be a
    # teacher in Python code only: see docs/teachers.md.
    config.teacher.model.name = "resnet18"
    config.teacher.model.options = ConfigDict({"imagenet_stem": False})
    config.teacher.weights = ""

    # Student.
    config.student.model.name = "resnet18"
    config.student.epochs = 30

    # Samples. Good weights depend on the data. For colour images, the total variation (tv) helps.
    config.synthesis.num_batches = 20
    config.synthesis.batch_size = 500
    config.synthesis.num_groups = 2  # samples in a set, with as many different target classes
    config.synthesis.num_steps = 64
    config.synthesis.weights.cls = 1e3
    config.synthesis.weights.contr = 1e1
    config.synthesis.weights.tv = 1e5
    return with_variant(config, variant, VARIANTS)
