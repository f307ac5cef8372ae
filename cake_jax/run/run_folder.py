"""A run's folder: the names of its files, its config, and the loading of finished and unfinished runs."""

import contextlib
import dataclasses
import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock, Timeout

from cake_jax.data import DataSettings
from cake_jax.files import read_json, write_atomically
from cake_jax.stores import checkpoint
from cake_jax.stores.samples import SampleStore
from cake_jax.teachers import Teacher, with_temperature
from cake_jax.types import CakeError, DataSpec

CONFIG, RESULTS, METRICS, REPORT = "config.json", "results.json", "metrics.jsonl", "report.html"
TEACHER, SAMPLES, STUDENT, ROUNDS = "teacher", "samples", "student", "rounds"
FIGURES, TRACES, BASELINE = "figures", "profile", "baseline"
_LOCK = "run.lock"

# Fields that do not change the results of a run.
_FREE = (
    *(f"black_box.{name}" for name in ("budget", "url", "authorization", "timeout", "max_rows", "tries")),
    *(f"black_box.{name}" for name in ("rows_per_second", "requests_per_second")),
)
_FREE_SECTIONS = ("log.",)
# Fields that earlier versions did not have. Their values here keep the earlier behaviour.
_ADDED_FIELDS = {
    "run.baseline": False,
    "synthesis.targets": "distinct",
    "dataset.class_names": "",
    "dataset.shape": [],
    "dataset.num_classes": 0,
    "teacher.precision": "float32",
    "teacher.temperature": 1.0,
    "student.precision": "float32",
    "student.distance": "kl",
    "student.views.ask": False,
    "student.views.fresh": [],
    "student.views.fresh_share": 0.5,
    "student.views.mixup": 0.0,
    "student.views.cutmix": 0.0,
    "student.views.adversary": 0.0,
    "student.views.adversary_every": 5,
    "student.views.adversary_rate": 1e-3,
    "student.from_run": "",
    "synthesis.candidates": 1,
    "synthesis.clip": False,
    "synthesis.weights.l2": 0.0,
    "methods.inversion.jitter": 0,
    "methods.inversion.flip": False,
}


class Run(NamedTuple):
    """A run, loaded from its folder.

    Attributes:
      teacher: The teacher at the run's `teacher.temperature`, or None.
      student: The student, or None.
      samples: The sample store. It is empty if no samples were made.
      results: The content of `results.json`, or None if the run is unfinished.
    """

    teacher: Teacher | None
    student: Teacher | None
    samples: SampleStore
    results: dict[str, Any] | None


def load_run(folder: str | Path) -> Run:
    """Loads a run, finished or not.

    Args:
      folder: The run's folder.

    Raises:
      CakeError: The folder holds no run, or a model in it is damaged.
    """
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        raise CakeError(f"{folder}: no run here ({CONFIG} is missing)")
    teacher, student = (
        checkpoint.load_model(folder / name) if checkpoint.has_model(folder / name) else None
        for name in (TEACHER, STUDENT)
    )
    teacher = teacher and with_temperature(teacher, saved_temperature(folder))
    return Run(teacher, student, SampleStore(folder / SAMPLES), saved_results(folder))


def load(folder: str | Path) -> Run | Teacher:
    """Loads the model if the folder holds one, else the run."""
    if checkpoint.has_model(Path(folder)):
        return checkpoint.load_model(folder)
    if not (Path(folder) / CONFIG).exists():
        raise CakeError(f"{folder}: neither a run nor a model")
    return load_run(folder)


def saved_results(folder: Path) -> dict[str, Any] | None:
    """The content of `results.json`. None if the run is unfinished.

    Raises:
      CakeError: The file is damaged.
    """
    return _read_dict(folder / RESULTS) if (folder / RESULTS).exists() else None


def saved_config(folder: Path) -> dict[str, Any]:
    """The config with which a run was started, as nested dicts.

    Raises:
      CakeError: The folder holds no run, or the file is damaged.
    """
    if not (folder / CONFIG).exists():
        raise CakeError(f"{folder}: no run here ({CONFIG} is missing)")
    return _read_dict(folder / CONFIG)


def _read_dict(path: Path) -> dict[str, Any]:
    content = read_json(path)
    if not isinstance(content, dict):
        raise CakeError(f"{path}: damaged; it has no fields")
    return content


def model_folder(run: str, part: str) -> Path:
    """The folder of an earlier run's model: `run` itself if it holds a model, else its folder `part`."""
    folder = Path(run)
    return folder if checkpoint.has_model(folder) else folder / part


def saved_spec(workdir: Path | None, from_run: str) -> DataSpec | None:
    """The specification of a teacher that exists already.

    Args:
      workdir: The run's folder. None if its content will be deleted.
      from_run: Folder of an earlier run with a teacher, or empty.

    Returns:
      The specification saved with the teacher. None if there is no teacher yet.
    """
    if workdir is not None and checkpoint.has_model(workdir / TEACHER):
        folder = workdir / TEACHER
    elif from_run:
        folder = model_folder(from_run, TEACHER)
    else:
        return None
    return checkpoint.model_spec(folder)


def saved_data(folder: Path) -> DataSettings:
    """The data set of a run.

    Raises:
      CakeError: The folder holds no run, or its config is damaged.
    """
    match saved_config(folder):
        case {"dataset": dict() as section}:
            names = [field.name for field in dataclasses.fields(DataSettings)]
            return DataSettings(**{name: section[name] for name in names if name in section and name != "shape"})
    raise CakeError(f"{folder / CONFIG}: it names no data set")


def saved_temperature(folder: Path) -> float:
    """The number by which a run divides its teacher's logits. 1 for runs of earlier versions, and without a run.

    Raises:
      CakeError: The run's config is damaged.
    """
    match saved_config(folder) if (folder / CONFIG).exists() else {}:
        case {"teacher": {"temperature": float() | int() as temperature}}:
            return temperature
    return 1.0


def saved_budget(workdir: Path | None, method: str) -> int | None:
    """The budget with which an unfinished run began its samples, so that it resumes with the same samples.

    Args:
      workdir: The run's folder. None if its content will be deleted.
      method: The run's method.

    Returns:
      The method's own budget in the saved config. None if there is none.
    """
    if workdir is None or not _holds_run(workdir):
        return None
    try:
        saved = saved_config(workdir)
        return saved["methods"][method].get("budget") if saved["method"] == method else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return None  # `claim` refuses such a folder


def finished_results(workdir: Path, document: Mapping[str, Any]) -> dict[str, Any] | None:
    """The content of `results.json`. None unless the folder holds the finished run of this config.

    Args:
      workdir: The run's folder.
      document: The config, JSON-ready.

    Raises:
      CakeError: The folder holds another run, or something in it is damaged.
    """
    results = saved_results(workdir)
    if results is not None:
        _check_claim(workdir, document)
    return results


def claim(workdir: Path, document: Mapping[str, Any], overwrite: bool) -> bool:
    """Claims the folder for a config, and writes the config into it.

    Args:
      workdir: The run's folder.
      document: The config, JSON-ready.
      overwrite: Whether a run that the folder holds is deleted first.

    Returns:
      Whether the folder holds a run of this config.

    Raises:
      CakeError: The folder holds another run, or files that are not a run.
    """
    path = workdir / CONFIG
    if overwrite and path.exists():
        _empty(workdir)
    _check_claim(workdir, document)
    holds_run, content = _holds_run(workdir), json.dumps(document, indent=1).encode()
    if not path.exists() or path.read_bytes() != content:
        workdir.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
    return holds_run


def _check_claim(workdir: Path, wanted: Mapping[str, Any]) -> None:
    """Refuses a folder that holds another run, or files that are not a run."""
    path = workdir / CONFIG
    if _holds_run(workdir):
        try:
            field = first_difference(saved_config(workdir), wanted)
        except (ValueError, TypeError) as error:
            raise CakeError(f"{path}: damaged; use another --workdir, or --overwrite") from error
        if field:
            raise CakeError(
                f"{workdir}: holds a run with another config, which differs in {field}; "
                "use another --workdir, or --overwrite"
            )
    elif workdir.exists() and any(other.name not in (CONFIG, f"{CONFIG}.tmp", _LOCK) for other in workdir.iterdir()):
        raise CakeError(f"{workdir}: is not empty and holds no run; use another --workdir")


@contextlib.contextmanager
def locked(workdir: Path, document: Mapping[str, Any], overwrite: bool) -> Iterator[None]:
    """Keeps other processes out of the folder in this context. The system frees the lock if the process dies.

    Args:
      workdir: The run's folder. It is made if it is missing.
      document: The config, JSON-ready.
      overwrite: Whether a run that the folder holds will be deleted.

    Raises:
      CakeError: Another process has the lock, or the folder cannot be claimed. Then the folder is unchanged.
    """
    if not (overwrite and (workdir / CONFIG).exists()):
        _check_claim(workdir, document)
    workdir.mkdir(parents=True, exist_ok=True)
    try:
        held = FileLock(workdir / _LOCK).acquire(timeout=0)
    except Timeout as error:
        raise CakeError(
            f"{workdir}: another process works on this run; wait until it ends, or use another --workdir. If there is "
            "none, the file system has no locks, and --workdir must be on another one"
        ) from error
    except NotImplementedError as error:
        raise CakeError(f"{workdir}: the file system has no locks; use a --workdir on another one") from error
    with held:
        yield


def _empty(workdir: Path) -> None:
    """Deletes everything in the folder but the lock, which this process may hold, and the config last of all."""
    for path in sorted(workdir.iterdir(), key=lambda path: path.name == CONFIG):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != _LOCK:
            path.unlink()


def _holds_run(workdir: Path) -> bool:
    """Whether a folder holds a run. One that failed before it wrote more than its config does not count."""
    return (workdir / CONFIG).exists() and any(other.name not in (CONFIG, _LOCK) for other in workdir.iterdir())


def first_difference(old: Mapping[str, Any], new: Mapping[str, Any]) -> str | None:
    """Finds the first field that makes the results of two configs differ.

    Settings of methods that neither config uses are ignored. If `old` lacks a field because it comes from an earlier
    version, the field counts with the value that keeps the earlier behaviour.

    Args:
      old: A config as nested dicts. It may come from an earlier version with fewer fields.
      new: Another config, with all fields.

    Returns:
      The field's name. None if both configs give the same results.
    """
    before, after = {**_ADDED_FIELDS, **dict(flat(old))}, dict(flat(new))
    unused = {*old.get("methods", {}), *new["methods"]} - {old.get("method"), new["method"]}
    idle = tuple(f"methods.{name}." for name in unused)
    names = sorted(
        name for name in before | after if name not in _FREE and not name.startswith((*idle, *_FREE_SECTIONS))
    )
    return next((name for name in names if before.get(name) != after.get(name)), None)


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the leaves of nested dicts, each with its dotted name."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
