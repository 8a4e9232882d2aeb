"""TPC-H lineitem in sixteen files, the feeds that are merged into it, and what each merge must give.

`python -m benches.data SF` makes them once, in target/bench-data/sfSF; the same SF gives the same bytes.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = ROOT / "target" / "bench-data"
# The Python package with the optimised module, as `make bench` puts it there.
MODULE = ROOT / "target" / "release" / "python"
PARTS = 16
# Data of an older recipe is thrown away.
RECIPE = 2

KEYS = ["l_orderkey", "l_linenumber"]
TYPES = {
    "l_orderkey": "BIGINT",
    "l_partkey": "BIGINT",
    "l_suppkey": "BIGINT",
    "l_linenumber": "INTEGER",
    "l_quantity": "DECIMAL(15,2)",
    "l_extendedprice": "DECIMAL(15,2)",
    "l_discount": "DECIMAL(15,2)",
    "l_tax": "DECIMAL(15,2)",
    "l_returnflag": "VARCHAR",
    "l_linestatus": "VARCHAR",
    "l_shipdate": "DATE",
    "l_commitdate": "DATE",
    "l_receiptdate": "DATE",
    "l_shipinstruct": "VARCHAR",
    "l_shipmode": "VARCHAR",
    "l_comment": "VARCHAR",
}
COLUMNS = list(TYPES)
# A column of the mixed feed only: U, I or D.
OP = "l_op"

Q1 = """SELECT l_returnflag, l_linestatus, sum(l_quantity) AS sum_qty, sum(l_extendedprice) AS sum_base_price,
  sum(l_extendedprice * (1 - l_discount)) AS sum_disc_price,
  sum(l_extendedprice * (1 - l_discount) * (1 + l_tax)) AS sum_charge, avg(l_quantity) AS avg_qty,
  avg(l_extendedprice) AS avg_price, avg(l_discount) AS avg_disc, count(*) AS count_order
FROM {table} WHERE l_shipdate <= DATE '1998-09-02'
GROUP BY l_returnflag, l_linestatus ORDER BY l_returnflag, l_linestatus"""

# The hash covers every column of every row; the sums are there to be understood when it differs.
FIGURES = f"""count(*) AS "rows", sum(l_quantity) AS quantity, sum(l_extendedprice) AS price,
  count(*) FILTER (starts_with(l_comment, 'updated ')) AS updated, sum(l_orderkey) AS keys,
  sum(hash({", ".join(f"{column}::{kind}" for column, kind in TYPES.items())})::HUGEINT) AS "hash" """

UPDATED = "l_quantity + 1 AS l_quantity, 'updated ' || left(l_comment, 30) AS l_comment"
# dbgen uses eight of every 32 order keys, and its own refresh inserts into the gaps. So do we.
INSERTED = "l_orderkey + 8 AS l_orderkey"


class Data:
    """The files of one scale factor."""

    def __init__(self, sf: float):
        self.sf = sf
        self.folder = CACHE / f"sf{sf:g}"

    @property
    def parts(self) -> list[Path]:
        """The table, ordered by key over all files."""
        return [self.folder / f"lineitem-{number:02}.parquet" for number in range(1, PARTS + 1)]

    def feed(self, name: str) -> Path:
        """One of `FEEDS`."""
        return self.folder / f"feed-{name}.parquet"

    def about(self) -> dict:
        """What was made: rows, the key range of each feed, and the figures expected after each merge."""
        return json.loads((self.folder / "about.json").read_text())

    def made(self) -> bool:
        """Whether all is there, by the present recipe."""
        return (self.folder / "about.json").exists() and self.about()["recipe"] == RECIPE


def _sampled(share: float, seed: int) -> str:
    """About this share of the rows, the same ones each time, spread over all keys."""
    return f"hash(l_orderkey, l_linenumber, {seed}) % 10000 < {round(share * 10000)}"


def _updates(where: str, more: str = "") -> str:
    return f"SELECT * REPLACE ({UPDATED}){more} FROM lineitem WHERE {where}"


def _inserts(seed: int, more: str = "") -> str:
    return f"SELECT * REPLACE ({INSERTED}){more} FROM lineitem WHERE {_sampled(0.001, seed)}"


def _op(letter: str) -> str:
    return f", '{letter}' AS {OP}"


# Every feed is shuffled (by hash), as what comes out of a queue is. `{low}` and `{high}` bound one percent of the
# key space, well inside one of the sixteen files; `{from}` and `{upto}` thirty, with both ends in the middle of files.
FEEDS = {
    "random": f"{_updates(_sampled(0.01, 1))} UNION ALL {_inserts(2)}",
    "narrow": _updates("l_orderkey BETWEEN {low} AND {high}"),
    "wide": _updates("l_orderkey BETWEEN {from} AND {upto}"),
    "scattered": _updates(_sampled(0.30, 3)),
    "mixed": " UNION ALL ".join(
        [
            _updates(f"{_sampled(0.007, 4)}", _op("U")),
            f"SELECT *{_op('D')} FROM lineitem WHERE {_sampled(0.002, 5)} AND NOT {_sampled(0.007, 4)}",
            _inserts(6, _op("I")),
        ]
    ),
    "large": _updates(_sampled(0.10, 7)),
}


def make(data: Data) -> None:
    """Makes the files unless they are there."""
    import duckdb

    if data.made():
        return
    final, data.folder = data.folder, data.folder.with_name(data.folder.name + ".partial")
    for folder in (final, data.folder):
        shutil.rmtree(folder, ignore_errors=True)
    data.folder.mkdir(parents=True)
    generator = Path(sys.executable).with_name("tpchgen-cli")
    scale = ["-s", f"{data.sf:g}", "--tables=lineitem", f"--parts={PARTS}"]
    # With the source's field ids in its schema, deltalake writes tables that DuckDB reads as nulls.
    plain_files = ["--field-ids", "false", "--output-dir", data.folder, "--quiet"]
    subprocess.run([generator, "parquet", *scale, *plain_files], check=True)
    for number, part in enumerate(data.parts, 1):
        (data.folder / "lineitem" / f"lineitem.{number}.parquet").rename(part)
    (data.folder / "lineitem").rmdir()

    db = duckdb.connect(config={"memory_limit": "4GB", "temp_directory": str(data.folder / "temp")})
    db.execute(f"CREATE VIEW lineitem AS SELECT * FROM read_parquet({[str(part) for part in data.parts]})")
    top = db.execute("SELECT max(l_orderkey) FROM lineitem").fetchone()[0]
    bounds = {"low": int(top * 0.70), "high": int(top * 0.71), "from": int(top * 0.35), "upto": int(top * 0.65)}
    about = {"recipe": RECIPE, "sf": data.sf, "duckdb": duckdb.__version__, "narrow": bounds, "feeds": {}}
    about["after"] = {"base": _figures(db, "lineitem")}
    about["q1"] = {"base": _q1(db, "lineitem")}
    for name, query in FEEDS.items():
        columns = ", ".join([f"{column}::{kind} AS {column}" for column, kind in TYPES.items()])
        if name == "mixed":
            columns += f", {OP}"
        shuffled = f"SELECT {columns} FROM ({query.format(**bounds)}) ORDER BY hash(l_linenumber, l_orderkey)"
        feed = str(data.feed(name))
        db.execute(f"COPY ({shuffled}) TO '{feed}' (FORMAT parquet, COMPRESSION zstd)")
        # The oracle: drop what the feed names, add what it carries.
        kept = f"FROM '{feed}'" + (f" WHERE {OP} <> 'D'" if name == "mixed" else "")
        merged = (
            f"(SELECT * FROM lineitem ANTI JOIN '{feed}' USING ({', '.join(KEYS)}) "
            f"UNION ALL SELECT {', '.join(COLUMNS)} {kept})"
        )
        about["feeds"][name] = db.execute(f"SELECT count(*) FROM '{feed}'").fetchone()[0]
        about["after"][name] = _figures(db, merged)
        if name == "random":
            about["q1"][name] = _q1(db, merged)
    db.close()
    shutil.rmtree(data.folder / "temp", ignore_errors=True)
    (data.folder / "about.json").write_text(json.dumps(about, indent=1))
    data.folder.rename(final)
    data.folder = final


def _figures(db, relation: str) -> dict[str, str]:
    answer = db.execute(f"SELECT {FIGURES} FROM {relation}")
    names = [column[0] for column in answer.description]
    return dict(zip(names, map(str, answer.fetchone()), strict=True))


def _q1(db, relation: str) -> list:
    return plain(db.execute(Q1.format(table=relation)).fetchall())


def plain(rows) -> list:
    """The answer to Q1 as engines with different decimals agree on it: groups, two sums and the count."""
    return [[str(row[0]), str(row[1]), f"{float(row[2]):.2f}", f"{float(row[3]):.2f}", int(row[9])] for row in rows]


if __name__ == "__main__":
    make(Data(float(sys.argv[1])))
