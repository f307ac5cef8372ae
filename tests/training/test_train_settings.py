"""The check of a training's settings."""

import dataclasses

import pytest
from cake_errors import message_of
from small_training import SETTINGS, SPEC

from cake_jax.training import TrainSettings, checked


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"epochs": 0}, "student.epochs: 0 must be above 0"),
        ({"batch_size": 0}, "student.batch_size: 0 must be above 0"),
        ({"learning_rate": -1.0}, "student.learning_rate: -1.0 must be above 0"),
        ({"learning_rate": float("nan")}, "student.learning_rate: nan must be above 0"),
        ({"optimizer": "lion"}, "student.optimizer: 'lion' is not one of sgd, adam, adamw"),
        ({"schedule": "linear"}, "student.schedule: 'linear' is not one of constant, one_cycle, multi_step"),
        ({"validation_fraction": 1.0}, "student.validation_fraction: 1.0 is not in [0, 1)"),
        ({"momentum": 9.0}, "student.momentum: 9.0 is not in [0, 1)"),
        ({"weight_decay": -1e-4}, "student.weight_decay: -0.0001 is below 0"),
        ({"augment": ("flip",)}, "student.augment: "),
    ],
)
def test_values_out_of_range_are_refused_by_field(change, message):
    assert message_of(checked, dataclasses.replace(SETTINGS, **change), SPEC, "student").startswith(message)


def test_valid_settings_are_returned():
    assert checked(SETTINGS, SPEC, "teacher") is SETTINGS


def test_each_optimizer_has_a_rate_of_its_own_unless_one_is_given():
    rates = {name: TrainSettings(optimizer=name).peak_rate for name in ("sgd", "adam", "adamw")}
    assert rates == {"sgd": 0.1, "adam": 1e-3, "adamw": 1e-3}
    assert dataclasses.replace(TrainSettings(), optimizer="adamw").peak_rate == 1e-3
    assert TrainSettings(optimizer="adamw", learning_rate=0.02).peak_rate == 0.02
