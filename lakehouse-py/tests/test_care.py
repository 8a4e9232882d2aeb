"""What Python's verbs for the upkeep of a table do."""

import time
from datetime import timedelta
from pathlib import Path

import lakehouse
import pyarrow as pa
import pytest
from samples import people, rows


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
