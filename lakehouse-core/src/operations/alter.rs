//! Changes what the table is: columns, partitioning, sort order, identifier, properties, format version.
//!
//! No file is touched. Files that are there are read with the new columns, old versions with theirs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Fields};
use arrow::util::pretty::pretty_format_batches;
use datafusion::functions::core::expr_ext::FieldAccessor;
use datafusion::prelude::{Expr, ident, lit};
use futures::future::BoxFuture;

use super::rules::{default_value, newly_forbidden, ruled_columns};
use super::settings::Settings;
use super::work::{Verb, Work, run};
use super::{Options, Report};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{
    ColumnChange, ColumnPath, Evolved, MAIN, OperationKind, PartitionField, Place, Prune, Redefinition,
    RefKind, Snapshot, SortColumn, Transform,
};
use crate::scan::{self, SnapshotTable};

/// What is to become of a table's definition. Changes of columns happen in the order given.
///
/// ```no_run
/// # use lakehouse_core::operations::Alter;
/// let alter = Alter::default().rename_column("fare".parse()?, "price").partition_by("day(ts)")?;
/// # Ok::<(), lakehouse_core::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Alter {
    columns: Vec<ColumnChange>,
    redefinition: Redefinition,
}

impl Alter {
    /// One more change of a column.
    #[must_use]
    pub fn column(mut self, change: ColumnChange) -> Self {
        self.columns.push(change);
        self
    }

    /// Adds a column as SQL has it: `tip double`, `address.zip text`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text that is not understood.
    pub fn add_column(self, definition: &str) -> Result<Self> {
        let (parent, field) = scan::parse_new_column(definition)?;
        Ok(self.column(ColumnChange::Add { parent, field }))
    }

    /// Drops a column.
    #[must_use]
    pub fn drop_column(self, column: ColumnPath) -> Self {
        self.column(ColumnChange::Drop(column))
    }

    /// Renames a column; `to` is its own name, without those of structs around it.
    #[must_use]
    pub fn rename_column(self, column: ColumnPath, to: &str) -> Self {
        self.column(ColumnChange::Rename {
            column,
            to: to.to_owned(),
        })
    }

    /// Moves a column among its siblings.
    #[must_use]
    pub fn move_column(self, column: ColumnPath, to: Place) -> Self {
        self.column(ColumnChange::Move { column, to })
    }

    /// Gives a column a wider type: `n bigint`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text that is not understood.
    pub fn widen(self, definition: &str) -> Result<Self> {
        let (parent, field) = scan::parse_new_column(definition)?;
        let mut parts = parent.map_or_else(Vec::new, |parent| parent.parts().to_vec());
        parts.push(field.name().clone());
        Ok(self.column(ColumnChange::Type {
            column: ColumnPath::new(parts)?,
            data_type: field.data_type().clone(),
        }))
    }

    /// Says whether a column may be NULL. Rows that are there are looked at before it may not.
    #[must_use]
    pub fn nullable(self, column: ColumnPath, nullable: bool) -> Self {
        self.column(ColumnChange::Nullable { column, nullable })
    }

    /// Notes something about a column; `None` takes the note away.
    #[must_use]
    pub fn comment(self, column: ColumnPath, comment: Option<&str>) -> Self {
        self.column(ColumnChange::Comment {
            column,
            comment: comment.map(str::to_owned),
        })
    }

    /// What a column is in new rows that do not say: a value as SQL writes it (`5`, `'eu'`, `DATE '2024-01-31'`); `None`
    /// takes it away. A column that the same change adds has it in the rows that are there, too.
    #[must_use]
    pub fn default_value(self, column: ColumnPath, value: Option<&str>) -> Self {
        self.column(ColumnChange::Default {
            column,
            value: value.map(str::to_owned),
        })
    }

    /// Partitions new files so: `day(ts), bucket(16, id)`; an empty text: not at all. Files that are there stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text that is not understood.
    pub fn partition_by(mut self, text: &str) -> Result<Self> {
        self.redefinition.partitioning = Some(crate::model::parse_partitioning(text)?);
        Ok(self)
    }

    /// The order that rows of a file are meant to have: `ts desc, id`; an empty text: none.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a text that is not understood.
    pub fn sort_by(mut self, text: &str) -> Result<Self> {
        self.redefinition.sort_order = Some(scan::parse_sort_order(text)?);
        Ok(self)
    }

    /// The columns that tell rows apart; empty for none.
    #[must_use]
    pub fn identifier(mut self, columns: Vec<String>) -> Self {
        self.redefinition.identifier = Some(columns);
        self
    }

    /// Sets a table property, or takes it away.
    #[must_use]
    pub fn property(mut self, key: &str, value: Option<&str>) -> Self {
        let value = value.map(str::to_owned);
        self.redefinition.properties.insert(key.to_owned(), value);
        self
    }

    /// Upgrades the format version.
    #[must_use]
    pub fn format_version(mut self, version: u8) -> Self {
        self.redefinition.format_version = Some(version);
        self
    }

    /// Whether it asks for nothing.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty() && self.redefinition.is_empty()
    }
}

/// Changes a table's definition in one commit, whatever is asked for together: all of it, or nothing. What another
/// commit changes meanwhile is respected: names are looked up again. A table that is so already stays as it is.
///
/// # Errors
/// [`Error::Invalid`] for columns that are not there, names that are taken, and rows with NULL in a column that is to
/// be required (the first of them is shown); [`Error::Unsupported`] for what the format does not have; those of
/// [`crate::commit::commit`].
pub async fn alter(handle: &Handle, alter: &Alter, options: &Options) -> Result<Report> {
    if alter.is_empty() {
        return Err(Error::invalid("nothing is to be changed", "alter").with_hint("say what"));
    }
    if let Some(branch) = options.branch.as_deref().filter(|branch| *branch != MAIN) {
        return Err(Error::unsupported(
            format!("branch {branch} cannot be altered: all branches have the table's definition"),
            "alter the table",
        ));
    }
    for key in alter.redefinition.properties.keys() {
        if key.starts_with("lakehouse.")
            || ["format-version", "schema.name-mapping.default"].contains(&key.as_str())
        {
            return Err(Error::invalid(
                format!("the property {key} is kept by the table itself"),
                "properties",
            )
            .with_hint(match key.as_str() {
                "format-version" => "ask for the format version as such",
                "schema.name-mapping.default" => "it follows the columns as they are renamed and added",
                _ => "choose another name",
            }));
        }
    }
    run(handle, options, &mut alter.clone()).await
}

impl Verb for Alter {
    fn kind(&self) -> OperationKind {
        OperationKind::Alter
    }

    fn plan<'a>(&'a mut self, work: &'a mut Work) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let base = Arc::clone(&work.snapshot);
            let wanted = crate::model::alter(&base.schema, &self.resolved(&base)?)?;
            self.check_dropped(&base)?;
            self.check_ruled(&base)?;
            let redefinition = Redefinition {
                upgrade: true,
                ..self.redefinition.clone()
            };
            let after = work.handle.format.evolve(&base, &wanted, &redefinition)?;
            work.handle.format.check_writable(&after)?;
            // What nobody could write by is refused now, not by the next append.
            Settings::new(&work.options, false).write_options(&after.properties, false)?;
            let changes = self.differences(&base, &after);
            if changes.is_empty() {
                return Ok(());
            }
            if let Some(read) = self.check_required(work).await? {
                work.change.read = Some(Arc::new(read));
            }
            if check_constraints(work, &after).await? {
                work.change.read = Some(Arc::new(Prune::everything()));
            }
            changes.into_iter().for_each(|change| work.note_change(change));
            if base.schema != after.schema {
                work.note_columns(self.evolved(&after));
            }
            work.change.schema = Some(Arc::new(wanted));
            work.change.redefine(redefinition);
            work.change.metadata.schema |= base.schema != after.schema || base.features != after.features;
            Ok(())
        })
    }
}

impl Alter {
    /// The changes of columns, with defaults as values of their columns.
    fn resolved(&self, base: &Snapshot) -> Result<Vec<ColumnChange>> {
        let mut changes = Vec::with_capacity(self.columns.len());
        for change in &self.columns {
            changes.push(match change {
                ColumnChange::Default {
                    column,
                    value: Some(text),
                } => {
                    let so_far = crate::model::alter(&base.schema, &changes)?;
                    let value = match member(so_far.fields(), column.parts()) {
                        Some(field) => default_value(text, field)?,
                        // The next step says what is wrong.
                        None => Some(text.clone()),
                    };
                    ColumnChange::Default {
                        column: column.clone(),
                        value,
                    }
                }
                other => other.clone(),
            });
        }
        Ok(changes)
    }

    /// Columns that the table's definition needs are not dropped.
    fn check_dropped(&self, base: &Snapshot) -> Result<()> {
        for change in &self.columns {
            let ColumnChange::Drop(column) = change else {
                continue;
            };
            let name = column.dotted().to_lowercase();
            let is_in = |used: &str| {
                let used = used.to_lowercase();
                used == name || used.strip_prefix(&name).is_some_and(|rest| rest.starts_with('.'))
            };
            let refuse = |what: &str, hint: &str| {
                Err(Error::invalid(
                    format!("column {column} cannot be dropped: {what}"),
                    "the table's columns",
                )
                .with_hint(hint))
            };
            let live = |field: &&PartitionField| field.transform != Transform::Void;
            let mut partitions = base.partition_fields().iter().filter(live);
            if self.redefinition.partitioning.is_none() && partitions.any(|field| is_in(&field.source)) {
                return refuse(
                    "the table is partitioned by it",
                    "where the format can, partition it otherwise in the same change",
                );
            }
            let mut sorted = base.sort_order.iter();
            if self.redefinition.sort_order.is_none() && sorted.any(|sort| is_in(&sort.column)) {
                return refuse(
                    "it is part of the sort order",
                    "give the table another sort order too",
                );
            }
            let mut identifier = base.identifier.iter();
            if self.redefinition.identifier.is_none() && identifier.any(|name| is_in(name)) {
                return refuse(
                    "it is part of the identifier",
                    "give the table another identifier too",
                );
            }
        }
        Ok(())
    }

    /// Columns that constraints and generated columns are about stay what they are.
    fn check_ruled(&self, base: &Snapshot) -> Result<()> {
        let changed = self.columns.iter().filter_map(|change| match change {
            ColumnChange::Drop(column)
            | ColumnChange::Rename { column, .. }
            | ColumnChange::Type { column, .. } => Some(column),
            _ => None,
        });
        let mut changed = changed.peekable();
        if changed.peek().is_none() {
            return Ok(());
        }
        let ruled = ruled_columns(base)?;
        for column in changed {
            let name = column.parts()[0].to_lowercase();
            if let Some((_, rule)) = ruled.iter().find(|(ruled, _)| *ruled == name) {
                return Err(Error::invalid(
                    format!("column {column} cannot be dropped, renamed or widened: the {rule} is about it"),
                    "the table's columns",
                )
                .with_hint(
                    "take a constraint away first (its property); a generated column cannot be changed",
                ));
            }
        }
        Ok(())
    }

    /// Looks for NULLs in columns that must not have any from now on. What was read, if anything was.
    async fn check_required(&self, work: &Work) -> Result<Option<Prune>> {
        let mut broken: Option<Expr> = None;
        for change in &self.columns {
            let ColumnChange::Nullable {
                column,
                nullable: false,
            } = change
            else {
                continue;
            };
            let violates = violates(&work.snapshot, column)?;
            broken = Some(match broken {
                Some(others) => others.or(violates),
                None => violates,
            });
        }
        let Some(broken) = broken else {
            return Ok(None);
        };
        // Their rows are read with the same columns, and commits to them are not looked at.
        let branches = work
            .snapshot
            .refs
            .iter()
            .filter(|(name, one)| one.kind == RefKind::Branch && *name != MAIN);
        let branches: Vec<&str> = branches.map(|(name, _)| name.as_str()).collect();
        if !branches.is_empty() {
            return Err(Error::unsupported(
                format!(
                    "a column cannot become required while there are branches: {}",
                    branches.join(", ")
                ),
                "fast-forward main to them or drop them first",
            ));
        }
        if let Some(row) =
            first_violation(&work.handle, &work.options, &work.snapshot, broken.clone()).await?
        {
            return Err(Error::invalid(
                format!("a column that is to be required is NULL, for one in\n{row}"),
                "the table's rows",
            )
            .with_hint("give such rows a value first, for example with update"));
        }
        Ok(Some(Prune::matching(broken, Arc::clone(&work.snapshot.schema))?))
    }

    /// The columns that were added, and those that are wider.
    fn evolved(&self, after: &Snapshot) -> Evolved {
        let mut evolved = Evolved {
            schema: after.schema.as_ref().clone(),
            added: Vec::new(),
            widened: Vec::new(),
        };
        for change in &self.columns {
            match change {
                ColumnChange::Add {
                    parent: Some(parent),
                    field,
                } => {
                    evolved.added.push(format!("{parent}.{}", field.name()));
                }
                ColumnChange::Add { parent: None, field } => evolved.added.push(field.name().clone()),
                ColumnChange::Type { column, .. } => evolved.widened.push(column.to_string()),
                _ => {}
            }
        }
        evolved
    }

    /// What is different, in words.
    fn differences(&self, base: &Snapshot, after: &Snapshot) -> Vec<String> {
        let mut changes = Vec::new();
        if base.schema != after.schema {
            changes.extend(self.columns.iter().map(described));
        }
        if self.redefinition.partitioning.is_some() && base.partition_fields() != after.partition_fields() {
            changes.push(match after.partition_fields() {
                [] => "not partitioned from now on; files that are there stay as they are".to_owned(),
                fields => format!(
                    "partitioned by {} from now on; files that are there stay as they are",
                    joined(fields.iter().map(|field| match field.transform {
                        Transform::Identity => field.source.clone(),
                        transform => format!("{transform} of {}", field.source),
                    }))
                ),
            });
        }
        if base.sort_order != after.sort_order {
            changes.push(match after.sort_order.as_slice() {
                [] => "no sort order".to_owned(),
                columns => format!("sort order {}", joined(columns.iter().map(SortColumn::to_string))),
            });
        }
        if base.identifier != after.identifier {
            changes.push(match after.identifier.as_slice() {
                [] => "no identifier".to_owned(),
                names => format!("identifier {}", names.join(", ")),
            });
        }
        for (key, value) in &self.redefinition.properties {
            match value {
                _ if base.properties.get(key) == value.as_ref() => {}
                Some(value) => changes.push(format!("property {key} = {value}")),
                None => changes.push(format!("property {key} is gone")),
            }
        }
        let new = after
            .features
            .iter()
            .filter(|feature| !base.features.contains(feature));
        let new = joined(new.cloned());
        if !new.is_empty() {
            changes.push(format!("readers and writers must understand {new} from now on"));
        }
        changes
    }
}

/// The column, or the member of structs, that a path leads to.
fn member<'a>(fields: &'a Fields, path: &[String]) -> Option<&'a Field> {
    let (name, rest) = path.split_first()?;
    let mut fields = fields.iter();
    let field = fields.find(|field| field.name().eq_ignore_ascii_case(name))?;
    match (rest, field.data_type()) {
        ([], _) => Some(field),
        (rest, DataType::Struct(members)) => member(members, rest),
        (rest, DataType::List(element)) if rest[0] == "element" => match element.data_type() {
            DataType::Struct(members) => member(members, &rest[1..]),
            _ => None,
        },
        _ => None,
    }
}

/// Looks for rows that violate the constraints that `after` has and the table has not; whether there are such constraints.
async fn check_constraints(work: &Work, after: &Snapshot) -> Result<bool> {
    let new = newly_forbidden(&work.snapshot, after)?;
    for (check, broken) in &new {
        let row = first_violation(&work.handle, &work.options, &work.snapshot, broken.clone()).await?;
        if let Some(row) = row {
            return Err(Error::invalid(
                format!(
                    "the {} `{}` does not hold for\n{row}",
                    check.name, check.expression
                ),
                "the table's rows",
            )
            .with_hint("correct or delete such rows first; a constraint does not hold where it is NULL"));
        }
    }
    Ok(!new.is_empty())
}

/// One row of a version for which this is true, as a table of one line.
pub(super) async fn first_violation(
    handle: &Handle,
    options: &Options,
    snapshot: &Arc<Snapshot>,
    broken: Expr,
) -> Result<Option<String>> {
    let table = SnapshotTable::new(handle.clone(), Arc::clone(snapshot));
    let rows = scan::session(options.memory_limit)
        .read_table(Arc::new(table))?
        .filter(broken)?
        .limit(0, Some(1))?
        .collect()
        .await?;
    match rows.iter().any(|batch| batch.num_rows() > 0) {
        true => Ok(Some(pretty_format_batches(&rows)?.to_string())),
        false => Ok(None),
    }
}

/// The rows that a column which may not be NULL cannot have: where what is around it is there, and it is not.
pub(super) fn violates(snapshot: &Snapshot, column: &ColumnPath) -> Result<Expr> {
    let mut expr: Option<Expr> = None;
    let mut present: Option<Expr> = None;
    let mut fields = snapshot.schema.fields().clone();
    for name in column.parts() {
        let Some(field) = fields
            .iter()
            .find(|field| field.name().eq_ignore_ascii_case(name))
            .cloned()
        else {
            return Err(Error::unsupported(
                format!(
                    "column {column} cannot become required: whether it is NULL anywhere is not looked up"
                ),
                "require it before it is renamed; new columns, elements of lists and values of maps stay nullable",
            ));
        };
        if let Some(outer) = &expr {
            let there = outer.clone().is_not_null();
            present = Some(match present {
                Some(before) => before.and(there),
                None => there,
            });
        }
        expr = Some(match expr {
            None => ident(field.name()),
            Some(outer) => outer.field(field.name().as_str()),
        });
        fields = match field.data_type() {
            DataType::Struct(members) => members.clone(),
            _ => Fields::empty(),
        };
    }
    let missing = expr.unwrap_or_else(|| lit(true)).is_null();
    Ok(match present {
        Some(present) => present.and(missing),
        None => missing,
    })
}

fn described(change: &ColumnChange) -> String {
    match change {
        ColumnChange::Add { parent, field } => match parent {
            Some(parent) => format!("added {parent}.{}", field.name()),
            None => format!("added {}", field.name()),
        },
        ColumnChange::Drop(column) => format!("dropped {column}"),
        ColumnChange::Rename { column, to } => format!("renamed {column} to {to}"),
        ColumnChange::Move { column, to } => match to {
            Place::First => format!("moved {column} to the front"),
            Place::Last => format!("moved {column} to the end"),
            Place::Before(other) => format!("moved {column} before {other}"),
            Place::After(other) => format!("moved {column} behind {other}"),
        },
        ColumnChange::Type { column, data_type } => format!("{column} is {data_type} now"),
        ColumnChange::Nullable {
            column,
            nullable: true,
        } => format!("{column} may be NULL"),
        ColumnChange::Nullable {
            column,
            nullable: false,
        } => format!("{column} is required"),
        ColumnChange::Comment {
            column,
            comment: Some(text),
        } => format!("{column}: {text}"),
        ColumnChange::Comment {
            column,
            comment: None,
        } => format!("no comment on {column}"),
        ColumnChange::Default {
            column,
            value: Some(text),
        } => format!("{column} is {text} in new rows that do not say"),
        ColumnChange::Default { column, value: None } => format!("no default of {column}"),
    }
}

fn joined(words: impl Iterator<Item = String>) -> String {
    words.collect::<Vec<_>>().join(", ")
}
