"""Synthesis: the gradient that a set feels, sameness over devices and chunks, coupling terms, pluggable parts."""

import dataclasses
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cake_jax import losses, models, parallel, priors, synthesis
from cake_jax.synthesis.objective import logit_gap
from cake_jax.synthesis.settings import SynthesisSettings, Weights, check
from cake_jax.teachers import Teacher, from_function, from_linen
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((4, 4, 2), 5)
SETTINGS = SynthesisSettings(
    num_batches=3, batch_size=15, num_groups=3, num_steps=4, step_size=0.05, weights=Weights(cls=2.0, contr=0.5, tv=3.0)
)


@pytest.fixture(scope="module")
def teacher():
    module = models.create("mlp", SPEC, {"width": 8})
    return from_linen(module, module.init(jax.random.key(7), jnp.zeros((1, *SPEC.shape))), SPEC)


def whole_loss(x, teacher, target, settings):
    """L of a whole mini-batch [S, G, ...], from the formulas with the [G, G] table, on one device."""
    sets, groups = x.shape[:2]
    logits = teacher(x.reshape(-1, *x.shape[2:])).reshape(sets, groups, -1)
    flat = logits.reshape(sets * groups, -1)
    log_p = jax.nn.log_softmax(flat)
    cls = groups * -jnp.take_along_axis(log_p, target.reshape(-1, 1), axis=1).mean()
    if settings.contrastive == "snn":
        snn = losses.soft_nearest_neighbour(flat, target.reshape(-1), temperature=settings.snn_temperature)
        contr = 0.5 * groups**2 / snn
    else:
        table = logits[:, :, None] - logits[:, None, :]
        contr = 0.5 * groups**2 * jnp.square(table).mean()
    tv = jnp.abs(jnp.diff(x, axis=2)).mean() + jnp.abs(jnp.diff(x, axis=3)).mean()
    p = jax.nn.softmax(flat).mean(axis=0)
    entropy = (p * jnp.log10(p)).mean()
    w = settings.weights
    return w.cls * cls + w.contr * contr + w.tv * tv + w.entropy * entropy


def one_step_by_hand(teacher, settings, batch, key):
    """One mini-batch after one step, with the draws that the design states and the loss of the whole mini-batch."""
    xs, targets = [], []
    for s in range(settings.num_sets):
        start, target, _ = jax.random.split(jax.random.fold_in(key, batch * settings.num_sets + s), 3)
        xs.append(jax.random.normal(start, (settings.num_groups, *SPEC.shape)))
        targets.append(jax.random.permutation(target, SPEC.num_classes)[: settings.num_groups])
    x, target = jnp.stack(xs), jnp.stack(targets)
    gradient = jax.grad(whole_loss)(x, teacher, target, settings)
    return (x - settings.step_size * gradient).reshape(-1, *SPEC.shape), target.reshape(-1)


@pytest.mark.parametrize(
    "change",
    [
        {},
        {"weights": Weights(cls=1.0, contr=0.3, tv=1.0, entropy=20.0)},
        {"contrastive": "snn", "snn_temperature": 2.0},
        {"contrastive": "snn", "weights": Weights(cls=0.5, contr=0.1, tv=0.0, entropy=5.0)},
    ],
    ids=["mse", "entropy", "snn", "snn and entropy"],
)
def test_one_step_is_the_step_of_the_whole_mini_batch(teacher, change):
    settings = dataclasses.replace(SETTINGS, num_steps=1, schedule="constant", **change)
    key = jax.random.key(3)
    samples, _ = synthesis.minibatch(key, teacher, settings, 1)
    x, target = one_step_by_hand(teacher, settings, 1, key)
    np.testing.assert_array_equal(samples.target, target)
    np.testing.assert_allclose(samples.x, x, atol=1e-5)
    np.testing.assert_allclose(samples.logits, teacher(jnp.asarray(samples.x)), atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 5, 7])
def test_chunks_change_only_the_rounding(teacher, chunk):
    key = jax.random.key(0)
    whole, _ = synthesis.minibatch(key, teacher, SETTINGS, 0)
    parts, _ = synthesis.minibatch(key, teacher, dataclasses.replace(SETTINGS, sets_per_chunk=chunk), 0)
    np.testing.assert_array_equal(whole.target, parts.target)
    np.testing.assert_allclose(whole.x, parts.x, atol=1e-5)


def test_targets_of_a_set_differ_and_sets_are_numbered(teacher):
    samples = synthesis.synthesize(jax.random.key(1), teacher, SPEC, SETTINGS)
    assert samples.num_samples == 45
    np.testing.assert_array_equal(samples.set_index, np.repeat(np.arange(15), 3))
    for number in range(15):
        assert len(set(samples.target[samples.set_index == number].tolist())) == 3
    assert len(set(samples.target.tolist())) == 5


def test_a_mini_batch_does_not_depend_on_those_before(teacher):
    key = jax.random.key(2)
    everything = synthesis.synthesize(key, teacher, SPEC, SETTINGS)
    last, _ = next(synthesis.stream(key, teacher, SETTINGS, first_batch=2))
    np.testing.assert_array_equal(everything.x[30:], last.x)
    np.testing.assert_array_equal(everything.logits[30:], last.logits)


def sets_of(width, **changes):
    """Sets a chunk for a linear teacher of 1,000 x `width` x 2 operations a sample."""
    spec = DataSpec((1000,), width)
    teacher = Teacher(jnp.zeros((1000, width)), lambda variables, x: x @ variables, spec)
    settings = SynthesisSettings(batch_size=500, num_groups=10, **changes)
    return synthesis.sets_per_chunk(teacher, settings)


def test_the_larger_a_teacher_the_fewer_sets_step_together():
    # A set costs 20,000 x width operations; 50 sets in 4, 8 and 52 chunks.
    assert [sets_of(10), sets_of(1000), sets_of(20_000)] == [13, 7, 1]


def test_sets_that_step_together_can_be_set_and_are_all_where_a_term_couples_them():
    assert sets_of(10, sets_per_chunk=3) == 3
    assert sets_of(20_000, weights=Weights(entropy=1.0)) == 25  # half of 50, on two devices


def test_a_teacher_whose_cost_is_unknown_is_taken_for_a_small_one():
    def apply(variables, x):
        return jax.pure_callback(lambda x: np.zeros((len(x), 10), np.float32), jnp.zeros((len(x), 10)), x)

    teacher = Teacher((), apply, DataSpec((4,), 10))
    assert synthesis.sets_per_chunk(teacher, SynthesisSettings(batch_size=500)) == 13


def test_one_trace_for_the_whole_run_and_for_another_teacher():
    traces = []
    spec = DataSpec((2,), 2)

    def apply(variables, x):
        traces.append(1)
        return x @ variables

    settings = SynthesisSettings(num_batches=4, batch_size=8, num_groups=2, num_steps=3, langevin_temperature=1.0)
    first, second = (Teacher(jax.random.normal(jax.random.key(seed), (2, 2)), apply, spec) for seed in range(2))
    synthesis.minibatch(jax.random.key(0), first, settings, 0)
    after_one = len(traces)
    assert after_one > 0
    for teacher in (first, second):
        for _ in synthesis.stream(jax.random.key(0), teacher, settings):
            pass
    assert len(traces) == after_one


def test_temperature_adds_noise_of_the_stated_size(teacher):
    cold = dataclasses.replace(SETTINGS, num_steps=1, batch_size=300, weights=Weights(cls=0.0, contr=0.0))
    hot = dataclasses.replace(cold, langevin_temperature=2.0)
    key = jax.random.key(5)
    still, _ = synthesis.minibatch(key, teacher, cold, 0)
    moved, _ = synthesis.minibatch(key, teacher, hot, 0)
    noise = moved.x - still.x
    assert abs(noise.var() / (2 * 0.05 * 2.0) - 1) < 4 * np.sqrt(2 / noise.size)
    flat = noise.reshape(len(noise), -1)
    assert len(np.unique(flat[:, 0])) == len(flat), "every sample draws its own noise"


def test_no_steps_leave_the_labelled_start(teacher):
    samples, info = synthesis.minibatch(jax.random.key(0), teacher, dataclasses.replace(SETTINGS, num_steps=0), 0)
    start, _, _ = jax.random.split(jax.random.fold_in(jax.random.key(0), 4), 3)
    np.testing.assert_array_equal(samples.x[12:15], jax.random.normal(start, (3, *SPEC.shape)))
    assert info.logit_gap == pytest.approx(info.logit_gap_start, rel=1e-5)


def test_the_loss_falls_and_the_gap_closes(teacher):
    settings = dataclasses.replace(SETTINGS, num_steps=100, schedule="constant", weights=Weights(cls=1.0, contr=5.0))
    _, start = synthesis.minibatch(jax.random.key(0), teacher, dataclasses.replace(settings, num_steps=0), 0)
    _, end = synthesis.minibatch(jax.random.key(0), teacher, settings, 0)
    assert end.cls + 5 * end.contr < 0.7 * (start.cls + 5 * start.contr)
    assert end.logit_gap < end.logit_gap_start


def test_logit_gap_is_the_root_mean_square_over_pairs():
    logits = jnp.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    pairs = [25.0, 1.0, 9.0 + 9.0]
    assert logit_gap(logits) == pytest.approx(np.sqrt(np.mean(pairs)), rel=1e-6)


def test_parts_are_pluggable():
    spec = DataSpec((3,), 4)
    settings = SynthesisSettings(
        num_batches=1,
        batch_size=4,
        num_groups=2,
        num_steps=1,
        step_size=0.5,
        schedule="constant",
        weights=Weights(cls=0.0, contr=1.0, tv=1.0),
        start=lambda key, groups, spec: jnp.full((groups, *spec.shape), 2.0),
        targets=lambda key, classes, groups: jnp.arange(groups, dtype=jnp.int32) + 2,
        contrastive=lambda logits: logits[..., 0].sum(),
        prior=lambda x: jnp.square(x).sum(axis=-1),
    )
    weights = jnp.zeros((3, 4)).at[0, 0].set(1.0)
    samples = synthesis.synthesize(jax.random.key(0), lambda x: x @ weights, spec, settings)
    np.testing.assert_array_equal(samples.target, [2, 3, 2, 3])
    # d/dx of 1/2 sum_sets sum_i x_i0 is 1/2 in coordinate 0; of mean_i |x_i|^2, 4 samples, x / 2 in all three.
    np.testing.assert_allclose(samples.x, np.tile([2 - 0.5 * 1.5, 2 - 0.5, 2 - 0.5], (4, 1)), rtol=1e-6)


def test_the_smooth_start_has_unit_variance_and_neighbours_alike():
    x = np.asarray(priors.smooth_start(jax.random.key(0), 400, DataSpec((28, 28, 2), 10)))
    assert abs(x.mean()) < 0.05
    assert 0.7 < x.std() < 1.4
    neighbours = np.mean(x[:, 1:] * x[:, :-1]) / np.mean(x**2)
    assert neighbours > 0.4
    assert abs(np.mean(x[..., 0] * x[..., 1])) < 0.05, "channels are independent"


def test_the_contrasted_start_fills_the_valid_range_and_no_more():
    spec = DataSpec((28, 28, 2), 10, mean=(0.2, 0.5), std=(0.3, 0.25), low=0.0, high=1.0)
    x = np.asarray(priors.contrasted_start(jax.random.key(0), 400, spec))
    low, high = np.array([-2 / 3, -2.0]), np.array([8 / 3, 2.0])
    for channel in range(2):
        values = x[..., channel]
        assert values.min() == pytest.approx(low[channel], rel=1e-6)
        assert values.max() == pytest.approx(high[channel], rel=1e-6)
        assert np.mean(values == values.min()) > 0.05, "black pixels are many"
    neighbours = np.mean(x[:, 1:] * x[:, :-1]) / np.mean(x**2)
    assert neighbours > 0.5
    unbounded = np.asarray(priors.contrasted_start(jax.random.key(0), 400, DataSpec((28, 28, 2), 10)))
    np.testing.assert_allclose(np.clip(unbounded, low, high), x, rtol=1e-6)


def test_bf16_takes_the_teacher_s_arithmetic_only(teacher):
    settings = dataclasses.replace(SETTINGS, precision="bf16", num_steps=1)
    low, _ = synthesis.minibatch(jax.random.key(0), teacher, settings, 0)
    high, _ = synthesis.minibatch(jax.random.key(0), teacher, dataclasses.replace(settings, precision="float32"), 0)
    assert low.x.dtype == low.logits.dtype == np.float32
    np.testing.assert_allclose(low.logits, high.logits, atol=0.05)
    assert not np.array_equal(low.logits, high.logits)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"num_groups": 6}, "num_groups"),
        ({"batch_size": 16}, "batch_size"),
        ({"num_steps": -1}, "num_steps"),
        ({"schedule": "one_cycle"}, "schedule"),
        ({"precision": "float16"}, "precision"),
        ({"contrastive": "cosine"}, "contrastive"),
        ({"optimizer": "adam", "langevin_temperature": 1.0}, "optimizer"),
        ({"contrastive": "snn", "batch_size": 3}, "contrastive"),
        ({"start": "pink"}, "start"),
    ],
)
def test_what_cannot_work_is_refused_by_field(change, field):
    with pytest.raises(CakeError, match=rf"synthesis\.{field}"):
        check(dataclasses.replace(SETTINGS, **change), SPEC)


def test_total_variation_of_vectors_is_refused():
    with pytest.raises(CakeError, match=r"synthesis\.weights\.tv"):
        check(SETTINGS, DataSpec((7,), 5))


@pytest.mark.parametrize("start", ["smooth", "contrasted"])
def test_a_start_of_images_is_refused_for_vectors(start):
    with pytest.raises(CakeError, match=r"synthesis\.start"):
        check(dataclasses.replace(SETTINGS, start=start, weights=Weights()), DataSpec((7,), 5))


def test_nan_is_refused_with_the_mini_batch():
    blows_up = from_function(
        lambda x: jnp.exp(100 * jnp.square(x)).sum(axis=1, keepdims=True) * jnp.ones(2), DataSpec((2,), 2)
    )
    settings = SynthesisSettings(num_batches=1, batch_size=4, num_groups=2, num_steps=3)
    with pytest.raises(CakeError, match="mini-batch 0 is not finite"):
        synthesis.minibatch(jax.random.key(0), blows_up, settings, 0)


_ON_DEVICES = """
import sys, json, hashlib, jax
jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
import jax.numpy as jnp, numpy as np
from cake_jax import models, synthesis
from cake_jax.synthesis.settings import SynthesisSettings, Weights
from cake_jax.teachers import from_linen
from cake_jax.types import DataSpec
spec = DataSpec((12, 12, 1), 10)
module = models.create("resnet18", spec, {"blocks": (1, 1), "features": (4, 8)})
teacher = from_linen(module, jax.jit(module.init)(jax.random.key(7), jnp.zeros((1, 12, 12, 1))), spec)
out = {}
for name, weights, contrastive in json.loads(sys.argv[2]):
    settings = SynthesisSettings(num_batches=2, batch_size=35, num_groups=5, num_steps=6, step_size=0.1,
        langevin_temperature=1.0, contrastive=contrastive, weights=Weights(**weights))
    samples = synthesis.synthesize(jax.random.key(0), teacher, spec, settings)
    x = np.asarray(samples.x)
    out[name] = [hashlib.sha256(x.tobytes()).hexdigest(), x[:, ::4, ::4, 0].tolist(), samples.logits.argmax(1).tolist()]
print(json.dumps(out))
"""


def test_the_same_samples_on_one_two_and_four_devices():
    cases = [
        ("free", {"cls": 1.0, "contr": 1.0, "tv": 1.0}, "mse"),
        ("coupled", {"cls": 1.0, "contr": 1.0, "entropy": 9.0}, "snn"),
    ]
    found = []
    for devices in (1, 2, 4):
        command = [sys.executable, "-c", _ON_DEVICES, str(devices), json.dumps(cases)]
        found.append(json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout))
    for other in found[1:]:
        assert other["free"][0] == found[0]["free"][0], "7 sets on 1, 2 and 4 devices: bitwise"
        np.testing.assert_allclose(other["coupled"][1], found[0]["coupled"][1], atol=1e-4)
        assert np.mean(np.equal(other["coupled"][2], found[0]["coupled"][2])) >= 0.99


def test_padding_sets_do_not_count(teacher):
    settings = dataclasses.replace(SETTINGS, weights=Weights(entropy=50.0), num_steps=1, schedule="constant")
    assert settings.num_sets % parallel.device_count(), "the devices must not divide the sets here"
    samples, _ = synthesis.minibatch(jax.random.key(0), teacher, settings, 0)
    x, _ = one_step_by_hand(teacher, settings, 0, jax.random.key(0))
    np.testing.assert_allclose(samples.x, x, atol=1e-5)
