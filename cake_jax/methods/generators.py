"""What the methods that train a generator have in common: its settings, its training state, and its samples."""

import dataclasses
import functools
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import numpy as np
import optax
from jax import Array

from cake_jax import synthesis
from cake_jax.evaluation import predict
from cake_jax.methods.method import combined
from cake_jax.models.generator import generate, generator
from cake_jax.synthesis_settings import SynthesisSettings, check
from cake_jax.teachers import Queryable
from cake_jax.train import DISTILLATION, TrainSettings, check as check_training
from cake_jax.types import CakeError, DataSpec, SampleBatch

# Of the student that a method listens to. Its learning rate is constant, and all samples are for training.
STUDENT: Mapping[str, Any] = MappingProxyType(
    {
        "epochs": 5,  # a round
        "batch_size": 250,
        "learning_rate": 0.05,
        "optimizer": "sgd",
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "augment": (),
    }
)
# Of every method that trains a generator, but where it has others.
DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {
        "num_steps": 30,
        "step_size": 1e-3,
        "latent_size": 256,
        "features": (),
        "spread": 1.0,
        "moments": True,
        "blur": 0.0,
        "beta1": 0.5,
        "beta2": 0.999,
    }
)


@dataclasses.dataclass(frozen=True)
class GeneratorSettings(SynthesisSettings):
    """Settings of a method that trains a generator: `num_steps` a round, by Adam with `step_size`.

    Attributes:
      latent_size: Width of the latents.
      features: Of the generator, as `models.generator` has them; its own where empty.
      spread: Of the generator, as `models.generator` has it, like the next two.
      moments: Of a generator of images.
      blur: Of a generator of images.
      beta1: Of Adam.
      beta2: Of Adam.
      student: How the student that the method listens to is trained after each round.
    """

    latent_size: int = 256
    features: tuple[int, ...] = ()
    spread: float = 1.0
    moments: bool = True
    blur: float = 0.0
    beta1: float = 0.5
    beta2: float = 0.999
    student: TrainSettings = DISTILLATION


S = TypeVar("S", bound=GeneratorSettings)


class GeneratorState(NamedTuple):
    """A generator in training.

    Attributes:
      params: Of the module that `module_of` makes.
      opt_state: Of Adam.
    """

    params: Any
    opt_state: optax.OptState


def settings_of(kind: type[S], name: str, common: SynthesisSettings, own: Mapping[str, Any], spec: DataSpec) -> S:
    """Settings of a method's own kind, from the common fields and those of `config.methods.<name>`.

    Raises:
      CakeError: A field that cannot work, by its name.
    """
    given = {**own, "features": tuple(own["features"]), "schedule": "constant"}
    if "student" in own:
        student = {**own["student"], "augment": tuple(own["student"]["augment"])}
        given["student"] = dataclasses.replace(DISTILLATION, schedule="constant", validation_fraction=0.0, **student)
        check_training(given["student"], spec, f"methods.{name}.student")
    settings = combined(kind, common, given)
    above_zero(settings, name, "num_steps", "step_size", "latent_size")
    above_zero(settings, name, "spread", "blur", or_zero=True)
    for beta in ("beta1", "beta2"):
        if not 0 <= getattr(settings, beta) < 1:
            raise CakeError(f"methods.{name}.{beta}: {getattr(settings, beta)} is not in [0, 1)")
    if any(width < 1 for width in settings.features):
        raise CakeError(f"methods.{name}.features: {settings.features} must be above 0")
    if spec.is_image and len(settings.features) not in (0, 3):
        raise CakeError(f"methods.{name}.features: {settings.features} are not 3 numbers, as images need")
    check(settings, spec)
    return settings


def above_zero(settings: GeneratorSettings, name: str, *fields: str, or_zero: bool = False) -> None:
    """Refuses settings of the method `name` of which a field is not above 0, or with `or_zero` below it.

    Raises:
      CakeError: With the field.
    """
    for field in fields:
        value = getattr(settings, field)
        if value < 0 or (value == 0 and not or_zero):
            raise CakeError(f"methods.{name}.{field}: {value} {'is below 0' if or_zero else 'must be above 0'}")


def module_of(settings: GeneratorSettings, spec: DataSpec) -> nn.Module:
    """The generator of the settings."""
    return generator(spec, settings.features, settings.spread, moments=settings.moments, blur=settings.blur)


@functools.partial(jax.jit, static_argnames=("settings", "spec", "extra"))
def start(key: Array, settings: GeneratorSettings, spec: DataSpec, *, extra: int = 0) -> GeneratorState:
    """A new generator, whose latents are `latent_size` and `extra` wide."""
    z = np.zeros((2, settings.latent_size + extra), np.float32)
    params = module_of(settings, spec).init(key, z)["params"]
    return GeneratorState(params, adam(settings).init(params))


def draw(key: Array, settings: GeneratorSettings, spec: DataSpec, params: Any) -> Array:
    """`batch_size` inputs `[N, *shape]` of new latents z ~ N(0, I)."""
    z = jax.random.normal(key, (settings.batch_size, settings.latent_size))
    return generate(module_of(settings, spec), params, z)


def adam(settings: GeneratorSettings) -> optax.GradientTransformation:
    """The generator's optimizer."""
    return optax.adam(settings.step_size, settings.beta1, settings.beta2)


def updated(state: GeneratorState, gradient: Any, settings: GeneratorSettings) -> GeneratorState:
    """The state after a step down `gradient`, which is like `state.params`."""
    updates, opt_state = adam(settings).update(gradient, state.opt_state, state.params)
    return GeneratorState(optax.apply_updates(state.params, updates), opt_state)


def answered(
    teacher: Queryable, x: Array, settings: GeneratorSettings, batch: int, target: Array | None = None
) -> SampleBatch:
    """Samples of round `batch` with the teacher's answers, one query each.

    Args:
      teacher: The teacher.
      x: `[N, *shape]`.
      settings: The settings.
      batch: The round.
      target: Intended classes `[N]`, if there are any.
    """
    images, none = np.asarray(x), np.full(len(x), -1, np.int32)
    classes = none if target is None else np.asarray(target, np.int32)
    return synthesis.labelled(images, predict(teacher, images), classes, settings, batch)
