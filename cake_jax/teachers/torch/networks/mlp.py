"""A multi-layer perceptron in PyTorch."""

import itertools

import torch
from torch import nn


class MLP(nn.Sequential):
    """Dense layers with ReLU between them, and on request batch norm before each ReLU.

    Args:
      sizes: Numbers of inputs, of units of each hidden layer, and of classes.
      batch_norm: Whether batch norm precedes each ReLU.
    """

    def __init__(self, sizes: tuple[int, ...], batch_norm: bool = False) -> None:
        layers: list[nn.Module] = []
        for before, after in itertools.pairwise(sizes[:-1]):
            layers += [nn.Linear(before, after), *([nn.BatchNorm1d(after)] if batch_norm else []), nn.ReLU()]
        super().__init__(*layers, nn.Linear(*sizes[-2:]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[B, K]` of x `[B, *shape]`."""
        return super().forward(x.flatten(1))
