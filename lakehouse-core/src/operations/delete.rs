//! Deletes the rows for which a predicate is true.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use datafusion::logical_expr::Expr;
use datafusion::prelude::ident;
use datafusion::scalar::ScalarValue;
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::rows::{Found, Places, Touched, frame};
use super::work::{Verb, Work, run};
use super::{Fate, Options, Report};
use crate::error::Result;
use crate::format::Handle;
use crate::model::schema::{FILE_COLUMN, POSITION_COLUMN};
use crate::model::{DataFile, OperationKind, Prune};
use crate::scan::{MetadataColumns, columns_of, parse_predicate, session};

/// Deletes the rows for which `predicate` (over the table's columns) is true. Files that hold such
/// rows are masked, rewritten, or removed if no row is left. Without such rows nothing is committed.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for a predicate that cannot be understood; those of [`crate::commit::commit`].
pub async fn delete(handle: &Handle, predicate: &str, options: &Options) -> Result<Report> {
    run(handle, options, &mut Delete { predicate }).await
}

struct Delete<'a> {
    predicate: &'a str,
}

impl Verb for Delete<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Delete
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            if is_true(&understood(work, self.predicate)?) && remove_all(work).await? {
                return Ok(());
            }
            let touched = matching_rows(work, self.predicate).await?;
            work.count("num_target_rows_deleted", touched.rows());
            touched.apply(work).await
        })
    }

    fn find<'a>(
        &'a mut self,
        work: &'a mut Work,
        files: Vec<DataFile>,
    ) -> BoxFuture<'a, Result<Option<Found>>> {
        Box::pin(async move {
            let predicate = understood(work, self.predicate)?;
            find_rows(work, Some(predicate), files).await
        })
    }
}

fn is_true(predicate: &Expr) -> bool {
    matches!(predicate, Expr::Literal(ScalarValue::Boolean(Some(true)), _))
}

/// Removes all files without reading them, if the metadata knows how many rows go with them.
async fn remove_all(work: &mut Work) -> Result<bool> {
    let everything = Arc::new(Prune::everything());
    let files = work.list(&everything).await?;
    let masked: Option<Vec<u64>> = files.iter().map(DataFile::masked_rows).collect();
    let Some(masked) = masked else {
        return Ok(false);
    };
    work.count("num_target_rows_deleted", 0);
    for (file, masked) in files.iter().zip(masked) {
        let gone = file.rows.saturating_sub(masked);
        work.count("num_target_rows_deleted", gone);
        work.note_file(file, gone, Fate::Remove);
    }
    work.change.read = Some(everything);
    work.change.removed = files;
    Ok(true)
}

/// Finds the rows for which a predicate is true, and notes in the change that it was read.
pub(super) async fn matching_rows(work: &mut Work, predicate: &str) -> Result<Touched> {
    let predicate = understood(work, predicate)?;
    work.keep_lineage();
    let prune = Arc::new(Prune::matching(
        predicate.clone(),
        Arc::clone(&work.snapshot.schema),
    )?);
    work.change.read = Some(Arc::clone(&prune));
    let files = work.list(&prune).await?;
    scan_rows(work, Some(predicate), files).await
}

/// The rows of these files for which a predicate is true, as what an operation depends on.
pub(super) async fn find_rows(
    work: &mut Work,
    predicate: Option<Expr>,
    files: Vec<DataFile>,
) -> Result<Option<Found>> {
    if predicate.as_ref().is_some_and(Expr::is_volatile) {
        return Ok(None);
    }
    let touched = scan_rows(work, predicate, files).await?.by_file();
    let matched = touched.clone();
    Ok(Some(Found {
        matched,
        touched,
        ..Found::default()
    }))
}

async fn scan_rows(work: &mut Work, predicate: Option<Expr>, files: Vec<DataFile>) -> Result<Touched> {
    let mut touched = Touched::new(files);
    if touched.files().is_empty() {
        return Ok(touched);
    }
    work.begin("scan");
    let columns = MetadataColumns {
        file: true,
        position: true,
        lineage: false,
    };
    let ctx = session(work.options.memory_limit);
    let (mut frame, report) = frame(work, &ctx, touched.files().to_vec(), columns)?;
    if let Some(predicate) = predicate {
        frame = frame.filter(predicate)?;
    }
    let mut stream = frame
        .select([ident(FILE_COLUMN), ident(POSITION_COLUMN)])?
        .execute_stream()
        .await?;
    while let Some(batch) = stream.try_next().await? {
        touched.touch(&Places::of(&batch)?)?;
    }
    work.count("bytes_read", report.bytes_planned.load(Relaxed));
    Ok(touched)
}

/// A predicate over the table's columns.
pub(super) fn understood(work: &Work, predicate: &str) -> Result<Expr> {
    parse_predicate(predicate, &columns_of(&work.snapshot.schema, None)?)
}
