"""A table of a million files is opened and a selective scan planned: `python -m benches.million`. README.md says more.

The files are not there, only the metadata (benches/metadata.py). Every run is a process of its own, beside those of the
peers in the same round; what is compared is processor time and peak memory.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

from benches.data import CACHE, ROOT
from benches.measure import run
from benches.metadata import KINDS, answers, questions

# What a table of a million files with ten columns of statistics is meant to take.
MOST_SECONDS, MOST_MB = 2.0, 512
GOAL_FILES = 1_000_000
# A table of two hundred columns takes at most so many times the memory of one of ten.
MOST_GROWTH = 1.25

PEERS = {
    "delta": """
import sys
from deltalake import DeltaTable
for path in DeltaTable(sys.argv[1]).file_uris(file_pruning_predicate=sys.argv[2]):
    print(path)
""",
    "iceberg": """
import sys
from pyiceberg.table import StaticTable
table = StaticTable.from_metadata(sys.argv[1] + "/metadata/v1.metadata.json")
for task in table.scan(row_filter=sys.argv[2]).plan_files():
    print(task.file.file_path)
""",
}
PEER = {"delta": "deltalake", "iceberg": "pyiceberg"}


def command(engine: str, format: str, folder: Path, question: tuple, lake: Path) -> list:
    """How an engine is asked for the files that a condition leaves."""
    column, operator, value = question
    if engine != "lake":
        literal = value if isinstance(value, int) else f"'{value}'"
        return [sys.executable, "-W", "ignore", "-c", PEERS[format], folder, f"{column} {operator} {literal}"]
    literal = value if isinstance(value, int) else f"DATE '{value}'"
    return [lake, "files", folder, "--json", "--where", f"{column} {operator} {literal}"]


def explained(folder: Path, question: tuple, lake: Path) -> list:
    """The same question to a version of `lake` whose `files` cannot be asked."""
    column, operator, value = question
    literal = value if isinstance(value, int) else f"DATE '{value}'"
    return [lake, "query", f"EXPLAIN SELECT {column} FROM '{folder}' WHERE {column} {operator} {literal}"]


def names(engine: str, stdout: str) -> set[str]:
    """The names of the files that were answered."""
    if engine == "lake":
        paths = [file["path"] for file in json.loads(stdout)["files"]]
    else:
        paths = stdout.split()
    return {path.rsplit("/", 1)[-1] for path in paths}


def one(args, format: str, kind: str, files: int, columns: int) -> list[dict]:
    """All questions to one table."""
    folder = CACHE / "metadata" / f"{format}-{kind}-{files}-{columns}"
    made = [sys.executable, "-m", "benches.metadata", format, kind, files, columns, folder]
    subprocess.run([str(part) for part in made], cwd=ROOT, check=True)
    rows = []
    for what, question in questions(files).items():
        engines = ["lake"] + ([PEER[format]] if not args.alone else [])
        if args.before:
            engines.append("before")
        runs = {engine: [] for engine in engines}
        said = {}
        for number in range(args.runs + 1):
            for engine in engines:
                if engine == "before":
                    asked = explained(folder, question, args.before)
                else:
                    asked = command(engine, format, folder, question, args.lake)
                done = run(asked, args.limit, ROOT)
                if done.code:
                    raise SystemExit(f"{engine} on {folder.name}, {what}: {done.stderr.strip()[-500:]}")
                if engine != "before":
                    found = names(engine, done.stdout)
                    if said.setdefault(engine, found) != found:
                        raise SystemExit(f"{engine} on {folder.name}, {what}: answers differ from run to run")
                # The first round warms the page cache.
                if number:
                    runs[engine].append(done.record())
        mine = said["lake"]
        wrong = [engine for engine, found in said.items() if found != mine]
        if wrong or len(mine) != answers(files, format)[what]:
            raise SystemExit(f"{folder.name}, {what}: { ({engine: len(found) for engine, found in said.items()}) }")
        row = {"format": format, "kind": kind, "files": files, "columns": columns, "question": what, "left": len(mine)}
        for engine, all_runs in runs.items():
            row[engine] = {
                "cpu": statistics.median(run["cpu"] for run in all_runs),
                "wall": statistics.median(run["wall"] for run in all_runs),
                "peak_mb": max(run["peak_mb"] for run in all_runs),
                "foreign": max(run["foreign"] for run in all_runs),
            }
        rows.append(row)
        print(line(row), flush=True)
    return rows


def line(row: dict) -> str:
    """A row of the table that is printed."""
    text = (
        f"{row['format']:8}{row['kind']:6}{row['files']:>9,}{row['columns']:>5}  {row['question']:10}{row['left']:>6}"
    )
    for engine in ("lake", "before", PEER[row["format"]]):
        if engine in row:
            cost = row[engine]
            text += f"  {engine}: {cost['cpu']:6.2f} s {cost['wall']:6.2f} s {cost['peak_mb']:6.0f} MB"
            if engine != "lake":
                text += f" (x{cost['cpu'] / row['lake']['cpu']:.1f}, x{cost['peak_mb'] / row['lake']['peak_mb']:.1f})"
    return text


def verdicts(rows: list[dict]) -> list[dict]:
    """One row per goal: what, value, limit, whether it is met."""
    found = []
    narrow = {(row["format"], row["kind"], row["question"]): row for row in rows if row["files"] == GOAL_FILES}
    for row in rows:
        key = (row["format"], row["kind"], row["question"])
        name = " ".join(key)
        if row["files"] == GOAL_FILES:
            found.append({"what": f"{name}: seconds", "value": row["lake"]["cpu"], "limit": MOST_SECONDS})
            found.append({"what": f"{name}: peak MB", "value": row["lake"]["peak_mb"], "limit": MOST_MB})
        elif row["columns"] > 10 and key in narrow:
            # Fewer files, since the metadata would be too large; each has the statistics of twenty times the columns.
            growth = row["lake"]["peak_mb"] / narrow[key]["lake"]["peak_mb"]
            found.append(
                {"what": f"{name}: memory with {row['columns']} columns", "value": growth, "limit": MOST_GROWTH}
            )
    return [row | {"met": row["value"] <= row["limit"]} for row in found]


def main() -> None:
    """Measures, prints, and writes target/bench/million.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=GOAL_FILES)
    parser.add_argument("--runs", type=int, default=3, help="rounds after the one that warms up")
    parser.add_argument("--lake", type=Path, default=ROOT / "target" / "release" / "lake")
    parser.add_argument("--before", type=Path, help="an older binary, to compare with")
    parser.add_argument("--only", default="", help="kinds of tables, as delta-v2,iceberg-v2")
    parser.add_argument("--alone", action="store_true", help="without the peers")
    parser.add_argument("--limit", type=float, default=600)
    args = parser.parse_args()
    rows = []
    for format, kind in KINDS:
        if args.only and f"{format}-{kind}" not in args.only.split(","):
            continue
        rows += one(args, format, kind, args.files, 10)
        rows += one(args, format, kind, args.files // 20, 200)
    judged = verdicts(rows)
    for verdict in judged:
        met = "met" if verdict["met"] else "not met"
        print(f"{verdict['what']:50}{verdict['value']:8.2f} of {verdict['limit']:<6} {met}")
    report = {
        "machine": f"{platform.machine()}, {os.cpu_count()} processors",
        "peers": {name: version(name) for name in PEER.values()},
        "rows": rows,
        "verdicts": judged,
    }
    place = ROOT / "target" / "bench" / "million.json"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
