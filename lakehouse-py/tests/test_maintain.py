"""Maintenance from Python: what a policy may be, what the report says."""

import lakehouse
import pyarrow as pa
import pytest


@pytest.fixture(params=[("iceberg", 2), ("iceberg", 3), ("delta", None)], ids=["iceberg-v2", "iceberg-v3", "delta"])
def table(request, tmp_path):
    name, version = request.param
    made = lakehouse.Table.create(str(tmp_path / "t"), "id bigint not null", format=name, format_version=version)
    for first in range(4):
        made.append(pa.table({"id": [10 * first, 10 * first + 1]}))
    return made


def outcomes(report):
    return {step["step"]: step["outcome"] for step in report["steps"]}


def test_a_table_is_maintained_and_a_second_run_does_nothing(table):
    before = sorted(table.scan().to_arrow()["id"].to_pylist())
    planned = table.maintain(dry_run=True)
    assert planned["dry_run"] and not planned["did_something"] and outcomes(planned)["compact"] == "planned"
    assert planned["steps"] == table.health()["maintenance"]
    done = table.maintain()
    assert done["did_something"] and outcomes(done)["compact"] == "done"
    assert done["steps"][0]["figures"]["files"] == planned["steps"][0]["figures"]["files"] == 4
    assert sorted(table.scan().to_arrow()["id"].to_pylist()) == before
    again = table.maintain()
    assert set(outcomes(again).values()) == {"nothing"} and again["version"] == done["version"]


def test_a_policy_is_a_file_or_a_dict(table, tmp_path):
    file = tmp_path / "nightly.toml"
    file.write_text("[compact]\nmin-input-files = 9\n")
    for policy in [file, str(file), {"compact": {"min-input-files": 9}}]:
        assert outcomes(table.maintain(policy))["compact"] == "nothing"
    assert outcomes(table.maintain({"vacuum": {"enabled": False}}, max_bytes=1))["vacuum"] == "skipped"
    assert table.maintain(max_time=0.001)["steps"][0]["left"]


def test_what_is_wrong_with_a_policy_is_told(table, tmp_path):
    file = tmp_path / "nightly.toml"
    file.write_text('[expire]\nolder-thn = "7d"\n')
    with pytest.raises(lakehouse.InvalidError, match="line 2, key expire.older-thn"):
        table.maintain(file)
    with pytest.raises(lakehouse.InvalidError, match="no key older"):
        table.maintain({"expire": {"older": "7d"}})
    with pytest.raises(lakehouse.InvalidError, match="vacuum.older-than"):
        table.maintain({"vacuum": {"older-than": "1h"}})
    with pytest.raises(FileNotFoundError):
        table.maintain(tmp_path / "none.toml")
    with pytest.raises(TypeError, match="policy"):
        table.maintain(7)
