"""The settings of a run, as typed arguments. `cake_jax.config.resolve` makes them from a config."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import flax.linen as nn

from cake_jax import models
from cake_jax.black_box import QuerySettings
from cake_jax.data import DataSettings
from cake_jax.synthesis import SynthesisSettings
from cake_jax.training import DistillationLoss, TrainSettings, ViewSettings
from cake_jax.types import DataSpec


@dataclasses.dataclass(frozen=True)
class Stages:
    """Which stages run. If a later stage needs the result of a stage that is off, an earlier run provides it.

    Attributes:
      baseline: Whether a second student learns in the same way from noise, to be compared with the student.
    """

    teacher: bool = True
    synthesis: bool = True
    student: bool = True
    evaluation: bool = True
    baseline: bool = False


@dataclasses.dataclass(frozen=True)
class ModelSettings:
    """An architecture.

    Attributes:
      name: A name in `models.MODELS`.
      options: Fields of the Flax module that differ from the named architecture.
    """

    name: str
    options: Mapping[str, Any]

    def create(self, spec: DataSpec) -> nn.Module:
        """Makes the Flax module for inputs and classes of `spec`."""
        return models.create(self.name, spec, self.options)


@dataclasses.dataclass(frozen=True)
class TeacherSettings:
    """Where the teacher comes from.

    Attributes:
      source: `training` on real data, an earlier `run`, a file of `weights`, a `query` interface alone, or `none`.
      model: The teacher's architecture. It is ignored for a teacher of an earlier run.
      training: How the teacher is trained.
      path: Folder of the earlier run, or file of weights. Empty otherwise.
      temperature: The samples, the student and the evaluation see the teacher's logits divided by it.
    """

    source: Literal["training", "run", "weights", "query", "none"]
    model: ModelSettings
    training: TrainSettings
    path: str = ""
    temperature: float = 1.0


@dataclasses.dataclass(frozen=True)
class BlackBoxSettings:
    """How a teacher is queried as a black box. Without `url` and `function`, the run's own teacher answers.

    Attributes:
      queries: Kind of answers, budget and limits.
      url: Address of an HTTP endpoint, or empty.
      body: `json` or `npy`, for an endpoint.
      authorization: Environment variable that holds the value of the header Authorization, or empty.
      timeout: Seconds to wait without data from the server.
      function: `module:name` of a function, or empty.
      ledger: File of queries and answers. Empty for `ledger.sqlite` in the run's folder.
      evaluate: Whether an endpoint or function is queried for the test set too. These queries are charged.
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
    """Where the samples come from, and on which of them the student trains.

    Attributes:
      synthesis: How the samples are made: the settings that the method's `prepare` returns.
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
      training: Settings of the training.
      loss: The loss.
      views: Whether the teacher labels each batch anew, and how the batch is changed before.
      memory_bytes: Memory limit in bytes. Samples above it are read from the disk during the training.
      from_run: Folder of an earlier run whose student is trained further, or empty.
    """

    model: ModelSettings
    training: TrainSettings
    loss: DistillationLoss
    views: ViewSettings
    memory_bytes: float
    from_run: str = ""


@dataclasses.dataclass(frozen=True)
class RunSettings:
    """The settings of a run.

    Attributes:
      seed: Seed of all draws.
      method: A name in `methods.METHODS`.
      data: The real data.
      spec: Specification of the inputs.
      stages: Which stages run.
      teacher: Where the teacher comes from.
      black_box: How the teacher is queried. None for a white box.
      samples: Where the samples come from.
      student: How the student is trained.
      metrics_writers: Names in `stores.metrics.WRITERS`.
      profile: Whether JAX traces are written.
      document: The config from which these settings were made, JSON-ready, for `config.json`.
      baseline: The settings of the baseline's run, which still lack the teacher. None without a baseline.
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
    profile: bool
    document: Mapping[str, Any]
    baseline: "RunSettings | None"

    def with_teacher_of(self, run: Path) -> "RunSettings":
        """These settings with the teacher of another run. The document stays, so that both folders may be moved.

        Args:
          run: Folder of the other run.
        """
        return dataclasses.replace(self, teacher=dataclasses.replace(self.teacher, source="run", path=str(run)))

    @property
    def access(self) -> str:
        """The highest access that the teacher gives, one of `types.ACCESS`."""
        if self.black_box is None:
            return "statistics"
        return "labels" if self.black_box.queries.answers == "labels" else "scores"

    @property
    def makes_samples(self) -> bool:
        """Whether the run makes samples, rather than takes those of an earlier run or none."""
        return self.stages.synthesis and not self.samples.from_run

    @property
    def needs_black_box(self) -> bool:
        """Whether the run queries a black box: for samples, for a student's views, or to evaluate it."""
        asks = self.stages.student and self.student.views.ask
        return self.black_box is not None and (self.makes_samples or asks or self.judges_black_box)

    @property
    def judges_black_box(self) -> bool:
        """Whether an endpoint or a function is queried for the test set."""
        black_box = self.black_box
        return bool(self.stages.evaluation and black_box and black_box.evaluate and black_box.is_remote)
