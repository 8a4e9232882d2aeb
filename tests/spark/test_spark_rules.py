"""Generated columns, constraints, defaults and hidden partitions of Delta: Spark and `lake` mean the same."""

import itertools
import json
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal

import pyarrow as pa
import pytest

from tests.interop.readers import assert_same
from tests.interop.tables import KEY, SCHEMA, Kind, born, row, table
from tests.spark.fixtures import built
from tests.spark.test_spark_writes import skipped

# A generated column's type and its expression, over the columns of `row`.
EXPRESSIONS = [
    ("BIGINT", "id * 2 + 1"),
    ("BIGINT", "id - grp"),
    ("BIGINT", "id % 7"),
    ("DOUBLE", "amount / 4"),
    ("DOUBLE", "amount * 2 + id"),
    ("DOUBLE", "abs(amount)"),
    ("DECIMAL(13, 2)", "price + 1"),
    ("STRING", "upper(name)"),
    ("STRING", "lower(name) || '-x'"),
    ("STRING", "substring(name, 2, 3)"),
    ("STRING", "substr(name, 3)"),
    ("STRING", "trim(name)"),
    ("INT", "length(name)"),
    ("STRING", "concat(name, ':', CAST(id AS STRING))"),
    ("STRING", "coalesce(name, 'none')"),
    ("STRING", "CASE WHEN grp = 1 THEN 'one' WHEN grp > 1 THEN 'more' ELSE 'other' END"),
    ("STRING", "if(flag, 'yes', 'no')"),
    ("BOOLEAN", "name LIKE '%a%' AND id > 3"),
    ("BOOLEAN", "name <=> NULL"),
    ("BOOLEAN", "grp IN (1, 2) OR (born >= '1970-01-01' AND born < DATE '2000-01-01')"),
    ("BOOLEAN", "NOT flag"),
    ("BOOLEAN", "isnull(grp)"),
    ("BOOLEAN", "price > 1.5 AND amount < 1e2 AND CAST(grp AS BIGINT) < 3"),
    ("DATE", "CAST(ts AS DATE)"),
    ("DATE", "to_date(wall)"),
    ("DATE", "trunc(born, 'MONTH')"),
    ("STRING", "CAST(born AS STRING)"),
    ("INT", "year(ts)"),
    ("INT", "month(born) * 100 + day(born)"),
    ("INT", "hour(ts)"),
    ("INT", "quarter(ts)"),
    ("INT", "EXTRACT(MINUTE FROM ts)"),
    ("TIMESTAMP", "date_trunc('HOUR', ts)"),
    ("STRING", "date_format(ts, 'yyyy-MM-dd HH:mm:ss')"),
    ("INT", "greatest(grp, 2)"),
]
COLUMNS = {
    "id": "BIGINT",
    "grp": "INT",
    "amount": "DOUBLE",
    "price": "DECIMAL(12, 2)",
    "name": "STRING",
    "born": "DATE",
    "wall": "TIMESTAMP_NTZ",
    "ts": "TIMESTAMP",
    "flag": "BOOLEAN",
}
ROWS = [row(i) for i in range(80)]


def given(rows: list[dict]) -> pa.Table:
    """Rows without what is computed."""
    return pa.Table.from_pylist([{n: r[n] for n in COLUMNS} for r in rows]).cast(
        pa.schema([SCHEMA.field(name) for name in COLUMNS])
    )


def test_generated_columns_have_the_values_that_spark_computes(spark, cli, tmp_path):
    paths = {who: tmp_path / who for who in ("spark", "lake")}
    names = [f"g{number}" for number in range(len(EXPRESSIONS))]
    for path in paths.values():
        generated = [
            (name, kind, ("generatedAlwaysAs", [expression]))
            for name, (kind, expression) in zip(names, EXPRESSIONS, strict=True)
        ]
        built(spark, path, *COLUMNS.items(), *generated, by="g25")
    spark.view("given", given(ROWS), tmp_path)
    columns = ", ".join(COLUMNS)
    spark.run(f"INSERT INTO delta.`{paths['spark']}` ({columns}) SELECT {columns} FROM given")
    cli("append", paths["lake"], tmp_path / "view-given.parquet")
    expected = spark.read("delta", paths["spark"])
    got = spark.read("delta", paths["lake"])
    for name, expression in zip(names, EXPRESSIONS, strict=True):
        one = lambda rows, name=name: rows.select(["id", name])  # noqa: E731
        assert_same(one(expected), one(got), KEY), expression
    # What is not set is computed anew: by an update, a merge, and SQL.
    changed = [r | {"grp": 3, "name": "anew"} for r in ROWS[::2]]
    cli("update", paths["lake"], "--set", "grp = 3, name = 'anew'", "--where", "id % 4 = 0")
    spark.view("changed", given(changed[1::2]), tmp_path)
    cli("merge", paths["lake"], tmp_path / "view-changed.parquet", "--on", "id")
    spark.run(f"UPDATE delta.`{paths['spark']}` SET grp = 3, name = 'anew' WHERE id % 2 = 0")
    assert_same(spark.read("delta", paths["spark"]), spark.read("delta", paths["lake"]), KEY)
    # Spark checks what it is given: it agrees with what `lake` wrote.
    spark.run(f"UPDATE delta.`{paths['lake']}` SET amount = amount WHERE id < 10")


CONSTRAINTS = [
    "grp > 0",
    "grp > 0 OR grp IS NULL",
    "name <> ''",
    "length(trim(name)) > 3",
    "amount >= -2.5 AND amount < 4",
    "price IS NULL OR price BETWEEN 0 AND 5",
    "flag",
    "NOT flag OR id < 20",
    "year(ts) >= 1970",
    "born >= '1970-01-01'",
    "ts < '2024-03-01 06:00:00'",
    "name LIKE 'n%' OR name IN ('plain', '')",
    "grp <=> NULL OR grp % 2 = 0",
    "CASE WHEN grp = 1 THEN price > 0 ELSE true END",
]


@pytest.mark.parametrize("constraint", CONSTRAINTS)
def test_lake_and_spark_let_the_same_rows_in(spark, cli, constraint, tmp_path):
    path = tmp_path / "t"
    columns = ", ".join(f"{name} {kind}" for name, kind in COLUMNS.items())
    spark.run(f"CREATE TABLE delta.`{path}` ({columns}) USING DELTA")
    spark.run(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT demanded CHECK ({constraint})")
    spark.view("given", given(ROWS), tmp_path)
    allowed = spark.sql(f"SELECT id FROM given WHERE {constraint}")["id"].to_pylist()
    assert 0 < len(allowed) < len(ROWS)
    for number, one in enumerate(ROWS):
        spark.session.catalog.dropTempView("one")
        if number % 8:
            continue
        spark.view("one", given([one]), tmp_path)
        done = cli.run("append", path, tmp_path / "view-one.parquet")
        assert (done.returncode == 0) == (one["id"] in allowed), done.stderr.decode()
        if done.returncode:
            # Spark keeps it with other spaces.
            said = f"CHECKconstraintdemanded`{constraint}`".replace(" ", "")
            assert said in done.stderr.decode().replace(" ", ""), done.stderr.decode()
            with pytest.raises(Exception, match="(?i)constraint"):
                spark.run(f"INSERT INTO delta.`{path}` SELECT * FROM one")
    kept = [i for i in allowed if i % 8 == 0]
    assert sorted(spark.read("delta", path)["id"].to_pylist()) == kept


def test_a_constraint_that_lake_sets_is_one_for_spark(spark, cli, tmp_path):
    path = tmp_path / "t"
    cli("create", path, "--format", "delta", "--schema", "id bigint, n int")
    (tmp_path / "rows.csv").write_text("id,n\n1,5\n2,-1\n")
    cli("append", path, tmp_path / "rows.csv")
    refused = cli.refused("alter", path, "--set", "delta.constraints.positive=n > 0")
    assert "-1" in refused and "positive" in refused
    cli("delete", path, "--where", "n < 0")
    cli("alter", path, "--set", "delta.constraints.positive=n > 0")
    with pytest.raises(Exception, match="positive"):
        spark.run(f"INSERT INTO delta.`{path}` VALUES (3, -3)")
    spark.run(f"INSERT INTO delta.`{path}` VALUES (3, 3)")
    assert sorted(spark.read("delta", path)["id"].to_pylist()) == [1, 3]


def test_rules_over_members_of_structs_are_the_same_for_lake_and_spark(spark, cli, tmp_path):
    member = pa.struct([("a", pa.int32()), ("b", pa.string())])
    schema = pa.schema([("id", pa.int64()), ("s", member)])
    pairs = [(1, "x"), (0, "x"), (None, "x"), (2, ""), (3, None)]
    values = [*({"a": a, "b": b} for a, b in pairs), None]
    path = tmp_path / "t"
    generated = ("g", "BIGINT", ("generatedAlwaysAs", ["S.A * 10 + id"]))
    built(spark, path, ("id", "BIGINT"), ("s", "STRUCT<a: INT, b: STRING>"), generated)
    spark.run(f"ALTER TABLE delta.`{path}` ADD CONSTRAINT inside CHECK (s.a > 0 AND (S.B IS NULL OR s.b <> ''))")
    for number, value in enumerate(values):
        spark.session.catalog.dropTempView("one")
        spark.view("one", pa.Table.from_pylist([{"id": number, "s": value}], schema), tmp_path)
        done = cli.run("append", path, tmp_path / "view-one.parquet")
        try:
            spark.run(f"INSERT INTO delta.`{path}` (id, s) SELECT id + 10, s FROM one")
            allowed = True
        except Exception as error:
            assert "inside" in str(error).lower(), error
            allowed = False
        assert (done.returncode == 0) == allowed, (value, done.stderr.decode())
    got = {r["id"]: r["g"] for r in spark.read("delta", path).to_pylist()}
    assert got == {0: 10, 4: 34, 10: 20, 14: 44}
    # What `lake` demands, Spark does.
    cli("alter", path, "--set", "delta.constraints.small=s.a < 5")
    with pytest.raises(Exception, match="small"):
        spark.run(f"INSERT INTO delta.`{path}` (id, s) VALUES (20, named_struct('a', 7, 'b', 'y'))")


def test_a_default_of_a_member_of_a_struct_is_refused_by_name_in_delta(spark, cli, tmp_path):
    path = tmp_path / "t"
    cli("create", path, "--format", "delta", "--schema", "id int, s struct<x int>")
    (tmp_path / "rows.csv").write_text("id\n1\n")
    assert "in Delta only whole columns have one" in cli.refused("alter", path, "--default", "s.x=1")
    spark.run(f"INSERT INTO delta.`{path}` VALUES (1, named_struct('x', 2))")
    feature = "'delta.feature.allowColumnDefaults' = 'supported'"
    spark.run(f"ALTER TABLE delta.`{path}` SET TBLPROPERTIES ({feature})")
    # Spark notes one all the same.
    spark.run(f"ALTER TABLE delta.`{path}` ALTER COLUMN s.x SET DEFAULT 7")
    assert "s.x has a default value" in cli.refused("append", path, tmp_path / "rows.csv")
    assert cli.read(path, tmp_path).to_pylist() == [{"id": 1, "s": {"x": 2}}]


def test_defaults_are_given_to_rows_that_do_not_say(spark, cli, tmp_path):
    path = tmp_path / "t"
    spark.run(
        f"CREATE TABLE delta.`{path}` (id INT, s STRING DEFAULT 'it''s', n DECIMAL(5, 2) DEFAULT 2.5, d DATE "
        "DEFAULT DATE '2024-02-29', at TIMESTAMP DEFAULT current_timestamp()) USING DELTA "
        "TBLPROPERTIES ('delta.feature.allowColumnDefaults' = 'supported')"
    )
    started = datetime.now(UTC)
    (tmp_path / "rows.csv").write_text("id\n1\n")
    cli("append", path, tmp_path / "rows.csv")
    (got,) = spark.read("delta", path).to_pylist()
    assert timedelta() <= got.pop("at") - started < timedelta(minutes=1)
    assert got == {"id": 1, "s": "it's", "n": Decimal("2.50"), "d": date(2024, 2, 29)}


HIDDEN = {
    "year(ts), truncate(20, id)": ("ts_year", "id_trunc"),
    "month(ts)": ("ts_month",),
    "month(born), truncate(2, grp)": ("born_month", "grp_trunc"),
    "month(wall)": ("wall_month",),
    "hour(ts)": ("ts_hour",),
    "hour(wall)": ("wall_hour",),
    "truncate(2, name)": ("name_trunc",),
    "truncate(500, price)": ("price_trunc",),
    "day(ts), bucket(4, id)": ("ts_day", "id_bucket"),
}
# For each column: a condition in both dialects, and its answer.
ASKED = [
    ("ts >= '2024-02-29T00:00:00+00:00'", lambda r: r["ts"] and r["ts"] >= datetime(2024, 2, 29, tzinfo=UTC)),
    ("ts < '1970-01-01T05:00:00+00:00'", lambda r: r["ts"] and r["ts"] < datetime(1970, 1, 1, 5, tzinfo=UTC)),
    ("wall = '2024-02-29T05:00:00.000011011'", lambda r: False),
    ("wall < '1970-01-01T05:00:00'", lambda r: r["wall"] and r["wall"] < datetime(1970, 1, 1, 5)),
    ("born >= '1970-02-01'", lambda r: r["born"] and r["born"] >= date(1970, 2, 1)),
    ("name = ''", lambda r: r["name"] == ""),
    ("name IS NULL", lambda r: r["name"] is None),
    ("name = 'plain'", lambda r: r["name"] == "plain"),
    ("name >= 'p'", lambda r: r["name"] is not None and r["name"].encode() >= b"p"),
    ("price > -3.5 AND price < 2", lambda r: r["price"] is not None and Decimal("-3.5") < r["price"] < 2),
    ("id = 45", lambda r: r["id"] == 45),
    ("id > 60", lambda r: r["id"] > 60),
    ("grp = 3", lambda r: r["grp"] == 3),
    ("grp IS NULL", lambda r: r["grp"] is None),
]


@pytest.mark.parametrize(
    ("by", "zone"),
    [
        *((by, "UTC") for by in HIDDEN),
        *itertools.product(["month(ts)", "hour(wall)"], ["America/New_York", "Asia/Kolkata"]),
    ],
)
def test_hidden_partitions_of_lake_and_of_spark_lose_no_rows_to_either(spark, cli, by, zone, tmp_path):
    kind = Kind("delta", None, by, HIDDEN[by])
    life = born(cli, kind, tmp_path)
    rows = [row(i) for i in range(80)]
    columns = ", ".join(SCHEMA.names)
    name = spark.name("delta", life.path)
    spark.view("half", table(rows[:40]), tmp_path)
    cli("append", life.path, tmp_path / "view-half.parquet")
    spark.view("half", table(rows[40:]), tmp_path)
    spark.session.conf.set("spark.sql.session.timeZone", zone)
    try:
        spark.run(f"INSERT INTO {name} ({columns}) SELECT {columns} FROM half")
    finally:
        spark.session.conf.set("spark.sql.session.timeZone", "UTC")
    assert_same(table(rows), cli.read(life.path, tmp_path), KEY)
    pruned = 0
    for where, matches in ASKED:
        expected = table([r for r in rows if matches(r)])
        assert_same(expected, cli.read(life.path, tmp_path, where=where), KEY)
        pruned += skipped(cli, life.path, where)
        if zone == "UTC":
            got = spark.read("delta", life.path, where=where).drop_columns(list(kind.hidden))
            assert_same(expected, got, KEY)
    assert pruned > 0
    if zone == "UTC":
        # One partition for one value: both compute the same.
        hidden = ", ".join(HIDDEN[by])
        of = {"lake": "id < 40", "spark": "id >= 40"}
        theirs = {
            who: {tuple(r.values()) for r in spark.read("delta", life.path, where=w, columns=hidden).to_pylist()}
            for who, w in of.items()
        }
        every = spark.sql(f"SELECT DISTINCT {hidden} FROM {name}").num_rows
        assert every == len(theirs["lake"] | theirs["spark"])
    # Rows of Spark's partitions are changed by `lake`, those of lake's by Spark, which checks what it finds.
    cli("update", life.path, "--set", "amount = 1.5", "--where", "id % 3 = 0")
    spark.run(f"UPDATE {name} SET flag = true WHERE id % 5 = 0")
    # Where Spark was in another zone its partitions are others: runs that rewrite their files make them ours.
    runs = [json.loads(cli("compact", life.path, "--json"))["committed"] for _ in range(2 if zone == "UTC" else 6)]
    assert not runs[-1]
    for r in rows:
        r["amount"] = 1.5 if r["id"] % 3 == 0 else r["amount"]
        r["flag"] = True if r["id"] % 5 == 0 else r["flag"]
    assert_same(table(rows), cli.read(life.path, tmp_path), KEY)
    assert_same(table(rows), spark.read("delta", life.path).drop_columns(list(kind.hidden)), KEY)


def test_files_of_lake_are_where_spark_looks_for_them(spark, cli, tmp_path):
    """A condition on the source becomes one on the hidden column, in Spark too."""
    path = tmp_path / "t"
    cli("create", path, "--format", "delta", "--schema", "id bigint, ts timestamptz", "--partition-by", "month(ts)")
    (tmp_path / "rows.csv").write_text("id,ts\n1,2024-01-15T12:00:00Z\n2,2024-02-15T12:00:00Z\n")
    cli("append", path, tmp_path / "rows.csv")
    plan = spark.session.sql(f"SELECT * FROM delta.`{path}` WHERE ts > timestamp '2024-02-10 00:00:00'")
    assert "ts_month" in plan._jdf.queryExecution().toString()
    assert plan.toArrow()["id"].to_pylist() == [2]
