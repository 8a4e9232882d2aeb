"""One operation of a library (a peer, or ours) or a floor, in this process: `python -m benches.peers ENGINE JSON`.

Prints {"seconds": .., "answer": ..}. The seconds are the operation's own, to the peer's advantage: from the libraries
loaded and the engine started (DuckDB: the database attached; Sail: its server up) to the commit done.
"""

import json
import os
import shutil
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benches import oracle
from benches.data import COLUMNS, KEYS, MODULE, OP, Q1, plain

ON = " AND ".join(f"t.{key} = s.{key}" for key in KEYS)


@dataclass
class Task:
    """What is asked: `op` is load (of `parts`, each its own commit if `sixteen`), merge (of `feed`), compact (into
    files of `target` bytes, in Z-order by the columns `by`) or q1."""

    op: str
    table: str
    parts: list[str]
    feed: str = ""
    mixed: bool = False
    sixteen: bool = False
    target: int = 0
    by: tuple[str, ...] = ()
    seconds: float = 0.0

    @contextmanager
    def timed(self):
        start = time.perf_counter()
        yield
        self.seconds = time.perf_counter() - start


def _lakehouse(task: Task, **create):
    """Our own module, used as its peers are: Arrow in, one process, the operation alone is timed."""
    sys.path.insert(0, str(MODULE))
    import lakehouse
    import pyarrow.dataset
    import pyarrow.parquet as pq

    if task.op == "load":
        with task.timed():
            chunks = [[part] for part in task.parts] if task.sixteen else [task.parts]
            table = lakehouse.Table.create(task.table, pq.read_schema(task.parts[0]), **create)
            for chunk in chunks:
                table.append(pyarrow.dataset.dataset(chunk).scanner().to_reader())
    elif task.op == "merge":
        values = {column: f"source.{column}" for column in COLUMNS}
        with task.timed():
            merge = lakehouse.Table.open(task.table).merge(pq.read_table(task.feed), KEYS)
            if task.mixed:
                merge = merge.when_matched_delete(f"source.{OP} = 'D'").when_matched_update(values)
                merge = merge.when_not_matched_insert(values, f"source.{OP} <> 'D'")
            else:
                merge = merge.when_matched_update_all().when_not_matched_insert_all()
            return merge.execute()
    else:
        with task.timed():
            rows = lakehouse.sql(Q1.format(table="lineitem"), {"lineitem": task.table}).to_arrow()
        return plain(zip(*(column.to_pylist() for column in rows.columns), strict=True))


def lakehouse_iceberg(task: Task):
    """Iceberg v3."""
    return _lakehouse(task, format="iceberg", format_version=3)


def lakehouse_delta(task: Task):
    return _lakehouse(task, format="delta")


def deltalake(task: Task):
    import deltalake as dl
    import pyarrow.dataset
    import pyarrow.parquet as pq

    if task.op == "load":
        with task.timed():
            if task.sixteen:
                for part in task.parts:
                    dl.write_deltalake(task.table, pq.read_table(part), mode="append")
            else:
                dl.write_deltalake(task.table, pyarrow.dataset.dataset(task.parts).scanner().to_reader())
    elif task.op == "merge":
        values = {column: f"s.{column}" for column in COLUMNS}
        with task.timed():
            source = pq.read_table(task.feed)
            merge = dl.DeltaTable(task.table).merge(source, ON, source_alias="s", target_alias="t")
            if task.mixed:
                merge = merge.when_matched_delete(f"s.{OP} = 'D'").when_matched_update(values)
                merge = merge.when_not_matched_insert(values, f"s.{OP} <> 'D'")
            else:
                merge = merge.when_matched_update(values).when_not_matched_insert(values)
            return merge.execute()
    elif task.op == "compact":
        with task.timed():
            optimize = dl.DeltaTable(task.table).optimize
            if task.by:
                return optimize.z_order(task.by, target_size=task.target)
            return optimize.compact(target_size=task.target)
    else:
        with task.timed():
            builder = dl.QueryBuilder().register("lineitem", dl.DeltaTable(task.table))
            rows = builder.execute(Q1.format(table="lineitem")).read_all()
        names = rows.schema.names
        return plain(zip(*(rows.column(name).to_pylist() for name in names), strict=True))


def pyiceberg(task: Task):
    import pyarrow as pa
    import pyarrow.parquet as pq
    from pyiceberg.catalog.sql import SqlCatalog

    def rows(files):
        # Its upsert wants the table's nullability; DuckDB's files know no required columns.
        table = pa.concat_tables(pq.read_table(file) for file in files)
        return table.cast(pa.schema([pa.field(field.name, _old(pa, field.type), False) for field in table.schema]))

    Path(task.table).mkdir(parents=True, exist_ok=True)
    catalog = SqlCatalog("bench", uri=f"sqlite:///{task.table}/catalog.db", warehouse=f"file://{task.table}")
    if task.op == "load":
        with task.timed():
            catalog.create_namespace_if_not_exists("bench")
            table = None
            for chunk in [[part] for part in task.parts] if task.sixteen else [task.parts]:
                source = rows(chunk)
                table = table or catalog.create_table("bench.lineitem", schema=source.schema)
                table.append(source)
    elif task.op == "merge" and not task.mixed:
        with task.timed():
            return str(catalog.load_table("bench.lineitem").upsert(rows([task.feed]), join_cols=KEYS))
    elif task.op == "q1":
        import duckdb

        with task.timed():
            lineitem = catalog.load_table("bench.lineitem").scan("l_shipdate <= '1998-09-02'").to_arrow()
            db = duckdb.connect()
            db.register("lineitem", lineitem)
            return plain(db.execute(Q1.format(table="lineitem")).fetchall())
    else:
        raise NotImplementedError("its upsert cannot delete")


def _old(pa, kind):
    return pa.string() if pa.types.is_string_view(kind) else kind


def _sql_merge(table: str, source: str, mixed: bool) -> str:
    sets = ", ".join(f"{column} = s.{column}" for column in COLUMNS)
    values = ", ".join(f"s.{column}" for column in COLUMNS)
    delete = f"WHEN MATCHED AND s.{OP} = 'D' THEN DELETE " if mixed else ""
    inserted = f" AND s.{OP} <> 'D'" if mixed else ""
    return (
        f"MERGE INTO {table} t USING {source} s ON {ON} {delete}WHEN MATCHED THEN UPDATE SET {sets} "
        f"WHEN NOT MATCHED{inserted} THEN INSERT ({', '.join(COLUMNS)}) VALUES ({values})"
    )


def duckdb(task: Task):
    """Its own table, in a database file."""
    return _duckdb(task, "duckdb")


def ducklake(task: Task):
    """DuckLake by DuckDB's extension, its catalog in a DuckDB file."""
    return _duckdb(task, "ducklake")


def _duckdb(task: Task, kind: str):
    Path(task.table).mkdir(parents=True, exist_ok=True)
    db = oracle.read(kind, Path(task.table))
    if task.op == "load":
        with task.timed():
            if task.sixteen:
                db.execute(f"CREATE TABLE lineitem AS FROM read_parquet({task.parts}) LIMIT 0")
                for part in task.parts:
                    db.execute(f"INSERT INTO lineitem FROM '{part}'")
            else:
                db.execute(f"CREATE TABLE lineitem AS FROM read_parquet({task.parts})")
            db.close()
    elif task.op == "merge":
        source = f"'{task.feed}'"
        with task.timed():
            if kind == "ducklake" and task.mixed:  # its MERGE takes one action for matched rows
                keys = " AND ".join(f"lineitem.{key} = s.{key}" for key in KEYS)
                db.execute("BEGIN")
                db.execute(f"DELETE FROM lineitem USING (FROM {source} WHERE {OP} = 'D') s WHERE {keys}")
                db.execute(_sql_merge("lineitem", f"(FROM {source} WHERE {OP} <> 'D')", False))
                db.execute("COMMIT")
            else:
                db.execute(_sql_merge("lineitem", f"(FROM {source})", task.mixed))
            db.close()
    elif task.op == "compact" and kind == "ducklake" and not task.by:
        db.execute(f"CALL lake.set_option('target_file_size', '{task.target}B')")
        with task.timed():
            answer = db.execute("CALL ducklake_merge_adjacent_files('lake', 'lineitem')").fetchall()
            db.close()
        return str(answer)
    elif task.op == "compact":
        raise NotImplementedError(f"{kind} has no such compaction")
    else:
        with task.timed():
            return plain(db.execute(Q1.format(table="lineitem")).fetchall())


def _sail(task: Task, kind: str, options: dict[str, str]):
    from pysail.spark import SparkConnectServer
    from pyspark.sql import SparkSession

    server = SparkConnectServer("127.0.0.1", 0)
    server.start(background=True)
    host, port = server.listening_address
    spark = SparkSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    table = f"{kind}.`{task.table}`"
    answer = None
    with task.timed():
        if task.op == "load":
            for chunk in [[part] for part in task.parts] if task.sixteen else [task.parts]:
                writer = spark.read.parquet(*chunk).write.format(kind).mode("append")
                writer.options(**options).save(task.table)
        elif task.op == "merge":
            spark.read.parquet(task.feed).createOrReplaceTempView("feed")
            answer = str(spark.sql(_sql_merge(table, "feed", task.mixed)).collect())
        else:
            answer = plain(spark.sql(Q1.format(table=table)).collect())
    _say(task, answer)
    os._exit(0)  # its server has no other quick end


def sail_delta(task: Task):
    """With deletion vectors, which make it several times faster."""
    _sail(task, "delta", {"delta.enableDeletionVectors": "true"})


def sail_iceberg(task: Task):
    _sail(task, "iceberg", {})


def files(task: Task):
    """DuckDB on the Parquet files that some table consists of: the same reader for what different writers wrote."""
    db = oracle.connect()
    with task.timed():
        return plain(db.execute(Q1.format(table=f"read_parquet({task.parts})")).fetchall())


# ---- floors: what a merge cannot do without, on the files that `lake` made


def _scan(db, task: Task, more: str = "") -> str:
    """The data files: not those of deletes or of the log, which are Parquet too."""
    candidates = [str(path) for path in Path(task.table).rglob("*.parquet")]
    schemas = f"SELECT DISTINCT file_name FROM parquet_schema({candidates}) WHERE name = 'l_orderkey'"
    return f"read_parquet({[row[0] for row in db.execute(schemas).fetchall()]}{more})"


def floor_keys(task: Task):
    """DuckDB reads the key columns."""
    db = oracle.connect()
    rows = _scan(db, task)
    with task.timed():
        db.execute(f"SELECT {', '.join(f'sum({key})' for key in KEYS)} FROM {rows}").fetchall()


def floor_positions(task: Task):
    """DuckDB finds the positions of the rows that the feed touches."""
    db = oracle.connect()
    rows = _scan(db, task, ", file_row_number = true")
    with task.timed():
        db.execute(
            f"SELECT count(*), max(file_row_number) FROM {rows} SEMI JOIN '{task.feed}' USING ({', '.join(KEYS)})"
        ).fetchall()


def floor_columns(task: Task):
    """DuckDB reads the key columns and all that the merge sets, which is every column."""
    from benches.data import TYPES

    forms = {"VARCHAR": "sum(strlen({}))", "DATE": "sum({} - DATE '1970-01-01')"}
    sums = ", ".join(forms.get(kind, "sum({})").format(column) for column, kind in TYPES.items())
    db = oracle.connect()
    rows = _scan(db, task)
    with task.timed():
        db.execute(f"SELECT {sums} FROM {rows}").fetchall()


def floor_copy(task: Task):
    """The files of the table are copied, into the page cache."""
    target = f"{task.table}.copy"
    with task.timed():
        shutil.copytree(task.table, target)
    shutil.rmtree(target)


OURS = (lakehouse_iceberg, lakehouse_delta)
PEERS = (deltalake, pyiceberg, duckdb, ducklake, sail_delta, sail_iceberg)
FLOORS = (floor_keys, floor_positions, floor_columns, floor_copy)


def _say(task: Task, answer) -> None:
    print(json.dumps({"seconds": task.seconds, "answer": answer}, default=str), flush=True)


def main(engine: str, task: str) -> None:
    run = {function.__name__: function for function in (*OURS, *PEERS, *FLOORS, files)}[engine]
    request = Task(**json.loads(task))
    _say(request, run(request))


if __name__ == "__main__":
    main(*sys.argv[1:])
