"""Converts PyTorch weights to our architectures, and our weights to PyTorch."""

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from cake_jax import checks, models
from cake_jax.models import modes
from cake_jax.teachers.outputs import Divided
from cake_jax.teachers.teacher import Teacher, from_linen
from cake_jax.teachers.torch import weight_files
from cake_jax.teachers.torch.naming import Name, leaves_by_path, names, other_options
from cake_jax.types import CakeError, DataSpec, first_line


def from_torch_weights(
    weights: str | Path | Mapping[str, Any], name: str, spec: DataSpec, options: Mapping[str, Any] | None = None
) -> Teacher:
    """Returns a teacher of one of our architectures with weights from PyTorch.

    ResNets, VGG with batch norm, MobileNetV2, ShuffleNetV2 and the standard ViT accept the names of torchvision, timm
    and common repositories (`naming.NAMINGS`). Every architecture accepts the names that `cake_jax.export` writes. The
    weights may lie in a checkpoint, and a prefix may precede the names. `options` must hold all options of the trained
    network that the tensors do not show, such as the `heads` of a ViT. A `spec` with another normalisation than in
    training gives wrong logits.

    Args:
      weights: A safetensors file, a `state_dict` in a file that `torch.save` wrote, or a `state_dict`.
      name: Name of the architecture in `models.MODELS`.
      spec: Specification of the inputs, with the mean and standard deviation of the training.
      options: Options of the architecture: `{"imagenet_stem": True}` for torchvision's ResNets, `{"large_head": True}`
        for its VGG-11 and VGG-13, `{"smallest": 1}` for pytorch-cifar's VGG-13.

    Returns:
      The teacher. It takes images as `[B, H, W, C]`.

    Raises:
      CakeError: The file cannot be read, or a tensor is missing, unexpected or of another shape.
    """
    checks.kind("spec", spec, DataSpec, "a DataSpec")
    checks.kind("weights", weights, str | Path | Mapping, "a file or a state_dict")
    module = models.create(name, spec, options)
    shapes = _shapes(module, spec)
    source = "weights" if isinstance(weights, Mapping) else str(weights)
    tensors = weight_files.read(weights)
    try:
        variables = _variables(tensors, module, name, shapes, spec)
    except CakeError as error:
        raise CakeError(f"{source}: {_fitting_options(tensors, module, name, spec) or error}") from None
    return from_linen(module, variables, spec)


def to_torch_tensors(model: Teacher, naming: str | None = None) -> tuple[str, dict[str, np.ndarray]]:
    """Returns the weights of a model in PyTorch's names and layouts.

    Args:
      model: A teacher or student with variables.
      naming: One of the architecture's in `naming.NAMINGS`, such as `torchvision`, or `flax`. None takes the first.

    Returns:
      The naming, and a dict from names to tensors that `load_state_dict` accepts.

    Raises:
      CakeError: The model has no variables or has a temperature, or the architecture does not have the naming.
    """
    if not jax.tree.leaves(model.variables):
        raise CakeError("export: the model is a function and has no weights")
    if isinstance(model.apply_fn, Divided):
        raise CakeError("export: weights cannot hold a temperature; export the teacher without it")
    module = model.module
    tables = names(module, model.variables, model.spec.shape)
    naming = naming or next(iter(tables))
    if naming not in tables:
        raise CakeError(f"export: {type(module).__name__} has no naming '{naming}', only {', '.join(tables)}")
    leaves = leaves_by_path(model.variables)
    return naming, {entry.torch: entry.layout.to_torch(np.asarray(leaves[entry.path])) for entry in tables[naming]}


def _variables(tensors: Mapping[str, np.ndarray], module: Any, name: str, shapes: Any, spec: DataSpec) -> Any:
    """The module's variables, whose `shapes` are known, from PyTorch's tensors.

    Raises:
      CakeError: The tensors do not fit. The message lacks their source.
    """
    naming, table, tensors = _nearest(tensors, names(module, shapes, spec.shape))
    expected, leaves = flatten_dict(shapes), {}
    missing = [entry.torch for entry in table if entry.torch not in tensors]
    surplus = [tensor for tensor in tensors if tensor not in {entry.torch for entry in table}]
    if len(missing) > 1:
        raise CakeError(
            f"these are not the weights of {name} with these options; of its nearest layout, {naming}, "
            f"{len(missing)} of {len(table)} names are missing ({_first(missing)}), and the file has "
            f"{f'{len(surplus)} others ({_first(surplus)})' if surplus else 'no others'}; any PyTorch network is a "
            "teacher in Python, by cake_jax.teachers.from_torch"
        )
    if missing:
        raise CakeError(f"{missing[0]} is missing; check that the network is {name} with these options")
    for path, tensor, layout in table:
        wanted, found = layout.to_torch(np.empty(expected[path].shape)).shape, tensors[tensor].shape
        if found != wanted:
            raise CakeError(f"{tensor} has shape {found}, but {name} with these options has {wanted}")
        leaves[path] = np.ascontiguousarray(layout.from_torch(tensors[tensor]))
    if surplus:
        raise CakeError(f"{surplus[0]} {tensors[surplus[0]].shape} is not in {name} with these options")
    return unflatten_dict(leaves)


def _fitting_options(tensors: Mapping[str, np.ndarray], module: Any, name: str, spec: DataSpec) -> str:
    """The message that names other options with which the tensors fit. Empty if there are none."""
    for options in other_options(module):
        try:
            other = module.clone(**options)
            _variables(tensors, other, name, _shapes(other, spec), spec)
        except CakeError:
            continue
        changes = " and ".join(f"{field} to {value}" for field, value in options.items())
        return f"the tensors fit {name} with other options; set the model's option {changes}"
    return ""


def _nearest(
    tensors: Mapping[str, np.ndarray], tables: Mapping[str, list[Name]]
) -> tuple[str, list[Name], dict[str, np.ndarray]]:
    """The naming and the table of which most names occur, and the tensors without a prefix before these names."""
    wanted = {naming: {entry.torch for entry in table} for naming, table in tables.items()}
    found = {naming: weight_files.without_prefix(tensors, ends) for naming, ends in wanted.items()}
    naming = max(tables, key=lambda naming: len(wanted[naming] & set(found[naming])))
    return naming, tables[naming], found[naming]


def _first(names: Iterable[str]) -> str:
    return ", ".join(itertools.islice(names, 3))


def _shapes(module: Any, spec: DataSpec) -> Any:
    """Shapes of the module's variables."""
    try:
        return modes.shapes(module, spec.shape)
    except CakeError:
        raise
    except Exception as error:
        raise CakeError(
            f"model: {type(module).__name__} does not take inputs of shape {spec.shape}: {first_line(error)}"
        ) from error
