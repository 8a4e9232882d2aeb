//! The three passes of a merge.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use arrow::array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch};
use arrow::compute::{filter_record_batch, is_not_null};
use arrow::datatypes::{SchemaRef, UInt64Type};
use arrow::row::{RowConverter, SortField};
use datafusion::common::{DFSchema, JoinType};
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::Expr;
use datafusion::prelude::SessionContext;
use futures::TryStreamExt;
use roaring::RoaringTreemap;

use super::super::rows::{Found, Places, Touched, frame, named};
use super::super::update::{Assigned, changed_rows, column, write_updated};
use super::super::work::{Origin, Work};
use super::clauses::{Clauses, needed};
use super::plan::{Plan, SOURCE, TARGET};
use super::source::{NUMBER, Source};
use super::{members, ranges};
use crate::error::{Error, Result};
use crate::model::floats::as_compared;
use crate::model::schema::{FILE_COLUMN, POSITION_COLUMN, ROW_ID_COLUMN};
use crate::model::{DataFile, Prune};
use crate::scan::{MetadataColumns, columns_of};

/// How many duplicate keys an error names.
pub(super) const NAMED_DUPLICATES: usize = 5;

/// What is known so far: which source rows of the pass at hand matched, which target rows did, which go.
pub(super) struct Matching<'a> {
    ctx: &'a SessionContext,
    plan: &'a Plan,
    source_rows: RoaringTreemap,
    /// Rows of the target that match.
    target_rows: Touched,
    /// Those of them that go: deleted, or written anew.
    touched: Touched,
    /// Those of them that an update was decided for.
    updated: Touched,
    /// Nothing is written: only which rows match and go is asked.
    looking: bool,
}

impl<'a> Matching<'a> {
    /// Nothing has matched yet.
    pub(super) fn new(ctx: &'a SessionContext, plan: &'a Plan) -> Self {
        Self {
            ctx,
            plan,
            source_rows: RoaringTreemap::new(),
            target_rows: Touched::new(Vec::new()),
            touched: Touched::new(Vec::new()),
            updated: Touched::new(Vec::new()),
            looking: false,
        }
    }

    /// Only finds out which rows match and go.
    #[must_use]
    pub(super) fn looking(mut self) -> Self {
        self.looking = true;
        self
    }

    /// The rows of the target that match, and those that go.
    pub(super) fn found(&self) -> Found {
        Found {
            matched: self.target_rows.by_file(),
            touched: self.touched.by_file(),
            updated: self.updated.by_file(),
        }
    }

    /// The rows of the target that go.
    pub(super) fn into_touched(self) -> Touched {
        self.touched
    }

    /// Joins the source with these files of the target and applies the clauses for rows that match.
    pub(super) async fn matched(
        &mut self,
        work: &mut Work,
        source: &Source,
        files: Vec<DataFile>,
    ) -> Result<()> {
        self.source_rows.clear();
        if files.is_empty() || source.rows() == 0 {
            return Ok(());
        }
        for rows in [&mut self.target_rows, &mut self.touched, &mut self.updated] {
            rows.extend(files.clone());
        }
        let table = Arc::clone(&work.snapshot.schema);
        let within = ranges::within(&self.plan.keys, &table, source, &files)?;
        let (mut target, report) = target(work, self.ctx, files)?;
        let filter = match within {
            // Of what is left, most rows match as a rule.
            Some(within) => Some(within),
            None => members::may_match(&self.plan.keys, &table, source)?,
        };
        if let Some(filter) = filter {
            target = target.filter(filter)?;
        }
        let mut columns = needed(&self.plan.matched, &table, self.plan.skip_unchanged);
        columns.push(column(Some(SOURCE), NUMBER));
        columns.extend(metadata_columns(work));
        let joined = source.frame(self.ctx)?.alias(SOURCE)?.join_on(
            target,
            JoinType::Inner,
            [self.plan.on.clone()],
        )?;
        let late = Late::new(source, &joined, columns)?;
        let compare = self.plan.skip_unchanged;
        let clauses = Clauses::new(self.ctx, &self.plan.matched, &table, &late.schema, true, compare)?;
        let mut stream = joined.select(late.joined.clone())?.execute_stream().await?;
        while let Some(batch) = stream.try_next().await? {
            let batch = late.complete(&batch)?;
            let numbers = named(&batch, NUMBER)?;
            self.source_rows
                .extend(numbers.as_primitive::<UInt64Type>().values());
            self.target_rows.touch(&Places::of(&batch)?)?;
            for (rows, effect) in clauses.take(batch)? {
                self.act(work, source, &rows, effect, clauses.old.as_ref())
                    .await?;
            }
        }
        work.count("bytes_read", report.bytes_planned.load(Relaxed));
        Ok(())
    }

    /// One clause on the rows it got.
    async fn act(
        &mut self,
        work: &mut Work,
        source: &Source,
        rows: &RecordBatch,
        effect: Option<&Assigned>,
        old: Option<&Assigned>,
    ) -> Result<()> {
        let places = Places::of(rows)?;
        let updated_before = self.updated.contains(&places)?;
        let Some(values) = effect else {
            // Deleting a row twice is deleting it; anything else is ambiguous.
            self.refuse_duplicates(source, rows, &updated_before)?;
            let fresh = self.touched.touch(&places)?;
            let deleted = fresh.iter().filter(|fresh| **fresh).count();
            work.count("num_target_rows_deleted", deleted as u64);
            return Ok(());
        };
        let gone_before = self.touched.contains(&places)?;
        let fresh = self.updated.touch(&places)?;
        let twice: Vec<bool> = fresh
            .iter()
            .zip(gone_before)
            .map(|(fresh, gone)| !fresh || gone)
            .collect();
        self.refuse_duplicates(source, rows, &twice)?;
        self.update(work, rows, values, old).await
    }

    /// Writes the new versions of rows, or of those that differ from the `old` ones.
    async fn update(
        &mut self,
        work: &mut Work,
        rows: &RecordBatch,
        values: &Assigned,
        old: Option<&Assigned>,
    ) -> Result<()> {
        let changed = match old {
            Some(old) => changed_rows(work, old, values, rows)?,
            None => None,
        };
        let rows = match changed {
            None => rows.clone(),
            Some(changed) => {
                work.count("num_target_rows_unchanged", changed.false_count() as u64);
                filter_record_batch(rows, &changed)?
            }
        };
        let places = Places::of(&rows)?;
        self.touched.touch(&places)?;
        self.updated.touch(&places)?;
        if !self.looking {
            write_updated(work, values, &rows).await?;
        }
        work.count("num_target_rows_updated", rows.num_rows() as u64);
        Ok(())
    }

    fn refuse_duplicates(&self, source: &Source, rows: &RecordBatch, twice: &[bool]) -> Result<()> {
        if !twice.contains(&true) {
            return Ok(());
        }
        let at: Vec<usize> = (0..twice.len()).filter(|at| twice[*at]).collect();
        Err(self.duplicate_matches(source, rows, &at))
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
        for rows in [&mut self.target_rows, &mut self.touched, &mut self.updated] {
            rows.extend(files.clone());
        }
        let (mut target, report) = target(work, self.ctx, files)?;
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
        let compare = self.plan.skip_unchanged;
        let mut columns = needed(&self.plan.by_source, &table, compare);
        columns.extend(metadata_columns(work));
        let target = target.select(columns)?;
        let clauses = Clauses::new(
            self.ctx,
            &self.plan.by_source,
            &table,
            target.schema(),
            true,
            compare,
        )?;
        let mut stream = target.execute_stream().await?;
        while let Some(batch) = stream.try_next().await? {
            let matched = self.target_rows.contains(&Places::of(&batch)?)?;
            let left: BooleanArray = matched.into_iter().map(|matched| Some(!matched)).collect();
            for (rows, effect) in clauses.take(filter_record_batch(&batch, &left)?)? {
                match effect {
                    Some(values) => self.update(work, &rows, values, clauses.old.as_ref()).await?,
                    None => {
                        self.touched.touch(&Places::of(&rows)?)?;
                        work.count("num_target_rows_deleted", rows.num_rows() as u64);
                    }
                }
            }
        }
        work.count("bytes_read", report.bytes_planned.load(Relaxed));
        Ok(())
    }

    /// Applies the clauses for source rows that match nothing.
    pub(super) async fn inserts(&mut self, work: &mut Work, source: &Source) -> Result<()> {
        if self.plan.inserts.is_empty() || self.source_rows.len() == source.rows() {
            return Ok(());
        }
        work.begin("write");
        let table = Arc::clone(&work.snapshot.schema);
        let columns = columns_of(source.schema(), Some(SOURCE))?;
        let clauses = Clauses::new(self.ctx, &self.plan.inserts, &table, &columns, false, false)?;
        let mut keys = InsertedKeys::new(self.plan, source)?;
        let mut before = 0;
        for batch in source.batches() {
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

    fn duplicate_matches(&self, source: &Source, rows: &RecordBatch, duplicates: &[usize]) -> Error {
        let keys = self.plan.source_keys();
        let mut texts: Vec<String> = Vec::new();
        if let Ok(numbers) = named(rows, NUMBER) {
            let numbers = numbers.as_primitive::<UInt64Type>();
            for at in duplicates {
                let text = source.describe(numbers.value(*at), &keys);
                if !texts.contains(&text) && texts.len() < NAMED_DUPLICATES {
                    texts.push(text);
                }
            }
        }
        duplicate_error("several source rows match one row of the table", &texts)
    }
}

pub(super) fn duplicate_error(what: &str, keys: &[String]) -> Error {
    Error::invalid(format!("{what}: {}", keys.join("; ")), "source")
        .with_hint("keep one source row per key: the newest by a column (--sequence-by), or --on-duplicate first or last")
}

/// The columns of the source that clauses read, taken from its rows once it is known which ones match: the
/// join holds the keys alone.
struct Late<'a> {
    source: &'a Source,
    /// What the join gives.
    joined: Vec<Expr>,
    /// Each column of a complete batch: that of the join at this place, or a column of the source.
    columns: Vec<Result<usize, String>>,
    schema: DFSchema,
    batch: SchemaRef,
}

impl<'a> Late<'a> {
    /// `columns` of the join, of which [`NUMBER`] is one.
    fn new(source: &'a Source, join: &DataFrame, columns: Vec<Expr>) -> Result<Self> {
        let mut joined = Vec::new();
        let mut places = Vec::with_capacity(columns.len());
        for expr in &columns {
            places.push(match expr {
                Expr::Column(column)
                    if column
                        .relation
                        .as_ref()
                        .is_some_and(|side| side.table() == SOURCE)
                        && column.name != NUMBER =>
                {
                    Err(column.name.clone())
                }
                _ => {
                    joined.push(expr.clone());
                    Ok(joined.len() - 1)
                }
            });
        }
        let schema = join.clone().select(columns)?.schema().clone();
        Ok(Self {
            source,
            joined,
            columns: places,
            batch: Arc::new(schema.as_arrow().clone()),
            schema,
        })
    }

    /// The rows of the join with all columns.
    fn complete(&self, joined: &RecordBatch) -> Result<RecordBatch> {
        let numbers = named(joined, NUMBER)?;
        let rows = self.source.places(numbers.as_primitive::<UInt64Type>());
        let columns = self.columns.iter().map(|column| match column {
            Ok(at) => Ok(Arc::clone(joined.column(*at))),
            Err(name) => self.source.take(name, &rows),
        });
        Ok(RecordBatch::try_new(
            Arc::clone(&self.batch),
            columns.collect::<Result<_>>()?,
        )?)
    }
}

/// The target's rows, under their qualifier.
fn target(
    work: &Work,
    ctx: &SessionContext,
    files: Vec<DataFile>,
) -> Result<(DataFrame, Arc<crate::scan::ScanReport>)> {
    let columns = MetadataColumns {
        file: true,
        position: true,
        lineage: work.lineage(),
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
            .map(|name| Ok(as_compared(&named(&keyed, name)?)))
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
