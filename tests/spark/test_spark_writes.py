"""Spark writes to tables that `lake` made, then `lake` does again; both read the same at every step."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.interop import kept
from tests.interop.readers import assert_same
from tests.interop.tables import (
    DAY_BUCKET,
    FILTERS,
    KEY,
    SCHEMA,
    Kind,
    Lake,
    Life,
    Row,
    Step,
    append,
    born,
    merge_again,
    merge_feed,
    row,
    spark_hash,
    table,
)
from tests.interop.test_spark_fixtures import REFUSED
from tests.spark import lineage
from tests.spark.fixtures import WAREHOUSE

MASKS = tuple(f"write.{verb}.mode=merge-on-read" for verb in ("delete", "update", "merge"))
TRACKED = ("delta.enableRowTracking=true", "delta.enableChangeDataFeed=true")
# Tables of fixtures/spark that `lake` cannot read, or that have no rows.
CANNOT = [*REFUSED, "iceberg_empty", "iceberg_emptied"]
HIDDEN = ("ts_day", "id_bucket")
# Spark rewrites files unless it is told to mask rows.
KINDS = [
    Kind("iceberg", 2, DAY_BUCKET),
    Kind("iceberg", 2, properties=MASKS),
    Kind("iceberg", 3),
    Kind("iceberg", 3, DAY_BUCKET, properties=MASKS),
    Kind("delta"),
    Kind("delta", None, DAY_BUCKET, HIDDEN),
    Kind("delta", properties=TRACKED),
    Kind("delta", None, DAY_BUCKET, HIDDEN, TRACKED),
]


class Both:
    """A table that Spark and `lake` write in turn."""

    def __init__(self, spark, cli: Lake, kind: Kind, folder: Path) -> None:
        self.spark = spark
        self.life: Life = born(cli, kind, folder)
        self.name = spark.name(kind.format, self.life.path)
        self.steps: list[Step] = []

    def lake(self, verb: Callable[..., None], *arguments: object, **options: object) -> None:
        """A step by `lake`, in which both must read the same."""
        verb(self.life, *arguments, **options)
        self.check(verb.__name__)

    def by_lake(self, name: str, *arguments: object, change: Callable[[dict[int, Row]], None]) -> None:
        self.life.step(name, *arguments, change=change)
        self.check(name)

    def by_spark(self, name: str, statement: str, change: Callable[[dict[int, Row]], None]) -> None:
        """A statement by Spark, in which {t} is the table."""
        self.spark.run(statement.replace("{t}", self.name))
        self.life.rows = {i: dict(r) for i, r in self.life.rows.items()}
        change(self.life.rows)
        self.check(name)

    def check(self, name: str) -> None:
        life = self.life
        expected = table(list(life.rows.values()))
        got = self.spark.read(life.kind.format, life.path)
        assert_same(expected, got.drop_columns(list(life.kind.hidden)), KEY)
        assert_same(expected, life.lake.read(life.path, life.scratch), KEY)
        if life.kind.version == 3:
            history = self.spark.sql(f"SELECT snapshot_id FROM {self.name}.refs WHERE name = 'main'")
            self.steps.append(Step(name, history["snapshot_id"][0].as_py(), life.rows))
        if life.kind.properties == TRACKED:
            history = self.spark.sql(f"DESCRIBE HISTORY {self.name}")
            self.steps.append(Step(name, max(history["version"].to_pylist()), life.rows))


def label(kind: Kind) -> str:
    return f"{kind}{' tracked' if kind.properties == TRACKED else ' masks' if kind.properties else ''}"


@pytest.mark.parametrize("kind", KINDS, ids=label)
def test_spark_and_lake_write_in_turn_and_read_the_same(spark, cli, kind, tmp_path):
    both = Both(spark, cli, kind, tmp_path)
    columns = ", ".join(SCHEMA.names)
    both.lake(append, [row(i) for i in range(40)])

    more = [row(i) for i in range(40, 70)]
    spark.view("more", table(more), tmp_path)
    insert = f"INSERT INTO {{t}} ({columns}) SELECT {columns} FROM more"
    both.by_spark("insert", insert, lambda rows: rows.update({r["id"]: r for r in more}))
    both.lake(merge_feed)

    def update(rows: dict[int, Row]) -> None:
        for r in rows.values():
            if r["grp"] == 2:
                r["name"], r["ts"] = "by Spark", None

    both.by_spark("update", "UPDATE {t} SET name = 'by Spark', ts = NULL WHERE grp = 2", update)
    both.lake(merge_again)

    feed = [row(i + 3, id=i) for i in range(0, 90, 4)]
    spark.view("feed", table(feed), tmp_path)

    def merge(rows: dict[int, Row]) -> None:
        for r in feed:
            if r["id"] in rows and r["id"] % 3 == 0:
                del rows[r["id"]]
            else:
                rows[r["id"]] = r

    statement = (
        "MERGE INTO {t} t USING feed s ON t.id = s.id WHEN MATCHED AND t.id % 3 = 0 THEN DELETE "
        f"WHEN MATCHED THEN UPDATE SET {', '.join(f't.{name} = s.{name}' for name in SCHEMA.names)} "
        f"WHEN NOT MATCHED THEN INSERT ({columns}) VALUES ({', '.join(f's.{name}' for name in SCHEMA.names)})"
    )
    both.by_spark("merge by Spark", statement, merge)

    def drop(remainder: int, divisor: int) -> Callable[[dict[int, Row]], None]:
        def change(rows: dict[int, Row]) -> None:
            for i in [i for i in rows if i % divisor == remainder]:
                del rows[i]

        return change

    both.by_lake("delete", "delete", "--where", "id % 10 = 3", change=drop(3, 10))
    both.by_spark("delete by Spark", "DELETE FROM {t} WHERE id % 7 = 5", drop(5, 7))
    again = [row(i) for i in range(400, 420)]
    spark.view("more", table(again), tmp_path)
    both.by_spark("insert again", insert, lambda rows: rows.update({r["id"]: r for r in again}))
    both.by_lake("compact", "compact", change=lambda rows: None)
    compact = "OPTIMIZE {t}"
    if kind.format == "iceberg":
        name = both.name.removeprefix("ice.")
        compact = f"CALL ice.system.rewrite_data_files(table => '{name}', options => map('rewrite-all', 'true'))"
    both.by_spark("compact by Spark", compact, lambda rows: None)
    both.lake(merge_feed, step=6)
    if kind.version == 3:
        lineage.check(spark, both.life, both.steps)
    if kind.properties == TRACKED:
        lineage.check_delta(spark, both.life, both.steps)

    for where, matches in FILTERS:
        expected = table([r for r in both.life.rows.values() if matches(r)])
        got = spark.read(kind.format, both.life.path, where=where).drop_columns(list(kind.hidden))
        assert_same(expected, got, KEY)
        assert_same(expected, cli.read(both.life.path, both.life.scratch, where=where), KEY)


def skipped(cli: Lake, path: Path, where: str) -> int:
    """Files that `lake` need not open, as the values of their partitions tell."""
    plan = cli("query", f"EXPLAIN SELECT * FROM t WHERE {where}", "-t", f"t={path}").decode()
    return int(re.search(r"skipped_by_partition=(\d+)", plan)[1])


def test_spark_computes_hidden_columns_of_delta_and_lake_prunes_by_them(spark, cli, tmp_path):
    life = born(cli, Kind("delta", None, DAY_BUCKET, HIDDEN), tmp_path)
    rows = [row(i) for i in range(60)]
    spark.view("more", table(rows), tmp_path)
    columns = ", ".join(SCHEMA.names)
    name = spark.name("delta", life.path)
    spark.run(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM more")
    for r in spark.read("delta", life.path, columns="id, ts, ts_day, id_bucket").to_pylist():
        assert r["ts_day"] == (r["ts"] and r["ts"].date())
        assert r["id_bucket"] == spark_hash(r["id"]) % 4
    files = spark.sql(f"DESCRIBE DETAIL {name}")["numFiles"][0].as_py()
    for where, matches in FILTERS[:2]:
        expected = table([r for r in rows if matches(r)])
        assert_same(expected, cli.read(life.path, life.scratch, where=where), KEY)
        assert 0 < skipped(cli, life.path, where) < files, where
    spark.run(f"UPDATE {name} SET ts = timestamp '2030-01-01 00:00:00' WHERE id = 45")
    got = cli.read(life.path, life.scratch, where="ts >= '2030-01-01T00:00:00+00:00'")
    assert got["id"].to_pylist() == [45]


def test_spark_that_gives_a_hidden_column_another_value_is_refused_by_its_constraint(spark, cli, tmp_path):
    life = born(cli, Kind("delta", None, DAY_BUCKET, HIDDEN), tmp_path)
    name = spark.name("delta", life.path)
    with pytest.raises(Exception, match="CHECK constraint"):
        spark.run(f"INSERT INTO {name} (id, id_bucket) VALUES (1, {(spark_hash(1) + 1) % 4})")
    assert cli.read(life.path, life.scratch).num_rows == 0


# ---- tables that Spark made


def at_home(name: str, folder: Path) -> Path:
    """A table of fixtures/spark: one of Iceberg where it believes itself, as only there it can be written."""
    path = WAREHOUSE / name if name.startswith("iceberg_") else folder / "t"
    shutil.rmtree(path, ignore_errors=True)
    shutil.copytree(kept.SPARK / name / "table", path)
    return path


@pytest.mark.parametrize("name", [name for name in kept.tables() if name not in CANNOT])
def test_spark_reads_what_lake_writes_into_tables_of_spark(spark, cli, name, tmp_path):
    path, before = at_home(name, tmp_path), kept.newest(name)
    key = kept.first_key(before)
    done = cli.run("delete", path, "--where", f"id = {key}")
    if done.returncode:
        # That it names the reason is tested where Spark is not needed.
        refused = name.startswith("delta_") or "is a time before 1970" in done.stderr.decode()
        assert done.returncode == 1 and refused, done.stderr.decode()
        return
    kind = name.split("_")[0]
    before.without(key).same(spark.session.read.format(kind).load(str(path)).toArrow())
