"""PyTorch networks with the names and shapes of torchvision's and timm's, and a short training for them."""

import re

import numpy as np
import torch
from torch import nn


class Padding(nn.Module):
    """Every second pixel, and channels of zeros on both sides."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.more = outputs - inputs

    def forward(self, x):
        return nn.functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.more // 2, self.more // 2))


class Block(nn.Module):
    def __init__(self, inputs, features, stride, bottleneck, padding=False):
        super().__init__()
        outputs = 4 * features if bottleneck else features
        sizes = [(inputs, features, 1, 1), (features, features, 3, stride), (features, outputs, 1, 1)]
        if not bottleneck:
            sizes = [(inputs, features, 3, stride), (features, features, 3, 1)]
        self.layers = len(sizes)
        for number, (before, after, width, step) in enumerate(sizes, 1):
            setattr(self, f"conv{number}", nn.Conv2d(before, after, width, step, width // 2, bias=False))
            setattr(self, f"bn{number}", nn.BatchNorm2d(after))
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))
            if padding:
                self.downsample = Padding(inputs, outputs)

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.layers + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = torch.relu(x) if number < self.layers else x
        return torch.relu(x + shortcut)


class ResNet(nn.Module):
    def __init__(self, blocks, features, classes, bottleneck=False, imagenet_stem=False, padding=False, channels=0):
        super().__init__()
        stem = (7, 2, 3) if imagenet_stem else (3, 1, 1)
        inputs = channels or features[0]
        self.conv1, self.bn1 = nn.Conv2d(3, inputs, *stem, bias=False), nn.BatchNorm2d(inputs)
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        self.stages = len(blocks)
        for stage, (count, width) in enumerate(zip(blocks, features, strict=True)):
            layers = []
            for number in range(count):
                layers.append(Block(inputs, width, 2 if stage and not number else 1, bottleneck, padding))
                inputs = 4 * width if bottleneck else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


def stage(inputs, width, count):
    channels = [(inputs if number == 0 else width, width) for number in range(count)]
    return [part for pair in channels for part in (nn.Conv2d(*pair, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU())]


class StagedVGG(nn.Module):
    """No pool follows the fourth stage, and the last one is a mean."""

    def __init__(self, layers, features, classes):
        super().__init__()
        widths = (3, *features)
        for number, count in enumerate(layers):
            setattr(self, f"block{number}", nn.Sequential(*stage(*widths[number : number + 2], count)))
        self.classifier = nn.Linear(features[-1], classes)

    def forward(self, x):
        for number in range(5):
            x = getattr(self, f"block{number}")(x)
            x = nn.functional.max_pool2d(x, 2) if number < 3 else x
        return self.classifier(x.mean((2, 3)))


class VGG(nn.Module):
    def __init__(self, layers, features, classes, large_head=True):
        super().__init__()
        parts, inputs = [], 3
        for count, width in zip(layers, features, strict=True):
            parts += [*stage(inputs, width, count), nn.MaxPool2d(2)]
            inputs = width
        self.features, self.pool = nn.Sequential(*parts), nn.AdaptiveAvgPool2d(7 if large_head else 1)
        if not large_head:
            self.classifier = nn.Linear(inputs, classes)
            return
        dense = [nn.Linear(49 * inputs, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
        self.classifier = nn.Sequential(*dense, nn.Linear(4096, classes))

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


def unit(inputs, outputs, size=1, stride=1, groups=1, act=nn.ReLU6):
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *([act()] if act else []))


class InvertedResidual(nn.Module):
    def __init__(self, inputs, outputs, expansion, stride):
        super().__init__()
        hidden, self.adds = expansion * inputs, stride == 1 and inputs == outputs
        parts = [unit(inputs, hidden)] if expansion > 1 else []
        parts += [unit(hidden, hidden, 3, stride, hidden), *unit(hidden, outputs, act=None)]
        self.conv = nn.Sequential(*parts)

    def forward(self, x):
        return x + self.conv(x) if self.adds else self.conv(x)


class MobileNetV2(nn.Module):
    def __init__(self, strides, blocks, classes):
        super().__init__()
        expansions, widths = (1, 6, 6, 6, 6, 6, 6), (16, 24, 32, 64, 96, 160, 320)
        parts, inputs = [unit(3, 32, 3, strides[0])], 32
        for expansion, width, count, stride in zip(expansions, widths, blocks, strides[1:], strict=True):
            for number in range(count):
                parts.append(InvertedResidual(inputs, width, expansion, 1 if number else stride))
                inputs = width
        self.features = nn.Sequential(*parts, unit(inputs, 1280))
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(1280, classes))

    def forward(self, x):
        return self.classifier(self.features(x).mean((2, 3)))


class ShuffleUnit(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        half, self.stride = outputs // 2, stride
        if stride > 1:
            depthwise = unit(inputs, inputs, 3, stride, inputs, act=None)
            self.branch1 = nn.Sequential(*depthwise, *unit(inputs, half, act=nn.ReLU))
        first = unit(inputs if stride > 1 else half, half, act=nn.ReLU)
        self.branch2 = nn.Sequential(
            *first, *unit(half, half, 3, stride, half, act=None), *unit(half, half, act=nn.ReLU)
        )

    def forward(self, x):
        first, second = (self.branch1(x), x) if self.stride > 1 else x.chunk(2, 1)
        x = torch.cat([first, self.branch2(second)], 1)
        return x.unflatten(1, (2, -1)).transpose(1, 2).flatten(1, 2)


class ShuffleNetV2(nn.Module):
    def __init__(self, features, blocks, classes, imagenet_stem=True):
        super().__init__()
        stem, *stages, last = features
        self.conv1 = unit(3, stem, 3, 2 if imagenet_stem else 1, act=nn.ReLU)
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        inputs = stem
        for stage, (width, count) in enumerate(zip(stages, blocks, strict=True), 2):
            units = [ShuffleUnit(width if number else inputs, width, 1 if number else 2) for number in range(count)]
            setattr(self, f"stage{stage}", nn.Sequential(*units))
            inputs = width
        self.conv5, self.fc = unit(inputs, last, act=nn.ReLU), nn.Linear(last, classes)

    def forward(self, x):
        x = self.stage4(self.stage3(self.stage2(self.pool(self.conv1(x)))))
        return self.fc(self.conv5(x).mean((2, 3)))


class TimmAttention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads, self.qkv, self.proj = heads, nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x):
        query, key, value = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        weights = (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1)
        return self.proj((weights @ value).transpose(1, 2).flatten(2))


class TimmBlock(nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.attn = TimmAttention(dim, heads)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(dim, hidden), "fc2": nn.Linear(hidden, dim)})

    def forward(self, x):
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](self.norm2(x))))


class TimmViT(nn.Module):
    def __init__(self, size, patch, dim, depth, heads, hidden, classes):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, dim))
        self.pos_embed = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, dim))
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, dim, patch, patch)})
        self.blocks = nn.Sequential(*(TimmBlock(dim, heads, hidden) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(dim, 1e-6), nn.Linear(dim, classes)

    def forward(self, x):
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])


class TorchvisionBlock(nn.Module):
    def __init__(self, dim, heads, hidden):
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(dim, 1e-6), nn.LayerNorm(dim, 1e-6)
        self.self_attention = nn.MultiheadAttention(dim, heads, batch_first=True)
        self.mlp = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Dropout(0), nn.Linear(hidden, dim))

    def forward(self, x):
        y = self.ln_1(x)
        x = x + self.self_attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class TorchvisionViT(nn.Module):
    def __init__(self, size, patch, dim, depth, heads, hidden, classes):
        super().__init__()
        self.class_token = nn.Parameter(torch.randn(1, 1, dim))
        self.conv_proj = nn.Conv2d(3, dim, patch, patch)
        self.encoder = nn.Module()
        self.encoder.pos_embedding = nn.Parameter(torch.randn(1, 1 + (size // patch) ** 2, dim))
        blocks = {f"encoder_layer_{number}": TorchvisionBlock(dim, heads, hidden) for number in range(depth)}
        self.encoder.layers, self.encoder.ln = nn.ModuleDict(blocks), nn.LayerNorm(dim, 1e-6)
        self.heads = nn.ModuleDict({"head": nn.Linear(dim, classes)})

    def forward(self, x):
        x = self.conv_proj(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_token.expand(len(x), -1, -1), x], 1) + self.encoder.pos_embedding
        for block in self.encoder.layers.values():
            x = block(x)
        return self.heads["head"](self.encoder.ln(x)[:, 0])


def train(network, size, classes, steps=3):
    """Trains a network for a few steps, and returns it in evaluation mode.

    The inputs are not normalised, so that the statistics of batch norm change. The initial weights are large enough for
    every layer to change the logits.
    """
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.bias, std=0.3)  # without ReLU between, the next batch norm's mean would stay 0
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), 1e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        x = 1.5 * torch.randn(4, 3, size, size, generator=generator) + 0.5
        loss = nn.functional.cross_entropy(network(x), torch.arange(4) % classes)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()


def logits(network, x):
    """Logits `[B, K]` of x `[B, H, W, C]`, as NumPy arrays."""
    with torch.no_grad():
        return network(torch.from_numpy(np.array(x)).permute(0, 3, 1, 2)).numpy()


def input_gradient(network, x, cotangent):
    """Gradient of the logits weighted by `cotangent` with respect to x `[B, H, W, C]`."""
    x = torch.from_numpy(np.array(x)).requires_grad_()
    (network(x.permute(0, 3, 1, 2)) * torch.from_numpy(np.array(cotangent))).sum().backward()
    return x.grad.numpy()


def trained(build):
    """A trained network for 32 x 32 images of 10 classes, the same in each call."""
    torch.manual_seed(0)
    return train(build(), 32, 10)


def assert_same_logits(ours, theirs):
    assert np.ptp(theirs, axis=0).max() > 0.01 * np.abs(theirs).max(), "different inputs have different logits"
    assert np.abs(np.asarray(ours) - theirs).max() <= 1e-4 * np.abs(theirs).max()


# By repository: how its names differ from those of torchvision, as regular expressions and their replacements.
LAYOUTS = {
    "RepDistiller": [],
    "pytorch-cifar": [("downsample", "shortcut"), (r"^fc", "linear")],
    "pytorch_resnet_cifar10": [(r"^fc", "linear")],
    "pytorch-cifar100": [
        (r"^conv1", "conv1.0"),
        (r"^bn1", "conv1.1"),
        (r"layer(\d)\.(\d)\.conv1", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.residual_function.0"),
        (r"layer(\d)\.(\d)\.bn1", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.residual_function.1"),
        (r"layer(\d)\.(\d)\.conv2", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.residual_function.3"),
        (r"layer(\d)\.(\d)\.bn2", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.residual_function.4"),
        (r"layer(\d)\.(\d)\.downsample", lambda found: f"conv{int(found[1]) + 1}_x.{found[2]}.shortcut"),
    ],
}


def renamed(state, layout):
    """A `state_dict` with the names of a repository in `LAYOUTS`."""
    for old, new in LAYOUTS[layout]:
        state = {re.sub(old, new, name): tensor for name, tensor in state.items()}
    return state
