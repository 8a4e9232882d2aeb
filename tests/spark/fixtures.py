"""Makes the tables of fixtures/spark: small ones that Spark wrote, each with something that a reader can get wrong.

    python -m tests.spark.fixtures [NAME ..]           needs what `make interop` installs

Each table is written under /tmp/warehouse, the location that the Iceberg ones remember, and copied, with the rows that
Spark reads in it. The README there is made of what the functions say of their tables.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.interop.kept import SPARK, Read, lines, save
from tests.spark.install import JARS, VERSION

WAREHOUSE = Path("/tmp/warehouse")
# What a function yields: where to read (None for the newest version), and a condition.
Question = tuple[str | None, str | None]
NEWEST: Question = (None, None)

MASKS = ", ".join(f"'write.{verb}.mode' = 'merge-on-read'" for verb in ("delete", "update", "merge"))
# One metadata file is enough.
SHORT = "'write.metadata.delete-after-commit.enabled' = 'true', 'write.metadata.previous-versions-max' = '1'"
VECTORS = "'delta.enableDeletionVectors' = 'true'"


class Table:
    """A table that is being written."""

    def __init__(self, spark, name: str) -> None:
        self.spark = spark
        self.name = name
        self.kind = name.split("_")[0]
        self.path = WAREHOUSE / name
        self.t = spark.name(self.kind, self.path)

    def __call__(self, *statements: str) -> None:
        """Runs SQL, in which {t} is the table and {path} its folder."""
        for statement in statements:
            self.spark.run(statement.replace("{t}", self.t).replace("{path}", str(self.path)))

    def create(self, columns: str, more: str = "", version: int = 2, properties: str = "") -> None:
        """An empty table; `version` is the format version of an Iceberg one."""
        if self.kind == "iceberg":
            properties = ", ".join(filter(None, [f"'format-version' = '{version}'", SHORT, properties]))
        given = f" TBLPROPERTIES ({properties})" if properties else ""
        self(f"CREATE TABLE {{t}} ({columns}) USING {self.kind} {more}{given}")

    def rows(self, *values: str) -> None:
        """Inserts rows, in one file for each partition."""
        self(f"INSERT INTO {{t}} SELECT /*+ COALESCE(1) */ * FROM VALUES {', '.join(values)}")

    def newest(self) -> str:
        """The version that is current."""
        if self.kind == "delta":
            return str(self.spark.sql(f"DESCRIBE HISTORY {self.t} LIMIT 1")["version"][0])
        return str(self.spark.sql(f"SELECT snapshot_id FROM {self.t}.refs WHERE name = 'main'")["snapshot_id"][0])

    def read(self, question: Question) -> Read:
        at, where = question
        version = "" if at is None else f" VERSION AS OF {at if at.isdigit() else repr(at)}"
        condition = "" if where is None else f" WHERE {where}"
        return Read(at, where, *lines(self.spark.sql(f"SELECT * FROM {self.t}{version}{condition}")))


# ---- values

# Columns of every type that a format and Spark share, with the ends of each.
COLUMNS = [
    "id BIGINT",
    "flag BOOLEAN",
    "n INT",
    "big BIGINT",
    "f FLOAT",
    "d DOUBLE",
    "small_p DECIMAL(9, 2)",
    "p DECIMAL(18, 6)",
    "wide_p DECIMAL(38, 10)",
    "s STRING",
    "b BINARY",
    "day DATE",
    "ts TIMESTAMP",
    "wall TIMESTAMP_NTZ",
    "tags ARRAY<STRING>",
    "sizes MAP<STRING, INT>",
    "point STRUCT<x: DOUBLE, label: STRING>",
    "deep ARRAY<STRUCT<k: INT, v: MAP<INT, ARRAY<DATE>>>>",
]


def values(low: bool) -> list[str]:
    """A row with an end of each type."""
    f = "-3.4028235e38" if low else "1.4e-45"
    d = "-1.7976931348623157e308" if low else "4.9e-324"
    year = "0001-01-01" if low else "9999-12-31"
    moment = f"{year} 00:00:00" if low else f"{year} 23:59:59.999999"
    sign, s, b = ("-", "''", "X''") if low else ("", "'\\uD83D\\uDE00 \\u0000 ä'", "X'00FF'")
    nested = (
        ["array()", "map()", "named_struct('x', -0.0D, 'label', '')", "array()"]
        if low
        else [
            "array('', null, 'ä')",
            "map('', null, 'a', 2147483647)",
            "named_struct('x', double('NaN'), 'label', null)",
            "array(named_struct('k', 1, 'v', map(1, array(date '1582-10-14', null), 2, null)), null, "
            "named_struct('k', null, 'v', null))",
        ]
    )
    return [
        "false" if low else "true",
        "-2147483648" if low else "2147483647",
        "-9223372036854775808" if low else "9223372036854775807",
        f"float('{f}')",
        f"double('{d}')",
        f"{sign}9999999.99",
        f"{sign}999999999999.999999",
        f"{sign}9999999999999999999999999999.9999999999",
        s,
        b,
        f"date '{year}'",
        f"timestamp '{moment}'",
        f"timestamp_ntz '{moment}'",
        *nested,
    ]


def edge_rows() -> list[str]:
    """The low ends, the high ends, floats that are no numbers, 1582 and 1969, and nulls."""
    low, high = values(True), values(False)
    none = ["null"] * len(low)
    strange = list(none)
    strange[3:5] = ["float('NaN')", "double('NaN')"]
    strange[10:13] = [
        "date '1582-10-15'",
        "timestamp '1969-12-31 23:59:59.999999'",
        "timestamp_ntz '1582-10-04 12:00:00'",
    ]
    strange[15] = "named_struct('x', null, 'label', null)"
    infinite = list(none)
    infinite[3:5] = ["float('-Infinity')", "double('Infinity')"]
    rows = [low, high, strange, infinite, none]
    types = [column.split(" ", 1)[1] for column in COLUMNS]
    typed = [[f"CAST({v} AS {t})" for v, t in zip([str(i), *row], types, strict=True)] for i, row in enumerate(rows)]
    return [f"({', '.join(row)})" for row in typed]


# ---- Iceberg


def iceberg_types_v2(t: Table) -> Iterator[Question]:
    """every type of v2 that Spark has, at its ends, in the calendar of 1582 too"""
    t.create(", ".join(COLUMNS))
    t.rows(*edge_rows())
    yield NEWEST
    for where in [
        "day >= '1582-10-15'",
        "ts < '1970-01-01 00:00:00+00:00'",
        "big > 0",
        "d > 0",
        "s > ''",
        "wide_p < 0",
    ]:
        yield None, where


def iceberg_types_v3(t: Table) -> Iterator[Question]:
    """the same in v3"""
    t.create(", ".join(COLUMNS), version=3)
    t.rows(*edge_rows())
    yield NEWEST


def iceberg_variant(t: Table) -> Iterator[Question]:
    """v3 with a variant column"""
    t.create("id BIGINT, v VARIANT", version=3)
    t.rows("""(1, parse_json('{"a": 1}'))""", "(2, null)")
    yield None, "id = 1"


def iceberg_specs(t: Table) -> Iterator[Question]:
    """partition specs that evolve from none by bucket to days and back, rows of all of them masked by one delete"""
    t.create("id INT, ts TIMESTAMP, s STRING", properties=MASKS)
    first = "(1, timestamp '2024-02-28 23:59:59', 'a'), (2, timestamp '2024-02-29 00:00:00', 'b'), (3, null, 'c')"
    t.rows(first)
    t("ALTER TABLE {t} ADD PARTITION FIELD bucket(4, id)")
    t.rows(*(f"({i}, timestamp '2024-02-29 12:00:00', '{'ab'[i % 2]}')" for i in range(10, 16)))
    t("ALTER TABLE {t} REPLACE PARTITION FIELD bucket(4, id) WITH days(ts) AS on_day")
    t.rows(*(f"({i}, timestamp '1969-12-{i} 06:00:00', 'b')" for i in (30, 31)), "(32, null, 'a')")
    t("ALTER TABLE {t} DROP PARTITION FIELD on_day")
    t.rows("(40, timestamp '2024-03-01 00:00:00', 'a')", "(41, null, null)")
    t("ALTER TABLE {t} ADD PARTITION FIELD truncate(1, s)")
    t.rows("(50, timestamp '2024-03-01 00:00:00', 'äb')", "(51, null, null)")
    yield t.newest(), None
    t("DELETE FROM {t} WHERE id IN (2, 11, 31, 41)")
    yield NEWEST
    yield None, "id = 12"
    yield None, "ts < '1970-01-01 00:00:00+00:00'"
    yield None, "s = 'äb' OR id = 14"


def iceberg_transforms(t: Table) -> Iterator[Question]:
    """every partition transform, before 1970 and with nulls"""
    t.create(
        "id INT, ts TIMESTAMP, wall TIMESTAMP_NTZ, day DATE, s STRING, b BINARY, p DECIMAL(9, 2), big BIGINT",
        "PARTITIONED BY (hours(ts), months(wall), years(day), truncate(2, s), truncate(1, b), truncate(50, p), "
        "bucket(8, big))",
    )
    t.rows(
        "(1, timestamp '1969-12-31 23:30:00', timestamp_ntz '1969-12-31 23:30:00', date '1969-12-31', '😀😀😀', "
        "X'FF00', -0.01, -1)",
        "(2, timestamp '2024-02-29 00:30:00', timestamp_ntz '2024-02-29 00:00:00', date '2024-02-29', 'abc', X'', "
        "49.99, 9223372036854775807)",
        "(3, null, null, null, null, null, null, null)",
        "(4, timestamp '1970-01-01 00:00:00', timestamp_ntz '1970-01-01 00:00:00', date '1970-01-01', '', X'00', "
        "0.00, 0)",
        "(5, timestamp '0001-01-01 00:00:00', timestamp_ntz '9999-12-31 23:59:59', date '0001-12-31', 'ab', X'FF', "
        "-50.00, 34)",
    )
    t("ALTER TABLE {t} ADD PARTITION FIELD bucket(3, day)", "ALTER TABLE {t} ADD PARTITION FIELD bucket(3, s)")
    t("ALTER TABLE {t} ADD PARTITION FIELD bucket(3, b)", "ALTER TABLE {t} ADD PARTITION FIELD bucket(3, p)")
    t("INSERT INTO {t} SELECT id + 10, ts, wall, day, s, b, p, big FROM {t}")
    yield NEWEST
    for where in [
        "ts = '1969-12-31 23:30:00+00:00'",
        "wall < '1970-01-01 00:00:00'",
        "day <= '1969-12-31'",
        "s = '😀😀😀'",
        "s >= 'ab' AND s < 'ac'",
        "p < 0",
        "big = 34",
        "b = X'FF00'",
        "day = '2024-02-29' AND p = 49.99",
        "p IS NULL",
    ]:
        yield None, where


def iceberg_columns(t: Table) -> Iterator[Question]:
    """columns renamed, dropped, added again under an old name, moved; the same in structs, lists and maps"""
    t.create(
        "id INT, a INT, b STRING, c DOUBLE, point STRUCT<x: INT, y: INT>, items ARRAY<STRUCT<k: INT, v: STRING>>, "
        "by_name MAP<STRING, STRUCT<n: INT>>"
    )
    nested = "named_struct('x', 1, 'y', 2), array(named_struct('k', 1, 'v', 'v')), map('m', named_struct('n', 7))"
    t.rows(f"(1, 10, 'old', 1.5D, {nested})", "(2, null, null, null, null, null, null)")
    before = t.newest()
    t(
        "ALTER TABLE {t} RENAME COLUMN a TO a2",
        "ALTER TABLE {t} DROP COLUMN b",
        "ALTER TABLE {t} ADD COLUMN b STRING AFTER id",
        "ALTER TABLE {t} RENAME COLUMN c TO a",
        "ALTER TABLE {t} ALTER COLUMN a FIRST",
        "ALTER TABLE {t} RENAME COLUMN point.x TO z",
        "ALTER TABLE {t} DROP COLUMN point.y",
        "ALTER TABLE {t} ADD COLUMN point.x INT FIRST",
        "ALTER TABLE {t} ADD COLUMN items.element.w INT AFTER k",
        "ALTER TABLE {t} RENAME COLUMN items.element.v TO value",
        "ALTER TABLE {t} ADD COLUMN by_name.value.more DOUBLE",
    )
    nested = (
        "named_struct('x', 5, 'z', 6), array(named_struct('k', 2, 'w', 3, 'value', 'new')), "
        "map('m', named_struct('n', 8, 'more', 0.5D))"
    )
    t.rows(f"(2.5D, 3, 'new', 30, {nested})")
    yield NEWEST
    yield before, None
    yield None, "b IS NULL"
    yield None, "a = 1.5 OR a2 = 30"
    yield None, "point.z = 1"


def iceberg_promotions(t: Table) -> Iterator[Question]:
    """int to bigint, float to double, decimals with more digits, in partition columns too"""
    t.create(
        "id INT, n INT, f FLOAT, p DECIMAL(9, 2), point STRUCT<x: INT>",
        "PARTITIONED BY (bucket(4, id), n, truncate(10, p))",
        properties=MASKS,
    )
    t.rows("(1, -5, float('0.1'), -1.05, named_struct('x', 1))", "(2, null, float('NaN'), 9999999.99, null)")
    t(
        "ALTER TABLE {t} ALTER COLUMN id TYPE BIGINT",
        "ALTER TABLE {t} ALTER COLUMN n TYPE BIGINT",
        "ALTER TABLE {t} ALTER COLUMN f TYPE DOUBLE",
        "ALTER TABLE {t} ALTER COLUMN p TYPE DECIMAL(20, 2)",
        "ALTER TABLE {t} ALTER COLUMN point.x TYPE BIGINT",
    )
    t.rows(
        "(3000000000, 4000000000, 0.1D, 123456789012345678.99, named_struct('x', 5000000000))",
        "(3, -5, null, -1.05, named_struct('x', null))",
    )
    t("DELETE FROM {t} WHERE id = 3")
    yield NEWEST
    for where in ["id = 1", "n = -5", "p = -1.05", "f > 0.05 AND f < 0.2", "point.x >= 1", "id > 2147483647"]:
        yield None, where


def iceberg_v1(t: Table) -> Iterator[Question]:
    """v1, with a partition field that was dropped, and rows deleted by rewriting"""
    t.create("id INT, grp INT", "PARTITIONED BY (grp, bucket(2, id))", version=1)
    t.rows(*(f"({i}, {i % 2})" for i in range(4)))
    t("ALTER TABLE {t} DROP PARTITION FIELD grp")
    t.rows("(8, null)", "(9, 0)")
    t("DELETE FROM {t} WHERE id = 1 OR id = 9")
    yield NEWEST
    yield None, "grp = 0"


def iceberg_v1_to_v2(t: Table) -> Iterator[Question]:
    """v1, then v2 with position deletes"""
    t.create("id INT, grp INT", "PARTITIONED BY (grp)", version=1, properties=MASKS)
    t.rows(*(f"({i}, {i % 2})" for i in range(4)))
    t("ALTER TABLE {t} SET TBLPROPERTIES ('format-version' = '2')", "DELETE FROM {t} WHERE id = 1")
    yield NEWEST


def iceberg_no_statistics(t: Table) -> Iterator[Question]:
    """files without statistics"""
    t.create(
        "id INT, grp INT, s STRING", "PARTITIONED BY (grp)", properties="'write.metadata.metrics.default' = 'none'"
    )
    t.rows(*(f"({i}, {i % 2}, 'a')" for i in range(4)), "(4, null, null)")
    yield NEWEST
    yield None, "grp = 1"
    yield None, "id = 2"
    yield None, "s IS NULL"


def iceberg_upgraded(t: Table) -> Iterator[Question]:
    """v1 with a dropped partition field, then v2 with position deletes, then v3 with deletion vectors"""
    t.create("id INT, grp INT, s STRING", "PARTITIONED BY (grp, bucket(2, id))", version=1, properties=MASKS)
    t.rows(*(f"({i}, {i % 2}, 'v1')" for i in range(8)))
    t("ALTER TABLE {t} DROP PARTITION FIELD bucket(2, id)")
    t.rows("(8, null, 'v1')", "(9, 0, 'v1')")
    first = t.newest()
    t("ALTER TABLE {t} SET TBLPROPERTIES ('format-version' = '2')", "DELETE FROM {t} WHERE id IN (0, 1, 9)")
    t.rows(*(f"({i}, {i % 2}, 'v2')" for i in range(20, 24)))
    second = t.newest()
    t("ALTER TABLE {t} SET TBLPROPERTIES ('format-version' = '3')", "DELETE FROM {t} WHERE id IN (2, 20)")
    t("UPDATE {t} SET s = 'v3' WHERE id IN (3, 21, 8)")
    yield NEWEST
    yield first, None
    yield second, None
    yield None, "grp = 0"


def iceberg_mixed_deletes(t: Table) -> Iterator[Question]:
    """one position delete file over files of a partition, one for a file, then vectors that replace both"""
    t.create("id INT, s STRING", version=2, properties=f"{MASKS}, 'write.delete.granularity' = 'partition'")
    t.rows(*(f"({i}, 'a')" for i in range(6)))
    t.rows(*(f"({i}, 'b')" for i in range(10, 16)))
    t("DELETE FROM {t} WHERE id % 10 = 1")
    t("ALTER TABLE {t} SET TBLPROPERTIES ('write.delete.granularity' = 'file')", "DELETE FROM {t} WHERE id % 10 = 2")
    before = t.newest()
    t("ALTER TABLE {t} SET TBLPROPERTIES ('format-version' = '3')", "DELETE FROM {t} WHERE id = 3")
    yield NEWEST
    yield before, None
    t(
        "MERGE INTO {t} t USING (SELECT explode(array(4, 13, 99)) AS id) s ON t.id = s.id "
        "WHEN MATCHED AND t.id = 4 THEN DELETE WHEN MATCHED THEN UPDATE SET s = 'merged' "
        "WHEN NOT MATCHED THEN INSERT (id, s) VALUES (s.id, 'new')"
    )
    yield NEWEST


def iceberg_lineage(t: Table) -> Iterator[Question]:
    """v3 with row lineage written into files by copy-on-write and by a rewrite of files"""
    t.create("id INT, s STRING", version=3)
    t.rows(*(f"({i}, 'a')" for i in range(5)))
    t.rows(*(f"({i}, 'b')" for i in range(5, 8)))
    t("UPDATE {t} SET s = 'updated' WHERE id = 2", "DELETE FROM {t} WHERE id = 6")
    t(
        f"CALL ice.system.rewrite_data_files(table => '{t.t.removeprefix('ice.')}', "
        "options => map('rewrite-all', 'true'))"
    )
    t.rows("(9, 'c')")
    yield NEWEST


def iceberg_refs(t: Table) -> Iterator[Question]:
    """tags, a branch with rows of its own, a rollback"""
    t.create("id INT, s STRING")
    t.rows("(1, 'a')")
    t("ALTER TABLE {t} CREATE TAG `first`", "ALTER TABLE {t} CREATE BRANCH audit")
    t("ALTER TABLE {t} ADD COLUMN more INT")
    t.rows("(2, 'b', 20)")
    t("ALTER TABLE {t} CREATE TAG `2024-01-01`")
    t("INSERT INTO {t}.branch_audit VALUES (3, 'audit', 30)", "DELETE FROM {t}.branch_audit WHERE id = 1")
    wrong = t.newest()
    t.rows("(4, 'wrong', 40)")
    t(f"CALL ice.system.rollback_to_snapshot('{t.t.removeprefix('ice.')}', {wrong})")
    yield NEWEST
    yield "first", None
    yield "2024-01-01", None
    yield "audit", None


def _library(t: Table):
    """Iceberg's own library in Spark's process: a change of the schema, the types, and literals."""
    jvm = t.spark.session._jvm
    table = jvm.org.apache.iceberg.spark.Spark3Util.loadIcebergTable(t.spark.session._jsparkSession, t.t)
    return table.updateSchema(), jvm.org.apache.iceberg.types.Types, jvm.org.apache.iceberg.expressions.Expressions.lit


def iceberg_defaults(t: Table) -> Iterator[Question]:
    """v3 columns with defaults, for rows that were there before them and for rows written since; added by Iceberg's
    own library in Spark's process"""
    t.create("id INT", version=3)
    t.rows("(1)", "(2)")
    update, types, literal = _library(t)
    for name, kind, value in [
        ("n", types.IntegerType.get(), literal(-7)),
        ("big", types.LongType.get(), literal(9223372036854775807)),
        ("s", types.StringType.get(), literal("dé fault")),
        ("flag", types.BooleanType.get(), literal(True)),
        ("d", types.DoubleType.get(), literal(-0.5)),
        ("day", types.DateType.get(), literal("1969-12-31").to(types.DateType.get())),
        (
            "ts",
            types.TimestampType.withZone(),
            literal("1969-12-31T23:59:59.5+00:00").to(types.TimestampType.withZone()),
        ),
    ]:
        update.addColumn(name, kind, value)
    update.commit()
    t("INSERT INTO {t} VALUES (3, null, null, null, null, null, null, null)")
    yield NEWEST
    yield None, "n = -7"
    yield None, "n IS NULL"
    yield None, "day < '1970-01-01' AND d = -0.5"


def iceberg_nested_default(t: Table) -> Iterator[Question]:
    """a default inside of a struct"""
    t.create("id INT, point STRUCT<x: INT>", version=3)
    t.rows("(1, named_struct('x', 1))", "(2, null)")
    update, types, literal = _library(t)
    update.addColumn("point", "y", types.IntegerType.get(), literal(5))
    update.commit()
    yield NEWEST


def iceberg_imported(t: Table) -> Iterator[Question]:
    """Parquet files without field ids, found by a name mapping; the partition column is in their folder's name only;
    timestamps with 96 bits"""
    t.create("id INT, s STRING, ts TIMESTAMP, grp INT", "PARTITIONED BY (grp)")
    session = t.spark.session
    session.conf.set("spark.sql.parquet.outputTimestampType", "INT96")
    t(
        "INSERT OVERWRITE DIRECTORY '{path}/imported/grp=1' USING parquet SELECT /*+ COALESCE(1) */ * FROM VALUES "
        "(1, 'a', timestamp '1600-01-01 00:00:00.000001'), (2, null, null), "
        "(3, 'c', timestamp '9999-12-31 23:59:59.999999') AS v(id, s, ts)"
    )
    session.conf.unset("spark.sql.parquet.outputTimestampType")
    t(
        f"CALL ice.system.add_files(table => '{t.t.removeprefix('ice.')}', "
        "source_table => '`parquet`.`{path}/imported`')"
    )
    t("ALTER TABLE {t} RENAME COLUMN s TO text", "ALTER TABLE {t} ADD COLUMN more INT")
    t.rows("(4, 'd', timestamp '2024-01-01 00:00:00', 2, 5)")
    yield NEWEST
    yield None, "grp = 1 AND id > 1"
    yield None, "text = 'a'"


def iceberg_names(t: Table) -> Iterator[Question]:
    """columns whose names are not names: dots, blanks, quotes, other scripts, digits first"""
    t.create("id INT, `a.b` INT, `a b` INT, `1st` INT, `q\"'` INT, `größe` INT, `日本` INT, `_x41` INT, `select` INT")
    t.rows("(1, 2, 3, 4, 5, 6, 7, 8, 9)", "(2, null, null, null, null, null, null, null, null)")
    t("ALTER TABLE {t} RENAME COLUMN `1st` TO `2.nd`")
    t.rows("(3, 20, 30, 40, 50, 60, 70, 80, 90)")
    yield NEWEST
    yield None, "id = 3"


def iceberg_partition_names(t: Table) -> Iterator[Question]:
    """partition fields whose names are not names"""
    t.create("id INT, `a b` INT, `größe` INT", "PARTITIONED BY (`a b`, bucket(2, `größe`))")
    t.rows("(1, 2, 3)", "(2, null, null)")
    yield NEWEST
    yield None, "id = 1"


def iceberg_partition_values(t: Table) -> Iterator[Question]:
    """identity partitions of every type, with nulls, empty strings, not-numbers, and what paths must escape"""
    t.create(
        "id INT, s STRING, b BINARY, d DOUBLE, p DECIMAL(38, 10), ts TIMESTAMP, flag BOOLEAN, day DATE",
        "PARTITIONED BY (s, b, d, p, ts, flag, day)",
    )
    t.rows(
        "(1, '', X'', double('NaN'), 0.0, timestamp '1969-12-31 23:59:59.999999', true, date '1969-12-31')",
        "(2, 'a/b=c%20 d?#:ä😀', X'00FF', double('-Infinity'), -1234567890123456789.0123456789, "
        "timestamp '2024-02-29 01:02:03', false, date '0001-01-01')",
        "(3, null, null, null, null, null, null, null)",
        "(4, 'null', null, -0.0D, 1, null, null, date '9999-12-31')",
    )
    yield NEWEST
    yield None, "s = ''"
    yield None, "s IS NULL"
    yield None, "p < 0"
    yield None, "ts < '1970-01-01 00:00:00+00:00'"


def iceberg_codecs(t: Table) -> Iterator[Question]:
    """metadata with gzip, manifests and data with other codecs, second version of Parquet's pages, Bloom filters,
    several row groups"""
    t.create(
        "id BIGINT, s STRING, n INT, ts TIMESTAMP",
        properties="'write.metadata.compression-codec' = 'gzip', 'write.avro.compression-codec' = 'zstd', "
        "'write.parquet.page-version' = 'v2', 'write.parquet.bloom-filter-enabled.column.id' = 'true', "
        "'write.parquet.bloom-filter-max-bytes' = '64'",
    )
    for i, codec in enumerate(["gzip", "lz4_raw", "snappy", "uncompressed"]):
        t(f"ALTER TABLE {{t}} SET TBLPROPERTIES ('write.parquet.compression-codec' = '{codec}')")
        t(
            f"INSERT INTO {{t}} SELECT id * 7 + {i}, concat('common prefix ', id % 5), CAST(id % 3 AS INT), "
            "timestamp_micros(id * 1000003) FROM range(0, 12, 1, 1)"
        )
    yield NEWEST
    yield None, "id = 35"


def iceberg_avro(t: Table) -> Iterator[Question]:
    """data files in Avro"""
    t.create("id INT, s STRING", properties="'write.format.default' = 'avro'")
    t.rows("(1, 'a')")
    yield NEWEST


def iceberg_orc(t: Table) -> Iterator[Question]:
    """data files in ORC"""
    t.create("id INT, s STRING", properties="'write.format.default' = 'orc'")
    t.rows("(1, 'a')")
    yield NEWEST


def iceberg_empty(t: Table) -> Iterator[Question]:
    """a table without a snapshot"""
    t.create("id INT, s STRING")
    yield NEWEST


def iceberg_emptied(t: Table) -> Iterator[Question]:
    """rows deleted by whole files, then all that is left replaced by nothing"""
    t.create("id INT, s STRING", "PARTITIONED BY (s)")
    t.rows("(1, 'a')", "(2, 'b')")
    t("DELETE FROM {t} WHERE s = 'a'")
    middle = t.newest()
    t("TRUNCATE TABLE {t}")
    yield NEWEST
    yield middle, None


# ---- Delta


def delta_types(t: Table) -> Iterator[Question]:
    """every type, at its ends, in the calendar of 1582 too; timestamps with 96 bits"""
    t.create(f"{', '.join(COLUMNS)}, tiny TINYINT, small SMALLINT")
    rows = [row[:-1] for row in edge_rows()]
    ends = ["-128Y, -32768S", "127Y, 32767S", "null, null", "null, null", "null, null"]
    t.rows(*(f"{row}, {end})" for row, end in zip(rows, ends, strict=True)))
    yield NEWEST
    for where in [
        "day >= '1582-10-15'",
        "ts < '1970-01-01 00:00:00+00:00'",
        "big > 0",
        "d > 0",
        "s > ''",
        "wide_p < 0",
        "tiny < 0",
    ]:
        yield None, where


def delta_variant(t: Table) -> Iterator[Question]:
    """a variant column"""
    t.create("id BIGINT, v VARIANT")
    t.rows("""(1, parse_json('{"a": 1}'))""", "(2, null)")
    yield None, "id = 1"


def delta_partition_values(t: Table) -> Iterator[Question]:
    """partition columns of every type, with nulls and what paths must escape"""
    t.create(
        "id INT, s STRING, tiny TINYINT, d DOUBLE, p DECIMAL(38, 10), ts TIMESTAMP, wall TIMESTAMP_NTZ, flag BOOLEAN, "
        "day DATE, b BINARY",
        "PARTITIONED BY (s, tiny, d, p, ts, wall, flag, day, b)",
    )
    t.rows(
        "(1, ' ', -128Y, double('NaN'), 0.0, timestamp '1969-12-31 23:59:59.999999', "
        "timestamp_ntz '1969-12-31 23:59:59.5', true, date '1969-12-31', X'61')",
        "(2, 'a/b=c%20 d?#:ä😀', 127Y, double('-Infinity'), -1234567890123456789.0123456789, "
        "timestamp '2024-02-29 01:02:03', timestamp_ntz '0001-01-01 00:00:00', false, date '0001-01-01', X'C3A4')",
        "(3, null, null, null, null, null, null, null, null, null)",
        "(4, 'null', 0Y, 1e300D, 1, timestamp '9999-12-31 23:59:59.999999', "
        "timestamp_ntz '9999-12-31 23:59:59.999999', null, date '9999-12-31', null)",
    )
    t("INSERT INTO {t} (id, s) VALUES (5, '')")
    yield NEWEST
    for where in [
        "s IS NULL",
        "s = ' '",
        "p < 0",
        "ts < '1970-01-01 00:00:00+00:00'",
        "wall > '2024-01-01'",
        "tiny = 127",
    ]:
        yield None, where


def delta_vectors(t: Table) -> Iterator[Question]:
    """deletion vectors by delete, update and merge, replaced by later ones, in several files"""
    t.create("id INT, s STRING", properties=VECTORS)
    t.rows(*(f"({i}, 'a')" for i in range(10)))
    t.rows(*(f"({i}, 'b')" for i in range(10, 20)))
    t("DELETE FROM {t} WHERE id % 10 = 3", "UPDATE {t} SET s = 'updated' WHERE id IN (4, 14)")
    before = t.newest()
    t(
        "MERGE INTO {t} t USING (SELECT explode(array(5, 15, 99)) AS id) s ON t.id = s.id "
        "WHEN MATCHED AND t.id = 5 THEN DELETE WHEN MATCHED THEN UPDATE SET s = 'merged' "
        "WHEN NOT MATCHED THEN INSERT (id, s) VALUES (s.id, 'new')"
    )
    yield NEWEST
    yield before, None
    yield None, "s = 'updated'"


MAPPED = "'delta.columnMapping.mode' = '{}'"


def _mapped(t: Table, mode: str) -> Iterator[Question]:
    t.create(
        "id INT, a INT, b STRING, `p q` STRING, point STRUCT<x: INT, y: INT>, items ARRAY<STRUCT<k: INT>>",
        "PARTITIONED BY (`p q`)",
        properties=f"{MAPPED.format(mode)}, {VECTORS}",
    )
    t.rows(
        "(1, 10, 'old', 'p', named_struct('x', 1, 'y', 2), array(named_struct('k', 1)))", "(2, 0, '', null, null, null)"
    )
    before = t.newest()
    t(
        "ALTER TABLE {t} RENAME COLUMN a TO a2",
        "ALTER TABLE {t} DROP COLUMN b",
        "ALTER TABLE {t} ADD COLUMN b DOUBLE AFTER id",
        "ALTER TABLE {t} RENAME COLUMN point.x TO z",
        "ALTER TABLE {t} DROP COLUMN point.y",
        "ALTER TABLE {t} ADD COLUMN point.x INT",
        "ALTER TABLE {t} RENAME COLUMN `p q` TO `part,=()`",
        "ALTER TABLE {t} RENAME COLUMN items.element.k TO `k;{}`",
    )
    t.rows("(3, 0.5D, 30, 'p', named_struct('z', 5, 'x', 6), array(named_struct('k;{}', 2)))")
    t("DELETE FROM {t} WHERE id = 2")
    yield NEWEST
    yield before, None
    yield None, "a2 = 10"
    yield None, "b IS NULL"


def delta_mapping_name(t: Table) -> Iterator[Question]:
    """column mapping by name: renamed, dropped and added again, in structs and lists, a partition column too"""
    yield from _mapped(t, "name")


def delta_mapping_id(t: Table) -> Iterator[Question]:
    """the same by id"""
    yield from _mapped(t, "id")


def delta_mapping_later(t: Table) -> Iterator[Question]:
    """column mapping switched on when there were files: names in files are those that the columns had then"""
    t.create("id INT, a INT, b STRING")
    t.rows("(1, 10, 'x')")
    t("ALTER TABLE {t} SET TBLPROPERTIES ('delta.columnMapping.mode' = 'name')")
    t("ALTER TABLE {t} RENAME COLUMN a TO c", "ALTER TABLE {t} RENAME COLUMN b TO a")
    t.rows("(2, 20, 'y')")
    yield NEWEST
    yield None, "a = 'x'"
    yield None, "c = 20"


def _without_old_log(t: Table) -> None:
    """Removes what the newest checkpoint stands for, so that no reader can do without it."""
    log = t.path / "_delta_log"
    last = max(file.name.split(".")[0] for file in log.glob("*.checkpoint.*"))
    for file in [*log.glob("*.json"), *log.glob("*.crc")]:
        if file.name.split(".")[0] < last and "checkpoint" not in file.name:
            file.unlink()


@contextmanager
def settings(spark, **given: str) -> Iterator[None]:
    """Delta's settings for a while; two underscores stand for a dot."""
    names = {f"spark.databricks.delta.{name.replace('__', '.')}": value for name, value in given.items()}
    for name, value in names.items():
        spark.session.conf.set(name, value)
    yield
    for name in names:
        spark.session.conf.unset(name)


def _checkpointed(t: Table, properties: str = "", **given: str) -> Iterator[Question]:
    with settings(t.spark, **given):
        t.create(
            "id INT, grp INT, s STRING",
            "PARTITIONED BY (grp)",
            properties=", ".join(filter(None, [VECTORS, "'delta.checkpointInterval' = '3'", properties])),
        )
        for start in (0, 10):
            t.rows(*(f"({start + i}, {i % 2}, 'a')" for i in range(6)))
        t("DELETE FROM {t} WHERE id IN (1, 12)")
    t.rows("(20, null, 'after')")
    t("DELETE FROM {t} WHERE id = 2")
    yield NEWEST
    yield None, "grp = 1"


def delta_checkpoint(t: Table) -> Iterator[Question]:
    """a checkpoint without the commits before it, with deletion vectors, and commits after it"""
    yield from _checkpointed(t)


def delta_checkpoint_parts(t: Table) -> Iterator[Question]:
    """a checkpoint of several files"""
    yield from _checkpointed(t, checkpoint__partSize="2")


def delta_checkpoint_v2_json(t: Table) -> Iterator[Question]:
    """a checkpoint of version 2 in JSON, with sidecars"""
    yield from _checkpointed(t, "'delta.checkpointPolicy' = 'v2'", checkpointV2__topLevelFileFormat="json")


def delta_checkpoint_v2_parquet(t: Table) -> Iterator[Question]:
    """a checkpoint of version 2 in Parquet, with sidecars"""
    yield from _checkpointed(t, "'delta.checkpointPolicy' = 'v2'", checkpointV2__topLevelFileFormat="parquet")


def delta_checkpoint_struct(t: Table) -> Iterator[Question]:
    """a checkpoint with statistics and partition values as structs only"""
    yield from _checkpointed(
        t, "'delta.checkpoint.writeStatsAsJson' = 'false', 'delta.checkpoint.writeStatsAsStruct' = 'true'"
    )


def built(spark, path: Path, *columns: tuple, by: str | None = None) -> None:
    """A table by Delta's own builder, as SQL makes no generated columns: of names, types, and more for some of them."""
    delta, gateway = spark.session._jvm.io.delta.tables.DeltaTable, spark.session.sparkContext._gateway
    builder = delta.create(spark.session._jsparkSession).location(str(path))
    for name, kind, *more in columns:
        column = delta.columnBuilder(name).dataType(kind)
        for method, arguments in more:
            column = getattr(column, method)(*arguments)
        builder = builder.addColumn(column.build())
    if by:
        names = gateway.new_array(spark.session._jvm.String, 1)
        names[0] = by
        builder = builder.partitionedBy(names)
    builder.execute()


def delta_no_statistics(t: Table) -> Iterator[Question]:
    """files of which the log does not even say how many rows they have"""
    with settings(t.spark, stats__collect="false"):
        t.create("id INT, grp INT, s STRING", "PARTITIONED BY (grp)", properties=VECTORS)
        t.rows(*(f"({i}, {i % 2}, 'a')" for i in range(4)), "(4, null, null)")
    yield NEWEST
    yield None, "grp = 1"
    yield None, "id = 2"
    yield None, "s IS NULL"


def delta_generated(t: Table) -> Iterator[Question]:
    """generated columns, which partition the table"""
    day = ("day", "DATE", ("generatedAlwaysAs", ["CAST(ts AS DATE)"]))
    twice = ("twice", "INT", ("generatedAlwaysAs", ["id * 2"]))
    built(t.spark, t.path, ("id", "INT"), ("ts", "TIMESTAMP"), day, twice, by="day")
    moments = ["timestamp '1969-12-31 23:59:59'", "timestamp '2024-02-29 12:00:00'", "null"]
    t(*(f"INSERT INTO {{t}} (id, ts) VALUES ({i}, {moment})" for i, moment in enumerate(moments, 1)))
    t("UPDATE {t} SET ts = timestamp '2024-03-01 00:00:00' WHERE id = 2")
    yield NEWEST
    yield None, "ts < '1970-01-01 00:00:00+00:00'"


def delta_identity(t: Table) -> Iterator[Question]:
    """an identity column"""
    built(t.spark, t.path, ("id", "BIGINT", ("generatedAlwaysAsIdentity", [5, -2])), ("s", "STRING"))
    t("INSERT INTO {t} (s) SELECT /*+ COALESCE(1) */ * FROM VALUES ('a'), ('b')", "INSERT INTO {t} (s) VALUES ('c')")
    yield NEWEST


def delta_change_feed(t: Table) -> Iterator[Question]:
    """change data feed: files of changes beside those of rows"""
    t.create("id INT, s STRING", properties=f"'delta.enableChangeDataFeed' = 'true', {VECTORS}")
    t.rows(*(f"({i}, 'a')" for i in range(6)))
    t("UPDATE {t} SET s = 'updated' WHERE id = 2", "DELETE FROM {t} WHERE id = 3")
    t("ALTER TABLE {t} SET TBLPROPERTIES ('delta.enableDeletionVectors' = 'false')")
    t("UPDATE {t} SET s = 'again' WHERE id = 4")
    yield NEWEST


def delta_commit_timestamps(t: Table) -> Iterator[Question]:
    """in-commit timestamps, switched on in the middle"""
    t.create("id INT, s STRING")
    t.rows("(1, 'a')")
    t("ALTER TABLE {t} SET TBLPROPERTIES ('delta.enableInCommitTimestamps' = 'true')")
    t.rows("(2, 'b')")
    yield NEWEST
    yield "1", None


def delta_row_tracking(t: Table) -> Iterator[Question]:
    """row tracking, its ids written into files by an update"""
    t.create("id INT, s STRING", properties="'delta.enableRowTracking' = 'true'")
    t.rows(*(f"({i}, 'a')" for i in range(4)))
    t("UPDATE {t} SET s = 'updated' WHERE id = 2", "OPTIMIZE {t}")
    yield NEWEST


def delta_widening(t: Table) -> Iterator[Question]:
    """type widening, as far as it goes, in structs, lists, maps and a partition column too"""
    t.create(
        "id TINYINT, n TINYINT, m INT, f FLOAT, i INT, j INT, p DECIMAL(5, 2), day DATE, part INT, "
        "point STRUCT<x: SMALLINT>, items ARRAY<INT>, sizes MAP<INT, FLOAT>",
        "PARTITIONED BY (part)",
        properties="'delta.enableTypeWidening' = 'true', 'delta.feature.timestampNtz' = 'supported'",
    )
    t.rows(
        "(1Y, -128Y, -5, float('0.1'), 2147483647, -7, -999.99, date '1969-12-31', -1, named_struct('x', -3S), "
        "array(1, null), map(1, float('0.5')))",
        "(2Y, null, null, null, null, null, null, null, null, null, null, null)",
    )
    t("ALTER TABLE {t} ALTER COLUMN n TYPE SMALLINT")
    t.rows("(3Y, 32767S, 1, float('NaN'), 1, 1, 1, date '0001-01-01', 1, null, array(), map())")
    for column, kind in {
        "n": "BIGINT",
        "m": "BIGINT",
        "f": "DOUBLE",
        "i": "DOUBLE",
        "j": "DECIMAL(20, 5)",
        "p": "DECIMAL(12, 4)",
        "day": "TIMESTAMP_NTZ",
        "part": "BIGINT",
        "point.x": "INT",
        "items.element": "BIGINT",
        "sizes.key": "BIGINT",
        "sizes.value": "DOUBLE",
    }.items():
        t(f"ALTER TABLE {{t}} ALTER COLUMN {column} TYPE {kind}")
    t.rows(
        "(4Y, 9223372036854775807, 5000000000, 0.1D, 0.5D, 123456789012345.12345, 12345678.1234, "
        "timestamp_ntz '2024-02-29 12:30:00', 5000000000, named_struct('x', 100000), array(5000000000), "
        "map(5000000000, 0.1D))",
    )
    yield NEWEST
    for where in ["n < 0", "f > 0.2", "j = -7", "p = -999.99", "day < '1970-01-01'", "part = -1", "part > 5", "i > 1"]:
        yield None, where


def delta_constraints(t: Table) -> Iterator[Question]:
    """CHECK constraints, and a column that is never null"""
    t.create("id INT NOT NULL, n INT, point STRUCT<x: INT NOT NULL>")
    t("ALTER TABLE {t} ADD CONSTRAINT positive CHECK (n > 0 OR n IS NULL)")
    t.rows("(1, 5, named_struct('x', 1))", "(2, null, named_struct('x', 2))")
    yield NEWEST


def delta_defaults(t: Table) -> Iterator[Question]:
    """column defaults, which are for writers only"""
    t.create(
        "id INT, s STRING DEFAULT 'dé fault', n INT", properties="'delta.feature.allowColumnDefaults' = 'supported'"
    )
    t(
        "INSERT INTO {t} (id) VALUES (1)",
        "ALTER TABLE {t} ALTER COLUMN n SET DEFAULT 7",
        "INSERT INTO {t} (id) VALUES (2)",
    )
    yield NEWEST


def delta_append_only(t: Table) -> Iterator[Question]:
    """a table that may only grow"""
    t.create("id INT, s STRING", properties="'delta.appendOnly' = 'true'")
    t.rows("(1, 'a')")
    yield NEWEST


def delta_clustered(t: Table) -> Iterator[Question]:
    """clustered, which is a domain's metadata, and optimized"""
    t.create("id INT, s STRING", "CLUSTER BY (id)")
    t.rows("(1, 'a')")
    t.rows("(2, 'b')")
    t("OPTIMIZE {t}", "ALTER TABLE {t} CLUSTER BY NONE")
    t.rows("(3, 'c')")
    yield NEWEST


def delta_replaced(t: Table) -> Iterator[Question]:
    """replaced by a table with other columns and partitions, then by a condition, then restored"""
    t.create("id INT, s STRING")
    t.rows("(1, 'a')")
    # In its folder only, Spark does not replace it.
    t("CREATE TABLE replaced USING delta LOCATION '{path}'")
    t("CREATE OR REPLACE TABLE replaced (s INT, id BIGINT) USING delta PARTITIONED BY (s)")
    t("DROP TABLE replaced")
    t.rows("(1, 10)", "(2, 20)")
    before = t.newest()
    t("INSERT INTO {t} REPLACE WHERE s = 2 VALUES (2, 21)", "DELETE FROM {t} WHERE s = 1")
    t(f"RESTORE TABLE {{t}} TO VERSION AS OF {before}")
    yield NEWEST
    yield "1", None


def delta_converted(t: Table) -> Iterator[Question]:
    """Parquet files with Hive's folders that were declared a table"""
    t(
        "INSERT OVERWRITE DIRECTORY '{path}/grp=a%20b/n=1' USING parquet SELECT /*+ COALESCE(1) */ * FROM VALUES "
        "(1, timestamp '1600-01-01 00:00:00'), (2, null) AS v(id, ts)",
        "INSERT OVERWRITE DIRECTORY '{path}/grp=__HIVE_DEFAULT_PARTITION__/n=2' USING parquet "
        "SELECT 3 AS id, timestamp '2024-01-01 00:00:00' AS ts",
    )
    for junk in [*t.path.rglob("_SUCCESS"), *t.path.rglob(".*.crc")]:
        junk.unlink()
    t("CONVERT TO DELTA parquet.`{path}` PARTITIONED BY (grp STRING, n INT)")
    yield NEWEST
    yield None, "grp = 'a b'"


def delta_feature_dropped(t: Table) -> Iterator[Question]:
    """deletion vectors used, then dropped as a feature: what protects the checkpoints stays"""
    t.create("id INT, s STRING", properties=VECTORS)
    t.rows(*(f"({i}, 'a')" for i in range(4)))
    t("DELETE FROM {t} WHERE id = 2", "ALTER TABLE {t} DROP FEATURE deletionVectors")
    t.rows("(9, 'b')")
    yield NEWEST


def delta_shallow_clone(t: Table) -> Iterator[Question]:
    """a shallow clone: its files are another table's, by absolute paths"""
    t("CREATE TABLE delta.`{path}_origin` USING delta AS SELECT 1 AS id, 'a' AS s")
    t("CREATE TABLE {t} SHALLOW CLONE delta.`{path}_origin`")
    t.rows("(2, 'b')")
    yield NEWEST


def delta_iceberg_compatible(t: Table) -> Iterator[Question]:
    """column mapping as compatibility with Iceberg wants it: field ids in files, inside of lists and maps too"""
    t.create(
        "id INT, items ARRAY<STRUCT<k: INT>>, sizes MAP<STRING, INT>, ts TIMESTAMP",
        properties="'delta.enableIcebergCompatV2' = 'true', 'delta.columnMapping.mode' = 'name'",
    )
    t.rows("(1, array(named_struct('k', 1)), map('a', 1), timestamp '2024-01-01 00:00:00')", "(2, null, null, null)")
    yield NEWEST


FIXTURES: dict[str, Callable[[Table], Iterator[Question]]] = {
    name: make for name, make in list(globals().items()) if name.startswith(("iceberg_", "delta_"))
}


def keep(spark, name: str) -> None:
    """Makes a table and copies it, with what Spark reads in it."""
    home = SPARK / name
    for old in (WAREHOUSE / name, WAREHOUSE / f"{name}_origin", home):
        shutil.rmtree(old, ignore_errors=True)
    t = Table(spark, name)
    questions = list(FIXTURES[name](t))
    if name.startswith("delta_checkpoint"):
        _without_old_log(t)
    junk = [".*.crc", "_SUCCESS", "_staged_commits"]
    if name != "delta_vectors":
        junk.append("*.crc")  # Delta's own sums of versions: one table with them is enough.
    shutil.copytree(t.path, home / "table", ignore=shutil.ignore_patterns(*junk))
    save(home / "expected.json", [t.read(question) for question in dict.fromkeys(questions)])


def readme() -> str:
    """What the tables are."""
    versions = ", ".join(f"`{artifact}` {version}" for _, artifact, version in JARS[:2])
    rows = [
        f"| `{name}` | {' '.join(make.__doc__.split())} |" for name, make in FIXTURES.items() if (SPARK / name).exists()
    ]
    head = f"""# Tables that Spark wrote

By Spark {VERSION} with {versions}.
Made by `python -m tests.spark.fixtures`, and so is this text. In `table/` is the table, which believes itself under
`/tmp/warehouse` if it is one of Iceberg; `expected.json` has the rows that Spark reads in it, at some versions and by
some conditions. `tests/interop/test_spark_fixtures.py` reads all of them with `lake`.

| table | what |
|---|---|
"""
    return head + "\n".join(rows) + "\n"


def main() -> None:
    from tests.spark.session import Spark

    spark = Spark(WAREHOUSE)
    failed = []
    for name in sys.argv[1:] or FIXTURES:
        try:
            keep(spark, name)
            print(f"{name}: made", flush=True)
        except Exception as error:
            failed.append(name)
            print(f"{name}: {str(error)[:1500]}", flush=True)
    (SPARK / "README.md").write_text(readme())
    spark.stop()
    sys.exit(f"not made: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
