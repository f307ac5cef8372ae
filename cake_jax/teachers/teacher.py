"""The `Teacher` pytree, and its constructors from a Flax Linen module and from a function."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax import parallel
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
      module: A `flax.linen.Module`, or an object with the same `apply`, such as `models.NNXModule`.
    """

    module: Any

    def __call__(self, variables: Any, x: Array) -> Any:
        """Logits `[B, K]` of x `[B, *shape]`."""
        return self.module.apply(variables, x)


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


def from_linen(module: Any, variables: Any, spec: DataSpec) -> Teacher:
    """Returns a teacher from a Flax Linen module whose `__call__(x)` is in evaluation mode.

    Args:
      module: The architecture.
      variables: Collections `{"params": ..., ...}`, as `module.init` returns them.
      spec: Specification of the inputs.

    Raises:
      CakeError: The module does not fit `spec`, or its logits are not finite.
    """
    return checked(Teacher(variables, LinenApply(module), spec))


def from_function(function: Callable[[Array], Array], spec: DataSpec) -> Teacher:
    """Returns a teacher from any function that JAX can differentiate.

    Args:
      function: Function of normalised x `[B, *spec.shape]` to logits `[B, K]`.
      spec: Specification of the inputs.

    Raises:
      CakeError: The function does not fit `spec`, or its logits are not finite.
    """
    return checked(Teacher((), FunctionApply(function), spec))


def as_queryable(model: Queryable | Callable[[Array], Array], spec: DataSpec) -> Queryable:
    """Returns `model` itself if it answers queries, or else a teacher from the function `model`.

    Args:
      model: A `Teacher`, a `BlackBox`, or a differentiable function of x `[B, *spec.shape]` to logits `[B, K]`.
      spec: Specification of the inputs of a function.

    Raises:
      CakeError: The function does not fit `spec`.
    """
    if hasattr(model, "predict"):
        return cast(Queryable, model)
    return from_function(model, spec)


def checked(teacher: Teacher, *, values: bool = True) -> Teacher:
    """Returns `teacher` if it fits its specification.

    Args:
      teacher: The teacher.
      values: Whether the logits of two N(0, I) inputs are computed and must be finite. This compiles one forward pass.
        It is skipped if the variables are abstract or traced.

    Raises:
      CakeError: The teacher does not take inputs of `spec.shape`, does not return K logits for each, or returns logits
        that are not finite.
    """
    spec = teacher.spec
    try:
        logits = jax.eval_shape(_apply, teacher, jax.ShapeDtypeStruct((2, *spec.shape), jnp.float32))
    except Exception as error:
        raise CakeError(
            f"teacher: does not take 2 inputs of shape {spec.shape} at once: {first_line(error)}"
        ) from error
    shape = getattr(logits, "shape", type(logits).__name__)
    if shape != (2, spec.num_classes):
        raise CakeError(f"teacher: returns {shape} for 2 inputs, not the logits (2, {spec.num_classes})")
    if values and all(_is_concrete(leaf) for leaf in (*jax.tree.leaves(teacher.variables), jnp.zeros(()))):
        x = np.random.default_rng(0).normal(size=(2, *spec.shape)).astype(np.float32)
        try:
            logits = _forward(teacher, x)
            finite = not _is_concrete(logits) or bool(np.isfinite(np.asarray(logits, np.float32)).all())
        except Exception as error:
            raise CakeError(f"teacher: fails on 2 inputs of shape {spec.shape}: {first_line(error)}") from error
        if not finite:
            raise CakeError("teacher: its logits for N(0, I) inputs are not finite; check its weights for NaN")
    return teacher


def _apply(teacher: Teacher, x: Array) -> Array:
    return teacher(x)


_forward = jax.jit(_apply)


@functools.cache
def _forward_on_devices() -> Callable:
    return parallel.map_devices(_apply, in_axes=(None, 0))


def _is_concrete(leaf: Any) -> bool:
    """Whether the leaf has a value. Under `jit` even a new array has none."""
    return not isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct)
