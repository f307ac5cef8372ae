"""How many operations a program takes, and how many a CPU core does at once."""

from collections.abc import Callable
from typing import Any

import jax

# Floating-point operations of a forward pass on a CPU core. They are enough to hide the cost of starting kernels, and
# so few that the values that the pass keeps for its gradient stay in the core's cache.
CORE_FLOPS = 8e7


def flops(function: Callable, *arguments: Any) -> float:
    """XLA's count of the floating-point operations of a function, from the shapes of its arguments.

    Nothing is compiled. 0 if XLA does not count them.
    """
    analysis: Any = jax.jit(function).lower(*arguments).cost_analysis()
    return (analysis or {}).get("flops", 0.0)
