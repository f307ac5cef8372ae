"""Flax architectures, by the names that configs use.

Every module is called as `module(x, train=False)` with x `[B, *shape]` and returns logits `[B, K]`. A module may have a
method `class_loss`, its own loss for training on classes. See `svm.LinearSVM`.
"""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from cake_jax import checks
from cake_jax.models.cnn import CNN, AdaptivePoolCNN
from cake_jax.models.ideal_networks import AlexNet, IdealCNN, IdealLeNet, IdealMLP
from cake_jax.models.lenet import LeNet5
from cake_jax.models.linear import LogisticRegression
from cake_jax.models.mlp import MLP
from cake_jax.models.mobilenet import MobileNetV2
from cake_jax.models.resnet import ResNet
from cake_jax.models.shufflenet import ShuffleNetV2
from cake_jax.models.svm import RBFSVM, LinearSVM, PolynomialSVM
from cake_jax.models.vgg import VGG
from cake_jax.models.vit import SmallViT, ViT
from cake_jax.models.wide_resnet import WideResNet
from cake_jax.types import CakeError, DataSpec

# An architecture is one file and one line here: its module, and the fields that differ from the module's defaults.
MODELS: dict[str, tuple[Callable[..., nn.Module], dict[str, Any]]] = {
    "mlp": (MLP, {}),
    "lenet5": (LeNet5, {}),
    "lenet5_half": (LeNet5, {"features": (3, 8, 60, 42)}),
    "cnn": (CNN, {}),
    "cnn_tiny": (CNN, {"features": (8, 16, 16, 16)}),
    "cnn_big": (CNN, {"features": (64, 128, 256, 128)}),
    "cnn_adaptive_pool": (AdaptivePoolCNN, {}),
    "resnet4": (ResNet, {"blocks": (1, 1, 1, 1), "features": (32, 64, 128, 64), "imagenet_stem": True}),
    "resnet_tiny": (ResNet, {"blocks": (1, 1, 1), "features": (32, 64, 128), "stem_strides": 2}),
    "resnet_small": (ResNet, {"blocks": (2, 2, 2), "features": (32, 64, 128), "stem_strides": 2}),
    **{f"resnet{6 * n + 2}": (ResNet, {"blocks": (n, n, n), "features": (16, 32, 64)}) for n in (3, 5, 9, 18)},
    **{
        f"resnet{6 * n + 2}x4": (ResNet, {"blocks": (n, n, n), "features": (64, 128, 256), "stem_features": 32})
        for n in (1, 5)
    },
    "resnet18": (ResNet, {"blocks": (2, 2, 2, 2)}),
    "resnet34": (ResNet, {"blocks": (3, 4, 6, 3)}),
    "resnet50": (ResNet, {"blocks": (3, 4, 6, 3), "bottleneck": True}),
    "resnet101": (ResNet, {"blocks": (3, 4, 23, 3), "bottleneck": True}),
    "resnet152": (ResNet, {"blocks": (3, 8, 36, 3), "bottleneck": True}),
    "wrn_16_1": (WideResNet, {"depth": 16, "width": 1}),
    "wrn_16_2": (WideResNet, {"depth": 16, "width": 2}),
    "wrn_40_1": (WideResNet, {"depth": 40, "width": 1}),
    "wrn_40_2": (WideResNet, {"depth": 40, "width": 2}),
    "vgg8_bn": (VGG, {"layers": (1, 1, 1, 1, 1), "smallest": 4}),
    "vgg11_bn": (VGG, {"layers": (1, 1, 2, 2, 2)}),
    "vgg13_bn": (VGG, {"layers": (2, 2, 2, 2, 2), "smallest": 4}),
    "mobilenet_v2": (MobileNetV2, {}),
    "shufflenet_v2": (ShuffleNetV2, {}),
    "alexnet": (AlexNet, {}),
    "vit": (ViT, {}),
    "vit_small": (SmallViT, {}),
    "logistic_regression": (LogisticRegression, {}),
    "svm_linear": (LinearSVM, {}),
    "svm_poly": (PolynomialSVM, {}),
    "svm_rbf": (RBFSVM, {}),
    "ideal_lenet": (IdealLeNet, {}),
    "ideal_mlp": (IdealMLP, {}),
    "ideal_cnn": (IdealCNN, {}),
}

# Options that count layers. A description of a model by others may have any number, and a model of more layers is
# not built within minutes.
_COUNTS_OF_LAYERS = ("blocks", "depth", "layers", "num_hidden")
_MOST_LAYERS = 2_000


def create(name: str, spec: DataSpec, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Makes an architecture for a data specification.

    Args:
      name: A name in `MODELS`.
      spec: Specification of the inputs. It gives the number of classes.
      options: Fields of the module to change, for example `{"width": 20}` for `mlp`.

    Returns:
      A Linen module.

    Raises:
      CakeError: The name is unknown, the architecture does not have an option, or it would have too many layers.
    """
    checks.one_of("model.name", name, MODELS)
    checks.kind("model.options", options, Mapping | None, "a dict of fields")
    module, defaults = MODELS[name]
    # JSON and flags turn tuples into lists. A module with a list in a field cannot be hashed, and teachers must be.
    options = {field: tuple(value) if isinstance(value, list) else value for field, value in (options or {}).items()}
    names = [field for field in inspect.signature(module).parameters if field not in ("num_classes", "parent", "name")]
    for field in options:
        checks.one_of(f"model.options of {name}", field, names)
        _check_layers(f"model.options of {name}: {field}", field, options[field])
    return module(num_classes=spec.num_classes, **{**defaults, **options})


def _check_layers(name: str, field: str, value: Any) -> None:
    """Refuses an option for more layers than `_MOST_LAYERS`."""
    values = value if isinstance(value, tuple) else (value,)
    counted = [each for each in values if isinstance(each, int)] if field in _COUNTS_OF_LAYERS else []
    if max(len(values), sum(counted)) > _MOST_LAYERS:
        raise CakeError(f"{name}: more than {_MOST_LAYERS:,} layers")
