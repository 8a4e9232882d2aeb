"""What is not to be: servers that overwrite what was to be created, wrong keys, buckets that are not there."""

import base64
import re

import lakehouse
import pyarrow as pa
import pytest
from shell import Shell

COLUMNS = "id bigint not null, name string"
FORMATS = ["iceberg", "delta"]


@pytest.mark.parametrize("format", FORMATS)
def test_a_server_that_overwrites_is_refused_and_serves_a_single_writer(start, lake, format):
    run = Shell(lake, start("s3rver"))
    table = run.server.url(f"lying/{format}")
    create = ["create", table, "--schema", COLUMNS, "--format", format]
    before = run.server.client().names()
    refused = run.run(*create)
    assert refused.returncode == 1
    assert "overwrites an object that was to be created only if absent" in refused.stdout
    assert "--unsafe-single-writer" in refused.stdout
    assert run.server.client().names() == before

    run(*create, "--unsafe-single-writer")
    insert = ["query", f"INSERT INTO '{table}' VALUES (1, 'a'), (2, 'b')"]
    # The promise holds for the command that made it, and reading needs none.
    assert run.run(*insert).returncode == 1
    assert run.rows(f"SELECT * FROM '{table}'") == []
    run(*insert, "--unsafe-single-writer")
    run("merge", table, "SELECT 2 AS id, 'B' AS name", "--on", "id", "--unsafe-single-writer")
    alone = lakehouse.Table.open(table, storage_options=run.server.options | {"unsafe_single_writer": "true"})
    alone.append(pa.table({"id": [3], "name": ["c"]}))
    alone.compact()
    assert run.rows(f"SELECT * FROM '{table}'") == [(1, "a"), (2, "B"), (3, "c")]
    trusting = lakehouse.Table.open(table, storage_options=run.server.options)
    with pytest.raises(lakehouse.UnsupportedError, match="overwrites"):
        trusting.append(pa.table({"id": [4], "name": ["d"]}))
    assert not [name for name in run.server.client().names() if ".lake-probe-" in name]


@pytest.mark.parametrize("format", FORMATS)
def test_a_server_that_takes_no_writes_of_our_kind_is_told_in_its_own_words(start, lake, format):
    """fake-gcs-server knows uploads by Google's JSON interface and by signed URLs, not by the plain puts of the XML
    interface that `object_store` sends."""
    run = Shell(lake, start("fake-gcs-server"))
    before = run.server.client().names()
    for promise in ([], ["--unsafe-single-writer"]):
        table = run.server.url(f"refused/{format}")
        done = run.run("create", table, "--schema", COLUMNS, "--format", format, *promise)
        assert done.returncode == 1
        assert table in done.stdout and "400 Bad Request" in done.stdout and "invalid uploadType" in done.stdout
    assert run.server.client().names() == before


@pytest.mark.parametrize("by_environment", [False, True], ids=["options", "environment"])
def test_a_wrong_secret_is_told_and_not_shown(server, lake, by_environment):
    run = Shell(lake, server, by_environment)
    table = server.url("secret")
    canary = base64.b64encode(b"canary, and a secret as long as those of Azure are; 64 bytes....").decode()
    wrong = {server.secret: canary}
    for command in (
        ["create", table, "--schema", COLUMNS],
        ["history", table],
        ["query", f"SELECT * FROM '{table}'"],
        ["query", f"INSERT INTO '{table}' VALUES (1, 'a')"],
    ):
        done = run.run(*command, more=wrong)
        said = done.stdout + done.stderr
        assert done.returncode == 1, said
        assert "403 Forbidden" in said and "check who may read and write there" in said
        assert canary not in said and server.options[server.secret] not in said
    with pytest.raises(lakehouse.DeniedError) as error:
        lakehouse.Table.open(table, storage_options=server.options | wrong)
    assert canary not in str(error.value)


def test_a_missing_bucket_is_told_by_every_verb(shell):
    table = shell.server.url("t").replace("//lake/", "//nowhere/")
    for command in (
        ["create", table, "--schema", COLUMNS],
        ["history", table],
        ["query", f"SELECT * FROM '{table}'"],
        ["compact", table],
    ):
        done = shell.run(*command)
        assert done.returncode == 1
        assert re.search(r"(bucket|container) does not exist", done.stdout), done.stdout
        assert "//nowhere/t" in done.stdout


def test_a_server_that_is_gone_is_told_within_half_a_minute(shell):
    endpoint = {"s3": "aws_endpoint_url", "azure": "azure_storage_endpoint"}[shell.server.cloud]
    nobody = shell.server.options[endpoint].replace(shell.server.endpoint, "http://127.0.0.1:9")
    done = shell.run("history", shell.server.url("t"), more={endpoint: nobody})
    assert done.returncode == 1
    assert "Connection refused" in done.stdout


def test_no_probe_is_left_after_commits(start, lake):
    run = Shell(lake, start("minio"))
    table = run.server.url("probed/t")
    run("create", table, "--schema", COLUMNS)
    run("query", f"INSERT INTO '{table}' VALUES (1, 'a')")
    left = [name for name in run.server.client().names() if name.startswith("probed/t/.")]
    assert left == []
