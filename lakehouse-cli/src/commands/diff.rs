use std::path::PathBuf;

use clap::Args;
use datafusion::dataframe::DataFrame;
use datafusion::logical_expr::{Expr, lit, when};
use datafusion::prelude::ident;
use lakehouse_core::model::{At, Snapshot};
use lakehouse_core::operations::diff::{CHANGE_TYPE, ChangeType, FileTotals, RowCounts};
use serde_json::json;

use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::{self, Form, Ui};
use crate::values;

/// Compare two versions of a table: definition, files, rows.
///
/// By default no data file is read: what is told of rows comes from metadata and masks. It is exact
/// where rows were only added or only removed. Where there is both, rows may have been written
/// again as they were, and "at most" is told. --count reads the files that only one version has, or
/// of which other rows are masked, and counts exactly; --rows prints the rows. A file that both
/// versions have with the same rows is never read.
///
/// Rows are compared by the columns that both versions have, whatever these are called in either,
/// and as a multiset: rows that a compaction moved are no difference. NULLs are equal to one
/// another, so are NaNs, and 0.0 and -0.0. With --on a row whose key both versions have is changed,
/// not removed and added. Rows of a key that is not unique among those that differ count as removed
/// and added.
///
/// Either version may be the older one, and they may be on different branches. Partitioning, sort
/// order, properties and format version are those of the time when the version was committed, and of
/// the newest version those of today. Iceberg keeps them for the table and not by version: they are
/// looked up in older metadata files, and where these are gone the output says that they are not known.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake diff flights --from -1
  lake diff flights --from main --to audit --count --on "flight, origin"
  lake diff flights --from-as-of 2013-07-01 --rows --on id --limit 20
  lake diff flights --from v1 --to v2 --rows -o changes.parquet"#)]
pub(super) struct Diff {
    /// Path or URL of the table
    table: String,
    /// The version to compare: a number (-1 is the one before the newest), a tag or a branch
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = values::parse_version, required_unless_present = "from_as_of")]
    from: Option<At>,
    /// The version that was current at this time: 2013-07-01, "2013-07-01 12:00" (UTC), RFC 3339, or
    /// milliseconds since 1970
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = values::parse_time, conflicts_with = "from")]
    from_as_of: Option<i64>,
    /// The version to compare it with [default: the newest]
    #[arg(long, value_name = "V", allow_hyphen_values = true, value_parser = values::parse_version)]
    to: Option<At>,
    /// The version that was current at this time
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, value_parser = values::parse_time, conflicts_with = "to")]
    to_as_of: Option<i64>,
    /// Read the files that are different, and count rows exactly
    #[arg(long, group = "read")]
    count: bool,
    /// Print the rows that are different: + added, - removed, ~- and ~+ old and new values of changed ones; but for
    /// tables, a column _change_type says insert, delete, update_preimage, update_postimage
    #[arg(long, group = "read")]
    rows: bool,
    /// Key columns, as the second version calls them: rows are matched by them
    #[arg(long, value_name = "COLUMNS", requires = "read")]
    on: Option<String>,
    /// Print so many rows at most
    #[arg(long, value_name = "N", requires = "rows")]
    limit: Option<usize>,
    /// Form of the rows [default: table; with -o, as the name of the file ends]
    #[arg(long, value_enum, requires = "rows", conflicts_with = "json")]
    output: Option<Form>,
    /// Write the rows to this file
    #[arg(short, value_name = "FILE", requires = "rows")]
    o: Option<PathBuf>,
    /// Memory for the comparison of rows; what does not fit goes to disk [default: 60% of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size, requires = "read")]
    memory_limit: Option<u64>,
    /// Exit with 5 if there is a difference: in the definition or a file, with --count or --rows in the definition
    /// or a row
    #[arg(long)]
    exit_code: bool,
    #[command(flatten)]
    storage: StorageArgs,
}

impl Diff {
    fn ends(&self) -> (At, At) {
        let at = |version: &Option<At>, as_of: Option<i64>| {
            let version = version.clone().or_else(|| as_of.map(At::Timestamp));
            version.unwrap_or(At::Latest)
        };
        (at(&self.from, self.from_as_of), at(&self.to, self.to_as_of))
    }

    fn form(&self, ui: &Ui) -> Result<Form, Failure> {
        Ok(match (self.output, &self.o) {
            (Some(form), _) => form,
            (None, Some(file)) => Form::of(file)?,
            (None, None) if ui.json => Form::Json,
            (None, None) => Form::Table,
        })
    }
}

pub(super) async fn diff(args: Diff, ui: &Ui) -> Result<(), Failure> {
    // Before any work, so that a wrong name of a file costs nothing.
    let form = args.form(ui)?;
    let table = args.storage.open(&args.table).await?;
    let (from, to) = args.ends();
    let working = ui.progress("diff".into());
    let diff = table.diff(&from, &to).await?;
    let memory = args
        .memory_limit
        .map(|bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
    let rows = match args.count || args.rows {
        true => Some(diff.rows(args.on.as_deref(), memory).await?),
        false => None,
    };
    let different = match rows {
        None => {
            drop(working);
            summary(&args.table, &diff, None, ui)?;
            !diff.is_empty()
        }
        Some(rows) if args.count => {
            let counts = rows.count().await?;
            drop(working);
            summary(&args.table, &diff, Some((counts, rows.files_read)), ui)?;
            !diff.definition.is_empty() || counts.added + counts.removed + counts.changed > 0
        }
        Some(rows) => {
            let mut frame = rows.frame()?;
            if let Some(limit) = args.limit {
                frame = frame.limit(0, Some(limit))?;
            }
            if form == Form::Table {
                frame = signed(frame)?;
            }
            let stream = frame.execute_stream().await?;
            let rows = output::write(stream, form, args.o.as_deref(), working).await?;
            if let Some(file) = &args.o {
                let file = file.display().to_string();
                match ui.json {
                    true => ui.json(&json!({"file": file, "rows": rows}))?,
                    false => ui.line(&format!("{} rows in {file}", values::show_count(rows)))?,
                }
            } else if form == Form::Table && !diff.compared.left_out.is_empty() {
                ui.line(&format!("not compared: {}", diff.compared.left_out.join(", ")))?;
            }
            !diff.definition.is_empty() || rows > 0
        }
    };
    match different && args.exit_code {
        true => Err(Failure::Different),
        false => Ok(()),
    }
}

/// The rows with a sign in front of them, instead of the word behind them.
fn signed(frame: DataFrame) -> Result<DataFrame, Failure> {
    let is = |change: ChangeType| ident(CHANGE_TYPE).eq(lit(change.name()));
    let sign = when(is(ChangeType::Insert), lit("+"))
        .when(is(ChangeType::Delete), lit("-"))
        .when(is(ChangeType::UpdatePreimage), lit("~-"))
        .otherwise(lit("~+"))?;
    let own = frame.schema().fields().iter().map(|field| field.name().clone());
    let own: Vec<String> = own.filter(|name| name != CHANGE_TYPE).collect();
    let taken = own.iter().any(|name| name == CHANGE);
    let sign = sign.alias(if taken { CHANGE_TYPE } else { CHANGE });
    let columns: Vec<Expr> = std::iter::once(sign).chain(own.into_iter().map(ident)).collect();
    Ok(frame.select(columns)?)
}

/// Name of the column with the sign, unless the table has one that is called so.
const CHANGE: &str = "change";

fn summary(
    name: &str,
    diff: &lakehouse_core::operations::diff::Diff,
    counted: Option<(RowCounts, u64)>,
    ui: &Ui,
) -> Result<(), Failure> {
    if ui.json {
        let mut value = diff.summary();
        value["table"] = name.into();
        for (end, snapshot) in [("from", &diff.from), ("to", &diff.to)] {
            value[end]["timestamp"] = values::show_time(snapshot.timestamp_ms).into();
        }
        if let Some((counts, files_read)) = counted {
            let rows = counts.summary();
            value["rows"]["exact"] = true.into();
            for figure in ["added", "removed", "changed", "ambiguous_keys"] {
                value["rows"][figure] = rows[figure].clone();
            }
            value["files_read"] = files_read.into();
        }
        return ui.json(&value);
    }
    let version = |snapshot: &Snapshot| {
        let time = values::show_time(snapshot.timestamp_ms);
        format!("version {} of {time} UTC", snapshot.version)
    };
    ui.line(&format!(
        "diff {name}: {} to {}",
        version(&diff.from),
        version(&diff.to)
    ))?;
    let mut pairs = vec![("  rows", rows(diff, counted)), ("  files", files(diff))];
    let columns: Vec<_> = diff.definition.columns.iter().map(ToString::to_string).collect();
    if !columns.is_empty() {
        pairs.push(("  columns", columns.join("; ")));
    }
    let others = diff.definition.others();
    if !others.is_empty() {
        pairs.push(("  definition", others.join("; ")));
    }
    if counted.is_some() && !diff.compared.left_out.is_empty() {
        pairs.push(("  not compared", diff.compared.left_out.join(", ")));
    }
    ui.pairs(&pairs)
}

fn rows(diff: &lakehouse_core::operations::diff::Diff, counted: Option<(RowCounts, u64)>) -> String {
    let count = values::show_count;
    let Some((counts, files_read)) = counted else {
        let rows = diff.rows;
        let (added, removed) = (count(rows.added), count(rows.removed));
        return match (rows.exact, rows.added + rows.removed) {
            (true, 0) => "the same".to_owned(),
            (true, _) => format!("{added} added, {removed} removed"),
            (false, _) => {
                format!("at most {added} added, {removed} removed (--count reads files and tells exactly)")
            }
        };
    };
    let mut text = format!("{} added, {} removed", count(counts.added), count(counts.removed));
    if counts.changed > 0 {
        text.push_str(&format!(", {} changed", count(counts.changed)));
    }
    if counts.ambiguous_keys > 0 {
        let keys = count(counts.ambiguous_keys);
        text.push_str(&format!(
            "; of {keys} keys there are several rows: these count as added and removed"
        ));
    }
    if counts == RowCounts::default() {
        "the same".clone_into(&mut text);
    }
    format!("{text} ({} files read)", count(files_read))
}

fn files(diff: &lakehouse_core::operations::diff::Diff) -> String {
    let files = &diff.files;
    let group = |word: &str, totals: &FileTotals| {
        (totals.files > 0).then(|| {
            format!(
                "{word} {} ({} rows, {})",
                values::show_count(totals.files),
                values::show_count(totals.rows),
                values::show_bytes(totals.bytes)
            )
        })
    };
    let groups = [
        group("added", &files.added),
        group("removed", &files.removed),
        group("masked", &files.masked),
        group("unchanged", &files.unchanged),
    ];
    let groups: Vec<String> = groups.into_iter().flatten().collect();
    match groups.as_slice() {
        [] => "none".to_owned(),
        groups => groups.join("; "),
    }
}
