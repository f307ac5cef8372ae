"""The mode of a module: which arguments and fields choose it, what is refused, and that layers are in it."""

from typing import Optional

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from cake_errors import message_of
from flax import nnx
from jax.typing import ArrayLike

from cake_jax.models import modes

NAMES = "train, training, is_training, deterministic, use_running_average, inference"
KEYS = jax.random.split(jax.random.key(3), 2)
ONES = jnp.ones((2, 50))


class Net(nn.Module):
    """Dropout of half of the inputs, then batch norm. Its mode is on unless it is told otherwise."""

    @nn.compact
    def __call__(self, x, train=True):
        x = nn.Dropout(0.5, deterministic=not train)(x)
        return nn.BatchNorm(use_running_average=not train, momentum=0.5, use_scale=False, use_bias=False)(x)


class Drop(nn.Module):
    """Dropout alone, whose mode is a field."""

    training: bool = False
    rate: float = 0.5
    collection: str = "dropout"

    @nn.compact
    def __call__(self, x):
        return nn.Dropout(self.rate, deterministic=not self.training, rng_collection=self.collection)(x)


class Forgotten(nn.Module):
    """A module that does not tell a part its mode."""

    part_trains: bool

    @nn.compact
    def __call__(self, x, train=False):
        return Net(name="part")(x, self.part_trains)


def takes_several(x, *, train=False, use_running_average=None, deterministic: bool):
    pass


@pytest.mark.parametrize(
    ("call", "in_training"),
    [
        (lambda x: x, {}),
        (lambda x, train: x, {"train": True}),
        (lambda x, train=True: x, {"train": True}),
        (lambda x, train=False: x, {"train": True}),
        (lambda x, *, training=None: x, {"training": True}),
        (lambda x, is_training: x, {"is_training": True}),
        (lambda x, deterministic=True: x, {"deterministic": False}),
        (lambda x, use_running_average=False: x, {"use_running_average": False}),
        (lambda x, inference=None: x, {"inference": False}),
        (takes_several, {"train": True, "use_running_average": False, "deterministic": False}),
        (lambda x, mask=None, scale=2.0, return_dict=True, output_hidden_states=False: x, {}),
    ],
)
def test_every_mode_has_its_value(call, in_training):
    assert modes.arguments(call, train=True) == in_training
    assert modes.arguments(call, train=False) == {name: not value for name, value in in_training.items()}


def annotated(x, is_eval: bool | None = None):
    pass


def annotated_by_typing(x, is_eval: Optional[bool] = None):  # noqa: UP045
    pass


def annotated_by_a_string(x, is_eval: "bool | None" = None):
    pass


def with_a_mask(x, mask: ArrayLike | None = None):
    pass


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda x, is_eval=False: x, "is_eval"),
        (lambda x, train=False, freeze=True: x, "freeze"),
        (lambda x, phase="eval": x, "phase"),
        (lambda x, mask: x, "mask"),
        (lambda x, *, return_all: x, "return_all"),
        (annotated, "is_eval"),
        (annotated_by_typing, "is_eval"),
        (annotated_by_a_string, "is_eval"),
    ],
)
def test_an_argument_that_is_not_understood_is_refused(call, name):
    assert message_of(modes.arguments, call, train=False) == (
        f"model: function.__call__: the argument '{name}' is not understood, and may be its mode; "
        f"name a mode as one of {NAMES}, and give any other argument its value in a module around this one"
    )
    assert modes.arguments(call, train=True, known=[name]).keys() <= {"train"}


def test_arguments_of_any_name_are_refused():
    message = message_of(modes.arguments, lambda x, **options: x, train=True)
    assert message == (
        f"model: function.__call__ takes **options, which hides the name of its mode; name it as one of {NAMES}"
    )


def test_an_array_is_no_mode():
    """The annotation of arrays includes booleans."""
    assert modes.arguments(with_a_mask, train=True) == {}


def test_a_sequence_hands_the_mode_to_its_first_layer():
    assert modes.arguments(nn.Sequential([Net(), nn.Dense(2)]), train=True) == {"train": True}
    assert modes.arguments(nn.Sequential([nn.gelu, nn.Dense(2)]), train=True) == {}
    assert modes.arguments(nnx.Sequential(nnx.Linear(2, 2, rngs=nnx.Rngs(0)), nnx.gelu), train=True) == {}


def test_training_drops_half_and_doubles_the_rest():
    """Batch norm of two rows: the mean of a column is 0, 1 or 2. Half of the running mean moves there."""
    module = Net()
    variables = modes.init(module, KEYS[0], ONES)
    np.testing.assert_array_equal(modes.apply(Drop(), {}, ONES), ONES)
    _, state = modes.apply(module, variables, ONES, train=True, keys=KEYS, mutable=["batch_stats"])
    dropped = nn.Dropout(0.5, deterministic=False, name="Dropout_0")
    mean = state["batch_stats"]["BatchNorm_0"]["mean"]
    assert set(np.asarray(mean)) == {0.0, 0.5, 1.0}
    np.testing.assert_allclose(modes.apply(module, variables, ONES), ONES / np.sqrt(1 + 1e-5), rtol=1e-6)
    rows = np.asarray(modes.apply(Drop(), {}, ONES, train=True, keys=KEYS))
    assert set(rows.ravel()) == {0.0, 2.0}
    assert 0.3 < (rows == 0).mean() < 0.7
    np.testing.assert_array_equal(modes.apply(Drop(), {}, ONES, train=True, keys=KEYS), rows)
    other = modes.apply(Drop(), {}, ONES, train=True, keys=KEYS[::-1])
    assert 0.3 < np.mean(np.asarray(other) == rows) < 0.7
    direct = dropped.apply({}, ONES, rngs={"dropout": KEYS[0]})
    np.testing.assert_array_equal(modes.apply(dropped, {}, ONES, train=True, keys=KEYS), direct)


def test_draws_of_another_name_have_their_own_key():
    first, other = (
        np.asarray(modes.apply(Drop(collection=name), {}, ONES, train=True, keys=KEYS))
        for name in ("dropout", "drop_path")
    )
    assert set(other.ravel()) == {0.0, 2.0}
    assert 0.3 < (other == first).mean() < 0.7


def test_a_field_chooses_the_mode():
    for default in (False, True):
        np.testing.assert_array_equal(modes.apply(Drop(training=default), {}, ONES), ONES)
        assert set(np.asarray(modes.apply(Drop(default), {}, ONES, train=True, keys=KEYS)).ravel()) == {0.0, 2.0}


@pytest.mark.parametrize("part_trains", [False, True])
def test_a_layer_in_another_mode_is_refused(part_trains):
    module, other = Forgotten(part_trains), Forgotten(not part_trains)
    variables = modes.init(Net(), KEYS[0], ONES)
    variables = {"batch_stats": {"part": variables["batch_stats"]}}
    options = {"keys": KEYS, "mutable": ["batch_stats"]}
    now, wrong = ("evaluation", "training") if part_trains else ("training", "evaluation")
    assert message_of(modes.apply, module, variables, ONES, train=not part_trains, **options) == (
        f"model: part/Dropout_0 in Forgotten is in {wrong} mode during {now}; "
        "write a module whose __call__ has the argument train, and give this layer deterministic=not train"
    )
    modes.apply(other, variables, ONES, train=not part_trains, **options)


def test_batch_norm_and_attention_in_another_mode_are_refused():
    frozen = nn.Sequential([nn.Dense(4), nn.BatchNorm(use_running_average=True)])
    variables = modes.init(frozen, KEYS[0], ONES)
    modes.apply(frozen, variables, ONES)
    message = message_of(modes.apply, frozen, variables, ONES, train=True, mutable=["batch_stats"])
    assert "layers_1 in Sequential is in evaluation mode" in message
    assert "use_running_average=not train" in message
    attention = nn.Sequential([nn.Dense(4), nn.MultiHeadDotProductAttention(2, dropout_rate=0.1, deterministic=True)])
    variables = modes.init(attention, KEYS[0], ONES)
    assert "layers_1" in message_of(modes.apply, attention, variables, ONES, train=True, keys=KEYS)


def test_dropout_of_nothing_may_be_in_any_mode():
    fixed = nn.Sequential([nn.Dense(4), nn.Dropout(0.0, deterministic=True)])
    modes.apply(fixed, modes.init(fixed, KEYS[0], ONES), ONES, train=True, keys=KEYS)


def test_a_module_that_fails_in_training_is_refused():
    class NeedsThree(nn.Module):
        @nn.compact
        def __call__(self, x, train):
            return x.reshape(len(x), 3, -1) if train else x

    modes.check_training(Drop(), {}, ONES)
    message = message_of(modes.check_training, NeedsThree(), {}, ONES)
    assert message.startswith("model: NeedsThree fails in training mode: cannot reshape")
