"""Methods by name. A new method is one file and one line of `METHODS`."""

from cake_jax import checks
from cake_jax.methods.adversarial import ADVERSARIAL
from cake_jax.methods.cake import CAKE, LAKE
from cake_jax.methods.dfme import DFME
from cake_jax.methods.generative import GENERATIVE
from cake_jax.methods.ideal import IDEAL
from cake_jax.methods.inversion import INVERSION
from cake_jax.methods.method import GuideSettings, Method, Queries, Round, total_queries
from cake_jax.methods.naive import NAIVE
from cake_jax.methods.noise import NOISE
from cake_jax.methods.real import REAL
from cake_jax.methods.starts import STARTS
from cake_jax.methods.zeroth_order import ZEROTH_ORDER
from cake_jax.types import ACCESS, CakeError

METHODS: dict[str, Method] = {
    "cake": CAKE,
    "lake": LAKE,
    "starts": STARTS,
    "noise": NOISE,
    "real": REAL,
    "naive": NAIVE,
    "inversion": INVERSION,
    "generative": GENERATIVE,
    "adversarial": ADVERSARIAL,
    "dfme": DFME,
    "ideal": IDEAL,
    "zeroth_order": ZEROTH_ORDER,
}


def get(name: str) -> Method:
    """Returns the method with this name.

    Raises:
      CakeError: The name is unknown.
    """
    checks.one_of("method", name, METHODS)
    return METHODS[name]


def check_access(name: str, access: str) -> None:
    """Refuses a method that needs more access than the teacher gives.

    Args:
      name: Name of the method.
      access: The teacher's access, one of `types.ACCESS`.

    Raises:
      CakeError: The method needs more access. The message lists the methods that can run with this access.
    """
    needed = get(name).access
    if ACCESS.index(needed) > ACCESS.index(access):
        fitting = (n for n, method in METHODS.items() if ACCESS.index(method.access) <= ACCESS.index(access))
        raise CakeError(
            f"method: '{name}' needs the teacher's {needed}, and the teacher gives {access}; "
            f"use one of {', '.join(fitting)}"
        )


__all__ = ["METHODS", "GuideSettings", "Method", "Queries", "Round", "check_access", "get", "total_queries"]
