"""The `Teacher` pytree, and how it is made from a Flax Linen module or from any function."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax.types import CakeError, DataSpec, first_line


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Teacher:
    """A trained classifier as a pytree: its variables are leaves, how to apply them is static.

    So it passes through `jit`, `vmap`, `pmap` and `grad` as an argument, and another teacher of the same kind needs no
    compilation. A trained student is a `Teacher` too.

    Attributes:
      variables: Pytree of arrays.
      apply_fn: `(variables, x [B, *shape]) -> logits [B, K]`, evaluation mode. It must be hashable, and equal for equal
        architectures, or each teacher compiles anew.
      spec: The input domain.
    """

    variables: Any
    apply_fn: Callable[[Any, Array], Array] = dataclasses.field(metadata={"static": True})
    spec: DataSpec = dataclasses.field(metadata={"static": True})

    def __call__(self, x: Array) -> Array:
        """Logits `[B, K]` at normalised inputs x `[B, *shape]`."""
        return self.apply_fn(self.variables, x)

    @property
    def num_params(self) -> int:
        """Number of trainable parameters: those in `variables["params"]`, or else all."""
        tree = self.variables
        if isinstance(tree, Mapping):
            tree = tree.get("params", tree)
        return sum(int(np.size(leaf)) for leaf in jax.tree.leaves(tree))


@dataclasses.dataclass(frozen=True)
class LinenApply:
    """Evaluation-mode `apply` of a Linen module; equal for equal modules, which bound methods are not.

    Attributes:
      module: A `flax.linen.Module`, or what has its `apply`, as `models.NNXModule`.
    """

    module: Any

    def __call__(self, variables: Any, x: Array) -> Any:
        """Logits `[B, K]` of x `[B, *shape]`."""
        return self.module.apply(variables, x)


@dataclasses.dataclass(frozen=True)
class FunctionApply:
    """`apply` of a function of x alone, whose weights are closed over."""

    function: Callable[[Array], Array]

    def __call__(self, variables: Any, x: Array) -> Array:
        """Logits `[B, K]` of x `[B, *shape]`; there are no variables."""
        return self.function(x)


def from_linen(module: Any, variables: Any, spec: DataSpec) -> Teacher:
    """A teacher from a Flax Linen module whose `__call__(x)` is in evaluation mode.

    Args:
      module: The architecture.
      variables: `{"params": ..., ...}`, as `module.init` returns them.
      spec: The input domain.

    Returns:
      The teacher.

    Raises:
      CakeError: The module does not fit `spec`, or its logits are not finite.
    """
    return checked(Teacher(variables, LinenApply(module), spec))


def from_function(function: Callable[[Array], Array], spec: DataSpec) -> Teacher:
    """A teacher from any function that JAX can differentiate.

    Args:
      function: x `[B, *spec.shape]`, normalised, to logits `[B, K]`.
      spec: The input domain.

    Returns:
      The teacher.

    Raises:
      CakeError: The function does not fit `spec`, or its logits are not finite.
    """
    return checked(Teacher((), FunctionApply(function), spec))


def as_teacher(teacher: "Teacher | Callable[[Array], Array]", spec: DataSpec) -> Teacher:
    """`teacher` itself if it is one, else `from_function(teacher, spec)`."""
    return teacher if isinstance(teacher, Teacher) else from_function(teacher, spec)


def checked(teacher: Teacher, *, values: bool = True) -> Teacher:
    """`teacher`, if it fits its specification.

    Args:
      teacher: The teacher.
      values: Whether it is asked for the logits of two N(0, I) inputs too, which must be finite: one compilation of its
        forward pass. It is not asked where its variables are abstract or traced.

    Raises:
      CakeError: It does not take inputs of `spec.shape`, does not return K logits for each, or not finite ones.
    """
    spec = teacher.spec
    try:
        logits = jax.eval_shape(_ask, teacher, jax.ShapeDtypeStruct((2, *spec.shape), jnp.float32))
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
            raise CakeError("teacher: its logits of N(0, I) inputs are not finite; look for NaN among its weights")
    return teacher


def _ask(teacher: Teacher, x: Array) -> Array:
    return teacher(x)


_forward = jax.jit(_ask)


def _is_concrete(leaf: Any) -> bool:
    """Whether it has a value now; under `jit` not even a new array has."""
    return not isinstance(leaf, jax.core.Tracer | jax.ShapeDtypeStruct)
