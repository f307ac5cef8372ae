"""Distillation: a student trains on labelled samples alone."""

from typing import Any

import flax.linen as nn
import jax
import numpy as np
from flax import nnx
from jax import Array

from cake_jax import checks, random_keys
from cake_jax.arrays import as_array
from cake_jax.models import equinox_adapter, nnx_adapter
from cake_jax.teachers import Teacher
from cake_jax.training import trainer
from cake_jax.training.labels import from_logits
from cake_jax.training.losses import DistillationLoss, Loss
from cake_jax.training.settings import DISTILLATION, TrainSettings, checked
from cake_jax.training.views import STORED_LABELS, ViewSettings, asked, checked as check_views
from cake_jax.types import CakeError, DataSpec, Queryable, SampleBatch


def distill(
    key: Array,
    model: Any,
    samples: SampleBatch,
    settings: TrainSettings = DISTILLATION,
    *,
    loss: Loss = DistillationLoss(),
    views: ViewSettings = STORED_LABELS,
    teacher: Queryable | None = None,
    spec: DataSpec | None = None,
) -> Teacher:
    """Trains a student on labelled samples.

    Args:
      key: A `jax.random.key`.
      model: The student's architecture. A Flax Linen module starts from new weights. A Flax NNX or Equinox module, or a
        `Teacher` made from a module, starts from its own weights and stays unchanged. For NNX and Equinox,
        `student.module.merge(student.variables)` is the trained module.
      samples: N samples with the teacher's logits.
      settings: How the student is trained.
      loss: The loss of the student's logits and the teacher's labels, `(logits [B, K], Labels) -> [B]`.
      views: Whether the teacher labels each batch anew, and how the batch is changed before.
      teacher: A `Teacher` or a `BlackBox`, which labels the views if `views.ask` is set.
      spec: Specification of the student's inputs. By default that of `teacher`. Without a teacher, shape and number of
        classes are those of the samples, and pixels equal normalised units.

    Returns:
      The trained student as a `Teacher`.

    Raises:
      CakeError: Settings or model do not fit, the views need a teacher, or the loss became NaN.
    """
    key = random_keys.as_key(key)
    checks.kind("samples", samples, SampleBatch, "a SampleBatch, as cake_jax.synthesize returns it")
    checks.kind("settings", settings, TrainSettings, "a TrainSettings")
    if spec is None:
        spec = getattr(teacher, "spec", None) or _spec_of(samples)
    checks.kind("spec", spec, DataSpec, "a DataSpec")
    x, logits = (as_array(part, "samples").astype(np.float32, copy=False) for part in (samples.x, samples.logits))
    if x.shape[1:] != spec.shape or not len(x) or logits.shape != (len(x), spec.num_classes):
        raise CakeError(
            f"samples: inputs {x.shape} and logits {logits.shape} are not N inputs of shape {spec.shape} and "
            f"N rows of {spec.num_classes} logits"
        )
    checked(settings, spec, "student")
    if check_views(views, spec).ask and teacher is None:
        raise CakeError("views: the teacher labels them, so give it as teacher=")
    init_key, train_key = jax.random.split(key)
    module, variables = _split(model)
    labels = from_logits(logits)
    options = asked(views, settings, spec, teacher)
    start = trainer.init(init_key, module, spec, settings, variables, options.get("make_batch"))
    *_, (state, _) = trainer.epochs(train_key, start, module, spec, x, labels, settings, loss=loss, **options)
    return trainer.as_model(module, state, spec)


def _spec_of(samples: SampleBatch) -> DataSpec:
    """The specification that shapes alone give."""
    shape, num_classes = np.shape(samples.x)[1:], np.shape(samples.logits)[-1:]
    if not num_classes:
        raise CakeError("samples.logits: a single number; pass logits of shape [N, K]")
    return DataSpec(shape, *num_classes)


def _split(model: Any) -> tuple[trainer.Module, Any]:
    """The architecture of a student and its first weights, which are None for new ones."""
    if isinstance(model, nn.Module):
        return model, None
    if isinstance(model, nnx.Module):
        return nnx_adapter.split(model)
    if isinstance(model, Teacher):
        if model.module is None:
            raise CakeError("model: only a teacher from a Flax or Equinox module with logits can be trained further")
        return model.module, model.variables
    return equinox_adapter.split(model)
