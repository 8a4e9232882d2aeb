"""The comparison: `python -m benches.compare --sf 1 --runs 5 --pairs 11`. README.md says what it means."""

import argparse
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from benches import table
from benches.data import CACHE, ROOT, Data
from benches.engines import BASE, RANDOM, SLOW, Engine, engines
from benches.experiments import KEY, SIXTEEN, Experiment, Step, must_show, overview
from benches.measure import Run, copy, files, opened, run
from benches.verdicts import judge

PACKAGES = ("deltalake", "duckdb", "duckdb-extension-ducklake", "pysail", "pyiceberg", "tpchgen-cli")


class Failed(Exception):
    """An operation did not do what was asked, and why."""

    def __init__(self, why: str, unsupported: bool = False):
        super().__init__(why)
        self.unsupported = unsupported


class Bench:
    """The tables of one scale factor: made once each, and put back before every run."""

    def __init__(self, data: Data, known: dict[str, Engine], limit: float, folder: Path | None = None):
        self.data, self.known, self.limit = data, known, limit
        self.about = data.about()
        self.folder = folder or CACHE / f"tables-sf{data.sf:g}"
        shutil.rmtree(self.folder, ignore_errors=True)
        self.states: dict[tuple, Path | Failed] = {}

    def live(self, engine: Engine) -> Path:
        """Where an engine's table is while it is used: always there, since Iceberg and DuckLake write full paths."""
        return self.folder / "live" / engine.slug / "lineitem"

    def execute(self, engine: Engine, command: list) -> Run:
        done = run(command, self.limit, ROOT)
        if done.code:
            told = f"ended by signal {-done.code}" if done.code < 0 else engine.complaint(done)[:200]
            raise Failed(f"{told} (after {done.wall:.1f} s)", engine.unsupported(done))
        return done

    def state(self, engine: Engine, layout: str, name: str) -> Path:
        """A saved state of an engine's table; made at the first call."""
        key = (engine.name, layout, name)
        if key not in self.states:
            try:
                self.states[key] = self._make(engine, layout, name)
            except Failed as failed:
                self.states[key] = Failed(f"no table to start from: {failed}", failed.unsupported)
        if isinstance(self.states[key], Failed):
            raise self.states[key]
        return self.states[key]

    def _make(self, engine: Engine, layout: str, name: str) -> Path:
        saved = self.folder / "states" / engine.slug / layout.replace(" ", "-") / name
        live = self.live(engine)
        if name == BASE:
            shutil.rmtree(live, ignore_errors=True)
            live.parent.mkdir(parents=True, exist_ok=True)
            commands = engine.load(live, self.data, layout == SIXTEEN)
        else:
            copy(self.state(engine, layout, BASE), live)
            commands = [engine.merge(live, self.data, RANDOM, () if engine.function else KEY)]
        for command in commands:
            self.execute(engine, command)
        copy(live, saved)
        return saved

    def once(self, step: Step, layout: str) -> tuple[Run, dict]:
        """One run from the step's state, and what the engine said. The table stays as the run left it."""
        engine = self.known[step.engine]
        live = self.live(engine)
        if step.state:
            copy(self.state(engine, layout, step.state), live)
        else:
            shutil.rmtree(live, ignore_errors=True)
            live.parent.mkdir(parents=True, exist_ok=True)
        runner, command = self._command(step, layout)
        done = self.execute(engine, command)
        return done, runner.answer(done)

    def _command(self, step: Step, layout: str) -> tuple[Engine, list]:
        engine = self.known[step.engine]
        live = self.live(engine)
        if step.op == "load":
            (command,) = engine.load(live, self.data, layout == SIXTEEN)
            return engine, command
        if step.op == "merge":
            return engine, engine.merge(live, self.data, step.feed, step.flags)
        if step.op == "q1":
            return engine, engine.q1(live, self.data)
        floor = Engine(step.op, step.op, engine.kind)
        return floor, floor.merge(live, self.data, step.feed or RANDOM)

    def oracle(self, *arguments) -> object:
        """What DuckDB reads, in a process of its own."""
        command = [sys.executable, "-m", "benches.oracle", *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode:
            lines = done.stderr.strip().splitlines()
            # DuckDB points at the place below its message.
            told = [line for line in lines if "Error" in line] or lines
            raise Failed(f"DuckDB cannot read it: {told[-1][:200]}")
        return json.loads(done.stdout)

    def rehearse(self, step: Step, layout: str) -> dict:
        """A run that is not timed: warms the page cache, counts the files opened, checks the answer."""
        engine = self.known[step.engine]
        live = self.live(engine)
        live.mkdir(parents=True, exist_ok=True)
        before = files(self.state(engine, layout, step.state)) if step.state else {}
        data = {name for name in before if name.endswith(".parquet") and not name.startswith("_delta_log")}
        outside = set()
        if step.feed == "narrow" and not step.op.startswith("floor"):
            bounds = self.about["narrow"]
            outside = set(self.oracle("outside", self.state(engine, layout, BASE), bounds["low"], bounds["high"]))
        if step.state:  # a folder can only be watched once it is there
            copy(self.state(engine, layout, step.state), live)
            runner, command = self._command(step, layout)
            with opened(live) as seen:
                said = runner.answer(self.execute(engine, command))
        else:
            seen, said = set(), self.once(step, layout)[1]
        after = files(live)
        found = {
            "data_files": len(data),
            "opened": sorted(seen & data),
            "outside": len(outside),
            "opened_outside": len(seen & outside),
            "mb_before": sum(before.values()) / 1e6,
            "mb_after": sum(after.values()) / 1e6,
            "report": said.get("report") or {},
        }
        return found | self._check(step, said)

    def _check(self, step: Step, said: dict) -> dict:
        if step.op == "q1":
            wanted, got = self.about["q1"][step.expect], said["q1"]
        elif step.op.startswith("floor"):
            wanted = got = None
        else:
            engine = self.known[step.engine]
            wanted = self.about["after"][step.expect or BASE]
            got = self.oracle("check", engine.kind, self.live(engine))
        if wanted == got:
            return {"right": True}
        if isinstance(got, dict):
            wrong = ", ".join(
                f"{name} {got[name]} instead of {wanted[name]}" for name in got if got[name] != wanted[name]
            )
        else:
            wrong = f"{got} instead of {wanted}"
        return {"right": False, "wrong": wrong}

    def experiment(self, experiment: Experiment, rounds: int) -> dict:
        """All steps, `rounds` times, each time in another order: a process that leaves much memory behind slows the
        next one, so none may always follow the same."""
        steps = {step.label if not step.op.startswith("floor") else _floor(step): step for step in experiment.steps}
        record = {}
        for label, step in steps.items():
            record[label] = {"failed": None, "right": True, "runs": []}
            try:
                record[label] |= self.rehearse(step, experiment.layout)
            except Failed as failed:
                record[label] |= {"failed": str(failed), "unsupported": failed.unsupported}
        rounds = min(rounds, experiment.rounds)
        for number in range(rounds):
            for label in random.Random(number).sample(list(steps), len(steps)):
                if record[label]["failed"]:
                    continue
                try:
                    done, _ = self.once(steps[label], experiment.layout)
                    record[label]["runs"].append(done.record())
                except Failed as failed:
                    record[label] |= {"failed": str(failed), "unsupported": failed.unsupported}
        for step in steps.values():
            shutil.rmtree(self.live(self.known[step.engine]), ignore_errors=True)
        return {
            "name": experiment.name,
            "title": experiment.title,
            "layout": experiment.layout,
            "rounds": rounds,
            "steps": record,
        }


def _floor(step: Step) -> str:
    return step.label if step.variant else step.op.replace("_", ": ")


def machine(lake: Path) -> dict:
    """Where and with what this was measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    said = subprocess.run([lake, "--version"], capture_output=True, text=True).stdout.strip()
    describe = ["git", "describe", "--always", "--dirty", "--abbrev=10"]
    commit = subprocess.run(describe, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    return {
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "processors": os.cpu_count(),
        "memory_gb": round(memory / 2**30, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "lake": said,
        "commit": commit,
        "packages": {name: version(name) for name in PACKAGES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sf", type=float, default=1, help="TPC-H scale factor")
    parser.add_argument(
        "--runs", type=int, default=5, help="rounds of every engine at every operation; 0 leaves it out"
    )
    parser.add_argument("--pairs", type=int, default=11, help="rounds of what must be shown; 0 leaves it out")
    parser.add_argument("--engines", help="only these, by comma (in the overview)")
    parser.add_argument("--only", help="only these experiments, by comma: load, random, narrow, again, skip, ..")
    parser.add_argument("--with", dest="more", default="", help="engines that are left out otherwise: pyiceberg")
    parser.add_argument("--lake", type=Path, default=ROOT / "target" / "release" / "lake")
    parser.add_argument("--limit", type=float, default=1800, help="seconds after which an operation is stopped")
    parser.add_argument("--out", type=Path, help="folder of the results [default: target/bench/sfSF]")
    parser.add_argument("--keep", action="store_true", help="leave the tables in target/bench-data")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    if not options.lake.exists():
        sys.exit(f"{options.lake} is not there: build it, or name another with --lake")

    data = Data(options.sf)
    subprocess.run([sys.executable, "-m", "benches.data", str(options.sf)], cwd=ROOT, check=True)
    known = engines(options.lake.resolve())
    chosen = options.engines.split(",") if options.engines else [*known]
    left_out = {name: why for name, why in SLOW.items() if name not in options.more.split(",")}
    for name in (*chosen, *filter(None, options.more.split(","))):
        if name not in known:
            sys.exit(f"no engine is called {name}; there are {', '.join(known)}")
    chosen = [name for name in chosen if name not in left_out]
    wanted = options.only.split(",") if options.only else None

    out = options.out or ROOT / "target" / "bench" / f"sf{options.sf:g}"
    out.mkdir(parents=True, exist_ok=True)
    bench = Bench(data, known, options.limit)
    result = {"about": machine(options.lake), "sf": options.sf, "data": data.about(), "left_out": left_out}
    result |= {"overview": [], "must_show": [], "goals": []}

    plans = [("overview", overview(chosen), options.runs), ("must_show", must_show(), options.pairs)]
    for part, experiments, rounds in plans:
        for experiment in experiments if rounds else []:
            if wanted and experiment.name not in wanted:
                continue
            start = time.perf_counter()
            print(f"{part}: {experiment.title}, {experiment.layout}", end=" ", file=sys.stderr, flush=True)
            record = bench.experiment(experiment, rounds)
            result[part].append(record)
            result["goals"] += judge(experiment, record, options.sf) if part == "must_show" else []
            print(f"{time.perf_counter() - start:.0f} s", file=sys.stderr)
            # After each experiment, so that a long run that is stopped has not been for nothing.
            (out / "results.json").write_text(json.dumps(result, indent=1))
    if not options.keep:
        shutil.rmtree(bench.folder)
    table.write(result, out)


if __name__ == "__main__":
    main()
