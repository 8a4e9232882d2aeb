"""Statements of SQL."""

import lakehouse
import pytest
from samples import people, rows


def test_sql_gives_rows_or_a_report(table, tmp_path):
    table.append(people("a", "b", "c"))
    assert lakehouse.sql("SELECT max(id) AS id FROM t", {"t": table}).to_arrow().to_pylist() == [{"id": 3}]
    (tmp_path / "feed.csv").write_text("id,name\n3,C\n4,D\n")
    merge = f"""
        MERGE INTO t USING '{tmp_path}/feed.csv' s ON t.id = s.id
        WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *
    """
    assert lakehouse.sql(merge, {"t": table}, dry_run=True)["committed"] is False
    report = lakehouse.sql(merge, {"t": table.location}, idempotency_key="one")
    assert (report["operation"], report["num_target_rows_updated"], report["num_target_rows_inserted"]) == (
        "merge",
        1,
        1,
    )
    assert lakehouse.sql(merge, {"t": table}, idempotency_key="one")["already_committed_as"] == report["version"]
    report = lakehouse.sql(f"DELETE FROM '{table.location}' WHERE id < (SELECT max(id) - 1 FROM t)", {"t": table})
    assert report["num_target_rows_deleted"] == 2
    assert [row["name"] for row in rows(table)] == ["C", "D"]


def test_sql_that_is_not_known_is_refused(table):
    with pytest.raises(lakehouse.UnsupportedError, match="RETURNING"):
        lakehouse.sql("DELETE FROM t RETURNING id", {"t": table})
    with pytest.raises(lakehouse.NotFoundError):
        lakehouse.sql("DELETE FROM nosuch")
    with pytest.raises(TypeError, match="table t"):
        lakehouse.sql("SELECT 1", {"t": 7})


@pytest.mark.parametrize("version", [2, 3])
def test_sql_reads_and_writes_the_branch_that_a_name_says(version, tmp_path):
    table = lakehouse.Table.create(str(tmp_path / "t"), "id bigint, name string", format_version=version)
    table.append(people("Ada"))
    table.create_branch("audit")
    report = lakehouse.sql("INSERT INTO t.branch_audit VALUES (2, 'Grace')", {"t": table})
    assert report["committed"]
    count = lakehouse.sql(f"SELECT count(*) AS n FROM '{table.location}.branch_audit'")
    assert count.to_arrow().to_pylist() == [{"n": 2}]
    assert len(rows(table)) == 1
    assert table.diff("main", "audit").count()["added"] == 1
    with pytest.raises(lakehouse.NotFoundError, match="nosuch"):
        lakehouse.sql("SELECT * FROM t.branch_nosuch", {"t": table})
