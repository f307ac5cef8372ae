"""Recipes: groups of fields that several config files share."""

import operator
from typing import Any

from cake_jax.config import default

# A student of image teachers that asks: half of its inputs are new strokes, and half of all are mixed.
ASKING = {
    "student.optimizer": "adam",
    "student.learning_rate": 5e-3,
    "student.weight_decay": 0.0,
    "student.augment": (),
    "student.distance": "l2",
    "student.views.ask": True,
    "student.views.fresh": ("strokes",),
    "student.views.mixup": 0.5,
}

# CAKE from smooth starts for teachers of images of one channel, and a student that asks.
GREY_IMAGES = {
    **ASKING,
    "student.batch_size": 128,
    "synthesis.start": "smooth",
    "synthesis.num_batches": 20,
    "synthesis.num_steps": 64,
    "synthesis.decay_magnitude": 1.3,
    "synthesis.weights.cls": 500.0,
    "synthesis.weights.contr": 20.0,
    "synthesis.weights.tv": 1e6,
}

# CAKE from leaves for teachers of colour images, and a student that asks. Leaves take the place of strokes.
COLOUR_IMAGES = {
    **ASKING,
    "student.learning_rate": 1e-2,
    "student.augment": ("crop", "flip"),
    "student.views.fresh": ("leaves",),
    "synthesis.start": "leaves",
    "synthesis.candidates": 16,
    "synthesis.num_steps": 8,
    "synthesis.step_size": 1.0,
    "synthesis.decay_magnitude": 1.3,
    "synthesis.weights.cls": 1e3,
    "synthesis.weights.contr": 1e1,
    "synthesis.weights.tv": 1e5,
}

# A variant `:smoke` of images: a short trial run.
SMOKE = {
    "dataset.max_train_examples": 2000,
    "teacher.epochs": 2,
    "student.epochs": 2,
    "synthesis.num_batches": 1,
    "synthesis.num_steps": 8,
}

# A variant `:gpu`: ResNet-34 teaches ResNet-18 in bf16 on one accelerator, with 10 million views.
ACCELERATOR = {
    "teacher.model.name": "resnet34",
    "teacher.epochs": 100,
    "teacher.precision": "bf16",
    "student.model.name": "resnet18",
    "student.epochs": 200,
    "student.batch_size": 256,
    "student.precision": "bf16",
    "synthesis.num_batches": 100,
    "synthesis.precision": "bf16",
}


def stored_labels() -> dict[str, Any]:
    """The fields of `ASKING` with their defaults, for a variant whose student learns from stored labels."""
    return {name: operator.attrgetter(name)(default()) for name in ASKING}


def reference(
    *,
    network: str = "",
    contr: float = 1e1,
    tv: float = 1e5,
    num_batches: int = 500,
    learning_rate: float = 0.5,
    augment: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The fields of a `:reference` variant: the settings of the CAKE authors' code for images.

    Args:
      network: Architecture of teacher and student. Empty keeps those of the config, for data sets that the reference
        does not have.
      contr: Weight of the contrastive term. The reference has 1e1 for CIFAR and SVHN, 1e-3 for MNIST and Fashion-MNIST.
      tv: Weight of the total variation. The reference has 1e5 for CIFAR and SVHN, 1e7 for MNIST and Fashion-MNIST.
      num_batches: Number of mini-batches. The reference has 500 for CIFAR, 512 for the others.
      learning_rate: Learning rate of teacher and student. The reference has 0.1 for Fashion-MNIST.
      augment: Augmentations of the teacher's training images.

    Returns:
      A variant for `with_variant`.

    Source: `conf/config.yaml` and `conf/dataset/*.yaml` of github.com/ml-research/CAKE.
    """
    training = {"epochs": 30, "batch_size": 256, "learning_rate": learning_rate, "precision": "bf16"}
    networks = {f"{stage}.model.name": network for stage in ("teacher", "student")} if network else {}
    return {
        **networks,
        **stored_labels(),
        **{f"{stage}.{name}": value for stage in ("teacher", "student") for name, value in training.items()},
        "teacher.augment": augment,
        "student.temperature": 1.0,
        "synthesis.start": "normal",
        "synthesis.candidates": 1,
        "synthesis.step_size": 0.1,
        "synthesis.decay_magnitude": 4.0,
        "synthesis.num_batches": num_batches,
        "synthesis.num_steps": 256,
        "synthesis.precision": "bf16",
        "synthesis.weights.cls": 1e3,
        "synthesis.weights.contr": contr,
        "synthesis.weights.tv": tv,
    }


def grey_reference(network: str, learning_rate: float = 0.5, augment: tuple[str, ...] = ()) -> dict[str, Any]:
    """The fields of a `:reference` variant for MNIST or Fashion-MNIST. For the arguments, see `reference`."""
    return reference(network=network, contr=1e-3, tv=1e7, num_batches=512, learning_rate=learning_rate, augment=augment)
