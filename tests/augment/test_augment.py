"""Augmentation: each operation by hand and against Pillow, its distribution, and its use by the trainer."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageOps

from cake_jax import models
from cake_jax.augment import NAMES, augment, check, operations, policies
from cake_jax.training import Labels, TrainSettings, batches, checked, classification_loss, trainer
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((8, 12, 3), 4, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3), 0.0, 1.0)
KEYS = jax.random.split(jax.random.key(3), 400)


def picture(channels=3, height=40, width=48, seed=0):
    """A slightly noisy 8-bit image without pure black or white, which autocontrast and equalize therefore change."""
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


def test_flip_mirrors_half_of_the_images():
    x = images()
    flipped = run(("flip",), x)
    mirrored = (flipped == x[:, :, ::-1]).all(axis=(1, 2, 3))
    assert (mirrored | (flipped == x).all(axis=(1, 2, 3))).all()
    assert abs(mirrored.mean() - 0.5) < 4 * 0.5 / np.sqrt(len(x))  # four standard deviations of a fair coin


@pytest.mark.parametrize("spec", [SPEC, dataclasses.replace(SPEC, low=None)], ids=["black", "mean"])
def test_crop_is_a_window_of_the_padded_image_and_every_window_occurs(spec):
    """The padding is black, or the mean if the specification has no lowest pixel value."""
    x = np.asarray(images())
    border = (0 - np.float32(spec.mean)) / np.float32(spec.std) if spec.low is not None else 0
    cropped, seen = run(("crop",), x, spec=spec), set()
    for image, crop in zip(x, cropped, strict=True):
        padded = np.broadcast_to(np.float32(border), (10, 14, 3)).copy()
        padded[1:9, 1:13] = image
        places = [(i, j) for i in range(3) for j in range(3) if (padded[i : i + 8, j : j + 12] == crop).all()]
        assert len(places) == 1
        seen.update(places)
    assert len(seen) == 9


def test_cutout_zeroes_one_square_and_nothing_else():
    x = np.asarray(images()) + 10  # so that no value is zero before
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
    assert at_the_top == {2, 3, 4}  # the square has two rows above its centre's row and one below
    assert at_the_bottom == {3, 4}


def test_crop_of_a_small_image_changes_nothing():
    """An eighth of 4 pixels is less than a pixel."""
    x = np.arange(64, dtype=np.float32).reshape(4, 4, 4, 1)
    np.testing.assert_array_equal(run(("crop",), x, spec=DataSpec((4, 4, 1), 2)), x)


def test_warp_shifts_and_turns_by_hand():
    image = jnp.arange(16.0).reshape(4, 4, 1)
    moved = operations.warp(image, jnp.eye(2), jnp.array([1.0, -1.0]))
    np.testing.assert_array_equal(moved[..., 0], [[0, 4, 5, 6], [0, 8, 9, 10], [0, 12, 13, 14], [0, 0, 0, 0]])
    turned = operations.warp(image, jnp.array([[0.0, 1.0], [-1.0, 0.0]]), jnp.array([0.0, 4.0]))
    np.testing.assert_array_equal(turned[..., 0], np.rot90(image[..., 0]))


@pytest.mark.parametrize("name", operations.OPERATIONS)
@pytest.mark.parametrize("channels", [1, 3])
def test_operation_keeps_the_pixel_range_and_changes_nothing_at_level_zero(name, channels):
    image = jnp.asarray(picture(channels) / np.float32(255)).at[0, 0].set(0.0).at[0, 1].set(1.0)
    operation = operations.OPERATIONS.index(name)
    still = perform(image, operation, 0.0)
    if name not in ("autocontrast", "equalize", "invert"):  # these ignore the level
        np.testing.assert_allclose(still, image, atol=1e-6)
    for level in (-1.0, 0.5, 1.0) if name in operations.SIGNED else (0.5, 1.0):
        result = perform(image, operation, level)
        assert result.shape == image.shape
        assert 0 <= float(result.min()) <= float(result.max()) <= 1
        grey_stays = name == "color" and channels == 1
        # The corner pixels already span the whole range, so autocontrast has nothing to stretch.
        stays = name in ("identity", "autocontrast") or grey_stays
        assert (float(jnp.abs(result - image).max()) < 1e-6) == stays


# A level of each operation, and Pillow's operation at the magnitude that the papers give for this level.
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
def test_operation_equals_pillow(name, channels):
    level, reference = AGAINST_PILLOW[name]
    pixels = picture(channels)
    expected = np.asarray(reference(pillow(pixels)), np.float32).reshape(pixels.shape)
    operation = operations.OPERATIONS.index(name)
    ours = 255 * np.asarray(perform(jnp.asarray(pixels / np.float32(255)), operation, level))
    assert np.abs(expected - pixels).max() > 2 or (name == "color" and channels == 1)
    # Pillow rounds blended and stretched pixels to 8 bits. A point on the border of two pixels may belong to either.
    rounds = name in ("brightness", "color", "contrast", "sharpness", "autocontrast")
    differs = np.abs(ours - expected) > (1.6 if rounds else 0.01)
    assert differs.mean() <= (0.01 if name in ("rotate", "shear_x", "shear_y") else 0)


def test_operations_are_finite_for_an_image_of_one_value():
    for name in operations.OPERATIONS:
        result = perform(jnp.full((40, 48, 3), 0.4), operations.OPERATIONS.index(name), 0.5)
        assert np.isfinite(np.asarray(result)).all(), name
        if name in ("autocontrast", "equalize"):
            np.testing.assert_allclose(result, 0.4, atol=1e-6)


@pytest.mark.parametrize("policy", [policies.CIFAR10, policies.SVHN], ids=["cifar10", "svhn"])
def test_policy_has_25_sub_policies_of_two_operations(policy):
    chosen, probability, level = policies.table(policy)
    assert chosen.shape == probability.shape == level.shape == (25, 2)
    assert set(chosen.ravel()) <= set(range(1, len(operations.OPERATIONS)))
    assert probability.min() >= 0
    assert probability.max() == np.float32(0.9)
    assert (level.min(), level.max()) == (0, 1)


def test_first_and_last_sub_policies_are_those_of_the_paper():
    def named(policy, row):
        chosen, probability, level = policies.table(policy)
        names = [operations.OPERATIONS[place] for place in chosen[row]]
        return list(zip(names, np.rint(10 * probability[row]).tolist(), np.rint(9 * level[row]).tolist(), strict=True))

    assert named(policies.CIFAR10, 0) == [("invert", 1, 0), ("contrast", 2, 6)]
    assert named(policies.CIFAR10, 24) == [("translate_y", 7, 9), ("autocontrast", 9, 0)]
    assert named(policies.SVHN, 0) == [("shear_x", 9, 4), ("invert", 2, 0)]
    assert named(policies.SVHN, 24) == [("shear_x", 7, 2), ("invert", 1, 0)]


def test_randaugment_draws_every_operation_except_invert_equally(monkeypatch):
    """The operations are replaced by one that counts the drawn operations and levels."""
    counted = jnp.zeros((len(operations.OPERATIONS), 3, 1))

    def count(image, operation, level):
        return image.at[operation].add(jnp.stack([1.0, level, jnp.abs(level)])[:, None])

    monkeypatch.setattr(policies, "perform", count)
    keys = jax.random.split(jax.random.key(0), 7000)
    drawn = np.asarray(jax.vmap(policies.randaugment, in_axes=(0, None))(keys, counted))[..., 0]
    assert (drawn[:, :, 0].sum(axis=1) == 2).all()
    counts = drawn[:, :, 0].sum(axis=0)
    assert counts[-1] == 0
    assert np.abs(counts[:-1] - 1000).max() < 150  # nearly five standard deviations, sqrt(14,000 / 14) each
    strength = drawn[:, :, 2].sum(axis=0)[:-1] / counts[:-1]
    np.testing.assert_allclose(strength, 0.3, atol=1e-4)
    sign = drawn[:, :, 1].sum(axis=0)[:-1] / counts[:-1] / 0.3
    signed = np.array([name in operations.SIGNED for name in operations.OPERATIONS[:-1]])
    assert np.abs(sign[signed]).max() < 0.2
    np.testing.assert_allclose(sign[~signed], 1, atol=1e-4)


def test_autoaugment_uses_an_operation_with_its_probability(monkeypatch):
    monkeypatch.setattr(policies, "perform", lambda image, operation, level: image.at[operation].add(1))
    keys = jax.random.split(jax.random.key(0), 4000)
    autoaugment = functools.partial(policies.autoaugment, policy="invert 3 0 solarize 9 6")
    used = jax.vmap(autoaugment, in_axes=(0, None))(keys, jnp.zeros(len(operations.OPERATIONS)))
    shares = dict(zip(operations.OPERATIONS, np.asarray(used).mean(axis=0), strict=True))
    assert shares["invert"] == pytest.approx(0.3, abs=0.03)
    assert shares["solarize"] == pytest.approx(0.9, abs=0.03)
    assert shares["identity"] == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize("name", NAMES)
def test_draw_of_an_example_depends_on_its_own_key_alone(name):
    same = jnp.asarray(SPEC.normalize(picture(3, 8, 12) / 255))[None].repeat(40, axis=0)
    first = run((name,), same)
    assert len({image.tobytes() for image in first}) >= (2 if name == "flip" else 6)
    np.testing.assert_allclose(run((name,), same, KEYS[:40][::-1])[::-1], first, atol=1e-6)
    assert (run((name,), same, jax.random.split(jax.random.key(9), 40)) != first).any()


def test_augmentation_draws_from_its_place_among_the_names():
    """The key of an example folds in the place, so the same name twice makes two different draws."""
    x = images(40)
    twice, shifts = run(("flip", "flip"), x), np.asarray(run(("flip",), x))
    first, second = (
        [bool(jax.random.bernoulli(jax.random.fold_in(key, place))) for key in KEYS[:40]] for place in (0, 1)
    )
    assert first != second
    mirrored = np.asarray(x)[:, :, ::-1]
    for row in range(40):
        np.testing.assert_array_equal(shifts[row], mirrored[row] if first[row] else x[row])
        np.testing.assert_array_equal(twice[row], mirrored[row] if first[row] != second[row] else x[row])


@pytest.mark.parametrize("name", ["randaugment", "autoaugment_svhn"])
def test_policies_keep_any_input_in_the_valid_range(name):
    spec = DataSpec((8, 8, 1), 4, (100.0,), (50.0,), 0.0, 255.0)
    x = 3 * jax.random.normal(jax.random.key(1), (200, 8, 8, 1))
    low, high = spec.bounds
    result = run((name,), x, spec=spec)
    assert (result >= low - 1e-5).all()
    assert (result <= high + 1e-5).all()
    assert np.ptp(result) > 0.9 * (high - low)


def test_augmentations_are_applied_in_order():
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
        (("flip", "flop"), SPEC, "'flop' is not one of crop, flip"),
        (("flip",), DataSpec((2,), 2), r"'flip' is for images.*\(2,\)"),
        (("randaugment",), DataSpec((8, 8, 3), 2), "'randaugment' needs .*low and high"),
        (("autoaugment_cifar10",), DataSpec((8, 8, 3), 2, low=0.0), "'autoaugment_cifar10' needs .*low and high"),
        (("autoaugment_svhn",), DataSpec((8, 8, 2), 2, low=0.0, high=1.0), "'autoaugment_svhn' needs 1 or 3 channels"),
    ],
)
def test_check_refuses_augmentations_that_cannot_work(names, spec, message):
    with pytest.raises(CakeError, match=rf"teacher\.augment: {message}"):
        check(names, spec, "teacher.augment")
    with pytest.raises(CakeError, match=rf"teacher\.augment: {message}"):
        checked(TrainSettings(augment=names), spec, "teacher")


@pytest.mark.parametrize(
    ("names", "spec"), [(NAMES, SPEC), (("crop", "flip", "cutout"), DataSpec((8, 8, 2), 2)), ((), DataSpec((2,), 2))]
)
def test_check_accepts_augmentations_that_work(names, spec):
    check(names, spec, "teacher.augment")


SETTINGS = TrainSettings(epochs=3, batch_size=20, learning_rate=0.02, validation_fraction=0.2)


def trained(settings, start=None, make_batch=None):
    x, labels = np.asarray(images(100)), Labels(np.arange(100, dtype=np.int32) % 4)
    module = models.create("mlp", SPEC, {"width": 8})
    start = start or trainer.init(jax.random.key(0), module, SPEC, settings)
    key, loss = jax.random.key(1), classification_loss
    return list(trainer.epochs(key, start, module, SPEC, x, labels, settings, loss=loss, make_batch=make_batch))


def test_resumed_training_with_augmentation_is_bitwise_the_same():
    settings = dataclasses.replace(SETTINGS, augment=("flip", "randaugment"))
    whole = trained(settings)
    resumed = trained(settings, jax.tree.map(np.array, whole[0][0]))
    assert resumed[-1][1] == whole[-1][1]
    jax.tree.map(np.testing.assert_array_equal, resumed[-1][0], whole[-1][0])
    plain = trained(SETTINGS)[-1][0]
    assert any((a != b).any() for a, b in zip(*map(jax.tree.leaves, (plain.params, whole[-1][0].params)), strict=True))


def test_trainer_gives_each_example_of_each_step_its_own_key():
    drawn = []

    def record(keys, x, labels, context):
        jax.debug.callback(lambda data: drawn.append(np.asarray(data)), jax.random.key_data(keys))
        return x, labels

    trained(dataclasses.replace(SETTINGS, epochs=2), make_batch=record)
    jax.effects_barrier()
    keys = np.concatenate(drawn)
    assert len(keys) == 2 * 80  # two epochs of the 80 training examples, over both devices
    assert len(np.unique(keys, axis=0)) == len(keys)


def test_trainer_augments_as_the_settings_say():
    settings = dataclasses.replace(SETTINGS, epochs=1)
    by_name = trained(dataclasses.replace(settings, augment=("flip", "cutout")))[-1][0]
    by_hand = trained(settings, make_batch=batches.Augmented(("flip", "cutout"), SPEC))[-1][0]
    jax.tree.map(np.testing.assert_array_equal, by_name, by_hand)


def test_trainer_without_augmentation_does_not_call_it(monkeypatch):
    """The learning rate is new, so that the step is compiled here."""
    monkeypatch.setattr(batches, "augment", lambda *args: pytest.fail("augmented"))
    trained(dataclasses.replace(SETTINGS, epochs=1, learning_rate=0.0123))
