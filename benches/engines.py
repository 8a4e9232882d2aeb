"""The engines: which command does what, and how its answer is read. Every operation is a process of its own."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

from benches.data import KEYS, OP, Q1, Data, plain
from benches.measure import Run

BASE, RANDOM = "base", "random"


@dataclass(frozen=True)
class Engine:
    """A library (a peer, or ours) or a floor: its name in tables, its function in peers.py, its kind for DuckDB."""

    name: str
    function: str
    kind: str

    @property
    def slug(self) -> str:
        return self.name.replace(" ", "-")

    def load(self, table: Path, data: Data, sixteen: bool) -> list[list]:
        """The commands that make the table, in one file (or what the engine likes) or in sixteen."""
        return [self._task("load", table, data, sixteen=sixteen)]

    def merge(self, table: Path, data: Data, feed: str, flags: tuple[str, ...] = ()) -> list:
        """The command that merges a feed."""
        return self._task("merge", table, data, feed=str(data.feed(feed)), mixed=feed == "mixed")

    def q1(self, table: Path, data: Data) -> list:
        """The command that answers TPC-H Q1."""
        return self._task("q1", table, data)

    def compact(self, table: Path, data: Data, target: int, by: tuple[str, ...] = (), flags: tuple = ()) -> list:
        """The command that compacts into files of `target` bytes, in Z-order by some columns if there are any."""
        return self._task("compact", table, data, target=target, by=by)

    def _task(self, op: str, table: Path, data: Data, **more) -> list:
        task = {"op": op, "table": str(table), "parts": [str(part) for part in data.parts], **more}
        return [sys.executable, "-m", "benches.peers", self.function, json.dumps(task)]

    def answer(self, run: Run) -> dict:
        """What the process said: {"report": .., "q1": ..}; notes the operation's own seconds."""
        said = json.loads(run.stdout.strip().splitlines()[-1])
        run.operation = said["seconds"]
        return {"q1": said["answer"]} if isinstance(said["answer"], list) else {"report": said["answer"]}

    def complaint(self, run: Run) -> str:
        """Why the process failed, in a line."""
        lines = [line for line in run.stderr.splitlines() if line.strip()]
        # DuckDB points at the place below its message.
        told = [line for line in lines if "Error" in line] or lines
        return told[-1] if told else "no message"

    def unsupported(self, run: Run) -> bool:
        """Whether the process failed because it does not know what was asked."""
        return "NotImplementedError" in run.stderr


@dataclass(frozen=True)
class Lake(Engine):
    """`lake` on one format."""

    binary: Path = Path()
    create: tuple[str, ...] = field(default=())

    def load(self, table: Path, data: Data, sixteen: bool) -> list[list]:
        create = ["--create", *self.create, "--json"]
        chunks = [[part] for part in data.parts] if sixteen else [data.parts]
        return [[self.binary, "append", table, *chunk, *create] for chunk in chunks]

    def merge(self, table: Path, data: Data, feed: str, flags: tuple[str, ...] = ()) -> list:
        mixed = ["--delete-when", f"source.{OP} = 'D'"] if feed == "mixed" else []
        return [self.binary, "merge", table, data.feed(feed), "--on", ", ".join(KEYS), *mixed, *flags, "--json"]

    def q1(self, table: Path, data: Data) -> list:
        return [self.binary, "query", Q1.format(table="lineitem"), "--table", f"lineitem={table}", "--json"]

    def compact(self, table: Path, data: Data, target: int, by: tuple[str, ...] = (), flags: tuple = ()) -> list:
        order = ["--zorder", ",".join(by)] if by else []
        return [self.binary, "compact", table, "--target-file-size", target, *order, *flags, "--json"]

    def answer(self, run: Run) -> dict:
        said = json.loads(run.stdout)
        if "rows" not in said:
            return {"report": said}
        rows = [row if isinstance(row, list) else list(row.values()) for row in said["rows"]]
        return {"q1": plain(rows)}

    def complaint(self, run: Run) -> str:
        try:
            return json.loads(run.stdout)["error"]["message"]
        except (ValueError, KeyError):
            return super().complaint(run)

    def unsupported(self, run: Run) -> bool:
        return run.code == 2


def engines(binary: Path) -> dict[str, Engine]:
    """All engines by name; `lake` first."""
    iceberg = ("--format", "iceberg", "--format-version")
    known = [
        Lake("lake iceberg v3", "", "iceberg", binary, (*iceberg, "3")),
        Lake("lake delta", "", "delta", binary, ("--format", "delta")),
        Lake("lake iceberg v2", "", "iceberg", binary, (*iceberg, "2")),
        Engine("lakehouse iceberg v3", "lakehouse_iceberg", "iceberg"),
        Engine("lakehouse delta", "lakehouse_delta", "delta"),
        Engine("ducklake", "ducklake", "ducklake"),
        Engine("deltalake", "deltalake", "delta"),
        Engine("sail delta", "sail_delta", "delta"),
        Engine("sail iceberg", "sail_iceberg", "iceberg"),
        Engine("duckdb", "duckdb", "duckdb"),
        Engine("pyiceberg", "pyiceberg", "iceberg"),
    ]
    return {engine.name: engine for engine in known}


LAKES = ("lake iceberg v3", "lake delta", "lake iceberg v2")
# The same engine as a Python module: its operation alone is timed, as that of the peers is.
MODULES = ("lakehouse iceberg v3", "lakehouse delta")
# Left out unless asked for.
SLOW = {"pyiceberg": "its upsert of one percent of SF1 takes more than a minute and crashes; --with pyiceberg runs it"}
