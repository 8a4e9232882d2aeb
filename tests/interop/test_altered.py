"""Tables whose columns and partitioning `lake` changed on the way, read by engines that we did not write."""

import json
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from readers import check
from tables import MASK, Kind, Lake

COLUMNS = "id bigint not null, n int, price decimal(9, 2), name string, place struct<street text, zip int>"
KINDS = [
    Kind("iceberg", 2),
    Kind("iceberg", 2, "bucket(4, id)"),
    Kind("iceberg", 3, "name"),
    Kind("delta"),
    Kind("delta", None, "name"),
    Kind("delta", None, "bucket(4, id)", ("id_bucket",)),
]
BEFORE = pa.schema(
    [
        ("id", pa.int64()),
        ("n", pa.int32()),
        ("price", pa.decimal128(9, 2)),
        ("name", pa.string()),
        ("place", pa.struct([("street", pa.string()), ("zip", pa.int32())])),
    ]
)
AFTER = pa.schema(
    [
        ("note", pa.string()),
        ("id", pa.int64()),
        ("amount", pa.int32()),
        ("label", pa.string()),
        ("place", pa.struct([("town", pa.string()), ("code", pa.int32())])),
        ("n", pa.string()),
    ]
)


@pytest.fixture(scope="module")
def cli(lake: Path) -> Lake:
    return Lake(lake)


def stream(rows: list[dict], schema: pa.Schema) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_table(pa.Table.from_pylist(rows, schema=schema))
    return sink.getvalue().to_pybytes()


def before(i: int) -> dict:
    name = None if i % 5 == 4 else f"name {i % 3}"
    return {
        "id": i,
        "n": i * 10,
        "price": Decimal(i) / 4,
        "name": name,
        "place": {"street": f"street {i}", "zip": 1000 + i},
    }


def carried(old: dict) -> dict:
    return {
        "note": None,
        "id": old["id"],
        "amount": old["n"],
        "label": old["name"],
        "place": {"town": None, "code": old["place"]["zip"]},
        "n": None,
    }


def append(cli: Lake, path: Path, rows: list[dict], schema: pa.Schema) -> dict:
    return cli.write("append", path, "-", "--input-format", "arrow", input=stream(rows, schema))


def altered(cli: Lake, kind: Kind, folder: Path) -> tuple[Path, int, list[dict]]:
    """A table with a life before and after its columns changed: its path, the version before, its rows."""
    path = folder / "t"
    kind.create(cli, path, COLUMNS)
    old = [before(i) for i in range(20)]
    version = append(cli, path, old, BEFORE)["version"]
    cli.write("alter", path, "--drop", "price", "--drop", "place.street", "--rename", "n=amount")
    cli.write("alter", path, "--rename", "name=label", "--rename", "place.zip=code", "--add", "n text")
    cli.write("alter", path, "--add", "note text comment 'free'", "--add", "place.town text")
    cli.write("alter", path, "--move", "note first", "--move", "place.town first")
    rows = [carried(row) for row in old]
    new = [
        {"note": "new", "id": i, "amount": i, "label": "x", "place": {"town": "t", "code": i}, "n": "text"}
        for i in range(100, 110)
    ]
    append(cli, path, new, AFTER)
    feed = [row | {"note": "merged", "label": "y"} for row in (rows[3], rows[7], new[0])]
    feed.append(feed[0] | {"id": 200})
    arguments = ["--on", "id", "--input-format", "arrow", *MASK]
    cli.write("merge", path, "-", *arguments, input=stream(feed, AFTER))
    cli.write("delete", path, "--where", "amount = 50 or label = 'name 1'", *MASK)
    merged = {row["id"]: row for row in [*rows, *new, *feed]}
    kept = [row for row in merged.values() if row["amount"] != 50 and row["label"] != "name 1"]
    return path, version, kept


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_reader_sees_renamed_dropped_moved_and_new_columns_and_those_of_before(cli, tmp_path, kind):
    path, version, rows = altered(cli, kind, tmp_path)
    features = ["deletion-vectors"] if kind.version == 3 else []
    # Its partition column is `name`, which becomes `label`.
    renamed = ["renamed-partition"] if (kind.format, kind.partition_by) == ("delta", "name") else []
    expected = pa.Table.from_pylist(rows, schema=AFTER)
    got = cli.read(path, tmp_path)
    assert got.num_rows == len(rows)
    assert sorted(map(repr, got.to_pylist())) == sorted(map(repr, rows))
    assert got.column_names == expected.column_names
    check(kind.format, path, expected, key=["id"], features=[*features, *renamed], hidden=kind.hidden)
    old = pa.Table.from_pylist([before(i) for i in range(20)], schema=BEFORE)
    check(kind.format, path, old, version=version, key=["id"], hidden=kind.hidden)
    cli.write("compact", path)
    check(kind.format, path, expected, key=["id"], features=renamed, hidden=kind.hidden)


def test_partition_columns_keep_their_values_when_a_column_before_them_is_renamed(cli, tmp_path):
    path = tmp_path / "t"
    Kind("delta", None, "flag").create(cli, path, "id bigint not null, x double, flag boolean")
    rows = [{"id": i, "x": i / 2, "flag": [True, False, None][i % 3]} for i in range(6)]
    schema = pa.schema([("id", pa.int64()), ("x", pa.float64()), ("flag", pa.bool_())])
    append(cli, path, rows, schema)
    cli.write("alter", path, "--rename", "x=y")
    expected = pa.Table.from_pylist(rows, schema=schema).rename_columns(["id", "y", "flag"])
    check("delta", path, expected, key=["id"], features=["renamed-before-partition"])


@pytest.mark.parametrize("version", [2, 3])
def test_every_reader_reads_files_of_several_partition_specs(cli, tmp_path, version):
    path = tmp_path / "t"
    schema = BEFORE.remove(4)
    Kind("iceberg", version).create(cli, path, "id bigint not null, n int, price decimal(9, 2), name string")
    rows = {}

    def more(first: int) -> None:
        new = [{k: v for k, v in before(i).items() if k != "place"} for i in range(first, first + 8)]
        append(cli, path, new, schema)
        rows.update({row["id"]: row for row in new})

    more(0)
    for at, fields in enumerate(["name", "bucket(4, id), name", "truncate(100, n)", "bucket(8, id)", ""], 1):
        cli.write("alter", path, "--partition-by", fields)
        more(at * 8)
    cli.write("delete", path, "--where", "n >= 60 and n < 120", *MASK)
    feed = [row | {"name": "moved"} for row in rows.values() if row["id"] % 7 == 0]
    cli.write("merge", path, "-", "--on", "id", "--input-format", "arrow", *MASK, input=stream(feed, schema))
    kept = [row for row in rows.values() if not 60 <= row["n"] < 120]
    merged = {row["id"]: row for row in [*kept, *feed]}
    expected = pa.Table.from_pylist(list(merged.values()), schema=schema)
    features = ["deletion-vectors"] if version == 3 else []
    check("iceberg", path, expected, key=["id"], features=features)
    for where, keep in [
        ("name = 'moved'", lambda row: row["name"] == "moved"),
        ("id = 17", lambda row: row["id"] == 17),
        ("n >= 200 and n < 260", lambda row: 200 <= row["n"] < 260),
    ]:
        some = pa.Table.from_pylist([row for row in merged.values() if keep(row)], schema=schema)
        check("iceberg", path, some, key=["id"], features=features, where=where)
        assert cli.read(path, tmp_path, where=where).num_rows == some.num_rows
    specs = json.loads(max((path / "metadata").glob("v*.metadata.json"), key=number).read_bytes())["partition-specs"]
    assert len(specs) == 5, "the table without partitions has the spec that it began with"


def number(file: Path) -> int:
    return int(file.name.split(".")[0][1:])


def test_a_table_that_was_upgraded_to_version_3_keeps_its_position_deletes_and_gets_vectors(cli, tmp_path):
    path = tmp_path / "t"
    schema = BEFORE.remove(4)
    Kind("iceberg", 2).create(cli, path, "id bigint not null, n int, price decimal(9, 2), name string")
    rows = [{k: v for k, v in before(i).items() if k != "place"} for i in range(20)]
    append(cli, path, rows, schema)
    cli.write("delete", path, "--where", "id in (1, 2)", *MASK)
    cli.write("alter", path, "--format-version", 3, "--type", "n bigint")
    more = [row | {"id": row["id"] + 100} for row in rows]
    append(cli, path, more, schema)
    cli.write("delete", path, "--where", "id in (3, 105)", *MASK)
    kept = [row for row in [*rows, *more] if row["id"] not in (1, 2, 3, 105)]
    expected = pa.Table.from_pylist(kept, schema=schema.set(1, pa.field("n", pa.int64())))
    check("iceberg", path, expected, key=["id"], features=["deletion-vectors"])


def test_a_table_of_version_1_is_written_and_upgraded_to_2_and_3(cli, tmp_path):
    from pyiceberg.catalog.memory import InMemoryCatalog
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import IdentityTransform
    from pyiceberg.types import LongType, NestedField, StringType

    catalog = InMemoryCatalog("v1", warehouse=tmp_path.as_uri())
    catalog.create_namespace("n")
    columns = Schema(NestedField(1, "id", LongType()), NestedField(2, "name", StringType()))
    by_name = PartitionSpec(PartitionField(2, 1000, IdentityTransform(), "name"))
    table = catalog.create_table("n.t", columns, partition_spec=by_name, properties={"format-version": "1"})
    schema = pa.schema([("id", pa.int64()), ("name", pa.string())])
    rows = [{"id": i, "name": [None, "a", "b"][i % 3]} for i in range(30)]
    for part in (rows[:20], rows[20:]):
        table.append(pa.Table.from_pylist(part, schema=schema))
    assert table.metadata.format_version == 1
    # From now on it is a table of files, that no catalog has a pointer to.
    path = Path(table.location().removeprefix("file://"))
    for file in sorted((path / "metadata").glob("0*.metadata.json")):
        file.rename(path / "metadata" / f"v{int(file.name[:5]) + 1}.metadata.json")

    def checked(features: list[str]) -> None:
        check("iceberg", path, pa.Table.from_pylist(rows, schema=schema), key=["id"], features=features)

    def add(first: int) -> None:
        more = [{"id": first + i, "name": "a"} for i in range(5)]
        append(cli, path, more, schema)
        rows.extend(more)

    checked([])
    add(100)
    # Without delete files, rows go by rewriting.
    cli.write("delete", path, "--where", "id = 3")
    rows.remove({"id": 3, "name": None})
    checked([])
    for version, features in ((2, ["v1-manifests"]), (3, ["v1-manifests", "deletion-vectors"])):
        cli.write("alter", path, "--format-version", version)
        add(100 * version)
        cli.write("delete", path, "--where", f"id in ({version}, {100 * version})", *MASK)
        rows[:] = [row for row in rows if row["id"] not in (version, 100 * version)]
        checked(features)
    cli.write("compact", path)
    checked([])


@pytest.mark.parametrize("version", [2, 3])
def test_partition_fields_may_have_names_that_are_none_for_avro(cli, tmp_path, version):
    path = tmp_path / "t"
    columns = '"a b" int, "größe" int, "1st" string, "a_x20b" int, id int'
    Kind("iceberg", version, '"a b", "größe", "1st", "a_x20b"').create(cli, path, columns)
    schema = pa.schema(
        [("a b", pa.int32()), ("größe", pa.int32()), ("1st", pa.string()), ("a_x20b", pa.int32()), ("id", pa.int32())]
    )
    rows = [{"a b": i % 2, "größe": i % 3, "1st": "x y" if i % 2 else None, "a_x20b": 7, "id": i} for i in range(12)]
    append(cli, path, rows[:8], schema)
    append(cli, path, rows[8:], schema)
    cli.write("delete", path, "--where", "id in (1, 4)", *MASK)
    cli.write("compact", path)
    kept = pa.Table.from_pylist([row for row in rows if row["id"] not in (1, 4)], schema=schema)
    check("iceberg", path, kept, key=["id"])
