"""Every program that the package compiles can be compiled for CUDA and TPU.

JAX lowers each program for both, which needs neither. The form for an accelerator and the form for a CPU are lowered:
the second must be correct everywhere, too.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from exporting import PLATFORMS, check, exporting

from cake_jax import models
from cake_jax.augment import NAMES
from cake_jax.black_box import BlackBox, QuerySettings
from cake_jax.evaluation import evaluate
from cake_jax.export import to_stablehlo
from cake_jax.methods import METHODS
from cake_jax.starts import STARTS
from cake_jax.synthesis import SynthesisSettings, Weights, minibatch
from cake_jax.synthesis.priors import PRIORS
from cake_jax.teachers import Teacher
from cake_jax.training import (
    DISTILLATION,
    DistillationLoss,
    Labels,
    ViewSettings,
    classification_loss,
    from_logits,
    trainer,
    views,
)
from cake_jax.types import DataSpec

KEY = jax.random.key(0)
IMAGES = DataSpec((32, 32, 3), 10, low=0.0, high=1.0)
SMALL = DataSpec((8, 8, 3), 4, low=0.0, high=1.0)
PLANE = DataSpec((2,), 4)
BACKENDS = ("gpu", "cpu")

# Networks of many equal blocks, with one block of each kind.
SHALLOW = {
    **{name: {"blocks": (1, 1), "features": (8, 16)} for name in models.MODELS if name.startswith("resnet")},
    **{name: {"depth": 10} for name in models.MODELS if name.startswith("wrn")},
    **{name: {"patch": 8, "depth": 1} for name in models.MODELS if name.startswith("vit")},
}
SYNTHESIS = SynthesisSettings(batch_size=12, num_groups=3, num_steps=2, weights=Weights(contr=0.5))


def model(name, spec, options=None):
    """An architecture with random weights. NumPy makes them faster than XLA compiles an initializer."""
    module = models.create(name, spec, options)
    shapes = jax.eval_shape(module.init, KEY, jax.ShapeDtypeStruct((1, *spec.shape), jnp.float32))
    rng = np.random.default_rng(0)
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.2, leaf.shape).astype(leaf.dtype), shapes)
    return trainer.as_model(module, trainer.TrainState(variables.pop("params"), variables, None, None), spec)


TEACHER, STUDENT = model("ideal_lenet", SMALL), model("mlp", SMALL)


def check_all(function, backends=BACKENDS, least=1):
    """Calls a function and checks each program that it compiles, in the form for each backend."""
    for backend in backends:
        with exporting(backend) as programs:
            function()
        assert len(programs) >= least
        for program in programs:
            check(program)


@pytest.mark.parametrize(
    "fields",
    [
        {"langevin_temperature": 1.0},
        {"contrastive": "snn"},
        {"contrastive": lambda logits: logits.std()},
        {"weights": Weights(entropy=1.0)},
        {"precision": "bf16"},
        {"optimizer": "adam"},
        *({"weights": Weights(priors=((name, 1.0),))} for name in PRIORS),
        *({"start": name} for name in STARTS),
    ],
    ids="-".join,
)
def test_synthesis(fields):
    settings = dataclasses.replace(SYNTHESIS, **fields)
    check_all(lambda: minibatch(KEY, TEACHER, settings, 0), least=2)


@pytest.mark.parametrize("method", METHODS)
def test_methods(method):
    """A round of each method. Only networks have two forms. `generative` has one that is not in `MODELS`."""
    fields = {"num_batches": 1, "batch_size": 12, "num_groups": 3, "num_steps": 2}
    if hasattr(METHODS[method].settings(), "latent_size"):
        fields |= {"latent_size": 4, "features": (4, 4, 4)}
    settings = METHODS[method].prepare(METHODS[method].settings(**fields), SMALL)
    data = np.zeros((5, *SMALL.shape), np.float32), np.zeros(5, np.int32)

    def make_round():
        state = METHODS[method].init(KEY, SMALL, settings, data)
        METHODS[method].make_round(KEY, state, TEACHER, STUDENT, settings, 0)

    check_all(make_round, BACKENDS if method == "generative" else BACKENDS[:1])


def test_methods_for_vectors_and_labels():
    """The boundary search, and a generator of vectors."""
    teacher = model("mlp", PLANE)
    fields = {"num_batches": 1, "batch_size": 12, "num_groups": 3, "num_steps": 2}
    for method, options in {"zeroth_order": {"search": "boundary"}, "generative": {"features": (4, 4)}}.items():
        settings = METHODS[method].prepare(METHODS[method].settings(**fields, **options), PLANE)

        def make_round(method=method, settings=settings):
            state = METHODS[method].init(KEY, PLANE, settings, None)
            METHODS[method].make_round(KEY, state, teacher, None, settings, 0)

        check_all(make_round, BACKENDS[:1])


@pytest.mark.parametrize(
    ("name", "fields"),
    [
        ("ideal_lenet", {"optimizer": "sgd", "schedule": "multi_step"}),
        ("ideal_lenet", {"optimizer": "adam"}),
        ("mlp", {"optimizer": "adamw"}),
        ("svm_linear", {"optimizer": "sgd"}),
        ("mlp", {"augment": NAMES}),
    ],
)
def test_training(name, fields):
    """Steps of teachers, which learn from classes, and of students, which learn from logits."""
    settings = dataclasses.replace(DISTILLATION, epochs=1, batch_size=4, validation_fraction=0.25, **fields)
    x = np.zeros((8, *SMALL.shape), np.float32)
    classes, logits = np.zeros(8, np.int32), np.zeros((8, SMALL.num_classes), np.float32)
    module = models.create(name, SMALL)

    def train():
        for labels, loss in ((Labels(classes), classification_loss), (Labels(classes, logits), DistillationLoss())):
            state = trainer.init(KEY, module, SMALL, settings)
            list(trainer.epochs(KEY, state, module, SMALL, x, labels, settings, loss=loss))

    check_all(train, BACKENDS[:1], least=6)


def test_views():
    """Steps of a student that asks the teacher, with every change of the inputs and an adversary."""
    settings = dataclasses.replace(DISTILLATION, epochs=1, batch_size=16, validation_fraction=0.0, augment=NAMES)
    asked = views.asked(ViewSettings(True, tuple(STARTS), 0.5, 0.5, 0.5, 0.5), settings, SMALL, TEACHER)
    x, labels = np.zeros((16, *SMALL.shape), np.float32), from_logits(np.zeros((16, SMALL.num_classes), np.float32))
    module = models.create("mlp", SMALL)

    def train():
        state = trainer.init(KEY, module, SMALL, settings, make_batch=asked["make_batch"])
        list(trainer.epochs(KEY, state, module, SMALL, x, labels, settings, loss=DistillationLoss(), **asked))

    check_all(train, BACKENDS[:1])


def test_evaluation():
    """The answers of a student, of a teacher, and of a teacher that only answers queries."""
    x = np.random.default_rng(0).normal(size=(6, *SMALL.shape)).astype(np.float32)
    teachers = [BlackBox(TEACHER, SMALL, QuerySettings(kind, budget=100)) for kind in ("labels", "scores", "logits")]
    for teacher in (TEACHER, *teachers):
        check_all(lambda teacher=teacher: (teacher.predict(x + np.float32(0)), evaluate(STUDENT, teacher, x, None)))


@pytest.mark.parametrize("name", models.MODELS)
def test_models(name):
    """The gradient of evaluation mode and training mode: in float32 for an accelerator, in bf16 for a CPU."""
    module = models.create(name, IMAGES, SHALLOW.get(name))

    def loss(params, state, x):
        logits, _ = module.apply({"params": params, **state}, x, train=True, mutable=["batch_stats"])
        return (logits * module.apply({"params": params, **state}, x)).sum()

    for backend, dtype in zip(BACKENDS, (jnp.float32, jnp.bfloat16), strict=True):
        x = jax.ShapeDtypeStruct((2, *IMAGES.shape), dtype)
        shapes = jax.eval_shape(module.init, KEY, x)
        state = jax.tree.map(lambda leaf, dtype=dtype: jax.ShapeDtypeStruct(leaf.shape, dtype), dict(shapes))
        arguments = state.pop("params"), state, x
        check_all(lambda arguments=arguments: jax.jit(jax.grad(loss, argnums=(0, 2)))(*arguments), [backend])


def test_both_forms_are_exported():
    """The form for a CPU has fewer convolutions, because convolutions of few channels are products of rows there."""
    found = []
    for backend in BACKENDS:
        with exporting(backend) as programs:
            TEACHER.predict(np.zeros((2, *SMALL.shape), np.float32))
        found.append(programs[0].mlir_module().count("stablehlo.convolution"))
    assert found[0] > found[1] > 0


def test_exported_model(tmp_path):
    path = tmp_path / "student.stablehlo"
    to_stablehlo(TEACHER, path)
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert set(program.platforms) >= set(PLATFORMS)
    check(dataclasses.replace(program, platforms=PLATFORMS))


def _on_host(variables, x):
    return jax.pure_callback(lambda x: x, jax.ShapeDtypeStruct((len(x), 4), jnp.float32), x[:, 0, 0])


def _on_cpu(variables, x):
    return jnp.linalg.eigvals(x[:, :4, :4, 0]).real


@pytest.mark.parametrize(
    ("answer", "error", "message"),
    [
        (_on_host, NotImplementedError, "callback"),
        (_on_cpu, NotImplementedError, "eig"),
    ],
)
def test_a_program_that_needs_its_host_or_a_cpu_is_found(answer, error, message):
    with pytest.raises(error, match=message):
        check_all(lambda: Teacher((), answer, SMALL).predict(np.zeros((2, *SMALL.shape), np.float32)))


def test_a_library_of_a_cpu_is_found():
    program = jax.export.export(jax.jit(jnp.linalg.cholesky), platforms=("cpu",))(jnp.eye(3))
    with pytest.raises(AssertionError, match="lapack"):
        check(dataclasses.replace(program, platforms=PLATFORMS))
