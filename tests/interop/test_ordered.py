"""Tables whose rows `lake compact` put in order, read by engines that we did not write."""

import json
import random
from pathlib import Path

import pytest
from readers import check, newest_metadata
from tables import KEY, Kind, Lake, append, born, row, table

KINDS = [
    Kind("iceberg", 2),
    Kind("iceberg", 3, "bucket(2, id)"),
    Kind("delta"),
    Kind("delta", None, "bucket(2, id)", ("id_bucket",)),
]
ORDERS = {
    "sort": ("--sort-by", "name desc nulls last, amount"),
    "zorder": ("--zorder", "amount,ts,name"),
    "hilbert": ("--hilbert", "id,ratio"),
}


@pytest.fixture(scope="module")
def cli(lake: Path) -> Lake:
    return Lake(lake)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_reader_reads_rows_that_were_put_in_order(cli: Lake, kind: Kind, order: str, tmp_path: Path) -> None:
    life = born(cli, kind, tmp_path)
    ids = list(range(30_000))
    random.Random(1).shuffle(ids)
    for part in range(3):
        append(life, [row(i, ratio=float("nan")) if i % 50 == 3 else row(i) for i in ids[part::3]])
    compact = ("compact", life.path, *ORDERS[order], "--target-file-size", "16KB")
    report = cli.write(*compact)
    told = report["order"]
    share = {when: told[when][-1]["depth"] / told[when][-1]["files"] for when in ("before", "after")}
    # In two or three files of a partition there is nothing to see.
    assert kind.partition_by or share["after"] < share["before"], told
    assert report["metrics"]["num_target_files_added"] > 2
    check(kind.format, life.path, table(list(life.rows.values())), key=KEY, hidden=kind.hidden)
    assert not json.loads(cli(*compact, "--json"))["committed"]


def test_pyiceberg_sees_which_files_are_sorted(cli: Lake, tmp_path: Path) -> None:
    from pyiceberg.table import StaticTable

    life = born(cli, Kind("iceberg", 2), tmp_path)
    cli.write("alter", life.path, "--sort-by", "amount desc, id")
    for part in range(2):
        append(life, [row(i) for i in range(part, 400, 2)])

    def orders() -> set[int | None]:
        newest = StaticTable.from_metadata(str(newest_metadata(life.path)))
        return {task.file.sort_order_id for task in newest.scan().plan_files()}

    assert orders() == {None}
    cli.write("compact", life.path)
    sorted_table = StaticTable.from_metadata(str(newest_metadata(life.path)))
    assert orders() == {sorted_table.sort_order().order_id} != {0}
    amounts = sorted_table.scan().to_arrow()["amount"].to_pylist()
    assert amounts == sorted(amounts, key=lambda amount: (amount is None, -(amount or 0)))
