"""Tables that `lake` wrote, read by Spark."""

import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.interop.readers import assert_same, newest_metadata
from tests.interop.tables import (
    COPIED,
    FILTERS,
    KEY,
    SHORT,
    TYPES,
    WHOLE,
    WIDENING,
    Kind,
    Life,
    Step,
    copied_life,
    edges,
    short_life,
    whole_life,
)
from tests.spark import lineage


@pytest.fixture(scope="module", params=WHOLE, ids=str)
def life(request, cli, tmp_path_factory) -> Life:
    return whole_life(cli, request.param, tmp_path_factory.mktemp("life"))


def check(spark, life: Life, step: Step, version: int | None = None, where: str | None = None) -> None:
    """Spark reads this version of the table as the model has it, and the hidden columns after all others."""
    got = spark.read(life.kind.format, life.path, version, where)
    hidden = list(life.kind.hidden)
    assert got.column_names == step.expected.column_names + hidden
    assert_same(step.expected, got.drop_columns(hidden), KEY)


def check_filters(spark, life: Life, step: Step) -> None:
    for where, matches in FILTERS:
        found = Step(step.name, step.version, {i: r for i, r in step.rows.items() if matches(r)})
        check(spark, life, found, where=where)


def test_spark_reads_every_version(spark, life):
    for step in life.steps.values():
        check(spark, life, step, step.version)
    check(spark, life, life.steps["overwrite"])


def test_spark_finds_the_rows_of_filters(spark, life):
    check_filters(spark, life, life.steps["overwrite"])


def test_spark_reads_iceberg_by_its_metadata_file(spark, life):
    if life.kind.format != "iceberg":
        pytest.skip("Delta has none")
    assert_same(life.steps["overwrite"].expected, spark.read_metadata(newest_metadata(life.path)), KEY)


@pytest.mark.parametrize("kind", SHORT, ids=str)
def test_spark_reads_every_kind_of_partitioning(spark, cli, kind, tmp_path):
    life = short_life(cli, kind, tmp_path)
    for step in life.steps.values():
        check(spark, life, step, step.version)
    check_filters(spark, life, life.steps["append"])


@pytest.mark.parametrize("kind", COPIED, ids=str)
def test_spark_reads_row_groups_that_were_copied(spark, cli, kind, tmp_path):
    life = copied_life(cli, kind, tmp_path)
    assert life.row_groups_copied > 10 and life.masked_anew
    for step in life.steps.values():
        check(spark, life, step, step.version)
    if kind.version == 3:
        lineage.check(spark, life, life.steps.values())


def test_spark_reads_the_lineage_that_lake_keeps(spark, life):
    if life.kind.version != 3:
        pytest.skip("has no row lineage")
    lineage.check(spark, life, life.steps.values())


# ---- types


@pytest.mark.parametrize("kind", [Kind("iceberg", 2), Kind("iceberg", 3), Kind("delta")], ids=str)
def test_spark_reads_the_ends_of_every_type(spark, cli, kind, tmp_path):
    path, file = tmp_path / "types", tmp_path / "edges.arrow"
    kind.create(cli, path, re.sub(r"(tiny|small) \w+, ", "", TYPES))
    expected = edges(kind)
    with pa.ipc.new_file(file, expected.schema) as writer:
        writer.write_table(expected)
    cli.write("append", path, file)
    assert_same(expected, spark.read(kind.format, path), KEY)


@pytest.mark.parametrize(
    "kind",
    [Kind("iceberg", 2), Kind("iceberg", 3), Kind("delta"), Kind("delta", properties=WIDENING)],
    ids=["iceberg2", "iceberg3", "delta", "delta widening"],
)
def test_spark_reads_columns_that_came_with_rows(spark, cli, kind, tmp_path):
    path, file = tmp_path / "t", tmp_path / "rows.parquet"
    kind.create(cli, path, "id bigint not null, n int, point struct<x int>")

    def write(verb: str, rows: pa.Table, *flags: str) -> None:
        pq.write_table(rows, file)
        cli.write(verb, path, file, *flags, "--schema-mode", "merge")

    x, n = pa.field("x", pa.int32()), pa.field("n", pa.int32())
    wide = kind.format == "iceberg" or bool(kind.properties)
    old = [{"id": i, "n": i, "point": {"x": i}} for i in range(6)]
    write("append", pa.Table.from_pylist(old, pa.schema([("id", pa.int64()), n, ("point", pa.struct([x]))])))
    n = pa.field("n", pa.int64() if wide else pa.int32())
    point = pa.struct([x, ("y", pa.int32())])
    new = pa.schema([("id", pa.int64()), n, ("point", point), ("tip", pa.float64())])
    feed = [{"id": i, "n": i + (1 << 40 if wide else 7), "point": {"x": -i, "y": i}, "tip": i / 8} for i in range(4, 9)]
    write("merge", pa.Table.from_pylist(feed, new), "--on", "id", "--strategy", "merge-on-read")
    expected = pa.Table.from_pylist(old[:4] + feed, new)
    assert_same(expected, spark.read(kind.format, path), KEY)
    cli.write("compact", path)
    assert_same(expected, spark.read(kind.format, path), KEY)
