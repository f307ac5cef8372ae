"""A long run, and how its memory, open files and threads change meanwhile."""

import subprocess
import sys
import time
from pathlib import Path

import matplotlib
import psutil
from matplotlib.figure import Figure

_ROOT = Path(__file__).parents[2]
_BATCH_SIZE = 100
# The memory of the first mini-batches, which grows while programs are compiled and caches fill, is not compared.
_WARM_SHARE = 0.1


def soak(flags, folder, kill_every, rng):
    """Runs the command until it succeeds.

    Args:
      flags: The arguments of this program.
      folder: The run's folder.
      kill_every: Seconds after each start at which a process is killed. 0 for never.
      rng: Picks the process.

    Returns:
      The log: `seconds`, the number of `starts`, the `curve`, and what it says about growth, JSON-ready.
    """
    command = [
        *(sys.executable, "-m", "cake_jax.cli", "--config=digits", f"--workdir={folder}", "--quiet"),
        *("--cpu_devices=1", f"--processes={flags.processes if flags.processes > 1 else 0}"),
        f"--config.synthesis.num_batches={-(-flags.samples // _BATCH_SIZE)}",
        f"--config.synthesis.batch_size={_BATCH_SIZE}",
        *(
            f"--config.synthesis.num_steps={flags.steps}",
            "--config.student.epochs=5",
            "--config.student.batch_size=500",
        ),
        "--config.student.memory_gb=0.05",
    ]
    started, curve, starts, code = time.monotonic(), [], 0, 1
    while code and starts < 100:
        process, starts, began = subprocess.Popen(command, cwd=_ROOT), starts + 1, time.monotonic()
        print(f"start {starts}", flush=True)
        while process.poll() is None:
            point = {"seconds": round(time.monotonic() - started, 1), "samples": num_samples(folder)}
            curve.append({**point, **measure(process.pid)})
            time.sleep(flags.every)
            if kill_every and time.monotonic() - began > kill_every:
                kill_one(process.pid, rng)
                began = float("inf")
        code = process.returncode
        if code and not kill_every:
            raise RuntimeError(f"the run ended with exit code {code}")
    log = {"seconds": round(time.monotonic() - started, 1), "starts": starts, "samples": num_samples(folder)}
    if not kill_every:
        log |= growth(curve)
    return {**log, "curve": curve}


def processes_of(pid):
    """The processes that work: the children of a launcher, or the process itself."""
    launcher = psutil.Process(pid)
    return [child for child in launcher.children() if child.is_running()] or [launcher]


def kill_one(pid, rng):
    """Sends SIGKILL to one of the processes."""
    victims = processes_of(pid)
    rng.choice(victims).kill()


def measure(pid):
    """Memory in MB, open files and threads of all processes together, and their number.

    Pages of files do not count: the system drops them when it needs their memory.
    """
    memory = files = threads = 0
    processes = []
    try:
        processes = processes_of(pid)
        for process in processes:
            with process.oneshot():
                info = process.memory_info()
                memory += info.rss - getattr(info, "shared", 0)
                files += process.num_fds()
                threads += process.num_threads()
    except psutil.Error:  # a process has ended meanwhile
        pass
    return {"memory_mb": round(memory / 2**20, 1), "files": files, "threads": threads, "processes": len(processes)}


def num_samples(folder):
    """The number of samples that the run has made."""
    index = folder / "samples" / "index.jsonl"
    return index.read_bytes().count(b"\n") * _BATCH_SIZE if index.exists() else 0


def growth(curve):
    """How much the run has grown between the first tenth of its samples and the last of them."""
    count = curve[-1]["samples"]
    warm = [point for point in curve if _WARM_SHARE * count <= point["samples"] < count]
    middle = warm[len(warm) // 2]
    rates = [
        (later["samples"] - earlier["samples"]) / (later["seconds"] - earlier["seconds"])
        for earlier, later in ((warm[0], middle), (middle, warm[-1]))
    ]
    return {
        "memory_mb": [warm[0]["memory_mb"], warm[-1]["memory_mb"]],
        "highest_memory_mb": max(point["memory_mb"] for point in curve),
        "files": [warm[0]["files"], warm[-1]["files"]],
        "threads": [warm[0]["threads"], warm[-1]["threads"]],
        "samples_per_second": [round(rate) for rate in rates],
    }


def draw(curve, path):
    """Draws the curves over time: samples, memory, and open files and threads."""
    matplotlib.rcParams["font.size"] = 9
    figure = Figure(figsize=(10, 3), layout="constrained")
    axes = figure.subplots(1, 3)
    minutes = [point["seconds"] / 60 for point in curve]
    axes[0].plot(minutes, [point["samples"] / 1e6 for point in curve])
    axes[0].set_title("samples, millions")
    axes[1].plot(minutes, [point["memory_mb"] for point in curve])
    axes[1].set_title("memory without pages of files, MB")
    axes[2].plot(minutes, [point["files"] for point in curve], label="open files")
    axes[2].plot(minutes, [point["threads"] for point in curve], label="threads")
    axes[2].set_title("open files and threads")
    axes[2].legend()
    student = next(point["seconds"] / 60 for point in curve if point["samples"] == curve[-1]["samples"])
    for axis in axes:
        axis.set(xlabel="minutes", ylim=(0, None))
        axis.spines[["top", "right"]].set_visible(False)
        axis.axvline(student, color="0.6", linestyle="--", linewidth=1)
        axis.annotate("student", (student, 0.02), xycoords=("data", "axes fraction"), rotation=90, color="0.4")
    figure.savefig(path, dpi=150)
