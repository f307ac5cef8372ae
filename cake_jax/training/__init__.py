"""Training of teachers and students with Optax."""

from cake_jax.training.distill import distill
from cake_jax.training.labels import DistillationLoss, Labels, Loss, classification_loss, from_logits
from cake_jax.training.settings import DISTILLATION, TrainSettings, checked

__all__ = [
    "DISTILLATION",
    "DistillationLoss",
    "Labels",
    "Loss",
    "TrainSettings",
    "checked",
    "classification_loss",
    "distill",
    "from_logits",
]
