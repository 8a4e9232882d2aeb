"""What every Python test shares."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def lake() -> Path:
    """The `lake` binary that `make` built."""
    binary = Path(os.environ.get("LAKE", ROOT / "target" / "debug" / "lake"))
    assert binary.exists(), "build it first: make build"
    return binary
