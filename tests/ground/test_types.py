"""Shared types: errors, data specifications and sample batches."""

import json

import numpy as np
import pytest

from cake_jax.types import CakeError, DataSpec, SampleBatch, concatenate, first_line

RGB = DataSpec(
    shape=(4, 5, 3),
    num_classes=3,
    mean=(100.0, 120.0, 140.0),
    std=(50.0, 60.0, 70.0),
    low=0.0,
    high=255.0,
    class_names=("cat", "dog", "emu"),
)


def batch(count, start=0):
    rows = np.arange(start, start + count)
    return SampleBatch(
        x=np.repeat(rows[:, None], 2, 1).astype(np.float32),
        logits=np.repeat(10 * rows[:, None], 3, 1).astype(np.float32),
        target=rows.astype(np.int32) - 1,
        step_size=(0.5 * rows).astype(np.float32),
        set_index=rows.astype(np.int32) // 2,
    )


def assert_rows(samples, rows):
    rows = np.asarray(rows)
    assert samples.num_samples == len(rows)
    np.testing.assert_array_equal(samples.x, np.repeat(rows[:, None], 2, 1))
    np.testing.assert_array_equal(samples.logits, np.repeat(10 * rows[:, None], 3, 1))
    np.testing.assert_array_equal(samples.target, rows - 1)
    np.testing.assert_array_equal(samples.step_size, 0.5 * rows)
    np.testing.assert_array_equal(samples.set_index, rows // 2)
    assert [np.asarray(leaf).dtype for leaf in samples] == [np.float32, np.float32, np.int32, np.float32, np.int32]


@pytest.mark.parametrize(
    ("field", "fields"),
    [
        ("shape", {"shape": ()}),
        ("shape", {"shape": (0,)}),
        ("shape", {"shape": (28, -28, 1)}),
        ("num_classes", {"num_classes": 0}),
        ("num_classes", {"num_classes": 1}),
        ("mean", {"mean": (0.0, 1.0)}),
        ("mean", {"mean": ()}),
        ("std", {"std": (1.0, 1.0, 1.0, 1.0)}),
        ("std", {"std": (1.0, 0.0, 1.0)}),
        ("std", {"std": (-1.0,)}),
        ("low", {"low": 1.0, "high": 0.0}),
        ("class_names", {"class_names": ("a", "b")}),
    ],
)
def test_data_spec_refuses_wrong_fields(field, fields):
    with pytest.raises(CakeError, match=field) as caught:
        DataSpec(**{"shape": (4, 5, 3), "num_classes": 10, **fields})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "fields",
    [
        {"shape": (7,), "num_classes": 2},
        {"shape": (7,), "num_classes": 2, "mean": (1.0,) * 7, "std": (2.0,)},
        {"shape": (4, 5, 3), "num_classes": 2, "mean": (1.0,) * 3, "std": (2.0,) * 3, "high": 3.0},
        {"shape": (4, 5, 1), "num_classes": 2, "low": -1.0, "class_names": ("a", "b")},
    ],
)
def test_data_spec_accepts_valid_fields(fields):
    spec = DataSpec(**fields)
    assert spec.is_image == (len(fields["shape"]) == 3)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one  \ntwo"), "one  "),
        (ValueError(), "ValueError"),
        (ValueError("  "), "ValueError"),
    ],
)
def test_first_line_is_never_empty(error, line):
    assert first_line(error) == line


def test_cake_error_is_a_value_error():
    with pytest.raises(ValueError, match="num_classes"):
        DataSpec(shape=(2,), num_classes=0)


def test_normalize_uses_the_moments_of_each_channel():
    pixels = np.full((2, 4, 5, 3), 200, np.uint8)
    x = RGB.normalize(pixels)
    assert x.shape == pixels.shape
    assert x.dtype == np.float32
    np.testing.assert_allclose(x[1, 2, 3], [100 / 50, 80 / 60, 60 / 70], rtol=1e-6)


@pytest.mark.parametrize(
    "spec", [RGB, DataSpec((3,), 2, mean=(1.0, 2.0, 3.0), std=(4.0,)), DataSpec((2, 2, 1), 2, mean=(0.5,), std=(0.1,))]
)
@pytest.mark.parametrize("lead", [(), (6,), (2, 3)])
def test_denormalize_reverses_normalize(spec, lead):
    pixels = np.random.default_rng(0).uniform(0.0, 255.0, lead + spec.shape)
    back = spec.denormalize(spec.normalize(pixels))
    assert back.shape == pixels.shape
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, pixels, rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (0.0, None), (None, 1.0), (None, None)])
def test_denormalize_clips_to_known_bounds(low, high):
    spec = DataSpec((4,), 2, mean=(0.5,), std=(0.25,), low=low, high=high)
    pixels = spec.denormalize(np.array([[-4.0, -1.0, 1.0, 4.0]], np.float32))
    expected = [-0.5 if low is None else 0.0, 0.25, 0.75, 1.5 if high is None else 1.0]
    np.testing.assert_allclose(pixels, [expected], atol=1e-6)


@pytest.mark.parametrize("spec", [RGB, DataSpec((2,), 4), DataSpec((2,), 4, high=1.5)])
def test_from_dict_reverses_to_dict_through_json(spec):
    back = DataSpec.from_dict(json.loads(json.dumps(spec.to_dict())))
    assert back == spec
    assert hash(back) == hash(spec)


def test_data_spec_is_a_dictionary_key():
    names = {RGB: "rgb", DataSpec((2,), 2): "points"}
    assert names[DataSpec((2,), 2)] == "points"
    assert DataSpec((2,), 2) != DataSpec((2,), 3)


def test_data_spec_cannot_change():
    with pytest.raises(AttributeError):
        RGB.num_classes = 4


def test_select_keeps_the_rows_of_the_mask():
    assert_rows(batch(5).select(np.array([True, False, True, True, False])), [0, 2, 3])
    assert batch(5).select(np.zeros(5, bool)).num_samples == 0


def test_concatenate_keeps_the_order():
    joined = concatenate([batch(2), batch(3, start=2), batch(1, start=5)])
    assert_rows(joined, range(6))
    assert all(isinstance(leaf, np.ndarray) for leaf in joined)


def test_concatenate_refuses_an_empty_list():
    with pytest.raises(CakeError, match="no sample batches"):
        concatenate([])


def test_bounds_are_those_of_pixels_in_normalised_units():
    low, high = DataSpec((1, 1, 2), 2, mean=(0.5, 0.0), std=(0.25, 0.5), low=0.0, high=1.0).bounds
    np.testing.assert_allclose(low, [-2, 0])
    np.testing.assert_allclose(high, [2, 2])
    assert np.isinf(DataSpec((2,), 2).bounds).all()
