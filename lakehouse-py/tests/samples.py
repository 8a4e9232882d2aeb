"""Rows and tables that the tests share."""

import pyarrow as pa

FORMATS = [("iceberg", 2), ("iceberg", 3), ("delta", None)]


def rows(table, **options):
    return sorted(table.scan(**options).to_arrow().to_pylist(), key=lambda row: row["id"])


def people(*names, first=1):
    return pa.table({"id": list(range(first, first + len(names))), "name": list(names)})
