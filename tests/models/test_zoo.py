"""Every architecture as teacher and as student: samples are made from it in one step, and it learns from samples.

The ordinary tests use a shallow form of the architectures that take long to compile. The slow tests use the whole form.
"""

import dataclasses

import jax
import numpy as np
import pytest

from cake_jax import models
from cake_jax.synthesis import SynthesisSettings, Weights, minibatch
from cake_jax.training import DISTILLATION, DistillationLoss, from_logits, trainer
from cake_jax.types import DataSpec

DIGITS = DataSpec((28, 28, 1), 10)
TINY = DataSpec((8, 8, 3), 10)
COLOUR = DataSpec((32, 32, 3), 10)

# Random weights of a deep network give logits of any size. So the step size falls from 1e8 to nearly 1e-12.
SAMPLES = SynthesisSettings(
    num_batches=10,
    batch_size=4,
    num_groups=2,
    num_steps=1,
    step_size=1e8,
    decay_magnitude=22.0,
    weights=Weights(cls=0.0),
)
TRAINING = dataclasses.replace(
    DISTILLATION, epochs=1, batch_size=4, schedule="constant", weight_decay=0, validation_fraction=0
)

FAST = [
    ("mlp", DIGITS, {}),
    ("lenet5", DIGITS, {}),
    ("lenet5_half", DIGITS, {}),
    ("cnn", DIGITS, {}),
    ("cnn_tiny", DIGITS, {}),
    ("cnn_big", DIGITS, {}),
    ("cnn_adaptive_pool", DIGITS, {}),
    ("resnet4", TINY, {"blocks": (1, 1), "features": (32, 64)}),
    ("resnet18", TINY, {"blocks": (1, 1), "features": (8, 16)}),
    ("resnet20", TINY, {"blocks": (1, 1, 1)}),
    ("resnet8x4", TINY, {"features": (16, 24), "blocks": (1, 1), "stem_features": 8}),
    ("vgg13_bn", TINY, {"layers": (1, 1), "features": (16, 32)}),
    ("mobilenet_v2", TINY, {"strides": (1, 1, 1, 2, 1, 1, 1, 1), "blocks": (1,) * 7}),
    ("shufflenet_v2", COLOUR, {"blocks": (1, 1, 1), "features": (8, 16, 32, 32, 64), "imagenet_stem": False}),
    ("resnet_tiny", COLOUR, {"features": (8, 16, 32)}),
    ("resnet_small", COLOUR, {"features": (8, 16, 32)}),
    ("wrn_16_1", TINY, {"depth": 10}),
    ("wrn_16_2", TINY, {"depth": 10}),
    ("vgg8_bn", TINY, {"layers": (1, 1), "features": (64, 128)}),
    ("vgg11_bn", TINY, {"layers": (1, 2), "features": (64, 128)}),
    ("alexnet", DIGITS, {}),
    ("vit", TINY, {"patch": 4, "depth": 1}),
    ("vit_small", TINY, {"depth": 1}),
    ("logistic_regression", DIGITS, {}),
    ("svm_linear", DIGITS, {}),
    ("svm_poly", DIGITS, {}),
    ("svm_rbf", DIGITS, {"gamma": 1e-2}),
    ("ideal_lenet", DIGITS, {}),
    ("ideal_mlp", DIGITS, {}),
    ("ideal_cnn", DIGITS, {}),
]
SLOW = [
    *[(f"resnet{depth}", TINY, {}) for depth in (4, 18, 34, 50, 101, 152)],
    *[(f"resnet{kind}", COLOUR, {}) for kind in ("20", "32", "56", "110", "8x4", "32x4")],
    ("resnet20", COLOUR, {"shortcut": "padding"}),
    ("vgg13_bn", COLOUR, {}),
    ("mobilenet_v2", COLOUR, {"strides": (1, 1, 1, 2, 2, 1, 2, 1)}),
    ("shufflenet_v2", COLOUR, {"imagenet_stem": False}),
    *[(f"wrn_{kind}", TINY, {}) for kind in ("16_1", "16_2", "40_1", "40_2")],
    ("vgg8_bn", COLOUR, {}),
    ("vgg11_bn", TINY, {}),
    ("vgg11_bn", COLOUR, {"large_head": True}),
    ("vit", COLOUR, {}),
    ("vit_small", COLOUR, {}),
]


def test_cases_cover_all_models():
    assert {name for name, _, _ in FAST + SLOW} == set(models.MODELS)


def start(path, leaf):
    """Initial values of a variable. NumPy makes them faster than XLA compiles an initializer."""
    if jax.tree_util.keystr(path[-1:], simple=True) in ("scale", "var"):
        return np.ones(leaf.shape, leaf.dtype)
    values = np.random.default_rng(leaf.size).normal(size=leaf.shape) / np.sqrt(np.prod(leaf.shape[:-1]))
    return values.astype(leaf.dtype)


@pytest.mark.parametrize(
    ("name", "spec", "options"), [*FAST, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW)]
)
def test_architecture_teaches_and_learns(name, spec, options):
    module = models.create(name, spec, options)
    shapes = jax.eval_shape(lambda: trainer.init(jax.random.key(0), module, spec, TRAINING))
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    state = state._replace(
        params=jax.tree.map_with_path(start, shapes.params),
        model_state=jax.tree.map_with_path(start, shapes.model_state),
    )
    teacher = trainer.as_model(module, state, spec)
    for batch in reversed(range(SAMPLES.num_batches)):
        samples, info = minibatch(jax.random.key(1), teacher, SAMPLES, batch)
        if info.logit_gap < 0.999 * info.logit_gap_start:
            break
    else:
        pytest.fail("no step size of the contrastive term brings the logits together")

    labels = from_logits(1 + samples.logits[:, ::-1])
    ((trained, info),) = trainer.epochs(
        jax.random.key(2), state, module, spec, samples.x, labels, TRAINING, loss=DistillationLoss()
    )
    assert np.isfinite(info.loss)
    for (path, old), new in zip(jax.tree.leaves_with_path(state.params), jax.tree.leaves(trained.params), strict=True):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        # A bias before batch norm has no effect, so it has no gradient.
        no_effect = name.startswith("Conv") and name.endswith("bias") and "batch_stats" in state.model_state
        # Nor has the bias of a batch norm that only linear layers separate from the next one.
        no_effect |= name.startswith(("InvertedResidual", "ShuffleUnit")) and "BatchNorm" in name and "bias" in name
        assert no_effect or not np.array_equal(old, new), f"{name} does not learn"
