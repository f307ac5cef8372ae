"""Two moons, the data set of the explanatory figure: an MLP with 942 parameters teaches another one.

python scripts/run.py --config=configs/two_moons.py

Cost: about 5 seconds on 2 CPU cores. Mean agreement of student and teacher over seeds 0, 1 and 2: 99.8 % of the test
points (`results/two_moons.json`). The settings were chosen on training points.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant

VARIANTS: dict[str, dict[str, Any]] = {
    # A short trial run, less than a minute on 2 CPU cores.
    "smoke": {"teacher.epochs": 2, "student.epochs": 4, "synthesis.num_batches": 2, "synthesis.num_steps": 8},
    # 200 samples with hard labels, to compare methods by the places of their samples. With soft labels, 200 samples of
    # plain noise would already be enough for this teacher.
    "few": {
        "synthesis.num_batches": 4,
        "synthesis.batch_size": 50,
        "student.epochs": 400,
        "student.batch_size": 50,
        "student.hard_weight": 1.0,
    },
    # The settings of the CAKE authors' code for toy data.
    "reference": {
        "teacher.epochs": 30,
        "teacher.learning_rate": 0.5,
        "student.epochs": 30,
        "student.learning_rate": 0.5,
        "synthesis.num_batches": 100,
        "synthesis.batch_size": 100,
        "synthesis.num_steps": 250,
        "synthesis.step_size": 1e-2,
        "synthesis.decay_magnitude": 4.0,
        "synthesis.weights.cls": 1e-2,
        "synthesis.weights.contr": 1e-3,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config. `variant` is empty or a name in `VARIANTS`."""
    config = default()
    config.dataset.name = "two_moons"
    config.teacher.epochs = 20
    config.student.epochs = 60
    config.synthesis.num_groups = 2
    config.synthesis.num_batches = 20
    config.synthesis.num_steps = 100
    config.synthesis.step_size = 0.1
    config.synthesis.decay_magnitude = 0.5
    return with_variant(config, variant, VARIANTS)
