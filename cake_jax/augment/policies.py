"""RandAugment, and AutoAugment's policies for CIFAR-10 and SVHN. They augment one image with pixels in [0, 1].

Sources: Cubuk et al. 2019, RandAugment (arXiv 1909.13719), with 2 operations of magnitude 9 out of 30. Cubuk et al.
2018, AutoAugment (arXiv 1805.09501), tables of policies in the appendix. As in the paper, CIFAR-100 uses the policy of
CIFAR-10.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax.augment.augmentation import of_pixels
from cake_jax.augment.operations import OPERATIONS, SIGNED, perform

_NUM_OPERATIONS, _LEVEL = 2, 9 / 30
_IS_SIGNED = np.array([name in SIGNED for name in OPERATIONS])

# Each line is a sub-policy: two operations, each with its probability in tenths and its magnitude from 0 to 9.
CIFAR10 = """
invert 1 0        contrast 2 6
rotate 7 2        translate_x 3 9
sharpness 8 1     sharpness 9 3
shear_y 5 8       translate_y 7 9
autocontrast 5 0  equalize 9 0
shear_y 2 7       posterize 3 7
color 4 3         brightness 6 7
sharpness 3 9     brightness 7 9
equalize 6 0      equalize 5 0
contrast 6 7      sharpness 6 5
color 7 7         translate_x 5 8
equalize 3 0      autocontrast 4 0
translate_y 4 3   sharpness 2 6
brightness 9 6    color 2 8
solarize 5 2      invert 0 0
equalize 2 0      autocontrast 6 0
equalize 2 0      equalize 6 0
color 9 9         equalize 6 0
autocontrast 8 0  solarize 2 8
brightness 1 3    color 7 0
solarize 4 5      autocontrast 9 0
translate_y 9 9   translate_y 7 9
autocontrast 9 0  solarize 8 3
equalize 8 0      invert 1 0
translate_y 7 9   autocontrast 9 0
"""
SVHN = """
shear_x 9 4       invert 2 0
shear_y 9 8       invert 7 0
equalize 6 0      solarize 6 6
invert 9 0        equalize 6 0
equalize 6 0      rotate 9 3
shear_x 9 4       autocontrast 8 0
shear_y 9 8       invert 4 0
shear_y 9 5       solarize 2 6
invert 9 0        autocontrast 8 0
equalize 6 0      rotate 9 3
shear_x 9 4       solarize 3 3
shear_y 8 8       invert 7 0
equalize 9 0      translate_y 6 6
invert 9 0        equalize 6 0
contrast 3 3      rotate 8 4
invert 8 0        translate_y 0 2
shear_y 7 6       solarize 4 8
invert 6 0        rotate 8 4
shear_y 3 7       translate_x 9 3
shear_x 1 6       invert 6 0
solarize 7 2      translate_y 6 7
shear_y 8 4       invert 8 0
shear_x 7 9       translate_y 8 3
shear_y 8 5       autocontrast 7 0
shear_x 7 2       invert 1 0
"""


def randaugment(key: Array, image: Array) -> Array:
    """Performs two random operations of equal strength on an image `[H, W, C]`, any except `invert`."""
    choice_key, sign_key = jax.random.split(key)
    # `invert` is the last of the operations.
    chosen = jax.random.randint(choice_key, (_NUM_OPERATIONS,), 0, len(OPERATIONS) - 1)
    return _perform_all(sign_key, image, chosen, jnp.full(_NUM_OPERATIONS, _LEVEL))


def autoaugment(key: Array, image: Array, policy: str) -> Array:
    """Performs a random sub-policy on an image.

    Args:
      key: A JAX random key.
      image: `[H, W, C]`.
      policy: A table of sub-policies like `CIFAR10`.

    Returns:
      `[H, W, C]`.
    """
    choice_key, use_key, sign_key = jax.random.split(key, 3)
    operations, probabilities, levels = (jnp.asarray(part) for part in table(policy))
    row = jax.random.randint(choice_key, (), 0, len(operations))
    used = jax.random.bernoulli(use_key, probabilities[row])
    chosen = jnp.where(used, operations[row], OPERATIONS.index("identity"))
    return _perform_all(sign_key, image, chosen, levels[row])


def table(policy: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Reads a table of S sub-policies.

    Returns:
      Positions in `OPERATIONS`, probabilities and levels of the operations, each `[S, 2]`.
    """
    cells = np.array(policy.split()).reshape(-1, 2, 3)
    operations = np.vectorize(OPERATIONS.index)(cells[..., 0])
    return operations, cells[..., 1].astype(np.float32) / 10, cells[..., 2].astype(np.float32) / 9


def _perform_all(key: Array, image: Array, operations: Array, levels: Array) -> Array:
    """Performs operations `[N]` of levels `[N]` in turn. The level of an operation in `SIGNED` gets a random sign."""
    signs = jnp.where(jax.random.bernoulli(key, shape=operations.shape), 1.0, -1.0)
    levels = jnp.where(jnp.asarray(_IS_SIGNED)[operations], signs, 1.0) * levels
    # A scan compiles the operations once. A Python loop would compile them N times.
    return jax.lax.scan(lambda x, step: (perform(x, *step), None), image, (operations, levels))[0]


RANDAUGMENT = of_pixels(randaugment)
AUTOAUGMENT_CIFAR10 = of_pixels(functools.partial(autoaugment, policy=CIFAR10))
AUTOAUGMENT_SVHN = of_pixels(functools.partial(autoaugment, policy=SVHN))
