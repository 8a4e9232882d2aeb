"""Merges of change feeds."""

import lakehouse
import pyarrow as pa
import pytest
from samples import people, rows


def feed(**columns):
    types = {"id": pa.int64(), "amount": pa.float64(), "lsn": pa.int64()}
    return pa.table({name: pa.array(values, types.get(name, pa.string())) for name, values in columns.items()})


def test_a_feed_with_duplicates_says_which_row_counts(table):
    table.append(people("a"))
    twice = feed(id=[1, 1, 2], name=["x", "y", "z"], lsn=[9, 8, 1])

    def run(**order):
        merge = table.merge(twice, "id", **order).when_matched_update({"name": "source.name"})
        merge.when_not_matched_insert({"id": "source.id", "name": "source.name"}).execute()
        return [row["name"] for row in rows(table)]

    with pytest.raises(lakehouse.InvalidError, match="several source rows"):
        run()
    assert run(on_duplicate="last") == ["y", "z"]
    assert run(sequence_by="lsn") == ["x", "z"]
    with pytest.raises(lakehouse.InvalidError, match="which of several"):
        run(on_duplicate="newest")


@pytest.mark.parametrize("cdc", ["op=op,sequence=lsn,delete=X", {"op": "op", "sequence": "lsn", "delete": "X"}])
def test_a_change_feed_needs_no_clauses(table, cdc):
    table.append(people("a", "b"))
    changes = feed(op=["U", "X", "I", "U"], id=[3, 2, 3, 1], name=["late", None, "early", "A"], lsn=[9, 9, 8, 9])
    for _ in range(2):
        table.merge(changes, "id", cdc=cdc).execute()
        assert [(row["id"], row["name"]) for row in rows(table)] == [(1, "A"), (3, "late")]
    with pytest.raises(lakehouse.InvalidError, match="says itself"):
        table.merge(changes, "id", cdc=cdc).when_matched_delete().execute()


def test_change_feeds_are_checked(table):
    for wrong, error in [
        ("kind", lakehouse.InvalidError),
        ({"sequence": "lsn"}, ValueError),
        ({"op": "op", "sort": "lsn"}, ValueError),
        (7, TypeError),
    ]:
        with pytest.raises(error):
            table.merge(people("a"), "id", cdc=wrong)


def test_debezium_and_tombstones(tmp_path):
    table = lakehouse.Table.create(str(tmp_path / "t"), "id bigint, name string, ts_ms bigint, gone boolean")
    row = pa.struct([("id", pa.int64()), ("name", pa.string())])

    def play(*records):
        before, after, op, ts_ms = zip(*records, strict=True)
        envelope = {"before": pa.array(before, row), "after": pa.array(after, row), "op": op, "ts_ms": ts_ms}
        table.merge(pa.table(envelope), "id", cdc="debezium", tombstones="gone").execute()
        return [tuple(found.values()) for found in rows(table)]

    one, two = {"id": 1, "name": "one"}, {"id": 2, "name": "two"}
    assert play((None, one, "c", 1), (None, two, "r", 2)) == [(1, "one", 1, False), (2, "two", 2, False)]
    assert play((one, None, "d", 5)) == [(1, "one", 5, True), (2, "two", 2, False)]
    assert play((None, one, "u", 4)) == [(1, "one", 5, True), (2, "two", 2, False)]
