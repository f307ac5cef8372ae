"""Plain convolutional networks in PyTorch."""

import torch
from torch import nn
from torch.nn import functional


class CNN(nn.Module):
    """Convolutions without padding, some with a 2 x 2 max-pool, and one dense layer.

    Args:
      channels: Channels of an image.
      features: Channels of the convolutions.
      sizes: Sides of their windows in pixels.
      pools: Whether a max-pool follows each of them.
      positions: Pixels of the last convolution that the dense layer sees. 1 for their mean.
      num_classes: Number of classes K.
    """

    def __init__(
        self,
        channels: int,
        features: tuple[int, ...],
        sizes: tuple[int, ...],
        pools: tuple[bool, ...],
        positions: int,
        num_classes: int,
    ) -> None:
        super().__init__()
        inputs = (channels, *features[:-1])
        for number, (before, after, size) in enumerate(zip(inputs, features, sizes, strict=True), 1):
            setattr(self, f"conv{number}", nn.Conv2d(before, after, size))
        self.pools, self.positions = pools, positions
        self.fc = nn.Linear(features[-1] * positions, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[B, K]` of images x `[B, C, H, W]`."""
        for number, pool in enumerate(self.pools, 1):
            x = functional.relu(getattr(self, f"conv{number}")(x))
            x = functional.max_pool2d(x, 2) if pool else x
        return self.fc(x.mean((2, 3)) if self.positions == 1 else x.flatten(1))
