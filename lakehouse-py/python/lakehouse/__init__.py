"""Apache Iceberg and Delta Lake tables: merge, compact, time travel. Arrow in and out."""

from ._lakehouse import (
    AlreadyExistsError,
    CommitUnknownError,
    ConflictError,
    DeniedError,
    InvalidError,
    LakehouseError,
    LimitError,
    MergeBuilder,
    NotFoundError,
    QueryError,
    Scan,
    Schema,
    StorageError,
    Table,
    UnsupportedError,
    __version__,
)

__all__ = [
    "AlreadyExistsError",
    "CommitUnknownError",
    "ConflictError",
    "DeniedError",
    "InvalidError",
    "LakehouseError",
    "LimitError",
    "MergeBuilder",
    "NotFoundError",
    "QueryError",
    "Scan",
    "Schema",
    "StorageError",
    "Table",
    "UnsupportedError",
    "__version__",
]
