"""The kinds of runs that get faults. Each has several epochs, mini-batches and checkpoints, and takes seconds."""

from typing import NamedTuple

SMALL = (
    "--config=configs/two_moons.py:smoke",
    "--config.dataset.max_train_examples=600",
    "--config.teacher.epochs=3",
    "--config.student.epochs=4",
    "--config.synthesis.num_batches=5",
    "--config.synthesis.batch_size=60",
    "--config.synthesis.num_steps=5",
    "--cpu_devices=1",
)
# The server answers small requests. A lost one is repeated twice, after half a second and a second.
REMOTE = (
    "--config.method=ideal",
    "--config.black_box.answers=labels",
    "--config.black_box.budget=300",
    "--config.black_box.max_rows=20",
    "--config.black_box.timeout=1.0",
    "--config.black_box.tries=3",
)


class Kind(NamedTuple):
    """A kind of run.

    Attributes:
      arguments: Its command line without the run's folder.
      num_lines: Lines of its metrics log when it has ended: epochs, mini-batches and one evaluation.
      is_remote: Whether its teacher is a black box behind HTTP.
      is_ordered: Whether its rounds depend on each other, so that a resumed run may make the last ones again.
    """

    arguments: tuple[str, ...]
    num_lines: int
    is_remote: bool = False
    is_ordered: bool = False


KINDS = {
    "cake": Kind(SMALL, 13),
    "rounds": Kind((*SMALL, "--config.method=dfme"), 13, is_ordered=True),
    "black box": Kind((*SMALL, *REMOTE), 10, is_remote=True, is_ordered=True),
    "two processes": Kind((*SMALL, "--processes=2"), 13),
}


def labels(pixels):
    """The server's answers: whether a point lies below the diagonal."""
    return (pixels[:, 0] > pixels[:, 1]).astype(int)
