"""Table features of Delta beyond reading and writing rows: what `lake` writes for them, as Spark uses it."""

import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.interop import feeds, kept
from tests.interop.readers import assert_same
from tests.interop.tables import (
    DAY_BUCKET,
    FOLLOWED,
    KEY,
    MASK,
    REWRITTEN,
    SCHEMA,
    SMALL_GROUPS,
    Kind,
    append,
    born,
    copied_life,
    merge_feed,
    row,
    table,
    whole_life,
)
from tests.spark import lineage

TRACKED = ("delta.enableRowTracking=true", "delta.checkpointInterval=3")
UPDATES = ["append", "append from stdin", "merge", "merge again", "update", "delete", "delete range"]


def feed(spark, path: Path, start: int = 1) -> pa.Table:
    """What Spark is told of a table's versions."""
    options = {"readChangeFeed": "true", "startingVersion": str(start)}
    return spark.session.read.format("delta").options(**options).load(str(path)).toArrow()


@pytest.mark.parametrize("kind", FOLLOWED, ids=lambda kind: f"{kind} {len(kind.properties)}")
def test_spark_follows_a_table_that_lake_changes(spark, cli, kind, tmp_path):
    life = whole_life(cli, kind, tmp_path)
    feeds.check(life, feed(spark, life.path), UPDATES)


@pytest.mark.parametrize("kind", REWRITTEN, ids=str)
def test_spark_follows_a_table_whose_files_lake_rewrites(spark, cli, kind, tmp_path):
    life = copied_life(cli, kind, tmp_path)
    feeds.check(life, feed(spark, life.path), UPDATES)


def test_a_restore_is_told_by_the_masks_of_files_that_both_versions_have(spark, cli, tmp_path):
    path, source = tmp_path / "table", tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": list(range(10))}), source)
    cli("create", path, "--format", "delta", "--schema-from", source, "--property", "delta.enableChangeDataFeed=true")
    appended = cli.write("append", path, source)["version"]
    masked = cli.write("delete", path, "--where", "id IN (1, 2)", *MASK)["version"]
    again = cli.write("delete", path, "--where", "id = 3", *MASK)["version"]
    for back in (masked, appended, again):
        cli.write("restore", path, "--version", back)
    told = feed(spark, path, again + 1).to_pylist()
    told = sorted((row["_commit_version"] - again, row["_change_type"], row["id"]) for row in told)
    assert told == [
        (1, "insert", 3),
        *((2, "insert", id) for id in (1, 2)),
        *((3, "delete", id) for id in (1, 2, 3)),
    ]


TRACKING = [
    Kind("delta", properties=TRACKED),
    Kind("delta", None, DAY_BUCKET, ("ts_day", "id_bucket"), (*TRACKED, "delta.columnMapping.mode=name")),
]


@pytest.mark.parametrize("kind", TRACKING, ids=str)
def test_spark_reads_the_row_ids_that_lake_keeps(spark, cli, kind, tmp_path):
    life = whole_life(cli, kind, tmp_path)
    lineage.check_delta(spark, life, life.steps.values())


def test_spark_reads_the_row_ids_of_a_table_that_began_to_track_rows_and_goes_on(spark, cli, tmp_path):
    path = tmp_path / "t"
    cli("create", path, "--format", "delta", "--schema", "id bigint, n int", "--property", "delta.checkpointInterval=2")
    for first in (0, 10, 20):
        (tmp_path / "rows.csv").write_text("id,n\n" + "".join(f"{i},0\n" for i in range(first, first + 10)))
        cli("append", path, tmp_path / "rows.csv")
    cli("delete", path, "--where", "id % 7 = 3")
    cli("alter", path, "--set", "delta.enableRowTracking=true")
    name = spark.name("delta", path)

    def ids() -> dict[int, tuple[int, int]]:
        rows = spark.sql(f"SELECT id, _metadata.row_id AS r, _metadata.row_commit_version AS v FROM {name}")
        return {r["id"]: (r["r"], r["v"]) for r in rows.to_pylist()}

    first = ids()
    assert len(first) == 26 and len({row for row, _ in first.values()}) == 26
    began = {version for _, version in first.values()}
    assert began == {5}
    spark.run(f"UPDATE {name} SET n = 1 WHERE id = 5")
    cli("update", path, "--set", "n = 2", "--where", "id = 15")
    (tmp_path / "rows.csv").write_text("id,n\n30,0\n")
    cli("append", path, tmp_path / "rows.csv")
    spark.run(f"INSERT INTO {name} VALUES (31, 0)")
    cli("compact", path)
    last = ids()
    assert {i: last[i] for i in first if i not in (5, 15)} == {i: first[i] for i in first if i not in (5, 15)}
    assert (last[5], last[15]) == ((first[5][0], 6), (first[15][0], 7))
    assert len({row for row, _ in last.values()}) == 28
    # Switched off by either, switched on again by the other.
    cli("alter", path, "--set", "delta.enableRowTracking=false")
    spark.run(f"INSERT INTO {name} VALUES (32, 0)")
    spark.run(f"ALTER TABLE {name} SET TBLPROPERTIES ('delta.enableRowTracking' = 'true')")
    again = ids()
    assert {i: again[i] for i in last} == last and len({row for row, _ in again.values()}) == 29


def test_spark_reads_the_row_ids_of_row_groups_that_were_copied(spark, cli, tmp_path):
    kind = Kind("delta", properties=(*TRACKED, *SMALL_GROUPS))
    life = copied_life(cli, kind, tmp_path)
    assert life.row_groups_copied > 10 and life.masked_anew
    lineage.check_delta(spark, life, life.steps.values())


def test_spark_clusters_a_table_that_lake_writes_and_lake_writes_on(spark, cli, tmp_path):
    life = born(cli, Kind("delta"), tmp_path)
    shutil.rmtree(life.path)
    columns = (
        "id BIGINT NOT NULL, grp INT, amount DOUBLE, ratio FLOAT, price DECIMAL(12, 2), wide DECIMAL(30, 6), "
        "name STRING, born DATE, wall TIMESTAMP_NTZ, ts TIMESTAMP, flag BOOLEAN, raw BINARY"
    )
    name = spark.name("delta", life.path)
    properties = "'delta.enableDeletionVectors' = 'true'"
    spark.run(f"CREATE TABLE {name} ({columns}) USING delta CLUSTER BY (id, name) TBLPROPERTIES ({properties})")

    def same() -> None:
        expected = table(list(life.rows.values()))
        assert_same(expected, spark.read("delta", life.path), KEY)
        assert_same(expected, cli.read(life.path, life.scratch), KEY)
        detail = spark.sql(f"DESCRIBE DETAIL {name}")["clusteringColumns"][0].as_py()
        assert detail == ["id", "name"]

    append(life, [row(i) for i in range(40)])
    append(life, [row(i) for i in range(40, 80)])
    same()
    # It looks for the statistics of the columns in every file.
    spark.run(f"OPTIMIZE {name}")
    same()
    merge_feed(life)
    same()
    spark.run(f"OPTIMIZE {name} FULL")
    same()
    # What Spark has put in order stays as it is, new files are joined.
    append(life, [row(i) for i in range(400, 410)])
    append(life, [row(i) for i in range(410, 420)])
    life.step("compact", "compact", change=lambda rows: None)
    same()


def test_spark_follows_its_own_table_on_which_lake_goes_on(spark, cli, tmp_path):
    path = tmp_path / "t"
    shutil.copytree(kept.SPARK / "delta_change_feed" / "table", path)
    before = spark.read("delta", path).to_pylist()
    start = 1 + max(spark.sql(f"DESCRIBE HISTORY delta.`{path}`")["version"].to_pylist())
    cli.write("update", path, "--set", "s = 'by lake'", "--where", "id = 5")
    cli.write("delete", path, "--where", "id = 0")
    told = feed(spark, path, start).select(["id", "s", "_change_type"]).to_pylist()
    was = {r["id"]: r["s"] for r in before}
    expected = [
        (0, was[0], "delete"),
        (5, was[5], "update_preimage"),
        (5, "by lake", "update_postimage"),
    ]
    assert sorted((r["id"], r["s"], r["_change_type"]) for r in told) == expected


def test_spark_reads_the_row_ids_of_its_own_table_on_which_lake_goes_on(spark, cli, tmp_path):
    path = tmp_path / "t"
    shutil.copytree(kept.SPARK / "delta_row_tracking" / "table", path)
    columns = "id, _metadata.row_id AS row_id, _metadata.row_commit_version AS changed"

    def ids() -> dict[int, tuple[int, int]]:
        rows = spark.read("delta", path, columns=columns).to_pylist()
        return {r["id"]: (r["row_id"], r["changed"]) for r in rows}

    before = ids()
    version = cli.write("update", path, "--set", "s = 'by lake'", "--where", "id = 1")["version"]
    expected = before | {1: (before[1][0], version)}
    assert ids() == expected
    name = spark.name("delta", path)
    spark.run(f"UPDATE {name} SET s = 'by Spark' WHERE id = 3")
    expected[3] = (before[3][0], version + 1)
    assert ids() == expected
    spark.run(f"INSERT INTO {name} VALUES (77, 'new')")
    version = cli.write("append", path, "-", "--input-format", "csv", input=b"id,s\n78,newer\n")["version"]
    cli.run("compact", path)
    now = ids()
    assert (now.pop(77)[1], now.pop(78)[1]) == (version - 1, version) and now == expected
    assert len({first for first, _ in ids().values()}) == len(expected) + 2


def test_the_columns_of_the_feed_are_those_of_the_table(spark, cli, tmp_path):
    life = born(cli, FOLLOWED[0], tmp_path)
    append(life, [row(i) for i in range(5)])
    assert feed(spark, life.path).column_names == [*SCHEMA.names, *feeds.ADDED]
