"""Ways to make a white-box `Teacher` from any trained classifier."""

from cake_jax.teachers.equinox import from_equinox
from cake_jax.teachers.nnx import from_nnx
from cake_jax.teachers.teacher import LinenApply, Teacher, as_queryable, from_function, from_linen, with_temperature
from cake_jax.teachers.torch.live import from_torch
from cake_jax.teachers.torch.pretrained import from_hub, from_name
from cake_jax.teachers.torch.weights import from_torch_weights, to_torch_tensors

__all__ = [
    "LinenApply",
    "Teacher",
    "as_queryable",
    "from_equinox",
    "from_function",
    "from_hub",
    "from_linen",
    "from_name",
    "from_nnx",
    "from_torch",
    "from_torch_weights",
    "to_torch_tensors",
    "with_temperature",
]
