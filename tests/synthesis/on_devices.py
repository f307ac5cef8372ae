"""Synthesizes the samples of `test_minibatch` in a process with a given number of devices: `on_devices.py NUMBER`."""

import hashlib
import json
import sys

import jax
import numpy as np

from cake_jax import models
from cake_jax.synthesis import SynthesisSettings, Weights, minibatch
from cake_jax.teachers import from_linen
from cake_jax.types import DataSpec

SPEC = DataSpec((8, 8, 1), 10)
# 7 sets, which 2 and 4 devices do not divide.
COMMON = {"num_batches": 2, "batch_size": 35, "num_groups": 5, "num_steps": 6, "langevin_temperature": 1.0}
CASES = {
    "free": SynthesisSettings(**COMMON, weights=Weights(tv=1.0)),
    "coupled": SynthesisSettings(**COMMON, weights=Weights(entropy=9.0), contrastive="snn"),
}


def samples():
    """The samples of mini-batch 1 of each case: a checksum of x, some of its pixels, and the labels."""
    module = models.create("resnet18", SPEC, {"blocks": (1,), "features": (4,)})
    teacher = from_linen(module, jax.jit(module.init)(jax.random.key(7), np.zeros((1, 8, 8, 1), np.float32)), SPEC)
    results = {}
    for name, settings in CASES.items():
        batch, _ = minibatch(jax.random.key(0), teacher, settings, 1)
        checksum = hashlib.sha256(np.ascontiguousarray(batch.x).tobytes()).hexdigest()
        results[name] = checksum, batch.x[:, ::4, ::4, 0].tolist(), batch.logits.argmax(axis=1).tolist()
    return results


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", int(sys.argv[1]))
    print(json.dumps(samples()))
