//! What a table is to be kept like: a policy, for one table or for many.
//!
//! Its sections are the verbs, its keys their long options. It is TOML; [`Policy::to_toml`] writes one with every key.

use std::time::Duration;

use datafusion::common::utils::datafusion_strsim::levenshtein;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::written::{Bytes, Time};
use crate::error::{Error, Result};
use crate::model::{ColumnPath, LEASE};
use crate::operations::vacuum::FLOOR_MS;
use crate::operations::{Clustering, Compact, CompactStrategy, RowOrder};
use crate::scan::parse_sort_order;

/// What maintenance does, within which budget. The default is what every table can bear every night.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Policy {
    /// The time for all steps; `None` for as long as it takes. See [`super::maintain`] for how it is shared.
    pub max_time: Option<Time>,
    /// Bytes of data files that are rewritten at most.
    pub max_bytes: Option<Bytes>,
    /// [`crate::operations::compact`].
    pub compact: CompactPolicy,
    /// [`crate::operations::rewrite_manifests`], where the format has them.
    pub rewrite_manifests: PlainPolicy,
    /// A checkpoint, where the format has them: when there are as many log entries after the last one as the table wants
    /// between two.
    pub checkpoint: PlainPolicy,
    /// [`crate::operations::expire`].
    pub expire: ExpirePolicy,
    /// [`crate::operations::vacuum()`].
    pub vacuum: VacuumPolicy,
}

/// How files are compacted: the options of [`Compact`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct CompactPolicy {
    /// False leaves the step out.
    pub enabled: bool,
    /// [`Compact::target_file_bytes`].
    pub target_file_size: Option<Bytes>,
    /// [`Compact::predicate`].
    #[serde(rename = "where")]
    pub predicate: Option<String>,
    /// [`Compact::strategy`].
    pub strategy: CompactStrategy,
    /// [`Compact::min_input_files`].
    pub min_input_files: Option<usize>,
    /// [`Compact::delete_ratio_threshold`].
    pub delete_ratio_threshold: Option<f64>,
    /// [`Compact::max_rewrite`].
    pub max_rewrite: Option<Bytes>,
    /// [`Compact::max_bytes`].
    pub max_bytes: Option<Bytes>,
    /// [`Compact::max_time`].
    pub max_time: Option<Time>,
    /// [`Compact::max_concurrent_groups`].
    pub max_concurrent_groups: Option<usize>,
    /// [`Clustering::Sort`]: `ts desc, id`.
    pub sort_by: Option<String>,
    /// [`Clustering::ZOrder`].
    pub zorder: Vec<String>,
    /// [`Clustering::Hilbert`].
    pub hilbert: Vec<String>,
    /// [`RowOrder::AsItIs`].
    pub unordered: bool,
    /// Bytes that sorting holds before it goes to disk.
    pub memory_limit: Option<Bytes>,
}

impl Default for CompactPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            target_file_size: None,
            predicate: None,
            strategy: CompactStrategy::default(),
            min_input_files: None,
            delete_ratio_threshold: None,
            max_rewrite: None,
            max_bytes: None,
            max_time: None,
            max_concurrent_groups: None,
            sort_by: None,
            zorder: Vec::new(),
            hilbert: Vec::new(),
            unordered: false,
            memory_limit: None,
        }
    }
}

/// A step without options.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct PlainPolicy {
    /// False leaves the step out.
    pub enabled: bool,
}

impl Default for PlainPolicy {
    fn default() -> Self {
        Self { enabled: true }
    }
}

/// Which versions go. Where the table itself says how long versions are kept, that holds instead of `older_than`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ExpirePolicy {
    /// False leaves the step out.
    pub enabled: bool,
    /// [`crate::operations::Expire::older_than_ms`], never less than twice the lease.
    pub older_than: Option<Time>,
    /// [`crate::operations::Expire::retain_last`]; if the table asks for more, that holds.
    pub retain_last: Option<u32>,
}

impl Default for ExpirePolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            older_than: None,
            retain_last: None,
        }
    }
}

/// Which files go. Where the table itself says how long files are kept, that holds instead of `older_than`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct VacuumPolicy {
    /// False leaves the step out.
    pub enabled: bool,
    /// [`crate::Vacuum::older_than_ms`].
    pub older_than: Option<Time>,
    /// [`crate::Vacuum::keep_versions`].
    pub keep_versions: Vec<i64>,
    /// [`crate::Vacuum::quarantine`].
    pub quarantine: Option<String>,
    /// [`crate::Vacuum::unsafe_no_writers`].
    pub unsafe_no_writers: bool,
}

impl Default for VacuumPolicy {
    fn default() -> Self {
        Self {
            enabled: true,
            older_than: None,
            keep_versions: Vec::new(),
            quarantine: None,
            unsafe_no_writers: false,
        }
    }
}

/// What is wrong with a key: where it is, what, and what to do.
struct Wrong {
    section: &'static str,
    key: &'static str,
    what: String,
    hint: String,
}

impl Policy {
    /// Reads a policy; `file` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Invalid`] with file, line and key, and the name that was probably meant.
    pub fn from_toml(text: &str, file: &str) -> Result<Self> {
        let policy: Self = toml::from_str(text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            unread(text, file, at, error.message())
        })?;
        policy.look().map_err(|wrong| {
            let line = line_of(text, wrong.section, wrong.key);
            let line = line.map_or_else(String::new, |line| format!("line {line}, "));
            let key = [wrong.section, wrong.key].join(".");
            Error::invalid(
                wrong.what,
                format!("{file}, {line}key {}", key.trim_start_matches('.')),
            )
            .with_hint(wrong.hint)
        })?;
        Ok(policy)
    }

    /// The same from a dictionary of dictionaries.
    ///
    /// # Errors
    /// As [`Policy::from_toml`].
    pub fn from_json(value: &Value) -> Result<Self> {
        let shape = || {
            Error::invalid("a policy is a dictionary", "the policy")
                .with_hint("for example {\"expire\": {\"older-than\": \"7d\"}}")
        };
        let (mut top, mut sections) = (String::new(), String::new());
        for (name, value) in value.as_object().ok_or_else(shape)? {
            match value {
                Value::Object(keys) => {
                    sections.push_str(&format!("[{}]\n", bare(name)));
                    for (key, value) in keys.iter().filter(|(_, value)| !value.is_null()) {
                        sections.push_str(&format!("{} = {value}\n", bare(key)));
                    }
                }
                Value::Null => {}
                value => top.push_str(&format!("{} = {value}\n", bare(name))),
            }
        }
        Self::from_toml(&format!("{top}{sections}"), "the policy")
    }

    /// Refuses what makes no sense, before any step is begun.
    ///
    /// # Errors
    /// [`Error::Invalid`] that names the key.
    pub(super) fn check(&self) -> Result<()> {
        self.look().map_err(|wrong| {
            let key = [wrong.section, wrong.key].join(".");
            Error::invalid(
                wrong.what,
                format!("the policy, key {}", key.trim_start_matches('.')),
            )
            .with_hint(wrong.hint)
        })
    }

    fn look(&self) -> Result<(), Wrong> {
        let wrong = |section, key, what: String, hint: &str| {
            Err(Wrong {
                section,
                key,
                what,
                hint: hint.to_owned(),
            })
        };
        let floor = "write 2d or more, twice as long as a writer may take";
        let floor_hours = FLOOR_MS / 3_600_000;
        let too_short = |time: Option<Time>| time.is_some_and(|time| time.0 < LEASE * 2);
        if too_short(self.expire.older_than) {
            let what =
                format!("versions younger than {floor_hours} hours are kept: readers may have just begun");
            return wrong("expire", "older-than", what, floor);
        }
        if self.expire.retain_last == Some(0) {
            let what = "at least one version stays: the newest".to_owned();
            return wrong("expire", "retain-last", what, "write 1 or more");
        }
        if too_short(self.vacuum.older_than) && !self.vacuum.unsafe_no_writers {
            let what = format!(
                "files younger than {floor_hours} hours may be those of a writer that is still at work"
            );
            let hint = "write 2d or more, or, if nobody ever writes while this runs, say so: unsafe-no-writers = true";
            return wrong("vacuum", "older-than", what, hint);
        }
        let compact = &self.compact;
        let orders = [
            compact.sort_by.is_some(),
            !compact.zorder.is_empty(),
            !compact.hilbert.is_empty(),
            compact.unordered,
        ];
        if orders.iter().filter(|given| **given).count() > 1 {
            let what = "rows have one order, and more are given".to_owned();
            return wrong(
                "compact",
                "sort-by",
                what,
                "keep one of sort-by, zorder, hilbert, unordered",
            );
        }
        if let Err(error) = self.order() {
            let (key, hint) = match compact.sort_by {
                Some(_) => ("sort-by", "write it like \"ts desc, id\""),
                None if compact.zorder.is_empty() => ("hilbert", "name columns of the table"),
                None => ("zorder", "name columns of the table"),
            };
            return wrong("compact", key, error.to_string(), hint);
        }
        if compact.min_input_files.is_some_and(|files| files < 2) {
            let what = "one file alone would be rewritten again and again".to_owned();
            return wrong("compact", "min-input-files", what, "write 2 or more");
        }
        if compact.max_concurrent_groups == Some(0) {
            let what = "0 groups at a time are none".to_owned();
            return wrong("compact", "max-concurrent-groups", what, "write 1 or more");
        }
        match compact.delete_ratio_threshold {
            Some(ratio) if !(0.0..=1.0).contains(&ratio) => wrong(
                "compact",
                "delete-ratio-threshold",
                format!("{ratio} is not between 0 and 1"),
                "write 0.05 for one row in twenty",
            ),
            _ => Ok(()),
        }
    }

    /// The order of rows that is asked for.
    fn order(&self) -> Result<RowOrder> {
        let compact = &self.compact;
        let names = |columns: &[String]| {
            let paths = columns.iter().map(|column| column.parse::<ColumnPath>());
            paths.map(|path| Ok(path?.dotted())).collect::<Result<Vec<_>>>()
        };
        Ok(match (&compact.sort_by, compact.unordered) {
            (_, true) => RowOrder::AsItIs,
            (Some(order), _) => RowOrder::By(Clustering::Sort(parse_sort_order(order)?)),
            _ if !compact.zorder.is_empty() => RowOrder::By(Clustering::ZOrder(names(&compact.zorder)?)),
            _ if !compact.hilbert.is_empty() => RowOrder::By(Clustering::Hilbert(names(&compact.hilbert)?)),
            _ => RowOrder::OfTable,
        })
    }

    /// What a compaction is asked that begins no group after `max_time`.
    ///
    /// # Errors
    /// [`Error::Invalid`] for an order that cannot be read.
    pub(super) fn compaction(&self, max_time: Option<Duration>) -> Result<Compact> {
        let compact = &self.compact;
        let bytes = |size: Option<Bytes>| size.map(|size| size.0);
        let least = |a: Option<u64>, b: Option<u64>| a.into_iter().chain(b).min();
        let own = compact.max_time.map(|time| time.0);
        Ok(Compact {
            target_file_bytes: bytes(compact.target_file_size),
            predicate: compact.predicate.clone(),
            order: self.order()?,
            strategy: compact.strategy,
            min_input_files: compact.min_input_files,
            delete_ratio_threshold: compact.delete_ratio_threshold,
            max_rewrite: bytes(compact.max_rewrite),
            max_bytes: least(bytes(compact.max_bytes), bytes(self.max_bytes)),
            max_time: own.into_iter().chain(max_time).min(),
            max_concurrent_groups: compact.max_concurrent_groups,
        })
    }

    /// The policy as a file: every key with what it means. Those that say nothing are comments.
    pub fn to_toml(&self) -> String {
        // Plain data: that always succeeds.
        let values = serde_json::to_value(self).unwrap_or_default();
        let mut text = String::from(
            "# What `lake maintain` does, in the order of this file. Keys behind a # are left to the table or to what is usual.\n",
        );
        let mut last = "";
        for (section, key, usual, comment) in KEYS {
            if *section != last {
                text.push_str(&format!("\n[{section}]\n"));
                last = section;
            }
            let value = match *section {
                "" => &values[*key],
                section => &values[section][*key],
            };
            let none = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
            text.push_str(&match none {
                true => format!("# {comment}\n# {key} = {usual}\n"),
                false => format!("# {comment}\n{key} = {value}\n"),
            });
        }
        text
    }
}

/// A key that needs no quotes, or one in quotes.
fn bare(key: &str) -> String {
    let is_bare = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    match !key.is_empty() && key.chars().all(is_bare) {
        true => key.to_owned(),
        false => Value::from(key).to_string(),
    }
}

/// The section and the key of a line.
fn key_at(text: &str, number: usize) -> (String, String) {
    let lines: Vec<&str> = text.lines().take(number).map(str::trim).collect();
    let name = |line: &str| line.split(']').next().unwrap_or_default().trim().to_owned();
    let section = lines.iter().rev().find_map(|line| line.strip_prefix('['));
    let last = lines.last().copied().unwrap_or_default();
    let key = last.split_once('=').map_or("", |(key, _)| key.trim());
    (section.map(name).unwrap_or_default(), key.to_owned())
}

/// The number of the line, from 1 on, that sets this key, if one does.
fn line_of(text: &str, section: &str, key: &str) -> Option<usize> {
    let lines = 1..=text.lines().count();
    let mut found = lines.filter(|number| key_at(text, *number) == (section.to_owned(), key.to_owned()));
    found.next()
}

/// What the parser met at a byte of the text.
fn unread(text: &str, file: &str, at: usize, message: &str) -> Error {
    let at = at.min(text.len());
    let before = text.get(..at).unwrap_or_default();
    let number = before.matches('\n').count() + 1;
    let (section, key) = key_at(text, number);
    let path = match (section.as_str(), key.as_str()) {
        ("", key) => key.to_owned(),
        (section, "") => section.to_owned(),
        (section, key) => format!("{section}.{key}"),
    };
    let names: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let unknown = message.starts_with("unknown field") || message.starts_with("unknown variant");
    let (what, hint) = match names.as_slice() {
        [given, known @ ..] if unknown => {
            let kind = match message.starts_with("unknown field") {
                true => "key",
                false => "value",
            };
            let near = known.iter().min_by_key(|name| levenshtein(given, name));
            let near = near.filter(|name| levenshtein(given, name) <= 1 + given.len() / 3);
            let meant = near.map_or_else(String::new, |near| format!("did you mean {near}? "));
            (
                format!("there is no {kind} {given}"),
                format!("{meant}Known: {}", known.join(", ")),
            )
        }
        _ => (
            message.lines().collect::<Vec<_>>().join(" "),
            "lake maintain --print-policy prints a policy with every key".to_owned(),
        ),
    };
    let key = match path.is_empty() {
        true => String::new(),
        false => format!(", key {path}"),
    };
    Error::invalid(what, format!("{file}, line {number}{key}")).with_hint(hint)
}

/// Every key in its order: section, name, an example or what is usual, what it means.
const KEYS: &[(&str, &str, &str, &str)] = &[
    (
        "",
        "max-time",
        "\"2h\"",
        "Time for all steps of one table: compact begins no group after three quarters of it; expire and vacuum are always begun",
    ),
    (
        "",
        "max-bytes",
        "\"100GB\"",
        "Bytes of data files that are rewritten at most, of one table",
    ),
    (
        "compact",
        "enabled",
        "true",
        "Small files and files with masked rows are rewritten into good ones, in the table's order of rows if it has one",
    ),
    (
        "compact",
        "target-file-size",
        "\"512MB\"",
        "Size of new files; below three quarters of it a file is small. Usual: the table's setting, else 512MB",
    ),
    (
        "compact",
        "where",
        "\"day >= '2026-01-01'\"",
        "Only files that may hold rows for which this is true",
    ),
    (
        "compact",
        "strategy",
        "\"auto\"",
        "auto, small-files, masked-files or all",
    ),
    (
        "compact",
        "min-input-files",
        "2",
        "Fewer small files of a partition are left alone",
    ),
    (
        "compact",
        "delete-ratio-threshold",
        "0.05",
        "Share of masked rows from which on a file is rewritten however large it is",
    ),
    (
        "compact",
        "max-rewrite",
        "\"4GB\"",
        "Bytes of files that are rewritten and committed together. Files that overlap in an order are split only if it is given",
    ),
    (
        "compact",
        "max-bytes",
        "\"100GB\"",
        "Rewrite at most so many bytes; the least of this and the one above counts",
    ),
    ("compact", "max-time", "\"90m\"", "Begin no group after this time"),
    (
        "compact",
        "max-concurrent-groups",
        "1",
        "Work on so many groups at the same time, in commits of their own that share the memory",
    ),
    (
        "compact",
        "sort-by",
        "\"ts desc, id\"",
        "Put rows in the order of columns. Usual: the table's own order",
    ),
    (
        "compact",
        "zorder",
        "[\"a\", \"b\"]",
        "Put rows along the Z-order curve through columns",
    ),
    (
        "compact",
        "hilbert",
        "[\"a\", \"b\"]",
        "Put rows along the Hilbert curve through columns",
    ),
    (
        "compact",
        "unordered",
        "false",
        "Leave rows in the order in which they lie, whatever order the table says",
    ),
    (
        "compact",
        "memory-limit",
        "\"4GB\"",
        "Memory for sorting; what does not fit goes to disk. Usual: 60% of the machine's",
    ),
    (
        "rewrite-manifests",
        "enabled",
        "true",
        "Iceberg: manifests are written anew where there are more than the table's target size asks for",
    ),
    (
        "checkpoint",
        "enabled",
        "true",
        "Delta: a checkpoint, once there are as many log entries after the last as delta.checkpointInterval says (10)",
    ),
    (
        "expire",
        "enabled",
        "true",
        "Old versions go, and the files of the metadata (Delta: of the log) that only they needed",
    ),
    (
        "expire",
        "older-than",
        "\"5d\"",
        "Versions of this age go, at least 2d; where the table itself says how long, that holds. Usual: 5d (Iceberg), 30d (Delta)",
    ),
    (
        "expire",
        "retain-last",
        "1",
        "So many versions of each branch stay, however old, or as many as the table says, if that is more",
    ),
    (
        "vacuum",
        "enabled",
        "true",
        "Files go that no retained version needs",
    ),
    (
        "vacuum",
        "older-than",
        "\"7d\"",
        "Only files older than this, at least 2d; where the table itself says how long, that holds. Usual: 7d (Delta), 3d (Iceberg)",
    ),
    (
        "vacuum",
        "keep-versions",
        "[12, 13]",
        "Keep these versions too, whatever their age",
    ),
    (
        "vacuum",
        "quarantine",
        "\".quarantine\"",
        "Move files into this hidden folder of the table instead of deleting them",
    ),
    (
        "vacuum",
        "unsafe-no-writers",
        "false",
        "Allow an age below 2d: only where nobody ever writes while this runs",
    ),
];

#[cfg(test)]
#[path = "policy_tests.rs"]
mod tests;
