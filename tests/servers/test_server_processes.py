"""Processes of `lake` that merge into the same rows over servers that others wrote: each acknowledged merge is there
once, and the rows are those of running the merges in the order of the history. And processes that are killed."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest
from shell import Shell

PROCESSES, MERGES, KEYS = 8, 2, 12
# Kills are spread over the time that an append takes.
KILLS = 8


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


@pytest.mark.parametrize("format", ["iceberg", "delta"])
def test_what_was_killed_and_is_run_again_with_its_key_lands_once(shell: Shell, format, tmp_path):
    table = shell.server.url(f"killed/{format}")
    shell("create", table, "--schema", "id bigint not null", "--format", format)

    def command(n: int) -> list[str | Path]:
        rows = tmp_path / f"{n}.csv"
        rows.write_text(f"id\n{n}\n")
        return ["append", table, rows, "--idempotency-key", f"rows {n}"]

    started = time.monotonic()
    shell(*command(0))
    whole = time.monotonic() - started
    for n in range(1, KILLS + 1):
        process = shell.start(*command(n))
        time.sleep(whole * n / KILLS)
        process.kill()
        process.communicate()
        # It lands once, whether the first run had committed or not.
        shell(*command(n))
        assert shell.rows(f"SELECT id FROM '{table}'") == [(i,) for i in range(n + 1)]
    assert len([c for c in shell("history", table)["commits"] if c["operation"] in ("append", "WRITE")]) == KILLS + 1
