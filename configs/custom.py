"""Your own teacher and your own data: a template, to be copied and changed.

python scripts/run.py --config=configs/custom.py --config.dataset.data_dir=<file.npz> --config.teacher.weights=<file>

Cost and accuracy: those of your networks and data; `--dry_run` estimates the cost.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, reference, with_variant

VARIANTS: dict[str, dict[str, Any]] = {
    # A short trial: does everything fit?
    "smoke": {
        "dataset.max_train_examples": 2000,
        "teacher.epochs": 1,
        "student.epochs": 1,
        "synthesis.num_batches": 1,
        "synthesis.num_steps": 8,
    },
    # What the CAKE reference runs on images in colour.
    "reference": reference(cls=1e3, contr=1e1, tv=1e5),
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: none, or a name in `VARIANTS`."""
    config = default()

    # Data: x_train, y_train, x_test and y_test in one file; or name = "folder" and data_dir a folder of
    # train/<class>/*.png and test/<class>/*.png. A teacher that is trained here learns from them, and the
    # report measures with them.
    config.dataset.name = "npz"
    config.dataset.data_dir = "data/mine.npz"
    # What your weights were trained with, in pixels of 0 to 1: ImageNet's are (0.485, 0.456, 0.406) and
    # (0.229, 0.224, 0.225). Empty: measured on the training data, which is right for a teacher trained here.
    config.dataset.mean = ()
    config.dataset.std = ()

    # Teacher: an architecture (`cake_jax.models.MODELS`), its options (fields of its Flax module), and a file of
    # weights for it, .safetensors or a PyTorch state_dict. With "" in the place of the file it is trained here, and
    # with teacher.from_run = "runs/..." taken from an earlier run. A live PyTorch module or a function of yours is a
    # teacher in Python only: see docs/teachers.md.
    config.teacher.model.name = "resnet18"
    config.teacher.model.options = ConfigDict({"imagenet_stem": False})
    config.teacher.weights = ""

    # Student.
    config.student.model.name = "resnet18"
    config.student.epochs = 30

    # Samples. The weights depend on the domain: for images in colour a prior of smoothness (tv) helps.
    config.synthesis.num_batches = 20
    config.synthesis.batch_size = 500
    config.synthesis.num_groups = 2  # different target classes in a set; at most as many as there are
    config.synthesis.num_steps = 64
    config.synthesis.weights.cls = 1e3
    config.synthesis.weights.contr = 1e1
    config.synthesis.weights.tv = 1e5
    return with_variant(config, variant, VARIANTS)
