"""Rows kept as JSON beside a table that another engine wrote, as that engine reads them."""

import json
import math
from dataclasses import dataclass, replace
from datetime import date, datetime, time
from decimal import Decimal
from pathlib import Path

import pyarrow as pa

from tests.interop.readers import normalise

SPARK = Path(__file__).parents[2] / "fixtures" / "spark"


@dataclass(frozen=True)
class Read:
    """A question, and the answer: what the columns are, and a line of JSON for each row, in order."""

    at: str | None  # a version, snapshot id, tag or branch
    where: str | None
    columns: dict[str, str]
    rows: list[str]

    def values(self, line: str) -> dict[str, object]:
        """A row by column."""
        return dict(zip(self.columns, json.loads(line), strict=True))

    def without(self, key: int) -> "Read":
        """What is left when the row with that id is deleted."""
        return replace(self, rows=[line for line in self.rows if self.values(line)["id"] != key])

    def same(self, table: pa.Table) -> None:
        """Fails unless these are the rows, in any order."""
        columns, rows = lines(table)
        assert columns == self.columns, f"columns differ\nexpected: {self.columns}\n     got: {columns}"
        missing, extra = ([row for row in a if row not in b] for a, b in ((self.rows, rows), (rows, self.rows)))
        shown = "\n".join(["rows differ", *(f"- {row}" for row in missing), *(f"+ {row}" for row in extra)])
        assert rows == self.rows, shown


def lines(table: pa.Table) -> tuple[dict[str, str], list[str]]:
    """Types by column, and sorted lines of rows."""
    table = normalise(table)
    rows = zip(*(column.to_pylist() for column in table.columns), strict=True)
    columns = {field.name: str(field.type) for field in table.schema}
    return columns, sorted(json.dumps(plain(list(row)), ensure_ascii=False) for row in rows)


def plain(value: object) -> object:
    """A value as JSON can hold it, without loss but for its type, which the column has."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, date | datetime | time):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: plain(child) for name, child in value.items()}
    if isinstance(value, list | tuple):
        return [plain(child) for child in value]
    return value


def save(file: Path, reads: list[Read]) -> None:
    """One row a line, so that a difference can be read."""
    parts = []
    for read in reads:
        head = json.dumps({"at": read.at, "where": read.where, "columns": read.columns}, ensure_ascii=False)
        parts.append(head[:-1] + ', "rows": [' + ",".join(f"\n  {row}" for row in read.rows) + "]}")
    file.write_text("[" + ",\n".join(parts) + "]\n")


def load(name: str) -> list[Read]:
    """The questions about a table, and their answers."""
    reads = json.loads((SPARK / name / "expected.json").read_text())
    return [Read(**read | {"rows": [json.dumps(row, ensure_ascii=False) for row in read["rows"]]}) for read in reads]


def newest(name: str) -> Read:
    """What its newest version holds."""
    return next(read for read in load(name) if read.at is None and read.where is None)


def tables() -> list[str]:
    return sorted(file.parent.name for file in SPARK.glob("*/expected.json"))


def first_key(read: Read) -> int:
    """The id of a row."""
    return read.values(read.rows[0])["id"]
