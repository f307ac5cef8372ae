"""MNIST across architectures: a CNN, an MLP, a residual network and a vision transformer, each teaching all four.

python scripts/matrix.py --config=configs/mnist_matrix.py --config.dataset.data_dir=<prepared TFDS folder>

The variant `<teacher>-<student>` is one cell of the matrix: `configs/mnist_matrix.py:cnn-mlp`. The experiment follows
Fig. 3 of CAKE (arXiv 2306.02090). The networks have 100,000 parameters, except the residual network, which has 430,000.

Cost: about an hour on 2 CPU cores. Test accuracy: 97 to 99 % for students of their teacher's architecture, 57 to 95 %
for others (`docs/results.md`). The settings were chosen on training images.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default
from cake_jax.types import CakeError

# By architecture, the fields of a teacher or a student.
MODELS: dict[str, dict[str, Any]] = {
    "cnn": {"model": {"name": "cnn"}},
    "mlp": {"model": {"name": "mlp", "options": {"width": 100}}},
    "resnet4": {"model": {"name": "resnet4"}},
    "vit_small": {
        "model": {"name": "vit_small"},
        "optimizer": "adamw",
        "learning_rate": 4e-3,
        "weight_decay": 0.05,
        "batch_size": 64,
    },
}

# By teacher, the fields of the synthesis. A vision transformer needs more samples, and fewer steps.
SAMPLES: dict[str, dict[str, Any]] = {
    "cnn": {"num_batches": 80, "num_steps": 16, "step_size": 0.2, "start": "smooth"},
    "mlp": {"num_batches": 100, "num_steps": 16, "step_size": 0.2, "start": "smooth"},
    "resnet4": {"num_batches": 100, "num_steps": 16, "step_size": 0.2, "start": "smooth"},
    "vit_small": {"num_batches": 320, "num_steps": 8, "step_size": 0.4, "start": "contrasted"},
}

# By student, the number of examples in all epochs together.
EXAMPLES = {"cnn": 200_000, "mlp": 640_000, "resnet4": 240_000, "vit_small": 640_000}


def get_config(variant: str = "cnn-cnn") -> ConfigDict:
    """The config of a cell. `variant` is `<teacher>-<student>`, with `-smoke` behind it for a short trial run."""
    teacher, _, rest = variant.partition("-")
    student, _, trial = rest.partition("-")
    if not {teacher, student} <= set(MODELS) or trial not in ("", "smoke"):
        raise CakeError(f"config: no variant '{variant}'; it is <teacher>-<student>, each of {', '.join(MODELS)}")
    config = default()
    config.dataset.name = "mnist"
    config.teacher.epochs = 8 if teacher == "vit_small" else 4
    config.teacher.batch_size = 128
    config.student.batch_size = 128
    config.student.temperature = 20.0  # practically the same as matching the logits
    for section, name in ((config.teacher, teacher), (config.student, student)):
        section.model.options = ConfigDict(MODELS[name]["model"].get("options", {}))
        section.update(MODELS[name])
    config.synthesis.update(SAMPLES[teacher])
    config.synthesis.decay_magnitude = 1.3
    config.synthesis.weights.cls = 500.0
    config.synthesis.weights.contr = 2.0
    config.synthesis.weights.tv = 1e5
    count = config.synthesis.num_batches * config.synthesis.batch_size
    config.student.epochs = max(1, round(EXAMPLES[student] / count))
    if trial:
        config.dataset.max_train_examples = 2000
        config.teacher.epochs = config.student.epochs = 1
        config.synthesis.num_batches = 1
        config.synthesis.num_steps = 4
    return config
