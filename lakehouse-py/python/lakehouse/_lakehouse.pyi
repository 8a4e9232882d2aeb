from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from os import PathLike
from typing import Any, Literal, Protocol, TypedDict

import pandas
import polars
import pyarrow
from typing_extensions import Unpack

class ArrowStream(Protocol):
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...

class ArrowSchema(Protocol):
    def __arrow_c_schema__(self) -> object: ...

Isolation = Literal["serializable", "snapshot"]
Strategy = Literal["auto", "merge-on-read", "copy-on-write"]
SchemaMode = Literal["strict", "merge"]
Report = dict[str, Any]

class Ref(TypedDict):
    kind: Literal["tag", "branch"]
    version: int
    max_ref_age_ms: int | None
    min_snapshots_to_keep: int | None
    max_snapshot_age_ms: int | None

class RefReport(TypedDict):
    name: str
    before: Ref | None
    after: Ref | None
    committed: bool
    attempts: int

class ExpireReport(TypedDict):
    operation: Literal["expire"]
    version: int
    committed: bool
    dry_run: bool
    attempts: int
    expired: list[int]
    kept: int
    refs_dropped: list[str]
    too_young: int
    files_deleted: list[str]
    bytes_deleted: int
    files_too_young: int
    checkpoint: int | None

class MaintenanceStep(TypedDict):
    step: Literal["compact", "rewrite-manifests", "checkpoint", "expire", "vacuum"]
    outcome: Literal["done", "nothing", "planned", "skipped", "failed"]
    why: str | None
    figures: dict[str, int]
    left: dict[str, int]

class Maintained(TypedDict):
    version: int
    dry_run: bool
    did_something: bool
    steps: list[MaintenanceStep]

class Checkpoint(TypedDict):
    version: int
    files: list[str]
    bytes: int
    data_files: int
    already: bool

class ManifestsReport(TypedDict):
    operation: Literal["rewrite-manifests"]
    version: int
    committed: bool
    dry_run: bool
    attempts: int
    manifests_kept: int
    manifests_replaced: int
    manifests_created: int

class WriteOptions(TypedDict, total=False):
    idempotency_key: str | tuple[str, int] | None
    dry_run: bool
    isolation: Isolation | None
    strategy: Strategy | None
    memory_limit: int | None
    schema_mode: SchemaMode | None
    branch: str | None

__version__: str

class LakehouseError(Exception): ...
class ConflictError(LakehouseError): ...
class CommitUnknownError(LakehouseError): ...
class InvalidError(LakehouseError): ...
class UnsupportedError(LakehouseError): ...
class LimitError(LakehouseError): ...
class DeniedError(LakehouseError): ...
class NotFoundError(LakehouseError): ...
class AlreadyExistsError(LakehouseError): ...
class StorageError(LakehouseError): ...
class QueryError(LakehouseError): ...

class Schema:
    @property
    def names(self) -> list[str]: ...
    def __arrow_c_schema__(self) -> object: ...
    def to_arrow(self) -> pyarrow.Schema: ...
    def __len__(self) -> int: ...

class Scan:
    @property
    def schema(self) -> Schema: ...
    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object: ...
    def to_arrow(self) -> pyarrow.Table: ...
    def to_pandas(self) -> pandas.DataFrame: ...
    def to_polars(self) -> polars.DataFrame: ...
    def count(self) -> int: ...

class RowCounts(TypedDict):
    added: int
    removed: int
    changed: int
    ambiguous_keys: int
    files_read: int

class Diff:
    @property
    def summary(self) -> dict[str, Any]: ...
    def rows(self, on: str | Sequence[str] | None = None, *, memory_limit: int | None = None) -> Scan: ...
    def count(self, on: str | Sequence[str] | None = None, *, memory_limit: int | None = None) -> RowCounts: ...

class MergeBuilder:
    def when_matched_update(self, updates: Mapping[str, str] | str, predicate: str | None = None) -> MergeBuilder: ...
    def when_matched_update_all(self, predicate: str | None = None) -> MergeBuilder: ...
    def when_matched_delete(self, predicate: str | None = None) -> MergeBuilder: ...
    def when_not_matched_insert(
        self, updates: Mapping[str, str] | str, predicate: str | None = None
    ) -> MergeBuilder: ...
    def when_not_matched_insert_all(self, predicate: str | None = None) -> MergeBuilder: ...
    def when_not_matched_by_source_update(
        self, updates: Mapping[str, str] | str, predicate: str | None = None
    ) -> MergeBuilder: ...
    def when_not_matched_by_source_delete(self, predicate: str | None = None) -> MergeBuilder: ...
    def execute(self) -> Report: ...

def sql(
    query: str,
    tables: Mapping[str, Table | str] | None = None,
    *,
    storage_options: Mapping[str, str] | None = None,
    **write: Unpack[WriteOptions],
) -> Scan | Report: ...

class Table:
    @staticmethod
    def open(location: str, *, storage_options: Mapping[str, str] | None = None) -> Table: ...
    @staticmethod
    def create(
        location: str,
        schema: str | ArrowSchema,
        *,
        format: Literal["iceberg", "delta"] = "iceberg",
        format_version: Literal[2, 3] | None = None,
        partition_by: str | None = None,
        properties: Mapping[str, str] | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> Table: ...
    @staticmethod
    def adopt(
        location: str,
        folder: str | None = None,
        *,
        schema: str | ArrowSchema | None = None,
        format: Literal["iceberg", "delta"] = "iceberg",
        format_version: Literal[2, 3] | None = None,
        partition_by: str | None = None,
        properties: Mapping[str, str] | None = None,
        storage_options: Mapping[str, str] | None = None,
    ) -> Table: ...
    @property
    def location(self) -> str: ...
    @property
    def format(self) -> str: ...
    def version(self) -> int: ...
    def schema(self, version: int | str | None = None, as_of: datetime | str | None = None) -> Schema: ...
    def properties(self) -> dict[str, str]: ...
    def scan(
        self,
        filter: str | None = None,
        columns: Sequence[str] | None = None,
        *,
        version: int | str | None = None,
        as_of: datetime | str | None = None,
        limit: int | None = None,
    ) -> Scan: ...
    def append(
        self,
        data: ArrowStream,
        *,
        idempotency_key: str | tuple[str, int] | None = None,
        dry_run: bool = False,
        schema_mode: SchemaMode | None = None,
        branch: str | None = None,
    ) -> Report: ...
    def last_step(self, key: str, branch: str | None = None) -> int | None: ...
    def overwrite(
        self,
        data: ArrowStream,
        predicate: str | None = None,
        **write: Unpack[WriteOptions],
    ) -> Report: ...
    def delete(
        self,
        predicate: str,
        **write: Unpack[WriteOptions],
    ) -> Report: ...
    def update(
        self,
        updates: Mapping[str, str] | str,
        predicate: str | None = None,
        **write: Unpack[WriteOptions],
    ) -> Report: ...
    def merge(
        self,
        source: ArrowStream,
        on: str | Sequence[str],
        *,
        on_duplicate: Literal["error", "first", "last"] | None = None,
        sequence_by: str | None = None,
        tombstones: str | None = None,
        cdc: Mapping[str, str] | str | None = None,
        skip_unchanged: bool = False,
        **write: Unpack[WriteOptions],
    ) -> MergeBuilder: ...
    def upsert(
        self,
        source: ArrowStream,
        on: str | Sequence[str],
        **write: Unpack[WriteOptions],
    ) -> Report: ...
    def compact(
        self,
        *,
        target_file_size: int | None = None,
        predicate: str | None = None,
        sort_by: str | None = None,
        zorder: str | Sequence[str] | None = None,
        hilbert: str | Sequence[str] | None = None,
        unordered: bool = False,
        memory_limit: int | None = None,
        strategy: Literal["auto", "small-files", "masked-files", "all"] = "auto",
        min_input_files: int | None = None,
        delete_ratio_threshold: float | None = None,
        max_rewrite: int | None = None,
        max_bytes: int | None = None,
        max_time: float | None = None,
        max_concurrent_groups: int | None = None,
        idempotency_key: str | tuple[str, int] | None = None,
        dry_run: bool = False,
        branch: str | None = None,
    ) -> Report: ...
    def vacuum(
        self,
        retention_hours: float | None = None,
        dry_run: bool = False,
        *,
        keep_versions: list[int] | None = None,
        quarantine: str | None = None,
        adopted: bool = False,
        unsafe_no_writers: bool = False,
    ) -> Report: ...
    def overlap(self, columns: str | Sequence[str] | None = None) -> list[dict[str, Any]] | None: ...
    def restore(
        self,
        version: int | str | None = None,
        as_of: datetime | str | None = None,
        *,
        dry_run: bool = False,
        branch: str | None = None,
    ) -> Report: ...
    def expire(
        self, older_than: timedelta | None = None, *, retain_last: int | None = None, dry_run: bool = False
    ) -> ExpireReport: ...
    def maintain(
        self,
        policy: str | PathLike[str] | dict[str, Any] | None = None,
        *,
        max_time: float | None = None,
        max_bytes: int | None = None,
        dry_run: bool = False,
    ) -> Maintained: ...
    def checkpoint(self, *, format: Literal["classic", "v2"] | None = None) -> Checkpoint: ...
    def rewrite_manifests(self, *, dry_run: bool = False, branch: str | None = None) -> ManifestsReport: ...
    def alter(
        self,
        *,
        add: str | list[str] | None = None,
        drop: str | list[str] | None = None,
        rename: dict[str, str] | None = None,
        move: dict[str, str] | None = None,
        types: dict[str, str] | None = None,
        required: str | list[str] | None = None,
        optional: str | list[str] | None = None,
        comment: dict[str, str | None] | None = None,
        default: dict[str, str | None] | None = None,
        partition_by: str | None = None,
        sort_by: str | None = None,
        identifier: str | list[str] | None = None,
        set: dict[str, str] | None = None,
        unset: str | list[str] | None = None,
        format_version: int | None = None,
        idempotency_key: str | tuple[str, int] | None = None,
        dry_run: bool = False,
    ) -> Report: ...
    def diff(
        self,
        from_: int | str | None = None,
        to: int | str | None = None,
        *,
        from_as_of: datetime | str | None = None,
        to_as_of: datetime | str | None = None,
    ) -> Diff: ...
    def check(
        self,
        version: int | str | None = None,
        as_of: datetime | str | None = None,
        *,
        deep: bool = False,
        all_versions: bool = False,
    ) -> list[dict[str, str]]: ...
    def health(self) -> dict[str, Any]: ...
    def tags(self) -> dict[str, Ref]: ...
    def branches(self) -> dict[str, Ref]: ...
    def create_tag(
        self,
        name: str,
        version: int | str | None = None,
        as_of: datetime | str | None = None,
        *,
        max_ref_age_ms: int | None = None,
        replace: bool = False,
    ) -> RefReport: ...
    def create_branch(
        self,
        name: str,
        version: int | str | None = None,
        as_of: datetime | str | None = None,
        *,
        max_ref_age_ms: int | None = None,
        min_snapshots_to_keep: int | None = None,
        max_snapshot_age_ms: int | None = None,
        replace: bool = False,
    ) -> RefReport: ...
    def drop_tag(self, name: str) -> RefReport: ...
    def drop_branch(self, name: str) -> RefReport: ...
    def fast_forward(self, branch: str, to: str) -> RefReport: ...
    def history(self, limit: int | None = None, *, branch: str | None = None) -> list[dict[str, Any]]: ...
