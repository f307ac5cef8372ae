"""Scikit-learn's digits, 8 x 8, embedded.

python scripts/run.py --config=configs/digits.py
"""

from ml_collections import ConfigDict

from cake_jax.config import default


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: none, or `smoke`."""
    config = default()
    config.dataset.name = "digits"

    config.teacher.model.options = ConfigDict({"width": 128})
    config.teacher.epochs = 60
    config.teacher.batch_size = 64

    config.student.model.options = ConfigDict({"width": 64})
    config.student.epochs = 100
    config.student.batch_size = 64

    config.synthesis.num_batches = 20
    config.synthesis.weights.contr = 0.5
    return config
