"""What `lake` would remove of a table, beside what `VACUUM` of Spark and `remove_orphan_files` of Iceberg would."""

import json
import os
import time
from pathlib import Path

import pytest

from tests.interop.tables import Kind, Lake, copied_life
from tests.interop.test_vacuum import NOW, ours

MASKS = ("write.delete.mode=merge-on-read",)
DELTA = [
    Kind("delta"),
    Kind("delta", None, "grp"),
    Kind("delta", properties=("delta.enableChangeDataFeed=true", "delta.enableDeletionVectors=false")),
]
ICEBERG = [Kind("iceberg", 2, "grp", properties=MASKS), Kind("iceberg", 3, properties=MASKS)]
# Below all of them: of no version, hidden, and not of the format.
ORPHANS = {"orphan.parquet", "a b=c/part-0.snappy.parquet"}
HIDDEN = {".hidden/a.parquet", "_other/a.parquet"}
OTHERS = {"notes.txt"}
LEFT_BEHIND = {".lake-0.tmp"}


def litter(path: Path, *more: str) -> None:
    for name in ORPHANS | HIDDEN | OTHERS | LEFT_BEHIND | set(more):
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(b"x")


def below(path: Path, places: list[str]) -> set[str]:
    """Files by their names below the table; folders, which are nothing in a store of objects, are left out."""
    names = set()
    for place in places:
        name = place.removeprefix("file:").replace(f"{path}/", "").lstrip("/")
        if not (path / name).is_dir():
            names.add(name)
    return names


@pytest.mark.parametrize("kind", DELTA, ids=str)
def test_a_vacuum_of_lake_and_one_of_spark_remove_the_same_files(spark, cli: Lake, kind, tmp_path):
    life = copied_life(cli, kind, tmp_path)
    litter(life.path, "_delta_index/a.idx")
    time.sleep(0.05)
    spark.run("SET spark.databricks.delta.retentionDurationCheck.enabled = false")
    listed = spark.session.sql(f"VACUUM delta.`{life.path}` RETAIN 0 HOURS DRY RUN").toArrow()
    theirs = below(life.path, listed["path"].to_pylist())
    mine = ours(cli, life.path)
    assert len(mine) > len(ORPHANS | LEFT_BEHIND)
    # The feed of retained versions can be read on; Spark looks at the age of its files only.
    feed = {name for name in theirs if name.startswith("_change_data/")}
    assert mine - theirs == LEFT_BEHIND
    assert theirs - mine - feed == OTHERS
    # Afterwards Spark reads the table, and finds nothing more to remove but these.
    cli("vacuum", life.path, *(option for option in NOW if option not in {"--dry-run", "--json"}))
    assert spark.read("delta", life.path).num_rows == len(life.rows)
    again = spark.session.sql(f"VACUUM delta.`{life.path}` RETAIN 0 HOURS DRY RUN").toArrow()
    assert below(life.path, again["path"].to_pylist()) - feed == OTHERS


@pytest.mark.parametrize("kind", ICEBERG, ids=str)
def test_a_vacuum_of_lake_and_orphan_files_of_iceberg_are_the_same(spark, cli: Lake, kind, tmp_path):
    life = copied_life(cli, kind, tmp_path)
    litter(life.path, "metadata/snap-1-0-x.avro", "metadata/x-m0.avro", "metadata/v0.metadata.json")
    # Versions that expire leave their files to a vacuum.
    name = spark.name("iceberg", life.path)
    spark.run(f"ALTER TABLE {name} SET TBLPROPERTIES ('history.expire.max-snapshot-age-ms'='1')")
    long_ago = time.time() - 10 * 24 * 3600
    for file in life.path.rglob("*"):
        os.utime(file, (long_ago, long_ago))
    listed = spark.sql(f"CALL ice.system.remove_orphan_files(table => '{name}', dry_run => true)")
    theirs = below(life.path, listed["orphan_file_location"].to_pylist())
    report = json.loads(cli("vacuum", life.path, "--dry-run", "--json"))
    mine = {file["path"] for file in report["files"]}
    assert len(mine) > len(ORPHANS | LEFT_BEHIND)
    assert mine - theirs == LEFT_BEHIND
    # Names of versions are not taken twice, whoever has lost sight of them.
    assert theirs - mine == OTHERS | {"metadata/v0.metadata.json"}
    cli("vacuum", life.path)
    assert spark.read("iceberg", life.path).num_rows == len(life.rows)
