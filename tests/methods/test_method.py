"""A method's own settings: which fields it declares, and what plain settings become."""

import pytest
from cake_errors import message_of

from cake_jax.methods import METHODS, check_access, get
from cake_jax.methods.cake import CakeSettings, LakeSettings
from cake_jax.methods.ideal import IdealSettings
from cake_jax.methods.method import GuideSettings, own_fields, with_method_defaults
from cake_jax.synthesis import SynthesisSettings, Weights
from cake_jax.training import TrainSettings
from cake_jax.types import ACCESS, DataSpec


def test_plain_settings_get_the_methods_defaults():
    settings = with_method_defaults(IdealSettings, SynthesisSettings(num_batches=2))
    assert settings == IdealSettings(num_batches=2)
    assert (settings.num_steps, settings.step_size) == (30, 1e-3)


def test_changed_fields_of_plain_settings_are_kept():
    plain = SynthesisSettings(num_steps=7, step_size=0.2, weights=Weights(cls=3.0))
    settings = with_method_defaults(IdealSettings, plain)
    assert settings == IdealSettings(num_steps=7, step_size=0.2, weights=Weights(cls=3.0))


def test_settings_of_the_methods_own_kind_are_kept_whole():
    for kind, settings in ((IdealSettings, IdealSettings(num_steps=256)), (SynthesisSettings, SynthesisSettings())):
        assert with_method_defaults(kind, settings) is settings


def test_settings_of_another_method_are_refused():
    for kind, settings in ((LakeSettings, CakeSettings()), (IdealSettings, CakeSettings())):
        message = message_of(with_method_defaults, kind, settings)
        assert message.startswith("settings: CakeSettings ")
        assert message.endswith(f"pass {kind.__name__}")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("spec", [DataSpec((2,), 2), DataSpec((4, 4, 1), 2)], ids=["vectors", "images"])
def test_prepared_settings_can_be_prepared_again(name, spec):
    """`synthesize` prepares the settings of a run, which the run has prepared already."""
    once = METHODS[name].prepare(METHODS[name].settings(num_batches=2, batch_size=6, num_groups=2), spec)
    assert METHODS[name].prepare(once, spec) == once


def test_cake_and_lake_differ_in_their_temperature():
    plain = SynthesisSettings()
    temperatures = [with_method_defaults(kind, plain).langevin_temperature for kind in (CakeSettings, LakeSettings)]
    assert temperatures == [0.0, 1.0]
    given = SynthesisSettings(langevin_temperature=0.5)
    assert with_method_defaults(LakeSettings, given).langevin_temperature == 0.5


def test_own_fields_are_those_that_the_method_declares():
    assert own_fields(SynthesisSettings) == {}
    assert list(own_fields(CakeSettings)) == ["langevin_temperature"]
    own = own_fields(IdealSettings)
    assert {"num_steps", "step_size", "latent_size", "student", "evenness"} <= set(own)
    assert own["num_steps"].default == 30
    assert not {"batch_size", "num_groups", "weights", "schedule"} & set(own)


def test_a_guide_student_trains_at_a_constant_rate_on_all_samples():
    guide = GuideSettings(epochs=2, batch_size=30, learning_rate=0.3, optimizer="adam", augment=("flip",))
    assert guide.training() == TrainSettings(
        epochs=2,
        batch_size=30,
        learning_rate=0.3,
        optimizer="adam",
        augment=("flip",),
        schedule="constant",
        validation_fraction=0.0,
    )


def test_an_unknown_method_is_refused():
    assert message_of(get, "magic") == f"method: 'magic' is not one of {', '.join(METHODS)}"


@pytest.mark.parametrize("access", ACCESS)
def test_a_method_that_needs_more_access_is_refused_with_those_that_fit(access):
    """Labels suffice for 5 methods, scores for 6, gradients for all but `inversion`."""
    fitting = [name for name, method in METHODS.items() if ACCESS.index(method.access) <= ACCESS.index(access)]
    assert len(fitting) == {"labels": 5, "scores": 6, "gradients": 11, "statistics": 12}[access]
    for name in METHODS:
        if name in fitting:
            check_access(name, access)
            continue
        needed = METHODS[name].access
        message = message_of(check_access, name, access)
        assert message.startswith(f"method: '{name}' needs the teacher's {needed}, and the teacher gives {access}; ")
        assert message.endswith(f"use one of {', '.join(fitting)}")
