"""A stream of commits of one row each: whether the last take as long as the first, and what the metadata become.

`lake append` gets its lines through a pipe, and the next one only when it has reported the one before.
"""

import json
import math
import os
import queue
import resource
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

from benches.compare import Bench, Failed
from benches.data import CACHE, ROOT
from benches.engines import LAKES, Engine
from benches.measure import busy, files, interval, run
from benches.oracle import EVENTS
from benches.trial import Settings, Trial
from benches.verdicts import bounded

BOTH = LAKES[:2]
STREAM = "events"
# The versions that are kept: all others go on the way.
KEEP = 100
# What tables say themselves: how long Delta remembers files that are gone.
SAYS = {"delta": ["--property", "delta.deletedFileRetentionDuration=interval 10 seconds"]}
# Commits after which the table is looked at, beside at the end.
LOOK = 1_000
# A compaction that comes after a report comes within so many seconds.
QUIET = 3.0
# Less room on the disk stops the stream.
LEAST_FREE = 3e9
KINDS = ("view", "click", "order", "return")


def event(number: int) -> dict:
    """The row of a commit; the same number gives the same row."""
    moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(1_767_225_600 + number))
    return {"id": number, "ts": moment, "kind": KINDS[number * 7 % 4], "value": number * 7919 % 10_007 / 8}


class Feed:
    """A process that is fed line by line, and reports each of them."""

    def __init__(self, command: list, limit: float):
        self.limit = limit
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.errors,
            cwd=ROOT,
        )
        self.reports: queue.SimpleQueue = queue.SimpleQueue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        for line in self.process.stdout:
            self.reports.put((time.perf_counter(), line))
        self.reports.put((time.perf_counter(), None))

    def _next(self, seconds: float) -> tuple[float, dict]:
        at, line = self.reports.get(timeout=seconds)
        said = json.loads(line) if line else {"error": {"message": "the process ended"}}
        if "error" in said:
            self.errors.seek(0)
            more = self.errors.read().decode(errors="replace").strip()[-200:]
            raise Failed(f"{said['error']['message']} {more}".strip())
        return at, said

    def send(self, row: dict) -> tuple[float, bool]:
        """Seconds until this row's commit was reported, and whether a compaction was reported before it."""
        start, compacted = time.perf_counter(), False
        # A process that is gone has said why.
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(row).encode() + b"\n")
            self.process.stdin.flush()
        while True:
            try:
                at, said = self._next(self.limit)
            except queue.Empty:
                raise Failed(f"no report within {self.limit:g} s") from None
            if said["operation"] == "append":
                return at - start, compacted
            compacted = True

    def settle(self) -> None:
        """Waits for a compaction that may still be under way."""
        with suppress(queue.Empty):
            while True:
                self._next(QUIET)

    def close(self) -> None:
        """The end of the input, then of the process."""
        self.process.stdin.close()
        try:
            code = self.process.wait(self.limit)
        except subprocess.TimeoutExpired:
            raise Failed(f"went on for {self.limit:g} s after the end of its input") from None
        if code:
            raise Failed(f"ended with {code}")

    def kill(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()


def stream(settings: Settings) -> Trial:
    """Both formats, one after the other."""
    count = settings.commits
    trial = Trial("stream", f"{count:,} commits of one row, with the automatic compaction", count >= 2 * LOOK)
    bench = Bench(_Nothing(), settings.engines, settings.limit, CACHE / "compaction-stream")
    lines = bench.folder / "lines.ndjson"
    lines.parent.mkdir(parents=True)
    with lines.open("w") as out:
        out.writelines(json.dumps(event(number)) + "\n" for number in range(count))
    try:
        wanted = bench.oracle("events", "lines", lines)
        for label in BOTH:
            trial.rehearse(label, partial(_one, bench, settings, label, wanted))
            _judge(trial, label)
            shutil.rmtree(bench.live(bench.known[label]), ignore_errors=True)
    finally:
        shutil.rmtree(bench.folder, ignore_errors=True)
    return trial


class _Nothing:
    """Where a `Bench` wants data: a stream has none."""

    def about(self) -> dict:
        return {}


def _one(bench: Bench, settings: Settings, label: str, wanted: dict) -> dict:
    engine = bench.known[label]
    live = bench.live(engine)
    shutil.rmtree(live, ignore_errors=True)
    live.parent.mkdir(parents=True, exist_ok=True)
    schema = ", ".join(f"{name} {_sql(kind)}" for name, kind in EVENTS.items())
    bench.execute(
        engine,
        [settings.lake, "create", live, "--schema", schema, *engine.create, *SAYS.get(engine.kind, []), "--json"],
    )
    command = [settings.lake, "append", live, "-", "--commit-every", "1", "--stream", STREAM, "--json"]
    command += ["--keep-commits", KEEP]
    feed = Feed(command, settings.limit)
    latencies, behind, looks = [], [], {}
    middle = min(LOOK, settings.commits // 2)
    start, before = time.perf_counter(), busy() - _own()
    try:
        for number in range(settings.commits):
            if number == middle:
                feed.settle()
                looks["first"] = _look(bench, settings, engine, number)
            seconds, compacted = feed.send(event(number))
            if compacted:
                behind.append(number)
            latencies.append(seconds)
            if number % 100 == 0 and shutil.disk_usage(live).free < LEAST_FREE:
                raise Failed(f"the disk was full after {number:,} commits")
        feed.close()
    finally:
        feed.kill()
    took = time.perf_counter() - start
    foreign = max(0.0, busy() - _own() - before) / (took * os.cpu_count())
    looks["last"] = _look(bench, settings, engine, settings.commits)
    got = bench.oracle("events", engine.kind, live)
    return {
        "wrong": None if got == wanted else f"{got} instead of {wanted}",
        "seconds": took,
        "foreign": foreign,
        "latencies": [round(seconds, 6) for seconds in latencies],
        "behind_compaction": behind,
        "looks": looks,
    }


def _own() -> float:
    """Seconds of processor time of this process and of those that it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _sql(kind: str) -> str:
    return {"VARCHAR": "string"}.get(kind, kind.lower())


# ---- what the table is like


def _look(bench: Bench, settings: Settings, engine: Engine, commits: int) -> dict:
    """What a fresh process takes to open the table, and what is on disk. Nobody writes meanwhile."""
    live = bench.live(engine)
    runs = []
    # The first one warms the page cache.
    for _ in range(2 * settings.runs + 2):
        done = run([settings.lake, "show", live, "--json"], settings.limit, ROOT)
        if done.code:
            raise Failed(engine.complaint(done))
        runs.append(done.record())
    shown, found = json.loads(done.stdout), files(live)
    look = {"commits": commits, "show": runs[1:], "rows": shown["rows"], "data_files": shown["files"]}
    look["data_files_on_disk"] = sum(_is_data(name) for name in found)
    metadata = {name: size for name, size in found.items() if not _is_data(name)}
    look["metadata_files"], look["metadata_bytes"] = len(metadata), sum(metadata.values())
    if engine.kind == "iceberg":
        versions = [name for name in metadata if name.endswith(".metadata.json")]
        newest = bench.oracle("newest", live)
        look |= {"manifests": bench.oracle("manifests", live), "metadata_json_files": len(versions)}
        look["metadata_json_bytes"] = metadata[newest]
    else:
        log = [name for name in metadata if name.startswith("_delta_log/")]
        entries = [int(Path(name).name.split(".")[0]) for name in log if _is_entry(name)]
        checkpoints = [int(Path(name).name.split(".")[0]) for name in log if ".checkpoint" in name]
        look |= {"log_entries": len(entries), "checkpoints": len(checkpoints)}
        look["entries_after_checkpoint"] = sum(entry > max(checkpoints, default=-1) for entry in entries)
    return look


def _is_data(name: str) -> bool:
    return name.endswith(".parquet") and not name.startswith("_delta_log/")


def _is_entry(name: str) -> bool:
    stem, _, ending = Path(name).name.partition(".")
    return stem.isdigit() and ending == "json"


# ---- what it shows


def _judge(trial: Trial, label: str) -> None:
    trial.finished(label)
    step = trial.steps[label]
    if step["failed"] or step["wrong"]:
        return
    latencies, behind = step["latencies"], set(step["behind_compaction"])
    tenth = max(len(latencies) // 10, 1)
    parts = {"first": range(tenth), "last": range(len(latencies) - tenth, len(latencies))}
    told = {name: _told(latencies, behind, part) for name, part in parts.items()}
    step["tenths"] = told
    ratio = told["last"]["p99"] / told["first"]["p99"]
    trial.at_most(label, "p99 of the last tenth of commits to that of the first", lambda _: ratio, 1.5)
    trial.notes.append(
        f"{label}: {step['seconds']:.0f} s with the looks; other processes took {step['foreign']:.0%} of the processors"
    )
    for name, figures in told.items():
        compactions = ", ".join(f"{1000 * seconds:.1f}" for seconds in figures["behind"]) or "none"
        trial.notes.append(
            f"{label}: {name} tenth: p50 {1000 * figures['p50']:.1f} ms, p99 {1000 * figures['p99']:.1f} ms, "
            f"most {1000 * figures['most']:.1f} ms; commits that waited for a compaction, ms: {compactions}"
        )
    looks = step["looks"]
    shows = [[done["wall"] for done in looks[name]["show"]] for name in ("last", "first")]
    medians = [statistics.median(walls) for walls in shows]
    what = f"{label}: time of show at the end to that after {looks['first']['commits']:,} commits"
    row = bounded(interval([last / first for last, first in zip(*shows, strict=True)]), 1.25)
    trial.verdicts.append({"what": what, "note": f"{medians[0]:.3f} s to {medians[1]:.3f} s"} | row)
    for look in looks.values():
        figures = ", ".join(f"{name} {value:,}" for name, value in look.items() if name not in ("show", "commits"))
        trial.notes.append(f"{label}: after {look['commits']:,} commits: {figures}")


def _told(latencies: list[float], behind: set[int], part: range) -> dict:
    seconds = sorted(latencies[number] for number in part)
    return {
        "p50": statistics.median(seconds),
        "p99": seconds[math.ceil(0.99 * len(seconds)) - 1],
        "most": seconds[-1],
        "behind": [latencies[number] for number in part if number in behind],
    }
