"""The faults. Each is a function of a `Trial` that starts the run, does something to it, and leaves it ended."""

import contextlib
import os
import resource
import shutil
import signal
import subprocess
import time

from http_server import LIES
from trial import rows, shards

from cake_jax.stopping import EXIT_CODE

_STOP_SECONDS = 10.0


class NotPossibleError(Exception):
    """The machine or the user's rights do not allow the fault."""


def kill(trial):
    """SIGKILL, after which the process can do nothing."""
    process = trial.start()
    trial.wait_for_moment(process)
    trial.events.append(f"exit code {trial.kill(process)}")


def terminate(trial):
    """SIGTERM, as before a preemption. The run saves, and loses no epoch and no mini-batch that it has logged."""
    process = trial.start(saves_always=False)
    works = trial.wait_for_moment(process)
    has_begun, start = trial.folder.exists(), time.monotonic()
    process.signal(signal.SIGTERM)
    code = process.wait(60.0)
    seconds = time.monotonic() - start
    trial.events.append(f"exit code {code} after {seconds:.1f} s")
    trial.expect(seconds <= _STOP_SECONDS, f"it took {seconds:.1f} s to stop")
    if code == 0 or (code == -signal.SIGTERM and not has_begun):
        return
    trial.expect(works and code == EXIT_CODE, f"exit code {code}")
    trial.expect("run the same command again to go on" in process.text, "no line says how to go on")
    trial.kept_lines = rows(trial.folder)


def full_disk(trial):
    """A disk without room, at a random moment."""
    with _small_disk(trial) as fill:
        process = trial.start()
        trial.wait_for_moment(process)
        fill(process)
        trial.expect_failure(process)


def read_only(trial):
    """A folder in which nothing can be written any more, from a random moment on."""
    process = trial.start()
    trial.wait_for_moment(process, least=1)
    with _frozen(trial.folder):
        trial.expect_failure(process)


def damage(trial):
    """A shard or a checkpoint of a killed run is cut, or one of its bytes is changed."""
    process = trial.start()
    trial.wait_for_moment(process, least=2)
    trial.kill(process)
    targets = [] if (trial.folder / "results.json").exists() else _checked_files(trial.folder)
    if not targets:
        trial.events.append("there was nothing to damage")
        return
    path = targets[int(trial.rng.integers(len(targets)))]
    content = bytearray(path.read_bytes())
    place = int(trial.rng.integers(len(content)))
    if trial.rng.random() < 0.5:
        path.write_bytes(content[:place])
        trial.events.append(f"{path.relative_to(trial.folder)} was cut to {place} bytes")
    else:
        content[place] ^= 1 << int(trial.rng.integers(8))
        path.write_bytes(content)
        trial.events.append(f"byte {place} of {path.relative_to(trial.folder)} was changed")
    if path.suffix == ".npz":
        trial.damaged.add(int(path.stem.rpartition("-")[2]))
        trial.named = path.name
    else:
        trial.named = next(part for part in ("training", "student", "teacher", "rounds") if part in path.parts)


def two_runs(trial):
    """The same command is started a second time while the first works."""
    first = trial.start()
    trial.wait_for_moment(first)
    second = trial.start()
    codes = [process.wait() for process in (first, second)]
    trial.events.append(f"exit codes {codes}")
    refused = [process.text for process, code in zip((first, second), codes, strict=True) if code == 1]
    trial.expect(sorted(codes) in ([0, 0], [0, 1]), f"exit codes {codes}")
    trial.expect(all("another process works on this run" in text for text in refused), f"it says {refused}")
    if len(refused) == 0:  # the second came when the first had ended
        trial.expect("nothing to do" in second.text, "both runs worked")


def clock(trial):
    """The clock jumps by minutes to years while the run works. It is killed, and its files get times as far away."""
    by = float(trial.rng.choice([-1, 1]) * 10 ** trial.rng.uniform(3, 8.5))
    process = trial.start(clock=(float(trial.rng.uniform(0, 3)), by))
    trial.wait_for_moment(process)
    trial.kill(process)
    for number, path in enumerate(sorted(trial.folder.rglob("*"))):
        then = time.time() + abs(by) * (-1) ** number  # one file of the past, one of the future
        os.utime(path, (then, then))
    trial.events.append(f"the clock jumped by {by:.0f} s")


def server_hangs(trial):
    """The server keeps requests without an answer, longer than the client waits."""
    _serve_badly(trial, "hangs when done")


def server_lies(trial):
    """The server announces another length than that of its answer."""
    _serve_badly(trial, str(trial.rng.choice(LIES[:2])))


def server_answers_twice(trial):
    """The server sends its answer twice, the second time at once or later."""
    _serve_badly(trial, str(trial.rng.choice(LIES[2:])))


def server_dies(trial):
    """The server ends, and is back at the same address after up to four seconds."""
    first, seconds = int(trial.rng.integers(1, 15)), float(trial.rng.uniform(0, 4))
    process = trial.start()
    while len(trial.memory.keys) < first and process.poll() is None:
        time.sleep(0.002)
    server = trial.server
    server.failure = lambda number, memory: "dropped"
    server.shutdown()
    server.server_close()
    time.sleep(seconds)
    trial.serve(server.server_port)
    trial.events.append(f"dead for {seconds:.1f} s after request {first}")
    trial.expect_failure(process)


FAULTS = {
    "kill": kill,
    "terminate": terminate,
    "full disk": full_disk,
    "read-only folder": read_only,
    "damage": damage,
    "two runs": two_runs,
    "clock": clock,
    "server hangs": server_hangs,
    "server lies": server_lies,
    "server answers twice": server_answers_twice,
    "server dies": server_dies,
}


def _serve_badly(trial, failure):
    first, count = int(trial.rng.integers(1, 15)), int(trial.rng.integers(1, 4))
    trial.server.failure = lambda number, memory: failure if first <= number < first + count else None
    process = trial.start()
    trial.events.append(f"{failure}: {count} requests from request {first} on")
    trial.expect_failure(process)
    trial.server.failure = lambda number, memory: None


def _checked_files(folder):
    """The files of an unfinished run that have a checksum: shards in the index, and files of complete checkpoints."""
    found = [path for path in shards(folder).values() if path.exists()]
    for checksum in folder.rglob("sha256"):
        model = checksum.parent.parent / "model.json"
        if checksum.parent.parent.name == "training" or model.exists():
            found += [path for path in checksum.parent.rglob("*") if path.is_file() and path.stat().st_size]
    return sorted(found)


@contextlib.contextmanager
def _small_disk(trial):
    """Gives the run a disk of its own, and yields a function that fills it. Without the right to mount one, the
    function forbids the process to write files instead."""
    disk = trial.folder.parent / f"{trial.folder.name}-disk"
    disk.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(disk)]
    if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
        disk.rmdir()

        def forbid(process):
            with contextlib.suppress(ProcessLookupError):
                limit = int(trial.rng.integers(0, 2000))
                resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (limit, limit))
                trial.events.append(f"no file may grow beyond {limit} bytes")

        yield forbid
        return

    def fill(process):
        left = int(trial.rng.integers(0, 12)) * 4096
        with open(disk / "filler", "wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(2**16))
        with open(disk / "filler", "rb+") as file:
            file.truncate(max(0, (disk / "filler").stat().st_size - left))
        trial.events.append(f"the disk was full but for {left} bytes")

    home, trial.folder = trial.folder, disk / "run"
    try:
        yield fill
        (disk / "filler").unlink(missing_ok=True)
        if trial.folder.exists():
            shutil.copytree(trial.folder, home)
    finally:
        trial.folder = home
        subprocess.run(["umount", "-l", str(disk)], check=True)
        disk.rmdir()


@contextlib.contextmanager
def _frozen(folder):
    """Makes a folder and all its files read-only. For root, who may write anyway, they become immutable."""
    if os.geteuid() == 0:
        do, undo = ["chattr", "-R", "+i"], ["chattr", "-R", "-i"]
    else:
        do, undo = ["chmod", "-R", "a-w"], ["chmod", "-R", "u+w"]
    with contextlib.suppress(FileNotFoundError):  # a file may vanish meanwhile, or chattr be missing
        subprocess.run([*do, str(folder)], capture_output=True)
    try:
        with contextlib.suppress(PermissionError):
            (folder / "probe").touch()
            (folder / "probe").unlink()
            raise NotPossibleError("root may write everywhere, and this file system knows no immutable files")
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            subprocess.run([*undo, str(folder)], capture_output=True)
