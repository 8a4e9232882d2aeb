"""Independent readers, so that no test has to believe `lake` about what `lake` wrote.

`read_<reader>(path, version=None, key=None, where=None)` reads the table in directory `path` and returns its rows,
normalised and sorted by `key` or else by all columns. `version` is a snapshot id (Iceberg) or a version number (Delta),
`where` a condition in the SQL that all of them understand: columns compared with numbers and strings, `and`, `or`.
"""

import json
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from itertools import count
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

Version = int | None
Key = list[str] | None
Where = str | None

# ---- Iceberg


def newest_metadata(path: Path | str) -> Path:
    """The newest metadata file of an Iceberg table, be it named `v3.metadata.json` or `00003-<uuid>.metadata.json`."""
    numbered = [
        (int(match[1]), file)
        for file in (Path(path) / "metadata").iterdir()
        if (match := re.fullmatch(r"v?(\d+)(?:-.*)?\.metadata\.json", file.name))
    ]
    if not numbered:
        raise FileNotFoundError(f"no metadata file in {path}")
    return max(numbered)[1]


def read_pyiceberg(path: Path | str, version: Version = None, key: Key = None, where: Where = None) -> pa.Table:
    """PyIceberg, in Python."""
    from pyiceberg.table import StaticTable

    table = StaticTable.from_metadata(newest_metadata(path).absolute().as_uri())
    return _sorted(table.scan(row_filter=where or "true", snapshot_id=version).to_arrow(), key)


def read_duckdb_iceberg(path: Path | str, version: Version = None, key: Key = None, where: Where = None) -> pa.Table:
    """DuckDB's iceberg extension, in C++."""
    at = "" if version is None else f", snapshot_from_id = {version}"
    # Without `allow_moved_paths`, so that a wrong path in the metadata shows.
    return _duckdb(f"FROM iceberg_scan('{newest_metadata(path)}'{at}){_where(where)}", key)


def read_chdb_iceberg(path: Path | str, version: Version = None, key: Key = None, where: Where = None) -> pa.Table:
    """ClickHouse, in C++. It finds the files of a moved table, and so does not notice wrong paths in the metadata."""
    settings = "" if version is None else f" SETTINGS iceberg_snapshot_id = {version}"
    source = f"icebergLocal('{Path(path).absolute()}/', Parquet)"
    return _sorted(_chdb(f"SELECT * FROM {source}{_clickhouse_where(where)}{settings}"), key)


# ---- Delta


def read_deltalake(path: Path | str, version: Version = None, key: Key = None, where: Where = None) -> pa.Table:
    """delta-rs by its query engine: its pyarrow path refuses deletion vectors and column mapping."""
    import deltalake

    table = deltalake.DeltaTable(path, version=version)
    batches = deltalake.QueryBuilder().register("t", table).execute(f"SELECT * FROM t{_where(where)}").read_all()
    return _sorted(pa.table(batches), key)


def read_duckdb_delta(path: Path | str, version: Version = None, key: Key = None, where: Where = None) -> pa.Table:
    """DuckDB's delta extension: the log is read by delta-kernel, the data by DuckDB."""
    if version is None:
        return _duckdb(f"FROM delta_scan('{path}'){_where(where)}", key)
    # A name of its own, because the connection lives on.
    name = f"t{next(_NUMBERS)}"
    _duck().execute(f"ATTACH '{path}' AS {name} (TYPE delta, VERSION {version})")
    try:
        return _duckdb(f"FROM {name}{_where(where)}", key)
    finally:
        _duck().execute(f"DETACH {name}")


def read_chdb_delta(path: Path | str, version: Version = None, key: Key = None, where: Where = None) -> pa.Table:
    """ClickHouse: the log is read by delta-kernel, the data by ClickHouse."""
    settings = "allow_experimental_delta_kernel_rs = 1"
    if version is not None:
        settings += f", delta_lake_snapshot_version = {version}"
    source = f"deltaLakeLocal('{Path(path).absolute()}/')"
    return _sorted(_chdb(f"SELECT * FROM {source}{_clickhouse_where(where)} SETTINGS {settings}"), key)


# ---- engines


def _where(condition: Where) -> str:
    return "" if condition is None else f" WHERE {condition}"


def duckdb_connection(*more: str):
    """DuckDB with extensions out of their PyPI packages; nothing is downloaded."""
    import duckdb

    # Its cache mixes up the deletion vectors of one Puffin file up to 1.5.5 (duckdb-iceberg #1182): wrong rows.
    config = {"autoinstall_known_extensions": "false", "enable_external_file_cache": "false"}
    connection = duckdb.connect(config=config)
    # iceberg needs avro, and would fetch it.
    for name in (*more, "avro", "iceberg", "delta"):
        (package,) = find_spec(f"duckdb_extension_{name}").submodule_search_locations
        connection.execute(f"LOAD '{package}/extensions/v{duckdb.__version__}/{name}.duckdb_extension'")
    connection.execute("SET TimeZone = 'UTC'; SET enable_progress_bar = false")
    return connection


@cache
def _duck():
    """One connection for all reads: loading the extensions takes longer than a read."""
    return duckdb_connection()


def _clickhouse_where(condition: Where) -> str:
    """Timestamps as ClickHouse reads them: without T and zone."""
    return re.sub(r"'([\d-]{10})T([\d:.]+)(\+00:00)?'", r"'\1 \2'", _where(condition))


_NUMBERS = count()


def _duckdb(query: str, key: Key) -> pa.Table:
    return _sorted(_duck().execute(query).to_arrow_table(), key)


# Reads queries, a line of JSON each, and answers each by the length of what follows, and an Arrow stream or, if the
# length is negative, what went wrong.
_CHDB = """
import json, os, sys, chdb
for line in sys.stdin:
    try:
        sign, answer = 1, chdb.query(json.loads(line), "ArrowStream").bytes()
    except Exception as error:
        sign, answer = -1, str(error).encode()[-2000:] or b"failed"
    sys.stdout.buffer.write((sign * len(answer)).to_bytes(8, "little", signed=True) + answer)
    sys.stdout.buffer.flush()
os._exit(0)
"""


@cache
def _clickhouse() -> subprocess.Popen:
    """ClickHouse in its own process: it opens only files below its current directory. It lives as long as the tests."""
    environment = os.environ | {"TZ": "UTC"}
    pipe = subprocess.PIPE
    return subprocess.Popen([sys.executable, "-c", _CHDB], cwd="/", env=environment, stdin=pipe, stdout=pipe)


def _chdb(query: str) -> pa.Table:
    server = _clickhouse()
    server.stdin.write(json.dumps(query).encode() + b"\n")
    server.stdin.flush()
    head = server.stdout.read(8)
    length = int.from_bytes(head, "little", signed=True)
    answer = server.stdout.read(abs(length))
    if len(head) < 8 or len(answer) < abs(length):
        _clickhouse.cache_clear()
        raise RuntimeError(f"ClickHouse ended with {server.wait()} on {query}")
    if length < 0:
        raise RuntimeError(answer.decode(errors="replace").strip())
    return pa.ipc.open_stream(answer).read_all()


# ---- all of them

READERS = {
    "iceberg": {
        "pyiceberg": read_pyiceberg,
        "duckdb_iceberg": read_duckdb_iceberg,
        "chdb_iceberg": read_chdb_iceberg,
    },
    "delta": {
        "deltalake": read_deltalake,
        "duckdb_delta": read_duckdb_delta,
        "chdb_delta": read_chdb_delta,
    },
}

# What a reader is known not to read, and why. `check` still runs it, and fails once the rows are right.
CANNOT = {
    ("pyiceberg", "equality-deletes"): "not supported (apache/iceberg-python, error names apache/iceberg#6568)",
    ("duckdb_iceberg", "equality-deletes-null"): "drops rows with a null in a delete column: NOT (null) is null",
    (
        "duckdb_iceberg",
        "v1-manifests",
    ): "wants sequence numbers, which entries of version 1 do not have (spec: read as 0)",
    ("chdb_iceberg", "deletion-vectors"): "reads position deletes from Parquet only, not from Puffin",
    ("chdb_iceberg", "null-nested"): "has no null lists, maps and structs: gives empty ones, and structs of nulls",
    ("chdb_delta", "null-nested"): "has no null lists, maps and structs: gives empty ones, and structs of nulls",
    ("deltalake", "type-widening"): "refuses tables with this feature",
    ("duckdb_delta", "renamed-partition"): "gives NULL for a partition column that was renamed (column mapping)",
    (
        "duckdb_delta",
        "renamed-before-partition",
    ): "gives NULL, or another's values, for partition columns after a renamed column (duckdb/duckdb-delta#343)",
    (
        "duckdb_iceberg",
        "dropped-partition-source",
    ): "ends its process where a manifest's partition spec is by a column that was dropped (as apache/iceberg#10234)",
    ("chdb_iceberg", "time-of-day"): "gives whole seconds, as a plain integer",
}


def check(
    kind: str,
    path: Path | str,
    expected: pa.Table,
    version: Version = None,
    key: Key = None,
    features: Iterable[str] = (),
    where: Where = None,
    hidden: Iterable[str] = (),
) -> None:
    """Fails unless every reader of `kind` reads `expected`, but for those that cannot because of a feature.

    `hidden` columns are not in `expected`, but each reader must show them, after all others. With `where`, a reader
    that cannot read all of the table is left out: what it skips may be what it cannot read.
    """
    for name in READERS[kind]:
        cannot = [CANNOT[name, feature] for feature in features if (name, feature) in CANNOT]
        if cannot and where:
            continue
        try:
            check_one(kind, name, path, expected, version, key, where, hidden)
        except Exception as error:
            if not cannot:
                raise AssertionError(f"{name} on {path}: {error}") from error
        else:
            assert not cannot, f"{name} has learned to read {path}: take it out of CANNOT ({'; '.join(cannot)})"


def check_one(
    kind: str,
    name: str,
    path: Path | str,
    expected: pa.Table,
    version: Version = None,
    key: Key = None,
    where: Where = None,
    hidden: Iterable[str] = (),
) -> None:
    """Fails unless the reader of that name reads `expected`."""
    got = _without(READERS[kind][name](path, version, key, where), list(hidden))
    # ClickHouse knows neither bytes nor timestamps without a zone.
    assert_same(expected, normalise(got, expected.schema) if name.startswith("chdb") else got, key)


def _without(table: pa.Table, columns: list[str]) -> pa.Table:
    shown = table.column_names[table.num_columns - len(columns) :]
    if shown != columns:
        raise AssertionError(f"columns {table.column_names} should end in {columns}")
    return table.drop_columns(columns)


# ---- comparison


def normalise(table: pa.Table, schema: pa.Schema | None = None) -> pa.Table:
    """The same values in one Arrow type each, so that different readers can be compared; with `schema`, in its types.

    Timestamps become UTC microseconds (those in nanoseconds stay), UUIDs and all kinds of strings plain strings, all
    kinds of bytes plain binary, decimals 128 bits wide, and everything nullable. Integer widths are left alone, for
    they belong to the table's schema.
    """
    if schema is not None:
        if set(schema.names) != set(table.column_names):
            raise AssertionError(f"columns {table.column_names}, expected {schema.names}")
        table = table.select(schema.names)
    fields = [pa.field(f.name, _canonical(f.type)) for f in (table.schema if schema is None else schema)]
    columns = [_convert(column, field.type) for column, field in zip(table.columns, fields, strict=True)]
    return pa.table(columns, schema=pa.schema(fields))


def assert_same(a: pa.Table, b: pa.Table, key: Key = None) -> None:
    """Fails, showing the first differing rows, unless `b` holds the columns, types and rows of `a`, in any order."""
    a, b = _sorted(a, key), _sorted(b, key)
    if a.schema != b.schema:
        raise AssertionError(f"schemas differ\nexpected: {_brief(a.schema)}\n     got: {_brief(b.schema)}")
    if a.equals(b):
        return
    # By their text, because NaN is not equal to itself.
    left, right = (Counter(map(repr, table.to_pylist())) for table in (a, b))
    missing, extra = list((left - right).elements()), list((right - left).elements())
    if missing or extra:
        lines = [f"rows differ: {len(missing)} missing, {len(extra)} unexpected, {a.num_rows} expected"]
        lines += [f"- {row}" for row in missing[:SHOWN]] + [f"+ {row}" for row in extra[:SHOWN]]
        raise AssertionError("\n".join(lines))


SHOWN = 5


def _sorted(table: pa.Table, key: Key) -> pa.Table:
    table = normalise(table)
    by = table.select(key or table.column_names)
    for i, field in enumerate(by.schema):
        if pa.types.is_nested(field.type):  # which Arrow does not sort by
            by = by.set_column(i, field.name, pa.array(map(repr, by[i].to_pylist()), pa.string()))
    # Numbered, because the names may hold anything, and may differ from reader to reader only by mistake.
    by = by.rename_columns([str(i) for i in range(by.num_columns)])
    return table.take(pc.sort_indices(by, [(name, "ascending") for name in by.column_names]))


def _canonical(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _canonical(kind.value_type)
    if isinstance(kind, pa.UuidType) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pa.string()
    if isinstance(kind, pa.BaseExtensionType):
        return _canonical(kind.storage_type)
    if pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind) or pa.types.is_fixed_size_binary(kind):
        return pa.binary()
    if pa.types.is_timestamp(kind):
        return pa.timestamp("ns" if kind.unit == "ns" else "us", kind.tz and "UTC")
    if pa.types.is_time(kind):
        return pa.time64("us")
    if pa.types.is_decimal(kind):
        return pa.decimal128(kind.precision, kind.scale)
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(f.name, _canonical(f.type)) for f in kind])
    if pa.types.is_map(kind):
        return pa.map_(_canonical(kind.key_type), _canonical(kind.item_type))
    if pa.types.is_nested(kind):
        return pa.list_(pa.field("element", _canonical(kind.value_type)))
    return kind


def _convert(column: pa.ChunkedArray, kind: pa.DataType) -> pa.ChunkedArray:
    if isinstance(column.type, pa.UuidType) and kind == pa.string():
        return pa.chunked_array([[value and str(value) for value in column.to_pylist()]], kind)
    if isinstance(column.type, pa.BaseExtensionType):
        column = pa.chunked_array([chunk.storage for chunk in column.chunks], column.type.storage_type)
    return column if column.type == kind else column.cast(kind)


def _brief(schema: pa.Schema) -> str:
    return ", ".join(f"{field.name} {field.type}" for field in schema)
