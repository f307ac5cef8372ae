"""Distillation: a student trains on labelled samples alone."""

import flax.linen as nn
import jax
from flax import nnx
from jax import Array

from cake_jax.models import nnx_adapter
from cake_jax.teachers import Teacher
from cake_jax.training import trainer
from cake_jax.training.labels import from_logits
from cake_jax.training.losses import DistillationLoss, Loss
from cake_jax.training.settings import DISTILLATION, TrainSettings, checked
from cake_jax.types import DataSpec, SampleBatch


def distill(
    key: Array,
    model: nn.Module | nnx.Module,
    samples: SampleBatch,
    settings: TrainSettings = DISTILLATION,
    *,
    loss: Loss = DistillationLoss(),
    spec: DataSpec | None = None,
) -> Teacher:
    """Trains a student on labelled samples.

    Args:
      key: A `jax.random.key`.
      model: The student's architecture. A Flax Linen module starts from new weights. A Flax NNX module starts from its
        own weights and stays unchanged. `student.apply_fn.module.merge(student.variables)` is the trained NNX module.
      samples: N samples with the teacher's logits.
      settings: How the student is trained.
      loss: The loss of the student's logits and the teacher's labels, `(logits [B, K], Labels) -> [B]`.
      spec: Specification of the student's inputs. By default shape and number of classes are those of the samples, and
        pixels equal normalised units.

    Returns:
      The trained student as a `Teacher`.

    Raises:
      CakeError: Settings or model do not fit, or the loss became NaN.
    """
    spec = spec or DataSpec(samples.x.shape[1:], samples.logits.shape[-1])
    checked(settings, spec, "student")
    init_key, train_key = jax.random.split(key)
    module, variables = nnx_adapter.split(model) if isinstance(model, nnx.Module) else (model, None)
    start = trainer.init(init_key, module, spec, settings, variables)
    labels = from_logits(samples.logits)
    *_, (state, _) = trainer.epochs(train_key, start, module, spec, samples.x, labels, settings, loss=loss)
    return trainer.as_model(module, state, spec)
