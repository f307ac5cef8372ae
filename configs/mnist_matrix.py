"""MNIST across architectures: a CNN, an MLP, a residual network and a vision transformer, each teaching each.

python scripts/matrix.py --config=configs/mnist_matrix.py --config.dataset.data_dir=<prepared TFDS folder>

A variant is one cell, `<teacher>-<student>`: `configs/mnist_matrix.py:cnn-mlp`. As in the experiment of Fig. 3 of CAKE
(arXiv 2306.02090), with networks of 100,000 parameters or, the residual one, 430,000.

Cost and accuracy: not measured yet.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default
from cake_jax.types import CakeError

# By name, the fields of a teacher or a student of this architecture.
MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"model": {"name": "cnn"}},
    "mlp": {"model": {"name": "mlp", "options": {"width": 100}}},
    "resnet4": {"model": {"name": "resnet4"}},
    "vit_small": {"model": {"name": "vit_small"}, "optimizer": "adamw", "learning_rate": 2e-3, "weight_decay": 0.05},
}


def get_config(variant: str = "cnn-cnn") -> ConfigDict:
    """The config of a cell: two names in `MODELS` with a hyphen between; with `-smoke` behind them a short trial."""
    teacher, _, rest = variant.partition("-")
    student, _, trial = rest.partition("-")
    if not {teacher, student} <= set(MODELS) or trial not in ("", "smoke"):
        raise CakeError(f"config: no variant '{variant}'; it is <teacher>-<student>, each of {', '.join(MODELS)}")
    config = default()
    config.dataset.name = "mnist"
    config.teacher.epochs = 6
    config.teacher.batch_size = 128
    config.student.epochs = 15
    config.student.batch_size = 128
    config.student.temperature = 20.0  # as good as matching the logits
    for section, name in ((config.teacher, teacher), (config.student, student)):
        section.model.options = ConfigDict(MODELS[name]["model"].get("options", {}))
        section.update(MODELS[name])
    config.synthesis.num_batches = 50
    config.synthesis.num_steps = 64
    config.synthesis.decay_magnitude = 1.3
    config.synthesis.start = "smooth"
    config.synthesis.weights.cls = 500.0
    config.synthesis.weights.contr = 20.0
    config.synthesis.weights.tv = 1e6
    if trial:
        config.dataset.max_train_examples = 2000
        config.teacher.epochs = config.student.epochs = 1
        config.synthesis.num_batches = 1
        config.synthesis.num_steps = 4
    return config
