"""Old versions go, and every reader reads those that stay."""

import json
from pathlib import Path

import pytest

from tests.interop.expired import KINDS, expired
from tests.interop.readers import check
from tests.interop.tables import KEY, Kind, Lake, table


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: f"{kind} {len(kind.properties)}")
def test_every_reader_reads_a_table_whose_old_versions_went(lake: Path, kind: Kind, tmp_path: Path) -> None:
    cli, path = Lake(lake), tmp_path / "t"
    kept = expired(cli, kind, path, tmp_path)
    newest = list(kept)[-1]
    for version, model in kept.items():
        masks = ["deletion-vectors"] if kind.version == 3 and version == newest else []
        check(kind.format, path, table(model), version, KEY, features=masks)
    if kind.format == "iceberg":
        masks = ["deletion-vectors"] if kind.version == 3 else []
        report = cli.write("rewrite-manifests", path)
        assert report["committed"] and report["manifests_replaced"] >= 8, report
        check(kind.format, path, table(kept[newest]), None, KEY, features=masks)
    else:
        assert not (path / "_delta_log" / f"{0:020}.json").exists()
        assert json.loads(cli("checkpoint", path, "--json"))["version"] == newest
        check(kind.format, path, table(kept[newest]), None, KEY)
