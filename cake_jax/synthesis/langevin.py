"""One Langevin step of one array of samples, with an explicit temperature T_L.

T_L = 0 is gradient descent with any Optax transformation. CAKE has T_L = 0 and adds no noise: its step sizes and their
schedule spread the samples. LAKE has T_L = 1, which is the unadjusted Langevin algorithm. The loss may couple many
sets, so the caller computes its gradient over all of them. `step` then needs only its own set, its key and its
gradient, and `vmap` can map it over the sets.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

# Optax transformations with learning rate 1. The step size multiplies their update.
OPTIMIZERS = {"sgd": lambda: optax.scale(-1.0), "adam": lambda: optax.chain(optax.scale_by_adam(), optax.scale(-1.0))}


class LangevinState(NamedTuple):
    """The state of one array of samples between two steps.

    Attributes:
      x: Samples, any shape, in normalised units.
      opt_state: State of the Optax transformation.
      step: Number of steps so far, scalar int32. Each step folds this number into the same key.
    """

    x: Array
    opt_state: optax.OptState
    step: Array


class LangevinInfo(NamedTuple):
    """Diagnostics of one step.

    Attributes:
      gradient_norm: L2 norm of the gradient over the array, scalar.
    """

    gradient_norm: Array


def init(x: Array, optimizer: optax.GradientTransformation) -> LangevinState:
    """Makes the state before the first step.

    Args:
      x: Start samples, any shape.
      optimizer: Optax transformation with learning rate 1, for example `OPTIMIZERS["sgd"]()`.

    Returns:
      The state.
    """
    return LangevinState(x, optimizer.init(x), jnp.zeros((), jnp.int32))


def step(
    key: Array,
    state: LangevinState,
    gradient: Array,
    *,
    step_size: Array | float,
    temperature: float = 0.0,
    optimizer: optax.GradientTransformation,
) -> tuple[LangevinState, LangevinInfo]:
    """Takes one step `x <- x - eta grad L(x) + sqrt(2 eta T_L) N(0, I)`.

    For the loss a x^2 / 2 and T_L = 1, the stationary distribution has the variance 1 / (a (1 - eta a / 2)).

    Args:
      key: The key of the whole chain of steps. The noise of a step comes from this key and the step number.
      state: The state before the step.
      gradient: grad L at `state.x`, same shape.
      step_size: eta, scalar, above 0.
      temperature: T_L, a Python number. With 0 no noise is drawn.
      optimizer: Optax transformation with learning rate 1. With T_L above 0, only plain SGD makes sense.

    Returns:
      The next state and diagnostics.

    Source: CAKE (arXiv 2306.02090), Algorithm 1 line 8 and the LAKE update, with the sign and the step size written for
    descent. Welling and Teh 2011 for the Langevin noise.
    """
    direction, opt_state = optimizer.update(gradient, state.opt_state, state.x)
    x = state.x + step_size * direction
    if temperature:
        noise = jax.random.normal(jax.random.fold_in(key, state.step), x.shape, x.dtype)
        x += jnp.sqrt(2.0 * step_size * temperature) * noise
    info = LangevinInfo(gradient_norm=optax.tree.norm(gradient))
    return LangevinState(x, opt_state, state.step + 1), info
