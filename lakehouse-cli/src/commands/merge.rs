use std::path::Path;

use clap::Args;
use lakehouse_core::model::At;
use lakehouse_core::operations::{self, Action, Cdc, Rows, When};

use super::storage::StorageArgs;
use super::{InputArgs, SchemaArgs, TouchArgs, WriteArgs};
use crate::exit::Failure;
use crate::input::Input;
use crate::output::Ui;
use crate::values;

/// Bring the rows of a source into a table: update those that match, insert those that do not.
///
/// In expressions `target.` and `source.` name the sides; a name that only one side has needs neither.
/// Columns of the source that only a condition or SET names need not exist in the table. With --schema-mode
/// merge those that an update or insert of all columns writes are added to it; not columns of --cdc,
/// --sequence-by and --delete-when, which say what to do with a row. A merge that changes no row adds none.
///
/// A source whose structs lack members of the table's is refused where matched rows would lose them; with
/// --schema-mode merge rows keep them. Elements of lists and maps are new: they get NULL or the default.
///
/// A change feed (--cdc) says itself what happens to each row. Inserts and updates write the row
/// whether its key is there or not, deletes remove it. With a sequence the newest row of each key
/// wins, in any order of the feed, and where the table stores the sequence, a stored row that is
/// newer stays; so a feed can be played twice. Without --tombstones nothing is left of a deleted
/// row, and an older one that arrives in a later feed brings it back.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake merge flights february.parquet --on "time_hour, carrier, flight, origin"
  lake merge accounts changes.csv --on id --delete-when "source.op = 'D'" \
      --update-when "source.seq > target.seq"
  lake merge accounts feed.ndjson --on id --cdc op=kind,sequence=lsn --tombstones deleted
  lake merge accounts kafka.ndjson --on id --cdc debezium
  lake merge accounts changes.csv --on id --schema-mode merge
  lake merge totals "SELECT day, sum(x) AS x FROM 'events' GROUP BY day" --on day"#)]
pub(super) struct Merge {
    /// Path or URL of the table
    table: String,
    /// Where the rows come from: a file (parquet, csv, ndjson, arrow), - for stdin, another table
    /// (TABLE[@VERSION]), or a query
    source: String,
    /// Key columns that both sides have, "k1, k2"; or a condition, "target.id = source.id and ..". NULL keys
    /// match nothing; compared with <=> they match each other
    #[arg(long, value_name = "KEYS|CONDITION")]
    on: String,
    /// What happens to rows that match
    #[arg(long, value_name = "ACTION", value_parser = ["update", "delete", "ignore"], default_value = "update")]
    when_matched: String,
    /// Matched rows for which this is true are deleted; source rows for which it is true are never inserted
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    delete_when: Option<String>,
    /// Update only the matched rows for which this is true
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    update_when: Option<String>,
    /// What an update sets, "c = expr, .." [default: every column that the source has]
    #[arg(long, value_name = "SET", allow_hyphen_values = true)]
    set: Option<String>,
    /// What happens to source rows that match nothing
    #[arg(long, value_name = "ACTION", value_parser = ["insert", "ignore"], default_value = "insert")]
    when_not_matched: String,
    /// Insert only the source rows for which this is true
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    insert_when: Option<String>,
    /// What an insert sets, "c = expr, ..", the other columns being NULL [default: every column that the
    /// source has]
    #[arg(long, value_name = "SET", allow_hyphen_values = true)]
    insert_set: Option<String>,
    /// What happens to target rows that match nothing
    #[arg(long, value_name = "ACTION", value_parser = ["delete", "update", "ignore"], default_value = "ignore")]
    when_not_matched_by_source: String,
    /// Only the target rows for which this is true
    #[arg(long, value_name = "EXPR", allow_hyphen_values = true)]
    by_source_when: Option<String>,
    /// What an update by --when-not-matched-by-source sets, "c = expr, .."
    #[arg(long, value_name = "SET", allow_hyphen_values = true)]
    by_source_set: Option<String>,
    /// Leave matched rows where they are if the update would not change a value (it costs reading the
    /// columns that are set)
    #[arg(long)]
    skip_unchanged: bool,
    /// Which of several source rows with one key counts: none, which is an error (Debezium: the last), or the
    /// first or last in the order of the source
    #[arg(long, value_name = "WHICH", value_parser = ["error", "first", "last"])]
    on_duplicate: Option<String>,
    /// Of several source rows with one key the newest by this column counts ("day, seq" for more than one),
    /// NULL being the oldest and --on-duplicate deciding among equals; where the table has the column too, a
    /// stored row that is newer stays, and of equals the source's wins
    #[arg(long, value_name = "COL")]
    sequence_by: Option<String>,
    /// Mark deleted rows in this boolean column of the table instead of removing them, and add such a row
    /// where a delete finds none, so that an older row that arrives later loses against it by --sequence-by;
    /// rows that are written get false. Without this, an older insert that arrives after a delete brings the
    /// row back. Marked rows count as updated or inserted
    #[arg(long, value_name = "COL")]
    tombstones: Option<String>,
    /// The source is a change feed: op=COL[,sequence=COL][,insert=I][,update=U][,delete=D], columns that the
    /// table need not have, or debezium (op, before, after, ts_ms; perhaps in payload). Without words for them,
    /// inserts are I, c or r, updates U or u, deletes D or d, or in full
    #[arg(
        long,
        value_name = "FEED",
        conflicts_with_all = [
            "when_matched", "delete_when", "update_when", "set", "when_not_matched", "insert_when", "insert_set",
            "when_not_matched_by_source", "by_source_when", "by_source_set",
        ]
    )]
    cdc: Option<String>,
    #[command(flatten)]
    input: InputArgs,
    #[command(flatten)]
    touch: TouchArgs,
    #[command(flatten)]
    schema: SchemaArgs,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

impl Merge {
    /// The clauses that the flags stand for.
    ///
    /// Flags that would have no effect are refused: they were meant to have one.
    fn clauses(&self) -> Result<operations::Merge, Failure> {
        let updates = self.when_matched == "update";
        let idle = |flag: &str, unless: &str| {
            Failure::usage(
                format!("{flag} has no effect here"),
                format!("use it with {unless}, or leave it out"),
            )
        };
        if !updates && self.update_when.is_some() {
            return Err(idle("--update-when", "--when-matched update"));
        }
        if !updates && self.skip_unchanged && self.when_not_matched_by_source != "update" {
            return Err(idle("--skip-unchanged", "--when-matched update"));
        }
        if !updates && self.set.is_some() {
            return Err(idle("--set", "--when-matched update"));
        }
        if self.when_matched == "delete" && self.delete_when.is_some() {
            return Err(Failure::usage(
                "--when-matched delete deletes every row that matches, whatever --delete-when says",
                "use --when-matched ignore with --delete-when to delete only some of them",
            ));
        }
        if self.when_not_matched == "ignore" && self.insert_when.is_some() {
            return Err(idle("--insert-when", "--when-not-matched insert"));
        }
        if self.when_not_matched == "ignore" && self.insert_set.is_some() {
            return Err(idle("--insert-set", "--when-not-matched insert"));
        }
        if self.when_not_matched_by_source == "ignore" && self.by_source_when.is_some() {
            return Err(idle(
                "--by-source-when",
                "--when-not-matched-by-source update or delete",
            ));
        }
        if self.when_not_matched_by_source != "update" && self.by_source_set.is_some() {
            return Err(idle("--by-source-set", "--when-not-matched-by-source update"));
        }

        let mut merge = self.order(operations::Merge::on(&self.on))?;
        merge.skip_unchanged = self.skip_unchanged;
        if let Some(feed) = &self.cdc {
            let feed = feed.parse::<Cdc>().map_err(|error| {
                Failure::usage(error.to_string(), error.hint().unwrap_or_default().to_owned())
            })?;
            return Ok(merge.cdc(feed));
        }
        if let Some(condition) = &self.delete_when {
            merge = merge.delete_when(condition);
        }
        match self.when_matched.as_str() {
            "update" => {
                let action = self.set.clone().map_or(Action::UpdateAll, Action::UpdateSet);
                merge = only_if(merge.clause(When::Matched, action), self.update_when.as_deref());
            }
            "delete" => merge = merge.when_matched_delete(),
            _ => {}
        }
        if self.when_not_matched == "insert" {
            let action = self
                .insert_set
                .clone()
                .map_or(Action::InsertAll, Action::InsertSet);
            merge = only_if(
                merge.clause(When::NotMatched, action),
                self.insert_when.as_deref(),
            );
        }
        let condition = self.by_source_when.as_deref();
        match self.when_not_matched_by_source.as_str() {
            "delete" => merge = only_if(merge.when_not_matched_by_source_delete(), condition),
            "update" => {
                let set = self.by_source_set.as_deref().ok_or_else(|| {
                    Failure::usage(
                        "--when-not-matched-by-source update does not say what to set",
                        "add --by-source-set \"c = expr, ..\"",
                    )
                })?;
                merge = only_if(merge.when_not_matched_by_source_update(set), condition);
            }
            _ => {}
        }
        Ok(merge)
    }

    /// Which rows count, and what is left of deleted ones.
    fn order(&self, mut merge: operations::Merge) -> Result<operations::Merge, Failure> {
        if let Some(which) = &self.on_duplicate {
            merge = merge.on_duplicate(which.parse()?);
        }
        if let Some(columns) = &self.sequence_by {
            merge = merge.sequence_by(columns);
        }
        if let Some(column) = &self.tombstones {
            merge = merge.tombstones(column);
        }
        Ok(merge)
    }
}

fn only_if(merge: operations::Merge, condition: Option<&str>) -> operations::Merge {
    match condition {
        Some(condition) => merge.only_if(condition),
        None => merge,
    }
}

pub(super) async fn merge(args: Merge, ui: &Ui) -> Result<(), Failure> {
    let merge = args.clauses()?;
    let table = args.storage.open(&args.table).await?;
    let source = source(&args.source, &args.storage, &args.input).await?;
    let working = ui.progress(format!("merge into {}", args.table));
    let options = args.touch.options(&args.write)?.schema_mode(args.schema.mode());
    let report = table.merge(source.rows, &merge, &options).await?;
    drop(working);
    ui.report(&args.table, &report)
}

/// Finds out what SOURCE is: an existing path wins, then a query, then a table, then a file.
async fn source(text: &str, storage: &StorageArgs, input: &InputArgs) -> Result<Input, Failure> {
    let format = input.format()?;
    if text == "-" || Path::new(text).is_file() {
        return Input::open(text, format).await;
    }
    if !Path::new(text).exists() && is_query(text) {
        let frame = storage.session(At::Latest)?.query(text).await?;
        return Ok(Input::of(Rows::frame(frame)));
    }
    let (name, at) = values::split_version(text)?;
    let is_table = Path::new(&name).is_dir() || name.contains("://");
    if is_table && format.is_none() {
        let table = storage.open(&name).await?;
        return Ok(Input::of(Rows::table(&table, &at.unwrap_or(At::Latest)).await?));
    }
    Input::open(text, format).await
}

/// Whether a source is a query rather than the name of something.
fn is_query(text: &str) -> bool {
    let lower = text.trim_start().to_ascii_lowercase();
    let mut words = lower
        .split(|c: char| c.is_whitespace() || c == '(')
        .filter(|word| !word.is_empty());
    let first = words.next().unwrap_or("");
    (matches!(first, "select" | "with" | "values") && words.next().is_some())
        || lower.split_whitespace().skip(1).any(|word| word == "select")
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        merge: Merge,
    }

    fn clauses(flags: &[&str]) -> Result<operations::Merge, Failure> {
        let line = ["merge", "t", "s.csv", "--on", "id"].iter().chain(flags);
        Line::parse_from(line).merge.clauses()
    }

    #[test]
    fn a_merge_without_flags_updates_and_inserts() {
        let expected = operations::Merge::on("id")
            .when_matched_update_all()
            .when_not_matched_insert_all();
        assert_eq!(clauses(&[]).unwrap(), expected);
    }

    #[test]
    fn deletes_come_before_updates() {
        let expected = operations::Merge::on("id")
            .delete_when("op = 'D'")
            .when_matched_update("x = source.y")
            .only_if("-seq < 0")
            .when_not_matched_insert_all()
            .only_if("y > 0")
            .when_not_matched_by_source_update("x = 0")
            .only_if("x > 1");
        let flags = [
            "--update-when",
            "-seq < 0",
            "--delete-when",
            "op = 'D'",
            "--set",
            "x = source.y",
            "--insert-when",
            "y > 0",
            "--when-not-matched-by-source",
            "update",
            "--by-source-set",
            "x = 0",
            "--by-source-when",
            "x > 1",
        ];
        assert_eq!(clauses(&flags).unwrap(), expected);
    }

    #[test]
    fn flags_without_effect_are_refused() {
        for flags in [
            vec!["--when-matched", "ignore", "--set", "x = 1"],
            vec!["--when-matched", "delete", "--update-when", "true"],
            vec!["--when-matched", "delete", "--delete-when", "true"],
            vec!["--when-not-matched", "ignore", "--insert-when", "true"],
            vec!["--when-not-matched", "ignore", "--insert-set", "x = 1"],
            vec!["--by-source-when", "true"],
            vec![
                "--when-not-matched-by-source",
                "delete",
                "--by-source-set",
                "x = 1",
            ],
            vec!["--when-not-matched-by-source", "update"],
        ] {
            assert!(matches!(clauses(&flags), Err(Failure::Usage { .. })), "{flags:?}");
        }
    }

    #[test]
    fn a_change_feed_takes_no_clauses() {
        let flags = [
            "--cdc",
            "op=kind,sequence=lsn",
            "--tombstones",
            "gone",
            "--on-duplicate",
            "last",
        ];
        let expected = operations::Merge::on("id")
            .cdc("op=kind,sequence=lsn".parse().unwrap())
            .tombstones("gone")
            .on_duplicate(operations::OnDuplicate::Last);
        assert_eq!(clauses(&flags).unwrap(), expected);
        assert!(matches!(clauses(&["--cdc", "kind"]), Err(Failure::Usage { .. })));
        for flag in [
            "--when-matched=update",
            "--set=x = 1",
            "--insert-when=true",
            "--by-source-when=true",
        ] {
            let line = ["merge", "t", "s.csv", "--on", "id", "--cdc", "debezium", flag];
            assert!(Line::try_parse_from(line).is_err(), "{flag}");
        }
    }

    #[test]
    fn inserts_can_set_columns_of_their_own() {
        let expected = operations::Merge::on("id")
            .sequence_by("day, seq")
            .when_matched_update_all()
            .when_not_matched_insert("x = y")
            .only_if("y > 0");
        let flags = [
            "--insert-set",
            "x = y",
            "--insert-when",
            "y > 0",
            "--sequence-by",
            "day, seq",
        ];
        assert_eq!(clauses(&flags).unwrap(), expected);
    }

    #[test]
    fn queries_are_told_from_names() {
        assert!(is_query("SELECT 1"));
        assert!(is_query("with a as (select 1) select * from a"));
        assert!(is_query("(select 1)\nunion all select 2"));
        assert!(is_query("select(1) from t"));
        assert!(!is_query("select"));
        assert!(!is_query("with.csv"));
        assert!(!is_query("my selection.csv"));
    }
}
