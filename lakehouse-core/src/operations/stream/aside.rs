//! What a watched folder keeps beside its files.
//!
//! ```text
//! DIR/part-1.parquet                     waits, until it has not changed for a while
//! DIR/.lake/stream                       the name of the stream in the table
//! DIR/.lake/step-1750000000000000/..     the files of that step, which is being committed
//! DIR/.lake/done/part-0.parquet          committed
//! DIR/.lake/refused/part-x.parquet       cannot be added: part-x.parquet.reason.txt says why
//! DIR/.lake/lock                         held by who watches
//! ```
//!
//! Files are moved into a step's folder before they are read, so that whatever happens to the names in `DIR` since is about
//! other files. The number of a step is the time and a random rest: nobody else's step has it. So who starts and finds
//! such a folder knows from the last step of the table what it is: if they are equal it was committed, if the table
//! is behind it was not. If the table is further, another run of the stream came in between, and nobody knows: such files are
//! refused, for somebody to look at. Each move is on disk, in both folders, before what follows from it.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use crate::error::{Error, Result};
use crate::store::clock;

/// Where the state of a watched folder is kept, inside of it.
const STATE: &str = ".lake";
/// Folders of steps begin so.
const STEP: &str = "step-";
/// Endings of names of files that are still being written.
const UNFINISHED: [&str; 5] = [".tmp", ".part", ".partial", ".crdownload", ".inprogress"];

/// What tells one content of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Stamp {
    /// Since 1970 UTC, in nanoseconds, by the file system.
    pub(super) modified_ns: u64,
    pub(super) bytes: u64,
}

impl Stamp {
    /// Of a file, also behind a link.
    pub(super) fn of(path: &Path) -> io::Result<Self> {
        Ok(Self::from(&fs::metadata(path)?))
    }

    fn from(metadata: &fs::Metadata) -> Self {
        let modified = metadata.modified().ok();
        let modified = modified.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
        Self {
            modified_ns: u64::try_from(modified.unwrap_or_default().as_nanos()).unwrap_or(u64::MAX),
            bytes: metadata.len(),
        }
    }
}

/// Something that lies in the folder.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) stamp: Stamp,
    /// Why it can be no file of a batch, if it cannot.
    pub(super) stray: Option<&'static str>,
}

/// The files of one step.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) step: u64,
    /// Where they are.
    pub(super) folder: PathBuf,
    /// As they were when they were moved there.
    pub(super) files: BTreeMap<OsString, Stamp>,
}

/// The folder, and what is kept in it.
pub(super) struct State {
    folder: PathBuf,
    at: PathBuf,
    pub(super) key: String,
    /// Held until this is dropped.
    lock: File,
}

impl State {
    pub(super) fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::not_found("folder to watch", folder.display().to_string()));
        }
        let at = folder.join(STATE);
        for inner in ["done", "refused"] {
            fs::create_dir_all(at.join(inner)).map_err(cannot("make", &at))?;
        }
        sync(&at)?;
        sync(folder)?;
        let lock = at.join("lock");
        let lock = File::create(&lock).map_err(cannot("make", &lock))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Conflict {
                    table: folder.display().to_string(),
                    detail: "somebody else watches this folder".to_owned(),
                });
            }
            Err(TryLockError::Error(error)) => return Err(cannot("lock", &at)(error)),
        }
        let mut state = Self {
            folder: folder.to_owned(),
            at,
            key: String::new(),
            lock,
        };
        state.key = state.stream()?;
        Ok(state)
    }

    /// The name of the stream, made up the first time.
    fn stream(&self) -> Result<String> {
        let path = self.at.join("stream");
        match fs::read_to_string(&path) {
            Ok(key) => return Ok(key.trim().to_owned()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot("read", &path)(error)),
        }
        let key = format!("folder-{}", clock::new_name());
        self.write(&path, key.as_bytes())?;
        Ok(key)
    }

    /// The batches that an earlier run left, in their order.
    pub(super) fn left(&self) -> Result<Vec<Batch>> {
        let mut left = Vec::new();
        for entry in fs::read_dir(&self.at).map_err(cannot("read", &self.at))? {
            let folder = entry.map_err(cannot("read", &self.at))?.path();
            let name = folder.file_name().and_then(OsStr::to_str).unwrap_or_default();
            let Some(step) = name.strip_prefix(STEP).and_then(|step| step.parse().ok()) else {
                continue;
            };
            let mut files = BTreeMap::new();
            for entry in fs::read_dir(&folder).map_err(cannot("read", &folder))? {
                let path = entry.map_err(cannot("read", &folder))?.path();
                let stamp = Stamp::of(&path).map_err(cannot("look at", &path))?;
                files.extend(path.file_name().map(|name| (name.to_owned(), stamp)));
            }
            left.push(Batch { step, folder, files });
        }
        left.sort_by_key(|batch| batch.step);
        Ok(left)
    }

    /// What lies in the folder and may be complete, by name.
    pub(super) fn list(&self) -> Result<BTreeMap<OsString, Found>> {
        let mut all = BTreeMap::new();
        for entry in fs::read_dir(&self.folder).map_err(cannot("read", &self.folder))? {
            let path = entry.map_err(cannot("read", &self.folder))?.path();
            let Some(name) = path.file_name() else { continue };
            let text = name.to_string_lossy();
            if text.starts_with(['.', '_']) || UNFINISHED.iter().any(|ending| text.ends_with(ending)) {
                continue;
            }
            match found(&path) {
                Ok(Some(found)) => drop(all.insert(name.to_owned(), found)),
                Ok(None) => {}
                // It was moved away since.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(cannot("look at", &path)(error)),
            }
        }
        Ok(all)
    }

    /// Moves files into the folder of a new step after `last`. What is gone, or not what it was, is left out.
    pub(super) fn take(&self, last: u64, names: Vec<(OsString, Stamp)>) -> Result<Batch> {
        let now = u64::try_from(clock::now_ms()).unwrap_or(0).saturating_mul(1000);
        let rest = clock::new_snapshot_id().unsigned_abs() % 1000;
        let step = (now + rest).max(last + 1);
        let folder = self.at.join(format!("{STEP}{step}"));
        fs::create_dir(&folder).map_err(cannot("make", &folder))?;
        let mut batch = Batch {
            step,
            folder,
            files: BTreeMap::new(),
        };
        for (name, stamp) in names {
            let (from, to) = (self.folder.join(&name), batch.folder.join(&name));
            match fs::rename(&from, &to) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                moved => moved.map_err(cannot("move", &from))?,
            }
            if Stamp::of(&to).is_ok_and(|found| found == stamp) {
                batch.files.insert(name, stamp);
            } else {
                self.back(&to, &name, step)?;
            }
        }
        sync(&batch.folder)?;
        sync(&self.at)?;
        sync(&self.folder)?;
        Ok(batch)
    }

    /// Moves files of a batch that is not committed back to where they were.
    pub(super) fn put_back(&self, batch: &mut Batch, leave: usize) -> Result<()> {
        while batch.files.len() > leave {
            let Some((name, _)) = batch.files.pop_last() else {
                break;
            };
            self.back(&batch.folder.join(&name), &name, batch.step)?;
        }
        sync(&self.folder)?;
        sync(&batch.folder)?;
        match batch.files.is_empty() {
            true => self.forget(batch),
            false => Ok(()),
        }
    }

    fn back(&self, from: &Path, name: &OsStr, step: u64) -> Result<()> {
        let mut to = self.folder.join(name);
        if to.symlink_metadata().is_ok() {
            // Another file has the name by now. The ending tells the format.
            let mut other = OsString::from(format!("{step}-"));
            other.push(name);
            to = self.folder.join(other);
        }
        fs::rename(from, &to).map_err(cannot("move", from))
    }

    /// Moves the files of a committed batch out of the way.
    pub(super) fn finish(&self, batch: &Batch, remove: bool) -> Result<()> {
        for name in batch.files.keys() {
            let path = batch.folder.join(name);
            if remove {
                fs::remove_file(&path).map_err(cannot("remove", &path))?;
            } else {
                let to = free(&self.at.join("done"), name, batch.step);
                fs::rename(&path, &to).map_err(cannot("move", &path))?;
            }
        }
        sync(&self.at.join("done"))?;
        sync(&batch.folder)?;
        self.forget(batch)
    }

    /// Removes the folder of a batch, which is empty.
    fn forget(&self, batch: &Batch) -> Result<()> {
        fs::remove_dir(&batch.folder).map_err(cannot("remove", &batch.folder))?;
        sync(&self.at)
    }

    /// Moves a file of a batch, or what lies in the watched folder (`None`), to where it is in nobody's way, with the
    /// reason beside it; returns where it is, and the reason. Where that names the file, it is by where it is from now on.
    pub(super) fn refuse(
        &self,
        batch: Option<&mut Batch>,
        name: &OsStr,
        reason: &str,
    ) -> Result<(PathBuf, String)> {
        let (folder, step) = match &batch {
            Some(batch) => (batch.folder.clone(), batch.step),
            None => (self.folder.clone(), u64::try_from(clock::now_ms()).unwrap_or(0)),
        };
        let refused = self.at.join("refused");
        let to = free(&refused, name, step);
        let mut note = to.clone().into_os_string();
        note.push(".reason.txt");
        let from = folder.join(name);
        let reason = renamed(reason, &from, &to);
        self.write(Path::new(&note), format!("{reason}\n").as_bytes())?;
        fs::rename(&from, &to).map_err(cannot("move", &from))?;
        sync(&refused)?;
        sync(&folder)?;
        if let Some(batch) = batch {
            batch.files.remove(name);
        }
        Ok((to, reason))
    }

    /// Whole or not at all, also if the machine stops.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let folder = path.parent().unwrap_or(&self.at);
        let written = || {
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            File::open(folder)?.sync_all()
        };
        written().map_err(cannot("write", path))
    }
}

impl Drop for State {
    fn drop(&mut self) {
        // Closing it is not enough while a process that was forked meanwhile has it, too.
        drop(self.lock.unlock());
    }
}

/// What a path of the folder is; `None` for what is left alone.
fn found(path: &Path) -> io::Result<Option<Found>> {
    let (link, metadata) = (fs::symlink_metadata(path)?, fs::metadata(path)?);
    let stamp = Stamp::from(&metadata);
    let stray = if metadata.is_dir() {
        match crate::operations::InputFormat::of_name(path).is_some() {
            true => Some("it is a folder, and has the name of a file: move the files in it here"),
            false => return Ok(None),
        }
    } else if !metadata.is_file() {
        return Ok(None);
    } else if link.is_symlink() && fs::read_link(path)?.is_relative() {
        Some(
            "it is a link that leads nowhere once it is moved: link to the whole path, or move the file here",
        )
    } else if path.file_name().and_then(OsStr::to_str).is_none() {
        Some("its name is not UTF-8: give it another")
    } else {
        None
    };
    Ok(Some(Found { stamp, stray }))
}

/// The name in a folder, or one with the step behind it where it is taken.
fn free(folder: &Path, name: &OsStr, step: u64) -> PathBuf {
    let mut to = folder.join(name);
    let mut more = 0;
    while to.symlink_metadata().is_ok() {
        let mut other = name.to_owned();
        other.push(match more {
            0 => format!(".{step}"),
            more => format!(".{step}-{more}"),
        });
        to = folder.join(other);
        more += 1;
    }
    to
}

/// A text in which a file is named by where it is now, also as stores and engines spell it: the whole path, without the
/// slash that it begins with.
fn renamed(text: &str, from: &Path, to: &Path) -> String {
    let spelled = |path: &Path| path.display().to_string();
    let whole = |path: &Path| {
        let folder = path.parent().and_then(|folder| folder.canonicalize().ok())?;
        Some(spelled(&folder.join(path.file_name()?)))
    };
    let text = text.replace(&spelled(from), &spelled(to));
    match (whole(from), whole(to)) {
        (Some(from), Some(to)) => text.replace(from.trim_start_matches('/'), to.trim_start_matches('/')),
        _ => text,
    }
}

/// Waits until the names in a folder are on disk.
fn sync(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|folder| folder.sync_all());
    synced.map_err(cannot("sync", folder))
}

pub(super) fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let place = path.display().to_string();
    move |error| Error::invalid(format!("cannot {action} it: {error}"), place)
}
