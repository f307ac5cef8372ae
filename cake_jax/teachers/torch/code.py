"""PyTorch code of a model, for programs that have neither this package nor JAX."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2

from cake_jax.models.cnn import CNN, AdaptivePoolCNN
from cake_jax.models.lenet import LeNet5
from cake_jax.models.linear import LogisticRegression
from cake_jax.models.mlp import MLP
from cake_jax.models.resnet import ResNet
from cake_jax.models.wide_resnet import WideResNet
from cake_jax.teachers.teacher import Teacher
from cake_jax.teachers.torch.plain import cnn_positions
from cake_jax.types import CakeError, DataSpec

NETWORKS = Path(__file__).parent / "networks"


def _mlp(module: MLP | LogisticRegression, spec: DataSpec) -> dict[str, Any]:
    widths = (module.width,) * (1 + module.num_hidden) if isinstance(module, MLP) else ()
    return {
        "sizes": (math.prod(spec.shape), *widths, spec.num_classes),
        "batch_norm": isinstance(module, MLP) and module.batch_norm,
    }


def _lenet(module: LeNet5, spec: DataSpec) -> dict[str, Any]:
    return {"shape": _channels_first(spec.shape), "features": module.features, "num_classes": spec.num_classes}


def _cnn(module: CNN | AdaptivePoolCNN, spec: DataSpec) -> dict[str, Any]:
    takes_mean = isinstance(module, AdaptivePoolCNN)
    return {
        "channels": spec.shape[-1],
        "features": module.features,
        "sizes": (3, 4, 3, 3)[: len(module.features)],
        "pools": (True, True, False) if takes_mean else (False, True, True, True),
        "positions": 1 if takes_mean else math.prod(cnn_positions(spec.shape)),
        "num_classes": spec.num_classes,
    }


def _resnet(module: ResNet, spec: DataSpec) -> dict[str, Any]:
    return {
        "channels": spec.shape[-1],
        "blocks": tuple(module.blocks),
        "features": tuple(module.features),
        "num_classes": spec.num_classes,
        "stem_features": module.stem_features or module.features[0],
        "stem_stride": 2 if module.imagenet_stem else module.stem_strides,
        "imagenet_stem": module.imagenet_stem,
        "bottleneck": module.bottleneck,
        "projection": module.shortcut == "projection",
    }


def _wide_resnet(module: WideResNet, spec: DataSpec) -> dict[str, Any]:
    return {
        "channels": spec.shape[-1],
        "depth": module.depth,
        "width": module.width,
        "num_classes": spec.num_classes,
    }


# By architecture: the file in `networks`, its class, and the function that gives the class's arguments.
NETWORK_OF: dict[type, tuple[str, str, Callable[[Any, DataSpec], dict[str, Any]]]] = {
    MLP: ("mlp", "MLP", _mlp),
    LogisticRegression: ("mlp", "MLP", _mlp),
    LeNet5: ("lenet", "LeNet5", _lenet),
    CNN: ("cnn", "CNN", _cnn),
    AdaptivePoolCNN: ("cnn", "CNN", _cnn),
    ResNet: ("resnet", "ResNet", _resnet),
    WideResNet: ("wide_resnet", "WideResNet", _wide_resnet),
}

_LOADER = jinja2.Template(
    '''

# One value for each channel, or one for all.
MEAN, STD = {{ mean }}, {{ std }}


def normalised(pixels: torch.Tensor) -> torch.Tensor:
    """The network's input `[B, {{ shape }}]` of pixels{{ domain }}."""
    {% if is_image %}
    mean, std = (torch.tensor(values, device=pixels.device).reshape(-1, 1, 1) for values in (MEAN, STD))
    {% else %}
    mean, std = (torch.tensor(values, device=pixels.device) for values in (MEAN, STD))
    {% endif %}
    return (pixels - mean) / std


def load(path: str) -> {{ kind }}:
    """The network of {{ num_params }} parameters with the weights of a safetensors file, for evaluation."""
    network = {{ kind }}(
        {% for name, value in arguments %}
        {{ name }}={{ value }},
        {% endfor %}
    )
    network.load_state_dict(load_file(path))
    return network.eval()
''',
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
)


def has_pytorch_code(model: Teacher) -> bool:
    """Whether `pytorch_code` knows the model's architecture."""
    return type(model.module) in NETWORK_OF


def pytorch_code(model: Teacher) -> str:
    """The source of a Python file with the model's architecture in PyTorch.

    The file imports PyTorch and safetensors alone. Its function `load(path)` makes the network with the weights that
    `export.to_safetensors` wrote, and `normalised` makes its input of pixels.

    Args:
      model: A teacher or student of an architecture in `NETWORK_OF`.

    Raises:
      CakeError: There is no PyTorch code for the architecture.
    """
    module = model.module
    if type(module) not in NETWORK_OF:
        known = ", ".join(kind.__name__ for kind in NETWORK_OF)
        raise CakeError(f"export: there is no PyTorch code for {type(module).__name__}, only for {known}")
    name, kind, arguments = NETWORK_OF[type(module)]
    spec = model.spec
    loader = _LOADER.render(
        kind=kind,
        arguments=[(field, repr(value)) for field, value in arguments(module, spec).items()],
        num_params=f"{model.num_params:,}",
        is_image=spec.is_image,
        shape=", ".join(map(str, _channels_first(spec.shape))),
        domain="" if spec.low is None or spec.high is None else f" from {spec.low:g} to {spec.high:g}",
        mean=spec.mean,
        std=spec.std,
    )
    network = (NETWORKS / f"{name}.py").read_text()
    first = "from torch import nn\n"
    return network.replace(first, f"from safetensors.torch import load_file\n{first}", 1) + loader


def _channels_first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[-1], *shape[:-1]) if len(shape) == 3 else shape
