"""One Spark, with Iceberg and Delta in one session, and the tables below one folder by name."""

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession

from tests.spark.install import jars

CATALOG = "org.apache.spark.sql.delta.catalog.DeltaCatalog"
EXTENSIONS = [
    "io.delta.sql.DeltaSparkSessionExtension",
    "org.apache.iceberg.spark.extensions.IcebergSparkSessionExtensions",
]


class Spark:
    """Spark on this machine only. Iceberg tables are found by their folders below `home`, as a Hadoop catalog does."""

    def __init__(self, home: Path) -> None:
        os.environ["SPARK_LOCAL_IP"] = "127.0.0.1"
        self.home = home
        settings = {
            "spark.driver.memory": "2g",
            # Everything here runs once, on a few rows.
            "spark.driver.extraJavaOptions": "-XX:+UseSerialGC -XX:TieredStopAtLevel=1",
            "spark.jars": ",".join(map(str, jars())),
            "spark.log.level": "FATAL",
            "spark.ui.enabled": "false",
            "spark.ui.showConsoleProgress": "false",
            "spark.sql.shuffle.partitions": "2",
            "spark.sql.adaptive.enabled": "false",
            "spark.databricks.delta.snapshotPartitions": "1",
            "spark.sql.session.timeZone": "UTC",
            "spark.sql.warehouse.dir": str(home / "spark-warehouse"),
            "spark.sql.extensions": ",".join(EXTENSIONS),
            "spark.sql.catalog.spark_catalog": CATALOG,
            "spark.sql.catalog.ice": "org.apache.iceberg.spark.SparkCatalog",
            "spark.sql.catalog.ice.type": "hadoop",
            "spark.sql.catalog.ice.warehouse": str(home),
            # Others write in between.
            "spark.sql.catalog.ice.cache-enabled": "false",
        }
        builder = SparkSession.builder.master("local[2]").appName("lake")
        for name, value in settings.items():
            builder = builder.config(name, value)
        self.session = builder.getOrCreate()

    def stop(self) -> None:
        self.session.stop()

    def name(self, kind: str, path: Path) -> str:
        """The table in that folder, as SQL names it."""
        if kind == "delta":
            return f"delta.`{path}`"
        return ".".join(["ice", *(f"`{part}`" for part in path.relative_to(self.home).parts)])

    def run(self, statement: str) -> None:
        """Runs a statement that changes something."""
        self.session.sql(statement)

    def sql(self, statement: str) -> pa.Table:
        """The rows that a query gives."""
        return self.session.sql(statement).toArrow()

    def read(
        self,
        kind: str,
        path: Path,
        version: int | None = None,
        where: str | None = None,
        columns: str = "*",
    ) -> pa.Table:
        """A table at a version: a snapshot id (Iceberg) or a version number (Delta)."""
        at = "" if version is None else f" VERSION AS OF {version}"
        condition = "" if where is None else f" WHERE {where}"
        return self.sql(f"SELECT {columns} FROM {self.name(kind, path)}{at}{condition}")

    def read_metadata(self, file: Path) -> pa.Table:
        """An Iceberg table by one metadata file, with no catalog and no folder looked at."""
        return self.session.read.format("iceberg").load(str(file)).toArrow()

    def view(self, name: str, rows: pa.Table, scratch: Path) -> None:
        """Makes rows known to SQL by a name."""
        file = scratch / f"view-{name}.parquet"
        pq.write_table(rows, file)
        self.session.read.parquet(str(file)).createOrReplaceTempView(name)
