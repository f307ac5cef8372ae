"""The settings of a training, and their check."""

import dataclasses

from cake_jax import checks, schedules
from cake_jax.augment import check as check_augmentation
from cake_jax.precision import PRECISIONS
from cake_jax.types import DataSpec

# The optimizers, and the highest learning rate of each if the settings name none.
LEARNING_RATES = {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}


@dataclasses.dataclass(frozen=True)
class TrainSettings:
    """How a model is trained. Hashable.

    Attributes:
      epochs: Number of passes over the data.
      batch_size: Number of examples in a step, over all devices. A data set with fewer examples is one batch.
      learning_rate: The highest learning rate. None takes that of the optimizer in `LEARNING_RATES`.
      optimizer: `sgd` (with momentum), `adam` or `adamw`.
      schedule: Schedule of the learning rate over the steps: `constant`, `one_cycle` or `multi_step`.
      momentum: Momentum of SGD.
      weight_decay: L2 penalty on all parameters. With AdamW, the decoupled weight decay.
      validation_fraction: Share of the data that is held out for validation.
      augment: Names in `cake_jax.augment.NAMES`. Each training image is augmented in this order, with new draws in each
        epoch. A student's labels stay the teacher's answers to the images before augmentation, unless the teacher
        is asked for views (`ViewSettings.ask`). So for stored labels, choose only augmentations that do not change the
        teacher's answers.
      precision: Precision of the forward and backward passes, `float32` or `bf16`. Weights, the optimizer's state and
        batch-norm statistics are float32 in both.
    """

    epochs: int = 30
    batch_size: int = 256
    learning_rate: float | None = None
    optimizer: str = "sgd"
    schedule: str = "one_cycle"
    momentum: float = 0.9
    weight_decay: float = 5e-4
    validation_fraction: float = 0.1
    augment: tuple[str, ...] = ()
    precision: str = "float32"

    def __post_init__(self) -> None:
        checks.fields(self)

    @property
    def peak_rate(self) -> float:
        """The highest learning rate: `learning_rate`, or that of the optimizer."""
        return LEARNING_RATES[self.optimizer] if self.learning_rate is None else self.learning_rate


# The default settings of a student: a hundredth of the samples is held out.
DISTILLATION = TrainSettings(validation_fraction=0.01)


def checked(settings: TrainSettings, spec: DataSpec, stage: str) -> TrainSettings:
    """Returns the settings unchanged if they suit the specification.

    Args:
      settings: The settings.
      spec: Specification of the inputs.
      stage: Section of the config that holds the settings, for messages.

    Raises:
      CakeError: A value does not fit. The message names its field and what to do.
    """
    checks.one_of(f"{stage}.optimizer", settings.optimizer, LEARNING_RATES)
    checks.above_zero(f"{stage}.epochs", settings.epochs)
    checks.above_zero(f"{stage}.batch_size", settings.batch_size)
    checks.above_zero(f"{stage}.learning_rate", settings.peak_rate)
    checks.one_of(f"{stage}.schedule", settings.schedule, schedules.TRAINING_SCHEDULES)
    checks.fraction(f"{stage}.momentum", settings.momentum)
    checks.not_negative(f"{stage}.weight_decay", settings.weight_decay)
    checks.one_of(f"{stage}.precision", settings.precision, PRECISIONS)
    checks.fraction(f"{stage}.validation_fraction", settings.validation_fraction)
    check_augmentation(settings.augment, spec, f"{stage}.augment")
    return settings
