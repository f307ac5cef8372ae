"""Methods by name: each one file, all with one signature.

A new method is a new file with its defaults, and a line in `METHODS`.
"""

from cake_jax.methods import (
    adversarial,
    cake,
    dfme,
    generative,
    ideal,
    inversion,
    naive,
    noise,
    real,
    zeroth_order,
)
from cake_jax.methods.method import ANSWERS, Method, Queries, Round
from cake_jax.types import CakeError

METHODS: dict[str, Method] = {
    "cake": cake.METHOD,
    "lake": cake.LAKE,
    "noise": noise.METHOD,
    "real": real.METHOD,
    "naive": naive.METHOD,
    "inversion": inversion.METHOD,
    "generative": generative.METHOD,
    "adversarial": adversarial.METHOD,
    "dfme": dfme.METHOD,
    "ideal": ideal.METHOD,
    "zeroth_order": zeroth_order.METHOD,
}


def get(name: str) -> Method:
    """The method of a name.

    Raises:
      CakeError: Unknown name.
    """
    if name not in METHODS:
        raise CakeError(f"method: '{name}' is not one of {', '.join(METHODS)}")
    return METHODS[name]


__all__ = ["ANSWERS", "METHODS", "Method", "Queries", "Round", "get"]
