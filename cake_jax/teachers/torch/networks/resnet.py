"""Residual networks in PyTorch."""

import torch
from torch import nn
from torch.nn import functional


class Padding(nn.Module):
    """Every second pixel, and further channels of zeros on both sides."""

    def __init__(self, more: int, stride: int) -> None:
        super().__init__()
        self.more, self.stride = more, stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, C + more, H / stride, W / stride]` of x `[B, C, H, W]`."""
        x = x[:, :, :: self.stride, :: self.stride]
        return functional.pad(x, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))


class Block(nn.Module):
    """Convolutions, each with batch norm, and a shortcut.

    Args:
      inputs: Channels of the input.
      features: Channels of the first convolution.
      stride: Stride of the block's first 3 x 3 convolution and of the shortcut.
      bottleneck: Whether there are convolutions of 1, 3 and 1 pixels, rather than two of 3.
      projection: Whether a shortcut that changes the shape has weights.
    """

    def __init__(self, inputs: int, features: int, stride: int, bottleneck: bool, projection: bool) -> None:
        super().__init__()
        outputs = 4 * features if bottleneck else features
        layers = [(inputs, features, 3, stride), (features, features, 3, 1)]
        if bottleneck:
            layers = [(inputs, features, 1, 1), (features, features, 3, stride), (features, outputs, 1, 1)]
        for number, (before, after, size, step) in enumerate(layers, 1):
            setattr(self, f"conv{number}", nn.Conv2d(before, after, size, step, size // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(after))
        self.count = len(layers)
        self.downsample: nn.Module = nn.Identity()
        if projection and (stride != 1 or inputs != outputs):
            convolution = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(convolution, nn.BatchNorm2d(outputs))
        elif stride != 1 or inputs != outputs:
            self.downsample = Padding(outputs - inputs, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """`[B, F, H / stride, W / stride]` of x `[B, C, H, W]`."""
        y = x
        for number in range(1, self.count + 1):
            y = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(y))
            y = functional.relu(y) if number < self.count else y
        return functional.relu(y + self.downsample(x))


class ResNet(nn.Module):
    """A residual network. The first block of every stage after the first halves height and width.

    Args:
      channels: Channels of an image.
      blocks: Number of blocks in each stage.
      features: Features of the blocks in each stage.
      num_classes: Number of classes K.
      stem_features: Channels of the stem.
      stem_stride: Stride of the stem.
      imagenet_stem: Whether the stem is a 7 x 7 convolution with a max-pool, rather than one 3 x 3 convolution.
      bottleneck: See `Block`.
      projection: See `Block`.
    """

    def __init__(
        self,
        channels: int,
        blocks: tuple[int, ...],
        features: tuple[int, ...],
        num_classes: int,
        stem_features: int,
        stem_stride: int,
        imagenet_stem: bool,
        bottleneck: bool,
        projection: bool,
    ) -> None:
        super().__init__()
        size = 7 if imagenet_stem else 3
        self.conv1 = nn.Conv2d(channels, stem_features, size, stem_stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(stem_features)
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        self.stages, inputs = len(blocks), stem_features
        for stage, (count, width) in enumerate(zip(blocks, features, strict=True), 1):
            layers = []
            for number in range(count):
                layers.append(Block(inputs, width, 1 if number or stage == 1 else 2, bottleneck, projection))
                inputs = 4 * width if bottleneck else width
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits `[B, K]` of images x `[B, C, H, W]`."""
        x = self.pool(functional.relu(self.bn1(self.conv1(x))))
        for stage in range(1, self.stages + 1):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(x.mean((2, 3)))
