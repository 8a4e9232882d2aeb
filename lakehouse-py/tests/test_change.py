"""Tables that change in Python: their columns, their branches, the version that is read."""

import time
from datetime import datetime, timezone

import lakehouse
import pyarrow as pa
import pytest
from samples import people, rows


def test_old_versions_by_number_distance_and_time(table):
    table.append(people("a"))
    first = table.version()
    time.sleep(0.05)
    between = datetime.now(timezone.utc)
    time.sleep(0.05)
    table.append(people("b", first=2))
    assert len(rows(table, version=first)) == 1
    assert len(rows(table, version=-1)) == 1
    assert len(rows(table, as_of=between)) == 1
    assert len(rows(table, as_of=between.replace(tzinfo=None))) == 1
    assert len(rows(table, as_of=between.isoformat())) == 1
    table.restore(version=first)
    assert len(rows(table)) == 1
    assert len(table.history()) >= 3


def test_a_table_changes_and_keeps_its_rows(table):
    table.append(people("Ada", "Grace"))
    report = table.alter(
        rename={"name": "called"},
        add=["note string comment 'free'", "tags text[]"],
        move={"note": "first"},
        drop="amount",
        set={"owner": "me"},
    )
    assert report["committed"] and "renamed name to called" in report["changes"]
    assert table.schema().names == ["note", "id", "called", "tags"]
    assert table.schema().to_arrow().field("note").metadata[b"comment"] == b"free"
    assert [row["called"] for row in rows(table)] == ["Ada", "Grace"]
    assert table.alter(types={"id": "bigint"}, optional="note")["committed"] is False
    with pytest.raises(lakehouse.InvalidError, match="there is no column nosuch"):
        table.alter(drop=["nosuch"])
    with pytest.raises(TypeError, match="unexpected keyword argument 'delete'"):
        table.alter(delete="note")
    if table.format == "delta":
        with pytest.raises(lakehouse.UnsupportedError, match="partitioning of a Delta table"):
            table.alter(partition_by="bucket(4, id)")
    else:
        assert table.alter(partition_by="bucket(4, id)", sort_by="id desc")["committed"]
        table.append(pa.table({"id": [3], "called": ["Edsger"]}))
        assert len(rows(table)) == 3


def test_rows_are_written_to_a_branch_audited_and_published(table):
    table.append(people("Ada"))
    if table.format == "delta":
        for refused in (table.tags, table.branches, lambda: table.create_tag("v1"), lambda: table.drop_branch("audit")):
            with pytest.raises(lakehouse.UnsupportedError, match="tags or branches"):
                refused()
        with pytest.raises(lakehouse.UnsupportedError, match="no branches"):
            table.append(people("Grace", first=2), branch="audit")
        return
    first = table.version()
    assert table.create_tag("v1", max_ref_age_ms=1000)["committed"]
    assert not table.create_tag("v1")["committed"]
    made = table.create_branch("audit", min_snapshots_to_keep=3)
    assert made["before"] is None and made["after"]["version"] == first
    table.append(people("Grace", first=2), branch="audit")
    table.upsert(people("Ada H.", "Grace H."), on="id", branch="audit")
    table.delete("name = 'Ada H.'", branch="audit")
    table.compact(branch="audit")
    lakehouse.sql("INSERT INTO t (id) VALUES (3)", {"t": table}, branch="audit")
    assert [row["name"] for row in rows(table)] == ["Ada"]
    assert [row["name"] for row in rows(table, version="audit")] == ["Grace H.", None]
    query = "SELECT count(*) AS n FROM t VERSION AS OF 'audit'"
    assert lakehouse.sql(query, {"t": table}).to_arrow().to_pylist() == [{"n": 2}]
    assert len(table.history(branch="audit")) > len(table.history()) == 1
    assert table.branches()["audit"]["min_snapshots_to_keep"] == 3
    assert table.fast_forward("main", "audit")["committed"]
    assert [row["id"] for row in rows(table)] == [2, 3]
    with pytest.raises(lakehouse.InvalidError, match="already"):
        table.create_tag("v1")
    table.restore(-1, branch="audit")
    assert [row["id"] for row in rows(table, version="audit")] == [2]
    assert table.tags() == {
        "v1": {
            "kind": "tag",
            "version": first,
            "max_ref_age_ms": 1000,
            "min_snapshots_to_keep": None,
            "max_snapshot_age_ms": None,
        }
    }
    table.create_tag("v1", replace=True)
    assert table.tags()["v1"]["version"] == table.version()
    assert table.drop_tag("v1")["after"] is None
    assert table.drop_branch("audit")["committed"]
    assert list(table.branches()) == ["main"]
    with pytest.raises(lakehouse.InvalidError, match="numbers are versions"):
        table.create_branch("7")
