"""PyTorch networks with the names and shapes of torchvision's and timm's, and a short training for them."""

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, inputs, features, stride, bottleneck):
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

    def forward(self, x):
        shortcut = x if self.downsample is None else self.downsample(x)
        for number in range(1, self.layers + 1):
            x = getattr(self, f"bn{number}")(getattr(self, f"conv{number}")(x))
            x = torch.relu(x) if number < self.layers else x
        return torch.relu(x + shortcut)


class ResNet(nn.Module):
    def __init__(self, blocks, features, classes, bottleneck=False, imagenet_stem=False):
        super().__init__()
        stem = (7, 2, 3) if imagenet_stem else (3, 1, 1)
        self.conv1, self.bn1 = nn.Conv2d(3, features[0], *stem, bias=False), nn.BatchNorm2d(features[0])
        self.pool = nn.MaxPool2d(3, 2, 1) if imagenet_stem else nn.Identity()
        self.stages, inputs = len(blocks), features[0]
        for stage, (count, width) in enumerate(zip(blocks, features, strict=True)):
            layers = []
            for number in range(count):
                layers.append(Block(inputs, width, 2 if stage and not number else 1, bottleneck))
                inputs = 4 * width if bottleneck else width
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x):
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        for stage in range(self.stages):
            x = getattr(self, f"layer{stage + 1}")(x)
        return self.fc(x.mean((2, 3)))


class VGG(nn.Module):
    def __init__(self, layers, features, classes):
        super().__init__()
        parts, inputs = [], 3
        for count, width in zip(layers, features, strict=True):
            for _ in range(count):
                parts += [nn.Conv2d(inputs, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
                inputs = width
            parts.append(nn.MaxPool2d(2))
        self.features, self.pool = nn.Sequential(*parts), nn.AdaptiveAvgPool2d(7)
        dense = [nn.Linear(49 * inputs, 4096), nn.ReLU(), nn.Dropout(), nn.Linear(4096, 4096), nn.ReLU(), nn.Dropout()]
        self.classifier = nn.Sequential(*dense, nn.Linear(4096, classes))

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))


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
