"""What the tests of the module share."""

import lakehouse
import pytest
from samples import FORMATS


@pytest.fixture(params=FORMATS, ids=["iceberg-v2", "iceberg-v3", "delta"])
def table(request, tmp_path):
    name, version = request.param
    return lakehouse.Table.create(
        str(tmp_path / "t"), "id bigint not null, name string, amount double", format=name, format_version=version
    )
