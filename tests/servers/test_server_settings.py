"""Where settings come from, and listings that take more than one answer."""

import base64
import hmac
import urllib.parse
from concurrent.futures import ThreadPoolExecutor

import lakehouse
import pyarrow as pa
import pytest
from running import AZURE_ACCOUNT, AZURE_KEY, BUCKET
from shell import Shell
from wire import S3

COLUMNS = "id bigint not null, name string"
# Names of one listing at most, as the servers (and the clouds) have it.
PAGE = {"s3": 1000, "azure": 5000}


@pytest.mark.parametrize("name", ["minio", "versitygw"])
def test_a_profile_of_the_aws_tools_is_enough(start, lake, name, tmp_path, monkeypatch):
    server = start(name)
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws" / "credentials").write_text(
        f"[here]\naws_access_key_id = {server.keys[0]}\naws_secret_access_key = {server.keys[1]}\n"
    )
    (tmp_path / ".aws" / "config").write_text(f"[profile here]\nregion = us-east-1\nendpoint_url = {server.endpoint}\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_PROFILE", "here")
    location = server.url("by-profile").replace("s3:", "s3a:")
    table = lakehouse.Table.create(location, COLUMNS)
    table.append(pa.table({"id": [1], "name": ["a"]}))
    assert Shell(lake, server).rows(f"SELECT * FROM '{server.url('by-profile')}'") == [(1, "a")]


def test_options_come_before_the_environment(shell, monkeypatch):
    for name, value in shell.server.options.items():
        wrong = "http://127.0.0.1:9" if "endpoint" in name else value[::-1]
        monkeypatch.setenv(name.upper(), wrong)
    table = shell.server.url("before")
    shell("create", table, "--schema", COLUMNS)
    assert shell.rows(f"SELECT * FROM '{table}'") == []


@pytest.mark.parametrize("format", ["iceberg", "delta"])
def test_azures_other_urls_and_the_emulators_own_option_name_the_same_table(start, lake, format, monkeypatch):
    server = start("azurite")
    monkeypatch.setenv("AZURITE_BLOB_STORAGE_URL", server.endpoint)
    url = f"abfss://{BUCKET}@{AZURE_ACCOUNT}.dfs.core.windows.net/by-url/{format}"
    table = lakehouse.Table.create(url, COLUMNS, format=format, storage_options={"azure_storage_use_emulator": "true"})
    table.append(pa.table({"id": [1], "name": ["a"]}))
    again = lakehouse.Table.open(url, storage_options=server.options)
    again.append(pa.table({"id": [2], "name": ["b"]}))
    if format == "delta":
        # Iceberg's metadata names the scheme by which the table was made.
        assert Shell(lake, server).rows(f"SELECT id FROM '{server.url('by-url/delta')}'") == [(1,), (2,)]
    assert again.scan().count() == 2


def test_a_shared_access_signature_opens_a_table_and_is_not_shown(start, lake):
    server = start("azurite")
    table = server.url("by-signature")
    signature = signature_of("racwdl")
    signed = Shell(lake, server)
    options = {name: value for name, value in server.options.items() if name != "azure_storage_account_key"}
    made = lakehouse.Table.create(table, COLUMNS, storage_options=options | {"azure_storage_sas_key": signature})
    made.append(pa.table({"id": [1], "name": ["a"]}))
    assert signed.rows(f"SELECT * FROM '{table}'") == [(1, "a")]
    secret = signature.rpartition("sig=")[2]
    readonly = options | {"azure_storage_sas_key": signature_of("rl")}
    with pytest.raises(lakehouse.DeniedError) as error:
        lakehouse.Table.open(table, storage_options=readonly).append(pa.table({"id": [2], "name": ["b"]}))
    for told in (secret, signature_of("rl").rpartition("sig=")[2]):
        assert told not in str(error.value)


def signature_of(rights: str) -> str:
    """A shared access signature of the container, as Microsoft describes its making."""
    version, until, protocols = "2021-12-02", "2099-01-01T00:00:00Z", "https,http"
    resource = f"/blob/{AZURE_ACCOUNT}/{BUCKET}"
    text = "\n".join([rights, "", until, resource, "", "", protocols, version, "c", "", "", "", "", "", "", ""])
    signature = base64.b64encode(hmac.digest(base64.b64decode(AZURE_KEY), text.encode(), "sha256")).decode()
    parts = {"sv": version, "sr": "c", "sp": rights, "se": until, "spr": protocols, "sig": signature}
    return urllib.parse.urlencode(parts)


@pytest.mark.parametrize("format", ["iceberg", "delta"])
def test_the_newest_version_is_found_behind_more_names_than_one_listing_holds(server, lake, format):
    location, options = server.url(f"pages/{format}"), server.options
    table = lakehouse.Table.create(location, COLUMNS, format=format, storage_options=options)
    client = server.client()
    # They come before the versions that matter, and mean nothing.
    folder, stem = {"iceberg": ("metadata", "a"), "delta": ("_delta_log", "00000000000000000000")}[format]
    with ThreadPoolExecutor(16) as pool:
        count = PAGE[server.cloud] + 50
        puts = pool.map(lambda n: client.put(f"pages/{format}/{folder}/{stem}.{n:05}.note", b"."), range(count))
        assert all(answer.ok for answer in puts)
    table.append(pa.table({"id": [1], "name": ["a"]}))
    if format == "iceberg":
        # So that the newest is looked for.
        assert client.delete(f"pages/{format}/metadata/version-hint.text").ok
    again = lakehouse.Table.open(location, storage_options=options)
    assert again.scan().count() == 1
    again.append(pa.table({"id": [2], "name": ["b"]}))
    assert Shell(lake, server).rows(f"SELECT id FROM '{location}'") == [(1,), (2,)]


@pytest.mark.parametrize("name", ["minio", "versitygw"])
def test_another_bucket_is_read_where_it_is_allowed_by_name_and_never_written(start, name):
    server = start(name)
    other = S3(server.endpoint, "other", *server.keys)
    assert other.make_bucket().ok
    original = lakehouse.Table.create("s3://other/t", COLUMNS, format="delta", storage_options=server.options)
    original.append(pa.table({"id": [1, 2, 3], "name": ["a", "b", "c"]}))
    # A shallow clone: a log of its own, and the other table's file by its whole name.
    first, second = (f"_delta_log/{version:020}.json" for version in range(2))
    (file,) = (key for key in other.names() if key.endswith(".parquet"))
    log = other.get(f"t/{second}")[0].body.decode()
    assert server.client().put(f"clone/{first}", other.get(f"t/{first}")[0].body).ok
    named = log.replace(f'"{file.removeprefix("t/")}"', f'"s3://other/{file}"')
    assert named != log and server.client().put(f"clone/{second}", named.encode()).ok
    before = {key: other.get(key)[0].body for key in other.names()}

    def clone(**places: str) -> lakehouse.Table:
        return lakehouse.Table.open(server.url("clone"), storage_options=server.options | places)

    for places in ({}, {"allow_locations": "s3://other/tt s3://lake/t"}):
        with pytest.raises(lakehouse.DeniedError, match="allow_locations"):
            clone(**places).scan().to_arrow()
    table = clone(allow_locations="s3://other/t")
    table.delete("id = 2")
    table.upsert(pa.table({"id": [3, 4], "name": ["C", "d"]}), on="id")
    assert sorted(table.scan().to_arrow()["name"].to_pylist()) == ["C", "a", "d"]
    table.compact()
    # Nothing of it is elsewhere any more.
    assert sorted(clone().scan().to_arrow()["name"].to_pylist()) == ["C", "a", "d"]
    assert {key: other.get(key)[0].body for key in other.names()} == before
