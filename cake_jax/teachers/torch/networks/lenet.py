"""LeNet-5 in PyTorch."""

import torch
from torch import nn
from torch.nn import functional


class LeNet5(nn.Module):
    """LeNet-5 with ReLU and max-pooling. Images smaller than 32 x 32 are padded to that size with zeros.

    Args:
      shape: Channels, height and width of an image.
      features: Channels of the three convolutions, and units of the first dense layer.
      num_classes: Number of classes K.
    """

    def __init__(self, shape: tuple[int, int, int], features: tuple[int, int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, *sides = shape
        first, second, third, dense = features
        height, width = (((max(side, 32) - 4) // 2 - 4) // 2 - 4 for side in sides)
        self.more = [max(32 - side, 0) for side in sides]
        self.conv1 = nn.Conv2d(channels, first, 5)
        self.conv2 = nn.Conv2d(first, second, 5)
        self.conv3 = nn.Conv2d(second, third, 5)
        self.fc1 = nn.Linear(third * height * width, dense)
        self.fc2 = nn.Linear(dense, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[B, K]` of images x `[B, C, H, W]`."""
        height, width = self.more
        x = functional.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        x = functional.relu(functional.max_pool2d(self.conv1(x), 2))
        x = functional.relu(functional.max_pool2d(self.conv2(x), 2))
        x = functional.relu(self.conv3(x))
        return self.fc2(functional.relu(self.fc1(x.flatten(1))))
