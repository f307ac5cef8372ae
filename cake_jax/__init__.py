"""Data-free knowledge distillation in JAX: CAKE, LAKE, and the methods they are compared with.

samples = cake_jax.synthesize(key, teacher, spec)
student = cake_jax.distill(key, model, samples)
cake_jax.evaluate(student, teacher, x, y)
"""

from cake_jax import losses
from cake_jax.black_box import BlackBox, QuerySettings
from cake_jax.evaluation import evaluate
from cake_jax.methods.shared.synthesize import stream, synthesize
from cake_jax.run.run_folder import Run, load, load_run
from cake_jax.stores.checkpoint import load_model
from cake_jax.synthesis import SynthesisSettings, Weights, langevin
from cake_jax.teachers import Teacher
from cake_jax.training import DistillationLoss, TrainSettings, distill
from cake_jax.types import CakeError, CakeWarning, DataSpec, SampleBatch
from cake_jax.version import __version__

__all__ = [
    "BlackBox",
    "CakeError",
    "CakeWarning",
    "DataSpec",
    "DistillationLoss",
    "QuerySettings",
    "Run",
    "SampleBatch",
    "SynthesisSettings",
    "Teacher",
    "TrainSettings",
    "Weights",
    "__version__",
    "distill",
    "evaluate",
    "langevin",
    "load",
    "load_model",
    "load_run",
    "losses",
    "stream",
    "synthesize",
]
