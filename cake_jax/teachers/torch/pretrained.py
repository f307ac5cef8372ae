"""Makes teachers from published networks of torchvision, timm or the Hugging Face hub."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from cake_jax.files import read_json
from cake_jax.teachers.teacher import Teacher
from cake_jax.teachers.torch.live import from_torch
from cake_jax.teachers.torch.weights import from_torch_weights
from cake_jax.types import CakeError, DataSpec, first_line


def _vit(patch: int, dim: int, depth: int) -> tuple[str, dict[str, Any]]:
    return "vit", {"patch": patch, "dim": dim, "depth": depth, "heads": dim // 64, "mlp_dim": 4 * dim}


# From the name of an architecture in torchvision or timm to our name and options.
ARCHITECTURES: dict[str, tuple[str, dict[str, Any]]] = {
    **{f"resnet{depth}": (f"resnet{depth}", {"imagenet_stem": True}) for depth in (18, 34, 50, 101, 152)},
    **{f"vgg{depth}_bn": (f"vgg{depth}_bn", {"large_head": True}) for depth in (11, 13)},
    "mobilenet_v2": ("mobilenet_v2", {}),
    "shufflenet_v2_x1_0": ("shufflenet_v2", {}),
    "vit_tiny_patch16_224": _vit(16, 192, 12),
    "vit_tiny_patch16_384": _vit(16, 192, 12),
    "vit_small_patch16_224": _vit(16, 384, 12),
    "vit_small_patch16_384": _vit(16, 384, 12),
    "vit_small_patch32_224": _vit(32, 384, 12),
    "vit_base_patch16_224": _vit(16, 768, 12),
    "vit_base_patch16_384": _vit(16, 768, 12),
    "vit_base_patch32_224": _vit(32, 768, 12),
    "vit_large_patch16_224": _vit(16, 1024, 24),
    "deit_tiny_patch16_224": _vit(16, 192, 12),
    "deit_small_patch16_224": _vit(16, 384, 12),
    "deit_base_patch16_224": _vit(16, 768, 12),
    "vit_b_16": _vit(16, 768, 12),
    "vit_b_32": _vit(32, 768, 12),
    "vit_l_16": _vit(16, 1024, 24),
    "vit_l_32": _vit(32, 1024, 24),
}


def from_name(name: str, spec: DataSpec, *, pretrained: bool = True) -> Teacher:
    """Returns a teacher from a network of torchvision or timm. It needs that package.

    A network in `ARCHITECTURES` is converted to JAX. Any other network runs live in PyTorch (`from_torch`), which is
    slower.

    Args:
      name: Package and name, such as `torchvision/resnet18` or `timm/vit_tiny_patch16_224.augreg_in21k_ft_in1k`.
      spec: Specification of the inputs. Its classes, mean and standard deviation must be those of the weights'
        training.
      pretrained: Whether the package downloads its weights. If not, the weights are random and the network has
        `spec.num_classes` classes.

    Raises:
      CakeError: The package is missing or does not know the name, or the weights cannot be downloaded or do not fit
        `spec`.
    """
    package, _, architecture = name.partition("/")
    if package not in ("torchvision", "timm") or not architecture:
        raise CakeError(f"from_name: '{name}' is neither torchvision/<name> nor timm/<name>")
    library = _import(package, "from_name")
    options: dict[str, Any] = {} if pretrained else {"num_classes": spec.num_classes}
    try:
        if package == "torchvision":
            weights = "DEFAULT" if pretrained else None
            module = library.models.get_model(architecture, weights=weights, **options)
        else:
            module = library.create_model(architecture, pretrained=pretrained, **options)
    except Exception as error:
        raise CakeError(f"from_name: {package} cannot make {architecture}: {first_line(error)}") from error
    ours = ARCHITECTURES.get(architecture.partition(".")[0])
    if ours is None:
        return from_torch(module, spec)
    return from_torch_weights(module.state_dict(), ours[0], spec, ours[1])


def from_hub(repository: str, spec: DataSpec) -> Teacher:
    """Returns a teacher from a network of timm on the Hugging Face hub.

    It needs the package `huggingface_hub`, and neither timm nor PyTorch.

    Args:
      repository: Repository on the hub, such as `timm/resnet18.a1_in1k`. Its architecture must be in `ARCHITECTURES`.
      spec: Specification of the inputs. Its classes, mean and standard deviation must be those of the weights'
        training.

    Raises:
      CakeError: The package is missing, the hub cannot be reached, the architecture is not in `ARCHITECTURES`, or the
        weights do not fit `spec`.
    """
    hub = _import("huggingface_hub", "from_hub")
    try:
        config, weights = (Path(hub.hf_hub_download(repository, name)) for name in ("config.json", "model.safetensors"))
        architecture = str(read_json(config)["architecture"])
    except Exception as error:
        raise CakeError(f"from_hub: cannot get {repository}: {first_line(error)}") from error
    if architecture not in ARCHITECTURES:
        raise CakeError(f"from_hub: {repository} is a {architecture}, which cake_jax does not have; use from_name")
    ours, options = ARCHITECTURES[architecture]
    return from_torch_weights(weights, ours, spec, options)


def _import(package: str, caller: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except Exception as error:  # a package built for another PyTorch may raise any error
        raise CakeError(f"{caller}: needs {package} (pip install {package}): {first_line(error)}") from error
