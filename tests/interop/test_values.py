"""Numbers of floating point that `lake` wrote, found by other engines, which skip files by the bounds that it noted."""

import json
import math
import struct
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.interop.readers import newest_metadata
from tests.interop.tables import MASK, Lake

SCHEMA = pa.schema([("id", pa.int64()), ("x", pa.float64())])
# Those after the zeros come out one unit off, up or down, where their text is read carelessly.
NUMBERS = [
    *(-0.0, 0.0, math.nan, struct.unpack("<d", struct.pack("<Q", 0xFFF8 << 48))[0], math.inf, -math.inf, 7.5),
    *(1.2084992817599587, 12.968106020774835, 93.70761809314651, 38.418914600017196),
    *(99.26179780543045, 56.574428613059524, 42.670949241698516, 19.615891170379978),
]


def made(lake: Path, folder: Path, options: tuple[str, ...]) -> Path:
    """A file of two rows for each number, of which one is masked since, twice."""
    cli, path = Lake(lake), folder / "table"
    source = folder / "rows.parquet"
    for at, number in enumerate(NUMBERS):
        rows = [{"id": 3 * at + more, "x": number} for more in range(3)]
        pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), source)
        if at == 0:
            cli("create", path, *options, "--schema-from", source)
        cli.write("append", path, source)
    for rest in (1, 2):
        cli.write("delete", path, "--where", f"id % 3 = {rest}", *MASK)
    return path


def found(table: pa.Table) -> set[int]:
    return {number // 3 for number in table["id"].to_pylist()}


def equal(number: float) -> set[int]:
    return {at for at, other in enumerate(NUMBERS) if other == number}


PLAIN = [number for number in NUMBERS if math.isfinite(number)]


def test_deltalake_finds_each_number(lake, tmp_path):
    deltalake = pytest.importorskip("deltalake")
    path = made(lake, tmp_path, ("--format", "delta"))
    for log in (path / "_delta_log").glob("*.json"):
        for line in log.read_text().splitlines():
            stats = json.loads((json.loads(line).get("add") or {}).get("stats") or "{}")
            for bounds in (stats.get("minValues", {}), stats.get("maxValues", {})):
                assert isinstance(bounds.get("x", 0.0), float | int), "a bound that is no number of JSON"
    table = deltalake.DeltaTable(path)
    for number in PLAIN:
        query = f"SELECT id FROM t WHERE x = CAST('{number!r}' AS DOUBLE)"
        rows = deltalake.QueryBuilder().register("t", table).execute(query).read_all()
        assert found(pa.table(rows)) == equal(number), number


@pytest.mark.parametrize("version", [2, 3])
def test_pyiceberg_finds_each_number(lake, version, tmp_path):
    pytest.importorskip("pyiceberg")
    from pyiceberg.conversions import from_bytes
    from pyiceberg.expressions import EqualTo, IsNaN
    from pyiceberg.table import StaticTable
    from pyiceberg.types import DoubleType

    path = made(lake, tmp_path, ("--format", "iceberg", "--format-version", str(version)))
    table = StaticTable.from_metadata(newest_metadata(path).absolute().as_uri())
    field = table.schema().find_field("x").field_id
    for task in table.scan().plan_files():
        bounds = [of.get(field) for of in (task.file.lower_bounds, task.file.upper_bounds)]
        low, high = [bound and from_bytes(DoubleType(), bound) for bound in bounds]
        # Iceberg spec, "Manifests": bounds are no NaN, and -0.0 is before 0.0.
        for bound in (low, high):
            assert bound is None or not math.isnan(bound)
        if low == 0 or high == 0:
            assert (math.copysign(1, low), math.copysign(1, high)) == (-1, 1)
    for number in PLAIN:
        rows = table.scan(row_filter=EqualTo("x", number)).to_arrow()
        assert found(rows) == equal(number), number
    nans = {at for at, number in enumerate(NUMBERS) if math.isnan(number)}
    assert found(table.scan(row_filter=IsNaN("x")).to_arrow()) == nans
