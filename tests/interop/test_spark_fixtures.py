"""Tables of fixtures/spark, which Spark wrote, read and written by `lake`; what Spark reads is kept beside them."""

import shutil
from pathlib import Path

import pytest

from tests.interop.kept import SPARK, first_key, load, newest, tables
from tests.interop.tables import Lake

# What `lake` cannot read, and words of its complaint.
REFUSED = {
    "delta_shallow_clone": "allow_locations=",
    "delta_variant": "table feature variantType",
    "iceberg_avro": "is an avro file; only Parquet is read",
    "iceberg_orc": "is an orc file; only Parquet is read",
    "iceberg_variant": "column v has the Iceberg type variant",
}
# Questions that Spark answers wrongly: Iceberg's reader skips the row groups that lack a column with a default, though
# the condition holds for the default.
NOT_ASKED = {("iceberg_defaults", 1), ("iceberg_defaults", 3)}
# Tables of Delta that need not be written, and words of the complaint.
NOT_WRITTEN = {
    "delta_append_only": "delta.appendOnly is true",
    "delta_iceberg_compatible": "table feature icebergCompatV2",
    "delta_identity": "table feature identityColumns",
    "delta_partition_values": "partition column b has the type Binary",
}
DELTA = [name for name in tables() if name.startswith("delta_") and name not in REFUSED]


@pytest.fixture(scope="module")
def cli(lake: Path) -> Lake:
    return Lake(lake)


def questions() -> list[tuple[str, int]]:
    """Every question of every table that is read."""
    read = [name for name in tables() if name not in REFUSED]
    return [(name, at) for name in read for at in range(len(load(name))) if (name, at) not in NOT_ASKED]


@pytest.mark.parametrize(("name", "number"), questions())
def test_lake_reads_what_spark_reads(cli, name, number, tmp_path):
    read = load(name)[number]
    read.same(cli.read(SPARK / name / "table", tmp_path, read.at, read.where))


@pytest.mark.parametrize("name", REFUSED)
def test_lake_refuses_by_name_what_it_cannot_read(cli, name):
    complaint = cli.refused("query", f"SELECT * FROM '{SPARK / name / 'table'}'")
    assert REFUSED[name] in complaint and "damaged" not in complaint


@pytest.mark.parametrize("name", DELTA)
def test_lake_writes_delta_tables_of_spark_or_refuses_by_name(cli, name, tmp_path):
    path, before = tmp_path / "t", newest(name)
    shutil.copytree(SPARK / name / "table", path)
    key = first_key(before)
    done = cli.run("delete", path, "--where", f"id = {key}")
    if done.returncode:
        complaint = done.stderr.decode()
        assert done.returncode == 1 and NOT_WRITTEN.get(name, "no reason to refuse") in complaint, complaint
        expected = before
    else:
        expected = before.without(key)
    expected.same(cli.read(path, tmp_path))
