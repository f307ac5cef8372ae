"""The CAKE step in eager PyTorch, written from the formulas. `benchmark.py` compares `cake_jax` with it.

The networks are those of `cake_jax.models`, with the same weights.
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax.traverse_util import flatten_dict, unflatten_dict
from torch import Tensor

from cake_jax.synthesis import SynthesisSettings
from cake_jax.synthesis.objective import objective as jax_objective
from cake_jax.teachers import Teacher

Tree = dict[str, Any]
Network = Callable[[Tree, Tensor], Tensor]


def convert(variables: Mapping[str, Any], device: str = "cpu") -> Tree:
    """Converts Flax variables to one tree of tensors in PyTorch's layout. It holds parameters and batch statistics."""
    flat = {**flatten_dict(variables["params"]), **flatten_dict(variables.get("batch_stats", {}))}

    def tensor(name: str, leaf: Any) -> Tensor:
        array = np.array(leaf)
        if name == "kernel":
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        return torch.from_numpy(np.ascontiguousarray(array)).to(device)

    return unflatten_dict({path: tensor(path[-1], leaf) for path, leaf in flat.items()})


def mlp(p: Tree, x: Tensor) -> Tensor:
    """`models.MLP`. x is `[B, 1, H, W]`. Returns logits, like all networks here."""
    x = x.flatten(1)
    for layer in range(len(p) - 1):
        x = F.relu(_dense(p[f"Dense_{layer}"], x))
    return _dense(p[f"Dense_{len(p) - 1}"], x)


def lenet5(p: Tree, x: Tensor) -> Tensor:
    """`models.LeNet5`. x is `[B, C, 28, 28]`."""
    x = F.pad(x, (2, 2, 2, 2))
    x = F.max_pool2d(F.relu(_conv(p["Conv_0"], x)), 2)
    x = F.max_pool2d(F.relu(_conv(p["Conv_1"], x)), 2)
    x = F.relu(_conv(p["Conv_2"], x)).flatten(1)
    return _dense(p["Dense_1"], F.relu(_dense(p["Dense_0"], x)))


def cnn(p: Tree, x: Tensor) -> Tensor:
    """`models.CNN`. x is `[B, C, 28, 28]`."""
    x = F.relu(_conv(p["Conv_0"], x))
    for layer in (1, 2, 3):
        x = F.max_pool2d(F.relu(_conv(p[f"Conv_{layer}"], x)), 2)
    return _dense(p["Dense_0"], x.flatten(1))


def resnet(p: Tree, x: Tensor) -> Tensor:
    """`models.ResNet` with basic blocks and the stem for small images, in evaluation mode. x is `[B, C, H, W]`."""
    x = F.relu(_norm(p["BatchNorm_0"], _conv(p["Conv_0"], x, padding=1)))
    for number in range(len(p) - 3):
        b = p[f"BasicBlock_{number}"]
        strides = 2 if "Conv_2" in b else 1
        y = F.relu(_norm(b["BatchNorm_0"], _conv(b["Conv_0"], x, strides, 1)))
        y = _norm(b["BatchNorm_1"], _conv(b["Conv_1"], y, padding=1))
        x = F.relu(y + (_norm(b["BatchNorm_2"], _conv(b["Conv_2"], x, 2)) if "Conv_2" in b else x))
    return _dense(p["Dense_0"], x.mean(dim=(2, 3)))


def wide_resnet(p: Tree, x: Tensor) -> Tensor:
    """`models.WideResNet`. x is `[B, C, H, W]`."""
    x = _conv(p["Conv_0"], x, padding=1)
    blocks = sum(name.startswith("PreActivationBlock") for name in p)
    for number in range(blocks):
        b = p[f"PreActivationBlock_{number}"]
        strides = 2 if number and number % (blocks // 3) == 0 else 1
        first, second = ("Conv_1", "Conv_2") if "Conv_2" in b else ("Conv_0", "Conv_1")
        y = F.relu(_norm(b["BatchNorm_0"], x))
        if "Conv_2" in b:
            x = _conv(b["Conv_0"], y, strides)
        x = x + _conv(b[second], F.relu(_norm(b["BatchNorm_1"], _conv(b[first], y, strides, 1))), padding=1)
    return _dense(p["Dense_0"], F.relu(_norm(p["BatchNorm_0"], x)).mean(dim=(2, 3)))


def small_vit(p: Tree, x: Tensor, patch: int = 4, heads: int = 4) -> Tensor:
    """`models.SmallViT`. x is `[B, C, H, W]`. H and W must be multiples of `patch`."""
    (batch, _, height, width), shift = x.shape, patch // 2
    padded = F.pad(x, (shift, shift, shift, shift))
    corners = [(0, 0), (0, 2 * shift), (2 * shift, 0), (2 * shift, 2 * shift)]
    x = torch.cat([x, *(padded[:, :, row : row + height, column : column + width] for row, column in corners)], dim=1)
    x = x.reshape(batch, -1, height // patch, patch, width // patch, patch).permute(0, 2, 4, 3, 5, 1)
    tokens = _dense(p["Dense_0"], _layer_norm(p["LayerNorm_0"], x.flatten(3).flatten(1, 2)))
    tokens = torch.cat([p["class_token"].expand(batch, 1, -1).to(tokens.dtype), tokens], dim=1) + p["position"]
    depth = sum(name.startswith("LocalityAttention") for name in p)
    for block in range(depth):
        a = p[f"LocalityAttention_{block}"]
        y = _layer_norm(p[f"LayerNorm_{1 + 2 * block}"], tokens)
        query, key, value = _dense(a["Dense_0"], y).unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
        score = query @ key.transpose(-1, -2) * a["log_scale"].exp()
        itself = torch.eye(score.shape[-1], dtype=torch.bool, device=score.device)
        attention = score.masked_fill(itself, -torch.inf).softmax(dim=-1)
        tokens = tokens + _dense(a["Dense_1"], (attention @ value).transpose(1, 2).flatten(2))
        y = _layer_norm(p[f"LayerNorm_{2 + 2 * block}"], tokens)
        tokens = tokens + _dense(p[f"Dense_{2 + 2 * block}"], F.gelu(_dense(p[f"Dense_{1 + 2 * block}"], y)))
    return _dense(p[f"Dense_{1 + 2 * depth}"], _layer_norm(p[f"LayerNorm_{1 + 2 * depth}"], tokens[:, 0]))


NETWORKS: dict[str, Network] = {
    "mlp": mlp,
    "lenet5": lenet5,
    "lenet5_half": lenet5,
    "wrn_16_1": wide_resnet,
    "cnn": cnn,
    "resnet18": resnet,
    "resnet34": resnet,
    "vit_small": small_vit,
}


def objective(logits: Tensor, x: Tensor, target: Tensor, settings: SynthesisSettings) -> Tensor:
    """The loss L of a mini-batch, set by set: logits `[N, K]`, images x `[N, C, H, W]`, target classes `[N]`."""
    weights, groups = settings.weights, settings.num_groups
    logits = logits.float()
    sets = logits.reshape(-1, groups, logits.shape[-1])
    classification = groups * F.cross_entropy(logits, target)
    contrastive = groups * (sets - sets.mean(1, keepdim=True)).square().mean(-1).sum(-1).mean()
    prior = x.diff(dim=2).abs().mean() + x.diff(dim=3).abs().mean()
    return weights.cls * classification + weights.contr * contrastive + weights.tv * prior


def gradient(
    network: Network, p: Tree, x: Tensor, target: Tensor, settings: SynthesisSettings, autocast: torch.dtype | None
) -> tuple[Tensor, Tensor]:
    """L, and its gradient with respect to x. The network computes in `autocast`, or in float32 if None."""
    x = x.detach().requires_grad_()
    with torch.autocast(x.device.type, autocast, enabled=autocast is not None):
        logits = network(p, x)
    loss = objective(logits, x, target, settings)
    return loss.detach(), torch.autograd.grad(loss, x)[0]


def steps(
    network: Network, p: Tree, x: Tensor, target: Tensor, settings: SynthesisSettings, autocast: torch.dtype | None
) -> Tensor:
    """x after `settings.num_steps` CAKE steps with a constant step size."""
    for _ in range(settings.num_steps):
        x = x - settings.step_size * gradient(network, p, x, target, settings, autocast)[1]
    return x


def tensors(x: Any, target: Any, device: str = "cpu") -> tuple[Tensor, Tensor]:
    """Converts sets `[S, G, H, W, C]` and target classes `[S, G]` to tensors `[N, C, H, W]` and `[N]`."""
    images = torch.from_numpy(np.array(x)).flatten(0, 1).permute(0, 3, 1, 2).contiguous()
    return images.to(device), torch.from_numpy(np.array(target, np.int64)).flatten().to(device)


def disagreement(
    name: str, teacher: Teacher, x: Any, target: Any, settings: SynthesisSettings, device: str = "cpu"
) -> dict[str, float]:
    """Relative differences between `cake_jax` and this module, of the `loss` L and of its `gradient`.

    The gradient's difference is the median over the samples. In a deep network with ReLUs, a few samples have a unit so
    close to its kink that rounding decides the gradient, in both implementations.

    Args:
      name: A name in `NETWORKS`.
      teacher: The network in JAX.
      x: Sets `[S, G, H, W, C]`.
      target: Target classes `[S, G]`.
      settings: The settings of the synthesis.
      device: PyTorch's device.
    """
    mask = jnp.ones(len(x), bool)
    ours = jax.jit(lambda x: jax.value_and_grad(jax_objective, has_aux=True)(x, teacher, target, mask, settings))
    (our_loss, _), our_gradient = ours(x)
    loss, theirs = gradient(
        NETWORKS[name], convert(teacher.variables, device), *tensors(x, target, device), settings, None
    )
    their_gradient = theirs.permute(0, 2, 3, 1).reshape(x.shape).cpu().numpy()
    ours_by_sample, theirs_by_sample = (
        np.reshape(g, (settings.batch_size, -1)) for g in (our_gradient, their_gradient)
    )
    error = np.linalg.norm(ours_by_sample - theirs_by_sample, axis=1) / np.linalg.norm(theirs_by_sample, axis=1)
    return {"loss": abs(float(our_loss) / float(loss) - 1), "gradient": float(np.median(error))}


def _conv(p: Tree, x: Tensor, stride: int = 1, padding: int = 0) -> Tensor:
    return F.conv2d(x, p["kernel"], p.get("bias"), stride=stride, padding=padding)


def _dense(p: Tree, x: Tensor) -> Tensor:
    return F.linear(x, p["kernel"], p.get("bias"))


def _norm(p: Tree, x: Tensor) -> Tensor:
    """A batch norm. It takes the statistics of the batch if its scale is being trained, and then updates its own."""
    return F.batch_norm(x, p["mean"], p["var"], p["scale"], p["bias"], p["scale"].requires_grad, eps=1e-5)


def _layer_norm(p: Tree, x: Tensor) -> Tensor:
    return F.layer_norm(x, x.shape[-1:], p["scale"], p["bias"], eps=1e-5)
