"""Tables whose old versions went, for every reader."""

import os
import time
from pathlib import Path

from tests.interop.tables import MASK, Kind, Lake, Row, row, table

KINDS = [
    Kind("iceberg", 2, properties=("write.metadata.previous-versions-max=2",)),
    Kind("iceberg", 3, properties=("write.metadata.previous-versions-max=2",)),
    Kind("delta", properties=("delta.checkpointInterval=4",)),
    Kind("delta", properties=("delta.checkpointInterval=4", "delta.checkpointPolicy=v2")),
]


def age(path: Path, days: int = 3) -> None:
    """Makes all files of a table older: names of versions are not freed within two days."""
    then = time.time() - days * 86_400
    for file in path.rglob("*"):
        if file.is_file():
            os.utime(file, (then, then))


def expired(lake: Lake, kind: Kind, path: Path, tmp_path: Path) -> dict[int, list[Row]]:
    """A table of which the last three versions are left, and what they hold."""
    import pyarrow.parquet as pq

    kind.create(lake, path)
    versions, model = {}, []
    for start in range(0, 80, 10):
        rows = [row(i) for i in range(start, start + 10)]
        feed = tmp_path / "feed.parquet"
        pq.write_table(table(rows), feed)
        model = model + rows
        versions[lake.write("append", path, feed)["version"]] = model
    model = [one for one in model if one["id"] % 7]
    versions[lake.write("delete", path, "--where", "id % 7 = 0", *MASK)["version"]] = model
    age(path)
    before = {file for file in path.rglob("*.parquet") if "_delta_log" not in file.parts}
    report = lake.write("expire", path, "--older-than", "0d", "--retain-last", "3")
    assert report["kept"] == 3 and len(report["expired"]) >= 6, report
    assert report["files_deleted"], report
    assert all(file.exists() for file in before), "no data file goes"
    kept = list(versions)[-3:]
    return {version: versions[version] for version in kept}
