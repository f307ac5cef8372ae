"""Settings of `zeroth_order` for `smooth_teacher`."""

import dataclasses

import jax
from smooth_teacher import SIZE, SPEC

from cake_jax.methods import METHODS
from cake_jax.methods.zeroth_order import ZerothOrderSettings, prepare
from cake_jax.synthesis import Weights

KEY = jax.random.key(0)
SETTINGS = ZerothOrderSettings(
    num_batches=3, batch_size=15, num_groups=3, num_steps=4, step_size=0.05, weights=Weights(cls=2.0, contr=0.5, tv=3.0)
)


def prepared(spec=SPEC, **fields):
    return prepare(dataclasses.replace(SETTINGS, **fields), spec)


def exact(**fields):
    """All directions in each step, so that the differences' error alone is left."""
    fields = {"num_steps": SETTINGS.num_steps, "num_directions": SIZE, "antithetic": True, "sigma": 0.01, **fields}
    return prepared(num_looks=fields["num_steps"], budget=10**6, **fields)


def make_round(teacher, settings, batch=0, key=KEY):
    return METHODS["zeroth_order"].make_round(key, (), teacher, None, settings, batch)
