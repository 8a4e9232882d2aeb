"""Random statements that change a table, the same text run by DuckDB on a plain table of its own.

Where the rules of both agree (SQL's, which Spark follows too), every row must be equal after each
statement: all clauses, NULLs, nested columns, masked and rewritten files, every strategy and format.
Rules that differ are tested elsewhere: several source rows for one row (DuckDB takes any of them).

`LAKEHOUSE_MERGES=50000` runs more, `LAKEHOUSE_SEED=17` runs one program again and prints it.
"""

import os
import random
from concurrent.futures import ThreadPoolExecutor
from datetime import date, datetime, timedelta
from decimal import Decimal

import duckdb
import lakehouse
import pyarrow as pa
import pyarrow.parquet as pq

MERGES = int(os.environ.get("LAKEHOUSE_MERGES", "2000"))
MERGES_PER_PROGRAM = 5
FORMATS = [("iceberg", 2), ("iceberg", 3), ("delta", None)]
STRATEGIES = ["auto", "auto", "merge-on-read", "copy-on-write"]
KEYS = 30

COLUMNS = {
    "k": pa.int64(),
    "r": pa.string(),
    "n": pa.int32(),
    "x": pa.float64(),
    "d": pa.date32(),
    "ts": pa.timestamp("us"),
    "p": pa.decimal128(9, 2),
    "s": pa.struct([("a", pa.int32()), ("b", pa.string())]),
    "l": pa.list_(pa.int32()),
}
SCHEMA = pa.schema(COLUMNS)
PLAIN = ["k", "r", "n", "x", "d", "ts", "p"]
PARTITIONINGS = [
    None,
    None,
    None,
    "bucket(3, k)",
    "r",
    "day(ts)",
    "r, bucket(2, k)",
    "truncate(10, k), month(d)",
    "truncate(1, r)",
    "hour(ts), year(d)",
]


def value(rng, name):
    """A value of a column, or NULL."""
    if rng.random() < (0.05 if name == "k" else 0.2):
        return None
    day = rng.randrange(-3, 4)
    match name:
        case "k":
            return rng.randrange(KEYS)
        case "r":
            return rng.choice(["eu", "us", "a/b=c", "über"])
        case "n":
            return rng.randrange(-5, 6)
        case "x":
            return rng.randrange(-8, 9) / 4
        case "d":
            return date(2013, 1, 5) + timedelta(days=day)
        case "ts":
            return datetime(2013, 1, 5, rng.randrange(24), 0, 0, rng.randrange(2)) + timedelta(days=day)
        case "p":
            return Decimal(rng.randrange(-8, 9) * 25) / 100
        case "s":
            return {"a": value(rng, "n"), "b": value(rng, "r")}
        case "l":
            return [value(rng, "n") for _ in range(rng.randrange(3))]
    raise ValueError(name)


def rows(rng, most):
    return [{name: value(rng, name) for name in COLUMNS} for _ in range(rng.randrange(1, most))]


def literal(rng, name):
    while (one := value(rng, name)) is None:
        pass
    match name:
        case "r" | "d":
            return f"'{one}'"
        case "ts":
            return f"TIMESTAMP '{one}'"
    return str(one)


def comparison(rng, sides):
    name, side = rng.choice(PLAIN), rng.choice(sides)
    kind = rng.randrange(8)
    if kind == 0:
        return f"{side}.{name} IS {rng.choice(['', 'NOT '])}NULL"
    if kind == 1 and len(sides) > 1:
        return f"target.{name} {rng.choice(['=', '<', '>=', '<>'])} source.{name}"
    if kind == 2:
        return f"{side}.{name} IN ({literal(rng, name)}, {literal(rng, name)})"
    if kind == 3:
        return f"{side}.{name} BETWEEN {literal(rng, name)} AND {literal(rng, name)}"
    return f"{side}.{name} {rng.choice(['=', '<', '>=', '<>'])} {literal(rng, name)}"


def condition(rng, sides):
    one = comparison(rng, sides)
    match rng.randrange(6):
        case 0:
            return f"({one} AND {comparison(rng, sides)})"
        case 1:
            return f"({one} OR {comparison(rng, sides)})"
        case 2:
            return f"NOT ({one})"
    return one


def assigned(rng, name, side):
    """What a column is set to, from this side or as a literal."""
    if name == "n" and rng.random() < 0.4:
        return f"{side}.n + 1"
    if name == "r" and rng.random() < 0.3:
        return f"coalesce({side}.r, 'none')"
    if name in ("s", "l", "k") or rng.random() < 0.5:
        return f"{side}.{name}"
    return "NULL" if rng.random() < 0.2 else f"CAST({literal(rng, name)} AS {SQL[name]})"


SQL = {
    "k": "BIGINT",
    "r": "VARCHAR",
    "n": "INT",
    "x": "DOUBLE",
    "d": "DATE",
    "ts": "TIMESTAMP",
    "p": "DECIMAL(9, 2)",
}


def assignments(rng, side):
    names = [name for name in COLUMNS if name != "k" and rng.random() < 0.4] or ["n"]
    return ", ".join(f"{name} = {assigned(rng, name, side)}" for name in names)


def clauses(rng):
    every = ", ".join(f"{name} = source.{name}" for name in COLUMNS)
    names, values = ", ".join(COLUMNS), ", ".join(f"source.{name}" for name in COLUMNS)
    parts = []

    def when(what, number, sides, effects):
        """Some clauses of one kind, of which the last may be unconditional."""
        for left in reversed(range(number)):
            only = f" AND {condition(rng, sides)}" if left or rng.random() < 0.6 else ""
            parts.append(f"WHEN {what}{only} THEN {rng.choice(effects)}")

    some = f"UPDATE SET {assignments(rng, rng.choice(['target', 'source']))}"
    when("MATCHED", rng.randrange(3), ["target", "source"], ["DELETE", some, f"UPDATE SET {every}"])
    some = f"INSERT (r, k, n) VALUES ({assigned(rng, 'r', 'source')}, source.k, source.n)"
    every = f"INSERT ({names}) VALUES ({values})"
    when("NOT MATCHED", rng.randrange(3), ["source"], [some, every])
    some = f"UPDATE SET {assignments(rng, 'target')}"
    when("NOT MATCHED BY SOURCE", rng.choice([0, 0, 1, 2]), ["target"], ["DELETE", some])
    return parts or [f"WHEN NOT MATCHED THEN {every}"]


def merge(rng, source):
    """A merge from the file of the source, whose rows are told apart by the key."""
    key = rng.choice([["k"], ["k"], ["k", "r"], ["r"], []])
    if not key:
        del source[1:]
        on = f"target.k {rng.choice(['<', '>='])} source.k AND {condition(rng, ['target', 'source'])}"
    else:
        safe = rng.random() < 0.3
        seen = set()
        for row in list(source):
            one = tuple(row[name] for name in key)
            if one in seen:
                source.remove(row)
            seen.add(one)
        equal = "(target.{0} IS NOT DISTINCT FROM source.{0})" if safe else "target.{0} = source.{0}"
        on = " AND ".join(equal.format(name) for name in key)
        if rng.random() < 0.3:
            on += f" AND {comparison(rng, ['target'])}"
    return f"MERGE INTO t AS target USING 'FEED' AS source ON {on} " + " ".join(clauses(rng))


def other(rng, _source):
    """A statement that is no merge; the file holds rows too."""
    only = condition(rng, ["t"])
    return rng.choice(
        [
            f"DELETE FROM t WHERE {only}",
            f"DELETE FROM t WHERE t.k IN (SELECT k FROM 'FEED' WHERE n > 0) AND {only}",
            "DELETE FROM t WHERE EXISTS (SELECT 1 FROM 'FEED' AS s WHERE s.k = t.k AND s.r = t.r)",
            f"UPDATE t SET n = n + 1, r = coalesce(r, 'none') WHERE {only}",
            f"UPDATE t SET n = CAST((SELECT max(n) FROM 'FEED') AS INT) WHERE {only}",
            f"UPDATE t SET x = s.x FROM (SELECT k, max(x) AS x FROM 'FEED' GROUP BY k) AS s WHERE t.k = s.k AND {only}",
            "INSERT INTO t SELECT * FROM 'FEED' WHERE n < 0",
        ]
    )


def table_of(rows):
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def content(arrow):
    return sorted(repr(sorted(row.items())) for row in arrow.to_pylist())


def run(seed, folder, explain=False):
    """One program on both; says what differs."""
    rng = random.Random(seed)
    format, version = FORMATS[seed % len(FORMATS)]
    peer = duckdb.connect(":memory:", config={"threads": 1})
    try:
        first = table_of(rows(rng, 40))
        table = lakehouse.Table.create(
            f"memory://oracle-{seed}",
            SCHEMA,
            format=format,
            format_version=version,
            partition_by=rng.choice(PARTITIONINGS),
            # Row groups of a few rows, so that some are copied where a file is rewritten.
            properties=rng.choice([{}, {"write.parquet.row-group-limit": "4"}]),
        )
        peer.register("first", first)
        peer.execute("CREATE TABLE t AS SELECT * FROM first")
        # Several files, of which a merge touches some.
        half = len(first) // 2
        for part in [first.slice(0, half), first.slice(half)]:
            table.append(part)
        steps = [merge] * MERGES_PER_PROGRAM + [other] * rng.randrange(3)
        rng.shuffle(steps)
        for number, step in enumerate(steps):
            source = rows(rng, 12)
            statement = step(rng, source)
            path = folder / f"{seed}-{number}.parquet"
            pq.write_table(table_of(source), path)
            statement = statement.replace("FEED", str(path))
            strategy = rng.choice(STRATEGIES)
            if explain:
                print(f"{format} {version} {strategy}: {statement}\n{source}")
            if rng.random() < 0.1:
                table.compact()
            try:
                lakehouse.sql(statement, tables={"t": table}, strategy=strategy)
                peer.execute(statement)
            except (lakehouse.LakehouseError, duckdb.Error) as error:
                return f"LAKEHOUSE_SEED={seed} step {number}: {type(error).__name__} {error}\n{statement}"
            ours = content(table.scan().to_arrow())
            theirs = content(peer.execute("SELECT * FROM t").to_arrow_table().cast(SCHEMA))
            if ours != theirs:
                surplus = [row for row in ours if row not in theirs][:5]
                missing = [row for row in theirs if row not in ours][:5]
                return (
                    f"LAKEHOUSE_SEED={seed} step {number} {format} {version} {strategy}: {statement}\n"
                    f"{len(ours)} rows, DuckDB has {len(theirs)}\ntoo many: {surplus}\nmissing: {missing}"
                )
            path.unlink()
    finally:
        peer.close()
    return None


def test_random_merges_leave_the_rows_that_duckdb_has(tmp_path):
    if seed := os.environ.get("LAKEHOUSE_SEED"):
        assert run(int(seed), tmp_path, explain=True) is None
        return
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        outcomes = pool.map(lambda seed: run(seed, tmp_path), range(MERGES // MERGES_PER_PROGRAM))
        failures = [outcome for outcome in outcomes if outcome]
    assert not failures, f"{len(failures)} programs differ:\n\n" + "\n\n".join(failures[:3])
