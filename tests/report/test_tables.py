"""The summary of a run, and the tables and figures of several runs, from made-up results."""

import made_up
import numpy as np
import pytest
from made_up import PLANE, image_model

from cake_jax.report import comparison, matrix, summary, tables
from cake_jax.stores.metrics import MetricsLog


def test_summary_shows_the_figures_of_a_run():
    text = summary(made_up.results())
    for part in ("cake, 3", "91.25%", "12,345", "87.50%", "93.75%", "0.0123", "2,000", "250", "502,000", "6.8"):
        assert part in text, part
    names = [line.split("  ")[0] for line in text.splitlines()]
    assert len(names) == len(set(names)) == 8


def test_summary_shows_a_dash_for_none():
    lines = summary(made_up.results(**made_up.NOT_EVALUATED)).splitlines()
    dashes = [line for line in lines if line.split("  ", 1)[1].strip(" ").startswith("-")]
    assert [line.split("  ")[0] for line in dashes] == [
        "teacher test accuracy",
        "student test accuracy",
        "student agrees with teacher",
        "KL(teacher || student)",
    ]
    assert "None" not in "".join(lines)


def compared(title, accuracy, **figures):
    """A run as `scripts/compare.py` passes it on. `figures` are those of its student."""
    student = made_up.NOT_EVALUATED["student"] | {"test_accuracy": accuracy} | figures
    return {"title": title, **made_up.results(student=student), "logit_gaps": None}


RUNS = [compared("a", 0.8), compared("b", 0.5), compared("a", 0.9)]


def test_comparison_shows_means_and_deviations_of_the_known_columns():
    """0.8 and 0.9 have the mean 85 % and the sample deviation 7.07 %."""
    header, line, first, second = comparison.table(RUNS).splitlines()
    assert header == "| method | accuracy, % | samples | forward queries | gradient queries | seconds |"
    assert line == "|---|---|---|---|---|---|"
    assert first == "| a | 85.00 ± 7.07 | 2,000 | 2,000 | 500,000 | 5.50 ± 0.00 |"
    assert second == "| b | 50.00 | 2,000 | 2,000 | 500,000 | 5.50 |"


def test_the_summary_has_the_agreement_without_data_if_there_is_no_other():
    results = compared("c", None, test_agreement=None) | {"starts_agreement": 0.625}
    assert dict(tables.summary_rows(results))["agreement without data"].startswith("62.50% of procedural images")
    results["student"]["test_agreement"] = 0.5
    assert "agreement without data" not in dict(tables.summary_rows(results))


def test_comparison_shows_the_guide_student_after_the_last_round():
    rounds = [{"round": number, "test_accuracy": 0.25 * number, "test_agreement": 0.9} for number in (1, 3)]
    header, _, guided, other = comparison.table([RUNS[0] | {"rounds": rounds}, RUNS[1]]).splitlines()
    place = header.split("|").index(" guide student, % ")
    assert [row.split("|")[place].strip() for row in (guided, other)] == ["75.00", "-"]


def test_comparison_shows_a_dash_for_a_method_without_the_figure():
    known = compared("c", 0.5, test_agreement=0.25, grid_agreement=0.75) | {"logit_gaps": {"start": 4.0, "end": 1.0}}
    known |= {"starts_agreement": 0.625}
    header, _, first, _, last = comparison.table([*RUNS, known]).splitlines()
    assert "| accuracy, % | agreement, % | on the grid, % | on starts, % | logit gap, end / start | samples |" in header
    assert first.startswith("| a | 85.00 ± 7.07 | - | - | - | - | 2,000 |")
    assert last.startswith("| c | 50.00 | 25.00 | 75.00 | 62.50 | 0.25 | 2,000 |")


def test_equal_logits_at_the_start_have_no_ratio():
    """A teacher whose outputs are constant gives all samples the same logits."""
    table = comparison.table([RUNS[0] | {"logit_gaps": {"start": 0.0, "end": 0.0}}])
    assert "logit gap" not in table


def test_rank_correlation_by_hand():
    """The ranks are 1, 2, 4, 3 and 1, 2, 3, 4, so Spearman's correlation is 1 - 6 (1 + 1) / (4 (16 - 1)) = 0.8."""
    pairs = [(0.1, 0.2), (0.11, 0.3), (0.9, 0.4), (0.5, 0.99)]
    assert comparison.rank_correlation([(None, 0.5), *pairs]) == pytest.approx(0.8)
    assert comparison.rank_correlation([(None, 0.5), *pairs[:2]]) is None
    assert comparison.rank_correlation(3 * pairs[:1]) is None


def test_a_long_title_is_short_in_the_figure():
    title = "lake:synthesis.start=contrasted:synthesis.weights.contr=20.0:repel=0"
    axes = comparison.accuracies([compared(title, 0.8), compared("noise", 0.5)]).axes[0]
    labels = [label.get_text() for label in axes.get_yticklabels()]
    assert labels == ["lake: start=contrasted,\ncontr=20.0, repel=0", "noise"]


def test_comparison_draws_a_line_for_each_method():
    axes = comparison.accuracies(RUNS).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["a", "b"]
    for line, expected in zip(axes.lines, ([80, 90], [85], [50], [50], [91.25, 91.25]), strict=True):
        np.testing.assert_allclose(line.get_xdata(), expected)


def test_three_students_and_their_teacher_are_two_rows_of_two_panels(tmp_path):
    records = {}
    for title in ("a", "b", "c"):
        (tmp_path / title).mkdir()
        records[title] = made_up.record(tmp_path / title, teacher=made_up.TEACHER, has_log=False)
    axes = comparison.figure(RUNS, records).axes[0]
    assert axes.get_gridspec().get_geometry() == (2, 2)


@pytest.mark.parametrize(("teacher", "panels"), [(made_up.TEACHER, 3), (image_model(), 1)])
def test_comparison_draws_regions_of_the_plane_else_accuracies(teacher, panels, tmp_path):
    records = {}
    for title in ("a", "b"):
        (tmp_path / title).mkdir()
        records[title] = made_up.record(tmp_path / title, teacher=teacher, student=teacher, has_log=False)
    axes = comparison.figure(RUNS, records).axes
    assert len(axes) == panels
    assert (axes[0].get_title() == "teacher") == (teacher.spec == PLANE)


def test_logit_gaps_are_medians_over_the_mini_batches(tmp_path):
    assert comparison.logit_gaps(made_up.synthesis_log(tmp_path, batches=3)) == {"start": 2.0, "end": 0.5}


def test_logit_gaps_of_a_method_that_logs_none(tmp_path):
    log = MetricsLog(tmp_path / "metrics.jsonl")
    log.write("synthesis", 0, target_accuracy=1.0)
    assert comparison.logit_gaps(log) is None


def cell(variant, teacher, student, seed=0):
    """A run as `scripts/matrix.py` passes it on."""
    accuracies = {name: {"test_accuracy": value} for name, value in (("teacher", teacher), ("student", student))}
    whole = made_up.results()
    return made_up.results(
        variant=variant, seed=seed, **{name: whole[name] | values for name, values in accuracies.items()}
    )


CELLS = [cell("x-x", 0.99, 0.98), cell("x-y", 0.99, 0.6), cell("y-y", 0.95, 0.94), cell("y-x-smoke", 0.95, 0.5)]


def test_matrix_shows_a_row_for_each_teacher():
    expected = ["| teacher | x | y |", "|---|---|---|", "| x, 99.0 | 98.0 | 60.0 |", "| y, 95.0 | 50.0 | 94.0 |"]
    assert matrix.table(CELLS, ["x", "y"]).splitlines() == expected


def test_matrix_shows_a_dash_for_a_run_that_is_not_done():
    lines = matrix.table(CELLS[:1], ["x", "y"]).splitlines()
    assert lines[2:] == ["| x, 99.0 | 98.0 | - |", "| y | - | - |"]


def test_heat_map_shows_the_table():
    axes = matrix.heat_map(CELLS, ["x", "y"]).axes[0]
    np.testing.assert_allclose(axes.images[0].get_array(), [[98, 60], [50, 94]])
    assert [text.get_text() for text in axes.texts] == ["98.0", "60.0", "50.0", "94.0"]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["x", "y"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["x\n99.0 %", "y\n95.0 %"]


# A second seed of the first two cells. The means are 97 and 62 %, the deviations 1.41 and 2.83, and the teacher's 0.71.
TRIALS = [*CELLS, cell("x-x", 0.98, 0.96, seed=1), cell("x-y", 0.98, 0.64, seed=1)]


def test_matrix_shows_the_deviations_over_the_seeds():
    lines = matrix.table(TRIALS, ["x", "y"]).splitlines()
    assert lines[2] == "| x, 98.5 ± 0.7 | 97.0 ± 1.4 | 62.0 ± 2.8 |"
    axes = matrix.heat_map(TRIALS, ["x", "y"]).axes[0]
    assert [text.get_text() for text in axes.texts] == ["97.0\n± 1.4", "62.0\n± 2.8", "50.0", "94.0"]


def test_bars_have_the_means_the_deviations_and_the_teachers():
    axes = matrix.bars(TRIALS, ["x", "y"]).axes[0]
    of_x, of_y = axes.containers[1], axes.containers[3]
    np.testing.assert_allclose([bar.get_height() for bar in of_x], [97, 50])
    np.testing.assert_allclose([bar.get_height() for bar in of_y], [62, 94])
    (ends,) = of_y.errorbar.lines[2]
    np.testing.assert_allclose(ends.get_segments()[0][:, 1], [62 - 8**0.5, 62 + 8**0.5])
    teachers = [lines.get_segments()[0][0, 1] for lines in axes.collections if len(lines.get_segments()) == 1]
    np.testing.assert_allclose(teachers, [98.5, 95])
