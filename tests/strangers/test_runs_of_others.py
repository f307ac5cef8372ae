"""Run folders that somebody made to do harm: models, samples, logs, results and pictures."""

import hashlib
import io
import json
import os
import shutil
import sys
import zipfile

import numpy as np
import pytest
import runs
from cake_errors import message_of
from hostile_arrays import npy, npy_header, pickled
from limits import little_memory, little_time

import cake_jax
from cake_jax import files, models
from cake_jax.cli import many_runs
from cake_jax.config import default, resolve
from cake_jax.export import export
from cake_jax.files import write_atomically
from cake_jax.report import side_by_side
from cake_jax.run import run_folder
from cake_jax.run.synthesis_stage import stored_samples
from cake_jax.stores.checkpoint import load_model, model_info, save_model
from cake_jax.stores.metrics import MetricsLog
from cake_jax.stores.samples import INDEX, SampleStore
from cake_jax.teachers import from_linen
from cake_jax.types import DataSpec, SampleBatch

SPEC = DataSpec((2,), 3)
NESTED = "[" * 100_000
RESULTS = {
    "config_name": "default",
    "variant": "",
    "method": "cake",
    "seed": 3,
    "teacher": {"test_accuracy": 0.9, "num_params": 9},
    "student": {"test_accuracy": 0.9, "test_agreement": 0.9, "test_kl": 0.1, "grid_agreement": None, "num_params": 9},
    "samples": {"count": 6, "num_steps": 2, "teacher_queries": 6},
    "queries": {"synthesis": {"forward": 6, "gradient": 0}},
    "seconds": {"teacher": 1.0, "synthesis": 1.0, "student": 1.0, "total": 3.0},
}


def samples():
    x, number = np.ones((6, 2), np.float32), np.arange(6, dtype=np.int32)
    return SampleBatch(x, np.zeros((6, 3), np.float32), number % 3, np.ones(6, np.float32), number)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a finished run, which no test changes."""
    folder = tmp_path_factory.mktemp("whole")
    for name in ("teacher", "student"):
        module = models.create("logistic_regression", SPEC)
        variables = {"params": {"Dense_0": {"kernel": np.ones((2, 3), np.float32), "bias": np.zeros(3, np.float32)}}}
        save_model(folder / name, from_linen(module, variables, SPEC), "logistic_regression", {})
    SampleStore(folder / "samples").append(0, samples(), queries={"forward": 6, "gradient": 0})
    MetricsLog(folder / "metrics.jsonl").write("teacher", 1, loss=0.5)
    (folder / "config.json").write_text(default().to_json())
    (folder / "results.json").write_text(json.dumps(RESULTS))
    (folder / "figures").mkdir()
    (folder / "figures" / "training.png").write_bytes(b"a picture")
    return folder


@pytest.fixture
def run(whole, tmp_path):
    """A copy of the folder of a finished run."""
    return shutil.copytree(whole, tmp_path / "run")


def change_json(path, change):
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def shard_of(arrays, compression=zipfile.ZIP_STORED):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                for part in [array] if isinstance(array, bytes) else array:
                    file.write(part)
    return content.getvalue()


def arrays_of(samples):
    return {name: npy(array) for name, array in samples._asdict().items()}


def replace_shard(store, content, **changes):
    """Another shard of the first mini-batch, with its true checksum in the index."""
    (entry,) = [json.loads(line) for line in (store / INDEX).read_text().splitlines()]
    (store / entry["file"]).write_bytes(content)
    entry |= {"sha256": hashlib.sha256(content).hexdigest(), **changes}
    (store / INDEX).write_text(json.dumps(entry) + "\n")


# Loading


def test_loading_a_run_imports_and_runs_nothing_that_its_config_names(run, tmp_path, monkeypatch):
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    config = json.loads((run / "config.json").read_text())
    config["black_box"] |= {"function": "evil:answer", "url": "http://127.0.0.1:1/"}
    config["teacher"] |= {"from_run": "../evil", "weights": "evil.pt"}
    config["dataset"] |= {"name": "npz", "data_dir": "/dev/zero", "class_names": "/dev/zero"}
    (run / "config.json").write_text(json.dumps(config))
    loaded = cake_jax.load_run(run)
    assert loaded.teacher(np.zeros((1, 2), np.float32)).shape == (1, 3)
    side_by_side.write(tmp_path / "page.html", many_runs.finished([run]))
    assert "evil" not in sys.modules


@pytest.mark.parametrize("content", [NESTED, "[]", "7", '"x"', "{", "\0", "NaN", "1" * 5000])
@pytest.mark.parametrize("name", ["config.json", "results.json"])
def test_a_run_of_another_form_is_one_line(name, content, run):
    (run / name).write_text(content)
    assert message_of(many_runs.finished, [run]).startswith(f"{run / name}: ")
    if name == "results.json":
        assert message_of(cake_jax.load_run, run).startswith(f"{run / name}: ")
    else:
        assert message_of(run_folder.claim, run, default().to_dict(), False).startswith(f"{run / name}: damaged")


@pytest.mark.parametrize(
    "change",
    [
        lambda results: results.pop("seconds"),
        lambda results: results.update(seed="<script>"),
        lambda results: results.update(method=["x"]),
        lambda results: results.update(student=[]),
        lambda results: results["student"].update(test_accuracy="<img src=x onerror=alert(1)>"),
        lambda results: results["samples"].update(count=10**400),
        lambda results: results.update(queries={"synthesis": {"forward": "x", "gradient": 0}}),
        lambda results: results.update(seconds={"total": "1"}),
        lambda results: results.update(seconds={"total": 1.0}),
        lambda results: results.update(warnings=7),
        lambda results: results.update(warnings=[["x"]]),
    ],
)
def test_results_of_another_form_are_one_line(change, run):
    change_json(run / "results.json", change)
    assert message_of(many_runs.finished, [run]).startswith(f"{run / 'results.json'}: ")


@pytest.mark.parametrize("name", ["config.json", "results.json", "metrics.jsonl", "samples/index.jsonl"])
@pytest.mark.parametrize("kind", ["FIFO", "device"])
def test_pipes_and_devices_in_a_run_do_not_hang(name, kind, run):
    (run / name).unlink()
    if kind == "FIFO":
        os.mkfifo(run / name)
    else:
        (run / name).symlink_to("/dev/zero")
    call = {
        "metrics.jsonl": lambda: MetricsLog(run / "metrics.jsonl").read(),
        "samples/index.jsonl": lambda: SampleStore(run / "samples"),
    }.get(name, lambda: many_runs.finished([run]))
    with little_time(), little_memory():
        assert message_of(call) == f"{run / name}: not a regular file"


# Models


@pytest.mark.parametrize(
    "change",
    [
        lambda about: about.update(model=[]),
        lambda about: about["model"].update(name="os.system"),
        lambda about: about["model"].update(name=["mlp"]),
        lambda about: about["model"].update(options=[1]),
        lambda about: about["model"].update(options={"__class__": "x"}),
        lambda about: about["model"].update(name="mlp", options={"num_hidden": 10**9}),
        lambda about: about["model"].update(name="resnet18", options={"blocks": [10**9] * 4}),
        lambda about: about["model"].update(name="cnn", options={"features": [1] * 100_000}),
        lambda about: about["model"].update(name="mlp", options={"width": 10**13}),
        lambda about: about["model"].update(name="mlp", options={"width": -5}),
        lambda about: about["model"].update(name="mlp", options={"width": "os.system"}),
        lambda about: about["spec"].update(shape=[10**6, 10**6]),
        lambda about: about["spec"].update(shape=[10**400]),
        lambda about: about["spec"].update(shape=[-2]),
        lambda about: about["spec"].update(num_classes=10**12),
        lambda about: about["spec"].update(mean=["x"]),
        lambda about: about["spec"].update(class_names=["a\nb", "b", "c"]),
        lambda about: about["spec"].update(class_names=["\u001b[2J", "b", "c"]),
        lambda about: about["spec"].update(function="os.system"),
    ],
)
def test_a_description_of_a_model_that_does_harm_is_one_line(change, run):
    change_json(run / "teacher" / "model.json", change)
    with little_time():
        assert message_of(load_model, run / "teacher").startswith(f"{run / 'teacher'}/")
        assert message_of(cake_jax.load_run, run).startswith(f"{run / 'teacher'}/")


@pytest.mark.parametrize(
    "about", [[], {}, {"model": [], "spec": {}}, {"model": {"name": 1, "options": {}}, "spec": {}}]
)
def test_a_description_without_its_fields_is_refused(about, run):
    path = run / "teacher" / "model.json"
    path.write_text(json.dumps(about))
    assert message_of(model_info, run / "teacher") == f"{path}: damaged; train the model again"


@pytest.mark.parametrize("content", [NESTED, '{"model": {"name": "mlp", "options": {}}, "spec": {"shape": "x"}}'])
def test_the_specification_of_an_earlier_run_is_checked(content, run):
    (run / "teacher" / "model.json").write_text(content)
    assert message_of(run_folder.saved_spec, None, str(run)).startswith(f"{run / 'teacher' / 'model.json'}: ")


def test_a_pipe_in_place_of_a_checksum_does_not_hang(run):
    (run / "teacher" / "variables" / "sha256").unlink()
    os.mkfifo(run / "teacher" / "variables" / "sha256")
    with little_time():
        assert "not a regular file" in message_of(load_model, run / "teacher")


# Samples


@pytest.mark.parametrize(
    "changes",
    [
        {"file": "../../outside.npz"},
        {"file": "{tmp}/outside.npz"},
        {"file": "a/../../../outside.npz"},
        {"file": ["x"]},
        {"count": -1},
        {"count": "6"},
        {"count": 1e15},
        {"batch": "0"},
        {"batch": None},
        {"step_size": "x"},
        {"sha256": None},
        {"queries": 7},
        {"queries": {"forward": "x"}},
        {"shape": 2},
    ],
)
def test_a_line_of_the_index_that_does_harm_is_refused(changes, run, tmp_path):
    store = run / "samples"
    (entry,) = [json.loads(line) for line in (store / INDEX).read_text().splitlines()]
    content = (store / entry["file"]).read_bytes()
    (tmp_path / "outside.npz").write_bytes(content)
    (store / "a").mkdir()
    changed = {
        name: value.format(tmp=tmp_path) if name == "file" and isinstance(value, str) else value
        for name, value in changes.items()
    }
    (store / INDEX).write_text(json.dumps(entry | changed) + "\n")
    assert message_of(SampleStore, store) == f"{store / INDEX}: line 1 is damaged; delete the line and run again"


def test_nested_lists_in_the_index_are_refused(run):
    (run / "samples" / INDEX).write_text(NESTED + "\n")
    assert "line 1 is damaged" in message_of(SampleStore, run / "samples")


@pytest.mark.parametrize("count", [10**15, 10**9, 7, 5, 0])
@pytest.mark.parametrize("limit", [np.inf, 0])
def test_a_count_that_the_shard_lacks_is_refused(count, limit, run):
    store = run / "samples"
    second = samples()
    SampleStore(store).append(1, second)
    lines = [json.loads(line) for line in (store / INDEX).read_text().splitlines()]
    lines[1]["count"] = count
    (store / INDEX).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with little_memory():
        opened = SampleStore(store)
        assert message_of(opened.read, 1).startswith(f"{store / lines[1]['file']}: not the samples that the index says")
        try:
            message = message_of(opened.select, memory_limit=limit)
        except OSError as error:  # a file of this size is refused by the system
            assert limit == 0
            message = f"{store}: {error.strerror}"
    assert message.startswith(f"{store}")


@pytest.mark.parametrize("field", ["x", "logits", "target", "step_size", "set_index"])
def test_objects_in_a_shard_run_no_code(field, run, tmp_path):
    store, trace = run / "samples", tmp_path / "trace"
    replace_shard(store, shard_of(arrays_of(samples()) | {field: pickled(trace)}))
    message = message_of(SampleStore(store).select)
    assert message.startswith(f"{store / 'batch-000000.npz'}: not the samples that the index says: ")
    assert message_of(export, store, tmp_path / "samples.npz") == message
    assert not trace.exists()


@pytest.mark.parametrize("shape", [(10**12, 2), (2**62, 2**62), (-6, 2), (6, 10**6, 10**6), ()])
def test_a_header_in_a_shard_that_claims_too_much_is_refused(shape, run):
    store = run / "samples"
    replace_shard(store, shard_of(arrays_of(samples()) | {"x": npy_header(shape)}))
    with little_memory():
        assert message_of(SampleStore(store).select).startswith(f"{store / 'batch-000000.npz'}: not the samples")


def test_a_shard_that_unpacks_to_far_more_than_its_size_is_refused(run, monkeypatch):
    monkeypatch.setattr(files, "_UNPACKED_BYTES", 2**24)
    store = run / "samples"
    zeros = [npy_header((6, 10**7), "|u1"), *[bytes(10**7)] * 6]
    arrays = arrays_of(samples()) | {"x": zeros}
    replace_shard(store, shard_of(arrays, zipfile.ZIP_DEFLATED))
    assert "the shard: unpacks to 0.1 GB" in message_of(SampleStore(store).select)


@pytest.mark.parametrize("content", [b"", b"no archive", npy(np.ones((6, 2)))])
def test_another_file_in_place_of_a_shard_is_refused(content, run):
    replace_shard(run / "samples", content)
    assert "not the samples that the index says" in message_of(SampleStore(run / "samples").select)


def test_shards_of_other_shapes_are_refused(run):
    x = np.ones((6, 1), np.float32)  # NumPy would repeat its column
    SampleStore(run / "samples").append(1, samples()._replace(x=x))
    message = message_of(SampleStore(run / "samples").select)
    assert message == f"{run / 'samples'}: mini-batches 0 and 1 have other shapes"


def test_samples_of_another_teacher_are_refused(run, tmp_path):
    settings = resolve(runs.small_config(**{"synthesis.from_run": str(run)}))
    message = message_of(stored_samples, None, settings, tmp_path, None, None, None)
    assert message == (
        f"synthesis.from_run: the samples in {run / 'samples'} have shape (2,) and 3 classes, not (2,) and 2"
    )


def test_a_shard_of_texts_is_refused(run):
    texts = samples()._replace(x=np.full((6, 2), "x"))
    replace_shard(run / "samples", shard_of(arrays_of(texts)))
    assert "x has shape (6, 2) and type <U" in message_of(SampleStore(run / "samples").select)


# Logs


@pytest.mark.parametrize("line", [NESTED, "7", "{}", '{"stage": 1, "step": 1}', '{"stage": "teacher"}', "\udcff", "{"])
def test_a_line_of_the_log_of_another_form_is_refused(line, run):
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(line.encode(errors="surrogateescape") + b"\n")
    message = message_of(MetricsLog(run / "metrics.jsonl").read, "teacher")
    assert message == f"{run / 'metrics.jsonl'}: line 2 is damaged; delete the line and run again"


# Pages and writing


@pytest.mark.parametrize("place", ["file", "folder"])
def test_a_picture_that_leads_out_of_a_run_is_not_embedded(place, run, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "training.png").write_bytes(b"a secret")
    if place == "file":
        (run / "figures" / "training.png").unlink()
        (run / "figures" / "training.png").symlink_to(tmp_path / "private" / "training.png")
    else:
        (run / "figures").rename(run / "others")
        (run / "figures").symlink_to(tmp_path / "private")
    message = message_of(side_by_side.write, tmp_path / "page.html", many_runs.finished([run]))
    assert message == f"{run / 'figures' / 'training.png'}: leads out of {run}; delete the link"
    assert not (tmp_path / "page.html").exists()


def test_names_and_settings_of_others_are_no_html_of_the_page(run, tmp_path):
    script = "<script>alert(1)</script>"
    other = run.rename(tmp_path / "x<img src=x onerror=alert(1)>")
    change_json(other / "config.json", lambda config: config["dataset"].update(name=script))
    change_json(other / "results.json", lambda results: results.update(warnings=[script], variant=script))
    second = tmp_path / "second"
    second.mkdir()
    for name in ("config.json", "results.json"):
        (second / name).write_bytes((other / name).read_bytes())
    change_json(second / "config.json", lambda config: config["dataset"].update(name="mnist"))
    side_by_side.write(tmp_path / "page.html", many_runs.finished([other, second]))
    page = (tmp_path / "page.html").read_text()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "<script>" not in page
    assert "<img src=x" not in page


def test_a_link_in_place_of_a_temporary_file_is_not_followed(tmp_path):
    private = tmp_path / "private"
    private.write_text("mine")
    (tmp_path / "index.jsonl.tmp").symlink_to(private)
    write_atomically(tmp_path / "index.jsonl", b"new")
    assert (private.read_text(), (tmp_path / "index.jsonl").read_text()) == ("mine", "new")
