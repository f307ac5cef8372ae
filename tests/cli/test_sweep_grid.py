"""The grid of a sweep: how values are read, combined, drawn and named."""

import pytest
from cake_errors import message_of

from cake_jax.cli import grid


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("0.1,0.01", ["0.1", "0.01"]),
        ("a", ["a"]),
        ("", [""]),
        ("('a','b')", ["('a','b')"]),
        ("('a','b'),()", ["('a','b')", "()"]),
        ("'x,y',z", ["'x,y'", "z"]),
        ("[1,(2,3)],{4,5}", ["[1,(2,3)]", "{4,5}"]),
        ("'(',b", ["'('", "b"]),
    ],
)
def test_commas_within_brackets_and_quotes_separate_nothing(text, parts):
    assert grid.split(text) == parts


def test_fields_with_several_values_are_the_grid_and_others_are_passed_on():
    arguments = [
        "--config.seed=0,1",
        "--cpu_devices=2",
        "--config.student.augment=('a','b')",
        "-config.method=cake,lake",
    ]
    fields, others = grid.parse([*arguments, "--config.synthesis.num_steps=4"])
    assert fields == {"config.seed": ["0", "1"], "config.method": ["cake", "lake"]}
    assert others == [*arguments[1:3], "--config.synthesis.num_steps=4"]


def test_points_are_all_combinations_in_order():
    points = grid.points({"config.seed": ["0", "1"], "config.method": ["cake", "lake"]})
    assert [point.arguments for point in points] == [
        [f"--config.seed={seed}", f"--config.method={method}"] for seed in (0, 1) for method in ("cake", "lake")
    ]


def test_drawn_points_are_different_points_of_the_grid():
    fields = {"config.a": list("01234"), "config.b": list("01234")}
    drawn = grid.points(fields, 10, seed=1)
    assert len(set(drawn)) == 10
    assert set(drawn) < set(grid.points(fields))
    assert drawn == grid.points(fields, 10, seed=1) != grid.points(fields, 10, seed=2)
    assert set(grid.points(fields, 99)) == set(grid.points(fields))


def test_titles_and_folders_have_the_shortest_names_that_differ():
    names = {
        "config.teacher.epochs": "3",
        "config.student.epochs": "4",
        "config.synthesis.start": "a/b",
        "config.seed": "7",
    }
    point = grid.Point(tuple(names.items()))
    assert point.title == "teacher.epochs=3, student.epochs=4, start=a/b"
    assert point.folder == "teacher.epochs=3,student.epochs=4,start=a_b,seed=7"
    assert point.teacher == grid.Point((("config.teacher.epochs", "3"), ("config.seed", "7")))
    assert grid.Point((("config.teacher.temperature", "2"),)).teacher == grid.Point(())
    assert grid.Point((("config.seed", "7"),)).title == "all seeds"
    assert grid.Point(()).folder == ""


def test_wrong_grids_are_refused():
    assert message_of(grid.points, {"config.seed": ["0", "0"]}) == "config.seed: 0,0 has a value twice"
    assert message_of(grid.points, {"config.seed": ["0", "1"]}, -1) == "random: -1 is below 0"
    assert message_of(grid.points, {}).startswith("a sweep needs a field with several values")
