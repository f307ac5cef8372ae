"""The Langevin step on losses whose trajectories and stationary distributions are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from cake_jax.synthesis import langevin

SGD = langevin.OPTIMIZERS["sgd"]()
ADAM = langevin.OPTIMIZERS["adam"]()


def random(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


@functools.partial(jax.jit, static_argnames=("num_steps", "temperature"))
def quadratic(key, x, a, eta, *, num_steps, temperature):
    """The samples after `num_steps` steps on the loss `a x^2 / 2`."""

    def body(_, state):
        return langevin.step(key, state, a * state.x, step_size=eta, temperature=temperature, optimizer=SGD)[0]

    return lax.fori_loop(0, num_steps, body, langevin.init(x, SGD)).x


@pytest.mark.parametrize(
    ("a", "eta", "temperature"),
    [(1.0, 0.2, 1.0), (4.0, 0.05, 1.0), (1.0, 1.0, 1.0), (0.5, 2.0, 1.0), (2.0, 0.75, 1.0), (2.0, 0.25, 0.1)],
)
def test_stationary_variance(a, eta, temperature):
    """Each sample is a chain of its own. The standard error of a Gaussian's variance is var sqrt(2 / n)."""
    # The effect of the start shrinks as |1 - eta a|^steps, at most 0.8^100.
    n, num_steps = 40_000, 100
    x = quadratic(jax.random.key(0), jnp.full(n, 3.0), a, eta, num_steps=num_steps, temperature=temperature)
    x = np.asarray(x, np.float64)
    expected = temperature / (a * (1 - eta * a / 2))
    assert abs(x.var() - expected) < 4 * expected * np.sqrt(2 / n)
    assert abs(x.mean()) < 4 * np.sqrt(expected / n)
    # The fourth moment of a Gaussian is 3 var^2, with a standard error of var^2 sqrt(96 / n).
    assert abs((x**4).mean() - 3 * expected**2) < 4 * expected**2 * np.sqrt(96 / n)


def test_noise_of_successive_steps_is_independent():
    """With eta a = 1 the next state is the noise alone, so states of successive steps are uncorrelated."""
    key, n, eta = jax.random.key(1), 40_000, 0.5
    state, states = langevin.init(jnp.zeros(n), SGD), []
    for _ in range(3):
        state, _ = langevin.step(key, state, state.x / eta, step_size=eta, temperature=1.0, optimizer=SGD)
        states.append(np.asarray(state.x))
    correlation = np.corrcoef(states)
    assert np.abs(correlation - np.eye(3)).max() < 4 / np.sqrt(n)


@pytest.mark.parametrize(("a", "eta"), [(1.0, 0.1), (4.0, 0.2), (2.0, 0.75)])
def test_temperature_zero_is_gradient_descent(a, eta):
    x0, state = random(3, 4), langevin.init(jnp.asarray(random(3, 4)), SGD)
    loss = [np.sum(a * x0**2 / 2)]
    for t in range(1, 11):
        state, _ = langevin.step(jax.random.key(0), state, a * state.x, step_size=eta, optimizer=SGD)
        np.testing.assert_allclose(state.x, x0 * (1 - eta * a) ** t, rtol=1e-5)
        loss.append(np.sum(a * np.asarray(state.x) ** 2 / 2))
        assert int(state.step) == t
    assert (np.diff(loss) < 0).all()


def test_gradient_norm_by_hand():
    state = langevin.init(jnp.zeros((2, 2)), SGD)
    gradient = jnp.array([[1.0, 2.0], [2.0, 4.0]])
    _, info = langevin.step(jax.random.key(0), state, gradient, step_size=0.1, temperature=1.0, optimizer=SGD)
    assert info.gradient_norm.shape == ()
    assert float(info.gradient_norm) == pytest.approx(5.0)


def test_adam_follows_optax():
    eta, x = 0.03, jnp.asarray(random(5))
    curvature = jnp.array([0.1, 1.0, 10.0, 3.0, 0.5])
    state, reference = langevin.init(x, ADAM), optax.adam(eta)
    reference_state = reference.init(x)
    for _ in range(30):
        state, _ = langevin.step(jax.random.key(0), state, curvature * state.x, step_size=eta, optimizer=ADAM)
        updates, reference_state = reference.update(curvature * x, reference_state, x)
        x = optax.apply_updates(x, updates)
        np.testing.assert_allclose(state.x, x, atol=1e-6)


@pytest.mark.parametrize("optimizer", [SGD, ADAM])
def test_temperature_zero_draws_no_noise(optimizer):
    x = jnp.asarray(random(6))
    results = []
    for seed in (0, 1):
        state = langevin.init(x, optimizer)
        for _ in range(3):
            state, _ = langevin.step(jax.random.key(seed), state, state.x, step_size=0.1, optimizer=optimizer)
        results.append(np.asarray(state.x))
    np.testing.assert_array_equal(*results)


def noise(seed, step, eta=0.5):
    """The noise that a step adds to samples at 0."""
    state = langevin.init(jnp.zeros(100), SGD)._replace(step=jnp.int32(step))
    state, _ = langevin.step(jax.random.key(seed), state, jnp.zeros(100), step_size=eta, temperature=1.0, optimizer=SGD)
    return np.asarray(state.x)


def test_noise_depends_on_the_key_and_the_step():
    np.testing.assert_array_equal(noise(0, 3), noise(0, 3))
    for other in (noise(0, 4), noise(1, 3)):
        assert np.abs(noise(0, 3) - other).min() > 0
        assert abs(np.corrcoef(noise(0, 3), other)[0, 1]) < 0.4
    np.testing.assert_allclose(noise(0, 3, eta=2.0), 2 * noise(0, 3, eta=0.5), rtol=1e-5)


@pytest.mark.parametrize(("name", "temperature"), [("sgd", 1.0), ("sgd", 0.0), ("adam", 0.0)])
def test_vmap_over_sets_equals_a_loop(name, temperature):
    optimizer, num_sets = langevin.OPTIMIZERS[name](), 3
    x, keys = jnp.asarray(random(num_sets, 4, 2)), jax.random.split(jax.random.key(5), num_sets)

    def two_steps(key, x):
        state = langevin.init(x, optimizer)
        for _ in range(2):
            state, info = langevin.step(
                key, state, 3 * state.x, step_size=0.1, temperature=temperature, optimizer=optimizer
            )
        return state.x, info.gradient_norm

    together, norms = jax.jit(jax.vmap(two_steps))(keys, x)
    for s in range(num_sets):
        alone, norm = jax.jit(two_steps)(keys[s], x[s])
        np.testing.assert_allclose(together[s], alone, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(norms[s], norm, rtol=1e-5)
