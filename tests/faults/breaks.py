"""Ways to break the package on purpose. Each is a function that patches the process it is called in.

A fault that no break makes fail would test nothing. `test_breaks.py` does each fault to a run that is broken for it.
"""

import contextlib
import os
import time
import uuid

from cake_jax import stopping
from cake_jax.black_box import endpoint, ledger
from cake_jax.methods.shared import rounds
from cake_jax.run import experiment, run_folder, synthesis_stage
from cake_jax.stores import checkpoint, samples
from cake_jax.stores.metrics import MetricsLog, log
from cake_jax.training import trainer


def resumes_with_other_draws():
    """The draws depend on where the process began."""
    import jax

    epochs, make_rounds = trainer.epochs, rounds.make_rounds
    trainer.epochs = lambda key, state, *rest, **options: epochs(
        jax.random.fold_in(key, int(state.epoch)), state, *rest, **options
    )
    synthesis_stage.make_rounds = lambda key, method, settings, teacher, state, batches, guide=None: make_rounds(
        jax.random.fold_in(key, next(iter(batches), 0)), method, settings, teacher, state, batches, guide
    )


def leaves_sigterm_to_the_system():
    """SIGTERM ends the process at once."""
    stopping.on_sigterm = contextlib.nullcontext


def reports_a_disk_as_a_defect():
    """Errors of the disk are not understood, and end the run with a traceback."""

    def translated(function):
        def call(*arguments, **options):
            try:
                return function(*arguments, **options)
            except OSError as error:
                raise RuntimeError("this cannot happen") from error

        return call

    checkpoint._save = translated(checkpoint._save)
    MetricsLog.write = translated(MetricsLog.write)
    for module in (checkpoint, experiment, log, run_folder, samples):
        module.write_atomically = translated(module.write_atomically)


def checks_no_checksum():
    """Every shard and every checkpoint counts as sound."""
    samples.SampleStore.is_damaged = lambda store, batch: False
    checkpoint._is_sound = lambda folder: True


def locks_nothing():
    """Two processes may work in one folder."""
    run_folder.locked = lambda *arguments: contextlib.nullcontext()


def trusts_the_times_of_files():
    """A shard from the future is not believed."""
    read_index = samples.SampleStore._read_index

    def read(store):
        entries = read_index(store)
        return {b: e for b, e in entries.items() if os.stat(store.folder / e["file"]).st_mtime < time.time() + 60}

    samples.SampleStore._read_index = read


def repeats_under_another_key():
    """A repeated request has another key than the first time."""
    ask = endpoint.Endpoint.ask
    endpoint.Endpoint.ask = lambda source, x, key: ask(source, x, uuid.uuid4().hex)


def guesses_what_it_cannot_read():
    """An answer that cannot be read counts as one of zeros."""
    ask = endpoint.Endpoint.ask

    def zeros(source, x, key):
        try:
            return ask(source, x, key)
        except Exception:
            return [0] * len(x)

    endpoint.Endpoint.ask = zeros


def keeps_connections():
    """The next request goes over the connection of the last one."""
    endpoint.requests.Session.close = lambda session: None


def begins_a_new_ledger():
    """The ledger of an earlier start is overwritten."""
    init = ledger.Ledger.__init__

    def new(self, path=None, terms=None):
        if path is not None and terms is not None and os.path.exists(path):
            os.unlink(path)
        init(self, path, terms)

    ledger.Ledger.__init__ = new


# For each fault, the break that it finds and the kind of run that it is done to.
BREAKS = {
    "kill": (resumes_with_other_draws, "cake"),
    "terminate": (leaves_sigterm_to_the_system, "cake"),
    "full disk": (reports_a_disk_as_a_defect, "cake"),
    "read-only folder": (reports_a_disk_as_a_defect, "cake"),
    "damage": (checks_no_checksum, "cake"),
    "two runs": (locks_nothing, "cake"),
    "clock": (trusts_the_times_of_files, "cake"),
    "server hangs": (repeats_under_another_key, "black box"),
    "server lies": (guesses_what_it_cannot_read, "black box"),
    "server answers twice": (keeps_connections, "black box"),
    "server dies": (begins_a_new_ledger, "black box"),
}
