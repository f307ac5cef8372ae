"""Two moons, the picture that explains the method: an MLP of 942 parameters mimics another.

python scripts/run.py --config=configs/two_moons.py

Cost: about 5 seconds on 2 CPU cores. Expect, over seeds 0, 1 and 2, a student that agrees with its teacher on 99.7 %
of the test points (`results/two_moons.json`). Settings were chosen on training points.
"""

from typing import Any

from ml_collections import ConfigDict

from cake_jax.config import default, with_variant

VARIANTS: dict[str, dict[str, Any]] = {
    # Ends within a minute on 2 cores.
    "smoke": {"teacher.epochs": 2, "student.epochs": 4, "synthesis.num_batches": 2, "synthesis.num_steps": 8},
    # 200 samples and the teacher's bare decisions, to compare methods by where they put their samples: with soft labels
    # 200 points of plain noise are already enough for this teacher.
    "few": {
        "synthesis.num_batches": 4,
        "synthesis.batch_size": 50,
        "student.epochs": 400,
        "student.batch_size": 50,
        "student.hard_weight": 1.0,
    },
    # What the CAKE reference runs on its toy sets.
    "reference": {
        "teacher.learning_rate": 0.5,
        "student.learning_rate": 0.5,
        "student.epochs": 30,
        "student.batch_size": 256,
        "synthesis.num_batches": 500,
        "synthesis.num_steps": 256,
        "synthesis.step_size": 1e-2,
        "synthesis.decay_magnitude": 4.0,
        "synthesis.batch_size": 500,
        "synthesis.weights.cls": 1e-2,
        "synthesis.weights.contr": 1e-3,
    },
}


def get_config(variant: str = "") -> ConfigDict:
    """The config of a variant: none, or a name in `VARIANTS`."""
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
