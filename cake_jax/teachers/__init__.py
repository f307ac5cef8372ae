"""Ways to turn anything trained into a `Teacher`: a pure, differentiable callable with a data specification."""

from cake_jax.teachers.black_box import BlackBox, QuerySettings
from cake_jax.teachers.by_name import from_hub, from_name
from cake_jax.teachers.endpoint import Endpoint, Unanswered
from cake_jax.teachers.equinox_module import from_equinox
from cake_jax.teachers.ledger import Ledger
from cake_jax.teachers.live_torch import from_torch
from cake_jax.teachers.nnx_module import from_nnx
from cake_jax.teachers.teacher import LinenApply, Teacher, as_teacher, from_function, from_linen
from cake_jax.teachers.torch_weights import from_torch_weights, to_torch_tensors

# What answers when it is asked for the logits of inputs on the host.
Queryable = Teacher | BlackBox

__all__ = [
    "BlackBox",
    "Endpoint",
    "Ledger",
    "LinenApply",
    "QuerySettings",
    "Queryable",
    "Teacher",
    "Unanswered",
    "as_teacher",
    "from_equinox",
    "from_function",
    "from_hub",
    "from_linen",
    "from_name",
    "from_nnx",
    "from_torch",
    "from_torch_weights",
    "to_torch_tensors",
]
