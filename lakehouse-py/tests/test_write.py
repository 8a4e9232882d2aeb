"""What Python's verbs for rows do."""

import lakehouse
import pyarrow as pa
import pytest
from samples import people, rows


def test_upsert_updates_and_inserts(table):
    table.append(people("Ada", "Grace"))
    report = table.upsert(people("Grace H.", "Edsger", first=2), on="id")
    assert (report["num_target_rows_updated"], report["num_target_rows_inserted"]) == (1, 1)
    assert [row["name"] for row in rows(table)] == ["Ada", "Grace H.", "Edsger"]


def test_merge_builder_runs_its_clauses_in_order(table):
    table.append(people("a", "b", "c"))
    report = (
        table.merge(people("B", "C", "D", first=2), on=["id"])
        .when_matched_delete("source.name = 'C'")
        .when_matched_update({"name": "source.name || target.name", "amount": "1.5"})
        .when_not_matched_insert_all()
        .when_not_matched_by_source_update({"name": "'gone'"})
        .execute()
    )
    assert report["num_target_rows_deleted"] == 1
    assert rows(table) == [
        {"id": 1, "name": "gone", "amount": None},
        {"id": 2, "name": "Bb", "amount": 1.5},
        {"id": 4, "name": "D", "amount": None},
    ]


def test_merge_cannot_run_twice(table):
    merge = table.merge(people("a"), on="id").when_not_matched_insert_all()
    merge.execute()
    with pytest.raises(ValueError, match="executed already"):
        merge.execute()


def test_update_delete_overwrite(table):
    table.append(people("a", "b", "c"))
    table.update({"amount": "id * 2.0"}, "id > 1")
    table.delete("id = 3")
    assert [(row["id"], row["amount"]) for row in rows(table)] == [(1, None), (2, 4.0)]
    table.overwrite(people("z", first=2), "id = 2")
    assert [row["name"] for row in rows(table)] == ["a", "z"]
    table.overwrite(people("only"))
    assert [row["name"] for row in rows(table)] == ["only"]


def test_idempotency_key_commits_once(table):
    table.append(people("a"), idempotency_key="night-1")
    again = table.append(people("a"), idempotency_key="night-1")
    assert not again["committed"]
    assert again["already_committed_as"] is not None
    assert table.scan().count() == 1


def test_schema_mode_adds_columns_or_refuses_them(table):
    table.append(people("Ada"))
    wide = pa.table({"id": [2], "name": ["Grace"], "rank": ["admiral"]})
    with pytest.raises(lakehouse.InvalidError, match="rank"):
        table.append(wide)
    planned = table.append(wide, schema_mode="merge", dry_run=True)
    assert planned["columns_added"] == ["rank"]
    assert table.schema().names == ["id", "name", "amount"]
    report = table.append(wide, schema_mode="merge")
    assert (report["columns_added"], report["columns_widened"]) == (["rank"], [])
    assert table.schema().names == ["id", "name", "amount", "rank"]
    assert table.schema(version=-1).names == ["id", "name", "amount"]
    assert [row["rank"] for row in rows(table)] == [None, "admiral"]
    feed = pa.table({"id": [1, 3], "born": [1815, 1930]})
    with pytest.raises(lakehouse.InvalidError, match="born"):
        table.upsert(feed, on="id")
    assert table.upsert(feed, on="id", schema_mode="merge")["columns_added"] == ["born"]
    assert [row["born"] for row in rows(table)] == [1815, None, 1930]
    assert table.overwrite(people("x", first=2), "id = 2", schema_mode="strict", dry_run=True)["columns_added"] == []
    with pytest.raises(lakehouse.InvalidError, match="no schema mode"):
        table.append(wide, schema_mode="sideways")


def test_strategy_says_what_becomes_of_files(table):
    table.append(people(*"abcdefgh"))
    feed = people("B", first=2)
    masked = table.upsert(feed, on="id", strategy="merge-on-read", dry_run=True)
    assert (masked["num_target_files_masked"], masked.get("num_target_files_rewritten", 0)) == (1, 0)
    rewritten = table.upsert(feed, on="id", strategy="copy-on-write", memory_limit=256 << 20)
    assert (rewritten["num_target_files_masked"], rewritten["num_target_rows_copied"]) == (0, 7)
    with pytest.raises(lakehouse.InvalidError, match="no strategy 'fast'|no strategy \"fast\""):
        table.upsert(feed, on="id", strategy="fast")
    with pytest.raises(TypeError, match='no option "speed".*memory_limit'):
        table.delete("id = 1", speed=9)


def test_skip_unchanged_leaves_equal_rows_alone(table):
    table.append(people("a", "b"))
    merge = table.merge(people("a", "B"), on="id", skip_unchanged=True)
    assert merge.when_matched_update_all().execute()["num_target_rows_unchanged"] == 1
    merge = table.merge(people("a", "B"), on="id", skip_unchanged=True)
    assert not merge.when_matched_update_all().execute()["committed"]


def test_dry_run_commits_nothing(table):
    report = table.append(people("a"), dry_run=True)
    assert report["dry_run"] and not report["committed"]
    assert table.scan().count() == 0
