"""Tables of very many data files that are not there: metadata only, for what opening a table and planning a scan cost.

`python -m benches.metadata FORMAT KIND FILES COLUMNS FOLDER` makes one; the same arguments give the same metadata.

| kind | what |
| --- | --- |
| delta json | a checkpoint in one file, statistics as JSON only, as deltalake and `lake` write them |
| delta parts | a checkpoint in ten parts, statistics as JSON and as columns, as Spark writes them |
| delta v2 | the same in ten sidecars |
| iceberg v2 | manifests of 2,000 entries, deflate, as Spark writes them |

Files lie in partitions (`day`) of a thousand. `key` has ranges of its own in each file, which have nothing to do with
the order of the files; the other columns have statistics that nobody asks for. The log of Delta goes on for three
commits after its checkpoint, each of which replaces a hundred files.
"""

import hashlib
import json
import shutil
import sys
import uuid
import zlib
from datetime import date, timedelta
from pathlib import Path

PER_DAY = 1000
PER_MANIFEST = 2000
PER_BLOCK = 100
KEYS = 1000
FIRST_DAY = date(2022, 1, 1)
TAIL = (3, 100)
KINDS = [("delta", "json"), ("delta", "parts"), ("delta", "v2"), ("iceberg", "v2")]
# The types of the columns after `day` and `key`, in turn.
TYPES = ("long", "double", "string", "timestamp", "integer")
ROWS = 1000
MILLISECOND = 1_700_000_000_000


def scattered(number, files: int):
    """Where a file stands in the order of keys: a permutation of the files."""
    return number * 618_033_989 % files


def columns(count: int) -> list[tuple[str, str]]:
    """The columns that have statistics."""
    return [("key", "long")] + [(f"c{at:03}", TYPES[at % len(TYPES)]) for at in range(1, count)]


def questions(files: int) -> dict[str, tuple[str, str, object]]:
    """What is asked: column, operator, value, by what kind of column it is."""
    middle = files // 2
    return {
        "partition": ("day", "=", FIRST_DAY + timedelta(days=middle // PER_DAY)),
        "column": ("key", "=", scattered(middle + 7, files) * KEYS + 5),
    }


def answers(files: int, format: str) -> dict[str, int]:
    """How many files are left."""
    return {"partition": PER_DAY, "column": 1}


def path_of(number: int) -> str:
    """The data file's path below the table."""
    day = FIRST_DAY + timedelta(days=number // PER_DAY)
    unique = uuid.UUID(hashlib.md5(str(number).encode()).hexdigest())
    return f"day={day}/part-{number % 100_000:05}-{unique}-c000.snappy.parquet"


def bounds(at: int, kind: str, number, files: int):
    """Lower and upper bound of a column in these files (arrays), as numbers."""
    if at == 0:
        low = scattered(number, files) * KEYS
        return low, low + KEYS - 1
    low = number * (7919 * (at + 1)) % 1_000_003
    return low, low + 500


# ---- Delta


def delta(kind: str, files: int, count: int, folder: Path) -> None:
    """Writes a checkpoint of version 10 and three log entries."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    log = folder / "_delta_log"
    log.mkdir(parents=True)
    struct = kind != "json"
    chunk = 100_000 if kind == "json" else max(1, files // 10)
    spark = {"long": "long", "double": "double", "string": "string", "timestamp": "timestamp", "integer": "integer"}
    fields = [{"name": "day", "type": "date", "nullable": True, "metadata": {}}]
    fields += [{"name": name, "type": spark[type_], "nullable": True, "metadata": {}} for name, type_ in columns(count)]
    texts = pa.map_(pa.string(), pa.string())
    meta = {
        "id": str(uuid.UUID(int=10)),
        "format": {"provider": "parquet", "options": []},
        "schemaString": json.dumps({"type": "struct", "fields": fields}),
        "partitionColumns": ["day"],
        "configuration": [],
        "createdTime": MILLISECOND,
    }
    v2 = kind == "v2"
    protocol = {"minReaderVersion": 3, "minWriterVersion": 7} if v2 else {"minReaderVersion": 1, "minWriterVersion": 2}
    if v2:
        protocol |= {"readerFeatures": ["v2Checkpoint"], "writerFeatures": ["v2Checkpoint"]}
    names = pa.list_(pa.string())
    schemas = {
        "protocol": pa.struct(
            [
                ("minReaderVersion", pa.int32()),
                ("minWriterVersion", pa.int32()),
                ("readerFeatures", names),
                ("writerFeatures", names),
            ]
        ),
        "metaData": pa.struct(
            [
                ("id", pa.string()),
                ("format", pa.struct([("provider", pa.string()), ("options", texts)])),
                ("schemaString", pa.string()),
                ("partitionColumns", names),
                ("configuration", texts),
                ("createdTime", pa.int64()),
            ]
        ),
        "add": _add_type(pa, texts, columns(count), struct),
        "remove": pa.struct(
            [
                ("path", pa.string()),
                ("deletionTimestamp", pa.int64()),
                ("dataChange", pa.bool_()),
                ("deletionVector", _vector_type(pa)),
            ]
        ),
        "sidecar": pa.struct([("path", pa.string()), ("sizeInBytes", pa.int64()), ("modificationTime", pa.int64())]),
        "checkpointMetadata": pa.struct([("version", pa.int64())]),
    }

    def table(parts: dict):
        """Rows of the kinds given, one kind after the other, and NULL in the columns of the others."""
        length = sum(len(part) for part in parts.values())
        kinds = [k for k in schemas if v2 or k not in ("sidecar", "checkpointMetadata")]
        arrays, at = [], 0
        starts = {}
        for name, part in parts.items():
            starts[name] = at
            at += len(part)
        for name in kinds:
            part = parts.get(name)
            if part is None:
                arrays.append(pa.nulls(length, schemas[name]))
                continue
            before, after = starts[name], length - starts[name] - len(part)
            pieces = [pa.nulls(before, schemas[name]), part, pa.nulls(after, schemas[name])]
            arrays.append(pa.chunked_array([piece for piece in pieces if len(piece)], schemas[name]))
        return pa.table(arrays, names=kinds)

    head = {
        "protocol": pa.array([protocol], schemas["protocol"]),
        "metaData": pa.array([meta], schemas["metaData"]),
    }

    def chunks():
        for start in range(0, files, chunk):
            yield _adds(pa, start, min(files, start + chunk), files, count, struct, schemas["add"])

    options = {"compression": "snappy", "write_page_index": True, "data_page_size": 1 << 20, "use_dictionary": True}
    stem = f"{10:020}.checkpoint"
    last = {"version": 10, "size": files + 2, "numOfAddFiles": files}
    if kind == "json":
        with pq.ParquetWriter(log / f"{stem}.parquet", table(head).schema, **options) as writer:
            for number, part in enumerate(chunks()):
                rows = table((head if number == 0 else {}) | {"add": part})
                # Row groups of about 128 MB, as Parquet's writers make them.
                writer.write_table(rows, row_group_size=max(1000, 2_000_000 // count))
    elif kind == "parts":
        total = -(-files // chunk)
        last["parts"] = total
        for number, part in enumerate(chunks(), 1):
            name = f"{stem}.{number:010}.{total:010}.parquet"
            pq.write_table(table((head if number == 1 else {}) | {"add": part}), log / name, **options)
    else:
        sidecars = log / "_sidecars"
        sidecars.mkdir()
        named = []
        for number, part in enumerate(chunks(), 1):
            name = f"{stem}.{number:010}.{uuid.UUID(int=number)}.parquet"
            pq.write_table(pa.table([part], names=["add"]), sidecars / name, **options)
            size = (sidecars / name).stat().st_size
            named.append({"path": name, "sizeInBytes": size, "modificationTime": MILLISECOND})
        head |= {
            "sidecar": pa.array(named, schemas["sidecar"]),
            "checkpointMetadata": pa.array([{"version": 10}], schemas["checkpointMetadata"]),
        }
        pq.write_table(table(head), log / f"{stem}.{uuid.UUID(int=99)}.parquet", **options)
    (log / "_last_checkpoint").write_text(json.dumps(last))
    _tail(log, files, count)


def _vector_type(pa):
    return pa.struct(
        [
            ("storageType", pa.string()),
            ("pathOrInlineDv", pa.string()),
            ("offset", pa.int32()),
            ("sizeInBytes", pa.int32()),
            ("cardinality", pa.int64()),
        ]
    )


def _arrow(pa, type_: str):
    return {
        "long": pa.int64(),
        "double": pa.float64(),
        "string": pa.string(),
        "timestamp": pa.timestamp("us", "UTC"),
        "integer": pa.int32(),
    }[type_]


def _add_type(pa, texts, described, struct: bool):
    fields = [
        ("path", pa.string()),
        ("partitionValues", texts),
        ("size", pa.int64()),
        ("modificationTime", pa.int64()),
        ("dataChange", pa.bool_()),
        ("tags", texts),
        ("deletionVector", _vector_type(pa)),
        ("stats", pa.string()),
    ]
    if struct:
        values = pa.struct([(name, _arrow(pa, type_)) for name, type_ in described])
        counts = pa.struct([(name, pa.int64()) for name, _ in described])
        fields += [
            ("partitionValues_parsed", pa.struct([("day", pa.date32())])),
            (
                "stats_parsed",
                pa.struct(
                    [("numRecords", pa.int64()), ("minValues", values), ("maxValues", values), ("nullCount", counts)]
                ),
            ),
        ]
    return pa.struct(fields)


def _adds(pa, start: int, end: int, files: int, count: int, struct: bool, add_type):
    """The adds of files `start` to `end`."""
    import numpy as np
    import pyarrow.compute as pc

    numbers = np.arange(start, end, dtype=np.int64)
    length = len(numbers)
    days = pa.array([FIRST_DAY + timedelta(days=n // PER_DAY) for n in range(start, end)], pa.date32())
    parsed = {"min": [], "max": [], "nulls": []}
    texts = {"min": [], "max": [], "nulls": []}
    for at, (name, type_) in enumerate(columns(count)):
        nulls = pa.array(numbers % 3 if at else numbers * 0)
        parsed["nulls"].append(nulls)
        texts["nulls"] += [f'"{name}":', nulls.cast(pa.string()), ","]
        for side, values in zip(("min", "max"), bounds(at, type_, numbers, files), strict=True):
            quote = ""
            if type_ == "double":
                value = pa.array(values / 8)
            elif type_ == "string":
                number = pa.array(values).cast(pa.string())
                value, quote = pc.binary_join_element_wise("item ", number, ""), '"'
            elif type_ == "timestamp":
                value = pa.array((MILLISECOND + values) * 1000).cast(pa.timestamp("us", "UTC"))
                quote = '"'
            else:
                value = pa.array(values).cast(_arrow(pa, type_))
            parsed[side].append(value)
            if type_ == "timestamp":
                # Milliseconds, as writers cut them.
                text = pc.strftime(value.cast(pa.timestamp("ms", "UTC")), "%Y-%m-%dT%H:%M:%SZ")
            else:
                text = value.cast(pa.string())
            texts[side] += [f'"{name}":{quote}', text, f"{quote},"]
    pieces = [f'{{"numRecords":{ROWS},"minValues":{{', *texts["min"][:-1], _closed(texts["min"][-1])]
    pieces += ['},"maxValues":{', *texts["max"][:-1], _closed(texts["max"][-1])]
    pieces += ['},"nullCount":{', *texts["nulls"][:-1], "}}"]
    arrays = [
        pa.array([path_of(n) for n in range(start, end)]),
        pa.MapArray.from_arrays(
            pa.array(np.arange(length + 1, dtype=np.int32)), pa.array(["day"] * length), days.cast(pa.string())
        ),
        pa.array(1_000_000 + numbers % 7919),
        pa.array(np.full(length, MILLISECOND)),
        pa.array([False]).take(pa.array(np.zeros(length, dtype=np.int64))),
        pa.nulls(length, add_type.field("tags").type),
        pa.nulls(length, add_type.field("deletionVector").type),
        pc.binary_join_element_wise(*pieces, ""),
    ]
    if struct:
        names = [name for name, _ in columns(count)]
        stats = pa.StructArray.from_arrays(
            [
                pa.array(np.full(length, ROWS)),
                *(pa.StructArray.from_arrays(parsed[kind], names) for kind in ("min", "max", "nulls")),
            ],
            ["numRecords", "minValues", "maxValues", "nullCount"],
        )
        arrays += [pa.StructArray.from_arrays([days], ["day"]), stats]
    fields = [add_type.field(at) for at in range(add_type.num_fields)]
    return pa.StructArray.from_arrays(arrays, fields=fields)


def _closed(text: str) -> str:
    return text.removesuffix(",")


def _tail(log: Path, files: int, count: int) -> None:
    commits, each = TAIL
    for commit in range(commits):
        version = 11 + commit
        lines = [{"commitInfo": {"timestamp": MILLISECOND + version, "operation": "OPTIMIZE"}}]
        for at in range(each):
            # Of the first days, so that no question is about them.
            number = commit * each + at
            day = str(FIRST_DAY + timedelta(days=number // PER_DAY))
            low, high = bounds(0, "long", number, files)
            stats = {"numRecords": ROWS, "minValues": {"key": low}, "maxValues": {"key": high}, "nullCount": {"key": 0}}
            gone = {"path": path_of(number), "deletionTimestamp": MILLISECOND + version, "dataChange": False}
            new = {
                "path": path_of(number).replace(".snappy", "-again.snappy"),
                "partitionValues": {"day": day},
                "size": 1_000_000,
                "modificationTime": MILLISECOND + version,
                "dataChange": False,
                "stats": json.dumps(stats, separators=(",", ":")),
            }
            lines += [{"remove": gone}, {"add": new}]
        text = "".join(json.dumps(line, separators=(",", ":")) + "\n" for line in lines)
        (log / f"{version:020}.json").write_text(text)


# ---- Iceberg

SNAPSHOT = 5_000_000_000_000_000_001
# Values that PyIceberg writes into one entry, to be found again in its bytes and replaced in the others.
MARK_PATH, MARK_DAY, MARK_SIZE = "<", 19_999, 33_333_333
MARK_LONG, MARK_INT = 0x5A5A_0000_0000_5A5A, 0x5A5A_005A


def iceberg(files: int, count: int, folder: Path) -> None:
    """Writes manifests, their list and a metadata file."""
    import numpy as np
    from pyiceberg.io.pyarrow import PyArrowFileIO
    from pyiceberg.manifest import ManifestContent, ManifestFile, PartitionFieldSummary, write_manifest_list

    folder = folder.resolve()
    place = f"file://{folder}"
    meta = folder / "metadata"
    meta.mkdir(parents=True)
    io = PyArrowFileIO()
    header, entry = _template(io, meta, count, len(f"{place}/data/{path_of(0)}"))
    sync = header[-16:]
    lines = []
    for number, start in enumerate(range(0, files, PER_MANIFEST)):
        end = min(files, start + PER_MANIFEST)
        name = f"{uuid.UUID(int=number)}-m{number}.avro"
        blocks = [header]
        entries = _entries(np, entry, place, start, end, files, count)
        for at in range(0, end - start, PER_BLOCK):
            part = entries[at : at + PER_BLOCK]
            packer = zlib.compressobj(6, zlib.DEFLATED, -15)
            stored = packer.compress(part.tobytes()) + packer.flush()
            blocks += [_zigzag(len(part)), _zigzag(len(stored)), stored, sync]
        (meta / name).write_bytes(b"".join(blocks))
        days = [_day(n).to_bytes(4, "little", signed=True) for n in (start, end - 1)]
        lines.append(
            ManifestFile.from_args(
                manifest_path=f"{place}/metadata/{name}",
                manifest_length=(meta / name).stat().st_size,
                partition_spec_id=0,
                content=ManifestContent.DATA,
                sequence_number=1,
                min_sequence_number=1,
                added_snapshot_id=SNAPSHOT,
                added_files_count=end - start,
                existing_files_count=0,
                deleted_files_count=0,
                added_rows_count=(end - start) * ROWS,
                existing_rows_count=0,
                deleted_rows_count=0,
                partitions=[PartitionFieldSummary(False, False, days[0], days[1])],
                key_metadata=None,
            )
        )
    listed = f"{place}/metadata/snap-{SNAPSHOT}.avro"
    with write_manifest_list(2, io.new_output(listed), SNAPSHOT, None, 1, "deflate") as writer:
        writer.add_manifests(lines)
    types = {"long": "long", "double": "double", "string": "string", "timestamp": "timestamptz", "integer": "int"}
    fields = [{"id": 1, "name": "day", "type": "date", "required": False}]
    fields += [
        {"id": at + 2, "name": name, "type": types[type_], "required": False}
        for at, (name, type_) in enumerate(columns(count))
    ]
    table = {
        "format-version": 2,
        "table-uuid": str(uuid.UUID(int=11)),
        "location": place,
        "last-sequence-number": 1,
        "last-updated-ms": MILLISECOND,
        "last-column-id": count + 1,
        "current-schema-id": 0,
        "schemas": [{"type": "struct", "schema-id": 0, "fields": fields}],
        "default-spec-id": 0,
        "partition-specs": [
            {"spec-id": 0, "fields": [{"source-id": 1, "field-id": 1000, "name": "day", "transform": "identity"}]}
        ],
        "last-partition-id": 1000,
        "default-sort-order-id": 0,
        "sort-orders": [{"order-id": 0, "fields": []}],
        "properties": {},
        "current-snapshot-id": SNAPSHOT,
        "refs": {"main": {"snapshot-id": SNAPSHOT, "type": "branch"}},
        "snapshots": [
            {
                "snapshot-id": SNAPSHOT,
                "sequence-number": 1,
                "timestamp-ms": MILLISECOND,
                "manifest-list": listed,
                "summary": {"operation": "append", "total-data-files": str(files)},
                "schema-id": 0,
            }
        ],
        "statistics": [],
        "partition-statistics": [],
        "snapshot-log": [],
        "metadata-log": [],
    }
    (meta / "v1.metadata.json").write_text(json.dumps(table))
    (meta / "version-hint.text").write_text("1")


def _zigzag(number: int) -> bytes:
    number, out = number << 1, bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _day(number: int) -> int:
    return (FIRST_DAY - date(1970, 1, 1)).days + number // PER_DAY


def _template(io, meta: Path, count: int, length: int) -> tuple[bytes, bytes]:
    """What PyIceberg writes: the header of a manifest, and the bytes of an entry."""
    from pyiceberg.manifest import (
        DataFile,
        DataFileContent,
        FileFormat,
        ManifestEntry,
        ManifestEntryStatus,
        write_manifest,
    )
    from pyiceberg.partitioning import PartitionField, PartitionSpec
    from pyiceberg.schema import Schema
    from pyiceberg.transforms import IdentityTransform
    from pyiceberg.typedef import Record
    from pyiceberg.types import DateType, DoubleType, IntegerType, LongType, NestedField, StringType, TimestamptzType

    types = {
        "long": LongType(),
        "double": DoubleType(),
        "string": StringType(),
        "timestamp": TimestamptzType(),
        "integer": IntegerType(),
    }
    fields = [NestedField(1, "day", DateType())]
    fields += [NestedField(at + 2, name, types[type_]) for at, (name, type_) in enumerate(columns(count))]
    spec = PartitionSpec(PartitionField(1, 1000, IdentityTransform(), "day"), spec_id=0)
    ids = range(1, count + 2)
    marks = {}
    for at, (_, type_) in enumerate(columns(count)):
        marks[at + 2] = {"string": b"item ZZZZZZZ", "integer": MARK_INT.to_bytes(4, "little")}.get(
            type_, MARK_LONG.to_bytes(8, "little")
        )
    file = DataFile.from_args(
        content=DataFileContent.DATA,
        file_path=MARK_PATH * length,
        file_format=FileFormat.PARQUET,
        partition=Record(MARK_DAY),
        record_count=ROWS,
        file_size_in_bytes=MARK_SIZE,
        column_sizes={at: 10_000 + at for at in ids},
        value_counts={at: ROWS for at in ids},
        null_value_counts={at: 0 for at in ids},
        nan_value_counts={},
        lower_bounds={1: MARK_INT.to_bytes(4, "little")} | marks,
        upper_bounds={1: MARK_INT.to_bytes(4, "little")} | marks,
        split_offsets=[4],
        equality_ids=None,
        sort_order_id=0,
        spec_id=0,
    )
    place = meta / "template.avro"
    with write_manifest(2, spec, Schema(*fields), io.new_output(f"file://{place}"), SNAPSHOT, "null") as writer:
        writer.add_entry(
            ManifestEntry.from_args(
                status=ManifestEntryStatus.ADDED,
                snapshot_id=SNAPSHOT,
                sequence_number=None,
                file_sequence_number=None,
                data_file=file,
            )
        )
    written = place.read_bytes()
    place.unlink()
    sync = written[-16:]
    end = written.index(sync) + 16
    # The same bytes each time, and another codec of the same length of name would be too much luck.
    header = written[:end].replace(sync, hashlib.md5(b"sync").digest())
    old = _zigzag(len("avro.codec")) + b"avro.codec" + _zigzag(4) + b"null"
    new = _zigzag(len("avro.codec")) + b"avro.codec" + _zigzag(7) + b"deflate"
    assert header.count(old) == 1
    header = header.replace(old, new)
    block = written[end:-16]
    size = _zigzag(1)
    assert block.startswith(size)
    at = len(size)
    while block[at] & 0x80:
        at += 1
    return header, block[at + 1 :]


def _entries(np, entry: bytes, place: str, start: int, end: int, files: int, count: int):
    """The entries of files `start` to `end`, one after the other."""
    numbers = np.arange(start, end, dtype=np.int64)
    rows = np.tile(np.frombuffer(entry, dtype=np.uint8), (end - start, 1))
    paths = "".join(f"{place}/data/{path_of(n)}" for n in range(start, end)).encode()
    length = len(paths) // (end - start)
    at = entry.index(MARK_PATH.encode() * length)
    rows[:, at : at + length] = np.frombuffer(paths, dtype=np.uint8).reshape(end - start, length)

    def varint(mark: int, values):
        old = _zigzag(mark)
        assert entry.count(old) == 1
        at, left = entry.index(old), values * 2
        for place in range(len(old)):
            more = 0x80 if place < len(old) - 1 else 0
            rows[:, at + place] = left & 0x7F | more
            left = left >> 7
        assert not left.any()

    days = _day(0) + numbers // PER_DAY
    varint(MARK_DAY, days)
    varint(MARK_SIZE, 30_000_000 + numbers % 7919)
    at = 0
    for side in range(2):
        mark = MARK_INT.to_bytes(4, "little")
        at = entry.index(mark, at)
        rows[:, at : at + 4] = days.astype("<i4").view(np.uint8).reshape(-1, 4)
        at += 4
        for column, (_, type_) in enumerate(columns(count)):
            values = bounds(column, type_, numbers, files)[side]
            if type_ == "string":
                mark = b"item ZZZZZZZ"
                text = "".join(f"item {value:07}" for value in values.tolist()).encode()
                raw = np.frombuffer(text, dtype=np.uint8).reshape(-1, len(mark))
            elif type_ == "integer":
                mark, raw = MARK_INT.to_bytes(4, "little"), values.astype("<i4").view(np.uint8).reshape(-1, 4)
            else:
                if type_ == "double":
                    values = (values / 8).astype("<f8")
                elif type_ == "timestamp":
                    values = (MILLISECOND + values) * 1000
                mark, raw = MARK_LONG.to_bytes(8, "little"), np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
            at = entry.index(mark, at)
            rows[:, at : at + len(mark)] = raw
            at += len(mark)
    return rows


def make(format: str, kind: str, files: int, count: int, folder: Path) -> None:
    """Makes a table unless it is there."""
    if (folder / "made").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    if format == "delta":
        delta(kind, files, count, folder)
    else:
        iceberg(files, count, folder)
    (folder / "made").touch()


if __name__ == "__main__":
    make(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
