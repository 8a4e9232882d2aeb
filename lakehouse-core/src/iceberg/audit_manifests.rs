//! What is wrong with the manifests of a version (Iceberg spec, "Manifests", "Manifest Lists", "Sequence Numbers",
//! "Deletion Vectors", Appendix F, "Optional Snapshot Summary Fields").

use std::collections::HashMap;

use datafusion::scalar::ScalarValue;
use futures::{StreamExt, stream};
use iceberg::spec::{DataContentType, DataFileFormat, ManifestFile, ManifestStatus};

use super::convert::partition_of;
use super::files::{CONCURRENT, ranges, split};
use super::manifests::{Entry, Manifest, read_list, read_manifest};
use super::view::View;
use crate::error::Result;
use crate::model::{Audit, Code, Finding, NeededObject};
use crate::store::Store;

const FROM_BACKUP: &str = "restore the file from a backup, or the table to a version that does not need it";

/// What the files of a version add up to, by the names of the spec's summary.
type Totals = HashMap<&'static str, u64>;

/// Reads every manifest of a version and compares it with what is said of it.
///
/// # Errors
/// Those of the store.
pub(super) async fn audit(store: &Store, view: &View, audit: &mut Audit) -> Result<()> {
    let list = match read_list(store, view).await {
        Ok(list) => list,
        Err(error) => {
            audit
                .findings
                .push(Finding::of(Code::ManifestUnreadable, error, "", FROM_BACKUP)?);
            return Ok(());
        }
    };
    for manifest in &list {
        if let Ok(path) = view.state.paths.relative(&manifest.manifest_path) {
            audit.needed.push(NeededObject {
                path,
                bytes: u64::try_from(manifest.manifest_length).ok(),
                code: Code::FileMissing,
            });
        }
    }
    let (data, deletes) = split(list);
    let mut totals = Totals::new();
    let mut vectors: HashMap<String, u64> = HashMap::new();
    let mut whole = true;
    // Deletes first: of the data files only those that they are about are remembered.
    let mut reading = stream::iter(deletes.into_iter().chain(data))
        .map(|manifest| async move {
            let path = manifest.manifest_path.clone();
            (path, read_manifest(store, &view.state, manifest).await)
        })
        .buffered(CONCURRENT);
    while let Some((recorded, manifest)) = reading.next().await {
        let path = view.state.paths.relative(&recorded).unwrap_or(recorded);
        match manifest {
            Ok(manifest) => {
                one(view, &manifest, &path, audit);
                for entry in manifest.entries.iter().filter(|entry| entry.is_live()) {
                    count(entry, &mut totals);
                    vector(view, entry, &path, &mut vectors, audit);
                }
            }
            Err(error) => {
                whole = false;
                audit
                    .findings
                    .push(Finding::of(Code::ManifestUnreadable, error, &path, FROM_BACKUP)?);
            }
        }
    }
    if whole {
        summary(view, &totals, audit);
        let mut dangling: Vec<String> = vectors.into_keys().collect();
        dangling.sort_unstable();
        for target in dangling {
            audit.findings.push(Finding::new(
                Code::MaskDangling,
                view.state.paths.relative(&target).unwrap_or(target),
                "a deletion vector names this data file, which the version does not have",
                "no row is affected; compacting the table's deletes takes it away",
            ));
        }
    }
    Ok(())
}

/// What the manifest list says of a manifest, against its content.
fn one(view: &View, manifest: &Manifest, path: &str, audit: &mut Audit) {
    let todo = "let an engine rewrite the table's manifests, or restore a version before";
    let mut found = |code, what: String| audit.findings.push(Finding::new(code, path, what, todo));
    let list = &manifest.list;
    for (status, word, files, rows) in [
        (
            ManifestStatus::Added,
            "added",
            list.added_files_count,
            list.added_rows_count,
        ),
        (
            ManifestStatus::Existing,
            "existing",
            list.existing_files_count,
            list.existing_rows_count,
        ),
        (
            ManifestStatus::Deleted,
            "deleted",
            list.deleted_files_count,
            list.deleted_rows_count,
        ),
    ] {
        let entries = manifest.entries.iter().filter(|entry| entry.status == status);
        let (n, sum) = entries.fold((0u64, 0u64), |(n, sum), entry| {
            (n + 1, sum.saturating_add(entry.file.record_count()))
        });
        if files.is_some_and(|files| u64::from(files) != n) {
            found(
                Code::ManifestCounts,
                format!(
                    "the list counts {} {word} files, it has {n}",
                    files.unwrap_or_default()
                ),
            );
        }
        if rows.is_some_and(|rows| rows != sum) {
            found(
                Code::ManifestCounts,
                format!(
                    "the list counts {} rows of {word} files, they have {sum}",
                    rows.unwrap_or_default()
                ),
            );
        }
    }
    let live = || manifest.entries.iter().filter(|entry| entry.is_live());
    if let Some(least) = live().map(|entry| entry.sequence).min()
        && list.min_sequence_number > least
    {
        found(
            Code::ManifestSequence,
            format!(
                "the list says that no file is older than sequence number {}, one has {least}",
                list.min_sequence_number
            ),
        );
    }
    if let Some(most) = live().map(|entry| entry.sequence).max()
        && most > list.sequence_number
    {
        found(
            Code::ManifestSequence,
            format!(
                "it has sequence number {}, a file in it {most}",
                list.sequence_number
            ),
        );
    }
    if let Some(snapshot) = &view.snapshot
        && list.sequence_number > snapshot.sequence_number()
    {
        found(
            Code::ManifestSequence,
            format!(
                "it has sequence number {}, the version {}",
                list.sequence_number,
                snapshot.sequence_number()
            ),
        );
    }
    if let Some(what) = beyond(manifest, list) {
        found(Code::ManifestBounds, what);
    }
}

/// A partition value that the manifest list's bounds do not hold.
fn beyond(manifest: &Manifest, list: &ManifestFile) -> Option<String> {
    let ranges = ranges(list, &manifest.types)?;
    for entry in manifest.entries.iter().filter(|entry| entry.is_live()) {
        // What cannot be read is told where data files are listed.
        let values = partition_of(&entry.file, &manifest.types, &list.manifest_path).ok()?;
        for ((value, range), field) in values.iter().zip(&ranges).zip(manifest.spec.fields()) {
            let Some(range) = range else { continue };
            let less =
                |a: &ScalarValue, b: &ScalarValue| a.partial_cmp(b).is_some_and(std::cmp::Ordering::is_lt);
            let outside = match value.is_null() {
                true => !range.has_null,
                false => {
                    range.min.as_ref().is_none_or(|min| less(value, min))
                        || range.max.as_ref().is_none_or(|max| less(max, value))
                }
            };
            if outside {
                return Some(format!(
                    "a file has {} = {value}, which lies outside of the bounds in the list",
                    field.name
                ));
            }
        }
    }
    None
}

fn count(entry: &Entry, totals: &mut Totals) {
    let file = &entry.file;
    let mut add = |key, by: u64| {
        let total: &mut u64 = totals.entry(key).or_default();
        *total = total.saturating_add(by);
    };
    let vector = file
        .content_size_in_bytes()
        .and_then(|bytes| u64::try_from(bytes).ok());
    add("total-files-size", vector.unwrap_or(file.file_size_in_bytes()));
    match file.content_type() {
        DataContentType::Data => {
            add("total-data-files", 1);
            add("total-records", file.record_count());
        }
        DataContentType::PositionDeletes => {
            add("total-delete-files", 1);
            add("total-position-deletes", file.record_count());
        }
        DataContentType::EqualityDeletes => {
            add("total-delete-files", 1);
            add("total-equality-deletes", file.record_count());
        }
    }
}

/// Delete files are objects of their own; a data file has one deletion vector at most.
fn vector(view: &View, entry: &Entry, path: &str, vectors: &mut HashMap<String, u64>, audit: &mut Audit) {
    let file = &entry.file;
    if file.content_type() == DataContentType::Data {
        vectors.remove(file.file_path());
        return;
    }
    if let Ok(path) = view.state.paths.relative(file.file_path()) {
        audit.needed.push(NeededObject {
            path,
            bytes: Some(file.file_size_in_bytes()),
            code: Code::FileMissing,
        });
    }
    let target = file.referenced_data_file();
    let Some(target) = target.filter(|_| file.file_format() == DataFileFormat::Puffin) else {
        return;
    };
    let count = vectors.entry(target.clone()).or_default();
    *count += 1;
    if *count == 2 {
        audit.findings.push(Finding::new(
            Code::MaskTwice,
            view.state.paths.relative(&target).unwrap_or(target),
            format!("it has two deletion vectors, the second is named by {path}"),
            "readers take one of them: restore a version before, or rewrite the file with the rows that should be there",
        ));
    }
}

fn summary(view: &View, totals: &Totals, audit: &mut Audit) {
    let Some(snapshot) = &view.snapshot else { return };
    let said = &snapshot.summary().additional_properties;
    for key in [
        "total-records",
        "total-data-files",
        "total-delete-files",
        "total-position-deletes",
        "total-equality-deletes",
        "total-files-size",
    ] {
        let truth = totals.get(key).copied().unwrap_or(0);
        let Some(text) = said.get(key) else { continue };
        if text.parse::<u64>() != Ok(truth) {
            audit.findings.push(Finding::new(
                Code::SummaryTotal,
                view.state
                    .paths
                    .relative(snapshot.manifest_list())
                    .unwrap_or_default(),
                format!(
                    "the summary of version {} says {key} = {text}, it is {truth}",
                    snapshot.snapshot_id()
                ),
                "later versions go on from it; readers that trust it count wrongly",
            ));
        }
    }
}
