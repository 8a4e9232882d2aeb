"""Tables whose old versions went, as Spark reads them and writes on."""

from pathlib import Path

import pytest

from tests.interop.expired import KINDS, expired
from tests.interop.readers import assert_same
from tests.interop.tables import KEY, table


@pytest.mark.parametrize("kind", KINDS[2:], ids=lambda kind: f"{kind} {len(kind.properties)}")
def test_spark_reads_a_table_whose_log_went_and_writes_on(spark, cli, kind, tmp_path):
    path: Path = tmp_path / "t"
    kept = expired(cli, kind, path, tmp_path)
    for version, model in kept.items():
        assert_same(table(model), spark.read("delta", path, version), KEY)
    cli("checkpoint", path)
    newest = list(kept)[-1]
    assert_same(table(kept[newest]), spark.read("delta", path), KEY)
    spark.run(f"DELETE FROM {spark.name('delta', path)} WHERE id < 30")
    left = [row for row in kept[newest] if row["id"] >= 30]
    assert_same(table(left), cli.read(path, tmp_path), KEY)
