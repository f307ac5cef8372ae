"""Augmentation: each operation by hand and against Pillow, how often and how independently, and in the trainer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from cake_jax import models, train
from cake_jax.augment import NAMES, augment, check, operations, policies, transforms
from cake_jax.training.trainer import TrainSettings
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((8, 12, 3), 4, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 0.0, 1.0)
KEYS = jax.random.split(jax.random.key(3), 400)


def picture(channels=3, height=40, width=48, seed=0):
    """A mildly noisy 8-bit image without pure black or white, so that stretching and levelling have something to do."""
    y, x = np.indices((height, width))
    waves = [np.sin(x / (3 + c) + seed) + np.cos(y / (4 + c)) for c in range(channels)]
    noise = np.random.default_rng(seed).uniform(-20, 20, (height, width, channels))
    return (120 + 45 * np.stack(waves, axis=-1) + noise).astype(np.uint8)


def pillow(pixels):
    return Image.fromarray(pixels.squeeze())


def images(count=400, spec=SPEC):
    x = np.random.default_rng(0).integers(0, 256, (count, *spec.shape)) / 255
    return jnp.asarray(spec.normalize(x))


@functools.lru_cache
def compiled(names, spec):
    return jax.jit(lambda keys, x: augment(keys, x, names, spec))


def run(names, x, keys=KEYS, spec=SPEC):
    return np.asarray(compiled(names, spec)(keys[: len(x)], x))


perform = jax.jit(operations.perform)


def test_a_flip_is_the_exact_mirror_half_of_the_time():
    x = images()
    flipped = run(("flip",), x)
    mirrored = (flipped == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (flipped == x).all(axis=(1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(x))  # four deviations of a fair coin


def test_a_crop_is_a_slice_of_the_padded_image_and_every_slice_comes():
    x = np.asarray(images())
    black = (0 - np.float32(SPEC.mean)) / np.float32(SPEC.std)
    cropped, seen = run(("crop",), x), set()
    for image, crop in zip(x, cropped, strict=True):
        padded = np.broadcast_to(black, (10, 14, 3)).copy()
        padded[1:9, 1:13] = image
        places = [(i, j) for i in range(3) for j in range(3) if (padded[i : i + 8, j : j + 12] == crop).all()]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 9


def test_a_cutout_zeroes_one_square_and_nothing_else():
    x = np.asarray(images()) + 10  # no zero of its own
    cut = run(("cutout",), x)
    full, at_the_top, at_the_bottom = 0, set(), set()
    for image, result in zip(x, cut, strict=True):
        gone = (result == 0).all(axis=-1)
        rows, columns = np.flatnonzero(gone.any(axis=1)), np.flatnonzero(gone.any(axis=0))
        assert gone[np.ix_(rows, columns)].all()
        assert gone.sum() == len(rows) * len(columns)
        assert (np.diff(rows) == 1).all()
        assert (np.diff(columns) == 1).all()
        assert 2 <= len(rows) <= 4
        assert 2 <= len(columns) <= 4
        for indices, size in ((rows, 8), (columns, 12)):
            assert len(indices) == 4 or indices[0] == 0 or indices[-1] == size - 1
        if rows[0] == 0:
            at_the_top.add(len(rows))
        if rows[-1] == 7:
            at_the_bottom.add(len(rows))
        full += gone.sum() == 16
        np.testing.assert_array_equal(result[~gone], image[~gone])
    assert full > 100
    assert at_the_top == {2, 3, 4}  # the two rows above the centre's, the centre's, and one below
    assert at_the_bottom == {3, 4}


def test_a_known_place_by_hand():
    image = jnp.arange(16.0).reshape(4, 4, 1)
    np.testing.assert_array_equal(transforms.crop(KEYS[0], image, jnp.zeros(1)), image)  # an eighth of 4 is nothing
    moved = operations.warp(image, jnp.eye(2), jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(moved[..., 0], [[0, 4, 5, 6], [0, 8, 9, 10], [0, 12, 13, 14], [0, 0, 0, 0]])
    turned = operations.warp(image, jnp.array([[0.0, 1.0], [-1.0, 0.0]]), jnp.array([0.0, 4.0]))
    np.testing.assert_array_equal(turned[..., 0], np.rot90(image[..., 0]))


@pytest.mark.parametrize("name", operations.OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_level_zero_changes_nothing_and_any_level_stays_in_bounds(name, channels):
    image = jnp.asarray(picture(channels) / np.float32(255)).at[0, 0].set(0.0).at[0, 1].set(1.0)
    operation = operations.OPERATIONS.index(name)
    still = perform(image, operation, 0.0)
    if name not in ("autocontrast", "equalize", "invert"):  # which have no level
        np.testing.assert_allclose(still, image, atol=1e-6)
    for level in (-1.0, 0.5, 1.0) if name in operations.SIGNED else (0.5, 1.0):
        result = perform(image, operation, level)
        assert result.shape == image.shape
        assert 0 <= float(result.min()) <= float(result.max()) <= 1
        grey_stays = name == "color" and channels == 1
        stays = name in ("identity", "autocontrast") or grey_stays  # the corners give it the whole range already
        assert (float(jnp.abs(result - image).max()) < 1e-6) == stays


# Our level, and what Pillow does with what the papers say that this level is.
AGAINST_PILLOW = {
    "shear_x": (0.5, lambda i: i.transform(i.size, Image.Transform.AFFINE, (1, 0.15, 0, 0, 1, 0))),
    "shear_y": (-1.0, lambda i: i.transform(i.size, Image.Transform.AFFINE, (1, 0, 0, -0.3, 1, 0))),
    "translate_x": (1.0, lambda i: i.transform(i.size, Image.Transform.AFFINE, (1, 0, 21, 0, 1, 0))),
    "translate_y": (-0.5, lambda i: i.transform(i.size, Image.Transform.AFFINE, (1, 0, 0, 0, 1, -9))),
    "rotate": (0.7, lambda i: i.rotate(21)),
    "brightness": (-0.5, lambda i: ImageEnhance.Brightness(i).enhance(0.55)),
    "color": (0.8, lambda i: ImageEnhance.Color(i).enhance(1.72)),
    "contrast": (-0.7, lambda i: ImageEnhance.Contrast(i).enhance(0.37)),
    "sharpness": (1.0, lambda i: ImageEnhance.Sharpness(i).enhance(1.9)),
    "posterize": (0.5, lambda i: ImageOps.posterize(i, 6)),
    "solarize": (0.5, lambda i: ImageOps.solarize(i, 128)),
    "autocontrast": (0.0, ImageOps.autocontrast),
    "equalize": (0.0, ImageOps.equalize),
    "invert": (0.0, ImageOps.invert),
}


@pytest.mark.parametrize("name", AGAINST_PILLOW)
@pytest.mark.parametrize("channels", [1, 3])
def test_an_operation_is_that_of_pillow(name, channels):
    level, reference = AGAINST_PILLOW[name]
    pixels = picture(channels)
    expected = np.asarray(reference(pillow(pixels)), np.float32).reshape(pixels.shape)
    operation = operations.OPERATIONS.index(name)
    ours = 255 * np.asarray(perform(jnp.asarray(pixels / np.float32(255)), operation, level))
    assert np.abs(expected - pixels).max() > 2 or (name == "color" and channels == 1)
    # Pillow rounds to 8 bits what is blended or stretched. A point on the border of two pixels may fall to either.
    rounds = name in ("brightness", "color", "contrast", "sharpness", "autocontrast")
    differs = np.abs(ours - expected) > (1.6 if rounds else 0.01)
    assert differs.mean() <= (0.01 if name in ("rotate", "shear_x", "shear_y") else 0)


def test_an_image_of_one_value_survives_every_operation():
    for name in operations.OPERATIONS:
        result = perform(jnp.full((40, 48, 3), 0.4), operations.OPERATIONS.index(name), 0.5)
        assert np.isfinite(np.asarray(result)).all(), name
        if name in ("autocontrast", "equalize"):
            np.testing.assert_allclose(result, 0.4, atol=1e-6)


@pytest.mark.parametrize("policy", ["_CIFAR10", "_SVHN"])
def test_a_policy_is_25_pairs_of_probabilities_and_levels(policy):
    chosen, probability, level = policies._table(getattr(policies, policy))
    assert chosen.shape == probability.shape == level.shape == (25, 2)
    assert set(chosen.ravel()) <= set(range(1, len(operations.OPERATIONS)))
    assert probability.min() >= 0
    assert probability.max() == np.float32(0.9)
    assert (level.min(), level.max()) == (0, 1)


def test_the_first_and_last_sub_policies_are_the_papers():
    def named(policy, row):
        chosen, probability, level = policies._table(policy)
        names = [operations.OPERATIONS[place] for place in chosen[row]]
        return list(zip(names, np.rint(10 * probability[row]).tolist(), np.rint(9 * level[row]).tolist(), strict=True))

    assert named(policies._CIFAR10, 1) == [("rotate", 7, 2), ("translate_x", 3, 9)]
    assert named(policies._CIFAR10, 24) == [("translate_y", 7, 9), ("autocontrast", 9, 0)]
    assert named(policies._SVHN, 0) == [("shear_x", 9, 4), ("invert", 2, 0)]
    assert named(policies._SVHN, 24) == [("shear_x", 7, 2), ("invert", 1, 0)]


def test_randaugment_draws_every_operation_but_invert_equally(monkeypatch):
    """Seen through operations that only add up what was drawn."""
    counted = jnp.zeros((len(operations.OPERATIONS), 3, 1))

    def count(image, operation, level):
        return image.at[operation].add(jnp.stack([1.0, level, jnp.abs(level)])[:, None])

    monkeypatch.setattr(policies, "perform", count)
    keys = jax.random.split(jax.random.key(0), 7000)
    drawn = np.asarray(jax.vmap(policies.randaugment, in_axes=(0, None))(keys, counted))[..., 0]
    assert (drawn[:, :, 0].sum(axis=1) == 2).all()
    counts = drawn[:, :, 0].sum(axis=0)
    assert counts[-1] == 0
    assert np.abs(counts[:-1] - 1000).max() < 150  # nearly five deviations of sqrt(14,000 / 14)
    strength = drawn[:, :, 2].sum(axis=0)[:-1] / counts[:-1]
    np.testing.assert_allclose(strength, 0.3, atol=1e-4)
    sign = drawn[:, :, 1].sum(axis=0)[:-1] / counts[:-1] / 0.3
    signed = np.array([name in operations.SIGNED for name in operations.OPERATIONS[:-1]])
    assert np.abs(sign[signed]).max() < 0.2
    np.testing.assert_allclose(sign[~signed], 1, atol=1e-4)


def test_autoaugment_uses_an_operation_as_often_as_its_probability(monkeypatch):
    monkeypatch.setattr(policies, "_SVHN", "invert 3 0 solarize 9 6")
    monkeypatch.setattr(policies, "perform", lambda image, operation, level: image.at[operation].add(1))
    keys = jax.random.split(jax.random.key(0), 4000)
    used = jax.vmap(policies.autoaugment_svhn, in_axes=(0, None))(keys, jnp.zeros(len(operations.OPERATIONS)))
    shares = dict(zip(operations.OPERATIONS, np.asarray(used).mean(axis=0), strict=True))
    assert shares["invert"] == pytest.approx(0.3, abs=0.03)
    assert shares["solarize"] == pytest.approx(0.9, abs=0.03)
    assert shares["identity"] == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("name", NAMES)
def test_examples_draw_for_themselves_and_the_same_key_gives_the_same(name):
    same = jnp.asarray(SPEC.normalize(picture(3, 8, 12) / 255))[None].repeat(40, axis=0)
    first = run((name,), same)
    np.testing.assert_array_equal(first, run((name,), same))
    assert len({image.tobytes() for image in first}) >= (2 if name == "flip" else 6)
    np.testing.assert_allclose(run((name,), same, KEYS[:40][::-1])[::-1], first, atol=1e-6)  # whatever its neighbours
    assert (run((name,), same, jax.random.split(jax.random.key(9), 40)) != first).any()


@pytest.mark.parametrize("name", ["randaugment", "autoaugment_svhn"])
def test_policies_stay_within_the_valid_pixels_whatever_comes_in(name):
    spec = DataSpec((8, 8, 1), 4, (100.0,), (50.0,), 0.0, 255.0)
    x = 3 * jax.random.normal(jax.random.key(1), (200, 8, 8, 1))
    low, high = spec.bounds
    result = run((name,), x, spec=spec)
    assert (result >= low - 1e-5).all()
    assert (result <= high + 1e-5).all()
    assert np.ptp(result) > 0.9 * (high - low)


def test_names_are_applied_in_order():
    x = images(40)
    cropped = run(("crop",), x)
    both = run(("crop", "flip"), x)
    mirrored = (both == cropped[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (both == cropped).all(axis=(1, 2, 3))).all()
    assert 0 < mirrored.mean() < 1


@pytest.mark.parametrize(
    ("names", "spec", "message"),
    [
        (("flop",), SPEC, "'flop' is not one of crop, flip"),
        (("flip",), DataSpec((2,), 2), r"for images.*\(2,\)"),
        (("randaugment",), DataSpec((8, 8, 3), 2), "lowest and highest"),
        (("autoaugment_svhn",), DataSpec((8, 8, 2), 2, low=0.0, high=1.0), "1 or 3 channels"),
    ],
)
def test_what_cannot_work_is_refused(names, spec, message):
    with pytest.raises(CakeError, match=rf"teacher\.augment: .*{message}"):
        check(names, spec, "teacher.augment")
    with pytest.raises(CakeError, match=r"teacher\.augment"):
        train.check(TrainSettings(augment=names), spec, "teacher")


SETTINGS = TrainSettings(epochs=3, batch_size=20, learning_rate=0.02, validation_fraction=0.2)


def trained(settings, start=None, spec=SPEC):
    x, labels = np.asarray(images(100)), np.arange(100, dtype=np.int32) % 4
    module = models.create("mlp", spec, {"width": 8})
    start = start or train.init(jax.random.key(0), module, spec, settings)
    return list(train.epochs(jax.random.key(1), start, module, spec, x, labels, settings))


def test_going_on_with_augmentation_is_bitwise_the_same():
    settings = dataclasses.replace(SETTINGS, augment=("flip", "randaugment"))
    whole = trained(settings)
    resumed = trained(settings, jax.tree.map(np.array, whole[0][0]))
    assert resumed[-1][1] == whole[-1][1]
    jax.tree.map(np.testing.assert_array_equal, resumed[-1][0], whole[-1][0])
    plain = trained(SETTINGS)[-1][0]
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (plain.params, whole[-1][0].params)), strict=True))


def test_the_trainer_gives_each_example_of_each_step_a_draw_of_its_own(monkeypatch):
    drawn = []

    def spy(keys, x, names, spec):
        jax.debug.callback(lambda data: drawn.append(np.asarray(data)), jax.random.key_data(keys))
        return x

    monkeypatch.setattr(train, "augment", spy)
    train._device_function.cache_clear()
    trained(dataclasses.replace(SETTINGS, augment=("flip",), epochs=2))
    jax.effects_barrier()
    train._device_function.cache_clear()
    keys = np.concatenate(drawn)
    assert len(keys) == 2 * 80  # two epochs of the 80 training examples, over both devices
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_without_augmentation_nothing_is_drawn(monkeypatch):
    monkeypatch.setattr(train, "augment", lambda *args: pytest.fail("augmented"))
    train._device_function.cache_clear()
    trained(dataclasses.replace(SETTINGS, epochs=1))
