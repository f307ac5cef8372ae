"""Precisions of arithmetic, by name."""

from typing import Any

import jax
import jax.numpy as jnp

PRECISIONS = {"float32": jnp.float32, "bf16": jnp.bfloat16}


def cast(tree: Any, precision: str) -> Any:
    """Converts the floating-point arrays of a pytree. Other leaves stay.

    Args:
      tree: A pytree of arrays.
      precision: A name in `PRECISIONS`.
    """
    dtype = PRECISIONS[precision]
    return jax.tree.map(lambda leaf: leaf.astype(dtype) if jnp.issubdtype(leaf.dtype, jnp.floating) else leaf, tree)
