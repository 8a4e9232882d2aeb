"""What DuckDB reads in a table of any engine, so that no engine is believed about its own merge.

`python -m benches.oracle check KIND TABLE` prints the figures of a table; `outside TABLE LOW HIGH` prints the data
files without an order key of the range, by their own statistics. Both in a process of their own: the harness stays
small, because a child's peak memory counts from its parent's.
"""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from benches.data import FIGURES


def connect(path: str = ":memory:", extensions: tuple[str, ...] = ()):
    """DuckDB with extensions out of their PyPI packages; nothing is downloaded."""
    import duckdb

    db = duckdb.connect(path, config={"autoinstall_known_extensions": "false"})
    for name in extensions:
        (package,) = find_spec(f"duckdb_extension_{name}").submodule_search_locations
        db.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/{name}.duckdb_extension'")
    return db


def newest_metadata(table: Path) -> Path:
    """The newest metadata file of an Iceberg table."""
    numbered = [
        (int(match[1]), file)
        for file in table.rglob("*.metadata.json")
        if (match := re.fullmatch(r"v?(\d+)(?:-.*)?\.metadata\.json", file.name))
    ]
    return max(numbered)[1]


def read(kind: str, table: Path):
    """A connection in which `lineitem` is the table."""
    if kind == "duckdb":
        return connect(str(table / "lineitem.db"))
    if kind == "ducklake":
        db = connect(extensions=("ducklake",))
        db.execute(f"ATTACH 'ducklake:{table}/catalog.ducklake' AS lake (DATA_PATH '{table}/data'); USE lake")
        return db
    if kind == "iceberg":
        db = connect(extensions=("avro", "iceberg"))  # iceberg would fetch avro
        # Its cache mixes up the deletion vectors of one Puffin file up to 1.5.5 (duckdb-iceberg #1182): wrong rows.
        db.execute("SET enable_external_file_cache = false")
        db.execute(f"CREATE VIEW lineitem AS FROM iceberg_scan('{newest_metadata(table)}')")
        return db
    db = connect(extensions=("delta",))
    db.execute(f"CREATE VIEW lineitem AS FROM delta_scan('{table}')")
    return db


def figures(kind: str, table: Path) -> dict[str, str]:
    """The figures of the whole table."""
    answer = read(kind, table).execute(f"SELECT {FIGURES} FROM lineitem")
    names = [column[0] for column in answer.description]
    return dict(zip(names, map(str, answer.fetchone()), strict=True))


def outside(table: Path, low: int, high: int) -> list[str]:
    """The data files that hold no order key between `low` and `high`."""
    db, found = connect(), []
    for file in sorted(table.rglob("*.parquet")):
        least, most = db.execute(
            f"SELECT min(stats_min_value::BIGINT), max(stats_max_value::BIGINT) FROM parquet_metadata('{file}') "
            "WHERE path_in_schema = 'l_orderkey'"
        ).fetchone()
        if least is not None and (least > high or most < low):
            found.append(str(file.relative_to(table)))
    return found


def main(command: str, *arguments: str) -> None:
    if command == "check":
        kind, table = arguments
        print(json.dumps(figures(kind, Path(table))))
    elif command == "outside":
        table, low, high = arguments
        print(json.dumps(outside(Path(table), int(low), int(high))))


if __name__ == "__main__":
    main(*sys.argv[1:])
