//! Types that a format lacks are stored in the next wider one that it has.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, Date64Array, RecordBatch, UInt8Array, UInt16Array, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::scan::parse_columns;
use lakehouse_core::{Merge, Options, Rows, Table};

use super::{FORMATS, content, lines, query};
use crate::support::memory;

const DAY: i64 = 86_400_000;

fn batch(large: u64, time: i64) -> RecordBatch {
    let columns: [(&str, ArrayRef); 6] = [
        (
            "a",
            Arc::new(UInt8Array::from(vec![Some(0), None, Some(u8::MAX)])),
        ),
        (
            "b",
            Arc::new(UInt16Array::from(vec![Some(1), None, Some(u16::MAX)])),
        ),
        (
            "c",
            Arc::new(UInt32Array::from(vec![
                Some(2),
                None,
                Some(if large == 0 { 1 } else { 7 }),
            ])),
        ),
        ("d", Arc::new(UInt64Array::from(vec![Some(3), None, Some(large)]))),
        (
            "e",
            Arc::new(Date64Array::from(vec![Some(-DAY), None, Some(time)])),
        ),
        (
            "f",
            arrow::compute::cast(
                &arrow::array::Float32Array::from(vec![Some(0.5), None, Some(-2.0)]),
                &DataType::Float16,
            )
            .unwrap(),
        ),
    ];
    RecordBatch::try_from_iter(columns).unwrap()
}

#[tokio::test]
async fn unsigned_numbers_half_floats_and_dates_in_milliseconds_are_stored_where_they_fit() {
    for format in FORMATS {
        let rows = batch(9, DAY);
        let fields = rows.schema().fields().clone();
        let element = Arc::new(Field::new("element", DataType::UInt16, true));
        let mut fields: Vec<_> = fields
            .iter()
            .map(|field| field.as_ref().clone().with_nullable(true))
            .collect();
        fields.push(Field::new("l", DataType::LargeListView(element), true));
        for partitioning in ["", "bucket(4, a)", "c", "truncate(2, b)"] {
            let definition = Definition {
                schema: Arc::new(Schema::new(fields.clone())),
                partition_fields: parse_partitioning(partitioning).unwrap(),
                properties: Default::default(),
                format_version: format.1,
            };
            let table = Table::create_in(memory("types"), format.0, &definition)
                .await
                .unwrap();
            let append = async |rows: RecordBatch| {
                let rows = Rows::batches(rows.schema(), vec![rows]);
                table.append(rows, &Options::default()).await
            };
            append(rows.clone()).await.unwrap();
            let ctx = SessionContext::new();
            ctx.register_table("t", table.provider(&At::Latest).await.unwrap())
                .unwrap();
            let frame = ctx
                .sql("SELECT a, b, c, d, e, f FROM t WHERE a IS NULL OR a < 300")
                .await
                .unwrap();
            let found = lines(&frame.collect().await.unwrap());
            assert_eq!(
                found,
                ["0|1|2|3|1969-12-31|0.5", "255|65535|7|9|1970-01-02|-2.0", "|||||"],
                "{format:?} by {partitioning}"
            );
            for (rows, column) in [(batch(u64::MAX, DAY), "d"), (batch(9, DAY + 1), "e")] {
                let error = append(rows).await.unwrap_err().to_string();
                assert!(
                    error.contains(column) && error.contains("row 3"),
                    "{format:?}: {error}"
                );
            }
        }
    }
}

/// Nanoseconds reach from 1677 to 2262 only, and the engine's functions go by way of them.
#[tokio::test]
async fn conditions_and_queries_cut_off_and_mix_times_of_any_year() {
    let given = "SELECT column1 AS id, arrow_cast(column2, 'Timestamp(us)') AS ts, column2::date AS d FROM (VALUES \
                 (1, '0001-02-03 04:05:06'), (2, '1500-03-31 07:08:09'), (3, '2013-07-15 10:11:12'), \
                 (4, '9999-12-31 23:59:59'))";
    for format in FORMATS {
        let definition = Definition {
            schema: parse_columns("id bigint, ts timestamp, d date").unwrap(),
            partition_fields: Vec::new(),
            properties: BTreeMap::new(),
            format_version: format.1,
        };
        let table = Table::create_in(memory("years"), format.0, &definition)
            .await
            .unwrap();
        let (schema, batches) = query(given).await;
        let options = Options::default();
        let rows = || Rows::batches(Arc::clone(&schema), batches.clone());
        table.append(rows(), &options).await.unwrap();
        let merge = Merge::on(
            "source.id = target.id AND date_trunc('month', source.ts) = date_trunc('month', target.d)",
        )
        .when_matched_update("id = target.id + 10")
        .only_if("date_trunc('week', target.ts) <= coalesce(source.ts, target.d)");
        let report = table.merge(rows(), &merge, &options).await.unwrap();
        assert_eq!(report.metrics["num_target_rows_updated"], 4, "{format:?}");
        table
            .update(
                "ts = date_trunc('hour', ts)",
                Some("date_trunc('year', d) = TIMESTAMP '0001-01-01'"),
                &options,
            )
            .await
            .unwrap();
        table
            .delete("date_trunc('month', ts) = DATE '1500-03-01'", &options)
            .await
            .unwrap();
        assert_eq!(
            content(&table).await,
            [
                "11|0001-02-03T04:00:00|0001-02-03",
                "13|2013-07-15T10:11:12|2013-07-15",
                "14|9999-12-31T23:59:59|9999-12-31"
            ],
            "{format:?}"
        );
    }
}
