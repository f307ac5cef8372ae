"""Augmentation of training images on the device, by name.

An augmentation is one file and one line of `AUGMENTATIONS`.
"""

import jax
from jax import Array

from cake_jax import checks
from cake_jax.augment.augmentation import Augmentation
from cake_jax.augment.policies import AUTOAUGMENT_CIFAR10, AUTOAUGMENT_SVHN, RANDAUGMENT
from cake_jax.augment.transforms import CROP, CUTOUT, FLIP
from cake_jax.types import CakeError, DataSpec

AUGMENTATIONS: dict[str, Augmentation] = {
    "crop": CROP,
    "flip": FLIP,
    "cutout": CUTOUT,
    "randaugment": RANDAUGMENT,
    "autoaugment_cifar10": AUTOAUGMENT_CIFAR10,
    "autoaugment_svhn": AUTOAUGMENT_SVHN,
}
NAMES = tuple(AUGMENTATIONS)


def check(names: tuple[str, ...], spec: DataSpec, field: str) -> None:
    """Refuses augmentations that cannot work on the data.

    Args:
      names: The augmentations.
      spec: Specification of the inputs.
      field: The config field that the names come from, for messages.

    Raises:
      CakeError: A name is unknown, the inputs are not images, or an augmentation needs the
        range of the pixels and `spec` has none.
    """
    for name in names:
        checks.one_of(field, name, AUGMENTATIONS)
        if not spec.is_image:
            raise CakeError(f"{field}: '{name}' is for images; leave it empty for inputs of shape {spec.shape}")
        if AUGMENTATIONS[name].needs_pixels and (spec.low is None or spec.high is None or spec.shape[-1] not in (1, 3)):
            raise CakeError(f"{field}: '{name}' needs 1 or 3 channels, and the specification's low and high")


def augment(keys: Array, x: Array, names: tuple[str, ...], spec: DataSpec) -> Array:
    """Augments a batch of images. Each image has its own key, so the images' draws are independent.

    Args:
      keys: One `jax.random.key` for each image, `[B]`.
      x: Images `[B, H, W, C]`, normalised.
      names: Names in `NAMES` that `check` accepts. They are applied in this order.
      spec: Specification of the inputs.

    Returns:
      The augmented images, `[B, H, W, C]`.
    """

    def one(key: Array, image: Array) -> Array:
        for place, name in enumerate(names):
            image = AUGMENTATIONS[name].apply(jax.random.fold_in(key, place), image, spec)
        return image

    return jax.vmap(one)(keys, x)


__all__ = ["AUGMENTATIONS", "NAMES", "Augmentation", "augment", "check"]
