"""The Python module: what goes in, what comes out, what is raised."""

import duckdb
import lakehouse
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from samples import FORMATS, people, rows


def test_created_table_opens_with_its_schema(table):
    opened = lakehouse.Table.open(table.location)
    assert opened.format == table.format
    assert opened.schema().names == ["id", "name", "amount"]
    assert opened.schema().to_arrow().field("id").type == pa.int64()
    assert not opened.schema().to_arrow().field("id").nullable
    assert rows(opened) == []


@pytest.mark.parametrize(("name", "version"), FORMATS)
def test_files_that_are_there_become_a_table(name, version, tmp_path):
    place = tmp_path / "t"
    for year in (2023, 2024):
        (place / f"raw/year={year}").mkdir(parents=True)
        pq.write_table(people("Ada", "Grace", first=year * 10), place / f"raw/year={year}/part.parquet")
    with pytest.raises(lakehouse.InvalidError, match="not inside of"):
        lakehouse.Table.adopt(str(place), str(tmp_path), format=name, format_version=version)
    options = {"format": name, "format_version": version, "schema": "year int, id bigint not null"}
    adopted = lakehouse.Table.adopt(str(place), str(place / "raw"), **options)
    assert adopted.schema().to_arrow().field("year").type == pa.int32()
    assert not adopted.schema().to_arrow().field("id").nullable
    adopted.upsert(people("Ada L.", first=20230).append_column("year", pa.array([2023], pa.int32())), on="id")
    found = [tuple(row.values()) for row in rows(adopted)]
    assert found == [(20230, "Ada L.", 2023), (20231, "Grace", 2023), (20240, "Ada", 2024), (20241, "Grace", 2024)]
    with pytest.raises(lakehouse.LakehouseError, match="already exists"):
        lakehouse.Table.adopt(str(place), format=name, format_version=version)


def test_a_limit_is_moved_by_a_storage_option_and_named_where_it_is_met(table):
    table.append(people("Ada", "Grace"))
    option = "max_commit_bytes" if table.format == "delta" else "max_metadata_bytes"
    with pytest.raises(lakehouse.LimitError, match=f"at most 100 are read(.|\n)*{option}"):
        rows(lakehouse.Table.open(table.location, storage_options={option: "100"}))
    with pytest.raises(lakehouse.InvalidError, match=option):
        lakehouse.Table.open(table.location, storage_options={option: "plenty"})
    sql = f"SELECT * FROM '{table.location}'"
    with pytest.raises(lakehouse.LimitError):
        lakehouse.sql(sql, storage_options={option: "100"})
    assert lakehouse.sql(sql, storage_options={option: "1MB"}).to_arrow().num_rows == 2


@pytest.mark.parametrize("make", [lambda t: t, pl.from_arrow, lambda t: t.to_pandas(), lambda t: duckdb.from_arrow(t)])
def test_any_arrow_stream_goes_in(table, make):
    report = table.append(make(people("Ada", "Grace")))
    assert report["committed"]
    assert [row["name"] for row in rows(table)] == ["Ada", "Grace"]


def test_generator_of_batches_is_read_without_deadlock(table):
    schema = pa.schema({"id": pa.int64(), "name": pa.string()})
    batches = (people(f"n{i}", first=i).cast(schema).to_batches()[0] for i in range(20))
    table.append(pa.RecordBatchReader.from_batches(schema, batches))
    assert table.scan().count() == 20


def test_results_come_out_as_arrow_pandas_polars_and_stream(table):
    table.append(people("Ada", "Grace"))
    scan = table.scan("id = 2", columns=["name"])
    assert scan.to_arrow().to_pylist() == [{"name": "Grace"}]
    assert isinstance(scan.to_pandas(), pd.DataFrame)
    assert scan.to_polars().rows() == [("Grace",)]
    assert pl.DataFrame(scan).rows() == [("Grace",)]
    assert scan.schema.names == ["name"]


def test_errors_form_a_small_tree(table, tmp_path):
    with pytest.raises(lakehouse.NotFoundError, match="nowhere"):
        lakehouse.Table.open(str(tmp_path / "nowhere"))
    with pytest.raises(lakehouse.AlreadyExistsError):
        lakehouse.Table.create(table.location, "id bigint")
    with pytest.raises(lakehouse.InvalidError, match="extra"):
        table.append(pa.table({"id": [1], "extra": [1]}))
    with pytest.raises(lakehouse.InvalidError, match="id"):
        table.append(pa.table({"id": pa.array([None], pa.int64())}))
    with pytest.raises(lakehouse.LakehouseError, match="nonsense"):
        table.delete("nonsense = 1")
    with pytest.raises(lakehouse.NotFoundError):
        table.scan(version=-99)
    with pytest.raises(TypeError, match="__arrow_c_stream__"):
        table.append([1, 2, 3])
    assert issubclass(lakehouse.NotFoundError, lakehouse.LakehouseError)
    assert table.scan().count() == 0


def test_error_of_the_input_stream_reaches_the_caller_and_commits_nothing(table):
    schema = pa.schema({"id": pa.int64()})

    def batches():
        yield pa.record_batch({"id": pa.array([1], pa.int64())})
        raise RuntimeError("the source broke")

    with pytest.raises(lakehouse.LakehouseError, match="the source broke"):
        table.append(pa.RecordBatchReader.from_batches(schema, batches()))
    assert table.scan().count() == 0
