//! What a merge shall do.

use super::cdc::Cdc;
use crate::error::{Error, Result};

/// A merge: how rows match, and what happens to those that do and those that do not.
///
/// In expressions `target.` and `source.` name the sides; a name that only one side has needs neither.
///
/// ```
/// use lakehouse_core::operations::Merge;
/// let merge = Merge::on("id")
///     .delete_when("source.op = 'D'")
///     .when_matched_update_all()
///     .only_if("source.version > target.version")
///     .when_not_matched_insert_all();
/// assert_eq!(merge.clauses.len(), 3);
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Merge {
    /// `"k1, k2"`: equality of the columns of these names; or a condition over both sides. NULL keys
    /// match nothing, except those compared with `<=>` (`IS NOT DISTINCT FROM`): there NULL is NULL.
    pub on: String,
    /// In this order; the first clause that applies to a row decides.
    pub clauses: Vec<Clause>,
    /// Source rows for which one of these is true are never inserted.
    pub never_insert: Vec<String>,
    /// Matched rows whose values an update would not change stay where they are. Costs reading the
    /// columns that are set.
    pub skip_unchanged: bool,
    /// Which of several source rows with one key counts.
    pub on_duplicate: OnDuplicate,
    /// A column of the source, or several (`"day, seq"`): of the rows with one key only the newest counts,
    /// NULL being the oldest, and `on_duplicate` decides among equals. Where the table has these columns too, a
    /// stored row that is newer than the source's stays as it is; of equals the source's wins.
    pub sequence_by: Option<String>,
    /// A boolean column of the table: a delete sets it to true and takes what the source has, as an update
    /// does, instead of removing the row; what `delete_when` and change feeds delete is added so if its key is
    /// not there, unless nothing is inserted. Rows that are written otherwise get false. Without it nothing is
    /// left of a deleted row, and an older one that arrives later brings it back.
    pub tombstones: Option<String>,
    /// The source is a change feed, which says itself what happens to each row: no clauses then.
    pub cdc: Option<Cdc>,
}

/// Which of several source rows with one key (of the equalities in the condition) counts. Rows without a
/// key, because it is NULL, are not duplicates of each other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum OnDuplicate {
    /// None: rows that would change one row of the table, or be inserted under one key, are an error.
    #[default]
    Error,
    /// The first, in the order of the source.
    First,
    /// The last.
    Last,
}

impl std::str::FromStr for OnDuplicate {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "error" => Ok(Self::Error),
            "first" => Ok(Self::First),
            "last" => Ok(Self::Last),
            other => Err(Error::invalid(
                format!("{other:?} does not say which of several rows counts"),
                "on duplicate",
            )
            .with_hint("use error, first or last")),
        }
    }
}

/// One `WHEN .. [AND ..] THEN ..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// Which rows.
    pub when: When,
    /// Of these, the ones for which this is true.
    pub condition: Option<String>,
    /// What happens to them.
    pub action: Action,
}

/// Which rows a clause is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// A target row and a source row match.
    Matched,
    /// A source row matches no target row.
    NotMatched,
    /// A target row matches no source row.
    NotMatchedBySource,
}

/// What a clause does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Every column that the source has takes the source's value; of structs, every member that it has. Matched only.
    UpdateAll,
    /// `"c = expr, .."`. Matched and not matched by source.
    UpdateSet(String),
    /// The target row goes. Matched and not matched by source.
    Delete,
    /// The source row is added; columns that the source lacks are NULL. Not matched only.
    InsertAll,
    /// A row of these columns is added: `"c = expr, .."`; others are NULL. Not matched only.
    InsertSet(String),
}

impl Merge {
    /// A merge that does nothing yet.
    pub fn on(on: impl Into<String>) -> Self {
        Self {
            on: on.into(),
            ..Self::default()
        }
    }

    /// Leaves matched rows alone whose values an update would not change.
    #[must_use]
    pub fn skip_unchanged(mut self) -> Self {
        self.skip_unchanged = true;
        self
    }

    /// Says which of several source rows with one key counts.
    #[must_use]
    pub fn on_duplicate(mut self, on_duplicate: OnDuplicate) -> Self {
        self.on_duplicate = on_duplicate;
        self
    }

    /// Of several source rows with one key the newest by this column counts; stored rows that are newer stay.
    #[must_use]
    pub fn sequence_by(mut self, columns: impl Into<String>) -> Self {
        self.sequence_by = Some(columns.into());
        self
    }

    /// Deleted rows are marked in this column of the table, not removed.
    #[must_use]
    pub fn tombstones(mut self, column: impl Into<String>) -> Self {
        self.tombstones = Some(column.into());
        self
    }

    /// The source is a change feed.
    #[must_use]
    pub fn cdc(mut self, cdc: Cdc) -> Self {
        self.cdc = Some(cdc);
        self
    }

    /// Adds a clause.
    #[must_use]
    pub fn clause(mut self, when: When, action: Action) -> Self {
        self.clauses.push(Clause {
            when,
            condition: None,
            action,
        });
        self
    }

    /// Restricts the clause added last to the rows for which this is true (in addition to what it
    /// was restricted to before).
    #[must_use]
    pub fn only_if(mut self, condition: impl Into<String>) -> Self {
        let condition = condition.into();
        if let Some(last) = self.clauses.last_mut() {
            last.condition = Some(match last.condition.take() {
                None => condition,
                Some(before) => format!("({before}) AND ({condition})"),
            });
        }
        self
    }

    /// Matched rows take every value that the source has.
    #[must_use]
    pub fn when_matched_update_all(self) -> Self {
        self.clause(When::Matched, Action::UpdateAll)
    }

    /// Matched rows take these values: `"c = expr, .."`.
    #[must_use]
    pub fn when_matched_update(self, assignments: impl Into<String>) -> Self {
        self.clause(When::Matched, Action::UpdateSet(assignments.into()))
    }

    /// Matched rows are deleted.
    #[must_use]
    pub fn when_matched_delete(self) -> Self {
        self.clause(When::Matched, Action::Delete)
    }

    /// Source rows without a match are added.
    #[must_use]
    pub fn when_not_matched_insert_all(self) -> Self {
        self.clause(When::NotMatched, Action::InsertAll)
    }

    /// For source rows without a match, rows with these values are added: `"c = expr, .."`.
    #[must_use]
    pub fn when_not_matched_insert(self, assignments: impl Into<String>) -> Self {
        self.clause(When::NotMatched, Action::InsertSet(assignments.into()))
    }

    /// Target rows without a match take these values: `"c = expr, .."`, over the target's columns.
    #[must_use]
    pub fn when_not_matched_by_source_update(self, assignments: impl Into<String>) -> Self {
        self.clause(When::NotMatchedBySource, Action::UpdateSet(assignments.into()))
    }

    /// Target rows without a match are deleted.
    #[must_use]
    pub fn when_not_matched_by_source_delete(self) -> Self {
        self.clause(When::NotMatchedBySource, Action::Delete)
    }

    /// Matched rows for which this is true are deleted, and source rows for which it is true are
    /// never inserted (columns of the target count as NULL there).
    #[must_use]
    pub fn delete_when(mut self, condition: impl Into<String>) -> Self {
        let condition = condition.into();
        self.never_insert.push(condition.clone());
        self.when_matched_delete().only_if(condition)
    }
}
