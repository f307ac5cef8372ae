"""Training of teachers and students with Optax."""

from cake_jax.training.distill import distill
from cake_jax.training.labels import Labels, from_logits
from cake_jax.training.losses import DistillationLoss, Loss, classification_loss
from cake_jax.training.settings import DISTILLATION, TrainSettings, checked
from cake_jax.training.views import Views, ViewSettings

__all__ = [
    "DISTILLATION",
    "DistillationLoss",
    "Labels",
    "Loss",
    "TrainSettings",
    "ViewSettings",
    "Views",
    "checked",
    "classification_loss",
    "distill",
    "from_logits",
]
