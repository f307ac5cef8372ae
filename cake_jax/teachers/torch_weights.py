"""PyTorch weights, in torchvision's or timm's naming, into our architectures, and out again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cake_jax import models
from cake_jax.teachers import weight_files
from cake_jax.teachers.teacher import LinenApply, Teacher, from_linen
from cake_jax.teachers.torch_names import names
from cake_jax.types import CakeError, DataSpec, first_line


def from_torch_weights(
    weights: str | Path | Mapping[str, Any], name: str, spec: DataSpec, options: Mapping[str, Any] | None = None
) -> Teacher:
    """A teacher of one of our architectures with weights that PyTorch trained.

    ResNets, VGG with batch norm and the standard ViT take torchvision's and timm's names; any architecture takes the
    names that `cake_jax.export` gives it. What a file of weights does not tell has to be in `options` as it was
    trained, such as the `heads` of a ViT. A `spec` with another normalisation than in training gives wrong logits.

    Args:
      weights: A safetensors file, a file that `torch.save` wrote of a `state_dict`, or a `state_dict`.
      name: A name in `models.MODELS`.
      spec: The input domain; mean and deviation are those of the training.
      options: Of the architecture: `{"imagenet_stem": True}` for torchvision's ResNets, `{"large_head": True}` for its
        VGG-11.

    Returns:
      The teacher; x stays `[B, H, W, C]`.

    Raises:
      CakeError: The file cannot be read, or a tensor is missing, unexpected or of another shape.
    """
    module = models.create(name, spec, options)
    shapes = _shapes(module, spec)
    if isinstance(weights, Mapping):
        source, tensors = "weights", weight_files.plain(weights)
    else:
        source, tensors = str(weights), weight_files.read(weights)
    table = max(names(module, shapes).values(), key=lambda table: sum(entry.torch in tensors for entry in table))
    expected, leaves = flatten_dict(shapes), {}
    for path, tensor, layout in table:
        if tensor not in tensors:
            raise CakeError(f"{source}: {tensor} is missing; is it a {name}, with these options?")
        wanted, found = layout.to_torch(np.empty(expected[path].shape)).shape, tensors[tensor].shape
        if found != wanted:
            raise CakeError(f"{source}: {tensor} has shape {found}, but {name} with these options has {wanted}")
        leaves[path] = np.ascontiguousarray(layout.from_torch(tensors[tensor]))
    surplus = sorted(set(tensors) - {entry.torch for entry in table})
    if surplus:
        raise CakeError(f"{source}: {surplus[0]} {tensors[surplus[0]].shape} is in no {name} with these options")
    return from_linen(module, unflatten_dict(leaves), spec)


def to_torch_tensors(model: Teacher, naming: str | None = None) -> tuple[str, dict[str, np.ndarray]]:
    """The weights of a model as PyTorch names and lays them out.

    Args:
      model: A teacher or student with variables.
      naming: `torchvision`, `timm` or `flax`, as far as the architecture has it; None for its most common one.

    Returns:
      The naming, and the tensors by name. `load_state_dict` takes them as they are.

    Raises:
      CakeError: The model has no variables, or not this naming.
    """
    if not jax.tree.leaves(model.variables):
        raise CakeError("export: the model has no weights of its own, it is a function")
    module = model.apply_fn.module if isinstance(model.apply_fn, LinenApply) else None
    tables = names(module, model.variables)
    naming = naming or next(iter(tables))
    if naming not in tables:
        raise CakeError(f"export: {type(module).__name__} has no naming '{naming}', but {', '.join(tables)}")
    arrays = {
        tuple(jax.tree_util.keystr((key,), simple=True) for key in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(model.variables)
    }
    return naming, {entry.torch: entry.layout.to_torch(arrays[entry.path]) for entry in tables[naming]}


def _shapes(module: Any, spec: DataSpec) -> Any:
    """Of the variables."""
    try:
        return jax.eval_shape(module.init, jax.random.key(0), jax.ShapeDtypeStruct((1, *spec.shape), np.float32))
    except CakeError:
        raise
    except Exception as error:
        raise CakeError(
            f"model: {type(module).__name__} does not take inputs of shape {spec.shape}: {first_line(error)}"
        ) from error
