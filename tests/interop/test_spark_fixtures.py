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
    "iceberg_nested_default": "column y has an initial default value inside of another column",
    "iceberg_orc": "is an orc file; only Parquet is read",
    "iceberg_variant": "column v has the Iceberg type variant",
    "iceberg_partition_names": 'the partition field "a b" has a name that manifests escape',
}
# What `lake` should read, and reads wrongly or not at all: table, number of the question (None for all), and why.
VOID = "a void field of v1 that has its column's name is taken for damage"
WRONG = {("iceberg_v1", None): VOID}
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


def questions() -> list:
    """Every question of every table that is read, those that are answered wrongly marked."""
    marked = []
    for name in tables():
        for number in range(0 if name in REFUSED else len(load(name))):
            if (name, number) in NOT_ASKED:
                continue
            reason = WRONG.get((name, number), WRONG.get((name, None)))
            marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
            marked.append(pytest.param(name, number, marks=marks))
    return marked


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
