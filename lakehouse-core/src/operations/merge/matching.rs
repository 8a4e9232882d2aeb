//! The three passes of a merge.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::UInt64Type;
use arrow::row::{RowConverter, SortField};
use datafusion::common::JoinType;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::super::rows::{Places, Touched, frame, named};
use super::super::update::{Assigned, column, write_updated};
use super::super::work::{Origin, Work};
use super::clauses::{Clauses, needed};
use super::plan::{Plan, SOURCE, TARGET};
use super::source::{NUMBER, Source};
use crate::error::{Error, Result};
use crate::model::schema::{FILE_COLUMN, POSITION_COLUMN, ROW_ID_COLUMN};
use crate::model::{DataFile, Prune};
use crate::scan::{MetadataColumns, columns_of};

/// How many duplicate keys an error names.
const NAMED_DUPLICATES: usize = 5;

/// What is known so far: which source rows matched, which target rows did, which are touched.
pub(super) struct Matching<'a> {
    ctx: SessionContext,
    plan: &'a Plan,
    source: &'a Source,
    source_rows: RoaringTreemap,
    target_rows: Touched,
    touched: Touched,
    updated: Touched,
}

impl<'a> Matching<'a> {
    /// Nothing has matched yet. `files` are those that can hold matching rows.
    pub(super) fn new(ctx: SessionContext, plan: &'a Plan, source: &'a Source, files: Vec<DataFile>) -> Self {
        Self {
            ctx,
            plan,
            source,
            source_rows: RoaringTreemap::new(),
            target_rows: Touched::new(files.clone()),
            touched: Touched::new(files.clone()),
            updated: Touched::new(files),
        }
    }

    /// The rows of the target that are touched.
    pub(super) fn into_touched(self) -> Touched {
        self.touched
    }

    /// Joins source and target and applies the clauses for rows that match.
    pub(super) async fn matched(&mut self, work: &mut Work) -> Result<()> {
        let files = self.touched.files().to_vec();
        if files.is_empty() || self.source.rows() == 0 {
            return Ok(());
        }
        let table = Arc::clone(&work.snapshot.schema);
        let touches = !self.plan.matched.is_empty() || !self.plan.by_source.is_empty();
        let (target, report) = target(work, &self.ctx, files, touches)?;
        let mut columns = needed(&self.plan.matched, &table);
        columns.push(column(Some(SOURCE), NUMBER));
        if touches {
            columns.extend(metadata_columns(work));
        }
        let joined = self
            .source
            .frame(&self.ctx)?
            .alias(SOURCE)?
            .join_on(target, JoinType::Inner, [self.plan.on.clone()])?
            .select(columns)?;
        let clauses = Clauses::new(&self.ctx, &self.plan.matched, &table, joined.schema(), true)?;
        let mut stream = joined.execute_stream().await?;
        while let Some(batch) = stream.try_next().await? {
            let numbers = named(&batch, NUMBER)?;
            self.source_rows
                .extend(numbers.as_primitive::<UInt64Type>().values());
            if !self.plan.by_source.is_empty() {
                self.target_rows.touch(&Places::of(&batch)?)?;
            }
            for (rows, effect) in clauses.take(batch)? {
                self.act(work, &rows, effect).await?;
            }
        }
        work.count("bytes_read", report.bytes_planned.load(Relaxed));
        Ok(())
    }

    /// One clause on the rows it got.
    async fn act(&mut self, work: &mut Work, rows: &RecordBatch, effect: Option<&Assigned>) -> Result<()> {
        let places = Places::of(rows)?;
        let fresh = self.touched.touch(&places)?;
        let updated_before = self.updated.contains(&places)?;
        // Deleting a row twice is deleting it; anything else is ambiguous.
        let twice = |i: &usize| {
            if effect.is_some() {
                !fresh[*i]
            } else {
                updated_before[*i]
            }
        };
        let duplicates: Vec<usize> = (0..fresh.len()).filter(twice).collect();
        if !duplicates.is_empty() {
            return Err(self.duplicate_matches(rows, &duplicates));
        }
        match effect {
            Some(values) => {
                self.updated.touch(&places)?;
                write_updated(work, values, rows).await?;
                work.count("num_target_rows_updated", rows.num_rows() as u64);
            }
            None => {
                let deleted = fresh.iter().filter(|fresh| **fresh).count();
                work.count("num_target_rows_deleted", deleted as u64);
            }
        }
        Ok(())
    }

    /// Applies the clauses for target rows that match nothing.
    pub(super) async fn by_source(&mut self, work: &mut Work) -> Result<()> {
        if self.plan.by_source.is_empty() {
            return Ok(());
        }
        let table = Arc::clone(&work.snapshot.schema);
        let predicate = self.plan.by_source_predicate()?;
        let prune = match predicate.clone() {
            Some(predicate) => Prune::matching(predicate, Arc::clone(&table))?,
            None => Prune::everything(),
        };
        let files = work.list(&Arc::new(prune)).await?;
        if files.is_empty() {
            return Ok(());
        }
        self.touched.extend(files.clone());
        self.target_rows.extend(files.clone());
        let (mut target, report) = target(work, &self.ctx, files, true)?;
        if let Some(any) = self
            .plan
            .by_source
            .iter()
            .map(|step| step.condition.clone())
            .collect::<Option<Vec<Expr>>>()
            .and_then(datafusion::logical_expr::utils::disjunction)
        {
            target = target.filter(any)?;
        }
        let mut columns = needed(&self.plan.by_source, &table);
        columns.extend(metadata_columns(work));
        let target = target.select(columns)?;
        let clauses = Clauses::new(&self.ctx, &self.plan.by_source, &table, target.schema(), true)?;
        let mut stream = target.execute_stream().await?;
        while let Some(batch) = stream.try_next().await? {
            let matched = self.target_rows.contains(&Places::of(&batch)?)?;
            let left: BooleanArray = matched.into_iter().map(|matched| Some(!matched)).collect();
            for (rows, effect) in clauses.take(filter_record_batch(&batch, &left)?)? {
                self.touched.touch(&Places::of(&rows)?)?;
                let count = rows.num_rows() as u64;
                match effect {
                    Some(values) => {
                        write_updated(work, values, &rows).await?;
                        work.count("num_target_rows_updated", count);
                    }
                    None => work.count("num_target_rows_deleted", count),
                }
            }
        }
        work.count("bytes_read", report.bytes_planned.load(Relaxed));
        Ok(())
    }

    /// Applies the clauses for source rows that match nothing.
    pub(super) async fn inserts(&mut self, work: &mut Work) -> Result<()> {
        if self.plan.inserts.is_empty() || self.source_rows.len() == self.source.rows() {
            return Ok(());
        }
        work.begin("write");
        let table = Arc::clone(&work.snapshot.schema);
        let columns = columns_of(self.source.schema(), Some(SOURCE))?;
        let clauses = Clauses::new(&self.ctx, &self.plan.inserts, &table, &columns, false)?;
        let mut keys = InsertedKeys::new(self.plan, self.source)?;
        let mut before = 0;
        for batch in self.source.batches() {
            let upto = before + batch.num_rows() as u64;
            let left: BooleanArray = (before..upto)
                .map(|row| Some(!self.source_rows.contains(row)))
                .collect();
            before = upto;
            for (rows, effect) in clauses.take(filter_record_batch(batch, &left)?)? {
                let Some(values) = effect else { continue };
                keys.add(&rows)?;
                work.write(&values.rows(&rows)?, Origin::New).await?;
                work.count("num_target_rows_inserted", rows.num_rows() as u64);
            }
        }
        Ok(())
    }

    fn duplicate_matches(&self, rows: &RecordBatch, duplicates: &[usize]) -> Error {
        let keys = self.plan.source_keys();
        let mut texts: Vec<String> = Vec::new();
        if let Ok(numbers) = named(rows, NUMBER) {
            let numbers = numbers.as_primitive::<UInt64Type>();
            for at in duplicates {
                let text = self.source.describe(numbers.value(*at), &keys);
                if !texts.contains(&text) && texts.len() < NAMED_DUPLICATES {
                    texts.push(text);
                }
            }
        }
        duplicate_error("several source rows match one row of the table", &texts)
    }
}

fn duplicate_error(what: &str, keys: &[String]) -> Error {
    Error::invalid(format!("{what}: {}", keys.join("; ")), "source")
        .with_hint("keep one source row per key: the newest by a column (--sequence-by), or --on-duplicate first or last")
}

/// The target's rows, under their qualifier.
fn target(
    work: &Work,
    ctx: &SessionContext,
    files: Vec<DataFile>,
    places: bool,
) -> Result<(DataFrame, Arc<crate::scan::ScanReport>)> {
    let columns = MetadataColumns {
        file: places,
        position: places,
        lineage: places && work.lineage(),
    };
    let (frame, report) = frame(work, ctx, files, columns)?;
    Ok((frame.alias(TARGET)?, report))
}

fn metadata_columns(work: &Work) -> Vec<Expr> {
    let mut names = vec![FILE_COLUMN, POSITION_COLUMN];
    if work.lineage() {
        names.push(ROW_ID_COLUMN);
    }
    names.into_iter().map(|name| column(Some(TARGET), name)).collect()
}

/// Keys of the rows inserted so far: the same key twice would be a duplicate that no later merge can
/// tell apart. Keys with NULL match nothing, so they cannot collide, except where `<=>` compares them.
struct InsertedKeys {
    names: Vec<String>,
    /// Columns in which NULL matches nothing.
    required: Vec<String>,
    converter: Option<RowConverter>,
    seen: HashSet<Box<[u8]>>,
}

impl InsertedKeys {
    fn new(plan: &Plan, source: &Source) -> Result<Self> {
        let names = plan.source_keys();
        let converter = if plan.only_keys && !names.is_empty() {
            let mut fields = Vec::with_capacity(names.len());
            for name in &names {
                let field = source.schema().field_with_name(name)?;
                fields.push(SortField::new(field.data_type().clone()));
            }
            Some(RowConverter::new(fields)?)
        } else {
            None
        };
        let required = plan.keys.iter().filter(|key| !key.null_safe);
        Ok(Self {
            required: required.map(|key| key.source.clone()).collect(),
            names,
            converter,
            seen: HashSet::new(),
        })
    }

    fn add(&mut self, rows: &RecordBatch) -> Result<()> {
        let Some(converter) = &self.converter else {
            return Ok(());
        };
        let mut keyed = rows.clone();
        for name in &self.required {
            let column = named(&keyed, name)?;
            if column.null_count() > 0 {
                keyed = filter_record_batch(&keyed, &is_not_null(&column)?)?;
            }
        }
        let columns: Vec<ArrayRef> = self
            .names
            .iter()
            .map(|name| named(&keyed, name))
            .collect::<Result<_>>()?;
        let converted = converter.convert_columns(&columns)?;
        let mut duplicates = Vec::new();
        for (at, row) in converted.iter().enumerate() {
            if !self.seen.insert(row.as_ref().into()) {
                duplicates.push(at);
            }
        }
        if duplicates.is_empty() {
            return Ok(());
        }
        let only = Source::single(keyed);
        let mut texts: Vec<String> = duplicates
            .into_iter()
            .map(|at| only.describe(at as u64, &self.names))
            .collect();
        texts.dedup();
        texts.truncate(NAMED_DUPLICATES);
        Err(duplicate_error(
            "several source rows have one key that is not in the table yet",
            &texts,
        ))
    }
}
