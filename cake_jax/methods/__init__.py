"""Methods by name: each one file, all with one signature.

A new method is a new file, a line in `METHODS`, and its defaults in `config.methods.<name>`.
"""

from cake_jax.methods import cake, noise
from cake_jax.methods.method import Method
from cake_jax.types import CakeError

METHODS: dict[str, Method] = {"cake": cake.METHOD, "lake": cake.METHOD, "noise": noise.METHOD}


def get(name: str) -> Method:
    """The method of a name.

    Raises:
      CakeError: Unknown name.
    """
    if name not in METHODS:
        raise CakeError(f"method: '{name}' is not one of {', '.join(METHODS)}")
    return METHODS[name]


__all__ = ["METHODS", "Method", "get"]
