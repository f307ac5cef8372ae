"""One Langevin update of one array of samples, with an explicit temperature.

Temperature 0 is gradient descent with any Optax transformation. This is CAKE, whose noise is implicit in the step size
and its schedule. Temperature 1 is the unadjusted Langevin algorithm, which is LAKE. `step` takes the gradient of the
loss rather than the loss, because the loss may couple many sets while the update concerns one. So `step` can be mapped
over sets with `vmap`, one key for each set.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from cake_jax import checks
from cake_jax.types import CakeError

# Each is a descent direction of unit rate. The step size multiplies the direction.
OPTIMIZERS = {"sgd": lambda: optax.scale(-1.0), "adam": lambda: optax.chain(optax.scale_by_adam(), optax.scale(-1.0))}


class LangevinState(NamedTuple):
    """The state of the diffusion of one array of samples.

    Attributes:
      x: Samples, any shape, in normalised units.
      opt_state: State of the Optax transformation.
      step: Number of updates so far, scalar int32. It is folded into the key, so one key serves the whole chain.
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
    """One update `x <- x - eta grad L(x) + sqrt(2 eta temperature) N(0, I)`.

    With the loss a x^2 / 2 at temperature 1 the chain is stationary with variance 1 / (a (1 - eta a / 2)).

    Args:
      key: The chain's key, the same at each step.
      state: The present state.
      gradient: grad L at `state.x`, same shape.
      step_size: eta, scalar, above 0.
      temperature: Temperature of the noise, a Python number. With 0 no noise is drawn.
      optimizer: Descent direction of unit rate. At a temperature above 0 only plain SGD makes sense.

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
    """Refuses an optimizer and a temperature that do not go together.

    Args:
      optimizer: A name in `OPTIMIZERS`.
      temperature: Temperature of the Langevin noise.

    Raises:
      CakeError: The name is unknown, the temperature is negative, or noise is asked for with a preconditioned
        optimizer. The stationary distribution would not be the one that the loss defines.
    """
    checks.one_of("synthesis.optimizer", optimizer, OPTIMIZERS)
    checks.not_negative("synthesis.langevin_temperature", temperature)
    if temperature and optimizer != "sgd":
        raise CakeError("synthesis.optimizer: Langevin noise needs 'sgd'; or set synthesis.langevin_temperature to 0")
