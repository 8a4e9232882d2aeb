"""What DuckDB reads in a table of any engine, so that no engine is believed about its own merge.

    python -m benches.oracle check KIND TABLE        the figures of a table
    python -m benches.oracle outside TABLE LOW HIGH  the data files without an order key of the range, as they say
    python -m benches.oracle named KIND TABLE        the data files that the newest metadata names
    python -m benches.oracle groups FILE..           the row groups of each file
    python -m benches.oracle count WHERE FILE..      rows
    python -m benches.oracle newest TABLE            the newest metadata file of an Iceberg table
    python -m benches.oracle manifests TABLE         the number of its manifests
    python -m benches.oracle events KIND TABLE       the figures of a stream

All in a process of their own: the harness stays small, because a child's peak memory counts from its parent's.
"""

import json
import re
import sys
from importlib.util import find_spec
from pathlib import Path

from benches.data import FIGURES

# The columns of a stream of events, and what is compared of it.
EVENTS = {"id": "BIGINT", "ts": "TIMESTAMP", "kind": "VARCHAR", "value": "DOUBLE"}
EVENT_FIGURES = f"""count(*) AS "rows", sum(id) AS ids,
  sum(hash({", ".join(f"{column}::{kind}" for column, kind in EVENTS.items())})::HUGEINT) AS "hash" """


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
    if kind == "lines":
        db = connect()
        form = f"format = 'newline_delimited', columns = {EVENTS}"
        db.execute(f"CREATE VIEW lineitem AS FROM read_json('{table}', {form})")
        return db
    db = connect(extensions=("delta",))
    db.execute(f"CREATE VIEW lineitem AS FROM delta_scan('{table}')")
    return db


def figures(kind: str, table: Path, what: str = FIGURES) -> dict[str, str]:
    """The figures of the whole table."""
    answer = read(kind, table).execute(f"SELECT {what} FROM lineitem")
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


def named(kind: str, table: Path) -> list[str]:
    """The data files that the newest metadata names, by the library of the format that is not ours."""
    if kind == "ducklake":
        rows = read(kind, table).execute("SELECT data_file FROM ducklake_list_files('lake', 'lineitem')").fetchall()
        return [row[0] for row in rows]
    if kind == "iceberg":
        tasks = _static(table).scan().plan_files()
        return [task.file.file_path.removeprefix("file://") for task in tasks]
    import deltalake

    return [path.removeprefix("file://") for path in deltalake.DeltaTable(table).file_uris()]


def _static(table: Path):
    from pyiceberg.table import StaticTable

    return StaticTable.from_metadata(f"file://{newest_metadata(table)}")


def manifests(table: Path) -> int:
    """Manifests of an Iceberg table's newest version."""
    newest = _static(table)
    return len(newest.current_snapshot().manifests(newest.io))


def groups(paths: tuple[str, ...]) -> list[list[dict]]:
    """The row groups of each file: rows, compressed bytes, the range of order keys."""
    query = (
        "SELECT row_group_num_rows AS rows, sum(total_compressed_size)::BIGINT AS bytes, "
        "min(try_cast(stats_min_value AS BIGINT)) FILTER (path_in_schema = 'l_orderkey') AS low, "
        "max(try_cast(stats_max_value AS BIGINT)) FILTER (path_in_schema = 'l_orderkey') AS high "
        "FROM parquet_metadata('{}') GROUP BY row_group_id, row_group_num_rows ORDER BY row_group_id"
    )
    db, names = connect(), ("rows", "bytes", "low", "high")
    return [[dict(zip(names, row, strict=True)) for row in db.execute(query.format(path)).fetchall()] for path in paths]


def main(command: str, *arguments: str) -> None:
    if command == "check":
        kind, table = arguments
        print(json.dumps(figures(kind, Path(table))))
    elif command == "outside":
        table, low, high = arguments
        print(json.dumps(outside(Path(table), int(low), int(high))))
    elif command == "named":
        kind, table = arguments
        print(json.dumps(named(kind, Path(table))))
    elif command == "groups":
        print(json.dumps(groups(arguments)))
    elif command == "newest":
        table = Path(arguments[0])
        print(json.dumps(str(newest_metadata(table).relative_to(table))))
    elif command == "manifests":
        print(manifests(Path(arguments[0])))
    elif command == "count":
        where, *paths = arguments
        print(connect().execute(f"SELECT count(*) FROM read_parquet({paths}) WHERE {where}").fetchone()[0])
    elif command == "events":
        kind, table = arguments
        print(json.dumps(figures(kind, Path(table), EVENT_FIGURES)))


if __name__ == "__main__":
    main(*sys.argv[1:])
