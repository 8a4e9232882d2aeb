//! Adds rows, without reading the table.

use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::input::Known;
use super::work::{Origin, Verb, Work, run};
use super::{Options, Report, Rows};
use crate::error::Result;
use crate::format::Handle;
use crate::model::OperationKind;

/// Adds rows. Columns are matched by name; nullable columns that the input lacks are NULL, and columns that
/// the table lacks are refused or added ([`super::SchemaMode`]). Without rows nothing is committed.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for rows that do not fit; those of [`crate::commit::commit`].
pub async fn append(handle: &Handle, rows: Rows, options: &Options) -> Result<Report> {
    run(handle, options, &mut Append { rows }).await
}

pub(super) struct Append {
    pub(super) rows: Rows,
}

impl Verb for Append {
    fn kind(&self) -> OperationKind {
        OperationKind::Append
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            work.begin("write");
            work.evolve_for(&self.rows).await?;
            let (_, mut batches) = self.rows.open(Known::Table(&work.snapshot.schema)).await?;
            let mut before = 0;
            while let Some(batch) = batches.try_next().await? {
                let batch = work.fit(&batch, Some(before))?;
                let rows = batch.num_rows() as u64;
                before += rows;
                work.write_fitting(batch, Origin::New).await?;
                work.count("num_source_rows", rows);
                work.count("num_target_rows_inserted", rows);
            }
            Ok(())
        })
    }
}
