//! Replaces all rows, or those that match a predicate.

use std::sync::Arc;

use arrow::array::{BooleanArray, RecordBatch};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::delete::{matching_rows, understood};
use super::evaluate::Compiled;
use super::input::Known;
use super::work::{Origin, Verb, Work, run};
use super::{Fate, Options, Report, Rows};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{OperationKind, Prune};
use crate::planted::{self, Bug};
use crate::scan::{columns_of, session};

/// Replaces the rows for which `predicate` is true, all rows without one, by the given rows. Every
/// new row must satisfy the predicate, so that running it twice leaves the same table.
///
/// # Errors
/// [`Error::Invalid`] for rows that do not fit or do not satisfy the predicate; those of [`crate::commit::commit`].
pub async fn overwrite(
    handle: &Handle,
    rows: Rows,
    predicate: Option<&str>,
    options: &Options,
) -> Result<Report> {
    run(handle, options, &mut Overwrite { rows, predicate }).await
}

pub(super) struct Overwrite<'a> {
    pub(super) rows: Rows,
    pub(super) predicate: Option<&'a str>,
}

impl Verb for Overwrite<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Overwrite
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            work.evolve_for(&self.rows).await?;
            let guard = match self.predicate {
                Some(predicate) => Some(Guard::new(work, predicate)?),
                None => None,
            };
            match self.predicate {
                Some(predicate) => {
                    let touched = matching_rows(work, predicate).await?;
                    work.count("num_target_rows_deleted", touched.rows());
                    touched.apply(work).await?;
                }
                None => {
                    let everything = Arc::new(Prune::everything());
                    let read = !planted::is(Bug::OverwriteReadsNothing);
                    work.change.read = read.then(|| Arc::clone(&everything) as _);
                    let files = work.list(&everything).await?;
                    // Nothing is read of files that simply go.
                    for file in &files {
                        let gone = file.rows - file.masked_rows().unwrap_or(0).min(file.rows);
                        work.count("num_target_rows_deleted", gone);
                        work.note_file(file, gone, Fate::Remove);
                    }
                    work.change.removed = files;
                }
            }
            work.begin("write");
            let (_, mut batches) = self.rows.open(Known::Table(&work.snapshot.schema)).await?;
            let mut before = 0;
            while let Some(batch) = batches.try_next().await? {
                let batch = work.fit(&batch, Some(before))?;
                if let Some(guard) = &guard {
                    guard.check(&batch, before)?;
                }
                let rows = batch.num_rows() as u64;
                work.write_fitting(batch, Origin::New).await?;
                work.count("num_source_rows", rows);
                work.count("num_target_rows_inserted", rows);
                before += rows;
            }
            Ok(())
        })
    }
}

/// Lets only rows pass that satisfy the predicate.
struct Guard {
    text: String,
    compiled: Compiled,
}

impl Guard {
    fn new(work: &Work, text: &str) -> Result<Self> {
        let predicate = understood(work, text)?;
        let schema = columns_of(&work.snapshot.schema, None)?;
        let ctx = session(work.options.memory_limit);
        Ok(Self {
            text: text.to_owned(),
            compiled: Compiled::new(&ctx, predicate, &schema)?,
        })
    }

    fn check(&self, batch: &RecordBatch, before: u64) -> Result<()> {
        let truth = self.compiled.truth(batch)?;
        let Some(at) = first_false(&truth) else {
            return Ok(());
        };
        let number = before + at as u64 + 1;
        Err(Error::invalid(
            format!(
                "input row {number} does not satisfy `{}`: {}",
                self.text,
                describe_row(batch, at)
            ),
            "",
        )
        .with_hint("rows outside of what is replaced would be added a second time on every run; leave them out, or widen the condition"))
    }
}

fn first_false(truth: &BooleanArray) -> Option<usize> {
    (0..truth.len()).find(|i| !truth.value(*i))
}

/// The first columns of a row as text, for messages.
pub(super) fn describe_row(batch: &RecordBatch, row: usize) -> String {
    const SHOWN: usize = 6;
    let options = FormatOptions::default().with_null("NULL");
    let schema = batch.schema();
    let mut parts = Vec::new();
    for (field, column) in schema.fields().iter().zip(batch.columns()).take(SHOWN) {
        if let Ok(formatter) = ArrayFormatter::try_new(column, &options) {
            parts.push(format!("{} = {}", field.name(), formatter.value(row)));
        }
    }
    if batch.num_columns() > SHOWN {
        parts.push("..".to_owned());
    }
    parts.join(", ")
}
