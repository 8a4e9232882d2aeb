//! How groups of files are rewritten.

use super::Compact;
use super::plan::Group;
use crate::error::{Error, Result};
use crate::model::{DataFile, RowMask};
use crate::operations::moving::move_rows;
use crate::operations::work::Work;
use crate::scan::read_file_masks;

/// Rewrites the groups of one lot: their visible rows go to new files, the old files are removed.
///
/// # Errors
/// When the number of rows would change; those of reading and writing.
pub(super) async fn rewrite(work: &mut Work, compact: &Compact, lot: Vec<Group>) -> Result<()> {
    work.begin("write");
    let files: Vec<DataFile> = lot.into_iter().flat_map(|group| group.files).collect();
    let hidden = read_file_masks(&work.handle, &work.snapshot, &files).await?;
    let read = write_rows(work, compact, files.iter().cloned().zip(hidden).collect()).await?;
    let written = work.finish_files().await?;
    if written != read {
        return Err(Error::invalid(
            format!("compaction would change the number of rows: {read} were read, {written} written"),
            files.first().map_or("", |f| f.path.as_str()),
        )
        .with_hint("nothing was committed; the metadata of these files does not agree with their content"));
    }
    work.change.removed.extend(files);
    Ok(())
}

/// Writes the rows of these files that are not hidden to new files; returns how many. The one place that decides in
/// which order rows are written: here, that of the files and of the rows in each.
async fn write_rows(work: &mut Work, _compact: &Compact, files: Vec<(DataFile, RowMask)>) -> Result<u64> {
    move_rows(work, files, None).await
}
