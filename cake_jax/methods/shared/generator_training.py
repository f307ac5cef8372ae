"""Shared parts of the methods that train a generator: settings, training state, and samples."""

import dataclasses
import functools
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import numpy as np
import optax
from jax import Array

from cake_jax import checks
from cake_jax.methods.method import GuideSettings
from cake_jax.models.generators import generate, generator
from cake_jax.synthesis import SynthesisSettings, checked as checked_synthesis, labelled
from cake_jax.training.settings import checked as checked_training
from cake_jax.types import CakeError, DataSpec, Queryable, SampleBatch


@dataclasses.dataclass(frozen=True)
class GeneratorSettings(SynthesisSettings):
    """Settings of a method that trains a generator.

    Attributes:
      num_steps: Number of the generator's Adam steps in a round.
      step_size: Learning rate of Adam.
      latent_size: Width of the latents.
      features: Widths of the generator's layers, as in `models.generators`. Empty for the default widths.
      spread: Standard deviation before the generator's sigmoid, as in `models.generators`.
      moments: Whether each generated image gets the mean and standard deviation of the specification.
      blur: Standard deviation of the generator's Gaussian blur, in pixels. 0 for none.
      beta1: Decay of Adam's first moment.
      beta2: Decay of Adam's second moment.
    """

    num_steps: int = 30
    step_size: float = 1e-3
    latent_size: int = 256
    features: tuple[int, ...] = ()
    spread: float = 1.0
    moments: bool = True
    blur: float = 0.0
    beta1: float = 0.5
    beta2: float = 0.999

    @property
    def total_steps(self) -> int:
        """Number of training steps in all rounds."""
        return self.num_batches * self.num_steps


@dataclasses.dataclass(frozen=True)
class GuidedSettings(GeneratorSettings):
    """Settings of a method that trains a generator against a guide student.

    Attributes:
      student: How the guide student is trained after each round.
    """

    student: GuideSettings = GuideSettings()


S = TypeVar("S", bound=GeneratorSettings)


class GeneratorState(NamedTuple):
    """A generator in training.

    Attributes:
      params: Parameters of the module that `module_of` makes.
      opt_state: State of Adam.
    """

    params: Any
    opt_state: optax.OptState


def checked(settings: S, method: str, spec: DataSpec) -> S:
    """Returns the settings with a constant step size and without candidates if they suit the specification.

    Args:
      settings: The settings.
      method: Name of the method, for messages.
      spec: Specification of the inputs.

    Raises:
      CakeError: A value does not fit. The message names its field.
    """
    field = f"methods.{method}"
    if isinstance(settings, GuidedSettings):
        checked_training(settings.student.training(), spec, f"{field}.student")
    for name in ("num_steps", "step_size", "latent_size"):
        checks.above_zero(f"{field}.{name}", getattr(settings, name))
    for name in ("spread", "blur"):
        checks.not_negative(f"{field}.{name}", getattr(settings, name))
    for name in ("beta1", "beta2"):
        checks.fraction(f"{field}.{name}", getattr(settings, name))
    if any(width < 1 for width in settings.features):
        raise CakeError(f"{field}.features: {settings.features} must be above 0")
    if spec.is_image and len(settings.features) not in (0, 3):
        raise CakeError(f"{field}.features: {settings.features} are not 3 numbers, as images need")
    return checked_synthesis(dataclasses.replace(settings, schedule="constant", candidates=1), spec)


def module_of(settings: GeneratorSettings, spec: DataSpec) -> nn.Module:
    """Makes the generator that the settings describe."""
    return generator(spec, settings.features, settings.spread, moments=settings.moments, blur=settings.blur)


@functools.partial(jax.jit, static_argnames=("settings", "spec", "extra"))
def start(key: Array, settings: GeneratorSettings, spec: DataSpec, *, extra: int = 0) -> GeneratorState:
    """Initialises a generator whose latents have `latent_size + extra` values."""
    z = np.zeros((2, settings.latent_size + extra), np.float32)
    params = module_of(settings, spec).init(key, z)["params"]
    return GeneratorState(params, adam(settings).init(params))


def draw(key: Array, settings: GeneratorSettings, spec: DataSpec, params: Any) -> Array:
    """Generates N = `batch_size` inputs `[N, *shape]` from new latents z ~ N(0, I)."""
    z = jax.random.normal(key, (settings.batch_size, settings.latent_size))
    return generate(module_of(settings, spec), params, z)


def adam(settings: GeneratorSettings) -> optax.GradientTransformation:
    """The generator's optimizer."""
    return optax.adam(settings.step_size, settings.beta1, settings.beta2)


def updated(state: GeneratorState, gradient: Any, settings: GeneratorSettings) -> GeneratorState:
    """Returns the state after a step down `gradient`, a pytree like `state.params`."""
    updates, opt_state = adam(settings).update(gradient, state.opt_state, state.params)
    return GeneratorState(optax.apply_updates(state.params, updates), opt_state)


def answered(
    teacher: Queryable, x: Array, settings: GeneratorSettings, batch: int, target: Array | None = None
) -> SampleBatch:
    """Returns the samples of round `batch`. The teacher labels each sample with one query.

    Args:
      teacher: The teacher.
      x: Inputs, `[N, *shape]`.
      settings: The method's settings.
      batch: Number of the round.
      target: Target classes, `[N]`. None if the method has none.
    """
    images, none = np.asarray(x), np.full(len(x), -1, np.int32)
    classes = none if target is None else np.asarray(target, np.int32)
    return labelled(images, teacher.predict(images), classes, settings, batch)
