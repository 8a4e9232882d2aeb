"""The change data feed that `lake` writes, read by delta-rs. It reads none of tables with deletion vectors."""

import pyarrow as pa
import pytest

from tests.interop import feeds
from tests.interop.tables import REWRITTEN, Lake, copied_life


@pytest.mark.parametrize("kind", REWRITTEN, ids=str)
def test_deltalake_follows_a_table_that_lake_changes(lake, kind, tmp_path):
    deltalake = pytest.importorskip("deltalake")
    life = copied_life(Lake(lake), kind, tmp_path)
    feed = pa.table(deltalake.DeltaTable(life.path).load_cdf(starting_version=1))
    feeds.check(life, feed, ["delete range", "merge", "delete"])
    assert (life.path / "_change_data").is_dir()
