"""A run's folder: whose it is, which configs it belongs to, and how the run in it is loaded."""

import json
import shutil

import pytest
import runs
from cake_errors import message_of
from runs import small_config

from cake_jax import load, load_model, load_run
from cake_jax.config import default
from cake_jax.data import DataSettings
from cake_jax.run.run_folder import claim, first_difference, locked, saved_data


def document(**fields):
    """A config as `config.json` has it."""
    config = default()
    config.update_from_flattened_dict(fields)
    return json.loads(config.to_json_best_effort())


def test_equal_configs_have_no_difference():
    assert first_difference(document(), document()) is None


def test_the_first_difference_is_named_by_its_field():
    old, new = document(), document()
    new["synthesis"]["weights"]["tv"] = 3.0
    assert first_difference(old, new) == "synthesis.weights.tv"
    del old["synthesis"]["weights"]["cls"]
    assert first_difference(old, new) == "synthesis.weights.cls"


def test_a_field_that_was_added_later_does_not_refuse_an_older_run():
    old = document()
    del old["synthesis"]["targets"]
    assert first_difference(old, document()) is None
    assert first_difference(old, document(**{"synthesis.targets": "uniform"})) == "synthesis.targets"


def test_a_run_of_an_older_version_is_recognised(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path / "run")
    old = json.loads((tmp_path / "run" / "config.json").read_text())
    del old["synthesis"]["targets"], old["log"], old["methods"]["zeroth_order"]
    (tmp_path / "run" / "config.json").write_text(json.dumps(old))
    runs.run(small_config(), tmp_path / "run")
    assert "nothing to do" in capsys.readouterr().out
    assert json.loads((tmp_path / "run" / "config.json").read_text())["synthesis"]["targets"] == "distinct"


@pytest.mark.parametrize(
    "fields",
    [
        {"methods.ideal.evenness": 3.0},
        {"methods.ideal.student.epochs": 7},
        {"log.csv": True},
        {"black_box.budget": 9},
        {"black_box.url": "http://elsewhere"},
        {"black_box.tries": 2},
        {"black_box.rows_per_second": 5.0},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_fields_that_do_not_change_the_results_are_free(fields):
    assert first_difference(document(), document(**fields)) is None


def test_settings_of_a_method_that_is_used_count():
    used = {"methods.cake.langevin_temperature": 0.5}
    assert first_difference(document(), document(**used)) == "methods.cake.langevin_temperature"
    ideal = {"method": "ideal", "methods.ideal.evenness": 3.0}
    assert first_difference(document(method="ideal"), document(**ideal)) == "methods.ideal.evenness"


def test_a_method_that_one_version_lacks_makes_no_difference():
    old = document()
    del old["methods"]["dfme"]
    assert first_difference(old, document()) is None


def test_another_config_is_refused_by_its_first_field(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    before = runs.results_of(tmp_path / "run")
    config = small_config(**{"synthesis.num_steps": 6})
    message = message_of(runs.run, config, tmp_path / "run")
    assert "differs in synthesis.num_steps" in message
    assert "--overwrite" in message
    assert runs.results_of(tmp_path / "run") == before


def test_overwriting_replaces_the_run_of_another_config(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    fields = {"synthesis.num_steps": 6, "run.student": False, "run.evaluation": False}
    results = runs.run(small_config(**fields), tmp_path / "run", overwrite=True, report=False)
    assert results["samples"]["num_steps"] == 6
    assert runs.results_of(tmp_path / "run")["samples"]["num_steps"] == 6
    assert not (tmp_path / "run" / "student").exists()


def test_a_folder_that_holds_no_run_is_not_touched(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    for overwrite in (False, True):
        assert "not empty" in message_of(runs.run, small_config(), tmp_path, overwrite=overwrite)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


def test_a_damaged_config_is_refused(finished, tmp_path):
    shutil.copytree(finished, tmp_path / "run")
    (tmp_path / "run" / "config.json").write_text("{")
    assert "config.json: damaged" in message_of(runs.run, small_config(), tmp_path / "run")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"dataset.name": "mnist", "dataset.data_dir": "nowhere"}, "dataset.data_dir"),
        ({"teacher.weights": "nowhere.safetensors"}, "teacher.weights: there is no file nowhere.safetensors"),
    ],
)
def test_a_run_whose_files_are_missing_makes_no_folder(fields, field, tmp_path):
    assert field in message_of(runs.run, small_config(**fields), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_and_its_models_are_loaded(finished):
    run = load_run(finished)
    assert run.results == json.loads((finished / "results.json").read_text())
    assert run.samples.count == 180
    assert load(finished).results == run.results
    for name in ("teacher", "student"):
        model = load_model(finished / name)
        assert model.spec == load(finished / name).spec == getattr(run, name).spec
        assert model.num_params == getattr(run, name).num_params


def test_an_unfinished_run_is_loaded_without_what_it_lacks(unfinished):
    run = load_run(unfinished)
    assert (run.student, run.results) == (None, None)
    assert run.teacher is not None
    assert run.samples.count == 180


def test_overwriting_spares_what_links_lead_to(finished, tmp_path):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "config.json").write_text((finished / "config.json").read_text())
    elsewhere.mkdir()
    (elsewhere / "kept").touch()
    (folder / "samples").symlink_to(elsewhere)
    claim(folder, {"methods": {}, "method": "cake"}, overwrite=True)
    assert [path.name for path in folder.iterdir()] == ["config.json"]
    assert (elsewhere / "kept").exists()


def test_a_run_that_fails_is_not_taken_for_a_missing_lock(tmp_path):
    with pytest.raises(NotImplementedError, match="no such operation"), locked(tmp_path, document(), False):
        raise NotImplementedError("no such operation on this device")
    with locked(tmp_path, document(), False):
        assert "another process works on this run" in message_of(locked(tmp_path, document(), False).__enter__)


def test_the_data_of_a_run_of_an_older_version_are_known(tmp_path):
    old = document(**{"dataset.name": "two_moons"})
    del old["dataset"]["class_names"], old["dataset"]["num_classes"]
    (tmp_path / "config.json").write_text(json.dumps(old))
    assert saved_data(tmp_path) == DataSettings("two_moons")


def test_what_is_not_there_is_not_loaded(tmp_path):
    assert "no run here" in message_of(load_run, tmp_path)
    assert "no model here" in message_of(load_model, tmp_path)
    (tmp_path / "student").mkdir()
    (tmp_path / "student" / "model.json").write_text("{}")
    assert message_of(load_model, tmp_path).endswith(f"did you mean {tmp_path / 'student'}?")
    assert "neither a run nor a model" in message_of(load, tmp_path)


def test_a_run_that_made_nothing_makes_room_for_another_config(tmp_path):
    """As after a file of weights that does not fit."""
    folder, (first, second) = tmp_path / "run", (document(seed=seed) for seed in (0, 1))
    claim(folder, first, overwrite=False)
    claim(folder, second, overwrite=False)
    assert json.loads((folder / "config.json").read_text()) == second
    (folder / "metrics.jsonl").write_text("")
    assert "differs in seed" in message_of(claim, folder, first, overwrite=False)
