"""The `Teacher` pytree, and its constructors from a Flax Linen module and from a function."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import checks, parallel
from cake_jax.models import modes
from cake_jax.teachers.outputs import OUTPUTS, Converted, Divided, look_like_probabilities
from cake_jax.types import ACCESS, CakeError, DataSpec, Queryable, first_line

# Number of inputs in one call of `Teacher.predict` on one device.
_PREDICTION_BATCH = 500


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained classifier as a pytree: its variables are leaves, and `apply_fn` is static.

    A teacher can be an argument of a function under `jit`, `vmap`, `pmap` or `grad`. Two teachers of one architecture
    share their compiled programs. A trained student is a `Teacher` too.

    Attributes:
      variables: Pytree of arrays.
      apply_fn: Function `(variables, x [B, *shape]) -> logits [B, K]` in evaluation mode. It must be hashable. If it is
        not equal for equal architectures, each teacher compiles its own programs.
      spec: Specification of the inputs.
      access: The highest kind of access in `types.ACCESS`, for every white box.
      queries: None, because queries are free.
    """

    access: ClassVar[str] = ACCESS[-1]
    queries: ClassVar[None] = None

    variables: Any
    apply_fn: Callable[[Any, Array], Array] = dataclasses.field(metadata={"static": True})
    spec: DataSpec = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Array) -> Array:
        """Logits `[B, K]` at normalised inputs x `[B, *shape]`."""
        return self.apply_fn(self.variables, x)

    def predict(self, x: Array | np.ndarray) -> np.ndarray:
        """Logits `[N, K]` float32 on the host of normalised inputs x `[N, *shape]`, computed on all devices."""
        index, _ = parallel.deal(len(x), min(_PREDICTION_BATCH, len(x)))
        run = _forward_on_devices()
        parts = [np.asarray(run(self, np.asarray(x)[index[:, i]])) for i in range(index.shape[1])]
        return parallel.gather(np.stack(parts, axis=1), len(x)).astype(np.float32)

    @property
    def module(self) -> Any:
        """The architecture of a teacher from a module of Flax or Equinox, or of a student.

        None for any other, and if the module's outputs are converted or divided.
        """
        return self.apply_fn.module if isinstance(self.apply_fn, LinenApply) else None

    @property
    def num_params(self) -> int:
        """Number of values in `variables["params"]`, or in all variables if that collection is missing."""
        tree = self.variables
        if isinstance(tree, Mapping):
            tree = tree.get("params", tree)
        return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


@dataclasses.dataclass(frozen=True)
class LinenApply:
    """The `apply_fn` of a Linen module in evaluation mode.

    It is equal for equal modules. A bound method `module.apply` is not.

    Attributes:
      module: A `flax.linen.Module`, or an object with the `apply` of `models.modes`, such as `models.NNXModule`.
    """

    module: Any

    def __call__(self, variables: Any, x: Array) -> Any:
        """Logits `[B, K]` of x `[B, *shape]`."""
        return modes.apply(self.module, variables, x)


@dataclasses.dataclass(frozen=True)
class FunctionApply:
    """The `apply_fn` of a function of x that holds its own weights.

    Attributes:
      function: Function of x `[B, *shape]` to logits `[B, K]`.
    """

    function: Callable[[Array], Array]

    def __call__(self, variables: Any, x: Array) -> Array:
        """Logits `[B, K]` of x `[B, *shape]`. `variables` is ignored."""
        return self.function(x)


def from_linen(module: Any, variables: Any, spec: DataSpec, *, outputs: str = "logits") -> Teacher:
    """Returns a teacher from a Flax Linen module in evaluation mode.

    Args:
      module: The architecture, called as `module(x)`, with its mode under one of the names in `models.modes.MODES`.
      variables: Collections `{"params": ..., ...}`, as `module.init` returns them.
      spec: Specification of the inputs.
      outputs: What the module returns: see `from_function`.

    Raises:
      CakeError: The module does not fit `spec`, its mode is not understood, or its outputs are not finite, or not what
        `outputs` says.
    """
    if isinstance(module, type) or not hasattr(module, "apply"):
        raise CakeError(f"module: {checks.shown(module)} is not a module of Flax Linen")
    checks.kind("variables", variables, Mapping, "a dict of collections, as module.init returns it")
    return checked(Teacher(variables, LinenApply(module), spec), outputs=outputs)


def from_function(function: Callable[[Array], Any], spec: DataSpec, *, outputs: str = "logits") -> Teacher:
    """Returns a teacher from any function that JAX can differentiate.

    Args:
      function: Function of normalised x `[B, *spec.shape]` to outputs `[B, K]`. With two classes it may return one
        output for each input, `[B]` or `[B, 1]`, for class 1. It may also return an object with `.logits`, a dict with
        `logits`, or a tuple whose first entry is the outputs.
      spec: Specification of the inputs.
      outputs: `logits`, which may be log-probabilities too, or `probabilities`, of which the logarithm is taken.

    Raises:
      CakeError: The function does not fit `spec`, its outputs are not finite, or not what `outputs` says, or its
        gradient with respect to x is missing, zero or not finite.
    """
    checks.kind("function", function, Callable, "a function")
    return with_gradient(checked(Teacher((), FunctionApply(function), spec), outputs=outputs))


def with_temperature(teacher: Teacher, temperature: float) -> Teacher:
    """Returns a teacher whose logits are those of `teacher`, divided by the temperature. The classes stay the same.

    Args:
      teacher: A teacher, perhaps with logits of several hundred. Those make the steps of samples diverge.
      temperature: A number above 0. 1 returns `teacher` itself.

    Raises:
      CakeError: `teacher` is no `Teacher`, or the temperature is no finite number above 0.

    Source: Guo et al. 2017 (arXiv 1706.04599), section 4.2.
    """
    checks.kind("teacher", teacher, Teacher, "a Teacher")
    checks.kind("temperature", temperature, int | float, "a number")
    checks.above_zero("temperature", temperature, finite=True)
    if temperature == 1:
        return teacher
    return dataclasses.replace(teacher, apply_fn=Divided(teacher.apply_fn, float(temperature)))


def as_queryable(model: Queryable | Callable[[Array], Array], spec: DataSpec) -> Queryable:
    """Returns `model` itself if it answers queries, or else a teacher from the function `model`.

    Args:
      model: A `Teacher`, a `BlackBox`, or a differentiable function of x `[B, *spec.shape]` to logits `[B, K]`.
      spec: Specification of the inputs of a function.

    Raises:
      CakeError: The function does not fit `spec`.
    """
    if isinstance(model, type) or not (hasattr(model, "predict") or callable(model)):
        raise CakeError(f"teacher: {checks.shown(model)} is not a Teacher, a BlackBox or a function")
    if hasattr(model, "predict"):
        return cast(Queryable, model)
    return checked(Teacher((), FunctionApply(model), spec))


def with_gradient(teacher: Teacher) -> Teacher:
    """Returns `teacher` if its logits have a gradient with respect to x, at two N(0, I) inputs.

    Raises:
      CakeError: The gradient is missing, zero or not finite.
    """
    x = np.random.default_rng(0).normal(size=(2, *teacher.spec.shape)).astype(np.float32)
    weights = jnp.arange(1.0, teacher.spec.num_classes + 1)
    if not all(_is_concrete(leaf) for leaf in (*jax.tree.leaves(teacher.variables), jnp.zeros(()))):
        return teacher
    try:
        gradient = jax.jit(jax.grad(lambda x: (teacher(x) * weights).sum()))(x)
        if not _is_concrete(gradient):
            return teacher
        values = np.asarray(gradient)
        fault = "zero" if not values.any() else None if np.isfinite(values).all() else "not finite"
    except Exception as error:
        fault = f"missing: {first_line(error)}"
    if fault:
        raise CakeError(
            f"teacher: its gradient with respect to the input is {fault}; "
            "if it has none, make it a cake_jax.BlackBox and use a method for labels or scores"
        )
    return teacher


def checked(teacher: Teacher, *, values: bool = True, outputs: str = "logits") -> Teacher:
    """Returns `teacher` if it fits its specification. Outputs that are no logits are converted.

    Args:
      teacher: The teacher.
      values: Whether the logits of two N(0, I) inputs are computed and must be finite. This compiles one forward pass.
        It is skipped if the variables are abstract or traced.
      outputs: What the teacher returns, one of `outputs.OUTPUTS`.

    Raises:
      CakeError: The teacher does not take inputs of `spec.shape`, does not return K outputs for each, or returns
        outputs that are not finite, or probabilities instead of logits.
    """
    checks.one_of("outputs", outputs, OUTPUTS)
    checks.kind("spec", teacher.spec, DataSpec, "a DataSpec")
    spec = teacher.spec
    if outputs != "logits" or _output_shape(teacher) != (2, spec.num_classes):
        teacher = dataclasses.replace(teacher, apply_fn=Converted(teacher.apply_fn, spec.num_classes, outputs))
        shape = _output_shape(teacher)
        if isinstance(shape, Exception):
            raise CakeError(
                f"teacher: does not take 2 inputs of shape {spec.shape} at once: {first_line(shape)}"
            ) from shape
        if shape != (2, spec.num_classes):
            raise CakeError(f"teacher: returns {shape} for 2 inputs, not the {outputs} (2, {spec.num_classes})")
    if values and all(_is_concrete(leaf) for leaf in (*jax.tree.leaves(teacher.variables), jnp.zeros(()))):
        x = np.random.default_rng(0).normal(size=(2, *spec.shape)).astype(np.float32)
        try:
            logits = _forward(teacher, x)
            finite = not _is_concrete(logits) or bool(np.isfinite(np.asarray(logits, np.float32)).all())
        except Exception as error:
            raise CakeError(f"teacher: fails on 2 inputs of shape {spec.shape}: {first_line(error)}") from error
        if not finite:
            raise CakeError("teacher: its logits for N(0, I) inputs are not finite; check its weights for NaN")
        if outputs == "logits" and _is_concrete(logits) and look_like_probabilities(np.asarray(logits, np.float32)):
            raise CakeError(
                "teacher: its outputs are probabilities, not logits: they are not negative and sum to 1; "
                "pass outputs='probabilities' to the function of cake_jax.teachers that makes the teacher"
            )
    return teacher


def _output_shape(teacher: Teacher) -> tuple[int, ...] | Exception:
    """The shape of the teacher's outputs for two inputs, or the error if it returns no array."""
    try:
        x = jax.ShapeDtypeStruct((2, *teacher.spec.shape), jnp.float32)
        return jax.eval_shape(_apply, teacher, x).shape
    except CakeError:
        raise
    except Exception as error:
        return error


def _apply(teacher: Teacher, x: Array) -> Array:
    return teacher(x)


_forward = jax.jit(_apply)


@functools.cache
def _forward_on_devices() -> Callable:
    return parallel.map_devices(_apply, in_axes=(None, 0))


def _is_concrete(leaf: Any) -> bool:
    """Whether the leaf has a value. Under `jit` even a new array has none."""
    return not isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct)
