//! The summary of a snapshot (Iceberg spec, Appendix F, "Optional Snapshot Summary Fields").

use std::collections::{BTreeMap, HashMap, HashSet};

use datafusion::scalar::ScalarValue;
use iceberg::spec::{Operation, Snapshot, Summary};

use crate::model::{Change, DataFile, MaskRef, OperationKind};

/// Summary key: the id of the commit, by which its author finds it again.
pub(super) const COMMIT_ID: &str = "lakehouse.commit-id";
/// Summary key: what the operation was.
pub(super) const OPERATION: &str = "lakehouse.operation";
/// Summary key: the version that a restore brought back.
pub(super) const RESTORED: &str = "lakehouse.restored-version";

/// Summary keys: the stream that the commit is a step of, and the step.
pub(super) const STREAM: &str = "lakehouse.stream";
pub(super) const STEP: &str = "lakehouse.step";

/// What a commit adds and removes, counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    counts: BTreeMap<&'static str, u64>,
    partitions: HashSet<(i32, Vec<ScalarValue>)>,
}

impl Tally {
    pub(super) fn added(&mut self, file: &DataFile) {
        self.count("added-data-files", 1);
        self.count("added-records", file.rows);
        self.count("added-files-size", file.bytes);
        self.touch(file);
    }

    pub(super) fn removed(&mut self, file: &DataFile) {
        self.count("deleted-data-files", 1);
        self.count("deleted-records", file.rows);
        self.count("removed-files-size", file.bytes);
        self.touch(file);
    }

    pub(super) fn mask_added(&mut self, file: &DataFile, mask: &MaskRef) {
        let vector = mask.offset.is_some();
        self.count("added-delete-files", 1);
        self.count(
            if vector {
                "added-dvs"
            } else {
                "added-position-delete-files"
            },
            1,
        );
        self.count("added-position-deletes", mask.rows.unwrap_or(0));
        self.count("added-files-size", mask.bytes.unwrap_or(0));
        self.touch(file);
    }

    pub(super) fn mask_removed(&mut self, file: &DataFile, mask: &MaskRef) {
        let vector = mask.offset.is_some();
        self.count("removed-delete-files", 1);
        self.count(
            if vector {
                "removed-dvs"
            } else {
                "removed-position-delete-files"
            },
            1,
        );
        self.count("removed-position-deletes", mask.rows.unwrap_or(0));
        self.count("removed-files-size", mask.bytes.unwrap_or(0));
        self.touch(file);
    }

    fn count(&mut self, key: &'static str, by: u64) {
        *self.counts.entry(key).or_default() += by;
    }

    fn touch(&mut self, file: &DataFile) {
        self.partitions.insert((file.spec_id, file.partition.clone()));
    }

    fn get(&self, key: &str) -> u64 {
        self.counts.get(key).copied().unwrap_or(0)
    }

    /// The word that the spec has for this mix.
    pub(super) fn operation(&self, change: &Change) -> Operation {
        let adds = self.get("added-data-files") > 0;
        let takes = self.get("deleted-data-files") + self.get("added-delete-files") > 0;
        match change.operation {
            OperationKind::Compact | OperationKind::RewriteManifests => Operation::Replace,
            OperationKind::Restore => Operation::Overwrite,
            _ if takes && adds => Operation::Overwrite,
            _ if takes || self.get("removed-delete-files") > 0 => Operation::Delete,
            _ => Operation::Append,
        }
    }

    /// The summary of the new snapshot. Totals continue those of `parent`; one that it lacks stays out.
    pub(super) fn summary(&self, change: &Change, parent: Option<&Snapshot>) -> Summary {
        let mut fields = described(change);
        fields.extend(
            self.counts
                .iter()
                .map(|(key, count)| ((*key).to_owned(), count.to_string())),
        );
        fields.insert(
            "changed-partition-count".to_owned(),
            self.partitions.len().to_string(),
        );
        for (total, plus, minus) in [
            ("total-data-files", "added-data-files", "deleted-data-files"),
            ("total-records", "added-records", "deleted-records"),
            ("total-files-size", "added-files-size", "removed-files-size"),
            ("total-delete-files", "added-delete-files", "removed-delete-files"),
            (
                "total-position-deletes",
                "added-position-deletes",
                "removed-position-deletes",
            ),
            (
                "total-equality-deletes",
                "added-equality-deletes",
                "removed-equality-deletes",
            ),
        ] {
            let before = match parent {
                None => Some(0),
                Some(parent) => parent
                    .summary()
                    .additional_properties
                    .get(total)
                    .and_then(|text| text.parse::<u64>().ok()),
            };
            if let Some(before) = before {
                let after = before
                    .saturating_add(self.get(plus))
                    .saturating_sub(self.get(minus));
                fields.insert(total.to_owned(), after.to_string());
            }
        }
        Summary {
            operation: self.operation(change),
            additional_properties: fields,
        }
    }
}

/// The summary of a snapshot that brings back `target` (`None`: the empty table).
pub(super) fn restored(change: &Change, target: Option<&Snapshot>) -> Summary {
    let mut fields = described(change);
    match target {
        Some(target) => {
            let totals = target.summary().additional_properties.iter();
            let totals = totals.filter(|(key, _)| key.starts_with("total-"));
            fields.extend(totals.map(|(key, value)| (key.clone(), value.clone())));
        }
        None => {
            let empty = Tally::default().summary(change, None).additional_properties;
            fields.extend(empty.into_iter().filter(|(key, _)| key.starts_with("total-")));
        }
    }
    let version = target.map_or(0, Snapshot::snapshot_id);
    fields.insert(RESTORED.to_owned(), version.to_string());
    Summary {
        operation: Operation::Overwrite,
        additional_properties: fields,
    }
}

fn described(change: &Change) -> HashMap<String, String> {
    let mut fields = HashMap::from([
        (COMMIT_ID.to_owned(), change.commit_id.0.clone()),
        (OPERATION.to_owned(), change.operation.name().to_owned()),
        ("engine-name".to_owned(), "lakehouse".to_owned()),
        ("engine-version".to_owned(), env!("CARGO_PKG_VERSION").to_owned()),
    ]);
    if let Some(token) = &change.token
        && let Some(step) = token.step
    {
        fields.insert(STREAM.to_owned(), token.key.clone());
        fields.insert(STEP.to_owned(), step.to_string());
    }
    for (name, figure) in &change.metrics {
        fields.insert(
            format!("lakehouse.{}", name.replace('_', "-")),
            figure.to_string(),
        );
    }
    fields
}

/// What kind of operation a snapshot was: ours say it, others are told by the spec's word.
pub(super) fn kind(summary: &Summary) -> OperationKind {
    let ours = summary.additional_properties.get(OPERATION).map(String::as_str);
    match (ours, &summary.operation) {
        (Some("append"), _) => OperationKind::Append,
        (Some("overwrite"), _) => OperationKind::Overwrite,
        (Some("delete"), _) => OperationKind::Delete,
        (Some("update"), _) => OperationKind::Update,
        (Some("merge"), _) => OperationKind::Merge,
        (Some("compact"), _) => OperationKind::Compact,
        (Some("rewrite-manifests"), _) => OperationKind::RewriteManifests,
        (Some("restore"), _) => OperationKind::Restore,
        (Some("create"), _) => OperationKind::Create,
        (_, Operation::Append) => OperationKind::Append,
        (_, Operation::Delete) => OperationKind::Delete,
        (_, Operation::Replace) => OperationKind::Compact,
        (_, Operation::Overwrite) => OperationKind::Overwrite,
    }
}
