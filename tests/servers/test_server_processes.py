"""Processes of `lake` that merge into the same rows over servers that others wrote: each acknowledged merge is there
once, and the rows are those of running the merges in the order of the history."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from shell import Shell

PROCESSES, MERGES, KEYS = 8, 2, 12


@dataclass(frozen=True)
class Done:
    """A merge that was acknowledged."""

    keys: list[int]
    mark: str
    version: int


@pytest.mark.parametrize("format", ["iceberg", "delta"])
def test_eight_processes_lose_and_double_nothing(shell: Shell, format):
    table = shell.server.url(f"race/{format}")
    shell("create", table, "--schema", "id bigint not null, log string", "--format", format)
    empty = ", ".join(f"({key}, '')" for key in range(KEYS))
    shell("query", f"INSERT INTO '{table}' VALUES {empty}")
    before = len(shell("history", table)["commits"])

    def work(writer: int) -> list[Done]:
        done = []
        for n in range(MERGES):
            # Overlapping, and different for each.
            keys = sorted({(writer * 3 + n * 5 + i * i) % KEYS for i in range(4)})
            mark = f"{writer}.{n};"
            values = ", ".join(f"({key}, '{mark}')" for key in keys)
            source = f"SELECT * FROM (VALUES {values}) AS s(id, log)"
            report = shell("merge", table, source, "--on", "id", "--set", "log = concat(target.log, source.log)")
            done.append(Done(keys, mark, report["version"]))
        return done

    with ThreadPoolExecutor(PROCESSES) as pool:
        done = [merge for merges in pool.map(work, range(PROCESSES)) for merge in merges]

    by_version = {merge.version: merge for merge in done}
    assert len(by_version) == len(done), "two merges say that they made one version"
    order = [commit["version"] for commit in reversed(shell("history", table)["commits"])]
    assert len(order) == before + PROCESSES * MERGES
    expected = dict.fromkeys(range(KEYS), "")
    for merge in filter(None, map(by_version.get, order)):
        for key in merge.keys:
            expected[key] += merge.mark
    assert dict(shell.rows(f"SELECT id, log FROM '{table}'")) == expected
