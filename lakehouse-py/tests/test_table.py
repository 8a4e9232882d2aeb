"""The Python module: what goes in, what comes out, what is raised."""

import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import duckdb
import lakehouse
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import FORMATS, people, rows


def test_created_table_opens_with_its_schema(table):
    opened = lakehouse.Table.open(table.location)
    assert opened.format == table.format
    assert opened.schema().names == ["id", "name", "amount"]
    assert opened.schema().to_arrow().field("id").type == pa.int64()
    assert not opened.schema().to_arrow().field("id").nullable
    assert rows(opened) == []


@pytest.mark.parametrize(("name", "version"), FORMATS)
def test_files_that_are_there_become_a_table(name, version, tmp_path):
    place = tmp_path / "t"
    for year in (2023, 2024):
        (place / f"raw/year={year}").mkdir(parents=True)
        pq.write_table(people("Ada", "Grace", first=year * 10), place / f"raw/year={year}/part.parquet")
    with pytest.raises(lakehouse.InvalidError, match="not inside of"):
        lakehouse.Table.adopt(str(place), str(tmp_path), format=name, format_version=version)
    options = {"format": name, "format_version": version, "schema": "year int, id bigint not null"}
    adopted = lakehouse.Table.adopt(str(place), str(place / "raw"), **options)
    assert adopted.schema().to_arrow().field("year").type == pa.int32()
    assert not adopted.schema().to_arrow().field("id").nullable
    adopted.upsert(people("Ada L.", first=20230).append_column("year", pa.array([2023], pa.int32())), on="id")
    found = [tuple(row.values()) for row in rows(adopted)]
    assert found == [(20230, "Ada L.", 2023), (20231, "Grace", 2023), (20240, "Ada", 2024), (20241, "Grace", 2024)]
    with pytest.raises(lakehouse.LakehouseError, match="already exists"):
        lakehouse.Table.adopt(str(place), format=name, format_version=version)


def test_a_limit_is_moved_by_a_storage_option_and_named_where_it_is_met(table):
    table.append(people("Ada", "Grace"))
    option = "max_commit_bytes" if table.format == "delta" else "max_metadata_bytes"
    with pytest.raises(lakehouse.LimitError, match=f"at most 100 are read(.|\n)*{option}"):
        rows(lakehouse.Table.open(table.location, storage_options={option: "100"}))
    with pytest.raises(lakehouse.InvalidError, match=option):
        lakehouse.Table.open(table.location, storage_options={option: "plenty"})
    sql = f"SELECT * FROM '{table.location}'"
    with pytest.raises(lakehouse.LimitError):
        lakehouse.sql(sql, storage_options={option: "100"})
    assert lakehouse.sql(sql, storage_options={option: "1MB"}).to_arrow().num_rows == 2


@pytest.mark.parametrize("make", [lambda t: t, pl.from_arrow, lambda t: t.to_pandas(), lambda t: duckdb.from_arrow(t)])
def test_any_arrow_stream_goes_in(table, make):
    report = table.append(make(people("Ada", "Grace")))
    assert report["committed"]
    assert [row["name"] for row in rows(table)] == ["Ada", "Grace"]


def test_generator_of_batches_is_read_without_deadlock(table):
    schema = pa.schema({"id": pa.int64(), "name": pa.string()})
    batches = (people(f"n{i}", first=i).cast(schema).to_batches()[0] for i in range(20))
    table.append(pa.RecordBatchReader.from_batches(schema, batches))
    assert table.scan().count() == 20


def test_results_come_out_as_arrow_pandas_polars_and_stream(table):
    table.append(people("Ada", "Grace"))
    scan = table.scan("id = 2", columns=["name"])
    assert scan.to_arrow().to_pylist() == [{"name": "Grace"}]
    assert isinstance(scan.to_pandas(), pd.DataFrame)
    assert scan.to_polars().rows() == [("Grace",)]
    assert pl.DataFrame(scan).rows() == [("Grace",)]
    assert scan.schema.names == ["name"]


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


def test_check_finds_nothing_in_a_sound_table_and_the_file_that_is_gone(table):
    table.append(pa.table({"id": [1, 2], "name": ["a", None], "amount": [1.5, float("nan")]}))
    assert [f for f in table.check(deep=True, all_versions=True) if f["severity"] != "note"] == []
    root = Path(table.location.removeprefix("file://"))
    file = next(root.rglob("*.parquet"))
    file.unlink()
    (finding,) = table.check()
    path = file.relative_to(root).as_posix()
    assert (finding["code"], finding["severity"], finding["path"]) == ("file-missing", "error", path)
    assert "restore" in finding["todo"]
    assert table.check(-1) == []


def test_health_has_the_figures_of_the_table(table):
    table.append(pa.table({"id": [1, 2], "name": ["a", "b"], "amount": [1.5, 2.5]}))
    table.append(pa.table({"id": [3], "name": ["c"], "amount": [3.5]}))
    health = table.health()
    assert (health["files"]["files"], health["files"]["rows"], health["files"]["masked_rows"]) == (2, 3, 0)
    assert health["to_compact"]["files"] == health["small_files"]["files"] == 2
    assert sum(sum(day["commits"].values()) for day in health["days"]) == health["versions"] >= 2


def test_compact_keeps_the_rows(table):
    for i in range(5):
        table.append(people(f"n{i}", first=i))
    before = rows(table)
    report = table.compact()
    assert report["num_target_files_removed"] == 5
    assert rows(table) == before
    assert not table.compact()["committed"]


def test_compact_works_on_several_groups_at_a_time(table):
    for i in range(6):
        table.append(people(f"n{i}", first=i))
    before = rows(table)
    with pytest.raises(lakehouse.InvalidError, match="max-concurrent-groups"):
        table.compact(max_concurrent_groups=0)
    size = table.compact(dry_run=True)["bytes_to_rewrite"]
    report = table.compact(max_rewrite=size // 2, max_concurrent_groups=2)
    assert report["num_commits"] > 1
    assert rows(table) == before


def test_compact_tells_its_groups_and_keeps_to_its_budget(table):
    for i in range(5):
        table.append(people(f"n{i}", first=i))
    before = rows(table)
    planned = table.compact(dry_run=True)
    (group,) = planned["groups"]
    assert (group["files"], group["expected_files"], group["outcome"]) == (5, 1, "planned")
    assert group["bytes"] == planned["bytes_to_rewrite"]
    assert not table.compact(min_input_files=6)["committed"]
    assert table.compact(max_time=0)["groups"][0]["outcome"] == "skipped"
    (too_much,) = table.compact(max_bytes=1)["groups"]
    assert too_much["outcome"] == "skipped" and "bytes" in too_much["why"]
    part = table.compact(max_bytes=group["bytes"] - 1)
    assert [(group["files"], group["outcome"]) for group in part["groups"]] == [(1, "skipped"), (4, "committed")]
    assert not table.compact(strategy="masked-files", delete_ratio_threshold=0.5)["committed"]
    done = table.compact(strategy="small-files", idempotency_key="night-1")
    assert [group["version"] for group in done["groups"]] == [done["version"]]
    assert table.compact(idempotency_key="night-1")["already_committed_as"] == done["version"]
    assert rows(table) == before
    with pytest.raises(lakehouse.InvalidError, match="some-files"):
        table.compact(strategy="some-files")
    with pytest.raises(lakehouse.InvalidError, match="min-input-files"):
        table.compact(min_input_files=1)
    with pytest.raises(ValueError, match="max_time"):
        table.compact(max_time=-1)


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


def test_errors_form_a_small_tree(table, tmp_path):
    with pytest.raises(lakehouse.NotFoundError, match="nowhere"):
        lakehouse.Table.open(str(tmp_path / "nowhere"))
    with pytest.raises(lakehouse.AlreadyExistsError):
        lakehouse.Table.create(table.location, "id bigint")
    with pytest.raises(lakehouse.InvalidError, match="extra"):
        table.append(pa.table({"id": [1], "extra": [1]}))
    with pytest.raises(lakehouse.InvalidError, match="id"):
        table.append(pa.table({"id": pa.array([None], pa.int64())}))
    with pytest.raises(lakehouse.LakehouseError, match="nonsense"):
        table.delete("nonsense = 1")
    with pytest.raises(lakehouse.NotFoundError):
        table.scan(version=-99)
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        table.append([1, 2, 3])
    assert issubclass(lakehouse.NotFoundError, lakehouse.LakehouseError)
    assert table.scan().count() == 0


def test_error_of_the_input_stream_reaches_the_caller_and_commits_nothing(table):
    schema = pa.schema({"id": pa.int64()})

    def batches():
        yield pa.record_batch({"id": pa.array([1], pa.int64())})
        raise RuntimeError("the source broke")

    with pytest.raises(lakehouse.LakehouseError, match="the source broke"):
        table.append(pa.RecordBatchReader.from_batches(schema, batches()))
    assert table.scan().count() == 0


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


@pytest.mark.parametrize("format", ["iceberg", "delta"])
def test_old_versions_go_and_metadata_is_put_in_order(format, tmp_path):
    table = lakehouse.Table.create(str(tmp_path / "t"), "id bigint, name string", format=format)
    for first in range(4):
        table.append(people("Ada", first=first))
    said = table.expire(timedelta(0), retain_last=2, dry_run=True)
    assert said["dry_run"] and not said["committed"]
    report = table.expire(timedelta(0), retain_last=2)
    if format == "iceberg":
        assert len(report["expired"]) == 2 and report["kept"] == 2
        assert report["expired"] == said["expired"]
        with pytest.raises(lakehouse.NotFoundError):
            table.scan(version=report["expired"][0]).count()
        assert table.rewrite_manifests()["manifests_created"] == 1
        assert not table.rewrite_manifests()["committed"]
        with pytest.raises(lakehouse.UnsupportedError, match="no checkpoints"):
            table.checkpoint()
    else:
        # Their names are not freed within two days.
        assert report["too_young"] == 3 and report["expired"] == []
        assert table.checkpoint()["version"] == 4
        assert table.checkpoint(format="classic")["already"]
        with pytest.raises(lakehouse.UnsupportedError, match="v2Checkpoint"):
            table.checkpoint(format="v2")
        with pytest.raises(ValueError, match="checkpoint format"):
            table.checkpoint(format="v3")
        with pytest.raises(lakehouse.UnsupportedError, match="no manifests"):
            table.rewrite_manifests()
    assert table.scan().count() == 4
    with pytest.raises(ValueError):
        table.expire(timedelta(days=-1))


def test_a_vacuum_removes_what_no_version_needs_unless_it_is_dry(table, tmp_path):
    table.append(people("Ada", "Grace"))
    before = table.version()
    table.overwrite(people("Edsger"))
    orphan = tmp_path / "t" / "orphan.parquet"
    orphan.write_bytes(b"x")
    time.sleep(0.05)
    young = table.vacuum()
    assert young["num_files_removed"] == 0 and young["num_files_too_young"] >= 1
    now = {"retention_hours": 1e-6, "unsafe_no_writers": True}
    planned = table.vacuum(dry_run=True, **now)
    assert planned["dry_run"] and "orphan.parquet" in planned["files"] and orphan.exists()
    kept = table.vacuum(keep_versions=[before], quarantine=".quarantine", **now)
    assert kept["files"] == ["orphan.parquet"] and not orphan.exists()
    assert (tmp_path / "t" / ".quarantine" / "orphan.parquet").exists()
    assert len(rows(table, version=before)) == 2
    done = table.vacuum(**now)
    assert done["num_files_left"] == {".quarantine/": 1}
    # Delta's version of before is not retained any more, Iceberg's is until it expires.
    assert done["num_files_removed_by_kind"] == ({"data": 1} if table.format == "delta" else {})
    assert [row["name"] for row in rows(table)] == ["Edsger"]
    with pytest.raises(lakehouse.InvalidError, match="48 hours"):
        table.vacuum(retention_hours=1)
    with pytest.raises(ValueError, match="retention_hours"):
        table.vacuum(retention_hours=-1)
