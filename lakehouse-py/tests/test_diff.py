"""Two versions of a table, compared."""

from datetime import datetime, timezone

import duckdb
import lakehouse
import polars as pl
import pyarrow as pa
import pytest
from samples import people


def test_two_versions_are_compared_by_metadata_and_by_rows(table):
    table.append(people("Ada", "Grace", "Edsger"))
    before = table.version()
    table.upsert(people("Grace H.", "Edsger", "Alan", first=2), on="id")
    diff = table.diff(before)
    assert diff.summary["from"]["version"] == before
    assert diff.summary["to"]["version"] == table.version()
    assert diff.summary["rows"]["from"] == 3
    assert diff.summary["columns"] == []
    changes = diff.rows(on="id")
    assert changes.schema.names == ["id", "name", "amount", "_change_type"]
    assert [(row["id"], row["name"], row["_change_type"]) for row in changes.to_arrow().to_pylist()] == [
        (2, "Grace", "update_preimage"),
        (2, "Grace H.", "update_postimage"),
        (4, "Alan", "insert"),
    ]
    assert diff.count(on=["id"]) == {"added": 1, "removed": 0, "changed": 1, "ambiguous_keys": 0, "files_read": 2}
    assert diff.count()["removed"] == 1
    # Any Arrow library takes it, and as often as it is asked.
    assert duckdb.sql("SELECT count(*) FROM changes").fetchone() == (3,)
    assert pl.DataFrame(changes).height == 3
    backwards = table.diff(to=before, from_as_of=datetime(2999, 1, 1, tzinfo=timezone.utc))
    assert [row["_change_type"] for row in backwards.rows().to_arrow().to_pylist()] == ["insert", "delete", "delete"]
    assert table.diff(-1, table.version()).count() == diff.count()


def test_a_comparison_without_a_version_or_by_a_column_that_is_not_there_is_refused(table):
    table.append(people("Ada"))
    with pytest.raises(TypeError, match="needs from_"):
        table.diff()
    with pytest.raises(ValueError, match="not both"):
        table.diff(1, from_as_of="2024-01-01")
    with pytest.raises(lakehouse.InvalidError, match="no column key"):
        table.diff(-1).rows(on="key")
    with pytest.raises(lakehouse.LakehouseError, match="version"):
        table.diff(-7)


def test_columns_that_came_are_told_and_not_compared(table):
    table.append(people("Ada"))
    before = table.version()
    table.append(people("Grace", first=2).append_column("tip", pa.array([0.5])), schema_mode="merge")
    diff = table.diff(before)
    assert diff.summary["columns"] == [{"column": "tip", "change": "added", "from": None, "to": "Float64"}]
    assert diff.summary["left_out"] == ["tip"]
    assert diff.rows().schema.names == ["id", "name", "amount", "_change_type"]
    assert [row["id"] for row in diff.rows().to_arrow().to_pylist()] == [2]
