//! Types that a format lacks are stored in the next wider one that it has.

use std::sync::Arc;

use arrow::array::{ArrayRef, Date64Array, RecordBatch, UInt8Array, UInt16Array, UInt32Array, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use datafusion::prelude::SessionContext;
use lakehouse_core::model::{At, Definition, parse_partitioning};
use lakehouse_core::{Options, Rows, Table};

use super::{FORMATS, lines};
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
