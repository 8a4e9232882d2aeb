"""Tags and branches that `lake` made, as PyIceberg sees them."""

import json
from pathlib import Path

import pytest
from readers import newest_metadata
from tables import Lake


@pytest.fixture(scope="module")
def cli(lake: Path) -> Lake:
    return Lake(lake)


def ids(path: Path, name: str | None = None) -> list[int]:
    from pyiceberg.table import StaticTable

    table = StaticTable.from_metadata(newest_metadata(path).absolute().as_uri())
    snapshot = table.snapshot_by_name(name).snapshot_id if name else None
    return sorted(table.scan(snapshot_id=snapshot).to_arrow()["id"].to_pylist())


@pytest.mark.parametrize("version", [2, 3])
def test_pyiceberg_reads_tags_and_branches(cli, tmp_path, version):
    from pyiceberg.table import StaticTable
    from pyiceberg.table.refs import SnapshotRefType

    path = tmp_path / "t"
    for name, numbers in [("first", "1\n2\n"), ("second", "3\n"), ("third", "4\n")]:
        (tmp_path / f"{name}.csv").write_text("id\n" + numbers)
    cli("create", path, "--schema", "id bigint not null", "--format-version", version)
    cli("append", path, tmp_path / "first.csv")
    cli("tag", path, "v1", "--keep-for", "30d")
    cli("branch", path, "audit", "--min-snapshots", 3, "--max-snapshot-age", "7d")
    cli("append", path, tmp_path / "second.csv", "--branch", "audit")
    cli("append", path, tmp_path / "third.csv")

    refs = StaticTable.from_metadata(newest_metadata(path).absolute().as_uri()).refs()
    assert set(refs) == {"main", "v1", "audit"}
    assert refs["v1"].snapshot_ref_type == SnapshotRefType.TAG
    assert refs["v1"].max_ref_age_ms == 30 * 86_400_000
    assert refs["audit"].snapshot_ref_type == SnapshotRefType.BRANCH
    assert (refs["audit"].min_snapshots_to_keep, refs["audit"].max_snapshot_age_ms) == (3, 7 * 86_400_000)
    assert ids(path) == [1, 2, 4]
    assert ids(path, "v1") == [1, 2]
    assert ids(path, "audit") == [1, 2, 3]

    cli("branch", path, "release", "--version", "audit")
    cli("branch", path, "audit", "--fast-forward-to", "release")
    cli("tag", path, "v1", "--drop")
    assert ids(path, "release") == [1, 2, 3]
    log = json.loads(newest_metadata(path).read_text())
    assert log["current-snapshot-id"] == log["snapshot-log"][-1]["snapshot-id"]
    assert len(log["snapshot-log"]) == 2


def test_pyiceberg_sees_what_was_published(cli, tmp_path):
    path = tmp_path / "t"
    (tmp_path / "first.csv").write_text("id\n1\n2\n")
    (tmp_path / "second.csv").write_text("id\n3\n")
    cli("append", path, tmp_path / "first.csv", "--create")
    cli("branch", path, "audit")
    cli("append", path, tmp_path / "second.csv", "--branch", "audit")
    cli("delete", path, "--where", "id = 1", "--branch", "audit")
    cli("branch", path, "main", "--fast-forward-to", "audit")
    assert ids(path) == ids(path, "audit") == [2, 3]
