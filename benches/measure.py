"""Running one command in a fresh process and saying what it cost; and what a ratio of many runs is worth.

Only the standard library: the peak memory of a child counts from that of the process that starts it.
"""

import ctypes
import math
import os
import shutil
import signal
import statistics
import struct
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass
class Run:
    """What one process cost. `operation` is the part of `wall` that the engine's own work took, if it says."""

    wall: float
    cpu: float
    peak_mb: float
    code: int
    foreign: float
    stdout: str
    stderr: str
    operation: float | None = None

    def record(self) -> dict:
        """For the JSON."""
        kept = asdict(self)
        del kept["stdout"], kept["stderr"]
        return {name: round(value, 4) if isinstance(value, float) else value for name, value in kept.items()}


def run(command: list, limit: float, cwd: Path) -> Run:
    """Runs a command and waits for it, at most `limit` seconds."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        os.sync()
        before, start = busy(), time.perf_counter()
        process = subprocess.Popen(
            [str(part) for part in command], stdout=out, stderr=err, cwd=cwd, start_new_session=True
        )
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:  # stopped by hand: it has a session of its own, and would go on
            os.killpg(process.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        wall = time.perf_counter() - start
        cpu = usage.ru_utime + usage.ru_stime
        # Processor time that was used meanwhile, but not by this process: 0 on a quiet machine.
        foreign = max(0.0, busy() - before - cpu) / (wall * os.cpu_count())
        process.returncode = os.waitstatus_to_exitcode(status)
        texts = []
        for stream in (out, err):
            stream.seek(0)
            texts.append(stream.read().decode(errors="replace"))
    return Run(wall, cpu, usage.ru_maxrss * 1024 / 1e6, process.returncode, foreign, *texts)


def busy() -> float:
    """Seconds for which the machine's processors have worked since it started, or were taken from it."""
    with open("/proc/stat") as stat:
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.readline().split()[1:9])
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


# ---- folders


def copy(source: Path, target: Path) -> None:
    """Copies the state of a table. Data files, which no engine changes once written, become hard links."""

    def one(old: str, new: str) -> None:
        if old.endswith(".parquet"):
            os.link(old, new)
        else:
            shutil.copy2(old, new)

    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=one)


def files(folder: Path) -> dict[str, int]:
    """All files below a folder, by their relative path, with their sizes."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()}


IN_OPEN, IN_NONBLOCK = 0x20, 0o4000


@contextmanager
def opened(folder: Path) -> Iterator[set[str]]:
    """Collects the files below a folder that any process opens, as the kernel tells it (inotify)."""
    libc, seen = ctypes.CDLL(None, use_errno=True), set()
    handle = libc.inotify_init1(IN_NONBLOCK)
    if handle < 0:
        raise OSError(ctypes.get_errno(), "inotify_init1")
    watched = {}
    for directory in (folder, *(path for path in folder.rglob("*") if path.is_dir())):
        watch = libc.inotify_add_watch(handle, os.fsencode(directory), IN_OPEN)
        if watch < 0:
            raise OSError(ctypes.get_errno(), f"inotify_add_watch {directory}")
        watched[watch] = directory
    try:
        yield seen
        while True:
            try:
                events = os.read(handle, 1 << 20)
            except BlockingIOError:
                break
            while events:
                watch, _mask, _cookie, length = struct.unpack_from("iIII", events)
                name = events[16 : 16 + length].rstrip(b"\0")
                if watch in watched and name:
                    seen.add(str((watched[watch] / os.fsdecode(name)).relative_to(folder)))
                elif watch not in watched:
                    raise OSError(f"events of {folder} were lost")
                events = events[16 + length :]
    finally:
        os.close(handle)


# ---- statistics


@dataclass
class Interval:
    """A geometric mean with its 95 % confidence interval."""

    mean: float
    low: float
    high: float
    runs: int


def interval(values: list[float]) -> Interval:
    """Student's interval on the logarithms: ratios of 1/2 and 2 are equally far from 1."""
    logs = [math.log(max(value, 1e-9)) for value in values]
    mean = statistics.fmean(logs)
    if len(logs) < 3:
        return Interval(math.exp(mean), 0.0, math.inf, len(logs))
    half = student(len(logs) - 1) * statistics.stdev(logs) / math.sqrt(len(logs))
    return Interval(math.exp(mean), math.exp(mean - half), math.exp(mean + half), len(logs))


def student(freedom: int) -> float:
    """The 97.5 % quantile of Student's t, exact to a percent from two degrees of freedom on."""
    exact = {2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447}
    if freedom in exact:
        return exact[freedom]
    z = statistics.NormalDist().inv_cdf(0.975)
    return (
        z
        + (z**3 + z) / (4 * freedom)
        + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * freedom**2)
        + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * freedom**3)
    )
