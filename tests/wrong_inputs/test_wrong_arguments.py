"""Generated arguments of the library: each call works, or raises a `CakeError` of one line."""

import dataclasses
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from test_wrong_command_lines import check_message

import cake_jax
from cake_jax import teachers
from cake_jax.black_box import BlackBox, QuerySettings
from cake_jax.models import MODELS, create
from cake_jax.synthesis import SynthesisSettings, Weights
from cake_jax.training import TrainSettings, ViewSettings
from cake_jax.types import CakeError, DataSpec, SampleBatch

EXAMPLES = int(os.environ.get("WRONG_INPUTS", "50"))
PLANE = DataSpec((2,), 2)
X = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
Y = (X[:, 0] > 0).astype(int)
WIDTH = {"width": 4, "num_hidden": 1}
MODULE = create("mlp", PLANE, WIDTH)
VARIABLES = jax.jit(MODULE.init)(jax.random.key(0), X)
TEACHER = teachers.from_linen(MODULE, VARIABLES, PLANE)
SAMPLES = SampleBatch(X, TEACHER.predict(X), Y.astype(np.int32), np.ones(20, np.float32), np.arange(20, dtype=np.int32))
TRAINING = {"epochs": 1, "batch_size": 10, "validation_fraction": 0.0}
SYNTHESIS = {"num_batches": 1, "batch_size": 4, "num_groups": 2, "num_steps": 1}


class Nothing:
    """An object without a meaning to the library."""

    def __repr__(self):
        return "Nothing()"


VALUES = st.sampled_from(
    [
        *(None, -1, 0, 1, 3, 1.5, -0.5, float("nan"), float("inf"), 10**30, True, 1j, "", "cake", "text", b"bytes"),
        *((), (1,), (0.0,), (2, 2), (-1, 2), ("a", "b"), [], [[1, 2], [3]], [1, 2], {}, {"a": 1}, {1, 2}, Nothing()),
        *(Nothing, len, lambda x: x, lambda x: x[:, 0], lambda x: None, lambda x: jnp.zeros((len(x), 2))),
        *(lambda x: 1 / 0, lambda x: np.asarray(x), lambda x: ["a"] * len(x), lambda x: jnp.full((len(x), 2), jnp.nan)),
        *(X, X[:3], X[:0], X[:, :1], X[0], X.T, X.astype(int), X.tolist(), X * np.nan, X * 1e9, X[None], X.astype(str)),
        *(Y, Y[:3], Y + 1, Y - 1, Y[:, None], Y.astype(float), Y.astype(bool), Y.astype(object), np.array(0), X[:, :0]),
        *(jax.random.PRNGKey(0), jax.random.key(1), jax.random.split(jax.random.key(1)), jnp.array(X)),
        *(
            TEACHER,
            MODULE,
            VARIABLES,
            PLANE,
            DataSpec((4, 4, 1), 3),
            SAMPLES,
            SampleBatch(X, X, Y, Y, Y),
            Weights(tv=1.0),
        ),
        *(SynthesisSettings(), TrainSettings(), ViewSettings(ask=True), QuerySettings("labels", 9)),
    ]
)


def with_black_box(source, answers, budget, max_rows, tries):
    box = BlackBox(source, PLANE, QuerySettings(answers, budget, max_rows=max_rows, tries=tries, first_wait=0.0))
    return cake_jax.synthesize(jax.random.key(0), box, PLANE, SynthesisSettings(**SYNTHESIS), method="noise")


# By name: a call of the library, and right values of all its arguments.
CALLS = {
    "DataSpec": (DataSpec, {**dataclasses.asdict(PLANE), "low": -1.0, "high": 1.0}),
    "synthesize": (
        cake_jax.synthesize,
        {
            "key": jax.random.key(0),
            "teacher": TEACHER,
            "spec": PLANE,
            "settings": SynthesisSettings(**SYNTHESIS),
            "method": "cake",
            "data": (X, Y),
            "guide": MODULE,
        },
    ),
    "SynthesisSettings": (
        lambda **fields: cake_jax.synthesize(jax.random.key(0), TEACHER, PLANE, SynthesisSettings(**fields)),
        {**vars(SynthesisSettings()), **SYNTHESIS},
    ),
    "TrainSettings": (
        lambda **fields: cake_jax.distill(jax.random.key(0), MODULE, SAMPLES, TrainSettings(**fields)),
        {**vars(TrainSettings()), **TRAINING},
    ),
    "ViewSettings": (
        lambda **fields: cake_jax.distill(
            jax.random.key(0), MODULE, SAMPLES, TrainSettings(**TRAINING), views=ViewSettings(**fields), teacher=TEACHER
        ),
        vars(ViewSettings(ask=True)),
    ),
    "distill": (
        cake_jax.distill,
        {
            "key": jax.random.key(0),
            "model": MODULE,
            "samples": SAMPLES,
            "settings": TrainSettings(**TRAINING),
            "teacher": TEACHER,
            "spec": PLANE,
        },
    ),
    "evaluate": (cake_jax.evaluate, {"student": TEACHER, "teacher": TEACHER, "x": X, "y": Y}),
    "BlackBox": (
        with_black_box,
        {"source": lambda x: Y[: len(x)], "answers": "labels", "budget": 100, "max_rows": 8, "tries": 1},
    ),
    "from_function": (
        lambda **given: teachers.from_function(**given).predict(X),
        {"function": lambda x: jnp.concatenate([x[:, :1], -x[:, :1]], axis=1), "spec": PLANE},
    ),
    "from_linen": (
        lambda **given: teachers.from_linen(**given).predict(X),
        {"module": MODULE, "variables": VARIABLES, "spec": PLANE},
    ),
    "from_torch_weights": (
        teachers.from_torch_weights,
        {
            "weights": teachers.to_torch_tensors(TEACHER)[1],
            "name": "mlp",
            "spec": PLANE,
            "options": WIDTH,
        },
    ),
}
NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 4, 7, 20, 0.5, 1.5, 1e-9, 1e9, float("nan"), float("inf")])
NAMES = {"method": st.sampled_from([*cake_jax.methods.METHODS]), "name": st.sampled_from([*MODELS])}


@st.composite
def calls(draw):
    """The name of a call, and one or two of its arguments with values that are mostly wrong."""
    name = draw(st.sampled_from([*CALLS]))
    changed = draw(st.lists(st.sampled_from([*CALLS[name][1]]), min_size=1, max_size=2, unique=True))

    def value(field):
        right = CALLS[name][1][field]
        fitting = NUMBERS if isinstance(right, int | float) and not isinstance(right, bool) else VALUES
        return draw(st.one_of(VALUES, NAMES.get(field, fitting)))

    return name, {field: value(field) for field in changed}


def check_result(result):
    """All numbers of a result are finite, and the fields of samples have one size."""
    if isinstance(result, SampleBatch):
        assert len({len(field) for field in result}) == 1
        assert len(result.x)
    for leaf in jax.tree.leaves(result):
        if isinstance(leaf, float) or (hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.inexact)):
            assert np.isfinite(leaf).all()


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=EXAMPLES, deadline=None, derandomize="WRONG_INPUTS" not in os.environ)
@given(call=calls())
def test_a_call_works_or_raises_one_line(call):
    name, changed = call
    function, right = CALLS[name]
    try:
        result = function(**{**right, **changed})
    except CakeError as error:
        check_message(str(error))
    else:
        check_result(result)


@pytest.mark.parametrize("name", CALLS)
def test_the_right_values_work(name):
    function, right = CALLS[name]
    check_result(function(**right))


def test_the_harness_sees_results_that_are_not_finite_or_of_unequal_sizes():
    for result in (
        X * np.nan,
        {"accuracy": float("nan")},
        SAMPLES._replace(x=X * np.inf),
        SAMPLES._replace(target=Y[:3]),
    ):
        with pytest.raises(AssertionError):
            check_result(result)
