//! How verbs reach tables: settings of cloud storage, and names that were probably meant.

use std::sync::Arc;

use clap::Args;
use lakehouse_core::model::At;
use lakehouse_core::sql::Session;
use lakehouse_core::store::StorageOptions;
use lakehouse_core::table::Places;
use lakehouse_core::{Error, Table};

use crate::exit::Failure;
use crate::values;

/// What every verb understands about storage.
#[derive(Clone, Default, Args)]
pub(super) struct StorageArgs {
    /// A setting of cloud storage, under delta-rs's names: aws_region, aws_endpoint_url, google_service_account,
    /// azure_storage_account_name ..; comes before the environment; may be given several times. Secrets are better
    /// kept in the environment or a profile: other users of the machine see command lines
    #[arg(long = "storage-option", value_name = "KEY=VALUE")]
    storage_options: Vec<String>,
    /// Write to a store that cannot refuse to overwrite an object. Whoever says so promises that nobody else writes to
    /// the table: a second writer would erase commits
    #[arg(long)]
    unsafe_single_writer: bool,
}

/// Without the values, which may be secrets.
impl std::fmt::Debug for StorageArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StorageArgs").finish_non_exhaustive()
    }
}

impl StorageArgs {
    /// The settings.
    pub(super) fn options(&self) -> Result<StorageOptions, Failure> {
        let parse = |text: &String| {
            // Not by clap, which would repeat what it cannot parse: it may be a secret.
            values::parse_property(text).map_err(|_| {
                Failure::usage(
                    "a --storage-option is not of the form key=value",
                    "write --storage-option KEY=VALUE",
                )
            })
        };
        let given: Vec<(String, String)> =
            self.storage_options.iter().map(parse).collect::<Result<_, _>>()?;
        let promise = ("unsafe_single_writer".to_owned(), "true".to_owned());
        let promise = self.unsafe_single_writer.then_some(promise);
        Ok(given.into_iter().chain(promise).collect())
    }

    /// Opens a table that must be there.
    pub(super) async fn open(&self, table: &str) -> Result<Table, Failure> {
        match Table::open_with(table, &self.options()?).await {
            // A bucket that is not there has another cure, and its error tells it.
            Err(Error::NotFound { what, place, hint }) if what == "table" => Err(Error::NotFound {
                what,
                place,
                hint: not_found_hint(table, hint),
            }
            .into()),
            other => Ok(other?),
        }
    }

    /// A session in which quoted paths and URLs are tables, at this version where a query names none.
    pub(super) fn session(&self, at: At) -> Result<Session, Failure> {
        let places = Places::new(self.options()?).with_hint(meant);
        Ok(Session::new(Arc::new(places), None).with_version(at))
    }
}

/// What to do about a table that is not there: a name that was probably meant, or how to make one.
fn not_found_hint(table: &str, given: String) -> String {
    if let Some(hint) = meant(table) {
        return hint;
    }
    let looked = if given.is_empty() {
        given
    } else {
        format!("{given}; ")
    };
    format!("{looked}check the path, or make the table: lake create {table} --schema \"id bigint, ..\"")
}

fn meant(table: &str) -> Option<String> {
    neighbour(table).map(|near| format!("did you mean {near}?"))
}

/// The folder beside `table` whose name is closest to it, if it is close.
fn neighbour(table: &str) -> Option<String> {
    if table.contains("://") {
        return None;
    }
    let path = std::path::Path::new(table.trim_end_matches('/'));
    let name = path.file_name()?.to_str()?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => std::path::Path::new("."),
    };
    let (distance, near) = std::fs::read_dir(parent)
        .ok()?
        .filter_map(Result::ok)
        .filter(|entry| entry.path().join("metadata").is_dir() || entry.path().join("_delta_log").is_dir())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|near| (edits(name, &near), near))
        .min()?;
    (distance > 0 && distance <= 1 + name.chars().count() / 4)
        .then(|| path.with_file_name(near).display().to_string())
}

/// Letters to add, drop or change to get from one word to the other.
fn edits(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, a) in from.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, b) in to.iter().enumerate() {
            let change = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_counts_letters_that_differ() {
        assert_eq!(edits("flights", "flights"), 0);
        assert_eq!(edits("flihgts", "flights"), 2);
        assert_eq!(edits("flight", "flights"), 1);
        assert_eq!(edits("", "abc"), 3);
    }
}
