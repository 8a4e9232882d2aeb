"""Tables that `lake` wrote to servers, read there by other engines; tables that others uploaded, read by `lake`."""

import deltalake
import lakehouse
import pyarrow as pa
import pytest
from test_server_tables import ODD
from wire import REGION

from tests.interop.readers import duckdb_connection

# DuckDB's azure extension is not on PyPI, and PyIceberg over Arrow takes `container@account` for a container's name.
S3 = ["minio", "versitygw"]

ROWS = {"id": [1, 2, 3, 4], "name": ["a", "B", None, "d"]}


def made(location: str, options: dict[str, str], **how) -> lakehouse.Table:
    table = lakehouse.Table.create(location, "id bigint not null, name string", storage_options=options, **how)
    table.append(pa.table({"id": [1, 2, 3], "name": ["a", "b", None]}))
    table.upsert(pa.table({"id": [2, 4], "name": ["B", "d"]}), on="id")
    return table


def by_deltalake(location: str, options: dict[str, str], query: str) -> dict[str, list]:
    """Columns of a query over table `t`; its query engine, because its other reader knows no deletion vectors."""
    table = deltalake.DeltaTable(location, storage_options=options)
    return pa.table(deltalake.QueryBuilder().register("t", table).execute(query).read_all()).to_pydict()


def test_deltalake_reads_our_table_and_appends_to_it(server):
    location, options = server.url("readers/shared"), server.options
    made(location, options, format="delta", properties={"delta.enableDeletionVectors": "false"})
    theirs = deltalake.DeltaTable(location, storage_options=options)
    assert theirs.to_pyarrow_table().sort_by("id").to_pydict() == ROWS
    fifth = pa.table({"id": pa.array([5], pa.int64()), "name": ["e"]})
    deltalake.write_deltalake(location, fifth, mode="append", storage_options=options)
    ours = lakehouse.Table.open(location, storage_options=options)
    assert ours.scan("id = 5").to_arrow().to_pydict() == {"id": [5], "name": ["e"]}
    ours.append(pa.table({"id": [6], "name": ["f"]}))
    read = deltalake.DeltaTable(location, storage_options=options).to_pyarrow_table()
    assert sorted(read["id"].to_pylist()) == [1, 2, 3, 4, 5, 6]


def test_deltalake_reads_deletion_vectors_of_ours(server):
    location, options = server.url("readers/masked"), server.options
    table = made(location, options, format="delta")
    table.delete("id = 3", strategy="merge-on-read")
    assert by_deltalake(location, options, "SELECT id FROM t ORDER BY id") == {"id": [1, 2, 4]}


def test_odd_partition_values_mean_the_same_to_deltalake_and_to_us(server):
    expected = {"id": list(range(len(ODD))), "region": ODD}
    ours, theirs = server.url("readers/odd ours"), server.url("readers/odd theirs")
    how = {"format": "delta", "partition_by": "region", "storage_options": server.options}
    rows = pa.table({"id": pa.array(expected["id"], pa.int64()), "region": ODD})
    lakehouse.Table.create(ours, "id bigint not null, region string", **how).append(rows)
    deltalake.write_deltalake(theirs, rows, partition_by=["region"], storage_options=server.options)
    assert by_deltalake(ours, server.options, "SELECT id, region FROM t ORDER BY id") == expected
    table = lakehouse.Table.open(theirs, storage_options=server.options)
    assert table.scan(columns=["id", "region"]).to_arrow().sort_by("id").to_pydict() == expected
    table.delete("id < 3")
    left = by_deltalake(theirs, server.options, "SELECT region FROM t ORDER BY id")
    assert left == {"region": ODD[3:]}


@pytest.mark.parametrize("number", [2, 3])
@pytest.mark.parametrize("name", S3)
def test_pyiceberg_reads_our_table(start, name, number):
    from pyiceberg.table import StaticTable

    server = start(name)
    location = server.url(f"readers/iceberg{number}")
    table = made(location, server.options, format="iceberg", format_version=number)
    table.delete("id = 3", strategy="merge-on-read")
    odd = server.url(f"readers/odd iceberg{number}")
    how = {"format_version": number, "partition_by": "region", "storage_options": server.options}
    rows = pa.table({"id": pa.array(range(len(ODD)), pa.int64()), "region": ODD})
    lakehouse.Table.create(odd, "id bigint not null, region string", **how).append(rows)
    settings = {
        "s3.endpoint": server.endpoint,
        "s3.access-key-id": server.keys[0],
        "s3.secret-access-key": server.keys[1],
        "s3.region": REGION,
    }
    # Each commit makes one: create, append, merge, delete.
    newest = StaticTable.from_metadata(f"{location}/metadata/v4.metadata.json", settings)
    read = newest.scan().to_arrow().sort_by("id")
    assert read.to_pydict() == {"id": [1, 2, 4], "name": ["a", "B", "d"]}
    newest = StaticTable.from_metadata(f"{odd}/metadata/v2.metadata.json", settings)
    assert newest.scan().to_arrow().sort_by("id")["region"].to_pylist() == ODD


@pytest.mark.parametrize("format", ["iceberg", "delta"])
@pytest.mark.parametrize("name", S3)
def test_duckdb_reads_our_table(start, name, format):
    server = start(name)
    location = server.url(f"readers/duckdb-{format}")
    table = made(location, server.options, format=format)
    table.delete("id = 3", strategy="merge-on-read")
    duck = duckdb_connection("httpfs")
    key, secret = server.keys
    duck.execute(
        f"CREATE SECRET (TYPE s3, KEY_ID '{key}', SECRET '{secret}', REGION '{REGION}', USE_SSL false, "
        f"URL_STYLE 'path', ENDPOINT '{server.endpoint.removeprefix('http://')}')"
    )
    metadata = f"{location}/metadata/v4.metadata.json"
    source = f"iceberg_scan('{metadata}')" if format == "iceberg" else f"delta_scan('{location}')"
    read = duck.execute(f"SELECT id, name FROM {source} ORDER BY id").fetchall()
    assert read == [(1, "a"), (2, "B"), (4, "d")]


def test_a_table_that_others_uploaded_to_google_is_read(start, tmp_path):
    """fake-gcs-server takes uploads by Google's own interface only, and shows them by the other one too."""
    server = start("fake-gcs-server")
    made(str(tmp_path / "t"), {}, format="delta")
    client = server.client(xml=False)
    for file in sorted((tmp_path / "t").rglob("*")):
        if file.is_file():
            answer = client.put(f"shared here/{file.relative_to(tmp_path / 't')}", file.read_bytes())
            assert answer.ok, answer
    table = lakehouse.Table.open(server.url("shared here"), storage_options=server.options)
    assert table.scan().to_arrow().sort_by("id").to_pydict() == ROWS
    assert table.scan(version=1).count() == 3
    # The other spellings of the same settings.
    key = tmp_path / "key.json"
    key.write_text(server.options["google_service_account_key"])
    by_file = {"google_service_account": str(key)}
    by_endpoint = {"google_base_url": server.endpoint, "google_skip_signature": "true"}
    for options in (by_file, by_endpoint):
        again = lakehouse.Table.open(server.url("shared here").replace("gs:", "gcs:"), storage_options=options)
        assert again.scan().count() == 4, options
