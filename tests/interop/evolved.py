"""Tables that random programs of evolution left in `target/evolved`, with the rows that the model has of them.

`tests/tests/model/evolved.rs` makes them, so that the Rust tests come first: `cargo test --workspace model::`.
"""

import json
import os
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pytest

from tests.interop.readers import newest_metadata

ROOT = Path(__file__).parents[2]
HOME = ROOT / "target" / "evolved"
# What evolves, and the formats in which it does.
EVOLVED = {"columns": ["iceberg2", "iceberg3", "delta"], "partitioning": ["iceberg2", "iceberg3"]}
KINDS = [(evolving, form) for evolving, forms in EVOLVED.items() for form in forms]
# Of a kind, in CI.
LEFT = 100


@dataclass(frozen=True)
class Evolved:
    """A table that a program left."""

    folder: Path

    def __str__(self) -> str:
        return f"{self.folder.parent.name}/{self.folder.name}"

    @property
    def path(self) -> Path:
        return self.folder / "table"

    @property
    def format(self) -> str:
        return "delta" if self.folder.name.startswith("delta") else "iceberg"

    @property
    def expected(self) -> pa.Table:
        """The newest version, as the model has it."""
        with pa.ipc.open_file(self.folder / "rows.arrow") as file:
            return file.read_all()

    @cached_property
    def features(self) -> set[str]:
        """What readers may be unable to read, as `CANNOT` names it."""
        return self._features_of_delta() if self.format == "delta" else self._features_of_iceberg()

    def _features_of_delta(self) -> set[str]:
        features = set()
        if "typeWidening" in self._newest("protocol").get("readerFeatures", []):
            features.add("type-widening")
        metadata = self._newest("metaData")
        fields = json.loads(metadata["schemaString"])["fields"]
        renamed = [f["metadata"].get("delta.columnMapping.physicalName", f["name"]) != f["name"] for f in fields]
        by = [at for at, field in enumerate(fields) if field["name"] in metadata["partitionColumns"]]
        if by and any(renamed[: by[-1]]) and len(by) > len(self.hidden):
            features.add("renamed-before-partition")
        return features

    def _features_of_iceberg(self) -> set[str]:
        from pyiceberg.manifest import ManifestContent
        from pyiceberg.table import StaticTable

        table = StaticTable.from_metadata(newest_metadata(self.path).absolute().as_uri())
        snapshot = table.current_snapshot()
        manifests = snapshot.manifests(table.io) if snapshot else []
        features = set()
        deletes = any(manifest.content == ManifestContent.DELETES for manifest in manifests)
        if deletes and table.format_version >= 3:
            features.add("deletion-vectors")
        columns = {field.field_id for field in table.schema().fields}
        specs = table.specs()
        by = {field.source_id for manifest in manifests for field in specs[manifest.partition_spec_id].fields}
        if by - columns:
            features.add("dropped-partition-source")
        return features

    @cached_property
    def hidden(self) -> tuple[str, ...]:
        """Partition columns that Delta has and `lake` hides: those that it marked so."""
        if self.format != "delta":
            return ()
        fields = json.loads(self._newest("metaData")["schemaString"])["fields"]
        return tuple(field["name"] for field in fields if field["metadata"].get("lakehouse.hidden"))

    def _newest(self, action: str) -> dict:
        """The last action of that name in the log, which has all its entries: none is older than it is kept."""
        for entry in sorted((self.path / "_delta_log").glob("*.json"), reverse=True):
            if re.fullmatch(r"\d{20}\.json", entry.name):
                for line in entry.read_text().splitlines():
                    if action in (found := json.loads(line)):
                        return found[action]
        raise FileNotFoundError(f"no {action} in the log of {self.path}")


def left(evolving: str, form: str) -> list[Evolved]:
    """The tables of a kind, by seed. Where there are none the test is skipped; in CI that is a failure."""
    folders = sorted((HOME / evolving).glob(f"{form}-*"), key=lambda folder: int(folder.name.split("-")[1]))
    if os.environ.get("CI"):
        assert len(folders) >= LEFT, f"{len(folders)} tables in {HOME / evolving}; the Rust tests leave {LEFT}"
    if not folders:
        pytest.skip(f"the Rust tests left no {form} tables in {HOME / evolving}: cargo test --workspace model:: first")
    return [Evolved(folder) for folder in folders]
