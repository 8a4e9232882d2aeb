//! Masks: their positions lie in their files, and are as many as the metadata says.

use crate::error::Result;
use crate::format::Handle;
use crate::model::{Code, DataFile, Finding, RowMask, Severity, Snapshot};

/// More rows than any file has: so that masks are read before they are judged.
const ANY_ROWS: u64 = 1 << 50;

/// Reads the masks of these files of a version.
///
/// # Errors
/// Those of the store.
pub(super) async fn check(handle: &Handle, snapshot: &Snapshot, files: &[&DataFile]) -> Result<Vec<Finding>> {
    let asked: Vec<DataFile> = files.iter().map(|file| unjudged(file)).collect();
    if let Ok(masks) = handle.format.masks(snapshot, &asked).await {
        return Ok(files
            .iter()
            .zip(&masks)
            .flat_map(|(file, mask)| judge(file, mask))
            .collect());
    }
    // One of them, or the store: asked one at a time.
    let mut findings = Vec::new();
    for (file, asked) in files.iter().zip(asked) {
        match handle.format.masks(snapshot, &[asked]).await {
            Ok(masks) => findings.extend(masks.iter().flat_map(|mask| judge(file, mask))),
            Err(error) => {
                let path = file
                    .masks
                    .iter()
                    .map(|mask| &mask.path)
                    .find(|path| !path.is_empty());
                findings.push(Finding::of(
                    Code::MaskUnreadable,
                    error,
                    path.unwrap_or(&file.path),
                    "restore the file from a backup, or the table to a version before: without it deleted rows come back",
                )?);
            }
        }
    }
    Ok(findings)
}

/// The file as if nothing were known that its masks could contradict.
fn unjudged(file: &DataFile) -> DataFile {
    let mut file = file.clone();
    file.rows = ANY_ROWS;
    file.masks.iter_mut().for_each(|mask| mask.rows = None);
    file
}

fn judge(file: &DataFile, mask: &RowMask) -> Vec<Finding> {
    let mut findings = Vec::new();
    if let Some(last) = mask.max().filter(|last| *last >= file.rows) {
        findings.push(Finding::new(
            Code::MaskBeyond,
            &file.path,
            format!("row {last} is masked, the file has {} rows", file.rows),
            "restore a version before the mask was written, and delete the rows again",
        ));
    }
    let vectors = file
        .masks
        .iter()
        .filter(|mask| mask.offset.is_some() || mask.inline.is_some())
        .count();
    if vectors > 1 {
        findings.push(Finding::new(
            Code::MaskTwice,
            &file.path,
            format!("it has {vectors} deletion vectors"),
            "restore a version before, or write the rows of the file anew",
        ));
    }
    let recorded: Option<u64> = file
        .masks
        .iter()
        .map(|mask| mask.rows.filter(|_| !mask.shared))
        .sum();
    if let Some(recorded) = recorded.filter(|recorded| *recorded != mask.len()) {
        let mut finding = Finding::new(
            Code::MaskCount,
            &file.path,
            format!(
                "{} of its rows are masked, the metadata says {recorded}",
                mask.len()
            ),
            "readers that count rows by the metadata count wrongly: compact the file, which takes masked rows out of it",
        );
        // Lists of positions may have some of them twice.
        if vectors == 0 && recorded > mask.len() {
            finding.severity = Severity::Note;
        }
        findings.push(finding);
    }
    findings
}
