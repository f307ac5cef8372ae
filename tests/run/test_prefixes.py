"""Whatever part of its writes a run has done when it stops, it goes on to the same end.

A run is recorded: after each change of a file, and before each rename, the run's folder is copied. These copies are all
the states in which a kill can leave the folder, file by file. Where a log has grown by a line, parts of the line are
states too. Each state is the start of a run, which must end as the recorded one.
"""

import itertools
import os
import shutil

import numpy as np
import pytest
import runs
from hypothesis import HealthCheck, given, settings, strategies as st

from cake_jax.black_box import ledger
from cake_jax.run import saves
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import SampleStore

# A method that trains a teacher, and one whose rounds depend on each other and that pays for answers.
KINDS = {
    "cake": {},
    "ideal": {
        "method": "ideal",
        "black_box.answers": "labels",
        "black_box.budget": 120,
        "black_box.max_rows": 20,
    },
}


def config_of(kind):
    fields = {"teacher.epochs": 2, "student.epochs": 2, "synthesis.num_batches": 2}
    return runs.small_config(**fields, **KINDS[kind])


class Recorder:
    """Copies a folder whenever a function has changed it. Equal copies in a row are one.

    Attributes:
      states: The copies, in order.
    """

    def __init__(self, folder, patch):
        self.states, self._folder, self._last = [], folder, None
        for place, name in ((os, "replace"), (os, "rename")):
            patch.setattr(place, name, self._around(getattr(place, name), before=True))
        writes = (MetricsLog, "write"), (SampleStore, "append"), (ledger.Ledger, "record")
        for place, name in ((os, "unlink"), (os, "rmdir"), *writes):
            patch.setattr(place, name, self._around(getattr(place, name)))
        patch.setattr(ledger.Ledger, "reserve", self._around(ledger.Ledger.reserve))

    def _around(self, function, before=False):
        def call(*arguments, **options):
            if before:
                self._copy()
            result = function(*arguments, **options)
            self._copy()
            return result

        return call

    def _copy(self):
        content = {}
        for path in sorted(self._folder.rglob("*")):
            try:
                content[path.relative_to(self._folder)] = path.read_bytes() if path.is_file() else None
            except FileNotFoundError:
                continue  # a thread has renamed it: that state comes next
        if content != self._last:
            self._last = content
            self.states.append(content)


def lay_out(content, folder):
    """Makes the folder that a copy describes."""
    folder.mkdir()
    for path, data in content.items():
        if data is None:
            (folder / path).mkdir(parents=True, exist_ok=True)
        else:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(data)


def cut_line(earlier, later, share):
    """The later state, of whose new line in the metrics log or in the index only a share of the bytes is there.

    None if neither has grown.
    """
    for log in (path for path in later if path.suffix == ".jsonl"):
        old, new = earlier.get(log, b""), later[log]
        if new.startswith(old) and len(new) > len(old):
            return {**later, log: new[: len(old) + int(share * (len(new) - len(old)))]}
    return None


@pytest.fixture(scope="module", params=KINDS)
def recorded(request, tmp_path_factory):
    """The kind of run, its outcome, and the states of its folder. A run saves its state after every epoch."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    with pytest.MonkeyPatch.context() as patch:
        save_always(patch)
        recorder = Recorder(folder, patch)
        runs.run(config_of(request.param), folder, report=False)
    return request.param, runs.outcome_of(folder), recorder.states


def save_always(patch):
    patch.setattr(saves, "SAVE_SECONDS", 0.0)


def ends_the_same(kind, content, outcome, folder):
    shutil.rmtree(folder, ignore_errors=True)
    lay_out(content, folder)
    with pytest.MonkeyPatch.context() as patch:
        save_always(patch)
        runs.run(config_of(kind), folder, report=False)
    return runs.outcome_of(folder) == outcome


def test_the_states_of_a_run_are_recorded(recorded):
    _, _, states = recorded
    assert [*states[0]] != [*states[-1]]
    for name in ("config.json", "results.json", "model.json", "index.jsonl", "metrics.jsonl", "sha256"):
        assert any(path.name == name for state in states for path in state)
    assert any("orbax-checkpoint-tmp" in str(path) for state in states for path in state)
    assert any(cut_line(*pair, 0.5) for pair in itertools.pairwise(states))


@settings(max_examples=6, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), share=st.floats(0, 1))
def test_a_run_goes_on_from_a_state(recorded, tmp_path, place, share):
    kind, outcome, states = recorded
    number = int(place * len(states))
    state = states[number]
    if number and (cut := cut_line(states[number - 1], state, share)):
        state = cut
    assert ends_the_same(kind, state, outcome, tmp_path / "run")


@pytest.mark.slow
def test_a_run_goes_on_from_every_state(recorded, tmp_path):
    kind, outcome, states = recorded
    rng = np.random.default_rng(0)
    for number, state in enumerate(states):
        assert ends_the_same(kind, state, outcome, tmp_path / "run"), f"state {number} of {len(states)}"
        if number and (cut := cut_line(states[number - 1], state, rng.random())):
            assert ends_the_same(kind, cut, outcome, tmp_path / "run"), f"a cut line in state {number}"
