"""Spark as a fixture: it starts once for all tests."""

import shutil
from pathlib import Path

import pytest

from tests.interop.tables import Lake
from tests.spark.install import jars


@pytest.fixture(scope="session")
def spark(tmp_path_factory):
    """Spark, whose catalog has every table below pytest's folder."""
    if shutil.which("java") is None or not all(jar.exists() for jar in jars()):
        pytest.skip("Spark is not installed")
    from tests.spark.session import Spark

    spark = Spark(tmp_path_factory.getbasetemp())
    yield spark
    spark.stop()


@pytest.fixture(scope="session")
def cli(lake: Path) -> Lake:
    return Lake(lake)
