"""Schedules: of the synthesis' step size over mini-batches, and of the trainer's learning rate over steps."""

import math

import optax

SYNTHESIS_SCHEDULES = ("constant", "linear", "cosine")
TRAINING_SCHEDULES = ("constant", "one_cycle", "multi_step")


def step_size(
    batch: int, num_batches: int, *, base: float, decay_magnitude: float = 4.0, schedule: str = "linear"
) -> float:
    """The step size eta(m) of mini-batch m. All steps of a mini-batch share it.

    With s = log10(base), d = decay_magnitude and M mini-batches, log10 eta(m) is
    - constant: s
    - linear: s - d m / M
    - cosine: s - d + d / 2 (1 + cos(pi m / M))

    Args:
      batch: m, from 0 to M - 1.
      num_batches: M.
      base: Step size of mini-batch 0, above 0.
      decay_magnitude: d, the number of decades by which the step size falls.
      schedule: One of `SYNTHESIS_SCHEDULES`.

    Returns:
      eta(m).

    Source: CAKE (arXiv 2306.02090), Algorithm 1, where eta is a function of the mini-batch.
    """
    progress = batch / num_batches
    decades = {
        "constant": 0.0,
        "linear": decay_magnitude * progress,
        "cosine": decay_magnitude / 2 * (1 - math.cos(math.pi * progress)),
    }[schedule]
    return base * 10.0**-decades


def learning_rate(peak: float, num_steps: int, *, schedule: str = "one_cycle") -> optax.Schedule:
    """The learning rate as a function of the training step.

    - constant: the peak.
    - one_cycle: a cosine from peak / 25 to the peak over the first 30 % of the steps, then a cosine to peak / 250,000.
    - multi_step: the peak, a tenth of it after 66 % of the steps, and a hundredth after 80 %.

    Args:
      peak: The highest learning rate.
      num_steps: Number of training steps in all.
      schedule: One of `TRAINING_SCHEDULES`.

    Returns:
      An Optax schedule.

    Source: Smith, Topin 2017 (arXiv 1708.07120) for one_cycle.
    """
    if schedule == "one_cycle":
        return optax.schedules.cosine_onecycle_schedule(
            max(num_steps, 2), peak, pct_start=0.3, div_factor=25.0, final_div_factor=1e4
        )
    if schedule == "multi_step":
        milestones = {int(fraction * num_steps): 0.1 for fraction in (0.66, 0.8)}
        return optax.schedules.piecewise_constant_schedule(peak, milestones)
    return optax.schedules.constant_schedule(peak)
