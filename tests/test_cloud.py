"""Tables on S3 over HTTP from Python, and read there by clients that others wrote."""

import subprocess
from pathlib import Path

import lakehouse
import pyarrow as pa
import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def s3():
    """Storage options with which `s3://` is a server of our own."""
    binary = ROOT / "target" / "debug" / "s3_server"
    assert binary.exists(), "build it first: make build"
    with subprocess.Popen([binary], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield {
            "AWS_ENDPOINT_URL": server.stdout.readline().strip(),
            "AWS_ACCESS_KEY_ID": "lake-test-user",
            "AWS_SECRET_ACCESS_KEY": "lake-test-secret",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }
        server.stdin.close()


def make(location: str, s3: dict[str, str], **how) -> lakehouse.Table:
    table = lakehouse.Table.create(location, "id bigint not null, name string", storage_options=s3, **how)
    table.append(pa.table({"id": [1, 2, 3], "name": ["a", "b", None]}))
    table.upsert(pa.table({"id": [2, 4], "name": ["B", "d"]}), on="id")
    return table


EXPECTED = [(1, "a"), (2, "B"), (3, None), (4, "d")]


@pytest.mark.parametrize("format", ["iceberg", "delta"])
def test_a_table_on_s3_is_written_and_read_with_storage_options(s3, format):
    location = f"s3://lake/py-{format}"
    make(location, s3, format=format)
    again = lakehouse.Table.open(location, storage_options=s3)
    rows = again.scan().to_arrow().sort_by("id")
    assert list(zip(*rows.to_pydict().values(), strict=True)) == EXPECTED
    counted = lakehouse.sql(f"SELECT count(*) AS n FROM '{location}'", storage_options=s3).to_arrow()
    assert counted["n"].to_pylist() == [4]


def test_deltalake_reads_and_appends_to_our_table_on_s3(s3):
    import deltalake

    location = "s3://lake/py-shared"
    make(location, s3, format="delta", properties={"delta.enableDeletionVectors": "false"})
    theirs = deltalake.DeltaTable(location, storage_options=s3)
    rows = theirs.to_pyarrow_table().sort_by("id")
    assert list(zip(*rows.to_pydict().values(), strict=True)) == EXPECTED
    deltalake.write_deltalake(
        location,
        pa.table({"id": pa.array([5], pa.int64()), "name": ["e"]}),
        mode="append",
        storage_options=s3,
    )
    ours = lakehouse.Table.open(location, storage_options=s3).scan().to_arrow().sort_by("id")
    assert ours["id"].to_pylist() == [1, 2, 3, 4, 5]


def test_an_option_that_nobody_knows_is_refused_by_name(s3):
    with pytest.raises(Exception, match="aws_regoin"):
        lakehouse.Table.open("s3://lake/none", storage_options={**s3, "aws_regoin": "x"})
