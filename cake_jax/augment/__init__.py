"""Augmentation of training images on the device, by name; every example has a draw of its own."""

import jax
import jax.numpy as jnp
from jax import Array

from cake_jax.augment import policies, transforms
from cake_jax.types import CakeError, DataSpec

_POLICIES = {
    "randaugment": policies.randaugment,
    "autoaugment_cifar10": policies.autoaugment_cifar10,
    "autoaugment_svhn": policies.autoaugment_svhn,
}
NAMES = ("crop", "flip", "cutout", *_POLICIES)


def check(names: tuple[str, ...], spec: DataSpec, field: str) -> None:
    """Refuses augmentations that cannot work on the data; `field` names them in the message.

    Raises:
      CakeError: Unknown name, the inputs are no images, or a policy lacks the range of the pixels.
    """
    for name in names:
        if name not in NAMES:
            raise CakeError(f"{field}: '{name}' is not one of {', '.join(NAMES)}")
        if not spec.is_image:
            raise CakeError(f"{field}: '{name}' is for images; leave it empty for inputs of shape {spec.shape}")
        if name in _POLICIES and (spec.low is None or spec.high is None or spec.shape[-1] not in (1, 3)):
            raise CakeError(f"{field}: '{name}' needs 1 or 3 channels, and the lowest and highest pixel value")


def augment(keys: Array, x: Array, names: tuple[str, ...], spec: DataSpec) -> Array:
    """Augments a batch of images, each by its own key.

    - `crop`: shifted by up to an eighth of the side each way, black where nothing is left.
    - `flip`: mirrored left to right, half of the time.
    - `cutout`: a square of half the side around a random pixel set to the mean; DeVries, Taylor 2017, arXiv 1708.04552.
    - `randaugment`, `autoaugment_cifar10`, `autoaugment_svhn`: see `cake_jax.augment.policies`. They work on pixels, so
      values outside the valid range, as synthetic samples may have, are clipped first. The others only move values.

    Args:
      keys: A `jax.random.key` for each example, `[B]`.
      x: Images `[B, H, W, C]`, normalised.
      names: Of `NAMES`, applied in this order; what `check` accepts.
      spec: The input domain.

    Returns:
      Augmented images like x.
    """
    mean, std = jnp.asarray(spec.mean, jnp.float32), jnp.asarray(spec.std, jnp.float32)
    black = jnp.broadcast_to(0.0 if spec.low is None else (spec.low - mean) / std, x.shape[-1:])
    low = spec.low or 0.0
    span = (spec.high or 0.0) - low  # policies are refused where there is none

    def one(key: Array, image: Array) -> Array:
        for place, name in enumerate(names):
            draw = jax.random.fold_in(key, place)
            if name == "crop":
                image = transforms.crop(draw, image, black)
            elif name == "flip":
                image = transforms.flip(draw, image)
            elif name == "cutout":
                image = transforms.cutout(draw, image)
            else:
                pixels = jnp.clip((image * std + mean - low) / span, 0.0, 1.0)
                image = (_POLICIES[name](draw, pixels) * span + low - mean) / std
        return image

    return jax.vmap(one)(keys, x)
