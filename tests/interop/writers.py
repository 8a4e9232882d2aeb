"""Small tables written by other engines, for `lake` to read.

Every function takes the directory the table is to live in and returns `(path, expected)`: that directory, and the rows
an independent calculation says it holds (never what the writer reads back).
"""

import json
import shutil
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import deltalake as dl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyiceberg.catalog.sql import SqlCatalog
from pyiceberg.manifest import (
    DataFile,
    DataFileContent,
    FileFormat,
    ManifestContent,
    ManifestEntry,
    ManifestEntryStatus,
    ManifestWriterV2,
    write_manifest_list,
)
from pyiceberg.partitioning import UNPARTITIONED_PARTITION_SPEC
from pyiceberg.table import Table
from pyiceberg.table.snapshots import Operation, Snapshot, Summary
from pyiceberg.table.update import AddSnapshotUpdate, AssertRefSnapshotId, SetSnapshotRefUpdate
from pyiceberg.transforms import BucketTransform, DayTransform
from pyiceberg.typedef import Record
from readers import duckdb_connection, newest_metadata

FIXTURES = Path(__file__).parents[2] / "fixtures" / "foreign"
# Where those tables were written.
WAREHOUSE = Path("/tmp/warehouse")

SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("grp", pa.int32()),
        ("name", pa.string()),
        ("price", pa.decimal128(10, 2)),
        ("score", pa.float64()),
        ("flag", pa.bool_()),
        ("day", pa.date32()),
        ("ts", pa.timestamp("us", "UTC")),
    ]
)
EPOCH = datetime(2024, 2, 28, tzinfo=UTC)


def rows(start: int, stop: int, **change: object) -> pa.Table:
    """Rows `start..stop` of an endless table with nulls here and there; `change` sets whole columns."""

    def row(i: int) -> dict:
        ts = EPOCH + timedelta(hours=i, microseconds=i)
        return {
            "id": i,
            "grp": i % 3,
            "name": None if i % 7 == 5 else f"näme {i % 10}",
            "price": None if i % 11 == 3 else Decimal(i) / 4 - 5,
            "score": None if i % 13 == 4 else i / 8,
            "flag": None if i % 5 == 2 else i % 2 == 0,
            "day": date(2024, 2, 28) + timedelta(days=i // 24),
            "ts": None if i % 17 == 6 else ts,
        } | change

    return pa.Table.from_pylist([row(i) for i in range(start, stop)], schema=SCHEMA)


def without(table: pa.Table, *conditions: pc.Expression) -> pa.Table:
    """The rows for which none of the conditions is true (as in SQL, null is not true)."""
    for condition in conditions:
        table = table.filter(~pc.if_else(pc.is_valid(condition), condition, False))
    return table


# ---- Iceberg by PyIceberg


def _create(path: Path, **kwargs: object) -> Table:
    """An empty Iceberg v2 table at `path`; its catalog is a file beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog(path.name, uri=f"sqlite:///{path}.db", warehouse=f"file://{path.parent}")
    catalog.create_namespace("test")
    return catalog.create_table(f"test.{path.name}", location=f"file://{path}", **{"schema": SCHEMA} | kwargs)


def pyiceberg_day_bucket(path: Path) -> tuple[Path, pa.Table]:
    """Partitioned by day(ts) and bucket(4, id); two appends, then a delete by filter, which rewrites files."""
    table = _create(path)
    with table.update_spec() as spec:
        spec.add_field("ts", DayTransform(), "ts_day")
        spec.add_field("id", BucketTransform(4), "id_bucket")
    table.append(rows(0, 30))
    table.append(rows(30, 50))
    table.delete("grp == 1 and id < 40")
    expected = without(rows(0, 50), (pc.field("grp") == 1) & (pc.field("id") < 40))
    return path, expected


def pyiceberg_position_deletes(path: Path) -> tuple[Path, pa.Table]:
    """One position delete file over two data files, then a further append, which it does not touch."""
    table = _create(path)
    table.append(rows(0, 50))
    table.append(rows(50, 100))
    files = sorted(task.file.file_path for task in table.scan().plan_files())
    positions = pa.table(
        [
            pa.array([file for file in files for _ in range(0, 50, 10)]),
            pa.array([pos for _ in files for pos in range(0, 50, 10)], pa.int64()),
        ],
        schema=pa.schema([_field("file_path", pa.string(), 2147483546), _field("pos", pa.int64(), 2147483545)]),
    )
    _commit_deletes(table, [_delete_file(path, "positions", positions, DataFileContent.POSITION_DELETES)])
    table.refresh().append(rows(100, 120))
    kept = [i for i in range(100) if i % 10] + list(range(100, 120))
    return path, rows(0, 120).take(kept)


def pyiceberg_equality_deletes(path: Path) -> tuple[Path, pa.Table]:
    """Deletes by id and by (grp, day); rows with deleted keys are appended again afterwards."""
    return _equality_deletes(path, "day", [(0, date(2024, 2, 29)), (1, date(2024, 3, 1))])


def pyiceberg_equality_deletes_null(path: Path) -> tuple[Path, pa.Table]:
    """As above, by id and by (grp, name), where a null equals a null and nothing else."""
    return _equality_deletes(path, "name", [(0, "näme 3"), (1, None)])


def pyiceberg_elsewhere(path: Path) -> tuple[Path, pa.Table]:
    """Data files are in another folder, as `write.data.path` says. No catalog knows the table: its folder says which
    metadata is the newest."""
    table = _create(path, properties={"write.data.path": f"file://{path}-data"})
    table.append(rows(0, 30))
    table.append(rows(30, 60))
    newest = newest_metadata(path).read_bytes()
    for file in (path / "metadata").glob("*.metadata.json"):
        file.unlink()
    (path / "metadata" / "v1.metadata.json").write_bytes(newest)
    (path / "metadata" / "version-hint.text").write_text("1")
    return path, rows(0, 60)


def _equality_deletes(path: Path, column: str, pairs: list[tuple]) -> tuple[Path, pa.Table]:
    table = _create(path)
    table.append(rows(0, 50))
    table.append(rows(50, 100))
    fields = {name: table.schema().find_field(name) for name in ("id", "grp", column)}

    def file(**keys: list) -> DataFile:
        schema = pa.schema([_field(name, SCHEMA.field(name).type, fields[name].field_id, True) for name in keys])
        ids = [fields[name].field_id for name in keys]
        return _delete_file(path, "-".join(keys), pa.table(keys, schema), DataFileContent.EQUALITY_DELETES, ids)

    grps, values = zip(*pairs, strict=True)
    _commit_deletes(table, [file(id=list(range(0, 100, 10))), file(**{"grp": list(grps), column: list(values)})])
    # An equality delete reaches only rows that were there before it.
    table.refresh().append(rows(0, 5, name="again"))

    kept = [row for row in rows(0, 100).to_pylist() if row["id"] % 10 and (row["grp"], row[column]) not in pairs]
    return path, pa.concat_tables([pa.Table.from_pylist(kept, schema=SCHEMA), rows(0, 5, name="again")])


def _field(name: str, kind: pa.DataType, field_id: int, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable, {"PARQUET:field_id": str(field_id)})


def _delete_file(path: Path, name: str, table: pa.Table, content: DataFileContent, equality_ids=None) -> DataFile:
    file = path / "data" / f"{name}.parquet"
    pq.write_table(table, file)
    return DataFile.from_args(
        _table_format_version=2,
        content=content,
        file_path=f"file://{file}",
        file_format=FileFormat.PARQUET,
        partition=Record(),
        record_count=table.num_rows,
        file_size_in_bytes=file.stat().st_size,
        equality_ids=equality_ids,
        sort_order_id=None,
        key_metadata=None,
        split_offsets=None,
        spec_id=0,
    )


class _DeleteManifestWriter(ManifestWriterV2):
    """PyIceberg writes no delete files itself, and so has no writer for their manifests."""

    def content(self) -> ManifestContent:
        return ManifestContent.DELETES

    @property
    def _meta(self) -> dict[str, str]:
        return super()._meta | {"content": "deletes"}


def _commit_deletes(table: Table, files: list[DataFile]) -> None:
    """Commits a snapshot that adds delete files to the current one."""
    parent = table.current_snapshot()
    snapshot_id = table.metadata.new_snapshot_id()
    sequence_number = table.metadata.next_sequence_number()
    metadata = f"{table.location()}/metadata"
    output = table.io.new_output(f"{metadata}/deletes-{snapshot_id}.avro")
    with _DeleteManifestWriter(UNPARTITIONED_PARTITION_SPEC, table.schema(), output, snapshot_id, "deflate") as writer:
        for file in files:
            writer.add_entry(
                ManifestEntry.from_args(
                    _table_format_version=2,
                    status=ManifestEntryStatus.ADDED,
                    snapshot_id=snapshot_id,
                    sequence_number=None,
                    file_sequence_number=None,
                    data_file=file,
                )
            )
    manifest = writer.to_manifest_file()
    listing = f"{metadata}/snap-{snapshot_id}.avro"
    with write_manifest_list(
        2, table.io.new_output(listing), snapshot_id, parent.snapshot_id, sequence_number, "deflate"
    ) as manifests:
        manifests.add_manifests([*parent.manifests(table.io), manifest])
    snapshot = Snapshot(
        snapshot_id=snapshot_id,
        parent_snapshot_id=parent.snapshot_id,
        sequence_number=sequence_number,
        manifest_list=listing,
        summary=Summary(Operation.DELETE, **{"added-delete-files": str(len(files))}),
        schema_id=table.schema().schema_id,
    )
    with table.transaction() as transaction:
        transaction._apply(
            (
                AddSnapshotUpdate(snapshot=snapshot),
                SetSnapshotRefUpdate(ref_name="main", type="branch", snapshot_id=snapshot_id),
            ),
            (AssertRefSnapshotId(ref="main", snapshot_id=parent.snapshot_id),),
        )


# ---- Delta


def deltalake_checkpoint(path: Path) -> tuple[Path, pa.Table]:
    """Partitioned by grp: appends, a merge, a delete, a checkpoint, and two more commits after it."""
    for start in range(0, 60, 20):
        dl.write_deltalake(path, rows(start, start + 20), mode="append", partition_by=["grp"])
    source = rows(50, 70, name="merged")
    (
        dl.DeltaTable(path)
        .merge(source, "t.id = s.id", source_alias="s", target_alias="t")
        .when_matched_update_all()
        .when_not_matched_insert_all()
        .execute()
    )
    dl.DeltaTable(path).delete("id % 10 = 3")
    dl.DeltaTable(path).create_checkpoint()
    dl.write_deltalake(path, rows(70, 80), mode="append")
    dl.DeltaTable(path).delete("grp = 2 and id < 10")

    before = pa.concat_tables([rows(0, 50), source])
    before = before.take([i for i, row_id in enumerate(before["id"].to_pylist()) if row_id % 10 != 3])
    return path, without(pa.concat_tables([before, rows(70, 80)]), (pc.field("grp") == 2) & (pc.field("id") < 10))


def deltalake_column_mapping(path: Path) -> tuple[Path, pa.Table]:
    """Column mapping in name mode: the files name their columns otherwise than the schema does."""
    dl.write_deltalake(path, rows(0, 40), configuration={"delta.columnMapping.mode": "name"})
    dl.write_deltalake(path, rows(40, 60), mode="append")
    return path, rows(0, 60)


def duckdb_delta(path: Path) -> tuple[Path, pa.Table]:
    """Two inserts by DuckDB, which can neither make a Delta table nor insert into a partitioned one (1.5.5)."""
    dl.write_deltalake(path, rows(0, 0))
    first, second = rows(0, 40), rows(40, 60)  # noqa: F841  DuckDB finds them by name
    with duckdb_connection() as connection:
        connection.execute(f"ATTACH '{path}' AS t (TYPE delta)")
        connection.execute("INSERT INTO t FROM first")
        connection.execute("INSERT INTO t FROM second")
    return path, rows(0, 60)


# ---- fixtures/foreign


def foreign(name: str) -> tuple[Path, pa.Table]:
    """A table of fixtures/foreign, where it lies: not where an Iceberg table's own metadata says it is."""
    return FIXTURES / name / "table", pq.read_table(FIXTURES / name / "expected.parquet")


def foreign_at_home(name: str) -> tuple[Path, pa.Table]:
    """As `foreign`, copied back to where it was written: PyIceberg and DuckDB open no Iceberg table that has moved."""
    path, expected = foreign(name)
    home = WAREHOUSE / name
    if FOREIGN[name][0] == "iceberg":
        home = Path(json.loads(newest_metadata(path).read_text())["location"].removeprefix("file://"))
        assert home.is_relative_to(WAREHOUSE), home
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(path, home)
    return home, expected


# The writers of each format, and the features of their tables in the sense of `readers.CANNOT`.
WRITERS = {
    "iceberg": {
        pyiceberg_day_bucket: [],
        pyiceberg_position_deletes: [],
        pyiceberg_equality_deletes: ["equality-deletes"],
        pyiceberg_equality_deletes_null: ["equality-deletes", "equality-deletes-null"],
    },
    "delta": {
        deltalake_checkpoint: [],
        deltalake_column_mapping: [],
        duckdb_delta: [],
    },
}

# The tables of fixtures/foreign: format and features.
FOREIGN = {
    "pyiceberg_v2_day_bucket": ("iceberg", []),
    "pyiceberg_v2_eqdel": ("iceberg", ["equality-deletes"]),
    "duckdb_iceberg_v2_posdel": ("iceberg", []),
    "duckdb_iceberg_v3_dv": ("iceberg", ["deletion-vectors"]),
    "deltalake_checkpoint": ("delta", []),
    "sail_delta_dv": ("delta", ["deletion-vectors"]),
    "sail_delta_colmap": ("delta", []),
}
