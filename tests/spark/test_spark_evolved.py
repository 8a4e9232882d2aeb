"""Tables whose columns and partitioning random programs changed on the way, read by Spark."""

import os

import pytest

from tests.interop.evolved import KINDS, left
from tests.interop.readers import assert_same, newest_metadata

# Tables of each kind: one takes a third of a second.
READ = int(os.environ.get("LAKEHOUSE_EVOLVED", 40))
SHOWN = 5


@pytest.mark.parametrize(("evolving", "form"), KINDS)
def test_spark_reads_what_random_programs_of_evolution_left(spark, evolving, form):
    wrong, tables = [], left(evolving, form)[:READ]
    for table in tables:
        try:
            if table.format == "delta":
                got = spark.read("delta", table.path)
            else:
                got = spark.read_metadata(newest_metadata(table.path))
            expected, hidden = table.expected, list(table.hidden)
            assert got.column_names == expected.column_names + hidden
            assert_same(expected, got.drop_columns(hidden))
        except Exception as error:
            wrong.append(f"{table}: {error}")
    assert not wrong, "\n\n".join([f"{len(wrong)} of {len(tables)} tables are read wrongly", *wrong[:SHOWN]])
