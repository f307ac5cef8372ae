"""Signs that a run goes wrong: one line each, with what to change. `docs/troubleshooting.md` has the measurements."""

from cake_jax.stores.metrics import MetricsLog

# A training whose accuracy ends so far below its highest one has a learning rate that is too high.
_FALL = 0.1
# The class balance of ten classes of which one has nine tenths of the samples.
_ONE_CLASS = 0.25


def of_samples(log: MetricsLog, num_classes: int) -> list[str]:
    """Signs in the samples: the teacher gives nearly all the same class, or is sure of none.

    Args:
      log: The metrics of the run. Rows without these values count as good.
      num_classes: K, the number of classes.

    Returns:
      Lines of text. Empty if all is well.
    """
    signs = []
    balance, confidence = (_mean(log, name) for name in ("class_balance", "confidence"))
    if balance < _ONE_CLASS:
        signs.append(
            "the teacher gives nearly all samples the same class; check dataset.mean and dataset.std, then try another "
            "synthesis.start, or synthesis.candidates=16, which chooses starts of all classes"
        )
    if confidence < near_chance(num_classes):
        signs.append(
            f"the teacher is sure of no sample: its highest probability is {_percent(confidence)} on average; check "
            "that it returns logits, check dataset.mean, dataset.std and teacher.temperature, or try another "
            "synthesis.start"
        )
    return signs


def of_student(log: MetricsLog, num_classes: int) -> list[str]:
    """Signs in the student's training: its accuracy on the samples fell, or stayed near chance.

    Args and returns as in `of_samples`.
    """
    accuracies = [row["accuracy"] for row in log.read("student")]
    if not accuracies:
        return []
    last, best = accuracies[-1], max(accuracies)
    if last < best - _FALL:
        return [
            f"the student's accuracy on its training samples fell from {_percent(best)} to {_percent(last)}; lower "
            "student.learning_rate"
        ]
    if last < near_chance(num_classes):
        return [
            f"the student learned only {_percent(last)} of its training samples; change student.learning_rate, or "
            "raise student.epochs"
        ]
    return []


def of_results(teacher: float | None, agreement: float | None, num_classes: int) -> list[str]:
    """Signs in the results on real data: teacher or student near chance.

    Args:
      teacher: The teacher's accuracy on the test set, or None.
      agreement: Agreement of student and teacher on the test set, or None.
      num_classes: K, the number of classes.

    Returns:
      Lines of text.
    """
    limit = near_chance(num_classes)
    if teacher is not None and teacher < limit:
        return [
            f"the teacher is right on {_percent(teacher)} of the test set, where chance is "
            f"{_percent(1 / num_classes)}; check dataset.mean, dataset.std and the order of the classes "
            "(dataset.class_names)"
        ]
    if agreement is not None and agreement < limit:
        return [
            f"the student agrees with the teacher on {_percent(agreement)} of the test set, where chance is "
            f"{_percent(1 / num_classes)}; see docs/troubleshooting.md"
        ]
    return []


def near_chance(num_classes: int) -> float:
    """A share of correct answers below which a model is hardly better than chance: twice chance, at most 0.1 more."""
    return min(2 / num_classes, 1 / num_classes + 0.1)


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"


def _mean(log: MetricsLog, name: str) -> float:
    """The mean of a value over the mini-batches that have it. 1 if none has it."""
    values = [row[name] for row in log.read("synthesis") if name in row]
    return sum(values) / len(values) if values else 1.0
