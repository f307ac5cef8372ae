"""PyTorch code of models, and the names of plain networks' weights: PyTorch must answer as we do."""

import importlib.util
import itertools
import subprocess
import sys

import jax
import numpy as np
import pytest
from cake_errors import message_of

from cake_jax import export, models
from cake_jax.stores import checkpoint
from cake_jax.teachers import LinenApply, Teacher, from_function, from_torch_weights
from cake_jax.teachers.torch.code import NETWORK_OF
from cake_jax.types import DataSpec

torch = pytest.importorskip("torch")
COLOUR = DataSpec((32, 32, 3), 5, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4), low=0.0, high=1.0)
GREY, WIDE, VECTOR = DataSpec((28, 28, 1), 10), DataSpec((40, 36, 3), 4), DataSpec((7,), 3)
SMALL = {"blocks": (1, 1), "features": (4, 6)}

NETWORKS = [
    ("mlp", {}, VECTOR),
    ("mlp", {"batch_norm": True, "num_hidden": 1}, WIDE),
    ("logistic_regression", {}, WIDE),
    ("lenet5", {}, WIDE),
    ("lenet5_half", {}, GREY),
    ("cnn_tiny", {}, DataSpec((36, 30, 3), 4)),
    ("cnn_tiny", {}, GREY),
    ("cnn_adaptive_pool", {}, WIDE),
    ("resnet18", {**SMALL, "stem_strides": 2, "stem_features": 5}, COLOUR),
    ("resnet18", {**SMALL, "shortcut": "padding"}, COLOUR),
    ("resnet50", {**SMALL, "imagenet_stem": True}, COLOUR),
    ("wrn_16_2", {"depth": 10}, COLOUR),
    ("wrn_16_1", {}, GREY),
]


def make(name, options, spec):
    """A model whose logits are of the order of one and differ between inputs."""
    module, rng = models.create(name, spec, options), np.random.default_rng(0)
    shapes = jax.eval_shape(module.init, jax.random.key(0), np.zeros((1, *spec.shape), np.float32))

    def draw(path, leaf):
        if path[-1].key in ("var", "scale"):
            return rng.uniform(0.5, 2.0, leaf.shape).astype(np.float32)
        scale = np.sqrt(2 / np.prod(leaf.shape[:-1])) if path[-1].key == "kernel" else 0.1
        return np.asarray(scale * rng.normal(size=leaf.shape), np.float32)

    return Teacher(jax.tree_util.tree_map_with_path(draw, shapes), LinenApply(module), spec)


def loaded(path):
    """The module in a file of Python code."""
    spec = importlib.util.spec_from_file_location("exported", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def loaded_network(model, folder):
    weights = export.to_pytorch(model, folder / "student.py")
    return loaded(folder / "student.py").load(str(weights))


def answers(network, x):
    x = torch.from_numpy(x)
    with torch.no_grad():
        return network(x.permute(0, 3, 1, 2) if x.ndim == 4 else x).numpy()


@pytest.mark.parametrize(("name", "options", "spec"), NETWORKS)
def test_the_code_answers_as_the_model_does(name, options, spec, tmp_path):
    model = make(name, options, spec)
    network = loaded_network(model, tmp_path)
    assert not network.training
    x = np.random.default_rng(1).normal(size=(4, *spec.shape)).astype(np.float32)
    theirs, ours = answers(network, x), np.asarray(model(x))
    assert np.ptp(theirs, axis=0).max() > 0.01 * np.abs(theirs).max(), "different inputs have different logits"
    np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())
    assert sum(parameter.numel() for parameter in network.parameters()) == model.num_params


def test_all_networks_with_code_are_compared():
    assert {type(models.create(name, spec, options)) for name, options, spec in NETWORKS} == set(NETWORK_OF)


@pytest.mark.parametrize(("name", "options", "spec"), [NETWORKS[1], NETWORKS[4], NETWORKS[8]])
def test_weights_come_back_from_pytorch(name, options, spec, tmp_path):
    model = make(name, options, spec)
    network = loaded_network(model, tmp_path)
    again = from_torch_weights(network.state_dict(), name, spec, options)
    jax.tree.map(np.testing.assert_array_equal, again.variables, model.variables)


def test_pixels_are_normalised_channel_by_channel(tmp_path):
    model = make("mlp", {}, COLOUR)
    export.to_pytorch(model, tmp_path / "student.py")
    pixels = np.random.default_rng(0).uniform(size=(2, 32, 32, 3)).astype(np.float32)
    ours = (pixels - np.array(COLOUR.mean)) / np.array(COLOUR.std)
    theirs = loaded(tmp_path / "student.py").normalised(torch.from_numpy(pixels).permute(0, 3, 1, 2))
    np.testing.assert_allclose(theirs.permute(0, 2, 3, 1).numpy(), ours, atol=1e-5)


def test_the_code_runs_where_neither_this_package_nor_jax_is(tmp_path):
    model = make("lenet5_half", {}, GREY)
    export.to_pytorch(model, tmp_path / "student.py")
    np.save(tmp_path / "x.npy", np.zeros((1, 1, 28, 28), np.float32))
    program = (
        "import sys; sys.modules['cake_jax'] = sys.modules['jax'] = sys.modules['flax'] = None\n"
        "import numpy as np, torch, student\n"
        "print(student.load('student.safetensors')(torch.from_numpy(np.load('x.npy'))).tolist()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    expected = model(np.zeros((1, 28, 28, 1), np.float32))[0]
    np.testing.assert_allclose(eval(done.stdout), expected, rtol=1e-4, atol=1e-5)


# Networks that people write by hand: their names, and the function that makes the layers of given sizes.
def in_sequence(*sizes):
    layers = [(torch.nn.Linear(*pair), torch.nn.ReLU()) for pair in itertools.pairwise(sizes)]
    return torch.nn.Sequential(*itertools.chain(*layers))[:-1]


def flattened(*sizes):
    return torch.nn.Sequential(torch.nn.Flatten(), *in_sequence(*sizes))


class Attributes(torch.nn.Module):
    def __init__(self, *sizes):
        super().__init__()
        self.count = len(sizes) - 1
        for number, pair in enumerate(itertools.pairwise(sizes), 1):
            setattr(self, f"fc{number}", torch.nn.Linear(*pair))

    def forward(self, x):
        x = x.flatten(1)
        for number in range(1, self.count + 1):
            x = getattr(self, f"fc{number}")(x)
            x = torch.relu(x) if number < self.count else x
        return x


@pytest.mark.parametrize("make_network", [in_sequence, flattened, Attributes])
@pytest.mark.parametrize("spec", [VECTOR, WIDE])
def test_mlps_that_people_write_are_read(make_network, spec):
    torch.manual_seed(0)
    network = make_network(int(np.prod(spec.shape)), 6, 6, spec.num_classes)
    teacher = from_torch_weights(network.state_dict(), "mlp", spec, {"width": 6, "num_hidden": 1})
    x = np.random.default_rng(1).normal(size=(4, *spec.shape)).astype(np.float32)
    inputs = x if make_network is not in_sequence or x.ndim == 2 else x.transpose(0, 3, 1, 2).reshape(4, -1)
    theirs = network(torch.from_numpy(inputs)).detach().numpy() if inputs.ndim == 2 else answers(network, x)
    np.testing.assert_allclose(teacher(x), theirs, atol=1e-4 * np.abs(theirs).max())


def test_batch_norms_of_a_sequence_are_read():
    torch.manual_seed(0)
    network = torch.nn.Sequential(
        torch.nn.Linear(7, 6), torch.nn.BatchNorm1d(6), torch.nn.ReLU(), torch.nn.Linear(6, 3)
    )
    network(torch.randn(50, 7))  # moves the running statistics
    teacher = from_torch_weights(network.state_dict(), "mlp", VECTOR, {"width": 6, "num_hidden": 0, "batch_norm": True})
    x = np.random.default_rng(1).normal(size=(4, 7)).astype(np.float32)
    np.testing.assert_allclose(teacher(x), answers(network.eval(), x), atol=1e-5)


def test_a_network_without_code_is_refused(tmp_path):
    message = message_of(export.to_pytorch, make("vit", {"patch": 8, "dim": 6, "depth": 1, "heads": 2}, COLOUR), "s.py")
    assert "no PyTorch code for ViT" in message
    assert "MLP, LogisticRegression, LeNet5" in message
    message = message_of(export.to_pytorch, from_function(lambda x: x[:, :3], VECTOR), tmp_path / "s.py")
    assert "no PyTorch code for" in message
    assert not list(tmp_path.iterdir())


def test_the_command_writes_code_and_weights(tmp_path):
    checkpoint.save_model(tmp_path / "student", make("mlp", {}, VECTOR), "mlp", {})
    told = export.main(str(tmp_path / "student"), str(tmp_path / "net.py"))
    assert told == f"weights written to {tmp_path / 'net.safetensors'}, PyTorch code to {tmp_path / 'net.py'}"
    loaded(tmp_path / "net.py").load(str(tmp_path / "net.safetensors"))
