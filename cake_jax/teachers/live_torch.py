"""A live PyTorch module as a teacher: each call leaves JAX, and comes back with PyTorch's answer."""

import dataclasses
import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax.teachers.teacher import Teacher, checked
from cake_jax.types import CakeError, DataSpec, first_line

# Devices call from threads of their own. PyTorch has threads enough for one call, and modules may keep state.
_ONE_AT_A_TIME = threading.Lock()


@dataclasses.dataclass(frozen=True)
class TorchApply:
    """Evaluation-mode call of a `torch.nn.Module`; equal for the same module object alone.

    Attributes:
      module: The module.
      spec: The input domain.
    """

    module: Any
    spec: DataSpec

    def __call__(self, variables: Any, x: Array) -> Array:
        """Logits `[B, K]` float32 of x `[B, *shape]`."""
        return _logits(self, x.astype(jnp.float32))

    def run(self, x: np.ndarray, cotangent: np.ndarray | None = None) -> np.ndarray:
        """Logits `[..., K]` of x `[..., *shape]`; with a cotangent `[..., K]` of them, that of x instead.

        Raises:
          CakeError: The module fails, or does not return logits.
        """
        import torch

        name, rows = type(self.module).__name__, x.reshape(-1, *self.spec.shape)
        with _ONE_AT_A_TIME, torch.set_grad_enabled(cotangent is not None):
            self.module.eval()
            like = next(self.module.parameters(), torch.zeros(()))
            inputs = torch.from_numpy(np.array(rows)).to(like.device, like.dtype)
            inputs.requires_grad_(cotangent is not None)
            try:
                result = self.module(inputs.permute(0, 3, 1, 2) if self.spec.is_image else inputs)
            except Exception as error:
                raise CakeError(
                    f"teacher: {name} fails on inputs of shape {rows.shape}: {first_line(error)}"
                ) from error
            shape, wanted = tuple(getattr(result, "shape", ())), (len(rows), self.spec.num_classes)
            if shape != wanted:
                raise CakeError(f"teacher: {name} returns {shape} for {len(rows)} inputs, not the logits {wanted}")
            if cotangent is not None:
                weights = torch.from_numpy(np.array(cotangent)).reshape(wanted).to(result)
                (result,) = torch.autograd.grad(result, inputs, weights)
            lead = x.shape[: x.ndim - len(self.spec.shape)]
            return result.detach().cpu().float().numpy().reshape(*lead, *result.shape[1:])


def from_torch(module: Any, spec: DataSpec) -> Teacher:
    """A teacher from a live `torch.nn.Module`, for architectures that JAX does not have. Needs PyTorch.

    Every call copies its inputs to PyTorch and waits for it, and a gradient runs the forward pass once more: clearly
    slower than the same network in JAX. It differentiates once, in x alone, and cannot be saved with a run.

    Args:
      module: Takes images as `[B, C, H, W]`, other inputs as they are, and returns logits `[B, K]`. It is put into
        evaluation mode, on the device where it is, and should not change while it teaches.
      spec: The input domain; x stays `[B, H, W, C]`.

    Returns:
      The teacher.

    Raises:
      CakeError: PyTorch is missing, the module fails on inputs of `spec`, or its logits are not finite.
    """
    try:
        import torch
    except ImportError as error:
        raise CakeError("from_torch: needs PyTorch (pip install torch)") from error
    if not isinstance(module, torch.nn.Module):
        raise CakeError(f"from_torch: {type(module).__name__} is no torch.nn.Module")
    apply_fn = TorchApply(module, spec)
    # Asked outside JAX first: of what fails inside it only a long trace comes back.
    apply_fn.run(np.zeros((2, *spec.shape), np.float32))
    return checked(Teacher((), apply_fn, spec))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logits(apply_fn: TorchApply, x: Array) -> Array:
    lead = x.shape[: x.ndim - len(apply_fn.spec.shape)]
    return _ask(apply_fn, (*lead, apply_fn.spec.num_classes), x)


def _forward(apply_fn: TorchApply, x: Array) -> tuple[Array, Array]:
    return _logits(apply_fn, x), x


def _backward(apply_fn: TorchApply, x: Array, cotangent: Array) -> tuple[Array]:
    return (_ask(apply_fn, x.shape, x, cotangent),)


_logits.defvjp(_forward, _backward)


def _ask(apply_fn: TorchApply, shape: tuple[int, ...], *operands: Array) -> Array:
    """`TorchApply.run` from inside a JAX program; `vmap` adds axes in front."""
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    if jax.default_backend() != "cpu":

        def call(*operands: Any) -> np.ndarray:
            return apply_fn.run(*map(np.asarray, operands))

        return jax.pure_callback(call, result, *operands, vmap_method="broadcast_all")

    from jax.experimental.buffer_callback import buffer_callback  # experimental: only who needs it depends on it

    # On a CPU `pure_callback` makes its operands JAX arrays, which needs a thread of the pool that runs the program: as
    # many devices as threads wait for each other for ever. This one reads and writes the program's own memory.
    def fill(context: Any, out: Any, *operands: Any) -> None:
        np.asarray(out)[...] = apply_fn.run(*map(np.asarray, operands))

    return buffer_callback(fill, result, vmap_method="broadcast_all")(*operands)
