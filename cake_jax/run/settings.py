"""Everything that a run is asked to do, as typed arguments. `cake_jax.config.resolve` makes them from a config."""

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import flax.linen as nn

from cake_jax import models
from cake_jax.black_box import QuerySettings
from cake_jax.data import DataSettings
from cake_jax.synthesis import SynthesisSettings
from cake_jax.training import DistillationLoss, TrainSettings
from cake_jax.types import DataSpec


@dataclasses.dataclass(frozen=True)
class Stages:
    """Which stages run. A stage that is off and needed by a later one is taken from an earlier run."""

    teacher: bool = True
    synthesis: bool = True
    student: bool = True
    evaluation: bool = True


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """An architecture.

    Attributes:
      name: A name in `models.MODELS`.
      options: Fields of its module that differ from the named architecture.
    """

    name: str
    options: Mapping[str, Any]

    def create(self, spec: DataSpec) -> nn.Module:
        """The module, for the classes of `spec`."""
        return models.create(self.name, spec, self.options)


@dataclasses.dataclass(frozen=True)
class TeacherSettings:
    """Where the teacher comes from.

    Attributes:
      source: `training` on real data, an earlier `run`, a file of `weights`, a `query` interface alone, or `none`.
      model: The teacher's architecture. An earlier run has its own.
      training: How the teacher is trained.
      path: Folder of the earlier run, or file of weights. Empty otherwise.
    """

    source: Literal["training", "run", "weights", "query", "none"]
    model: ModelSettings
    training: TrainSettings
    path: str = ""


@dataclasses.dataclass(frozen=True)
class BlackBoxSettings:
    """How a teacher is queried as a black box. Without `url` and `function` the black box asks the run's own teacher.

    Attributes:
      queries: Kind of answers, budget and limits.
      url: Address of an HTTP endpoint, or empty.
      body: `json` or `npy`, for an endpoint.
      authorization: Environment variable that holds the value of the header Authorization, or empty.
      timeout: Seconds without a sign of the server.
      function: `module:name` of a function, or empty.
      ledger: File of queries and answers. Empty for `ledger.sqlite` in the run's folder.
      evaluate: Whether an endpoint or a function is asked for the test set too. These queries count.
    """

    queries: QuerySettings
    url: str = ""
    body: str = "json"
    authorization: str = ""
    timeout: float = 60.0
    function: str = ""
    ledger: str = ""
    evaluate: bool = False

    @property
    def is_remote(self) -> bool:
        """Whether the teacher is an endpoint or a function, rather than the run's own teacher."""
        return bool(self.url or self.function)


@dataclasses.dataclass(frozen=True)
class SamplesSettings:
    """Where the samples come from, and which of them the student sees.

    Attributes:
      synthesis: How they are made: the method's own settings, as its `prepare` returns them.
      from_run: Folder of an earlier run whose samples are used, or empty.
      min_step_size: Lowest step size of the student's samples. None for no limit.
      max_step_size: Highest step size of the student's samples. None for no limit.
    """

    synthesis: SynthesisSettings
    from_run: str = ""
    min_step_size: float | None = None
    max_step_size: float | None = None


@dataclasses.dataclass(frozen=True)
class StudentSettings:
    """How the student is trained.

    Attributes:
      model: The student's architecture.
      training: Numbers of the training.
      loss: The loss.
      memory_bytes: Samples that need more memory are read from the disk during the training.
    """

    model: ModelSettings
    training: TrainSettings
    loss: DistillationLoss
    memory_bytes: float


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """Everything that a run is asked to do.

    Attributes:
      seed: Seed of all draws.
      method: A name in `methods.METHODS`.
      data: The real data.
      spec: Their specification.
      stages: Which stages run.
      teacher: Where the teacher comes from.
      black_box: How the teacher is queried. None for a white box.
      samples: Where the samples come from.
      student: How the student is trained.
      metrics_writers: Names in `stores.metrics.WRITERS`.
      document: The config that these settings were made of, JSON-ready, for `config.json`.
    """

    seed: int
    method: str
    data: DataSettings
    spec: DataSpec
    stages: Stages
    teacher: TeacherSettings
    black_box: BlackBoxSettings | None
    samples: SamplesSettings
    student: StudentSettings
    metrics_writers: tuple[str, ...]
    document: Mapping[str, Any]

    @property
    def access(self) -> str:
        """The most that the teacher gives, one of `types.ACCESS`."""
        if self.black_box is None:
            return "statistics"
        return "labels" if self.black_box.queries.answers == "labels" else "scores"

    @property
    def needs_black_box(self) -> bool:
        """Whether the run queries a black box: to make samples, or to evaluate an endpoint or a function."""
        makes_samples = self.stages.synthesis and not self.samples.from_run
        return self.black_box is not None and (makes_samples or self.judges_black_box)

    @property
    def judges_black_box(self) -> bool:
        """Whether an endpoint or a function is asked for the test set."""
        black_box = self.black_box
        return bool(self.stages.evaluation and black_box and black_box.evaluate and black_box.is_remote)
