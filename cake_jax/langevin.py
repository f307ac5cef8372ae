"""One Langevin update of one array of samples, with an explicit temperature.

Temperature 0 is gradient descent with any Optax transformation (CAKE, whose noise is implicit in the step size and
its schedule); temperature 1 is the unadjusted Langevin algorithm (LAKE). The kernel takes the gradient rather than the
energy, because the energy may couple the samples of many sets while the update never does: so `step` goes through
`vmap`, one key a set.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cake_jax.types import CakeError

# An optimizer here is a descent direction of unit rate: the step size multiplies what it returns.
OPTIMIZERS = {"sgd": lambda: optax.scale(-1.0), "adam": lambda: optax.chain(optax.scale_by_adam(), optax.scale(-1.0))}


class LangevinState(NamedTuple):
    """State of the diffusion of one array of samples.

    Attributes:
      x: Samples, any shape, in normalised units.
      opt_state: State of the Optax transformation.
      step: Number of updates so far, scalar int32; folded into the key, so that one key serves the whole chain.
    """

    x: Array
    opt_state: optax.OptState
    step: Array


class LangevinInfo(NamedTuple):
    """Diagnostics of one update.

    Attributes:
      gradient_norm: L2 norm of the gradient over the array, scalar.
    """

    gradient_norm: Array


def init(x: Array, optimizer: optax.GradientTransformation) -> LangevinState:
    """The state before the first update.

    Args:
      x: Start samples, any shape.
      optimizer: Descent direction of unit rate, for example `OPTIMIZERS["sgd"]()`.

    Returns:
      A `LangevinState`.
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
    """`x <- x - eta grad L(x) + sqrt(2 eta temperature) N(0, I)`.

    On the energy a x^2 / 2 at temperature 1 the chain is stationary with variance 1 / (a (1 - eta a / 2)).

    Args:
      key: Key of the chain, the same at each step.
      state: The present state.
      gradient: grad L at `state.x`, same shape.
      step_size: eta, scalar, above 0.
      temperature: Of the noise; 0 draws none. A Python number, fixed at trace time.
      optimizer: Descent direction of unit rate; anything but plain SGD makes sense at temperature 0 only.

    Returns:
      The next state and diagnostics.

    Source: CAKE (arXiv 2306.02090), Algorithm 1 line 8 and the LAKE update, in the sign and step-size form that
    descends the loss; Welling and Teh 2011 for the Langevin noise.
    """
    direction, opt_state = optimizer.update(gradient, state.opt_state, state.x)
    x = state.x + step_size * direction
    if temperature:
        noise = jax.random.normal(jax.random.fold_in(key, state.step), x.shape, x.dtype)
        x += jnp.sqrt(2.0 * step_size * temperature) * noise
    info = LangevinInfo(gradient_norm=optax.tree.norm(gradient))
    return LangevinState(x, opt_state, state.step + 1), info


def check_optimizer(optimizer: str, temperature: float) -> None:
    """Refuses what has no meaning.

    Args:
      optimizer: A name in `OPTIMIZERS`.
      temperature: Of the Langevin noise.

    Raises:
      CakeError: The name is unknown, or Langevin noise is asked of a preconditioned optimizer, whose stationary
        distribution is not the one that the energy states.
    """
    if optimizer not in OPTIMIZERS:
        raise CakeError(f"synthesis.optimizer: '{optimizer}' is not one of {', '.join(OPTIMIZERS)}")
    if temperature < 0:
        raise CakeError(f"synthesis.langevin_temperature: {temperature} is below 0")
    if temperature and optimizer != "sgd":
        raise CakeError("synthesis.optimizer: Langevin noise needs 'sgd'; or set synthesis.langevin_temperature to 0")
