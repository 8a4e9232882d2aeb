"""Parquet files that other engines wrote become tables of `lake`, and every reader reads them as such."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from readers import check, duckdb_connection
from tables import MASK, SCHEMA, Kind, Lake, Row, row, table

KINDS = [Kind("iceberg", 2), Kind("iceberg", 3), Kind("delta")]
REGIONS = ["eu", "us/west 2", "100%", "naïve ☃ = ?", None]
# Folders are read as bigint and text; the other columns come first.
FOLDERS = pa.schema([("grp", pa.int64()), ("region", pa.string())])
OTHERS = SCHEMA.remove(SCHEMA.get_field_index("grp"))


@pytest.fixture(scope="module")
def cli(lake: Path) -> Lake:
    return Lake(lake)


def rows(start: int, stop: int) -> list[Row]:
    return [row(i) | {"region": REGIONS[i % 5]} for i in range(start, stop)]


def expected(model: list[Row]) -> pa.Table:
    return pa.Table.from_pylist(model, schema=pa.schema([*OTHERS, *FOLDERS]))


def by_pyarrow(model: list[Row], path: Path) -> None:
    hive = ds.partitioning(FOLDERS, flavor="hive")
    ds.write_dataset(expected(model), path, format="parquet", partitioning=hive, max_partitions=100)


def by_duckdb(model: list[Row], path: Path) -> None:
    connection = duckdb_connection()
    connection.register("model", expected(model))
    connection.execute(f"COPY (FROM model) TO '{path}' (FORMAT parquet, PARTITION_BY (grp, region))")


def adopt(cli: Lake, path: Path, kind: Kind, *options: str) -> dict:
    version = ["--format-version", kind.version] if kind.version else []
    return cli.write("create", path, "--from-parquet", "--format", kind.format, *version, *options)


def masks(kind: Kind) -> list[str]:
    return ["deletion-vectors"] if kind.version == 3 else []


@pytest.mark.parametrize("write", [by_pyarrow, by_duckdb])
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_reader_reads_folders_that_others_wrote(cli, kind, write, tmp_path):
    path, model = tmp_path / "t", rows(0, 60)
    write(model, path)
    files = {file: file.read_bytes() for file in path.rglob("*.parquet")}
    report = adopt(cli, path, kind)
    assert (report["files"], report["rows"]) == (len(files), 60)
    check(kind.format, path, expected(model))
    for where, keep in [
        ("grp = 2", lambda r: r["grp"] == 2),
        ("region = 'us/west 2' and id > 20", lambda r: r["region"] == "us/west 2" and r["id"] > 20),
        ("id = 33 or region = '100%'", lambda r: r["id"] == 33 or r["region"] == "100%"),
    ]:
        check(kind.format, path, expected([r for r in model if keep(r)]), where=where)

    cli.write("delete", path, "--where", "id in (3, 4, 41)", *MASK)
    cli.write("update", path, "--set", "region = 'new', name = 'moved'", "--where", "id = 12", *MASK)
    model = [r for r in model if r["id"] not in (3, 4, 41)]
    model = [r | {"region": "new", "name": "moved"} if r["id"] == 12 else r for r in model]
    check(kind.format, path, expected(model), features=masks(kind))
    feed = tmp_path / "feed.parquet"
    pq.write_table(expected(rows(50, 70)), feed)
    cli.write("merge", path, feed, "--on", "id", "--strategy", "copy-on-write")
    model = [r for r in model if r["id"] < 50] + rows(50, 70)
    check(kind.format, path, expected(model), features=masks(kind))
    cli.write("compact", path)
    check(kind.format, path, expected(model))
    assert all(file.read_bytes() == content for file, content in files.items()), "the files stay as they were"


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_reader_reads_files_side_by_side(cli, kind, tmp_path):
    path = tmp_path / "t"
    path.mkdir()
    model = [row(i) for i in range(40)]
    pq.write_table(table(model[:20]), path / "one.parquet", row_group_size=5)
    # Another order, and a column less.
    fewer = table(model[20:]).drop_columns(["flag"])
    pq.write_table(fewer.select(list(reversed(fewer.column_names))), path / "two.parquet")
    model = [r | {"flag": None} if r["id"] >= 20 else r for r in model]
    adopt(cli, path, kind)
    check(kind.format, path, table(model))
    cli.write("delete", path, "--where", "id % 7 = 0", *MASK)
    check(kind.format, path, table([r for r in model if r["id"] % 7]), features=masks(kind))
    cli.write("compact", path)
    check(kind.format, path, table([r for r in model if r["id"] % 7]))


@pytest.mark.parametrize("version", [2, 3])
def test_every_reader_goes_by_the_field_ids_of_files(cli, version, tmp_path):
    path = tmp_path / "t"
    path.mkdir()

    def field(name: str, number: int) -> pa.Field:
        return pa.field(name, pa.int64(), metadata={"PARQUET:field_id": str(number)})

    # As numbered by their places, a and b would change places.
    pq.write_table(pa.table([[1], [2]], schema=pa.schema([field("a", 2), field("b", 1)])), path / "x.parquet")
    pq.write_table(pa.table([[3], [4]], schema=pa.schema([field("b", 1), field("c", 8)])), path / "y.parquet")
    adopt(cli, path, Kind("iceberg", version))
    schema = pa.schema([(name, pa.int64()) for name in "abc"])
    model = [{"a": 1, "b": 2, "c": None}, {"a": None, "b": 3, "c": 4}]
    check("iceberg", path, pa.Table.from_pylist(model, schema=schema))


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_what_would_have_to_be_converted_is_refused_by_column_and_file(cli, kind, tmp_path):
    path = tmp_path / "t"
    path.mkdir()
    values = pa.table({"id": pa.array([1]), "ts": pa.array([0], pa.timestamp("ns"))})
    pq.write_table(values, path / "old.parquet", use_deprecated_int96_timestamps=True)
    version = ["--format-version", kind.version] if kind.version else []
    refused = cli.refused("create", path, "--from-parquet", "--format", kind.format, *version)
    assert "column ts of old.parquet" in refused and "lake append" in refused
    assert [file.name for file in path.iterdir()] == ["old.parquet"]


def test_dry_run_tells_the_types(cli, tmp_path):
    path = tmp_path / "t"
    by_pyarrow(rows(0, 30), path)
    report = json.loads(cli("create", path, "--from-parquet", "--dry-run", "--json"))
    assert report["committed"] is False and report["partitioning"] == ["grp", "region"]
    assert [column["name"] for column in report["schema"]] == [*OTHERS.names, *FOLDERS.names]
    assert not (path / "metadata").exists()
