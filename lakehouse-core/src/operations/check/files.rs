//! What can be said of data files without opening them.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use arrow::datatypes::{DataType, Field};
use datafusion::scalar::ScalarValue;

use crate::error::Result;
use crate::model::{Code, DataFile, Finding, Snapshot, Transform, Version};
use crate::store::Store;

/// What to do where the metadata is wrong and the file is well.
pub(super) const MADE_ANEW: &str = "the file can be read: let compact or an overwrite of its rows make it anew, or restore the metadata from a backup";
/// What to do where rows are lost.
pub(super) const LOST: &str = "restore the file from a backup, or the table to a version that does not need it: \
     lake history, lake restore";

/// Which objects are there, with their sizes in bytes.
#[derive(Debug, Default)]
pub(super) struct Present {
    sizes: BTreeMap<String, Option<u64>>,
}

impl Present {
    /// Looks up what was not looked up before.
    pub(super) async fn look_up(&mut self, store: &Store, mut wanted: BTreeSet<String>) -> Result<()> {
        wanted.retain(|path| !self.sizes.contains_key(path));
        let mut found = store.sizes(&wanted).await?;
        self.sizes.extend(wanted.into_iter().map(|path| {
            let bytes = found.remove(&path);
            (path, bytes)
        }));
        Ok(())
    }

    pub(super) fn is_as_recorded(&self, path: &str, bytes: u64) -> bool {
        self.sizes.get(path) == Some(&Some(bytes))
    }

    /// Whether all that hides rows of a file is there.
    pub(super) fn has_masks(&self, file: &DataFile) -> bool {
        let mut objects = file.objects().skip(1);
        objects.all(|(path, bytes)| match (self.sizes.get(path), bytes) {
            (Some(Some(there)), Some(recorded)) => *there == recorded,
            (Some(there), None) => there.is_some(),
            _ => false,
        })
    }

    /// What is wrong with an object: `code` where it is not there.
    pub(super) fn judge(
        &self,
        store: &Store,
        path: &str,
        recorded: Option<u64>,
        code: Code,
    ) -> Option<Finding> {
        let shown = store.shown(path);
        let todo = match code {
            Code::FileMissing => LOST,
            Code::MetadataLog => {
                "nothing reads it but those who look back further; versions stay as they are"
            }
            _ => "let the engine that wrote it write it anew",
        };
        match (self.sizes.get(path).copied().flatten(), recorded) {
            (None, _) => Some(Finding::new(code, shown, "the file is not there", todo)),
            (Some(there), Some(recorded)) if there != recorded => {
                let code = match code {
                    Code::FileMissing => Code::FileSize,
                    code => code,
                };
                let what = format!("it has {there} bytes, the metadata says {recorded}");
                Some(Finding::new(code, shown, what, todo))
            }
            _ => None,
        }
    }
}

/// Files of an older version that went before it.
pub(super) fn gone(version: Version, is_over: bool, count: usize, first: &str) -> Finding {
    let (code, todo) = match is_over {
        true => (
            Code::VersionNotRetained,
            "nothing: it cannot be read or restored any more, and leaves the history by lake expire",
        ),
        false => (
            Code::VersionIncomplete,
            "if no vacuum was asked to take files of this age, put them back from a backup",
        ),
    };
    let what = format!("version {version} lacks {count} of its files, among them {first}");
    Finding::new(code, "", what, todo)
}

/// Data files that are listed twice.
pub(super) fn twice(files: &[DataFile], findings: &mut BTreeSet<Finding>) {
    let mut times: HashMap<&str, usize> = HashMap::new();
    for file in files {
        *times.entry(&file.path).or_default() += 1;
    }
    for (path, times) in times.into_iter().filter(|(_, times)| *times > 1) {
        findings.insert(Finding::new(
            Code::FileTwice,
            path,
            format!("the version has it {times} times"),
            "delete the rows of the file and write them once: lake overwrite --where; or restore a version before",
        ));
    }
}

/// Ranges of row ids: each id belongs to one file, and was given out.
pub(super) fn row_ids(
    files: &[DataFile],
    next: Option<i64>,
    required: bool,
    findings: &mut BTreeSet<Finding>,
) {
    const ROWS_WRITTEN_ANEW: &str = "rows cannot be told apart by their ids: restore a version before, or write the rows of the file anew";
    if required {
        for file in files.iter().filter(|file| file.first_row_id.is_none()) {
            findings.insert(Finding::new(
                Code::RowIdMissing,
                &file.path,
                "its rows have no ids",
                ROWS_WRITTEN_ANEW,
            ));
        }
    }
    let range = |file| -> Option<(i64, i64, &DataFile)> {
        let file: &DataFile = file;
        let first = file.first_row_id?;
        let end = first.saturating_add(i64::try_from(file.rows).unwrap_or(i64::MAX));
        (file.rows > 0).then_some((first, end, file))
    };
    let mut ranges: Vec<_> = files.iter().filter_map(range).collect();
    ranges.sort_by(|a, b| (a.0, a.1, &a.2.path).cmp(&(b.0, b.1, &b.2.path)));
    if let Some(next) = next {
        for (first, end, file) in ranges.iter().filter(|(_, end, _)| *end > next) {
            findings.insert(Finding::new(
                Code::RowIdBeyond,
                &file.path,
                format!(
                    "it has row ids {first} to {}, the next that the table gives is {next}",
                    end - 1
                ),
                "new rows may get ids that are taken: write the rows of the file anew",
            ));
        }
    }
    let mut last: Option<(i64, &DataFile)> = None;
    for (first, end, file) in ranges {
        if let Some((taken, other)) = last
            && first < taken
            // The same file twice is told of as such.
            && other.path != file.path
        {
            findings.insert(Finding::new(
                Code::RowIdOverlap,
                &file.path,
                format!(
                    "its row ids {first} to {} overlap those of {}",
                    end - 1,
                    other.path
                ),
                ROWS_WRITTEN_ANEW,
            ));
        }
        if last.is_none_or(|(taken, _)| end > taken) {
            last = Some((end, file));
        }
    }
}

/// A file is not newer than the version that has it.
pub(super) fn sequence(file: &DataFile, version: Option<i64>, findings: &mut BTreeSet<Finding>) {
    if let (Some(own), Some(version)) = (file.sequence, version)
        && own > version
    {
        findings.insert(Finding::new(
            Code::Sequence,
            &file.path,
            format!("it has sequence number {own}, the version that has it {version}"),
            "deletes may not reach its rows: write the rows of the file anew",
        ));
    }
}

/// Partition values that are values of their partition fields.
pub(super) fn partition(snapshot: &Snapshot, file: &DataFile, findings: &mut BTreeSet<Finding>) {
    let mut found = |what: String| {
        findings.insert(Finding::new(Code::PartitionValue, &file.path, what, MADE_ANEW));
    };
    let Some(fields) = snapshot.specs.get(&file.spec_id) else {
        return found(format!(
            "it belongs to partition spec {}, which the table does not have",
            file.spec_id
        ));
    };
    if fields.len() != file.partition.len() {
        return found(format!(
            "it has {} partition values, its partition spec {} fields",
            file.partition.len(),
            fields.len()
        ));
    }
    for (field, value) in fields.iter().zip(&file.partition) {
        if value.is_null() {
            continue;
        }
        let source = column(snapshot.schema.fields(), &field.source);
        let sound = match field.transform {
            Transform::Void => false,
            Transform::Bucket { buckets, .. } => {
                matches!(value, ScalarValue::Int32(Some(bucket)) if (0..i64::from(buckets)).contains(&i64::from(*bucket)))
            }
            // What is cut already stays as it is; where the width changed the type did not.
            Transform::Truncate(_) | Transform::Prefix(_) => {
                field.transform.apply_scalar(value).is_ok_and(|cut| cut == *value)
            }
            transform => source.is_none_or(|source| {
                let wanted = transform.result_type(source.data_type());
                wanted.is_ok_and(|wanted| is_like(&value.data_type(), &wanted))
            }),
        };
        if !sound {
            found(format!(
                "{value} is no value of the partition field {}",
                field.term()
            ));
        }
    }
}

/// Whether values of one type may stand for those of the other: columns get wider types, partition values stay.
fn is_like(value: &DataType, wanted: &DataType) -> bool {
    value == wanted
        || (value.is_numeric() && wanted.is_numeric())
        || (value.is_temporal() && wanted.is_temporal())
}

/// A column by its name, `a.b` for a member of a struct.
fn column<'a>(fields: &'a arrow::datatypes::Fields, name: &str) -> Option<&'a Field> {
    for field in fields {
        if field.name() == name {
            return Some(field);
        }
        if let DataType::Struct(members) = field.data_type()
            && let Some(rest) = name
                .strip_prefix(field.name())
                .and_then(|rest| rest.strip_prefix('.'))
            && let Some(found) = column(members, rest)
        {
            return Some(found);
        }
    }
    None
}
