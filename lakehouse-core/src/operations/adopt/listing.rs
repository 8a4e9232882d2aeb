//! Which files there are, and what the names of their folders say.

use arrow::datatypes::DataType;
use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::store::Store;

/// How a folder spells NULL (Hive, and all who write such folders).
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// Endings of Parquet files.
const ENDINGS: [&str; 3] = [".parquet", ".parq", ".pq"];

/// The files to adopt.
#[derive(Debug)]
pub(super) struct Listing {
    pub(super) files: Vec<Candidate>,
    /// What folders name, outermost first.
    pub(super) keys: Vec<Key>,
    /// Hidden files, which are left alone.
    pub(super) hidden: u64,
}

/// One file.
#[derive(Debug)]
pub(super) struct Candidate {
    /// Object key below the table root.
    pub(super) path: String,
    pub(super) bytes: u64,
    /// One per key of the listing; `None` for NULL.
    pub(super) values: Vec<Option<String>>,
}

/// A column that folders name.
#[derive(Debug)]
pub(super) struct Key {
    pub(super) name: String,
    /// What all values are.
    pub(super) inferred: DataType,
}

/// Lists the Parquet files below a folder of the table's root.
///
/// # Errors
/// [`Error::NotFound`] when there is none; [`Error::Invalid`] for a file that is neither hidden nor Parquet by its name, and
/// for folders that do not name the same columns in the same order everywhere.
pub(super) async fn list(store: &Store, folder: &str) -> Result<Listing> {
    let prefix = match folder.trim_matches('/') {
        "" => String::new(),
        folder => format!("{folder}/"),
    };
    let place = || match prefix.as_str() {
        "" => store.location().to_owned(),
        prefix => format!("{}/{}", store.location(), prefix.trim_end_matches('/')),
    };
    let mut hidden = 0;
    let mut files = Vec::new();
    let mut first: Option<(Vec<String>, String)> = None;
    for object in store.list(&prefix).await? {
        let below = object.path.strip_prefix(&prefix).unwrap_or(&object.path);
        if is_hidden(below) || is_left_behind(&object.path) {
            hidden += 1;
            continue;
        }
        let lower = object.path.to_ascii_lowercase();
        if !ENDINGS.iter().any(|ending| lower.ends_with(ending)) {
            return Err(Error::invalid(
                "this file is not Parquet, as far as its name tells, and not a hidden one",
                object.path,
            )
            .with_hint(
                "move it elsewhere, let its name end in .parquet if it is Parquet, or name a folder of Parquet files only",
            ));
        }
        let (names, values): (Vec<String>, Vec<Option<String>>) = pairs(&object.path)?.into_iter().unzip();
        match &first {
            None => first = Some((names, object.path.clone())),
            Some((known, other)) if *known != names => {
                let say = |names: &[String]| match names {
                    [] => "no columns".to_owned(),
                    names => names.join(", "),
                };
                return Err(Error::invalid(
                    format!(
                        "the folders of this file name {}, those of {other} {}",
                        say(&names),
                        say(known)
                    ),
                    object.path,
                )
                .with_hint(
                    "all files need the same levels of folders (year=../region=..), in the same order",
                ));
            }
            Some(_) => {}
        }
        files.push(Candidate {
            path: object.path,
            bytes: object.bytes,
            values,
        });
    }
    let Some((names, _)) = first else {
        return Err(Error::not_found("a Parquet file", place())
            .with_hint("files below the table's own place are looked for, with names that end in .parquet"));
    };
    let key = |(number, name): (usize, String)| Key {
        name,
        inferred: inferred(files.iter().filter_map(|file| file.values[number].as_deref())),
    };
    let keys = names.into_iter().enumerate().map(key).collect();
    Ok(Listing { files, keys, hidden })
}

/// What Hive, Spark and their like do not read: names that begin with `.` or `_`, unless they are a column's.
fn is_hidden(path: &str) -> bool {
    path.split('/')
        .any(|part| part.starts_with('.') || (part.starts_with('_') && !part.contains('=')))
}

/// Metadata of an attempt to make the table that was cut off; what there is of a table at all was looked for before.
fn is_left_behind(path: &str) -> bool {
    let endings = [".avro", ".metadata.json"];
    path.starts_with("metadata/") && endings.iter().any(|ending| path.ends_with(ending))
}

/// `year=2024/region=a%2Fb/part.parquet` as pairs.
fn pairs(path: &str) -> Result<Vec<(String, Option<String>)>> {
    let broken = |what: String| {
        Error::invalid(what, path).with_hint("folders of partitions are named column=value, percent-encoded")
    };
    let decoded = |text: &str| {
        let text = percent_decode_str(text).decode_utf8();
        text.map(|text| text.into_owned())
            .map_err(|_| broken("the name of a folder is not UTF-8 once it is decoded".to_owned()))
    };
    let mut pairs: Vec<(String, Option<String>)> = Vec::new();
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    for folder in folders.split('/') {
        let Some((name, value)) = folder.split_once('=') else {
            continue;
        };
        let name = decoded(name)?;
        if name.is_empty() || pairs.iter().any(|(known, _)| *known == name) {
            return Err(broken(format!(
                "the folder {folder} names no column, or one a second time"
            )));
        }
        let value = match value {
            NULL => None,
            value => Some(decoded(value)?),
        };
        pairs.push((name, value));
    }
    Ok(pairs)
}

/// `bigint` if all are whole numbers, `date` if all are ISO dates, else `string`.
fn inferred<'a>(values: impl Iterator<Item = &'a str>) -> DataType {
    let is_number = |text: &str| text.parse::<i64>().is_ok() && !text.starts_with('+');
    let is_date =
        |text: &str| text.len() == 10 && chrono::NaiveDate::parse_from_str(text, "%Y-%m-%d").is_ok();
    let (mut any, mut numbers, mut dates) = (false, true, true);
    for value in values {
        any = true;
        numbers &= is_number(value);
        dates &= is_date(value);
    }
    match (any && numbers, any && dates) {
        (true, _) => DataType::Int64,
        (_, true) => DataType::Date32,
        _ => DataType::Utf8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_name_columns_and_null_and_escapes_are_understood() {
        let found = pairs("raw/year=2024/a%20b=x%2Fy%3D/z=__HIVE_DEFAULT_PARTITION__/p=1.parquet").unwrap();
        let expected = [("year", Some("2024")), ("a b", Some("x/y=")), ("z", None)];
        let expected: Vec<_> = expected
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.map(str::to_owned)))
            .collect();
        assert_eq!(found, expected, "the file's own name is no folder");
        assert!(pairs("a=1/a=2/x.parquet").is_err());
        assert!(pairs("a=%FF/x.parquet").is_err());
    }

    #[test]
    fn values_are_numbers_or_dates_only_if_all_are() {
        let of = |values: &[&'static str]| inferred(values.iter().copied());
        assert_eq!(of(&["1", "-2", "03"]), DataType::Int64);
        assert_eq!(of(&["1", "9223372036854775808"]), DataType::Utf8);
        assert_eq!(of(&["2024-02-29", "1969-12-31"]), DataType::Date32);
        assert_eq!(of(&["2024-02-30"]), DataType::Utf8);
        assert_eq!(of(&["2024-2-3"]), DataType::Utf8);
        assert_eq!(of(&["1", "2024-02-29"]), DataType::Utf8);
        assert_eq!(of(&["+1"]), DataType::Utf8);
        assert_eq!(of(&[]), DataType::Utf8);
    }

    #[test]
    fn hidden_files_are_those_that_other_readers_pass_over() {
        for hidden in [
            "_SUCCESS",
            "a/_metadata",
            ".x.crc",
            "_temporary/0/p.parquet",
            "a/.b/c.parquet",
        ] {
            assert!(is_hidden(hidden), "{hidden}");
        }
        for seen in ["a/p.parquet", "_year=2024/p.parquet", "a_b/p_q.parquet"] {
            assert!(!is_hidden(seen), "{seen}");
        }
    }
}
