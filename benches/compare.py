"""The main job by `lake` and by a peer, in one run: median seconds and ratios.

Usage: compare.py [--runs N] [--lake PATH]
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import duckdb

ROOT = Path(__file__).resolve().parent.parent
FLIGHTS = ROOT / "fixtures" / "flights"
KEYS = ["time_hour", "carrier", "flight", "origin"]
PARTITIONS = "day(time_hour), bucket(4, carrier)"
FEEDS = sorted(FLIGHTS.glob("actuals-2013-*.parquet"))
STEPS = ("load", "merge", "compact")

# One process per step, as for `lake`; deltalake's own layout, since it has no hidden partitioning.
DELTALAKE = """
import sys, pyarrow.parquet as pq, deltalake as dl
step, table = sys.argv[1:3]
if step == "load":
    dl.write_deltalake(table, pq.read_table(sys.argv[3]))
elif step == "merge":
    keys, source = sys.argv[4].split(","), pq.read_table(sys.argv[3])
    on = " and ".join(f"t.{k} = s.{k}" for k in keys)
    sets = {c: f"s.{c}" for c in source.schema.names if c not in keys}
    merge = dl.DeltaTable(table).merge(source, predicate=on, source_alias="s", target_alias="t")
    merge.when_matched_update(sets).execute()
else:
    dl.DeltaTable(table).optimize.compact()
"""


def timed(*command):
    start = time.perf_counter()
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}\n{done.stderr}")
    return time.perf_counter() - start


class Lake:
    def __init__(self, name, binary, *create):
        self.name, self.binary, self.create = name, binary, create

    def load(self, table):
        return timed(self.binary, "append", table, FLIGHTS / "schedule.parquet", "--create", *self.create)

    def merge(self, table, feed):
        return timed(self.binary, "merge", table, feed, "--on", ", ".join(KEYS), "--when-not-matched", "ignore")

    def compact(self, table):
        return timed(self.binary, "compact", table)


class Deltalake:
    name = "deltalake"

    def load(self, table):
        return timed(sys.executable, "-c", DELTALAKE, "load", table, FLIGHTS / "schedule.parquet")

    def merge(self, table, feed):
        return timed(sys.executable, "-c", DELTALAKE, "merge", table, feed, ",".join(KEYS))

    def compact(self, table):
        return timed(sys.executable, "-c", DELTALAKE, "compact", table)


def semi_join(table):
    """Seconds in which DuckDB finds the rows that the first feed changes, from the key columns alone."""
    files = [str(path) for path in table.rglob("*.parquet")]
    start = time.perf_counter()
    duckdb.sql(
        f"select count(*) from read_parquet({files}) semi join '{FEEDS[0]}' using ({', '.join(KEYS)})"
    ).fetchall()
    return time.perf_counter() - start


def copy(table):
    """Seconds in which the table's bytes are copied and synced."""
    start = time.perf_counter()
    shutil.copytree(table, table.with_name("copy"))
    subprocess.run(["sync"], check=True)
    seconds = time.perf_counter() - start
    shutil.rmtree(table.with_name("copy"))
    return seconds


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--lake", default=ROOT / "target" / "release" / "lake")
    options = parser.parse_args()
    v3, delta, partitioned = ("--format-version", "3"), ("--format", "delta"), ("--partition-by", PARTITIONS)
    engines = [
        Lake("lake iceberg v2", options.lake),
        Lake("lake iceberg v3", options.lake, *v3),
        Lake("lake delta", options.lake, *delta),
        Lake("lake iceberg v3, partitioned", options.lake, *v3, *partitioned),
        Lake("lake delta, partitioned", options.lake, *delta, *partitioned),
        Deltalake(),
    ]
    times = {engine.name: {step: [] for step in STEPS} for engine in engines}
    floors = {semi_join: [], copy: []}
    for _ in range(options.runs):
        with tempfile.TemporaryDirectory() as folder:
            for number, engine in enumerate(engines):
                table, taken = Path(folder) / f"table{number}", times[engine.name]
                taken["load"].append(engine.load(table))
                if engine.name == "lake iceberg v3":
                    for floor, runs in floors.items():
                        runs.append(floor(table))
                taken["merge"].append(sum(engine.merge(table, feed) for feed in FEEDS))
                taken["compact"].append(engine.compact(table))
    medians = {name: {step: statistics.median(taken[step]) for step in STEPS} for name, taken in times.items()}
    print(f"{'median seconds (ratio to deltalake)':36}{'load':>16}{'12 merges':>16}{'compact':>16}")
    for name, steps in medians.items():
        cells = [f"{steps[step]:.2f} ({steps[step] / medians['deltalake'][step]:.2f})" for step in STEPS]
        print(f"{name:36}" + "".join(f"{cell:>16}" for cell in cells))
    for floor, runs in floors.items():
        print(f"floor: {floor.__doc__} {statistics.median(runs):.3f}")


if __name__ == "__main__":
    main()
