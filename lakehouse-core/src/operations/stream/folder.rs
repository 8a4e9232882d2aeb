//! Files that appear in a folder, each committed once and then moved out of the way.
//!
//! ```text
//! DIR/part-1.parquet              waits, until it has not changed for a while
//! DIR/.lake/stream                the name of the stream in the table
//! DIR/.lake/batch.json            the files of the step that is being committed
//! DIR/.lake/done/part-0.parquet   committed
//! DIR/.lake/lock                  held by who watches
//! ```
//!
//! A batch is noted before it is committed. Who starts and finds one asks the table whether it has that step: then its
//! files are moved away now, else the note is worth nothing.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Commits, Stream, Streamed, Told};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::operations::{InputFormat, Options, Rows};
use crate::store::clock;

/// Where the state of a watched folder is kept, inside of it.
const STATE: &str = ".lake";
/// Files of one commit: as many, and as many bytes.
const MOST_FILES: usize = 1000;
const MOST_BYTES: u64 = 1 << 30;
/// The folder is looked at this often at least.
const LOOK: Duration = Duration::from_secs(1);
/// How often rows are committed where nobody says.
const EVERY: Duration = Duration::from_secs(10);
/// Endings of names of files that are still being written.
const UNFINISHED: [&str; 5] = [".tmp", ".part", ".partial", ".crdownload", ".inprogress"];

/// A folder of this machine that is watched.
#[derive(Debug, Clone)]
pub struct Folder {
    /// Where it is.
    pub path: PathBuf,
    /// What its files are; `None` if their names tell.
    pub format: Option<InputFormat>,
    /// A file that has not changed for so long is complete.
    pub settle: Duration,
    /// End when no file is left, instead of waiting for more.
    pub drain: bool,
    /// Remove committed files, instead of moving them to `.lake/done`.
    pub remove: bool,
}

/// Adds the rows of the files that appear in a folder, as often as [`Stream::time`] says (every ten seconds, if it does
/// not), each file once: also when it was killed in between, and when the reply to a commit was lost. Folders in it,
/// names that begin with `.` or `_` and unfinished ones (`.tmp`, `.part`, `.partial`, `.crdownload`, `.inprogress`)
/// are left alone. [`Stream::key`] and [`Stream::rows`] are not used: the folder has a name of its own.
///
/// # Errors
/// Those of [`crate::operations::append`]: a file whose rows do not fit ends it, nothing of its batch is committed.
/// [`Error::Conflict`] if somebody else watches the folder.
pub async fn append_folder(
    handle: &Handle,
    folder: &Folder,
    stream: &Stream,
    options: &Options,
    told: &mut Told<'_>,
) -> Result<Streamed> {
    let mut told = |report: &_| told(report);
    let mut commits = Commits::new(handle, stream, options, &mut told);
    let state = State::open(&folder.path)?;
    let mut step = commits.last_step(&state.key).await?;
    state.take_up(step, folder.remove)?;
    let every = stream.time.unwrap_or(EVERY);
    let settle_ms = millis(folder.settle);
    let mut seen: BTreeMap<String, Seen> = BTreeMap::new();
    let mut committed_ms = clock::now_ms() - millis(every);
    while !commits.stopped {
        let now = clock::now_ms();
        let there = list(&folder.path)?;
        seen.retain(|name, _| there.contains_key(name));
        for (name, stamp) in there {
            match seen.get(&name) {
                Some(known) if known.stamp == stamp => {}
                _ => drop(seen.insert(name, Seen { stamp, since_ms: now })),
            }
        }
        let settled = seen.iter().filter(|(_, seen)| now - seen.since_ms >= settle_ms);
        let batch = batch(settled.map(|(name, seen)| (name.clone(), seen.stamp)).collect());
        let is_due = folder.drain || now - committed_ms >= millis(every);
        if !batch.is_empty() && is_due {
            step += 1;
            let inputs = batch
                .iter()
                .map(|(name, _)| Rows::file(folder.path.join(name), folder.format));
            let rows = Rows::several(inputs.collect::<Result<_>>()?);
            let note = Batch { step, files: batch };
            state.note(&note)?;
            let committed = commits.commit(rows, Some(&state.key), step).await;
            if let Err(Error::Conflict { .. }) = &committed {
                // The table may have this step by another run, which had other files.
                state.forget()?;
            }
            committed.map_err(|error| with_files(error, &note.files, &folder.path))?;
            state.finish(&note, folder.remove)?;
            committed_ms = now;
            continue;
        }
        if folder.drain && seen.is_empty() {
            break;
        }
        let look = LOOK.min(every).min(folder.settle.max(Duration::from_millis(20)));
        clock::pause(look).await;
    }
    Ok(commits.done)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

fn with_files(error: Error, files: &[(String, Stamp)], folder: &Path) -> Error {
    let hint = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
    let first = files.first().map_or("", |(name, _)| name);
    let which = match files.len() {
        1 => first.to_owned(),
        more => format!("{more} files from {first} on"),
    };
    error.with_hint(format!(
        "{hint}nothing of {which} in {} was committed: mend the file or move it out of the folder, and start again",
        folder.display()
    ))
}

/// What tells one content of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Stamp {
    /// Since 1970 UTC, in nanoseconds, by the file system.
    modified_ns: u64,
    bytes: u64,
}

struct Seen {
    stamp: Stamp,
    since_ms: i64,
}

/// The oldest of these files, as many as one commit takes.
fn batch(mut settled: Vec<(String, Stamp)>) -> Vec<(String, Stamp)> {
    settled.sort_by(|(name, stamp), (other, others)| {
        (stamp.modified_ns, name).cmp(&(others.modified_ns, other))
    });
    let mut bytes = 0;
    let fitting = settled.into_iter().take(MOST_FILES).take_while(|(_, stamp)| {
        let first = bytes == 0;
        bytes += stamp.bytes.max(1);
        first || bytes <= MOST_BYTES
    });
    fitting.collect()
}

/// The files in a folder that may be complete.
fn list(folder: &Path) -> Result<BTreeMap<String, Stamp>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(cannot("read", folder))? {
        let entry = entry.map_err(cannot("read", folder))?;
        let path = entry.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            return Err(
                Error::invalid("the name of a file is not UTF-8", path.display().to_string())
                    .with_hint("give it another name"),
            );
        };
        if name.starts_with(['.', '_']) || UNFINISHED.iter().any(|ending| name.ends_with(ending)) {
            continue;
        }
        match stamp(&path) {
            Ok(Some(stamp)) => drop(found.insert(name.to_owned(), stamp)),
            Ok(None) => {}
            // It was moved away since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot("look at", &path)(error)),
        }
    }
    Ok(found)
}

/// `None` if it is not a file.
fn stamp(path: &Path) -> io::Result<Option<Stamp>> {
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Ok(None);
    }
    let modified = metadata
        .modified()?
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    Ok(Some(Stamp {
        modified_ns: u64::try_from(modified.as_nanos()).unwrap_or(u64::MAX),
        bytes: metadata.len(),
    }))
}

/// The files of one step.
#[derive(Debug, Serialize, Deserialize)]
struct Batch {
    step: u64,
    files: Vec<(String, Stamp)>,
}

/// What is kept beside the files.
struct State {
    folder: PathBuf,
    at: PathBuf,
    key: String,
    /// Held until this is dropped.
    _lock: File,
}

impl State {
    fn open(folder: &Path) -> Result<Self> {
        if !folder.is_dir() {
            return Err(Error::not_found("folder to watch", folder.display().to_string()));
        }
        let at = folder.join(STATE);
        fs::create_dir_all(at.join("done")).map_err(cannot("make", &at))?;
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
            _lock: lock,
        };
        state.key = match state.read("stream")? {
            Some(key) => key.trim().to_owned(),
            None => {
                let key = format!("folder-{}", clock::new_name());
                state.write("stream", key.as_bytes())?;
                key
            }
        };
        Ok(state)
    }

    /// Moves away what an earlier run had committed, given the last step that the table has.
    fn take_up(&self, last_step: u64, remove: bool) -> Result<()> {
        let Some(text) = self.read("batch.json")? else {
            return Ok(());
        };
        let place = self.at.join("batch.json").display().to_string();
        let batch: Batch = serde_json::from_str(&text).map_err(|error| {
            Error::invalid(format!("the note of a batch cannot be read: {error}"), place).with_hint(
                "look which of the files in the folder the table has, move them away, and remove the note",
            )
        })?;
        if batch.step <= last_step {
            self.finish(&batch, remove)?;
        }
        Ok(())
    }

    fn note(&self, batch: &Batch) -> Result<()> {
        let text = serde_json::to_vec(batch).map_err(|error| Error::invalid(error.to_string(), STATE))?;
        self.write("batch.json", &text)
    }

    /// Moves the files of a batch away, as far as they are what they were, then forgets it.
    fn finish(&self, batch: &Batch, remove: bool) -> Result<()> {
        for (name, noted) in &batch.files {
            let path = self.folder.join(name);
            // Moved by an earlier run, or another file by now.
            if !matches!(stamp(&path), Ok(Some(found)) if found == *noted) {
                continue;
            }
            if remove {
                fs::remove_file(&path).map_err(cannot("remove", &path))?;
                continue;
            }
            let mut done = self.at.join("done").join(name);
            if done.exists() {
                done = self.at.join("done").join(format!("{name}.{}", batch.step));
            }
            fs::rename(&path, &done).map_err(cannot("move", &path))?;
        }
        self.forget()
    }

    fn forget(&self) -> Result<()> {
        let note = self.at.join("batch.json");
        fs::remove_file(&note).map_err(cannot("remove", &note))
    }

    fn read(&self, name: &str) -> Result<Option<String>> {
        let path = self.at.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(cannot("read", &path)(error)),
        }
    }

    /// Whole or not at all, also if the machine stops.
    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.at.join(name);
        let written = || {
            let mut file = tempfile::NamedTempFile::new_in(&self.at)?;
            file.write_all(bytes)?;
            file.as_file().sync_all()?;
            file.persist(&path)?;
            File::open(&self.at)?.sync_all()
        };
        written().map_err(cannot("write", &path))
    }
}

fn cannot(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let place = path.display().to_string();
    move |error| Error::invalid(format!("cannot {action} it: {error}"), place)
}
