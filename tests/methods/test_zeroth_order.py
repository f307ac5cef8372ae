"""`zeroth_order`: how its budget is divided, which search it chooses, and the settings that it refuses."""

import pytest
from cake_errors import message_of
from counting import Counting
from small_zeroth_order import SETTINGS, make_round, prepared
from smooth_teacher import SIZE

from cake_jax.methods.zeroth_order import queries
from cake_jax.synthesis import Weights
from cake_jax.types import DataSpec

VECTORS = DataSpec((7,), 5)


@pytest.mark.parametrize(
    ("per_sample", "fields"),
    [
        (13, {}),
        (40, {}),
        (13, {"antithetic": True}),
        (40, {"antithetic": True}),
        (13, {"num_looks": 3}),
        (40, {"num_directions": 5}),
    ],
)
def test_the_budget_is_kept_and_used(per_sample, fields):
    """3 mini-batches of 15 samples. The 44 queries above a whole number a sample are left over."""
    budget = 45 * per_sample + 44
    settings, teacher = prepared(budget=budget, **fields), Counting()
    asked = sum(queries(settings, teacher.access, batch).forward for batch in range(3))
    for batch in range(3):
        make_round(teacher, settings, batch)
    assert asked == teacher.queries == 45 * settings.queries_per_sample <= budget
    assert asked > 0.6 * budget


def test_queries_without_a_use_are_not_spent():
    settings = prepared(budget=10**9)
    assert (settings.num_looks, settings.num_directions) == (SETTINGS.num_steps, SIZE)


def test_a_larger_budget_gives_more_looks_and_directions():
    chosen = [prepared(budget=45 * per_sample) for per_sample in (9, 30, 120)]
    assert [(s.num_looks, s.num_directions) for s in chosen] == [(1, 7), (2, 13), (4, 28)]


@pytest.mark.parametrize(("per_sample", "bisections"), [(2, 1), (3, 3), (50, 6)])
def test_bisections_keep_the_budget(per_sample, bisections):
    settings, teacher = prepared(budget=45 * per_sample, search="boundary", bisections=6), Counting()
    for batch in range(3):
        make_round(teacher, settings, batch)
    assert settings.bisections == bisections
    assert teacher.queries <= 45 * per_sample


@pytest.mark.parametrize(
    ("access", "search", "field"),
    [
        ("scores", "auto", "logit_gap"),
        ("scores", "gradient", "logit_gap"),
        ("scores", "boundary", "distance"),
        ("labels", "auto", "distance"),
        ("labels", "boundary", "distance"),
    ],
)
def test_the_search_depends_on_the_access(access, search, field):
    """The diagnostics of the gradient search have a logit gap, and those of the boundary search a distance."""
    info = make_round(Counting(access=access), prepared(search=search, num_looks=1, num_directions=4)).info
    assert field in info._fields


def test_the_gradient_search_is_refused_for_labels_alone():
    message = message_of(make_round, Counting(access="labels"), prepared(search="gradient"))
    assert message.startswith("methods.zeroth_order.search: ")
    assert "'boundary'" in message


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"budget": 0}, "budget: 0 must be above 0"),
        ({"budget": 45 * 3 - 1}, "budget: 134 leaves 2 queries a sample"),
        ({"budget": 45 * 4 - 1, "antithetic": True}, "budget: 179 leaves 3 queries a sample"),
        ({"budget": 45 * 7, "num_looks": 4}, "budget: 315 leaves 7 queries a sample"),
        ({"budget": 45 * 7, "num_directions": 6}, "budget: 315 leaves 7 queries a sample"),
        ({"budget": 45 * 2 - 1, "search": "boundary"}, "budget: 89 leaves 1 queries a sample"),
        ({"search": "labels"}, "search: 'labels' is not one of auto, gradient, boundary"),
        ({"directions": "gaussian"}, "directions: 'gaussian' is not one of coordinate, smooth"),
        ({"sigma": 0.0}, "sigma: 0.0 must be above 0"),
        ({"trust": -1.0}, "trust: -1.0 must be above 0"),
        ({"num_looks": -1}, "num_looks: -1 is below 0"),
        ({"bisections": -1}, "bisections: -1 is below 0"),
        ({"num_directions": SIZE + 1}, "num_directions: 33 "),
    ],
)
def test_values_out_of_range_are_refused_by_field(fields, message):
    assert message_of(prepared, **fields).startswith(f"methods.zeroth_order.{message}")


def test_settings_of_the_synthesis_are_checked_too():
    assert message_of(prepared, num_steps=-1).startswith("synthesis.num_steps: ")


@pytest.mark.filterwarnings("ignore:synthesis.")
def test_sets_fit_the_classes():
    settings = prepared(DataSpec((4, 4, 2), 2), num_groups=10, batch_size=45)
    assert (settings.num_groups, settings.batch_size) == (2, 44)


def test_smooth_directions_are_for_images_alone():
    assert prepared().directions == "smooth"
    assert prepared(VECTORS, weights=Weights()).directions == "coordinate"
    message = message_of(prepared, VECTORS, weights=Weights(), directions="smooth")
    assert message.startswith("methods.zeroth_order.directions: 'smooth' directions need images")


def test_settings_are_hashable_and_equal():
    assert prepared() == prepared()
    assert hash(prepared()) == hash(prepared())
    assert prepared() != prepared(sigma=0.5)


def test_prepared_settings_do_not_change_when_they_are_prepared_again():
    for fields in ({}, {"antithetic": True}, {"search": "boundary"}, {"budget": 45 * 30}):
        once = prepared(**fields)
        assert prepared(**vars(once)) == once
