"""Wide residual networks in PyTorch."""

import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
    """Batch norm, ReLU and a 3 x 3 convolution, all twice, and a shortcut.

    Args:
      inputs: Channels of the input.
      features: Channels of the output.
      stride: Stride of the first convolution and of the shortcut.
    """

    def __init__(self, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.conv1 = nn.BatchNorm2d(inputs), nn.Conv2d(inputs, features, 3, stride, 1, bias=False)
        self.bn2, self.conv2 = nn.BatchNorm2d(features), nn.Conv2d(features, features, 3, 1, 1, bias=False)
        self.convShortcut = nn.Conv2d(inputs, features, 1, stride, bias=False) if inputs != features else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, F, H / stride, W / stride]` of x `[B, C, H, W]`."""
        y = functional.relu(self.bn1(x))
        shortcut = x if self.convShortcut is None else self.convShortcut(y)
        return shortcut + self.conv2(functional.relu(self.bn2(self.conv1(y))))


class Stage(nn.Module):
    """Blocks of one width, of which the first changes the shape.

    Args:
      count: Number of blocks.
      inputs: Channels of the input.
      features: Channels of the output.
      stride: Stride of the first block.
    """

    def __init__(self, count: int, inputs: int, features: int, stride: int) -> None:
        super().__init__()
        first = Block(inputs, features, stride)
        self.layer = nn.Sequential(first, *(Block(features, features, 1) for _ in range(count - 1)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, F, H / stride, W / stride]` of x `[B, C, H, W]`."""
        return self.layer(x)


class WideResNet(nn.Module):
    """WRN-`depth`-`width`: three stages of blocks. The second and the third halve height and width.

    Args:
      channels: Channels of an image.
      depth: 6 n + 4 for n blocks in each stage.
      width: Factor of the stages' channels, which are 16, 32 and 64 at width 1.
      num_classes: Number of classes K.
    """

    def __init__(self, channels: int, depth: int, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, 1, 1, bias=False)
        self.block1 = Stage(depth // 6, 16, 16 * width, 1)
        self.block2 = Stage(depth // 6, 16 * width, 32 * width, 2)
        self.block3 = Stage(depth // 6, 32 * width, 64 * width, 2)
        self.bn1, self.fc = nn.BatchNorm2d(64 * width), nn.Linear(64 * width, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[B, K]` of images x `[B, C, H, W]`."""
        x = self.block3(self.block2(self.block1(self.conv1(x))))
        return self.fc(functional.relu(self.bn1(x)).mean((2, 3)))
