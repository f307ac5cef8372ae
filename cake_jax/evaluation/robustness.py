"""Accuracy of several models under attacks and under corruptions of the images. The attacks are those of Foolbox."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dm_pix
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import checks
from cake_jax.augment import operations
from cake_jax.teachers import Teacher
from cake_jax.types import CakeError, DataSpec

# The attack by this name makes the inputs that other models are asked about.
TRANSFERRED = "PGD"
_BATCH = 500
_PGD_STEPS = 40


def _changed(operation: str, level: float) -> Callable[[Array, Array], Array]:
    """A corruption by one of the operations of RandAugment, at a level from -1 to 1."""
    number = operations.OPERATIONS.index(operation)
    return lambda key, image: operations.perform(image, jnp.asarray(number), jnp.asarray(level))


def _noisy(key: Array, image: Array) -> Array:
    return jnp.clip(image + 0.15 * jax.random.normal(key, image.shape), 0, 1)


def _blurred(key: Array, image: Array) -> Array:
    return dm_pix.gaussian_blur(image, sigma=1.0, kernel_size=5)


# Functions of a key and an image `[H, W, C]` in [0, 1].
CORRUPTIONS: dict[str, Callable[[Array, Array], Array]] = {
    "noise": _noisy,
    "blur": _blurred,
    "low contrast": _changed("contrast", -0.8),
    "dark": _changed("brightness", -0.8),
    "rotation": _changed("rotate", 0.8),
    "shift": _changed("translate_x", 0.5),
    "shear": _changed("shear_y", 0.8),
    "2 bits": lambda key, image: operations.posterize(image, 2),
}


def robustness(
    models: Mapping[str, Teacher], x: np.ndarray, y: np.ndarray, epsilons: Sequence[float], key: Array
) -> dict[str, dict[str, Any]]:
    """Measures how models behave at inputs that were made to fool them, and at corrupted images.

    An attack changes each pixel by at most epsilon. The fast gradient sign method (FGSM: Goodfellow et al. 2015,
    section 4) makes one step of this size. Projected gradient descent (PGD: Madry et al. 2018, equation 1) makes 40
    smaller ones, from the image itself. `random signs` is the control: a change by epsilon in a random direction.

    Args:
      models: Models by name, with one specification. The first is the teacher.
      x: Inputs, `[N, *shape]`, normalised.
      y: Classes, `[N]` int.
      epsilons: Largest changes of a pixel, as shares of the range from the lowest to the highest pixel value.
      key: The key of all random draws, which are the same for all models.

    Returns:
      For each model, JSON-ready, all as shares from 0 to 1: `accuracy` by the name of the corruption, and `clean`;
      `agreement`, the same with the teacher's classes in place of the true ones; `attacks`, the accuracy at each
      epsilon by the name of the attack; and `transfer`, that of each other model at the inputs that PGD made for this
      one.

    Raises:
      CakeError: A range of pixels is not known, an epsilon is not above 0, or Foolbox is not installed.
    """
    spec = next(iter(models.values())).spec
    low, high = _pixel_range(spec)
    for epsilon in epsilons:
        checks.above_zero("epsilons", epsilon)
    attacks, changes = _attacks(), [epsilon * (high - low) for epsilon in epsilons]
    sign_key, corruption_key = jax.random.split(key)
    signs = np.asarray(jax.random.rademacher(sign_key, x.shape, np.float32))
    pixels = spec.denormalize(x)
    random = [np.clip(pixels + change * signs, low, high) for change in changes]
    corrupted = corruptions(corruption_key, x, spec)
    corrupted["clean"] = x
    answers = {
        name: {kind: model.predict(inputs).argmax(-1) for kind, inputs in corrupted.items()}
        for name, model in models.items()
    }
    of_teacher, found = next(iter(answers.values())), {}
    for name, model in models.items():
        made = {attack: _made(function, model, pixels, y, changes) for attack, function in attacks.items()}
        made["random signs"] = random
        found[name] = {
            "attacks": {
                attack: [_share(model, spec.normalize(one), y) for one in changed] for attack, changed in made.items()
            },
            "accuracy": {kind: float(np.mean(given == y)) for kind, given in answers[name].items()},
            "agreement": {kind: float(np.mean(given == of_teacher[kind])) for kind, given in answers[name].items()},
            "transfer": {
                other: [_share(models[other], spec.normalize(one), y) for one in made[TRANSFERRED]]
                for other in models
                if other != name
            },
        }
    return found


def corruptions(key: Array, x: np.ndarray, spec: DataSpec) -> dict[str, np.ndarray]:
    """The inputs under each of `CORRUPTIONS`, `[N, *shape]` normalised. Empty unless inputs are images."""
    if not spec.is_image:
        return {}
    low, high = _pixel_range(spec)
    share, keys = (spec.denormalize(x) - low) / (high - low), jax.random.split(key, len(x))
    return {
        name: spec.normalize(np.asarray(jax.jit(jax.vmap(function))(keys, share)) * (high - low) + low)
        for name, function in CORRUPTIONS.items()
    }


def _pixel_range(spec: DataSpec) -> tuple[float, float]:
    if spec.low is None or spec.high is None:
        raise CakeError("robustness: the data have no lowest and highest pixel value")
    return spec.low, spec.high


def _attacks() -> dict[str, Any]:
    """The attacks by name. They draw nothing at random."""
    try:
        from foolbox import attacks
    except ImportError as error:
        raise CakeError("robustness needs Foolbox: pip install foolbox") from error
    return {
        "FGSM": attacks.LinfFastGradientAttack(random_start=False),
        TRANSFERRED: attacks.LinfProjectedGradientDescentAttack(
            rel_stepsize=2.5 / _PGD_STEPS, steps=_PGD_STEPS, random_start=False
        ),
    }


def _made(attack: Any, model: Teacher, pixels: np.ndarray, y: np.ndarray, changes: Sequence[float]) -> list[np.ndarray]:
    """The pixels that an attack makes for a model, `[N, *shape]` for each largest change in pixel units."""
    import foolbox

    mean, std = np.asarray(model.spec.mean, np.float32), np.asarray(model.spec.std, np.float32)
    logits = jax.jit(lambda inputs: model((inputs - mean) / std))
    attacked, parts = foolbox.JAXModel(logits, bounds=_pixel_range(model.spec)), []
    for start in range(0, len(pixels), _BATCH):
        images, classes = (jnp.asarray(rows[start : start + _BATCH]) for rows in (pixels, y))
        _, clipped, _ = attack(attacked, images, classes, epsilons=changes)
        parts.append([np.asarray(one) for one in clipped])
    return [np.concatenate(part) for part in zip(*parts, strict=True)]


def _share(model: Teacher, x: np.ndarray, classes: np.ndarray) -> float:
    return float(np.mean(model.predict(x).argmax(-1) == classes))
