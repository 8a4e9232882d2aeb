//! A data file that is stored in parts, with each of its requests failing: it is there whole or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::BinaryArray;
use lakehouse_core::store::sim::Kind;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};

use super::*;

/// Rows that do not compress: the file is sent in parts while it is written.
fn large() -> (SchemaRef, Vec<RecordBatch>) {
    let schema = Arc::new(Schema::new(vec![Field::new("bytes", DataType::Binary, true)]));
    let mut random = StdRng::seed_from_u64(7);
    let batches = (0..10)
        .map(|_| {
            let values: Vec<Vec<u8>> = (0..256)
                .map(|_| {
                    let mut value = vec![0; 16 << 10];
                    random.fill_bytes(&mut value);
                    value
                })
                .collect();
            let column = BinaryArray::from_iter_values(values);
            RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(column)]).unwrap()
        })
        .collect();
    (schema, batches)
}

#[test]
fn an_upload_in_parts_that_breaks_leaves_nothing_and_can_be_run_again() {
    block_on(async {
        let (schema, batches) = large();
        for (format, version) in [FORMATS[1], FORMATS[2]] {
            let definition = Definition {
                schema: Arc::clone(&schema),
                partition_fields: Vec::new(),
                properties: BTreeMap::from([(
                    "write.parquet.row-group-size-bytes".to_owned(),
                    "4000000".to_owned(),
                )]),
                format_version: version,
            };
            let root = "memory://uploads".parse().unwrap();
            let memory = Arc::new(InMemory::new());
            let store = Store::over(Arc::clone(&memory) as _, root);
            Table::create_in(store.clone(), format, &definition)
                .await
                .unwrap();
            let empty = keys(&store).await;
            let over = || Store::over(Arc::new(memory.fork()), "memory://uploads".parse().unwrap());
            let append = async |store: Store| {
                let table = Table::open_in(store).await.unwrap();
                let rows = Rows::batches(Arc::clone(&schema), batches.clone());
                table.append(rows, &Options::default()).await
            };
            let (store, faults) = faulty(&over());
            append(store.clone()).await.unwrap();
            let log = faults.log();
            let data = log
                .iter()
                .find(|(kind, key)| *kind == Kind::Put && key.ends_with(".parquet"));
            let (_, data) = data.expect("a data file");
            let parts: Vec<u64> = (1..)
                .zip(&log)
                .filter(|(_, (kind, key))| *kind == Kind::Put && key == data)
                .map(|(at, _)| at)
                .collect();
            assert!(parts.len() >= 4, "the file was not stored in parts: {log:?}");
            for fault in [Fault::Torn, Fault::FailAfter, Fault::Crash] {
                for at in &parts {
                    let case = format!("{format} {version:?}: {fault:?} at request {at} of {parts:?}");
                    let healthy = over();
                    let (store, faults) = faulty(&healthy);
                    faults.fail_at(*at, fault);
                    let error = append(store).await.expect_err(&case);
                    assert_eq!(faults.fired(), 1, "{case}");
                    assert!(!matches!(error, Error::CommitUnknown { .. }), "{case}: {error}");
                    if fault != Fault::Crash {
                        assert_eq!(keys(&healthy).await, empty, "{case}: files left behind");
                    }
                    let report = append(healthy).await.unwrap();
                    assert_eq!(
                        report.metrics.get("num_output_rows"),
                        Some(&2560),
                        "{case}: {report:?}"
                    );
                }
            }
        }
    });
}
