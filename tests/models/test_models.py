"""Architectures: parameter counts, parts by hand and against PyTorch, and `create`."""

import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from random_variables import random, variable_shapes, variables_like

from cake_jax import models
from cake_jax.models import resnet, vgg, vit, wide_resnet
from cake_jax.types import CakeError, DataSpec

MNIST = DataSpec(shape=(28, 28, 1), num_classes=10)
CIFAR = DataSpec(shape=(32, 32, 3), num_classes=10)
GREY = DataSpec(shape=(32, 32, 1), num_classes=10)
IMAGENET = DataSpec(shape=(224, 224, 3), num_classes=1000)
POINTS = DataSpec(shape=(2,), num_classes=2)
TINY_VIT = {"patch": 2, "dim": 8, "depth": 2, "heads": 2, "mlp_dim": 12}


@pytest.mark.parametrize(
    ("name", "spec", "options", "count"),
    [
        ("mlp", POINTS, None, 942),
        ("mlp", POINTS, {"num_hidden": 0, "width": 7}, 2 * 7 + 7 + 7 * 2 + 2),
        ("lenet5", MNIST, None, 61_706),
        ("lenet5_half", MNIST, None, 15_738),
        ("lenet5", MNIST, {"features": (3, 8, 60, 42)}, 15_738),
        ("cnn", MNIST, {}, 107_658),
        ("cnn_tiny", MNIST, None, 6_954),
        ("cnn_big", MNIST, None, 723_338),
        ("cnn_adaptive_pool", MNIST, None, 70_730),
        ("cnn_adaptive_pool", GREY, None, 70_730),
        ("logistic_regression", MNIST, None, 7_850),
        ("resnet4", MNIST, None, 427_882),
        ("resnet4", CIFAR, None, 431_018),
        # Section 4.2 of the paper counts 0.27, 0.46, 0.85 and 1.7 million. Stem 432 + 32, head 650. With n = 3, the
        # first stage has 14,016, the second 13,824 + 128 + 4 * 9,280, the third 55,296 + 256 + 4 * 36,992.
        ("resnet20", CIFAR, {"shortcut": "padding"}, 464 + 650 + 14_016 + 51_072 + 203_520),
        ("resnet20", CIFAR, {"shortcut": "padding"}, 269_722),
        ("resnet32", CIFAR, {"shortcut": "padding"}, 464_154),
        ("resnet56", CIFAR, {"shortcut": "padding"}, 853_018),
        ("resnet110", CIFAR, {"shortcut": "padding"}, 1_727_962),
        # The two projections have 16 * 32 + 64 and 32 * 64 + 128 parameters.
        ("resnet20", CIFAR, None, 269_722 + 576 + 2_176),
        ("resnet56", CIFAR, None, 853_018 + 576 + 2_176),
        ("resnet8x4", CIFAR, None, 1_210_410),
        ("resnet32x4", CIFAR, None, 7_410_730),
        ("resnet18", CIFAR, None, 11_173_962),
        ("resnet34", CIFAR, None, 21_282_122),
        ("resnet50", CIFAR, None, 23_520_842),
        ("resnet101", CIFAR, None, 42_512_970),
        ("resnet152", CIFAR, None, 58_156_618),
        # Stem 928, stages 18,560 + 57,728 + 230,144, dense layer 1,290. The second blocks have 387,968 together.
        ("resnet_tiny", CIFAR, None, 308_650),
        ("resnet_small", CIFAR, None, 308_650 + 387_968),
        ("resnet18", IMAGENET, {"imagenet_stem": True}, 11_689_512),
        ("resnet34", IMAGENET, {"imagenet_stem": True}, 21_797_672),
        ("resnet50", IMAGENET, {"imagenet_stem": True}, 25_557_032),
        ("resnet101", IMAGENET, {"imagenet_stem": True}, 44_549_160),
        ("resnet152", IMAGENET, {"imagenet_stem": True}, 60_192_808),
        # A block from c to f channels has 2 c + 9 c f + 2 f + 9 f^2 parameters, and c f more if c differs from f.
        # Width 1: 16 to 16 channels 4,672; 16 to 32 14,432; 32 to 32 18,560; 32 to 64 57,536; 64 to 64 73,984.
        # The stem has 9 * 3 * 16 = 432, the last norm 128, the head 650.
        ("wrn_16_1", CIFAR, None, 432 + 2 * 4_672 + 14_432 + 18_560 + 57_536 + 73_984 + 128 + 650),
        ("wrn_16_1", CIFAR, None, 175_066),
        ("wrn_40_1", CIFAR, None, 432 + 6 * 4_672 + 14_432 + 5 * 18_560 + 57_536 + 5 * 73_984 + 128 + 650),
        ("wrn_40_1", CIFAR, None, 563_930),
        # Width 2: 16 to 32 channels 14,432; 32 to 32 18,560; 32 to 64 57,536; 64 to 64 73,984; 64 to 128 229,760;
        # 128 to 128 295,424. The last norm has 256, the head 1,290.
        ("wrn_16_2", CIFAR, None, 432 + 14_432 + 18_560 + 57_536 + 73_984 + 229_760 + 295_424 + 256 + 1_290),
        ("wrn_16_2", CIFAR, None, 691_674),
        ("wrn_40_2", CIFAR, None, 2_243_546),
        ("vgg8_bn", CIFAR, None, 3_918_858),
        ("vgg11_bn", IMAGENET, {"large_head": True}, 132_868_840),
        # The convolutions with batch norm have 9,225,984, the dense layer from 512 to 10 has 5,130.
        ("vgg11_bn", CIFAR, None, 9_225_984 + 5_130),
        ("vgg13_bn", IMAGENET, {"large_head": True}, 133_053_736),
        ("mobilenet_v2", IMAGENET, None, 3_504_872),
        ("shufflenet_v2", IMAGENET, None, 2_278_604),
        ("alexnet", MNIST, None, 2_163_210),
        ("ideal_lenet", MNIST, None, 29_034),
        ("ideal_mlp", MNIST, None, 468_874),
        ("ideal_cnn", CIFAR, None, 912_778),
        ("vit", IMAGENET, None, 5_717_416),
        ("vit", IMAGENET, {"dim": 384, "heads": 6, "mlp_dim": 1536}, 22_050_664),
        ("vit", IMAGENET, {"dim": 768, "heads": 12, "mlp_dim": 3072}, 86_567_656),
        ("vit_small", GREY, None, 110_381),
        ("svm_linear", MNIST, None, 7_850),
        ("svm_poly", MNIST, None, 3 * 7_840 + 10),
        ("svm_rbf", MNIST, None, 1_010),
    ],
)
def test_parameter_count(name, spec, options, count):
    shapes = variable_shapes(models.create(name, spec, options), spec.shape)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == count


@pytest.mark.parametrize("name", models.MODELS)
def test_output_shape(name):
    module = models.create(name, MNIST)
    shape = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, train=False)[0],
        jax.ShapeDtypeStruct((3, 28, 28, 1), jnp.float32),
    ).shape
    assert shape == (3, 10)


@pytest.mark.parametrize(("strides", "side"), [(1, 16), (2, 8)])
def test_the_stride_of_the_stem_divides_the_image(strides, side):
    module = models.create("resnet_tiny", CIFAR, {"stem_strides": strides})
    x = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
    features = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, capture_intermediates=True, mutable=True)[1], x
    )["intermediates"]
    assert features["Conv_0"]["__call__"][0].shape == (1, side, side, 32)
    assert features["BasicBlock_2"]["__call__"][0].shape == (1, side // 4, side // 4, 128)


def test_resnet_pads_strided_convolutions_on_both_sides():
    """On 4 pixels, windows are centred on the first and third, as in PyTorch. SAME padding would take the second."""
    module = models.create("resnet18", DataSpec((4, 4, 1), 2), {"blocks": (1, 1), "features": (1, 1)})
    variables = module.init(jax.random.key(0), jnp.zeros((1, 4, 4, 1)))
    block = {"params": variables["params"]["BasicBlock_1"], "batch_stats": variables["batch_stats"]["BasicBlock_1"]}
    centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    block["params"] = jax.tree.map(lambda leaf: centre if leaf.shape == centre.shape else leaf, block["params"])
    block["params"]["Conv_2"] = {"kernel": jnp.zeros((1, 1, 1, 1))}
    x = jnp.arange(16.0).reshape(1, 4, 4, 1)
    out = resnet.BasicBlock(1, strides=2).apply(block, x, lambda: nn.BatchNorm(use_running_average=True, epsilon=0.0))
    np.testing.assert_allclose(out[0, :, :, 0], [[0, 2], [8, 10]])


@pytest.mark.parametrize("train", [True, False])
def test_resnet_batch_norm_uses_the_batch_in_training_only(train):
    module = models.create("resnet18", DataSpec((8, 8, 3), 10), {"blocks": (1,), "features": (4,)})
    x = random(6, 8, 8, 3)
    variables = module.init(jax.random.key(0), x)
    alone, _ = module.apply(variables, x[:1], train=train, mutable=["batch_stats"])
    together, after = module.apply(variables, x, train=train, mutable=["batch_stats"])
    assert np.allclose(alone, together[:1], atol=1e-5) != train
    changed = [
        not np.array_equal(a, b)
        for a, b in zip(*map(jax.tree.leaves, (after["batch_stats"], variables["batch_stats"])), strict=True)
    ]
    assert all(changed) if train else not any(changed)


def test_vit_diagonal_shifts_move_zeros_in():
    x = jnp.arange(1.0, 10.0).reshape(1, 3, 3, 1)
    original, *shifted = np.moveaxis(np.asarray(vit.with_diagonal_shifts(x, 1))[0], -1, 0)
    np.testing.assert_array_equal(original, x[0, :, :, 0])
    np.testing.assert_array_equal(shifted[0], [[0, 0, 0], [0, 1, 2], [0, 4, 5]])
    np.testing.assert_array_equal(shifted[1], [[0, 0, 0], [2, 3, 0], [5, 6, 0]])
    np.testing.assert_array_equal(shifted[2], [[0, 4, 5], [0, 7, 8], [0, 0, 0]])
    np.testing.assert_array_equal(shifted[3], [[5, 6, 0], [8, 9, 0], [0, 0, 0]])


def test_vit_patches_are_whole_squares():
    x = random(2, 4, 6, 3)
    patches = np.asarray(vit.flat_patches(jnp.asarray(x), 2))
    assert patches.shape == (2, 6, 12)
    np.testing.assert_array_equal(patches[:, 4], x[:, 2:4, 2:4].reshape(2, 12))


def test_vit_attention_equals_a_loop_over_heads_and_tokens():
    module, x = vit.LocalityAttention(heads=2, head_dim=3), random(2, 4, 5)
    params = module.init(jax.random.key(0), x)["params"]
    scale = np.exp(params["log_scale"])
    np.testing.assert_allclose(scale, 3**-0.5, rtol=1e-6)
    query, key, value = np.split(x @ np.asarray(params["Dense_0"]["kernel"]), 3, axis=-1)
    expected = np.zeros((2, 4, 6))
    for image in range(2):
        for head in (slice(0, 3), slice(3, 6)):
            for token in range(4):
                others = [other for other in range(4) if other != token]
                weight = np.exp([scale * query[image, token, head] @ key[image, other, head] for other in others])
                expected[image, token, head] = weight / weight.sum() @ value[image, others, head]
    expected = expected @ np.asarray(params["Dense_1"]["kernel"]) + np.asarray(params["Dense_1"]["bias"])
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-4, atol=1e-5)


def test_vit_equals_pytorch():
    """The reference computes tokens by hand, and the blocks by PyTorch's own pre-norm layer. Weights are random."""
    torch = pytest.importorskip("torch")
    module, x = models.create("vit", DataSpec((4, 6, 3), 5), TINY_VIT), random(2, 4, 6, 3)
    variables = variables_like(variable_shapes(module, x.shape[1:]))
    params = jax.tree.map(torch.from_numpy, variables["params"])
    patches = [x[:, i : i + 2, j : j + 2].reshape(2, 12) for i in (0, 2) for j in (0, 2, 4)]
    tokens = torch.from_numpy(np.stack(patches, axis=1)) @ params["Dense_0"]["kernel"] + params["Dense_0"]["bias"]
    tokens = torch.cat([params["class_token"].expand(2, 1, 8), tokens], dim=1) + params["position"]

    def dense(p):
        return {"weight": p["kernel"].T, "bias": p["bias"]}

    def norm(p):
        return {"weight": p["scale"], "bias": p["bias"]}

    for number in range(2):
        ours = params[f"TransformerBlock_{number}"]
        block = torch.nn.TransformerEncoderLayer(
            8, 2, 12, dropout=0, activation="gelu", layer_norm_eps=1e-6, batch_first=True, norm_first=True
        )
        block.self_attn.load_state_dict(
            {
                "in_proj_weight": ours["qkv"]["kernel"].T,
                "in_proj_bias": ours["qkv"]["bias"],
                "out_proj.weight": ours["out"]["kernel"].T,
                "out_proj.bias": ours["out"]["bias"],
            }
        )
        block.linear1.load_state_dict(dense(ours["Dense_0"]))
        block.linear2.load_state_dict(dense(ours["Dense_1"]))
        block.norm1.load_state_dict(norm(ours["LayerNorm_0"]))
        block.norm2.load_state_dict(norm(ours["LayerNorm_1"]))
        tokens = block(tokens)
    last = params["LayerNorm_0"]
    read = torch.nn.functional.layer_norm(tokens[:, 0], (8,), last["scale"], last["bias"], eps=1e-6)
    expected = read @ params["Dense_1"]["kernel"] + params["Dense_1"]["bias"]
    logits = jax.jit(module.apply)(variables, x)
    np.testing.assert_allclose(logits, expected.detach().numpy(), rtol=2e-5, atol=2e-6)


def test_vit_reads_the_class_token_and_the_order_of_patches():
    """Without blocks, only the class token counts. With blocks, moved patches change the logits."""
    x = random(1, 4, 6, 3)
    swapped = np.concatenate([x[:, 2:], x[:, :2]], axis=1)
    for depth, same in ((0, True), (1, False)):
        module = models.create("vit", DataSpec((4, 6, 3), 5), {**TINY_VIT, "depth": depth})
        variables = variables_like(variable_shapes(module, x.shape[1:]))
        apply = jax.jit(module.apply)
        assert np.allclose(apply(variables, x), apply(variables, swapped), atol=1e-4) == same


def test_wide_resnet_block_is_pre_activated():
    """Kernels of 0 return the input itself, negative values too. If the width changes, the shortcut follows a ReLU."""
    x = jnp.array([-2.0, 3.0]).reshape(1, 1, 2, 1)

    def norm():
        return nn.BatchNorm(use_running_average=True, epsilon=0.0)

    shortcut = {"Conv_0": jnp.array([[[[1.0, -1.0]]]])}
    for features, kernels, expected in ((1, {}, [-2, 3]), (2, shortcut, [0, 0, 3, -3])):
        block = wide_resnet.PreActivationBlock(features)
        variables = block.init(jax.random.key(0), x, norm)
        params = {
            name: jax.tree.map(jnp.zeros_like, layer) if name.startswith("Conv") else layer
            for name, layer in variables["params"].items()
        }
        params |= {name: {"kernel": kernel} for name, kernel in kernels.items()}
        np.testing.assert_array_equal(block.apply({**variables, "params": params}, x, norm).ravel(), expected)


def test_wide_resnet_pads_strided_convolutions_on_both_sides():
    block, x = wide_resnet.PreActivationBlock(2, strides=2), jnp.arange(16.0).reshape(1, 4, 4, 1)

    def norm():
        return nn.BatchNorm(use_running_average=True, epsilon=0.0)

    variables = block.init(jax.random.key(0), x, norm)
    centre = jnp.zeros((3, 3, 1, 1)).at[1, 1].set(1.0)
    kernels = {"Conv_0": jnp.zeros((1, 1, 1, 2)), "Conv_1": centre * jnp.ones(2), "Conv_2": centre * jnp.eye(2)}
    params = {**variables["params"], **{name: {"kernel": kernel} for name, kernel in kernels.items()}}
    out = block.apply({**variables, "params": params}, x, norm)
    np.testing.assert_array_equal(out[0, :, :, 1], [[0, 2], [8, 10]])


def test_vgg_with_the_large_head_equals_pytorch():
    torch = pytest.importorskip("torch")
    options = {"layers": (1, 2), "features": (2, 3), "large_head": True}
    module, x = models.create("vgg11_bn", DataSpec((20, 12, 3), 4), options), random(2, 20, 12, 3)
    variables = variables_like(variable_shapes(module, x.shape[1:]))
    variables["batch_stats"] = jax.tree.map(np.abs, variables["batch_stats"])
    params, functional = jax.tree.map(torch.from_numpy, variables["params"]), torch.nn.functional
    y = torch.from_numpy(x).permute(0, 3, 1, 2)
    for number in range(3):
        kernel, bias = params[f"Conv_{number}"]["kernel"], params[f"Conv_{number}"]["bias"]
        y = functional.conv2d(y, kernel.permute(3, 2, 0, 1), bias, padding=1)
        stats, norm = variables["batch_stats"][f"BatchNorm_{number}"], params[f"BatchNorm_{number}"]
        mean, variance = (torch.from_numpy(stats[name]) for name in ("mean", "var"))
        y = functional.relu(functional.batch_norm(y, mean, variance, norm["scale"], norm["bias"], eps=1e-5))
        y = y if number == 1 else functional.max_pool2d(y, 2)
    # PyTorch flattens channel by channel, Flax pixel by pixel.
    y = functional.adaptive_avg_pool2d(y, 7).permute(0, 2, 3, 1).reshape(2, -1)
    for number in range(3):
        y = y @ params[f"Dense_{number}"]["kernel"] + params[f"Dense_{number}"]["bias"]
        y = functional.relu(y) if number < 2 else y
    np.testing.assert_allclose(jax.jit(module.apply)(variables, x), y, rtol=1e-4, atol=1e-5)


def test_vgg_adaptive_mean_overlaps_windows():
    x = jnp.arange(5.0).reshape(1, 5, 1, 1)
    np.testing.assert_allclose(vgg.adaptive_mean(x, 3)[0, :, 0, 0], [0.5, 2.0, 3.5], rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "size", "last"), [("vgg8_bn", 32, 4), ("vgg8_bn", 64, 4), ("vgg8_bn", 28, 7), ("vgg11_bn", 32, 2)]
)
def test_vgg_pools_while_enough_pixels_remain(name, size, last):
    module = models.create(name, DataSpec((size, size, 3), 10))
    _, state = jax.eval_shape(
        lambda x: module.init_with_output(jax.random.key(0), x, capture_intermediates=True),
        jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32),
    )
    *_, final = (state["intermediates"][conv] for conv in sorted(state["intermediates"]) if conv.startswith("Conv"))
    assert final["__call__"][0].shape == (1, last, last, 512)


def test_alexnet_has_relus_only_after_pools():
    """Two linear layers with their signs turned give the same result, unless a ReLU is between them."""
    module, x = models.create("alexnet", MNIST), random(2, 28, 28, 1)
    params = variables_like(variable_shapes(module, (28, 28, 1)))["params"]
    params = {name: {**layer, "bias": np.zeros_like(layer["bias"])} for name, layer in params.items()}
    apply, layers_in_order = jax.jit(module.apply), [*(f"Conv_{n}" for n in range(5)), "Dense_0", "Dense_1"]
    scores, same = apply({"params": params}, x), []
    for pair in itertools.pairwise(layers_in_order):
        turned = {name: {**params[name], "kernel": -params[name]["kernel"]} for name in pair}
        same.append(np.allclose(apply({"params": {**params, **turned}}, x), scores, rtol=1e-4, atol=1e-5))
    assert same == [False, False, True, True, False, True]


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3)])
def test_lenet_takes_other_image_sizes(shape):
    spec = DataSpec(shape=shape, num_classes=4)
    module = models.create("lenet5_half", spec)
    logits = jax.jit(module.apply)(variables_like(variable_shapes(module, shape)), random(2, *shape))
    assert logits.shape == (2, 4)
    assert np.isfinite(logits).all()
    assert np.abs(logits[0] - logits[1]).max() > 1e-4


def test_lenet_pads_small_images_with_zeros():
    module, small = models.create("lenet5_half", MNIST), 1 + random(1, 8, 8, 1)
    variables = variables_like(variable_shapes(module, (8, 8, 1)))
    padded = np.pad(small, ((0, 0), (12, 12), (12, 12), (0, 0)))
    assert padded.shape == (1, 32, 32, 1)
    apply = jax.jit(module.apply)
    np.testing.assert_allclose(apply(variables, small), apply(variables, padded), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "options", "fault"),
    [
        ("lenet6", None, "lenet6"),
        ("mlp", {"widht": 3}, "widht"),
        ("cnn", {"width": 3}, "width"),
        ("wrn_16_1", {"depth": 15}, "model.options.depth: 15"),
        ("wrn_16_1", {"depth": 4}, "model.options.depth: 4"),
        ("vit", {"heads": 5}, "model.options.dim: 192"),
    ],
)
def test_create_refuses(name, options, fault):
    with pytest.raises(CakeError, match=fault) as caught:
        models.create(name, MNIST, options)
    assert "\n" not in str(caught.value)


def test_create_makes_hashable_modules_from_lists():
    """JSON and flags turn tuples into lists."""
    module = models.create("lenet5", MNIST, {"features": [3, 8, 60, 42]})
    assert hash(module) == hash(models.create("lenet5_half", MNIST))


def test_create_makes_equal_modules():
    assert models.create("mlp", POINTS, {"width": 9}) == models.create("mlp", POINTS, {"width": 9})
    assert models.create("mlp", POINTS, {"width": 9}) != models.create("mlp", POINTS)
