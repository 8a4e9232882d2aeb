//! Operations as users run them, over Parquet files of a few rows.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use lakehouse_core::format::Handle;
use lakehouse_core::model::{At, Version};
use lakehouse_core::operations::{self, Strategy};
use lakehouse_core::{Compact, Merge, Options, Report, Result, SchemaMode};

use super::bed::schema;
use super::history::{Op, Rows};

/// The rows as input, with the last column or without.
fn input(rows: &Rows, tip: bool) -> lakehouse_core::Rows {
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(id, ..)| *id))),
        Arc::new(Int64Array::from_iter_values(rows.iter().map(|(_, n, _)| *n))),
    ];
    if tip {
        columns.push(Arc::new(Int64Array::from_iter(rows.iter().map(|(.., tip)| *tip))));
    }
    let batch = RecordBatch::try_new(schema(tip), columns).unwrap();
    lakehouse_core::Rows::batches(schema(tip), vec![batch])
}

/// Runs an operation.
pub(crate) async fn run(handle: &Handle, op: &Op, old: Version, mask: bool) -> Result<(Version, bool)> {
    let strategy = match mask {
        true => Strategy::MergeOnRead,
        false => Strategy::CopyOnWrite,
    };
    let options = Options {
        strategy,
        ..Options::default()
    };
    let report = report(handle, op, old, &options).await?;
    Ok((report.version, report.committed))
}

async fn report(handle: &Handle, op: &Op, old: Version, options: &Options) -> Result<Report> {
    let evolving = || options.clone().schema_mode(SchemaMode::Merge);
    let between =
        |ids: &std::ops::RangeInclusive<i64>| format!("id BETWEEN {} AND {}", ids.start(), ids.end());
    match op {
        Op::Append(rows) => operations::append(handle, input(rows, false), options).await,
        Op::AppendColumn(rows) => operations::append(handle, input(rows, true), &evolving()).await,
        Op::Overwrite(ids, rows) => {
            operations::overwrite(handle, input(rows, false), Some(&between(ids)), options).await
        }
        Op::Delete(ids) => operations::delete(handle, &between(ids), options).await,
        Op::Update(ids, by) => {
            operations::update(handle, &format!("n = 3 * n + {by}"), Some(&between(ids)), options).await
        }
        Op::Merge(source) => {
            let source = source.iter().map(|(id, n)| (*id, *n, None)).collect();
            let merge = Merge::on("id")
                .when_matched_update("n = 2 * target.n + source.n")
                .when_not_matched_insert_all();
            operations::merge(handle, input(&source, false), &merge, options).await
        }
        Op::MergeColumn(source) => {
            let merge = Merge::on("id")
                .when_matched_update_all()
                .when_not_matched_insert_all();
            operations::merge(handle, input(source, true), &merge, &evolving()).await
        }
        Op::Transfer { from, to, amount } => {
            let set = format!("n = n + CASE id WHEN {to} THEN {amount} ELSE -{amount} END");
            operations::update(handle, &set, Some(&format!("id IN ({from}, {to})")), options).await
        }
        Op::Compact => operations::compact(handle, &Compact::default(), options).await,
        Op::Restore => operations::restore(handle, &At::Version(old), options).await,
    }
}
