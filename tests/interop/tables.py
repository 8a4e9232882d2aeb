"""Tables that `lake` writes, and the rows that a plain model in Python says they hold."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

Row = dict[str, object]

COLUMNS = (
    "id bigint not null, grp int, amount double, ratio real, price decimal(12, 2), wide decimal(30, 6), name string, "
    "born date, wall timestamp, ts timestamptz, flag boolean, raw binary"
)
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("grp", pa.int32()),
        ("amount", pa.float64()),
        ("ratio", pa.float32()),
        ("price", pa.decimal128(12, 2)),
        ("wide", pa.decimal128(30, 6)),
        ("name", pa.string()),
        ("born", pa.date32()),
        ("wall", pa.timestamp("us")),
        ("ts", pa.timestamp("us", "UTC")),
        ("flag", pa.bool_()),
        ("raw", pa.binary()),
    ]
)
# Across a leap day, and around 1970, where truncation must round down.
EPOCHS = [datetime(2024, 2, 28, 18), datetime(1969, 12, 31, 6)]
NAMES = ["", "plain", "naïve ☃", "日本語のテキスト", "😀 four bytes", None, 'it\'s "quoted", \\ and / = %', "  spaces "]


def row(i: int, **change: object) -> Row:
    """Row `i` of an endless table, with nulls in every column but the key."""
    moment = EPOCHS[i % 5 == 4] + timedelta(hours=i % 60, microseconds=i * 1001)
    return {
        "id": i,
        "grp": None if i % 19 == 7 else i % 4,
        "amount": None if i % 13 == 4 else i / 8 - 3,
        "ratio": None if i % 17 == 5 else i / 4,
        "price": None if i % 11 == 3 else Decimal(i * 25 - 700) / 100,
        "wide": None if i % 23 == 9 else Decimal(f"{i - 40}123456789012345678.{i:06}"),
        "name": None if (name := NAMES[i % 8]) is None else name + (str(i) if i % 3 == 0 else ""),
        "born": None if i % 7 == 2 else date(1969, 12, 20) + timedelta(days=i),
        "wall": None if i % 29 == 11 else moment,
        "ts": None if i % 31 == 12 else moment.replace(tzinfo=UTC),
        "flag": None if i % 5 == 1 else i % 2 == 0,
        "raw": None if i % 9 == 8 else bytes([0, 255, i % 256]) * (i % 3),
    } | change


def table(rows: list[Row]) -> pa.Table:
    """These rows, with the columns of the table."""
    return pa.Table.from_pylist(rows, schema=SCHEMA)


class Lake:
    """The `lake` binary."""

    def __init__(self, binary: Path) -> None:
        self.binary = binary

    def run(self, *arguments: object, input: bytes | None = None) -> subprocess.CompletedProcess:
        """Runs it, whatever comes of it."""
        command = [str(argument) for argument in (self.binary, *arguments)]
        return subprocess.run(command, input=input, capture_output=True, timeout=120)

    def __call__(self, *arguments: object, input: bytes | None = None) -> bytes:
        """What it prints; it must succeed."""
        done = self.run(*arguments, input=input)
        assert done.returncode == 0, f"{' '.join(done.args)}\n{done.stderr.decode()}"
        return done.stdout

    def write(self, *arguments: object, input: bytes | None = None) -> dict:
        """The report of a verb that writes; it must have made a version."""
        report = json.loads(self(*arguments, "--json", input=input))
        assert report["committed"], report
        return report

    def refused(self, *arguments: object) -> str:
        """Its complaint; it must fail with exit code 1."""
        done = self.run(*arguments)
        assert done.returncode == 1, f"{' '.join(done.args)}: {done.returncode}\n{done.stderr.decode()}"
        return done.stderr.decode()

    def read(
        self,
        path: Path,
        scratch: Path,
        version: int | None = None,
        where: str | None = None,
        options: tuple[str, ...] = (),
    ) -> pa.Table:
        """A table, through a Parquet file."""
        at = "" if version is None else f"@{version}"
        condition = "" if where is None else f" WHERE {where}"
        out = scratch / "out.parquet"
        self("query", f"SELECT * FROM t{condition}", "-t", f"t={path}{at}", "--output", "parquet", "-o", out, *options)
        return pq.read_table(out)


@dataclass(frozen=True)
class Kind:
    """What a table is made as."""

    format: str  # as in READERS
    version: int | None = None
    partition_by: str = ""
    # Partition columns that Delta has and `lake` hides.
    hidden: tuple[str, ...] = ()
    properties: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.format}{self.version or ''} {self.partition_by or 'unpartitioned'}"

    def create(self, lake: Lake, path: Path, columns: str = COLUMNS) -> None:
        options = ["--format", self.format]
        if self.version:
            options += ["--format-version", self.version]
        if self.partition_by:
            options += ["--partition-by", self.partition_by]
        for pair in self.properties:
            options += ["--property", pair]
        lake("create", path, "--schema", columns, *options)


@dataclass
class Step:
    """A version that a table had."""

    name: str
    version: int
    rows: dict[int, Row]

    @property
    def expected(self) -> pa.Table:
        return table(list(self.rows.values()))


@dataclass
class Life:
    """A table, and every version it has been through."""

    lake: Lake
    kind: Kind
    path: Path
    scratch: Path
    steps: dict[str, Step] = field(default_factory=dict)
    rows: dict[int, Row] = field(default_factory=dict)
    row_groups_copied: int = 0
    # Files that were written with rows that are masked in them.
    masked_anew: list[str] = field(default_factory=list)

    def masks(self) -> dict[str, int]:
        """How many rows are masked in each file."""
        files = json.loads(self.lake("files", self.path, "--json"))["files"]
        return {file["path"]: file["masked_rows"] for file in files}

    def step(self, name: str, *arguments: object, change: Callable[[dict[int, Row]], None], **options: object) -> None:
        """Does to the table what `arguments` say, and to the model what `change` does."""
        verb, *rest = arguments
        report = self.lake.write(verb, self.path, *rest, **options)
        self.row_groups_copied += report["metrics"].get("num_target_row_groups_copied", 0)
        self.rows = {i: dict(row) for i, row in self.rows.items()}
        change(self.rows)
        self.steps[name] = Step(name, report["version"], self.rows)

    def file(self, rows: list[Row], schema: pa.Schema = SCHEMA) -> Path:
        """A Parquet file for `lake` to read."""
        file = self.scratch / f"{len(list(self.scratch.iterdir()))}.parquet"
        pq.write_table(pa.Table.from_pylist(rows, schema=schema), file)
        return file


def arrow_stream(rows: list[Row]) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, SCHEMA) as writer:
        writer.write_table(table(rows))
    return sink.getvalue().to_pybytes()


def born(lake: Lake, kind: Kind, folder: Path) -> Life:
    """A new, empty table."""
    scratch = folder / "files"
    scratch.mkdir(parents=True)
    life = Life(lake, kind, folder / "t", scratch)
    kind.create(lake, life.path)
    return life


def append(life: Life, rows: list[Row]) -> None:
    life.step("append", "append", life.file(rows), change=lambda model: model.update({row["id"]: row for row in rows}))


# These tables are small: left to itself, `lake` would rewrite their files.
MASK = ("--strategy", "merge-on-read")

FEED = SCHEMA.append(pa.field("op", pa.string()))


def merge_feed(life: Life, step: int = 3, strategy: tuple[str, ...] = MASK) -> None:
    """Updates every column of some rows, so that they move to other partitions; deletes some; inserts some."""
    updated = [row(i + 1, id=i) for i in range(1, 50, step)]
    deleted = [row(i) for i in (2, 11, 20, 29, 38)] + [row(999)]  # the last is not there, and stays away
    inserted = [row(i) for i in range(200, 206)]
    feed = [r | {"op": "d" if r in deleted else "u"} for r in [*inserted, *updated, *deleted]]

    def change(model: dict[int, Row]) -> None:
        model.update({r["id"]: r for r in [*updated, *inserted]})
        for r in deleted:
            model.pop(r["id"], None)

    arguments = [*strategy, "--on", "id", "--delete-when", "source.op = 'd'"]
    arguments += ["--when-matched", "update", "--when-not-matched", "insert"]
    life.step("merge", "merge", life.file(feed, FEED), *arguments, change=change)


def merge_again(life: Life) -> None:
    """On an expression, with SET and conditions, over rows of files that have masks already."""
    source = pa.schema([("key", pa.int64()), ("amount", pa.float64()), ("name", pa.string())])
    feed = [{"key": i, "amount": i / 2 - 5, "name": None if i % 4 == 0 else f"größer {i}"} for i in range(3, 300, 6)]

    def change(model: dict[int, Row]) -> None:
        keys = {f["key"] for f in feed if f["key"] < 90}
        for f in feed:
            target = model.get(f["key"])
            if f["key"] < 90 and target and f["amount"] > 0:
                target["amount"] = None if target["amount"] is None else target["amount"] + f["amount"]
                target["name"] = None if f["name"] is None else f["name"] + "+"
        for target in model.values():
            if target["id"] not in keys and target["grp"] == 3:
                target["flag"], target["price"] = False, None

    arguments = [*MASK, "--on", "target.id = source.key and source.key < 90", "--when-not-matched", "ignore"]
    arguments += ["--when-matched", "update", "--update-when", "source.amount > 0"]
    arguments += ["--set", "amount = target.amount + source.amount, name = source.name || '+'"]
    arguments += ["--when-not-matched-by-source", "update", "--by-source-when", "target.grp = 3"]
    arguments += ["--by-source-set", "flag = false, price = null"]
    life.step("merge again", "merge", life.file(feed, source), *arguments, change=change)


def whole_life(lake: Lake, kind: Kind, folder: Path) -> Life:
    """Every verb once, in an order in which each meets what the one before it left."""
    life = born(lake, kind, folder)
    append(life, [row(i) for i in range(60)])
    more = [row(i) for i in range(60, 80)]
    life.step(
        "append from stdin",
        *("append", "-", "--input-format", "arrow"),
        change=lambda model: model.update({r["id"]: r for r in more}),
        input=arrow_stream(more),
    )
    merge_feed(life)
    merge_again(life)

    def update(model: dict[int, Row]) -> None:
        for r in model.values():
            if r["grp"] == 1 and r["id"] < 60:
                r["price"] = None if r["price"] is None else r["price"] * 2
                r["name"] = None if r["name"] is None else "u " + r["name"]
                r["born"] = date(2000, 2, 29)

    life.step(
        "update",
        *("update", "--set", "price = price + price, name = 'u ' || name, born = date '2000-02-29'"),
        *("--where", "grp = 1 and id < 60", *MASK),
        change=update,
    )

    def delete(model: dict[int, Row]) -> None:
        for r in list(model.values()):
            if r["id"] % 10 == 3 or r["name"] == "":
                del model[r["id"]]

    life.step("delete", "delete", "--where", "id % 10 = 3 or name = ''", change=delete)
    life.step("compact", "compact", change=lambda model: None)
    merged = life.steps["merge"]
    life.step(
        "restore",
        *("restore", "--version", merged.version),
        change=lambda model: (model.clear(), model.update({i: dict(r) for i, r in merged.rows.items()})),
    )
    replacing = [row(i + 100, id=i) for i in (45, 21, 33, 20, 49)]

    def overwrite(model: dict[int, Row]) -> None:
        for i in range(20, 50):
            model.pop(i, None)
        model.update({r["id"]: r for r in replacing})

    life.step("overwrite", "overwrite", life.file(replacing), "--where", "id >= 20 and id < 50", change=overwrite)
    return life


def copied_life(lake: Lake, kind: Kind, folder: Path) -> Life:
    """Files of many row groups, rewritten by deletes and a merge that touch some of them."""
    life = born(lake, kind, folder)
    append(life, [row(i) for i in range(120)])

    def delete_range(model: dict[int, Row]) -> None:
        for i in range(43):
            model.pop(i, None)

    # Where this ends, a row group is copied with rows that are masked in the new file.
    before = life.masks()
    life.step("delete range", "delete", "--where", "id < 43", change=delete_range)
    life.masked_anew = [path for path, masked in life.masks().items() if masked and path not in before]
    merge_feed(life, strategy=("--strategy", "copy-on-write"))

    def delete(model: dict[int, Row]) -> None:
        for i in (70, 71, 99):
            model.pop(i, None)

    arguments = ("--where", "id in (70, 71, 99)", "--strategy", "copy-on-write")
    life.step("delete", "delete", *arguments, change=delete)
    return life


def short_life(lake: Lake, kind: Kind, folder: Path) -> Life:
    """An append, a merge that leaves masks, and a second append."""
    life = born(lake, kind, folder)
    append(life, [row(i) for i in range(30)])
    merge_feed(life, step=6)
    append(life, [row(i) for i in range(300, 310)])
    return life


# ---- what tables there are

KEY = ["id"]
DAY_BUCKET = "day(ts), bucket(4, id)"
WHOLE = [
    Kind("iceberg", 2),
    Kind("iceberg", 2, DAY_BUCKET),
    Kind("iceberg", 3),
    Kind("iceberg", 3, DAY_BUCKET),
    Kind("delta"),
    Kind("delta", None, DAY_BUCKET, ("ts_day", "id_bucket")),
]
SHORT = [
    Kind("iceberg", 2, "truncate(3, name), month(ts)"),
    Kind("iceberg", 3, "hour(wall), grp"),
    Kind("iceberg", 2, "year(born), truncate(500, price), truncate(20, id)"),
    Kind("iceberg", 3, "bucket(3, name), bucket(3, ts), bucket(2, born), bucket(2, price), bucket(2, raw)"),
    Kind("iceberg", 2, "identity(born), identity(flag), identity(name)"),
    Kind("delta", None, "grp, flag"),
    Kind("delta", None, "born, price"),
    Kind("delta", None, "price, day(born), bucket(3, name)", ("born_day", "name_bucket")),
    Kind("delta", None, "ts, wall"),
    Kind("delta", None, "truncate(3, name), month(ts)", ("name_trunc", "ts_month")),
    Kind("delta", None, "hour(wall), grp", ("wall_hour",)),
    Kind("delta", None, "year(born), truncate(20, id)", ("born_year", "id_trunc")),
]
WIDENING = ("delta.enableTypeWidening=true",)
# 24 row groups in the first file.
SMALL_GROUPS = ("write.parquet.row-group-limit=5",)
COPIED = [
    Kind("iceberg", 2, properties=SMALL_GROUPS),
    Kind("iceberg", 3, properties=SMALL_GROUPS),
    Kind("iceberg", 3, "bucket(2, id)", properties=SMALL_GROUPS),
    Kind("delta", properties=SMALL_GROUPS),
]
# Delta tables whose changes can be followed: with masks, partitioned, under other names in files, without masks.
FEED_ON = ("delta.enableChangeDataFeed=true",)
NO_MASKS = (*FEED_ON, *SMALL_GROUPS, "delta.enableDeletionVectors=false")
FOLLOWED = [
    Kind("delta", properties=FEED_ON),
    Kind("delta", None, DAY_BUCKET, ("ts_day", "id_bucket"), FEED_ON),
    Kind("delta", properties=(*FEED_ON, "delta.columnMapping.mode=name", "delta.enableRowTracking=true")),
]
REWRITTEN = [
    Kind("delta", properties=NO_MASKS),
    Kind("delta", None, "grp", properties=NO_MASKS),
]
STEPS = [
    "append",
    "append from stdin",
    "merge",
    "merge again",
    "update",
    "delete",
    "compact",
    "restore",
    "overwrite",
]
# Conditions on partition columns and others: whoever prunes by wrong values loses rows.
FILTERS: list[tuple[str, Callable[[Row], bool]]] = [
    ("id = 45", lambda r: r["id"] == 45),
    (
        "ts >= '2024-02-29T00:00:00+00:00' and ts < '2024-03-01T06:00:00+00:00'",
        lambda r: r["ts"] and datetime(2024, 2, 29, tzinfo=UTC) <= r["ts"] < datetime(2024, 3, 1, 6, tzinfo=UTC),
    ),
    ("wall < '1970-01-01T00:00:00'", lambda r: r["wall"] and r["wall"] < datetime(1970, 1, 1)),
    ("name = '日本語のテキスト'", lambda r: r["name"] == "日本語のテキスト"),
    (
        "grp = 2 and born >= '1969-12-31' and born < '1970-01-20'",
        lambda r: r["grp"] == 2 and r["born"] and date(1969, 12, 31) <= r["born"] < date(1970, 1, 20),
    ),
]


def spark_hash(value: int) -> int:
    """Spark's `hash(bigint)`: murmur3 with 32 bits over the two halves, seed 42."""
    mask, h = 0xFFFFFFFF, 42

    def rotate(x: int, by: int) -> int:
        return (x << by | x >> (32 - by)) & mask

    for half in (value & mask, value >> 32 & mask):
        h ^= rotate(half * 0xCC9E2D51 & mask, 15) * 0x1B873593 & mask
        h = (rotate(h, 13) * 5 + 0xE6546B64) & mask
    h ^= 8
    h = (h ^ h >> 16) * 0x85EBCA6B & mask
    h = (h ^ h >> 13) * 0xC2B2AE35 & mask
    h ^= h >> 16
    return h - 2**32 if h >= 2**31 else h


# ---- every type, at its edges

TYPES = (
    "id int not null, tiny tinyint, small smallint, big bigint, f real, d double, p decimal(38, 10), s string, "
    "b binary, day date, wall timestamp, ts timestamptz, tags text[], point struct<x double, label text>"
)
TYPES_SCHEMA = pa.schema(
    [
        ("id", pa.int32()),
        ("big", pa.int64()),
        ("f", pa.float32()),
        ("d", pa.float64()),
        ("p", pa.decimal128(38, 10)),
        ("s", pa.string()),
        ("b", pa.binary()),
        ("day", pa.date32()),
        ("wall", pa.timestamp("us")),
        ("ts", pa.timestamp("us", "UTC")),
        ("tags", pa.list_(pa.string())),
        ("point", pa.struct([("x", pa.float64()), ("label", pa.string())])),
    ]
)


def edges(kind: Kind) -> pa.Table:
    """The ends of each type, within what ClickHouse can show (1900 to 2299)."""
    low = {
        "big": -(2**63),
        "f": float("-inf"),
        "d": -1.7976931348623157e308,
        "p": Decimal("-9999999999999999999999999999.9999999999"),
        "s": "",
        "b": b"",
        "day": date(1900, 1, 1),
        "wall": datetime(1900, 1, 1),
        "ts": datetime(1900, 1, 1, tzinfo=UTC),
        "tags": [],
        "point": {"x": -0.0, "label": ""},
    }
    high = {
        "big": 2**63 - 1,
        "f": float("inf"),
        "d": 5e-324,
        "p": Decimal("9999999999999999999999999999.9999999999"),
        "s": "\U0010ffff" * 20,
        "b": b"\xff" * 40,
        "day": date(2299, 12, 31),
        "wall": datetime(2262, 1, 1, 23, 59, 59, 999999),
        "ts": datetime(2262, 1, 1, 23, 59, 59, 999999, tzinfo=UTC),
        "tags": ["", "ä", None],
        "point": {"x": float("nan"), "label": None},
    }
    plain = {"f": float("nan"), "d": float("nan"), "s": "\x00\t\n", "tags": ["a"], "point": {"x": 1.0, "label": "b"}}
    rows = [low, high, plain, dict.fromkeys(low) | {"tags": ["null"], "point": {"x": None, "label": None}}]
    return pa.Table.from_pylist([r | {"id": i} for i, r in enumerate(rows)], schema=TYPES_SCHEMA)
