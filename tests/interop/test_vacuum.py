"""What `lake` would remove of a Delta table, beside what deltalake would."""

import json
import time
from pathlib import Path
from urllib.parse import unquote

import pytest

from tests.interop.tables import NO_MASKS, Kind, Lake, copied_life

DELTA = [Kind("delta"), Kind("delta", None, "grp"), Kind("delta", properties=NO_MASKS)]
NOW = ("--older-than", "1ms", "--unsafe-no-writers", "--dry-run", "--json")


def ours(cli: Lake, path: Path) -> set[str]:
    """What `lake` would remove, whatever its age."""
    return {file["path"] for file in json.loads(cli("vacuum", path, *NOW))["files"]}


def litter(path: Path) -> dict[str, set[str]]:
    """Leaves files of no version in a table; by who takes them for garbage."""
    files = {
        "both": {"orphan.parquet", "a b%20c=ü/part-0.snappy.parquet"},
        # What no Delta writer writes may be anybody's; deltalake removes all that is not hidden.
        "deltalake": {"notes.txt"},
        # Left by a writer that ended too early.
        "lake": {".lake-0.tmp"},
        "none": {".hidden/a.parquet", "_other/a.parquet"},
    }
    for name in set().union(*files.values()):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"x")
    return files


@pytest.mark.parametrize("kind", DELTA, ids=str)
def test_a_vacuum_of_lake_and_one_of_deltalake_remove_the_same_files(lake, kind, tmp_path):
    deltalake = pytest.importorskip("deltalake")
    cli = Lake(lake)
    life = copied_life(cli, kind, tmp_path)
    files = litter(life.path)
    time.sleep(0.05)
    table = deltalake.DeltaTable(life.path)
    theirs = table.vacuum(retention_hours=0, dry_run=True, enforce_retention_duration=False, full=True)
    theirs = {unquote(path) if not (life.path / path).exists() else path for path in theirs}
    mine = ours(cli, life.path)
    assert len(mine) > len(files["both"] | files["lake"])
    assert mine - theirs == files["lake"]
    # The feed of retained versions can be read on; deltalake looks at the age of its files only.
    feed = {name for name in theirs if name.startswith("_change_data/")}
    assert theirs - mine - feed == files["deltalake"]
