//! Sets columns in the rows for which a predicate is true.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, ArrayRef, BooleanArray, RecordBatch, make_comparator};
use arrow::compute::kernels::cmp::not_distinct;
use arrow::compute::{SortOptions, and, cast, not};
use arrow::datatypes::{Field, Schema};
use datafusion::common::DFSchema;
use datafusion::logical_expr::Expr;
use datafusion::prelude::{SessionContext, ident};
use futures::TryStreamExt;
use futures::future::BoxFuture;

use super::delete::{find_rows, understood};
use super::diff::canonical;
use super::evaluate::Compiled;
use super::rows::{Found, Places, Touched, frame, named};
use super::work::{Origin, Verb, Work, run};
use super::{Options, Report};
use crate::error::Result;
use crate::format::Handle;
use crate::model::schema::{FILE_COLUMN, GENERATED, POSITION_COLUMN, ROW_ID_COLUMN};
use crate::model::{DataFile, OperationKind, Prune};
use crate::scan::{MetadataColumns, columns_of, parse_assignments, session};

/// Sets columns (`"c = expr, .."`, expressions over the row as it was) in the rows for which
/// `predicate` is true, in all rows without one. Rows keep their ids. Without such rows nothing is
/// committed.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) for an expression that cannot be understood or a value that does not fit
/// its column; those of [`crate::commit::commit`].
pub async fn update(
    handle: &Handle,
    assignments: &str,
    predicate: Option<&str>,
    options: &Options,
) -> Result<Report> {
    let mut verb = Update {
        assignments,
        predicate,
    };
    run(handle, options, &mut verb).await
}

struct Update<'a> {
    assignments: &'a str,
    predicate: Option<&'a str>,
}

impl Verb for Update<'_> {
    fn kind(&self) -> OperationKind {
        OperationKind::Update
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let schema = Arc::clone(&work.snapshot.schema);
            let assignments = parse_assignments(self.assignments, &schema, &columns_of(&schema, None)?)?;
            let predicate = self.predicate.map(|p| understood(work, p)).transpose()?;
            work.keep_lineage();
            let prune = Arc::new(match &predicate {
                Some(predicate) => Prune::matching(predicate.clone(), Arc::clone(&schema))?,
                None => Prune::everything(),
            });
            work.change.read = Some(Arc::clone(&prune));
            let mut touched = Touched::new(work.list(&prune).await?);
            if touched.files().is_empty() {
                return Ok(());
            }
            work.begin("scan");
            let columns = MetadataColumns {
                file: true,
                position: true,
                lineage: work.lineage(),
            };
            let ctx = session(work.options.memory_limit);
            let (mut frame, report) = frame(work, &ctx, touched.files().to_vec(), columns)?;
            if let Some(predicate) = predicate {
                frame = frame.filter(predicate)?;
            }
            let frame = frame.select(needed_columns(&schema, &assignments, work.lineage()))?;
            let values = Assigned::new(&ctx, &schema, assignments, frame.schema(), None)?;
            let mut stream = frame.execute_stream().await?;
            while let Some(batch) = stream.try_next().await? {
                touched.touch(&Places::of(&batch)?)?;
                write_updated(work, &values, &batch).await?;
            }
            work.count("num_target_rows_updated", touched.rows());
            work.count("bytes_read", report.bytes_planned.load(Relaxed));
            touched.apply(work).await
        })
    }

    fn find<'a>(
        &'a mut self,
        work: &'a mut Work,
        files: Vec<DataFile>,
    ) -> BoxFuture<'a, Result<Option<Found>>> {
        Box::pin(async move {
            let predicate = self.predicate.map(|p| understood(work, p)).transpose()?;
            find_rows(work, predicate, files).await
        })
    }
}

fn needed_columns(schema: &Schema, assignments: &[(String, Expr)], lineage: bool) -> Vec<Expr> {
    let mut names: BTreeSet<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    for (name, _) in assignments {
        names.remove(name.as_str());
    }
    for (_, value) in assignments {
        names.extend(value.column_refs().into_iter().map(|c| c.name.as_str()));
    }
    names.extend([FILE_COLUMN, POSITION_COLUMN]);
    if lineage {
        names.insert(ROW_ID_COLUMN);
    }
    names.into_iter().map(ident).collect()
}

/// Writes the new versions of rows, which keep their ids.
pub(super) async fn write_updated(work: &mut Work, values: &Assigned, batch: &RecordBatch) -> Result<()> {
    let rows = values.rows(batch)?;
    if work.lineage() {
        let ids = named(batch, ROW_ID_COLUMN)?;
        work.write(&rows, Origin::Updated(Some(&ids))).await
    } else {
        work.write(&rows, Origin::Updated(None)).await
    }
}

/// For which rows of a batch the new versions differ from the old ones; `None` if all do. NULL is the same
/// as NULL.
pub(super) fn changed_rows(
    work: &mut Work,
    old: &Assigned,
    new: &Assigned,
    batch: &RecordBatch,
) -> Result<Option<BooleanArray>> {
    let old = old.rows(batch)?;
    let new = work.fit(&new.rows(batch)?, None)?;
    let mut same: Option<BooleanArray> = None;
    for (old, new) in old.columns().iter().zip(new.columns()) {
        let equal = equal_values(old, new)?;
        same = Some(match same {
            None => equal,
            Some(same) => and(&same, &equal)?,
        });
    }
    match same {
        Some(same) if same.true_count() > 0 => Ok(Some(not(&same)?)),
        _ => Ok(None),
    }
}

/// Whether values are the same, NULL the same as NULL, however they are spelled: 0.0 and -0.0 are.
fn equal_values(old: &ArrayRef, new: &ArrayRef) -> Result<BooleanArray> {
    let (old, new) = (&canonical(old)?, &canonical(new)?);
    if old.data_type() == new.data_type() && !old.data_type().is_nested() {
        return Ok(not_distinct(old, new)?);
    }
    let old = cast(old, new.data_type())?;
    let compare = make_comparator(&old, new, SortOptions::default())?;
    Ok((0..new.len()).map(|at| Some(compare(at, at).is_eq())).collect())
}

/// How each column of new rows is made from a batch.
#[derive(Debug)]
pub(super) struct Assigned(Vec<(String, Compiled)>);

impl Assigned {
    /// Columns that `assignments` name take their values; the others are kept from the batch, where
    /// they are found under `keep` (a qualifier, or none), but for generated ones: those are left out, to be
    /// computed anew.
    pub(super) fn new(
        ctx: &SessionContext,
        table: &Schema,
        assignments: Vec<(String, Expr)>,
        batch: &DFSchema,
        keep: Option<&str>,
    ) -> Result<Self> {
        let mut complete = Vec::with_capacity(table.fields().len());
        for field in table.fields() {
            let assigned = assignments.iter().find(|(name, _)| name == field.name());
            let value = match assigned {
                Some((_, value)) => value.clone(),
                None if field.metadata().contains_key(GENERATED) => continue,
                None => column(keep, field.name()),
            };
            complete.push((field.name().clone(), value));
        }
        Self::only(ctx, complete, batch)
    }

    /// Rows as they are in the batch.
    pub(super) fn kept(
        ctx: &SessionContext,
        table: &Schema,
        batch: &DFSchema,
        keep: Option<&str>,
    ) -> Result<Self> {
        let columns = table.fields().iter();
        let columns = columns.map(|field| (field.name().clone(), column(keep, field.name())));
        Self::only(ctx, columns.collect(), batch)
    }

    /// Rows of exactly these columns.
    pub(super) fn only(
        ctx: &SessionContext,
        assignments: Vec<(String, Expr)>,
        batch: &DFSchema,
    ) -> Result<Self> {
        let compiled = assignments
            .into_iter()
            .map(|(name, value)| Ok((name, Compiled::new(ctx, value, batch)?)))
            .collect::<Result<_>>()?;
        Ok(Self(compiled))
    }

    /// The new rows for the rows of a batch.
    pub(super) fn rows(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let mut fields = Vec::with_capacity(self.0.len());
        let mut columns = Vec::with_capacity(self.0.len());
        for (name, value) in &self.0 {
            let values = value.values(batch)?;
            fields.push(Field::new(name, values.data_type().clone(), true));
            columns.push(values);
        }
        Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), columns)?)
    }
}

/// A column, qualified or not.
pub(super) fn column(qualifier: Option<&str>, name: &str) -> Expr {
    let relation = qualifier.map(datafusion::common::TableReference::bare);
    Expr::Column(datafusion::common::Column::new(relation, name))
}
