"""Makes a teacher from a live PyTorch module. JAX calls PyTorch for each forward and backward pass."""

import dataclasses
import functools
import threading
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from cake_jax.teachers.outputs import array_of, is_binary
from cake_jax.teachers.teacher import Teacher, checked, with_gradient
from cake_jax.types import CakeError, DataSpec, first_line

# Each JAX device calls from its own thread. A PyTorch call uses all cores, and a module may keep state.
_TORCH_LOCK = threading.Lock()


@dataclasses.dataclass(frozen=True)
class TorchApply:
    """The `apply_fn` of a `torch.nn.Module` in evaluation mode. It is equal only for the same module object.

    Attributes:
      module: The PyTorch module.
      spec: Specification of the inputs.
      outputs: What the module returns: see `teachers.from_function`.
    """

    module: Any
    spec: DataSpec
    outputs: str = "logits"

    def __call__(self, variables: Any, x: Array) -> Array:
        """Logits `[B, K]` float32 of x `[B, *shape]`."""
        return _logits(self, x.astype(jnp.float32))

    def run(self, x: np.ndarray, cotangent: np.ndarray | None = None) -> np.ndarray:
        """Runs the forward pass, or with a cotangent the backward pass.

        Args:
          x: Inputs `[..., *shape]`.
          cotangent: Cotangent of the logits, `[..., K]`. None computes the logits.

        Returns:
          Logits `[..., K]` float32, or the cotangent of x, `[..., *shape]` float32.

        Raises:
          CakeError: The module fails, or does not return logits `[B, K]`.
        """
        import torch

        name, rows = type(self.module).__name__, x.reshape(-1, *self.spec.shape)
        with _TORCH_LOCK, torch.set_grad_enabled(cotangent is not None):
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
            result = array_of(result)
            if is_binary(tuple(getattr(result, "shape", ())), self.spec.num_classes):
                result = result.reshape(-1, 1)
                other = 1 - result if self.outputs == "probabilities" else torch.zeros_like(result)
                result = torch.cat([other, result], dim=1)
            shape, wanted = tuple(getattr(result, "shape", ())), (len(rows), self.spec.num_classes)
            if shape != wanted:
                raise CakeError(f"teacher: {name} returns {shape} for {len(rows)} inputs, not the logits {wanted}")
            if cotangent is not None:
                weights = torch.from_numpy(np.array(cotangent)).reshape(wanted).to(result)
                try:
                    (result,) = torch.autograd.grad(result, inputs, weights)
                except RuntimeError as error:
                    raise CakeError(
                        f"teacher: {name} has no gradient with respect to its input, perhaps because it runs under "
                        f"no_grad; if it has none, make it a cake_jax.BlackBox: {first_line(error)}"
                    ) from error
            lead = x.shape[: x.ndim - len(self.spec.shape)]
            return result.detach().cpu().float().numpy().reshape(*lead, *result.shape[1:])


def from_torch(module: Any, spec: DataSpec, *, outputs: str = "logits") -> Teacher:
    """Returns a teacher from a live `torch.nn.Module`. It needs PyTorch.

    Use it for an architecture that this package does not have. Each call copies its inputs to PyTorch and waits. A
    gradient runs the forward pass again. Both are slower than the same network in JAX. The teacher has first
    derivatives with respect to x only, and cannot be saved with a run.

    Args:
      module: The PyTorch module. It takes images as `[B, C, H, W]` and other inputs as they are. It returns logits
        `[B, K]`. It stays on its device, is put into evaluation mode, and should not change afterwards.
      spec: Specification of the inputs. The teacher takes images as `[B, H, W, C]`.
      outputs: What the module returns: see `from_function`. Objects with `.logits` and tuples are taken too.

    Raises:
      CakeError: PyTorch is missing, the module fails on inputs of `spec`, its outputs are not finite, or not what
        `outputs` says, or its gradient with respect to x is missing, zero or not finite.
    """
    try:
        import torch
    except ImportError as error:
        raise CakeError("from_torch: needs PyTorch (pip install torch)") from error
    if not isinstance(module, torch.nn.Module):
        raise CakeError(f"from_torch: {type(module).__name__} is not a torch.nn.Module; load weights into one first")
    apply_fn = TorchApply(module, spec, outputs)
    # A failure inside JAX gives only a long trace, so that the first calls are made outside it.
    x = np.zeros((2, *spec.shape), np.float32)
    apply_fn.run(x)
    apply_fn.run(x, np.ones((2, spec.num_classes), np.float32))
    return with_gradient(checked(Teacher((), apply_fn, spec), outputs=outputs))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _logits(apply_fn: TorchApply, x: Array) -> Array:
    lead = x.shape[: x.ndim - len(apply_fn.spec.shape)]
    return _callback(apply_fn, (*lead, apply_fn.spec.num_classes), x)


def _forward(apply_fn: TorchApply, x: Array) -> tuple[Array, Array]:
    return _logits(apply_fn, x), x


def _backward(apply_fn: TorchApply, x: Array, cotangent: Array) -> tuple[Array]:
    return (_callback(apply_fn, x.shape, x, cotangent),)


_logits.defvjp(_forward, _backward)


def _callback(apply_fn: TorchApply, shape: tuple[int, ...], *operands: Array) -> Array:
    """Calls `TorchApply.run` inside a JAX program. `vmap` adds leading axes."""
    result = jax.ShapeDtypeStruct(shape, jnp.float32)
    if jax.default_backend() != "cpu":

        def call(*operands: Any) -> np.ndarray:
            return apply_fn.run(*map(np.asarray, operands))

        return jax.pure_callback(call, result, *operands, vmap_method="broadcast_all")

    from jax.experimental.buffer_callback import buffer_callback  # experimental, so imported only if needed

    # On a CPU `pure_callback` converts its operands to JAX arrays, which needs a thread of the pool that runs the
    # program. With as many devices as threads this is a deadlock. `buffer_callback` uses the program's own memory.
    def fill(context: Any, out: Any, *operands: Any) -> None:
        np.asarray(out)[...] = apply_fn.run(*map(np.asarray, operands))

    return buffer_callback(fill, result, vmap_method="broadcast_all")(*operands)
