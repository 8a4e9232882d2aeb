//! Runs a program on a table of one format and on the model.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{RecordBatch, new_empty_array};
use arrow::datatypes::{Field, Schema};
use datafusion::scalar::ScalarValue;
use lakehouse_core::model::{At, Definition, Version, parse_partitioning};
use lakehouse_core::operations::maintain::{Bytes, Policy};
use lakehouse_core::operations::{Action, When};
use lakehouse_core::store::Store;
use lakehouse_core::store::sim::{Fault, Faults, faulty};
use lakehouse_core::{Compact, Error, Merge, Options, Report, Result, Rows, Table, TableFormat};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::diffs;
use super::evolution::{Evolution, carry};
use super::program::{Evolving, Program, Step};
use crate::maintain::run as maintenance;
use crate::verbs::check::checked_all;

use super::reference::{self, Column, Condition, Effect, Row, Scope, assign, spell, widen};

/// One of so many programs ends with a check of all that it left.
const CHECKED: u64 = 10;

/// One of so many programs ends with maintenance of the table that it left.
const MAINTAINED: u64 = 5;

/// A format, in one of its versions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    IcebergV2,
    IcebergV3,
    Delta,
}

impl Kind {
    pub(super) const ALL: [Self; 3] = [Self::IcebergV2, Self::IcebergV3, Self::Delta];

    /// As a part of a file name.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::IcebergV2 => "iceberg2",
            Self::IcebergV3 => "iceberg3",
            Self::Delta => "delta",
        }
    }

    fn format(self) -> TableFormat {
        match self {
            Self::Delta => TableFormat::Delta,
            _ => TableFormat::Iceberg,
        }
    }

    fn definition(self, program: &Program) -> Definition {
        let mut properties = BTreeMap::new();
        if program.copy_on_write {
            if self == Self::Delta {
                properties.insert("delta.enableDeletionVectors".to_owned(), "false".to_owned());
            } else {
                for verb in ["delete", "update", "merge"] {
                    properties.insert(format!("write.{verb}.mode"), "copy-on-write".to_owned());
                }
            }
        }
        if self == Self::Delta && program.columns.len().is_multiple_of(2) {
            // Every other table has what makes its writers do more.
            for feature in ["delta.enableChangeDataFeed", "delta.enableRowTracking"] {
                properties.insert(feature.to_owned(), "true".to_owned());
            }
        }
        if program.small_row_groups {
            properties.insert("write.parquet.row-group-limit".to_owned(), "3".to_owned());
        }
        Definition {
            schema: Arc::new(schema(&program.columns)),
            partition_fields: parse_partitioning(program.partitioning).unwrap(),
            properties,
            format_version: match self {
                Self::IcebergV2 => Some(2),
                Self::IcebergV3 => Some(3),
                Self::Delta => None,
            },
        }
    }
}

fn schema(columns: &[Column]) -> Schema {
    let field = |c: &Column| Field::new(c.name, c.data_type.clone(), c.nullable);
    Schema::new(columns.iter().map(field).collect::<Vec<_>>())
}

fn batch(columns: &[Column], rows: &[Row]) -> RecordBatch {
    let array = |at: usize| match rows.is_empty() {
        true => new_empty_array(&columns[at].data_type),
        false => ScalarValue::iter_to_array(rows.iter().map(|row| row[at].clone())).unwrap(),
    };
    let arrays = (0..columns.len()).map(array).collect();
    RecordBatch::try_new(Arc::new(schema(columns)), arrays).unwrap()
}

fn input(columns: &[Column], rows: &[Row]) -> Rows {
    let batch = batch(columns, rows);
    // Two batches find mistakes that one hides.
    let half = batch.num_rows() / 2;
    let parts = vec![batch.slice(0, half), batch.slice(half, batch.num_rows() - half)];
    Rows::batches(batch.schema(), parts)
}

/// Rows as sorted text, so that tables are equal if their texts are.
fn text(rows: impl IntoIterator<Item = Row>) -> Vec<String> {
    let mut lines: Vec<String> = rows.into_iter().map(|row| format!("{row:?}")).collect();
    lines.sort();
    lines
}

async fn read(table: &Table, at: &At, columns: &[Column]) -> Result<Vec<String>> {
    let provider = table.provider(at).await?;
    let ctx = lakehouse_core::scan::session(None);
    let batches = ctx.read_table(provider)?.collect().await?;
    let mut rows: Vec<Row> = Vec::new();
    for batch in batches {
        let names: Vec<String> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
        let wanted: Vec<&str> = columns.iter().map(|c| c.name).collect();
        assert_eq!(names, wanted, "columns of the table");
        for row in 0..batch.num_rows() {
            let cell = |at: usize| ScalarValue::try_from_array(batch.column(at), row);
            rows.push((0..columns.len()).map(cell).collect::<Result<_, _>>()?);
        }
    }
    Ok(text(rows))
}

/// The two tables side by side.
struct Run {
    table: Table,
    options: Options,
    columns: Vec<Column>,
    rows: Vec<Row>,
    /// Every version, its columns and its rows.
    versions: Vec<(Version, Vec<Column>, Vec<Row>)>,
}

/// Runs the program of a seed; says what differs, or what the model has of the newest version.
pub(super) async fn run_program(
    seed: u64,
    evolving: Evolving,
    kind: Kind,
    store: Store,
) -> Result<RecordBatch, String> {
    let program = Program::evolving(seed, evolving);
    let failed = |what: String| format!("LAKEHOUSE_SEED={seed} {kind:?} {evolving:?}: {what}");
    let mut run = Run::new(&program, kind, store).await.map_err(failed)?;
    for (number, (step, strategy)) in program.steps.iter().zip(&program.strategies).enumerate() {
        run.options.strategy = *strategy;
        run.step(step)
            .await
            .map_err(|why| failed(format!("step {number} {strategy:?} {step:?}\n{why}")))?;
    }
    run.compare(seed).await.map_err(failed)?;
    if seed.is_multiple_of(MAINTAINED) {
        run.maintain().await.map_err(failed)?;
    }
    Ok(batch(&run.columns, &run.rows))
}

/// The same, but the store is gone from some request of some step on. Whoever opens the table then finds the rows
/// before that step or those after it, and the program goes on from there.
pub(super) async fn run_program_with_crash(seed: u64, kind: Kind, store: Store) -> Result<(), String> {
    let program = Program::random(seed);
    let failed = |what: String| format!("seed {seed} {kind:?}: {what}");
    let mut rng = StdRng::seed_from_u64(seed);
    let crashing = rng.random_range(0..program.steps.len());
    let request = rng.random_range(1..30);
    let (frail, faults) = faulty(&store);
    let mut run = Run::new(&program, kind, store.clone()).await.map_err(failed)?;
    for (number, (step, strategy)) in program.steps.iter().zip(&program.strategies).enumerate() {
        run.options.strategy = *strategy;
        let done = if number == crashing {
            run.table = Table::open_in(frail.clone())
                .await
                .map_err(|e| failed(e.to_string()))?;
            faults.reset();
            faults.fail_at(request, Fault::Crash);
            run.crash(step, &store, &faults).await
        } else {
            run.step(step).await
        };
        done.map_err(|why| {
            failed(format!(
                "step {number} of request {request} {strategy:?} {step:?}\n{why}"
            ))
        })?;
    }
    run.compare(seed).await.map_err(failed)
}

impl Run {
    async fn new(program: &Program, kind: Kind, store: Store) -> Result<Self, String> {
        let table = Table::create_in(store, kind.format(), &kind.definition(program))
            .await
            .map_err(|e| format!("create: {e}"))?;
        let version = table
            .snapshot(&At::Latest)
            .await
            .map_err(|e| e.to_string())?
            .version;
        Ok(Self {
            table,
            options: Options {
                target_file_bytes: program.target_file_bytes,
                ..Options::default()
            },
            columns: program.columns.clone(),
            rows: Vec::new(),
            versions: vec![(version, program.columns.clone(), Vec::new())],
        })
    }

    /// A step in the middle of which the store may be gone; `store` is the same one, back again.
    async fn crash(&mut self, step: &Step, store: &Store, faults: &Faults) -> Result<(), String> {
        let before = self.rows.clone();
        let expected = self.on_model(step);
        let done = self.on_table(step).await;
        let crashed = faults.fired() > 0;
        faults.reset();
        self.table = Table::open_in(store.clone()).await.map_err(|e| e.to_string())?;
        if !crashed {
            return self.judge(step, done, expected, before).await;
        }
        let found = read(&self.table, &At::Latest, &self.columns)
            .await
            .map_err(|e| e.to_string())?;
        let newest = self
            .table
            .snapshot(&At::Latest)
            .await
            .map_err(|e| e.to_string())?
            .version;
        let after = expected.unwrap_or_else(|| before.clone());
        if self.versions.last().map(|(version, ..)| *version) == Some(newest) {
            if done.is_ok_and(|report| report.committed) {
                return Err("a commit was acknowledged and is not there".into());
            }
            if found != text(before) {
                return Err("rows changed without a commit".into());
            }
            return self.step(step).await;
        }
        if found != text(after.clone()) {
            return Err(format!(
                "half a step was committed:\n{}",
                differences(&found, &text(after))
            ));
        }
        self.rows.clone_from(&after);
        self.versions.push((newest, self.columns.clone(), after));
        Ok(())
    }

    async fn step(&mut self, step: &Step) -> Result<(), String> {
        let before = self.rows.clone();
        let expected = self.on_model(step);
        let done = self.on_table(step).await;
        self.judge(step, done, expected, before).await
    }

    async fn judge(
        &mut self,
        step: &Step,
        done: Result<Report>,
        expected: Option<Vec<Row>>,
        before: Vec<Row>,
    ) -> Result<(), String> {
        match (done, expected) {
            (Ok(report), Some(rows)) => {
                self.rows = rows;
                if let Step::Alter(evolution) = step {
                    return self.altered(evolution, &report);
                }
                self.note(step, &report, &before).await
            }
            (Ok(_), None) => Err("duplicate keys were let through".to_owned()),
            (Err(Error::Invalid { what, .. }), None) if what.contains("several source rows") => {
                let after = read(&self.table, &At::Latest, &self.columns)
                    .await
                    .map_err(|e| e.to_string())?;
                if after == text(before) {
                    Ok(())
                } else {
                    Err("a refused merge changed the table".to_owned())
                }
            }
            (Err(error), _) => Err(format!("{error} ({error:?})")),
        }
    }

    /// Maintenance changes no row, and a second one finds nothing to do and writes nothing.
    async fn maintain(&self) -> Result<(), String> {
        let mut policy = Policy::default();
        policy.compact.target_file_size = self.options.target_file_bytes.map(Bytes);
        let mut before = Vec::new();
        for again in [false, true] {
            let done = maintenance(&self.table, &policy, false).await;
            let done = done.map_err(|error| error.to_string())?;
            if done.failed().count() > 0 || (again && done.did_something()) {
                return Err(format!("maintenance, again: {again}: {done:#?}"));
            }
            let found = read(&self.table, &At::Latest, &self.columns)
                .await
                .map_err(|error| error.to_string())?;
            if found != text(self.rows.clone()) {
                return Err("maintenance changed rows".to_owned());
            }
            let objects = self.table.handle().store.list("").await;
            let objects = objects.map_err(|error| error.to_string())?;
            let now: Vec<_> = objects
                .into_iter()
                .map(|one| (one.path, one.modified_ms))
                .collect();
            if again && now != before {
                return Err("a second maintenance wrote something".to_owned());
            }
            before = now;
        }
        Ok(())
    }

    fn altered(&mut self, evolution: &Evolution, report: &Report) -> Result<(), String> {
        let columns = evolution.apply(&self.columns);
        let moved = matches!(evolution, Evolution::First(name) if self.columns[0].name == *name);
        if report.committed == moved {
            return Err(format!("committed: {}", report.committed));
        }
        self.columns = columns;
        let newest = self.versions.last().map(|(version, ..)| *version);
        if newest != Some(report.version) {
            self.versions
                .push((report.version, self.columns.clone(), self.rows.clone()));
        }
        Ok(())
    }

    async fn note(&mut self, step: &Step, report: &Report, before: &[Row]) -> Result<(), String> {
        let newest = self.versions.last().map(|(version, ..)| *version);
        if !report.committed {
            let same = text(before.to_vec()) == text(self.rows.clone());
            return if same && newest == Some(report.version) {
                Ok(())
            } else {
                Err(format!(
                    "nothing was committed, but rows should have changed: {report:?}"
                ))
            };
        }
        if newest == Some(report.version) {
            return Err("a commit left the version as it was".to_owned());
        }
        self.versions
            .push((report.version, self.columns.clone(), self.rows.clone()));
        if matches!(step, Step::Compact) {
            let again = self.table.compact(&Compact::default(), &self.options).await;
            if again.map_err(|e| e.to_string())?.committed {
                return Err("compacting twice rewrote files twice".to_owned());
            }
        }
        Ok(())
    }

    /// Every version with how it is asked for, the newest also as such.
    fn every(&self) -> Vec<diffs::Version<'_>> {
        let latest = [(At::Latest, &*self.columns, &*self.rows)];
        let newest = self.versions.last().map(|(version, ..)| *version);
        let old = self.versions.iter().map(|(version, columns, rows)| {
            // A change of columns alone may make no version, and an Iceberg table without one has today's columns.
            let of_today = Some(*version) == newest || (*version == 0 && self.table.format() == "iceberg");
            let columns = if of_today { &self.columns } else { columns };
            let rows = if Some(*version) == newest {
                &self.rows
            } else {
                rows
            };
            (At::Version(*version), &**columns, &**rows)
        });
        old.chain(latest).collect()
    }

    /// Every version by time travel, what is different between two of them, and the history.
    async fn compare(&self, seed: u64) -> Result<(), String> {
        let every = self.every();
        let mut rng = StdRng::seed_from_u64(seed);
        diffs::compare(&self.table, &every, &mut rng).await?;
        for (number, (at, columns, rows)) in every.into_iter().enumerate() {
            let found = read(&self.table, &at, columns)
                .await
                .map_err(|e| format!("reading version {number} ({at:?}): {e}"))?;
            let wanted = text(rows.to_vec());
            if found != wanted {
                return Err(format!(
                    "version {number} ({at:?}) differs:\n{}",
                    differences(&found, &wanted)
                ));
            }
        }
        // A check reads every file again, so only some of the programs have one.
        if seed.is_multiple_of(CHECKED) {
            let checked = checked_all(&self.table).await;
            if !checked.is_clean() {
                return Err(format!("a check finds {:#?}", checked.findings));
            }
        }
        let history = self.table.history(None).await.map_err(|e| e.to_string())?;
        for (version, ..) in self.versions.iter().filter(|(version, ..)| *version != 0) {
            if !history.iter().any(|commit| commit.version == *version) {
                return Err(format!("history does not tell of version {version}"));
            }
        }
        Ok(())
    }

    /// The rows afterwards; `None` if the step must be refused.
    fn on_model(&self, step: &Step) -> Option<Vec<Row>> {
        let columns = &self.columns;
        let is_true = |condition: &Condition, row: &Row| condition.is_true(Scope::of(columns, row));
        let mut rows = self.rows.clone();
        match step {
            Step::Append(given, new) => rows.extend(widen(columns, given, new)),
            Step::OverwriteAll(new) => rows.clone_from(new),
            Step::OverwriteWhere(condition, new) => {
                rows.retain(|row| !is_true(condition, row));
                rows.extend(new.clone());
            }
            Step::Delete(condition) => rows.retain(|row| !is_true(condition, row)),
            Step::Update(set, only) => {
                for row in &mut rows {
                    if only.as_ref().is_none_or(|only| is_true(only, row)) {
                        *row = assign(columns, row, set, Scope::of(columns, row));
                    }
                }
            }
            Step::Merge(merge) => return merge.apply(columns, &rows),
            Step::Compact => {}
            Step::Restore(commits) => {
                let (_, old, content) = &self.versions[self.restored(*commits)];
                rows = carry(content, old, columns);
            }
            Step::Alter(evolution) => rows = carry(&rows, columns, &evolution.apply(columns)),
        }
        Some(rows)
    }

    fn restored(&self, commits: usize) -> usize {
        commits.min(self.versions.len() - 1)
    }

    async fn on_table(&self, step: &Step) -> Result<Report> {
        let (table, options) = (&self.table, &self.options);
        match step {
            Step::Append(given, rows) => table.append(input(given, rows), options).await,
            Step::OverwriteAll(rows) => table.overwrite(input(&self.columns, rows), None, options).await,
            Step::OverwriteWhere(condition, rows) => {
                let rows = input(&self.columns, rows);
                table.overwrite(rows, Some(&condition.to_string()), options).await
            }
            Step::Delete(condition) => table.delete(&condition.to_string(), options).await,
            Step::Update(set, only) => {
                let only = only.as_ref().map(ToString::to_string);
                table.update(&spell(set), only.as_deref(), options).await
            }
            Step::Merge(merge) => {
                table
                    .merge(input(&merge.columns, &merge.rows), &spelled(merge), options)
                    .await
            }
            Step::Compact => table.compact(&Compact::default(), options).await,
            Step::Restore(commits) => {
                let version = self.versions[self.restored(*commits)].0;
                table.restore(&At::Version(version), options).await
            }
            Step::Alter(evolution) => table.alter(&evolution.spelled(), options).await,
        }
    }
}

fn spelled(merge: &reference::Merge) -> Merge {
    let mut spelled = Merge::on(if merge.spelled_out {
        let equal: Vec<String> = merge
            .keys
            .iter()
            .map(|k| match merge.null_safe.contains(k) {
                true => format!("source.{k} <=> target.{k}"),
                false => format!("target.{k} = source.{k}"),
            })
            .collect();
        equal.join(" AND ")
    } else {
        merge.keys.join(", ")
    })
    .on_duplicate(merge.on_duplicate);
    spelled.sequence_by = merge.sequence.map(str::to_owned);
    spelled.tombstones = merge.mark.map(str::to_owned);
    for (when, clauses) in [
        (When::Matched, &merge.matched),
        (When::NotMatched, &merge.inserts),
        (When::NotMatchedBySource, &merge.by_source),
    ] {
        for clause in clauses {
            spelled = spelled.clause(
                when,
                match &clause.effect {
                    Effect::UpdateAll => Action::UpdateAll,
                    Effect::Update(set) => Action::UpdateSet(spell(set)),
                    Effect::Delete => Action::Delete,
                    Effect::InsertAll => Action::InsertAll,
                    Effect::Insert(set) => Action::InsertSet(spell(set)),
                },
            );
            if let Some(condition) = &clause.condition {
                spelled = spelled.only_if(condition.to_string());
            }
        }
    }
    spelled
}

fn differences(found: &[String], wanted: &[String]) -> String {
    let mut lines = Vec::new();
    let mut left = wanted.to_vec();
    for row in found {
        match left.iter().position(|other| other == row) {
            Some(at) => {
                left.remove(at);
            }
            None => lines.push(format!("  too many: {row}")),
        }
    }
    lines.extend(left.iter().map(|row| format!("  missing:  {row}")));
    lines.truncate(12);
    lines.join("\n")
}
