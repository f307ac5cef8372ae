"""A template for your own teacher, with your own data or without. Copy it and change the fields.

python scripts/run.py --config=configs/custom.py --config.dataset.data_dir=<file.npz> --config.teacher.weights=<file>
python scripts/run.py --config=configs/custom.py:no_data --config.teacher.weights=<file>
python scripts/run.py --config=configs/custom.py:vectors --config.dataset.data_dir=<file.npz>

Cost and accuracy depend on your networks and data. `--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant
from cake_jax.recipes import COLOUR_IMAGES, SMOKE, reference

VARIANTS: dict[str, dict[str, Any]] = {
    # A short trial run, to see whether everything works together.
    "smoke": SMOKE,
    # A teacher and no data at all. The mean and the standard deviation are those that the teacher was trained with.
    "no_data": {
        "dataset.name": "none",
        "dataset.shape": (32, 32, 3),
        "dataset.num_classes": 10,
        "dataset.mean": (0.4914, 0.4822, 0.4465),
        "dataset.std": (0.2470, 0.2435, 0.2616),
    },
    # Inputs that are no images: an MLP teaches an MLP. Without data, set dataset.name = "none", and shape, number of
    # classes, mean and standard deviation as in no_data.
    "vectors": {
        "teacher.model.name": "mlp",
        "teacher.model.options": {"width": 128, "num_hidden": 2},
        "student.model.name": "mlp",
        "student.model.options": {"width": 64},
        "student.augment": (),
        "student.views.fresh": ("normal",),
        "synthesis.start": "normal",
        "synthesis.candidates": 1,
        "synthesis.num_steps": 64,
        "synthesis.step_size": 0.1,
        "synthesis.decay_magnitude": 4.0,
        "synthesis.weights.cls": 1.0,
        "synthesis.weights.contr": 0.5,
        "synthesis.weights.tv": 0.0,
    },
    # The settings of the CAKE authors' code for colour images.
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

    # Teacher: an architecture (a name in `cake_jax.models.MODELS`), its options (fields of its Flax module that differ,
    # such as teacher.model.options.imagenet_stem=True for torchvision's ResNets), and a file of weights, .safetensors
    # or a PyTorch state_dict. If weights is empty, the teacher is trained here. With teacher.from_run = "runs/..." the
    # teacher of an earlier run is used. A live PyTorch module or a function can be a teacher in Python code only: see
    # docs/teachers.md.
    config.teacher.model.name = "resnet18"
    config.teacher.weights = ""

    # Student and samples: the recipe for colour images. GREY_IMAGES suits images of one channel.
    config.student.model.name = "resnet18"
    config.student.epochs = 100
    config.update_from_flattened_dict(COLOUR_IMAGES)
    config.student.batch_size = 64
    config.synthesis.num_batches = 20
    return with_variant(config, variant, VARIANTS)
