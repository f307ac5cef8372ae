"""Saved models and training states: round trips, damage, and interrupted saves."""

import dataclasses
import shutil

import jax
import numpy as np
import pytest

from cake_jax import models
from cake_jax.stores.checkpoint import has_model, load_model, load_state, model_info, save_model, save_state
from cake_jax.teachers import from_linen
from cake_jax.training import Labels, TrainSettings, classification_loss, trainer
from cake_jax.types import CakeError, DataSpec

SPEC = DataSpec((2,), 3, (0.5, -1.0), (2.0, 3.0), -9.5, None, ("cat", "dog", "emu"))
IMAGES = DataSpec((28, 28, 1), 10, (0.1307,), (0.3081,), 0.0, 1.0)
SMALL = models.create("mlp", SPEC, {"num_hidden": 0, "width": 4})
SETTINGS = TrainSettings(epochs=3, batch_size=8, learning_rate=0.05, validation_fraction=0.0)
INPUTS = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
LABELS = Labels(np.arange(20) % 3)


def make(name="mlp", options=None, spec=SPEC, seed=0):
    """A model with random weights."""
    module, rng = models.create(name, spec, options), np.random.default_rng(seed)
    shapes = jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *spec.shape), np.float32))
    return from_linen(module, jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(leaf.dtype), shapes), spec)


def x_of(spec):
    return np.random.default_rng(1).normal(size=(3, *spec.shape)).astype(np.float32)


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def delete(path):
    path.unlink()


def empty(path):
    path.write_bytes(b"")


def overwrite(path):
    path.write_bytes(bytes(byte ^ 0xFF for byte in path.read_bytes()))


def flip_in_the_middle(path):
    content = bytearray(path.read_bytes())
    if content:
        content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def assert_one_line(error, path):
    assert str(path) in str(error)
    assert "\n" not in str(error)


@pytest.fixture(scope="module")
def trained():
    """States of a training after 0, 1, 2 and 3 epochs, by optimizer. Adam's has two moments and a count."""

    def states(optimizer):
        settings = dataclasses.replace(SETTINGS, optimizer=optimizer)
        state = trainer.init(jax.random.key(0), SMALL, SPEC, settings)
        return [state, *(after for after, _ in resume(state, settings))]

    return {optimizer: states(optimizer) for optimizer in ("sgd", "adam")}


def resume(state, settings):
    return trainer.epochs(jax.random.key(1), state, SMALL, SPEC, INPUTS, LABELS, settings, loss=classification_loss)


def assert_same_state(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert np.asarray(a).dtype == np.asarray(b).dtype
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "options", "spec"),
    [
        ("mlp", {}, SPEC),
        ("mlp", {"width": 7, "num_hidden": 0}, SPEC),
        ("logistic_regression", {}, SPEC),
        ("cnn", {"features": (2, 3, 4, 5)}, IMAGES),
    ],
)
def test_model_round_trip(tmp_path, name, options, spec):
    model, folder = make(name, options, spec), tmp_path / "runs" / "teacher"
    assert not has_model(folder)
    save_model(folder, model, name, options)
    assert has_model(folder)
    loaded = load_model(folder)
    x = x_of(spec)
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert loaded.apply_fn == model.apply_fn  # otherwise every loaded model is compiled again
    assert loaded.spec == spec
    assert loaded.num_params == model.num_params
    about = model_info(folder)
    assert about["model"]["name"] == name
    assert {key: tuple(v) if isinstance(v, list) else v for key, v in about["model"]["options"].items()} == options
    assert DataSpec.from_dict(about["spec"]) == spec


def test_loaded_model_has_the_saved_weights(tmp_path):
    first, second = make(seed=0), make(seed=1)
    save_model(tmp_path / "first", first, "mlp", {})
    save_model(tmp_path / "second", second, "mlp", {})
    x = x_of(SPEC)
    np.testing.assert_array_equal(load_model(tmp_path / "first")(x), first(x))
    np.testing.assert_array_equal(load_model(tmp_path / "second")(x), second(x))
    assert np.abs(first(x) - second(x)).max() > 0.01


@pytest.mark.parametrize("function", [load_model, model_info])
@pytest.mark.parametrize("exists", [True, False])
def test_folder_without_a_model_is_refused(tmp_path, function, exists):
    folder = tmp_path / "student"
    if exists:
        save_model(folder, make(), "mlp", {})
        (folder / "model.json").unlink()
    assert not has_model(folder)
    with pytest.raises(CakeError, match=r"model\.json") as caught:
        function(folder)
    assert_one_line(caught.value, folder)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b"[]", b"{}", b'{"model": {"name": "mlp"}}'])
def test_damaged_description_is_refused(tmp_path, content):
    save_model(tmp_path, make(), "mlp", {})
    (tmp_path / "model.json").write_bytes(content)
    with pytest.raises(CakeError) as caught:
        load_model(tmp_path)
    assert_one_line(caught.value, tmp_path)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The folder of a saved model, and the model's logits."""
    folder, model = tmp_path_factory.mktemp("model") / "teacher", make()
    save_model(folder, model, "mlp", {})
    return folder, np.asarray(model(x_of(SPEC)))


@pytest.mark.parametrize("damage", [delete, empty, overwrite])
def test_damaged_variables_are_refused(saved, tmp_path, damage):
    intact, logits = saved
    refused = 0
    for number, path in enumerate(files(intact / "variables")):
        folder = tmp_path / str(number)
        shutil.copytree(intact, folder)
        damage(folder / path.relative_to(intact))
        try:
            loaded = load_model(folder)
        except CakeError as error:
            assert_one_line(error, folder)
            refused += 1
        else:  # the model does not depend on this file
            np.testing.assert_array_equal(loaded(x_of(SPEC)), logits, err_msg=path.name)
    assert refused > 0


def test_flipped_bit_never_changes_the_loaded_model(saved, tmp_path):
    intact, logits = saved
    for number, path in enumerate(files(intact / "variables")):
        folder = tmp_path / str(number)
        shutil.copytree(intact, folder)
        flip_in_the_middle(folder / path.relative_to(intact))
        try:
            loaded = load_model(folder)
        except CakeError as error:
            assert_one_line(error, folder)
        else:
            np.testing.assert_array_equal(loaded(x_of(SPEC)), logits, err_msg=path.name)


def test_variables_missing_or_of_another_model_are_refused(saved, tmp_path):
    folder = tmp_path / "teacher"
    save_model(folder, make("mlp", {"width": 5}), "mlp", {"width": 5})
    shutil.rmtree(folder / "variables")
    with pytest.raises(CakeError) as caught:
        load_model(folder)
    assert_one_line(caught.value, folder)
    shutil.copytree(saved[0] / "variables", folder / "variables")
    with pytest.raises(CakeError) as caught:
        load_model(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("rest", ["variables without a description", "half of the variables", "a finished model"])
def test_save_replaces_an_earlier_save(tmp_path, rest):
    save_model(tmp_path, make("mlp", {"width": 5}), "mlp", {"width": 5})
    if rest != "a finished model":
        (tmp_path / "model.json").unlink()
    if rest == "half of the variables":
        for path in files(tmp_path / "variables")[::2]:
            path.unlink()
    model = make()
    save_model(tmp_path, model, "mlp", {})
    np.testing.assert_array_equal(load_model(tmp_path)(x_of(SPEC)), model(x_of(SPEC)))


def test_interrupted_save_leaves_no_model_or_a_complete_one(tmp_path, monkeypatch):
    def no_space(*_):
        raise OSError(28, "No space left on device")

    old = make("mlp", {"width": 5})
    save_model(tmp_path, old, "mlp", {"width": 5})
    with monkeypatch.context() as patch:
        patch.setattr("cake_jax.stores.checkpoint.write_atomically", no_space)
        with pytest.raises(OSError, match="No space"):
            save_model(tmp_path, make(), "mlp", {})
    if has_model(tmp_path):
        np.testing.assert_array_equal(load_model(tmp_path)(x_of(SPEC)), old(x_of(SPEC)))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_state_round_trip(tmp_path, trained, optimizer):
    start, _, second, third = trained[optimizer]
    save_state(tmp_path, 2, second)
    loaded = load_state(tmp_path, start)
    assert_same_state(loaded, second)
    assert int(loaded.epoch) == 2
    (after, info), *more = resume(loaded, dataclasses.replace(SETTINGS, optimizer=optimizer))
    assert (info.epoch, more) == (3, [])
    assert_same_state(jax.device_get(after), jax.device_get(third))


def test_newest_state_replaces_the_older(tmp_path, trained):
    start, first, second, third = trained["sgd"]
    sizes = []
    for step, state in ((9, first), (10, second), (100, third)):
        save_state(tmp_path, step, state)
        assert_same_state(load_state(tmp_path, start), state)
        sizes.append(sum(path.stat().st_size for path in files(tmp_path)))
    assert max(sizes) < 1.5 * sizes[0]


def test_state_of_the_same_step_is_replaced(tmp_path, trained):
    start, first, second, _ = trained["adam"]
    save_state(tmp_path, 1, first)
    save_state(tmp_path, 1, second)
    assert_same_state(load_state(tmp_path, start), second)


def test_load_state_without_a_saved_state_returns_like(tmp_path, trained):
    start = trained["sgd"][0]
    assert load_state(tmp_path, start) is start
    assert load_state(tmp_path / "nowhere", start) is start
    assert not any(tmp_path.iterdir())


def test_save_model_removes_training_states(tmp_path, trained):
    start, _, _, third = trained["sgd"]
    save_model(tmp_path / "plain", make(), "mlp", {})
    save_state(tmp_path / "trained", 3, third)
    save_model(tmp_path / "trained", make(), "mlp", {})
    assert load_state(tmp_path / "trained", start) is start
    names = [{path.name for path in (tmp_path / name).iterdir()} for name in ("plain", "trained")]
    assert names[0] == names[1]


@pytest.mark.parametrize("damage", [delete, empty, overwrite])
def test_damaged_state_is_refused(tmp_path, trained, damage):
    save_state(tmp_path, 3, trained["sgd"][3])
    for path in files(tmp_path):
        if path.name != "sha256":  # a state without its checksum counts as an incomplete save
            damage(path)
    with pytest.raises(CakeError) as caught:
        load_state(tmp_path, trained["sgd"][0])
    assert_one_line(caught.value, tmp_path)
