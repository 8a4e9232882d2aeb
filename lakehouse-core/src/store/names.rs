//! Names on local disk that a power loss would take back: folders that got names are remembered, and synced before a
//! commit that may refer to them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use object_store::{Error, Result};

use super::local::failed;
#[cfg(test)]
use super::power;

/// Folders with new names in them that are not synced yet, and how many names they got: of the whole
/// process, because one handle may publish what another wrote.
static UNSYNCED: Mutex<BTreeMap<PathBuf, u64>> = Mutex::new(BTreeMap::new());

/// Notes that a folder got a new name, which the next commit makes durable.
pub(super) fn unsynced(folder: Option<&Path>) {
    if let Some(folder) = folder {
        let mut folders = UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner);
        *folders.entry(folder.to_owned()).or_default() += 1;
    }
}

/// Folders that are synced at the same time.
const SYNCED_TOGETHER: usize = 8;

/// Makes every name that this process put below `root` durable, and the names on the way to it, and does something
/// else meanwhile. A disk that is asked for several syncs at once takes hardly longer than for one.
pub(super) fn sync_folders<T>(root: &Path, beside: impl FnOnce() -> Result<T>) -> Result<T> {
    let waiting: Vec<(PathBuf, u64)> = {
        let folders = UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner);
        let ours = folders
            .iter()
            .filter(|(folder, _)| folder.starts_with(root) || root.starts_with(folder));
        ours.map(|(folder, names)| (folder.clone(), *names)).collect()
    };
    let next = AtomicUsize::new(0);
    let sync_some = || {
        while let Some((folder, names)) = waiting.get(next.fetch_add(1, Ordering::Relaxed)) {
            sync_waiting(folder, *names)?;
        }
        Ok::<(), Error>(())
    };
    thread::scope(|scope| {
        let helpers = waiting.len().min(SYNCED_TOGETHER);
        let start = |_| thread::Builder::new().spawn_scoped(scope, sync_some).ok();
        let helpers: Vec<_> = (0..helpers).map(start).collect();
        let result = beside();
        // What is left where no thread could be started.
        sync_some()?;
        for helper in helpers.into_iter().flatten() {
            helper.join().map_err(|_| broken_off())??;
        }
        result
    })
}

/// Syncs a folder that so many names were put into.
fn sync_waiting(folder: &Path, names: u64) -> Result<()> {
    sync_folder(folder)?;
    // Forgotten only now, so that no other commit runs ahead of this sync, and only if no name was added meanwhile.
    let mut folders = UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner);
    if folders.get(folder) == Some(&names) {
        folders.remove(folder);
    }
    Ok(())
}

fn broken_off() -> Error {
    failed(Path::new(""), io::Error::other("syncing a folder was broken off"))
}

fn sync_folder(folder: &Path) -> Result<()> {
    match open_folder(folder)? {
        Some(open) => sync_open(&open, folder).map_err(|error| failed(folder, error)),
        None => Ok(()),
    }
}

/// A folder that can be synced; `None` where there is none, or the system knows no such thing.
pub(super) fn open_folder(folder: &Path) -> Result<Option<File>> {
    if cfg!(not(unix)) {
        return Ok(None);
    }
    match File::open(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        other => other.map(Some).map_err(|error| failed(folder, error)),
    }
}

/// Syncs a folder that was opened, of this path.
pub(super) fn sync_open(folder: &File, _path: &Path) -> io::Result<()> {
    match folder.sync_all() {
        // Some file systems cannot sync a folder and need not.
        Err(error) if matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::Unsupported) => {}
        other => other?,
    }
    #[cfg(test)]
    power::note(power::Event::FolderSynced(_path.to_owned()));
    Ok(())
}

/// Folders below this one that are not synced yet.
#[cfg(test)]
pub(super) fn waiting(root: &Path) -> Vec<PathBuf> {
    let folders = UNSYNCED.lock().unwrap_or_else(PoisonError::into_inner);
    let ours = folders.keys().filter(|folder| folder.starts_with(root));
    ours.cloned().collect()
}
