"""Losses: values by hand, slow NumPy formulas in double precision, and gradients by finite differences."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from cake_jax import losses

LN = math.log


def random(*shape, seed=0, scale=1.0):
    return (scale * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def integers(high, *shape, seed=1):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.int32)


# One compiled program for each shape is faster here than one operation at a time.
cross_entropy = jax.jit(losses.cross_entropy)
classification = jax.jit(losses.classification)
contrastive_mse = jax.jit(losses.contrastive_mse)
total_variation = jax.jit(losses.total_variation)
negative_entropy = jax.jit(losses.negative_entropy)
distillation = jax.jit(losses.distillation, static_argnames="hard_weight")
kl_divergence = jax.jit(losses.kl_divergence)
multiclass_hinge = jax.jit(losses.multiclass_hinge)
snn = jax.jit(losses.soft_nearest_neighbour)
snn_and_gradient = jax.jit(jax.value_and_grad(losses.soft_nearest_neighbour))

# Slow formulas, in double precision.


def slow_hinge(z, labels):
    rows = [[max(0, 1 - s[y] + s[k]) if k != y else 0 for k in range(len(s))] for s, y in zip(z, labels, strict=True)]
    return np.mean(rows, axis=1)


def slow_cross_entropy(z, labels):
    return -np.take_along_axis(scipy.special.log_softmax(z, -1), labels[..., None], -1)[..., 0]


def slow_classification(z, target):
    return z.shape[-2] * slow_cross_entropy(z, target).mean(-1)


def slow_contrastive(z):
    table = (z[..., :, None, :] - z[..., None, :, :]) ** 2
    return 0.5 * z.shape[-2] ** 2 * table.mean((-3, -2, -1))


def slow_snn(z, labels, temperature=1.0, mask=None):
    rows = [i for i in range(len(z)) if mask is None or mask[i]]
    terms = []
    for i in rows:
        weights = {j: -((z[i] - z[j]) ** 2).sum() / temperature for j in rows if j != i}
        mates = [w for j, w in weights.items() if labels[j] == labels[i]]
        if mates:
            terms.append(scipy.special.logsumexp(list(weights.values())) - scipy.special.logsumexp(mates))
    return np.mean(terms) if terms else 0.0


def slow_total_variation(x):
    height, width, channels = x.shape[-3:]
    total = np.zeros(x.shape[:-3])
    for c, i, j in itertools.product(range(channels), range(height), range(width)):
        if i + 1 < height:
            total += np.abs(x[..., i + 1, j, c] - x[..., i, j, c]) / (channels * (height - 1) * width)
        if j + 1 < width:
            total += np.abs(x[..., i, j + 1, c] - x[..., i, j, c]) / (channels * height * (width - 1))
    return total


def slow_negative_entropy(p):
    return (p * np.log10(p)).mean(-1)


def slow_distillation(student, teacher, labels, tau, weight):
    soft = -(scipy.special.softmax(teacher / tau, -1) * scipy.special.log_softmax(student / tau, -1)).sum(-1)
    return weight * slow_cross_entropy(student, labels) + (1 - weight) * tau**2 * soft


def slow_kl(student, teacher):
    p = scipy.special.softmax(teacher, -1)
    return (p * (scipy.special.log_softmax(teacher, -1) - scipy.special.log_softmax(student, -1))).sum(-1)


# Values by hand.


def test_cross_entropy_by_hand():
    logits = jnp.array([[0.0, LN(3)], [0.0, LN(3)], [5.0, 5.0]])
    value = cross_entropy(logits, jnp.array([0, 1, 0]))
    np.testing.assert_allclose(value, [LN(4), LN(4 / 3), LN(2)], rtol=1e-6)


def test_classification_by_hand():
    logits = jnp.array([[0.0, LN(3)], [0.0, LN(3)]])
    np.testing.assert_allclose(classification(logits, jnp.array([0, 1])), LN(4) + LN(4 / 3), rtol=1e-6)
    flat = jnp.zeros((2, 5, 4))
    np.testing.assert_allclose(classification(flat, jnp.ones((2, 5), jnp.int32)), [5 * LN(4)] * 2, rtol=1e-6)


def test_contrastive_mse_by_hand():
    # Two of the four ordered pairs differ, by (4 + 16) / 2 = 10 in the mean over classes. 0.5 * 4 * (2 * 10 / 4) = 10.
    assert float(contrastive_mse(jnp.array([[0.0, 0.0], [2.0, 4.0]]))) == pytest.approx(10.0)
    assert float(contrastive_mse(jnp.full((4, 3), 2.5))) == 0.0
    assert float(contrastive_mse(jnp.array([[1.0, 2.0]]))) == 0.0


def test_soft_nearest_neighbour_by_hand():
    # The squared distances are 1, 1 and 4. The third sample has no mate.
    z, labels = jnp.array([[0.0], [1.0], [2.0]]), jnp.array([0, 0, 1])
    expected = (LN(1 + math.exp(-3)) + LN(2)) / 2
    assert float(snn(z, labels)) == pytest.approx(expected, rel=1e-5)
    expected = (LN(1 + math.exp(-3 / 2)) + LN(2)) / 2
    assert float(snn(z, labels, temperature=2.0)) == pytest.approx(expected, rel=1e-5)


def test_total_variation_by_hand():
    # The vertical differences are 3 and 6, the horizontal ones 1 and 4. Their means are 4.5 and 2.5.
    image = np.array([[0.0, 1.0], [3.0, 7.0]], np.float32)[..., None]
    assert float(total_variation(image)) == pytest.approx(7.0)
    # Channels scaled by 1, 2 and 6 have 3 times that on average.
    assert float(total_variation(image * np.array([1.0, -2.0, 6.0]))) == pytest.approx(21.0)
    # The vertical differences are 1, 0 and 2, the horizontal ones 1, 1, 2 and 3.
    image = np.array([[0.0, 1.0, 2.0], [-1.0, 1.0, 4.0]], np.float32)[..., None]
    assert float(total_variation(image)) == pytest.approx(1.0 + 7 / 4)
    assert float(total_variation(np.full((4, 4, 3), 9.0, np.float32))) == 0.0


def test_negative_entropy_by_hand():
    assert float(negative_entropy(jnp.full(10, 0.1))) == pytest.approx(-0.1)
    expected = (0.01 * -2 + 0.99 * math.log10(0.99)) / 2
    assert float(negative_entropy(jnp.array([0.01, 0.99]))) == pytest.approx(expected, rel=1e-5)
    assert float(negative_entropy(jnp.array([1.0, 0.0, 0.0]))) == pytest.approx(0.0, abs=1e-6)


def test_negative_entropy_gradient_is_finite_at_zero_probability():
    p = jnp.array([0.0, 0.3, 0.7])
    gradient = np.asarray(jax.jit(jax.grad(losses.negative_entropy))(p))
    assert np.isfinite(gradient).all()
    np.testing.assert_allclose(gradient[1:], (np.log10(p[1:]) + 1 / LN(10)) / 3, rtol=1e-5)


def test_distillation_by_hand():
    student, teacher = jnp.array([0.0, LN(3)]), jnp.array([LN(4), 0.0])
    # The teacher's probabilities are 4/5 and 1/5, the student's 1/4 and 3/4.
    expected = 0.8 * LN(4) + 0.2 * LN(4 / 3)
    assert float(distillation(student, teacher, jnp.array(0))) == pytest.approx(expected, rel=1e-6)
    # At temperature 2 the teacher's are 2/3 and 1/3, the student's (1, sqrt 3) / (1 + sqrt 3).
    soft = 4 * (LN(1 + math.sqrt(3)) - LN(3) / 6)
    value = distillation(student, teacher, jnp.array(0), temperature=2.0, hard_weight=0.25)
    assert float(value) == pytest.approx(0.25 * LN(4) + 0.75 * soft, rel=1e-6)


def test_kl_divergence_by_hand():
    p, q = np.array([[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]]), np.array([[0.6, 0.3, 0.1], [0.1, 0.1, 0.8]])
    value = kl_divergence(jnp.log(q), jnp.log(p))
    np.testing.assert_allclose(value, [scipy.stats.entropy(a, b) for a, b in zip(p, q, strict=True)], rtol=1e-5)


def test_multiclass_hinge_by_hand():
    """Three classes. Margins above 1 cost nothing, a margin of 0.5 costs 0.5 / 3, and one of -2 costs 3 / 3."""
    z = jnp.array([[5.0, 1.0, 4.0], [0.5, 1.0, -3.0], [2.0, 0.0, -9.0], [0.0, 0.0, 0.0]])
    np.testing.assert_allclose(multiclass_hinge(z, jnp.array([0, 1, 1, 2])), [0.0, 0.5 / 3, 1.0, 2 / 3], rtol=1e-6)


def test_moment_distance_by_hand():
    mean, var = jnp.array([3.0, 4.0]), jnp.array([1.0, 3.0])
    assert float(losses.moment_distance(mean, var, jnp.zeros(2), jnp.ones(2))) == pytest.approx(5.0 + 2.0)
    gradient = jax.grad(losses.moment_distance)(mean, var, jnp.zeros(2), var)
    np.testing.assert_allclose(gradient, [0.6, 0.8], rtol=1e-6)
    np.testing.assert_array_equal(jax.grad(losses.moment_distance)(mean, var, mean, var), np.zeros(2))


# Values of the slow formulas, for several shapes.


@pytest.mark.parametrize("shape", [(4, 3), (5, 4, 3), (2, 3, 6, 5)])
def test_set_losses_match_slow_formulas(shape):
    z, target = random(*shape, scale=3.0), integers(shape[-1], *shape[:-1])
    value = classification(z, target)
    assert value.shape == shape[:-2]
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, slow_classification(np.float64(z), target), rtol=1e-5)
    value = contrastive_mse(z)
    assert value.shape == shape[:-2]
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, slow_contrastive(np.float64(z)), rtol=1e-5)
    np.testing.assert_allclose(cross_entropy(z, target), slow_cross_entropy(np.float64(z), target), rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_contrastive_mse_does_not_cancel(dtype, offset):
    # Near 1000, bfloat16 has steps of 4 to 8. The slow formula takes the same rounded logits.
    z = jnp.asarray(random(3, 10, 10, scale=20.0) + offset, dtype)
    value = contrastive_mse(z)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, slow_contrastive(np.asarray(z, np.float64)), rtol=1e-4)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_contrastive_mse_gradient_does_not_cancel(dtype, offset):
    # The derivative of G sum_i mean_k (z_ik - zbar_k)^2 by z_ik is 2 G / K (z_ik - zbar_k).
    z = jnp.asarray(random(4, 5, scale=20.0) + offset, dtype)
    exact = np.asarray(z, np.float64)
    exact = 2 * 4 / 5 * (exact - exact.mean(0))
    tolerance = 1e-3 if dtype == jnp.float32 else 1e-2
    gradient = np.asarray(jax.jit(jax.grad(losses.contrastive_mse))(z), np.float64)
    np.testing.assert_allclose(gradient, exact, atol=tolerance * np.abs(exact).max())


@pytest.mark.parametrize("temperature", [0.5, 1.0, 30.0])
@pytest.mark.parametrize("scale", [1.0, 30.0])
@pytest.mark.parametrize("masked", [False, True])
def test_soft_nearest_neighbour_matches_double_loop(temperature, scale, masked):
    z, labels = random(12, 4, scale=scale), np.array([0, 0, 0, 1, 1, 2, 3, 3, 4, 0, 1, 1], np.int32)
    mask = np.array([1, 1, 0, 1, 1, 1, 1, 0, 1, 1, 0, 1], bool) if masked else None
    value = snn(z, labels, temperature=temperature, mask=mask)
    assert value.shape == ()
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, slow_snn(np.float64(z), labels, temperature, mask), rtol=1e-4)


def test_soft_nearest_neighbour_mask_removes_samples():
    z, labels = random(8, 3), np.array([0, 0, 1, 1, 2, 2, 0, 1], np.int32)
    mask = np.array([1, 1, 1, 1, 1, 0, 1, 0], bool)
    expected = slow_snn(np.float64(z[mask]), labels[mask])
    polluted = np.where(mask[:, None], z, np.float32(1e4))
    value, gradient = snn_and_gradient(polluted, labels, mask=mask)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(np.asarray(gradient)[~mask], 0.0)


def test_soft_nearest_neighbour_leaves_out_samples_without_a_mate():
    z = random(4, 3)
    value, gradient = snn_and_gradient(z, np.arange(4))
    assert float(value) == 0.0
    np.testing.assert_array_equal(gradient, np.zeros_like(z))
    # A mate that the mask removes does not count.
    mask = np.array([True, False, True, True])
    assert float(snn(z, np.array([0, 0, 1, 2]), mask=mask)) == 0.0
    # The lone sample still counts as a neighbour of the others, so it has a gradient.
    value, gradient = snn_and_gradient(z, np.array([0, 0, 0, 5]))
    assert float(value) > 0
    assert np.isfinite(gradient).all()
    assert np.abs(gradient[3]).max() > 0


@pytest.mark.parametrize("case", ["equal", "far", "single", "all masked"])
def test_soft_nearest_neighbour_gradient_is_finite(case):
    z, labels, mask = random(6, 3), np.array([0, 0, 1, 1, 2, 2], np.int32), None
    if case == "equal":
        z = np.ones_like(z)
    elif case == "far":
        z = 1e4 * z
    elif case == "single":
        z, labels = z[:1], labels[:1]
    else:
        mask = np.zeros(6, bool)
    value, gradient = snn_and_gradient(z, labels, mask=mask)
    np.testing.assert_allclose(value, slow_snn(np.float64(z), labels, mask=mask), rtol=1e-4)
    assert np.isfinite(gradient).all()


def test_soft_nearest_neighbour_is_low_if_classes_cluster():
    labels = np.array([0, 0, 0, 1, 1, 1])
    z = random(6, 2, scale=0.1)
    apart = z + 5.0 * labels[:, None]
    assert float(snn(apart, labels)) < 1e-3
    assert float(snn(apart, np.array([0, 1, 0, 1, 0, 1]))) > LN(2)


@pytest.mark.parametrize("offset", [100.0, 1000.0])
def test_soft_nearest_neighbour_does_not_cancel(offset):
    # A common offset of the logits does not change distances.
    z, labels = random(8, 4) + np.float32(offset), np.array([0, 0, 0, 1, 1, 2, 2, 1])
    np.testing.assert_allclose(snn(z, labels), slow_snn(np.float64(z), labels), rtol=2e-3)


@pytest.mark.parametrize("channels", [1, 3, 5])
@pytest.mark.parametrize("batch", [(), (4,), (2, 3)])
def test_total_variation_matches_loop(channels, batch):
    x = random(*batch, 4, 6, channels)
    value = total_variation(x)
    assert value.shape == batch
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, slow_total_variation(np.float64(x)), rtol=1e-5)


@pytest.mark.parametrize("tau", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_distillation_matches_formula(tau, weight):
    student, teacher = random(2, 3, 5, scale=3.0), random(2, 3, 5, seed=1, scale=3.0)
    labels = integers(5, 2, 3)
    value = distillation(student, teacher, labels, temperature=tau, hard_weight=weight)
    assert value.shape == (2, 3)
    assert value.dtype == jnp.float32
    expected = slow_distillation(np.float64(student), np.float64(teacher), labels, tau, weight)
    np.testing.assert_allclose(value, expected, rtol=2e-5)


# Properties.


def test_distillation_with_hard_weight_one_is_cross_entropy():
    student, teacher, labels = random(6, 5), random(6, 5, seed=1), integers(5, 6)
    value = distillation(student, teacher, labels, temperature=3.0, hard_weight=1.0)
    np.testing.assert_allclose(value, slow_cross_entropy(np.float64(student), labels), rtol=1e-5)


def test_distillation_gradient_is_the_softmax_difference():
    student, teacher, labels = random(5), random(5, seed=1), np.int32(2)
    gradient = jax.jit(jax.grad(losses.distillation))(student, teacher, labels)
    expected = scipy.special.softmax(student) - scipy.special.softmax(teacher)
    np.testing.assert_allclose(gradient, expected, atol=1e-6)


def test_distillation_gradient_does_not_vanish_at_high_temperature():
    # tau^2 makes up for the smaller gradient. At high tau the gradient is the difference of centred logits, over K.
    student, teacher, labels = random(5), random(5, seed=1), np.int32(2)
    gradient = jax.jit(jax.grad(losses.distillation))(student, teacher, labels, temperature=200.0)
    expected = ((student - student.mean()) - (teacher - teacher.mean())) / 5
    np.testing.assert_allclose(gradient, expected, atol=5e-3 * np.abs(expected).max() + 1e-3)


def test_kl_divergence_of_equal_distributions_is_zero():
    z = random(3, 4, 5, scale=4.0)
    value = kl_divergence(z, z + 7.0)
    assert value.shape == (3, 4)
    assert value.dtype == jnp.float32
    np.testing.assert_allclose(value, 0.0, atol=1e-5)
    assert (np.asarray(kl_divergence(z, -z)) > 0.01).all()


def test_kl_divergence_is_distillation_minus_the_teachers_entropy():
    student, teacher = random(6, 5), random(6, 5, seed=1)
    entropy = scipy.stats.entropy(scipy.special.softmax(teacher, -1), axis=-1)
    soft = distillation(student, teacher, np.zeros(6, np.int32))
    np.testing.assert_allclose(kl_divergence(student, teacher), soft - entropy, atol=1e-5)


@pytest.mark.parametrize("loss", ["cross_entropy", "distillation", "kl_divergence", "classification"])
def test_losses_are_finite_at_extreme_logits(loss):
    z, labels = 1e4 * random(2, 5), integers(5, 2)
    arguments = {"distillation": (z, -z, labels), "kl_divergence": (z, -z)}.get(loss, (z, labels))
    value, gradient = jax.jit(jax.value_and_grad(lambda z: getattr(losses, loss)(z, *arguments[1:]).sum()))(z)
    assert np.isfinite(value)
    assert float(value) > 0
    assert np.isfinite(gradient).all()


def test_multiclass_hinge_equals_pytorch():
    torch = pytest.importorskip("torch")
    z, y = random(4, 6, 7, scale=2.0), integers(7, 4, 6)
    expected = torch.nn.functional.multi_margin_loss(
        torch.from_numpy(z).reshape(24, 7), torch.from_numpy(y).long().ravel(), reduction="none"
    )
    np.testing.assert_allclose(multiclass_hinge(z, y), expected.reshape(4, 6), rtol=1e-5)


# Gradients against central differences of the slow formulas.

LABELS = np.array([0, 1, 0, 2, 1], np.int32)
TEACHER = random(5, 3, seed=9)
MASK = np.array([1, 1, 1, 0, 1], bool)
GRADIENTS = {
    "cross_entropy": (lambda z: losses.cross_entropy(z, LABELS), lambda z: slow_cross_entropy(z, LABELS)),
    "classification": (lambda z: losses.classification(z, LABELS), lambda z: slow_classification(z, LABELS)),
    "contrastive_mse": (losses.contrastive_mse, slow_contrastive),
    "soft_nearest_neighbour": (
        lambda z: losses.soft_nearest_neighbour(z, LABELS, temperature=2.0),
        lambda z: slow_snn(z, LABELS, 2.0),
    ),
    "soft_nearest_neighbour masked": (
        lambda z: losses.soft_nearest_neighbour(z, LABELS, mask=MASK),
        lambda z: slow_snn(z, LABELS, mask=MASK),
    ),
    "total_variation": (lambda z: losses.total_variation(z[..., None]), lambda z: slow_total_variation(z[..., None])),
    "negative_entropy": (
        lambda z: losses.negative_entropy(jax.nn.softmax(z).mean(0)),
        lambda z: slow_negative_entropy(scipy.special.softmax(z, -1).mean(0)),
    ),
    "distillation": (
        lambda z: losses.distillation(z, TEACHER, LABELS, temperature=3.0, hard_weight=0.2),
        lambda z: slow_distillation(z, np.float64(TEACHER), LABELS, 3.0, 0.2),
    ),
    "kl_divergence": (lambda z: losses.kl_divergence(z, TEACHER), lambda z: slow_kl(z, np.float64(TEACHER))),
    "multiclass_hinge": (lambda z: losses.multiclass_hinge(z, LABELS), lambda z: slow_hinge(z, LABELS)),
}


@pytest.mark.parametrize("name", GRADIENTS)
def test_gradient_matches_finite_differences(name):
    loss, slow = GRADIENTS[name]
    z, width = random(5, 3, seed=3), 1e-5
    gradient = jax.jit(jax.grad(lambda z: loss(z).sum()))(z)
    expected = np.zeros(z.shape)
    for index in np.ndindex(*z.shape):
        shift = np.zeros(z.shape)
        shift[index] = width
        expected[index] = (slow(z + shift).sum() - slow(z - shift).sum()) / (2 * width)
    assert np.abs(expected).max() > 1e-3
    np.testing.assert_allclose(gradient, expected, atol=1e-4 * np.abs(expected).max())
