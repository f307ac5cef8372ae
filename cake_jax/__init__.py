"""Data-free knowledge distillation in JAX: CAKE and LAKE.

samples = cake_jax.synthesize(key, teacher, spec)
student = cake_jax.distill(key, model, samples)
cake_jax.evaluate(student, teacher, x, y)
"""

from cake_jax.evaluation import evaluate
from cake_jax.experiment import Run, load
from cake_jax.synthesis import synthesize
from cake_jax.synthesis_settings import SynthesisSettings, Weights
from cake_jax.teachers import Teacher
from cake_jax.train import DistillationLoss, TrainSettings, distill
from cake_jax.types import CakeError, DataSpec, SampleBatch
from cake_jax.version import __version__

__all__ = [
    "CakeError",
    "DataSpec",
    "DistillationLoss",
    "Run",
    "SampleBatch",
    "SynthesisSettings",
    "Teacher",
    "TrainSettings",
    "Weights",
    "__version__",
    "distill",
    "evaluate",
    "load",
    "synthesize",
]
