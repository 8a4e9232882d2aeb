"""Eight processes merge into the same rows of one table at the same time: how many merges a second, and what fails.

    python -m benches.contention [--lake BIN] [--merges 25] [--processes 8]

`lake` is a new process for every merge, as from a shell; deltalake is eight Python processes that stay, and is given a
loop around its merges, since it leaves that to its user when another writer was faster. Each merge adds one to its
rows, so that at the end the sum says whether an acknowledged merge is missing or there twice.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

KEYS = 12

WRITER = """
import sys
import pyarrow as pa
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError

place, writer, merges = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
again = 0
for n in range(merges):
    keys = sorted({(writer * 3 + n * 5 + i * i) % 12 for i in range(4)})
    source = pa.table({"id": pa.array(keys, pa.int64())})
    while True:
        table = DeltaTable(place)
        merge = table.merge(source, "t.id = s.id", source_alias="s", target_alias="t")
        try:
            merge.when_matched_update({"n": "t.n + 1"}).execute()
            break
        except CommitFailedError:
            again += 1
print(again)
"""


def keys_of(writer: int, n: int) -> list[int]:
    return sorted({(writer * 3 + n * 5 + i * i) % KEYS for i in range(4)})


def expected(processes: int, merges: int) -> int:
    return sum(len(keys_of(writer, n)) for writer in range(processes) for n in range(merges))


def query(lake: Path, sql: str) -> dict:
    out = subprocess.run([lake, "query", sql, "--json"], check=True, capture_output=True, text=True)
    return json.loads(out.stdout)


def fresh(lake: Path, place: Path, form: str) -> None:
    schema = "id bigint not null, n bigint"
    subprocess.run([lake, "create", place, "--schema", schema, "--format", form], check=True, stdout=subprocess.DEVNULL)
    rows = ", ".join(f"({key}, 0)" for key in range(KEYS))
    query(lake, f"INSERT INTO '{place}' VALUES {rows}")


def by_lake(lake: Path, place: Path, processes: int, merges: int) -> tuple[float, int]:
    """Seconds, and attempts beyond the first."""
    script = """
import json, subprocess, sys
lake, place, writer, merges = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
again = 0
for n in range(merges):
    keys = sorted({(writer * 3 + n * 5 + i * i) % 12 for i in range(4)})
    source = "SELECT * FROM (VALUES " + ", ".join(f"({key})" for key in keys) + ") AS s(id)"
    command = [lake, "merge", place, source, "--on", "id", "--set", "n = target.n + 1", "--json"]
    out = subprocess.run(command, check=True, capture_output=True, text=True)
    again += json.loads(out.stdout)["attempts"] - 1
print(again)
"""
    return race([sys.executable, "-c", script, lake, place], processes, merges)


def by_deltalake(place: Path, processes: int, merges: int) -> tuple[float, int]:
    return race([sys.executable, "-c", WRITER, place], processes, merges)


def race(command: list, processes: int, merges: int) -> tuple[float, int]:
    started = time.perf_counter()
    writers = [
        subprocess.Popen([str(part) for part in [*command, writer, merges]], stdout=subprocess.PIPE, text=True)
        for writer in range(processes)
    ]
    said = [writer.communicate()[0] for writer in writers]
    seconds = time.perf_counter() - started
    failed = [writer.returncode for writer in writers if writer.returncode]
    assert not failed, f"{len(failed)} processes failed"
    return seconds, sum(map(int, said))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--lake", type=Path, default=Path("target/release/lake"))
    options.add_argument("--processes", type=int, default=8)
    options.add_argument("--merges", type=int, default=25)
    options.add_argument("--rounds", type=int, default=3)
    asked = options.parse_args()
    lake = asked.lake.resolve()
    print("| writer | table | merges a second | tried again | rows right |")
    print("| --- | --- | --- | --- | --- |")
    for _ in range(asked.rounds):
        for name, form in [("lake", "iceberg"), ("lake", "delta"), ("deltalake", "delta")]:
            with tempfile.TemporaryDirectory() as folder:
                place = Path(folder) / "table"
                fresh(lake, place, form)
                if name == "lake":
                    seconds, again = by_lake(lake, place, asked.processes, asked.merges)
                else:
                    seconds, again = by_deltalake(place, asked.processes, asked.merges)
                [row] = query(lake, f"SELECT sum(n) AS n FROM '{place}'")["rows"]
                right = row[0] == expected(asked.processes, asked.merges)
                rate = asked.processes * asked.merges / seconds
                print(f"| {name} | {form} | {rate:.1f} | {again} | {'yes' if right else 'NO'} |", flush=True)


if __name__ == "__main__":
    main()
