"""Tables that `lake` wrote, read by engines that we did not write; tables that they wrote, read by `lake`."""

import json
import re
import shutil
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path

import deltalake
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import writers
from readers import assert_same, check, newest_metadata, normalise, read_pyiceberg
from tables import (
    COPIED,
    DAY_BUCKET,
    FILTERS,
    KEY,
    MASK,
    SCHEMA,
    SHORT,
    STEPS,
    TYPES,
    WHOLE,
    WIDENING,
    Kind,
    Lake,
    Life,
    Row,
    Step,
    append,
    born,
    copied_life,
    edges,
    merge_feed,
    row,
    short_life,
    spark_hash,
    table,
    whole_life,
)


@pytest.fixture(scope="module")
def cli(lake: Path) -> Lake:
    return Lake(lake)


@pytest.fixture(scope="module", params=WHOLE, ids=str)
def life(request, cli, tmp_path_factory) -> Life:
    return whole_life(cli, request.param, tmp_path_factory.mktemp("life"))


@pytest.fixture(scope="module", params=SHORT, ids=str)
def short(request, cli, tmp_path_factory) -> Life:
    return short_life(cli, request.param, tmp_path_factory.mktemp("short"))


def features(life: Life, version: int) -> list[str]:
    """What readers may not know, as PyIceberg sees it."""
    if life.kind.version != 3:
        return []
    from pyiceberg.table import StaticTable

    snapshot = StaticTable.from_metadata(str(newest_metadata(life.path))).snapshot_by_id(version)
    return ["deletion-vectors"] if int(snapshot.summary["total-delete-files"]) else []


def check_all(life: Life, step: Step, version: int | None = None, **options) -> None:
    check(
        life.kind.format,
        life.path,
        step.expected,
        version,
        KEY,
        features=features(life, step.version),
        hidden=life.kind.hidden,
        **options,
    )


# ---- what lake writes


@pytest.mark.parametrize("name", STEPS)
def test_every_reader_reads_every_version(life, name):
    step = life.steps[name]
    check_all(life, step, step.version)


@pytest.mark.parametrize("name", STEPS)
def test_lake_reads_every_version_of_its_own(life, name, tmp_path):
    step = life.steps[name]
    assert_same(step.expected, life.lake.read(life.path, tmp_path, step.version), KEY)


def test_every_reader_reads_the_newest_version(life):
    check_all(life, life.steps["overwrite"])


def test_versions_are_all_different(life):
    assert len({step.version for step in life.steps.values()}) == len(STEPS)


def test_merge_masks_rows_and_compact_drops_masks(life):
    """Or else the versions above would show nothing about masks."""

    def masks(step: str) -> int:
        version = life.steps[step].version
        if life.kind.format == "iceberg":
            from pyiceberg.table import StaticTable

            table = StaticTable.from_metadata(str(newest_metadata(life.path)))
            return sum(len(task.delete_files) for task in table.scan(snapshot_id=version).plan_files())
        live = {}
        for number in range(version + 1):
            for line in (life.path / "_delta_log" / f"{number:020}.json").read_text().splitlines():
                for kind, action in json.loads(line).items():
                    if kind in ("add", "remove"):
                        vector = action.get("deletionVector")
                        live[action["path"], vector and vector["pathOrInlineDv"]] = kind == "add" and bool(vector)
        return sum(live.values())

    assert masks("append") == 0
    assert masks("merge") > 0
    assert masks("compact") == 0
    assert masks("restore") > 0


@pytest.mark.parametrize("number", range(len(FILTERS)))
def test_every_reader_finds_the_rows_of_a_filter(life, number, tmp_path):
    check_filter(life, life.steps["overwrite"], number, tmp_path)


def check_filter(life: Life, step: Step, number: int, scratch: Path) -> None:
    where, matches = FILTERS[number]
    found = Step(step.name, step.version, {i: r for i, r in step.rows.items() if matches(r)})
    check_all(life, found, where=where)
    assert_same(found.expected, life.lake.read(life.path, scratch, where=where), KEY)


def test_hidden_columns_of_delta_hold_what_their_expression_says(life):
    if not life.kind.hidden:
        pytest.skip("has no hidden columns")
    read = deltalake.QueryBuilder().register("t", deltalake.DeltaTable(life.path))
    rows = pa.table(read.execute("SELECT id, ts, ts_day, id_bucket FROM t").read_all()).to_pylist()
    assert len(rows) == len(life.rows)
    for r in rows:
        assert r["ts_day"] == (r["ts"] and r["ts"].date())
        assert r["id_bucket"] == spark_hash(r["id"]) % 4


def test_ndjson_of_a_query_holds_the_rows(life):
    step = life.steps["merge"]
    lines = life.lake("query", f"SELECT * FROM '{life.path}'", "--version", step.version, "--output", "ndjson")
    assert_same(step.expected, table([from_json(line) for line in lines.splitlines()]), KEY)


def from_json(line: bytes) -> Row:
    values = json.loads(line, parse_float=Decimal)
    parse = {
        "amount": float,
        "ratio": float,
        "price": Decimal,
        "wide": Decimal,
        "born": date.fromisoformat,
        "wall": datetime.fromisoformat,
        "ts": datetime.fromisoformat,
        "raw": bytes.fromhex,
    }
    found = {name: parse.get(name, lambda v: v)(v) for name, v in values.items() if v is not None}
    return dict.fromkeys(SCHEMA.names) | found


def test_every_reader_reads_every_kind_of_partitioning(short, tmp_path):
    for step in short.steps.values():
        check_all(short, step, step.version)
        assert_same(step.expected, short.lake.read(short.path, tmp_path, step.version), KEY)


def test_every_reader_filters_every_kind_of_partitioning(short, tmp_path):
    for number in range(len(FILTERS)):
        check_filter(short, short.steps["append"], number, tmp_path)


@pytest.mark.parametrize("kind", COPIED, ids=str)
def test_every_reader_reads_row_groups_that_were_copied(cli, kind, tmp_path):
    life = copied_life(cli, kind, tmp_path)
    assert life.row_groups_copied > 10, life.row_groups_copied
    assert life.masked_anew
    for step in life.steps.values():
        check_all(life, step, step.version)
    for number in range(len(FILTERS)):
        check_filter(life, life.steps["delete"], number, tmp_path)


def test_iceberg_table_that_was_moved_is_read_and_not_written(life, tmp_path):
    if life.kind.format != "iceberg":
        pytest.skip("Delta tables hold no absolute paths")
    moved = tmp_path / "moved"
    shutil.copytree(life.path, moved)
    assert_same(life.steps["overwrite"].expected, life.lake.read(moved, tmp_path), KEY)
    complaint = life.lake.refused("delete", moved, "--where", "id = 0")
    assert str(life.path) in complaint and "hint" in complaint


def test_delta_partition_value_that_readers_would_take_for_null_is_refused(cli, tmp_path):
    life = born(cli, Kind("delta", None, "name"), tmp_path)
    named = [row(i) for i in range(20) if row(i)["name"] != ""]
    append(life, named)
    complaint = cli.refused("append", life.path, life.file([row(0, name="")]))
    assert "partition column name" in complaint and "hint" in complaint
    check_all(life, life.steps["append"])


def test_delta_table_that_was_moved_is_written(cli, tmp_path):
    life = born(cli, Kind("delta"), tmp_path)
    append(life, [row(i) for i in range(10)])
    life.path = life.path.rename(tmp_path / "moved")
    append(life, [row(i) for i in range(10, 20)])
    check_all(life, life.steps["append"])


# ---- every type, at its edges


@pytest.mark.parametrize("kind", [Kind("iceberg", 2), Kind("iceberg", 3), Kind("delta")], ids=str)
def test_every_reader_reads_the_ends_of_every_type(cli, kind, tmp_path):
    life = born(cli, kind, tmp_path)
    path = tmp_path / "types"
    columns = re.sub(r"(tiny|small) \w+, ", "", TYPES)
    kind.create(cli, path, columns)
    file = tmp_path / "edges.arrow"
    expected = edges(kind)
    with pa.ipc.new_file(file, expected.schema) as writer:
        writer.write_table(expected)
    cli.write("append", path, file)
    check(kind.format, path, expected, key=KEY)
    assert_same(expected, cli.read(path, life.scratch), KEY)


@pytest.mark.parametrize("partition_by", ["", "bucket(2, id)"])
@pytest.mark.parametrize(
    "kind",
    [Kind("iceberg", 2), Kind("iceberg", 3), Kind("delta"), Kind("delta", properties=WIDENING)],
    ids=["iceberg2", "iceberg3", "delta", "delta widening"],
)
def test_every_reader_reads_columns_that_came_with_rows(cli, kind, partition_by, tmp_path):
    hidden = ("id_bucket",) if partition_by and kind.format == "delta" else ()
    kind = Kind(kind.format, kind.version, partition_by, hidden, kind.properties)
    path, file = tmp_path / "t", tmp_path / "rows.arrow"
    life = Life(cli, kind, path, tmp_path)
    kind.create(cli, path, "id bigint not null, n int, ratio real, price decimal(9, 2), point struct<x int>")

    def write(verb: str, rows: pa.Table, *flags: str) -> dict:
        with pa.ipc.new_file(file, rows.schema) as writer:
            writer.write_table(rows)
        return cli.write(verb, path, file, *flags, "--schema-mode", "merge")

    old_point, new_point = (pa.struct([(name, pa.int32()) for name in names]) for names in (["x"], ["x", "y"]))
    old = pa.schema([("id", pa.int64()), ("n", pa.int32()), ("ratio", pa.float32()), ("price", pa.decimal128(9, 2))])
    old = old.append(pa.field("point", old_point))
    narrow = [{"id": i, "n": i, "ratio": i / 4, "price": Decimal(i), "point": {"x": i}} for i in range(6)]
    write("append", pa.Table.from_pylist(narrow, schema=old))
    widening = kind.properties == WIDENING
    wide = kind.format == "iceberg" or widening
    new = pa.schema(
        [
            ("id", pa.int64()),
            ("n", pa.int64() if wide else pa.int32()),
            ("ratio", pa.float64() if wide else pa.float32()),
            ("price", pa.decimal128(15 if wide else 9, 2)),
            ("point", new_point),
            ("tip", pa.float64()),
            ("seen", pa.timestamp("us")),
        ]
    )
    far = datetime(2024, 2, 29, 12)
    feed = [
        {"id": i, "n": i + (1 << 40 if wide else 100), "ratio": 0.5, "price": Decimal(-i), "point": {"x": -i, "y": i}}
        | {"tip": i / 8, "seen": far}
        for i in range(4, 9)
    ]
    report = write("merge", pa.Table.from_pylist(feed, schema=new), "--on", "id", *MASK)
    assert report["columns_added"] == ["point.y", "tip", "seen"]
    assert report["columns_widened"] == (["n", "ratio", "price"] if wide else [])
    rows = [r | {"point": r["point"] | {"y": None}} for r in narrow[:4]] + feed
    expected = pa.Table.from_pylist(rows, schema=new)
    for done in [report, None]:
        done = done or cli.write("compact", path)
        assert_same(expected, cli.read(path, life.scratch), KEY)
        known = [*features(life, done["version"]), *(["type-widening"] if widening else [])]
        check(kind.format, path, expected, key=KEY, features=known, hidden=hidden)


def test_every_reader_reads_small_integers_of_delta(cli, tmp_path):
    schema = pa.schema([("id", pa.int64()), ("tiny", pa.int8()), ("small", pa.int16())])
    path = tmp_path / "t"
    Kind("delta").create(cli, path, "id bigint not null, tiny tinyint, small smallint")
    rows = [{"id": 1, "tiny": -128, "small": -32768}, {"id": 2, "tiny": 127, "small": 32767}, {"id": 3}]
    expected = pa.Table.from_pylist(rows, schema=schema)
    cli.write("append", path, "-", "--input-format", "ndjson", input="\n".join(map(json.dumps, rows)).encode())
    check("delta", path, expected, key=KEY)
    assert_same(expected, cli.read(path, tmp_path), KEY)


def test_pyiceberg_reads_the_defaults_of_members_and_bytes_that_lake_sets(cli, tmp_path):
    path = tmp_path / "t"
    Kind("iceberg", 3).create(cli, path, "id bigint not null, s struct<x int>")
    rows = pa.Table.from_pylist(
        [{"id": 1, "s": {"x": 1}}, {"id": 2, "s": None}],
        schema=pa.schema([pa.field("id", pa.int64(), nullable=False), ("s", pa.struct([("x", pa.int32())]))]),
    )
    pq.write_table(rows, tmp_path / "rows.parquet")
    cli("append", path, tmp_path / "rows.parquet")
    added = ["--add", "s.y int", "--default", "s.y=5", "--add", "b binary", "--default", "b=X'00ff'"]
    cli("alter", path, *added, "--default", "s.x=7")
    (tmp_path / "more.json").write_text('{"id": 3, "s": {"y": 6}}\n')
    cli("append", path, tmp_path / "more.json", "--input-format", "ndjson")
    values = [(1, {"x": 1, "y": 5}), (2, None), (3, {"x": 7, "y": 6})]
    member = pa.struct([("x", pa.int32()), ("y", pa.int32())])
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("s", member), ("b", pa.binary())])
    expected = pa.Table.from_pylist([{"id": i, "s": s, "b": b"\x00\xff"} for i, s in values], schema=schema)
    assert_same(expected, cli.read(path, tmp_path), KEY)
    assert_same(expected, read_pyiceberg(path), KEY)


def test_deltalake_reads_a_table_whose_files_got_row_ids(cli, tmp_path):
    path = tmp_path / "t"
    Kind("delta").create(cli, path, "id bigint not null, n int")
    schema = pa.schema([pa.field("id", pa.int64(), nullable=False), ("n", pa.int32())])
    for i in range(3):
        pq.write_table(pa.Table.from_pylist([{"id": i, "n": i}], schema=schema), tmp_path / "rows.parquet")
        cli("append", path, tmp_path / "rows.parquet")
    cli("alter", path, "--set", "delta.enableRowTracking=true")
    expected = pa.Table.from_pylist([{"id": i, "n": i} for i in range(3)], schema=schema)
    check("delta", path, expected, key=KEY)


# ---- checkpoints


@pytest.mark.parametrize("partition_by", ["", DAY_BUCKET])
def test_every_reader_reads_delta_from_the_checkpoint(cli, tmp_path, partition_by):
    hidden = ("ts_day", "id_bucket") if partition_by else ()
    life = born(cli, Kind("delta", None, partition_by, hidden), tmp_path)
    append(life, [row(i) for i in range(24)])
    merge_feed(life, step=6)
    for i in range(500, 511):
        append(life, [row(i)])
    log = life.path / "_delta_log"
    last = json.loads((log / "_last_checkpoint").read_text())["version"]
    assert (log / f"{last:020}.checkpoint.parquet").exists()
    assert 10 <= last < life.steps["append"].version
    # Without the commits before it, so that nobody can do without it.
    for version in range(last):
        (log / f"{version:020}.json").unlink()
    check_all(life, life.steps["append"])
    assert_same(life.steps["append"].expected, cli.read(life.path, tmp_path), KEY)
    append(life, [row(600)])
    check_all(life, life.steps["append"])


# ---- what others write

FOREIGN_READ = [(kind, write) for kind, all_ in writers.WRITERS.items() for write in all_]


@pytest.mark.parametrize(("kind", "write"), FOREIGN_READ, ids=lambda p: getattr(p, "__name__", p))
def test_lake_reads_what_others_write_now(cli, kind, write, tmp_path):
    path, expected = write(tmp_path / "t")
    assert_same(expected, cli.read(path, tmp_path))
    if kind == "iceberg":
        complaint = cli.refused("delete", path, "--where", "id = 0")
        assert "catalog" in complaint and "hint" in complaint
        check_unchanged(cli, path, expected, tmp_path)


@pytest.mark.parametrize("name", writers.FOREIGN)
def test_lake_reads_tables_that_others_wrote_and_that_were_moved(cli, name, tmp_path):
    original, expected = writers.foreign(name)
    path = tmp_path / "t"
    shutil.copytree(original, path)
    assert_same(expected, cli.read(path, tmp_path))
    if writers.FOREIGN[name][0] == "iceberg":
        complaint = cli.refused("delete", path, "--where", "id = 0")
        assert "hint" in complaint
        check_unchanged(cli, path, expected, tmp_path)


def check_unchanged(cli: Lake, path: Path, expected: pa.Table, scratch: Path) -> None:
    assert_same(expected, cli.read(path, scratch))


def foreign_merge(cli: Lake, path: Path, expected: pa.Table, scratch: Path, *options: str) -> pa.Table:
    """An append, a merge and a delete by `lake`; what the table must hold then."""
    import pyarrow.parquet as pq

    pq.write_table(writers.rows(1000, 1010), scratch / "append.parquet")
    cli.write("append", path, scratch / "append.parquet", *options)
    source = pa.concat_tables([writers.rows(40, 46, name="by lake"), writers.rows(1005, 1015, name="by lake")])
    pq.write_table(source, scratch / "merge.parquet")
    cli.write("merge", path, scratch / "merge.parquet", "--on", "id", *options)
    cli.write("delete", path, "--where", "id % 8 = 6", *options)
    rows = {r["id"]: r for part in (expected, writers.rows(1000, 1010), source) for r in part.to_pylist()}
    return pa.Table.from_pylist([r for r in rows.values() if r["id"] % 8 != 6], schema=writers.SCHEMA)


@pytest.mark.parametrize("write", [writers.deltalake_checkpoint, writers.duckdb_delta], ids=lambda w: w.__name__)
def test_lake_writes_into_delta_tables_of_others(cli, write, tmp_path):
    path, expected = write(tmp_path / "t")
    expected = foreign_merge(cli, path, expected, tmp_path)
    check("delta", path, expected, key=KEY)
    # And they into theirs, after it.
    deltalake.write_deltalake(path, writers.rows(2000, 2005), mode="append")
    deltalake.DeltaTable(path).delete("id = 2001")
    after = writers.rows(2000, 2005).take([0, 2, 3, 4])
    expected = pa.concat_tables([expected, after])
    check("delta", path, expected, key=KEY)
    assert_same(expected, cli.read(path, tmp_path), KEY)


def test_files_of_others_outside_of_the_table_are_used_where_that_is_allowed_by_name(cli, tmp_path):
    path, expected = writers.pyiceberg_elsewhere(tmp_path / "t")
    elsewhere = Path(f"{path}-data")
    before = {file: file.read_bytes() for file in elsewhere.rglob("*.parquet")}
    assert len(before) == 2
    for verb in (["files", path], ["delete", path, "--where", "id = 1"]):
        complaint = cli.refused(*verb)
        assert str(elsewhere) in complaint and "allow_locations=" in complaint

    allowed = ("--storage-option", f"allow_locations={elsewhere}")
    assert_same(expected, cli.read(path, tmp_path, options=allowed), KEY)
    expected = foreign_merge(cli, path, expected, tmp_path, *allowed)
    check("iceberg", path, expected, key=KEY)
    assert_same(expected, cli.read(path, tmp_path, options=allowed), KEY)
    cli.write("compact", path, *allowed)
    check("iceberg", path, expected, key=KEY)
    # Nothing of it is outside any more.
    assert_same(expected, cli.read(path, tmp_path), KEY)
    assert {file: file.read_bytes() for file in elsewhere.rglob("*")} == before


def test_lake_replaces_deletion_vectors_of_others(cli, tmp_path):
    original, expected = writers.foreign("sail_delta_dv")
    path = tmp_path / "t"
    shutil.copytree(original, path)
    expected = foreign_merge(cli, path, expected, tmp_path)
    check("delta", path, expected, key=KEY)
    assert_same(expected, cli.read(path, tmp_path), KEY)


def test_lake_writes_delta_tables_of_others_that_map_column_names(cli, tmp_path):
    original, expected = writers.foreign("sail_delta_colmap")
    path = tmp_path / "t"
    shutil.copytree(original, path)
    cli.write("delete", path, "--where", "id = 1")
    cli.write("update", path, "--set", "id = id + 100")
    kept = [row | {"id": row["id"] + 100} for row in expected.to_pylist() if row["id"] != 1]
    rows = pa.Table.from_pylist(kept, schema=expected.schema)
    check("delta", path, rows, key=KEY)
    assert_same(rows, cli.read(path, tmp_path), KEY)


def test_deltalake_writes_into_a_table_of_lake(cli, tmp_path):
    life = born(cli, Kind("delta"), tmp_path)
    append(life, [row(i) for i in range(40)])
    merge_feed(life)
    more = [row(i) for i in range(700, 710)]
    deltalake.write_deltalake(life.path, table(more), mode="append")
    deltalake.DeltaTable(life.path).delete("id in (3, 705)")
    rows = {r["id"]: r for r in [*life.rows.values(), *more] if r["id"] not in (3, 705)}
    expected = table(list(rows.values()))
    check("delta", life.path, expected, key=KEY)
    assert_same(expected, cli.read(life.path, tmp_path), KEY)
    life.step("delete", "delete", "--where", "id = 4 or id = 701", change=lambda model: None)
    expected = table([r for r in rows.values() if r["id"] not in (4, 701)])
    check("delta", life.path, expected, key=KEY)


def test_a_reader_that_learns_is_noticed(tmp_path):
    """The list of what readers cannot read is itself tested: a claim that is wrong fails."""
    path, expected = writers.foreign("deltalake_checkpoint")
    import readers

    claims = readers.CANNOT | {("deltalake", "everything"): "a wrong claim"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readers, "CANNOT", claims)
        with pytest.raises(AssertionError, match="has learned"):
            check("delta", path, expected, key=KEY, features=["everything"])


def test_comparison_notices_a_wrong_value():
    wrong = table([row(1, name="other")])
    with pytest.raises(AssertionError, match="rows differ"):
        assert_same(table([row(1)]), wrong, KEY)
    assert normalise(wrong).num_rows == 1
