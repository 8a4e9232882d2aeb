"""Row lineage of Iceberg v3 and row tracking of Delta, as Spark reads them."""

import json
from collections.abc import Iterable
from dataclasses import dataclass

from tests.interop.readers import newest_metadata
from tests.interop.tables import Life, Step


@dataclass(frozen=True)
class Lineage:
    """What the format knows of a row beside its values."""

    row_id: int
    changed: int  # the sequence number of the snapshot that last changed it


def read(spark, life: Life, version: int) -> dict[int, Lineage]:
    """By the key of the row."""
    columns = "id, _row_id, _last_updated_sequence_number AS changed"
    rows = spark.read("iceberg", life.path, version, columns=columns).to_pylist()
    return {r["id"]: Lineage(r["_row_id"], r["changed"]) for r in rows}


def same(step: Step, before: dict[int, Lineage], now: dict[int, Lineage]) -> None:
    wrong = [f"row {i} was {before.get(i)}, is {row}" for i, row in now.items() if row != before.get(i)]
    assert not wrong, "\n".join([f"{step.name}: {len(wrong)} of {len(now)}", *wrong[:5]])


def check(spark, life: Life, steps: Iterable[Step]) -> None:
    """At every step, rows keep their id for life, those that change have the number of the snapshot that changed them,
    and new rows have ids that no row before them had. A restore brings back what the first merge left."""
    metadata = json.loads(newest_metadata(life.path).read_text())
    snapshots = {snapshot["snapshot-id"]: snapshot for snapshot in metadata["snapshots"]}
    before: dict[int, Lineage] = {}
    values: dict[int, dict] = {}
    merged: dict[int, Lineage] = {}
    for step in steps:
        now, snapshot = read(spark, life, step.version), snapshots[step.version]
        assert now.keys() == step.rows.keys(), step.name
        assert len({row.row_id for row in now.values()}) == len(now), f"{step.name}: a row id is there twice"
        if step.name == "restore":
            same(step, merged, now)
        elif step.name.startswith("compact"):
            same(step, before, now)
        else:
            for i, row in now.items():
                # An overwrite puts new rows in the place of old ones.
                if i not in before or step.name == "overwrite" and row.row_id != before[i].row_id:
                    assert row.row_id >= snapshot["first-row-id"], f"{step.name}: new row {i} has an old id: {row}"
                    assert row.changed == snapshot["sequence-number"], f"{step.name}: new row {i}: {row}"
                    continue
                assert row.row_id == before[i].row_id, f"{step.name}: row {i} was {before[i]}, is {row}"
                numbers = {snapshot["sequence-number"]}
                if values[i] == step.rows[i]:
                    numbers.add(before[i].changed)
                assert row.changed in numbers, f"{step.name}: row {i} was {before[i]}, is {row}"
        before, values = now, step.rows
        if step.name == "merge" and not merged:
            merged = now


def read_delta(spark, life: Life, version: int) -> dict[int, Lineage]:
    """By the key of the row."""
    columns = "id, _metadata.row_id AS row_id, _metadata.row_commit_version AS changed"
    rows = spark.read("delta", life.path, version, columns=columns).to_pylist()
    return {r["id"]: Lineage(r["row_id"], r["changed"]) for r in rows}


def check_delta(spark, life: Life, steps: Iterable[Step]) -> None:
    """The same for a Delta table that tracks rows: they say which version changed them last."""
    before: dict[int, Lineage] = {}
    values: dict[int, dict] = {}
    given: set[int] = set()
    merged: dict[int, Lineage] = {}
    for step in steps:
        now = read_delta(spark, life, step.version)
        assert now.keys() == step.rows.keys(), step.name
        assert len({row.row_id for row in now.values()}) == len(now), f"{step.name}: a row id is there twice"
        if step.name == "restore":
            same(step, merged, now)
        elif step.name.startswith("compact"):
            same(step, before, now)
        else:
            for i, row in now.items():
                if i not in before or step.name == "overwrite" and row.row_id != before[i].row_id:
                    assert row.row_id not in given, f"{step.name}: new row {i} has an old id: {row}"
                    assert row.changed == step.version, f"{step.name}: new row {i}: {row}"
                    continue
                assert row.row_id == before[i].row_id, f"{step.name}: row {i} was {before[i]}, is {row}"
                unchanged = {before[i].changed} if values[i] == step.rows[i] else set()
                assert row.changed in {step.version} | unchanged, f"{step.name}: row {i} was {before[i]}, is {row}"
        given |= {row.row_id for row in now.values()}
        before, values = now, step.rows
        if step.name == "merge" and not merged:
            merged = now
