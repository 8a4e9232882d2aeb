//! Files that appear in a folder, each committed once and then moved out of the way (`aside.rs`).

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use super::aside::{Batch, Found, Stamp, State};
use super::{Commits, Event, Stream, Streamed, Told};
use crate::commit::newest;
use crate::error::{Error, Result, io_kind};
use crate::format::Handle;
use crate::operations::{InputFormat, Options, Rows, append};
use crate::store::clock;

/// Files of one commit: as many, and as many bytes.
const MOST_FILES: usize = 1000;
const MOST_BYTES: u64 = 1 << 30;
/// The folder is looked at this often at least.
const LOOK: Duration = Duration::from_secs(1);
/// How often rows are committed where nobody says.
const EVERY: Duration = Duration::from_secs(10);

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
/// not), each file once: also when it was killed in between, when the reply to a commit was lost, and when a file is
/// renamed or replaced meanwhile. Folders in it, names that begin with `.` or `_` and unfinished ones (`.tmp`, `.part`,
/// `.partial`, `.crdownload`, `.inprogress`) are left alone. What cannot be added goes to `.lake/refused`, with the
/// reason beside it, and the others go on. [`Stream::key`] and [`Stream::rows`] are not used: the folder has a name of
/// its own.
///
/// # Errors
/// What stops all files: the table cannot be written or read, or its store. [`Error::Conflict`] if somebody else
/// watches the folder, or another run of its stream has come further; then files that are not committed are back in it.
/// Files of which it is not known whether an earlier run committed them before that other one are refused.
pub async fn append_folder(
    handle: &Handle,
    folder: &Folder,
    stream: &Stream,
    options: &Options,
    told: &mut Told<'_>,
) -> Result<Streamed> {
    let mut told = |event: &Event<'_>| told(event);
    let state = State::open(&folder.path)?;
    let commits = Commits::begin(handle, stream, Some(&state.key), options, &mut told).await?;
    let mut watch = Watch {
        folder,
        state: &state,
        commits,
        together: MOST_FILES,
    };
    watch.take_up().await?;
    let every = stream.time.unwrap_or(EVERY);
    let settle_ms = millis(folder.settle);
    let mut seen: BTreeMap<OsString, Seen> = BTreeMap::new();
    let mut committed_ms = clock::now_ms() - millis(every);
    while !watch.commits.is_over() {
        let now = clock::now_ms();
        let there = state.list()?;
        seen.retain(|name, _| there.contains_key(name));
        for (name, found) in there {
            match seen.get(&name) {
                Some(known) if known.found.stamp == found.stamp => {}
                _ => drop(seen.insert(name, Seen { found, since_ms: now })),
            }
        }
        let settled = seen.iter().filter(|(_, seen)| now - seen.since_ms >= settle_ms);
        let (strays, files): (Vec<_>, Vec<_>) = settled.partition(|(_, seen)| seen.found.stray.is_some());
        for (name, stray) in strays {
            watch.refuse(None, name, stray.found.stray.unwrap_or_default())?;
        }
        let files = files
            .into_iter()
            .map(|(name, seen)| (name.clone(), seen.found.stamp));
        let names = choose(files.collect(), watch.together);
        let is_due = folder.drain || now - committed_ms >= millis(every);
        if !names.is_empty() && is_due {
            let batch = state.take(watch.commits.last(), names)?;
            watch.commit(batch).await?;
            committed_ms = now;
            continue;
        }
        if folder.drain && state.list()?.is_empty() {
            break;
        }
        let look = LOOK.min(every).min(folder.settle.max(Duration::from_millis(20)));
        tokio::select! {
            () = clock::pause(look) => {}
            () = stream.asked_to_end() => {}
        }
    }
    Ok(watch.commits.done)
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

struct Seen {
    found: Found,
    since_ms: i64,
}

/// The oldest of these files, as many as one commit takes.
fn choose(mut settled: Vec<(OsString, Stamp)>, most: usize) -> Vec<(OsString, Stamp)> {
    settled.sort_by(|(name, stamp), (other, others)| {
        (stamp.modified_ns, name).cmp(&(others.modified_ns, other))
    });
    let mut bytes = 0;
    let fitting = settled.into_iter().take(most).take_while(|(_, stamp)| {
        let first = bytes == 0;
        bytes += stamp.bytes.max(1);
        first || bytes <= MOST_BYTES
    });
    fitting.collect()
}

/// Commits batch after batch.
struct Watch<'a> {
    folder: &'a Folder,
    state: &'a State,
    commits: Commits<'a>,
    /// Files of the next batch at most: fewer after some that did not go together.
    together: usize,
}

impl Watch<'_> {
    /// Brings to an end what an earlier run began.
    async fn take_up(&mut self) -> Result<()> {
        for mut batch in self.state.left()? {
            if self.commits.is_over() {
                break;
            }
            let last = self.commits.last();
            if batch.step == last || batch.files.is_empty() {
                self.state.finish(&batch, self.folder.remove)?;
            } else if batch.step > last {
                self.commit(batch).await?;
            } else {
                // Whether the step was committed before, the table does not tell. To stop here would be to stop each time.
                let reason = format!(
                    "another run of this stream came further (step {last}) while this file was being committed in step {}: \
                     nobody knows whether the table has its rows. Look for them there; if they are missing, move the file \
                     back into {} to add it",
                    batch.step,
                    self.folder.path.display()
                );
                for name in batch.files.keys().cloned().collect::<Vec<_>>() {
                    self.refuse(Some(&mut batch), &name, &reason)?;
                }
                self.state.finish(&batch, self.folder.remove)?;
            }
        }
        Ok(())
    }

    /// Commits the files of a batch that can be, and moves all of them away.
    async fn commit(&mut self, mut batch: Batch) -> Result<()> {
        loop {
            let inputs = self.open(&mut batch)?;
            if batch.files.is_empty() {
                return self.state.finish(&batch, self.folder.remove);
            }
            let rows = Rows::several(inputs);
            let Err(error) = self.commits.commit(rows, batch.step).await else {
                break;
            };
            match error {
                // Certainly not committed, and not to be.
                Error::Conflict { .. } => {
                    self.state.put_back(&mut batch, 0)?;
                    return Err(error);
                }
                // Not known, or nothing that a file could be to blame for: the next run goes on with the batch.
                Error::CommitUnknown { .. } | Error::Store { .. } => return Err(error),
                error => self.sort_out(&mut batch, error).await?,
            }
        }
        self.together = (self.together * 2).min(MOST_FILES);
        // Who still writes to a file has it open, wherever it was moved.
        let written: Vec<_> = (batch.files.iter())
            .filter(|(name, stamp)| Stamp::of(&batch.folder.join(name)).ok().as_ref() != Some(*stamp))
            .map(|(name, _)| name.clone())
            .collect();
        for name in written {
            let reason = "it was written to while it was being committed: the table has its rows as they were then, \
                          and not those that came since. Write files elsewhere and move them here, or give --settle \
                          more time";
            self.refuse(Some(&mut batch), &name, reason)?;
        }
        self.state.finish(&batch, self.folder.remove)
    }

    /// The files as inputs; what none can be made of is set aside.
    fn open(&mut self, batch: &mut Batch) -> Result<Vec<Rows>> {
        let mut inputs = Vec::new();
        for name in batch.files.keys().cloned().collect::<Vec<_>>() {
            match Rows::file(batch.folder.join(&name), self.folder.format) {
                Ok(rows) => inputs.push(rows),
                Err(error) => self.refuse(Some(batch), &name, &told(&error))?,
            }
        }
        Ok(inputs)
    }

    /// After a batch failed: sets aside the files that fail on their own.
    ///
    /// # Errors
    /// The error itself, where no file is to blame.
    async fn sort_out(&mut self, batch: &mut Batch, error: Error) -> Result<()> {
        let handle = self.commits.handle;
        let table = newest(handle, self.commits.options.branch.as_deref()).await;
        if table.is_ok_and(|table| handle.format.check_writable(&table).is_ok()) {
            let options = Options {
                token: None,
                dry_run: true,
                ..self.commits.options.clone()
            };
            let before = batch.files.len();
            for name in batch.files.keys().cloned().collect::<Vec<_>>() {
                let rows = Rows::file(batch.folder.join(&name), self.folder.format)?;
                match append(handle, rows, &options).await {
                    Err(error) if is_of_rows(&error) => {
                        self.refuse(Some(batch), &name, &told(&error))?;
                    }
                    _ => {}
                }
            }
            if batch.files.len() < before {
                return Ok(());
            }
            if before > 1 {
                // They do not go together: one after the other.
                self.together = 1;
                return self.state.put_back(batch, 1);
            }
        }
        self.state.put_back(batch, 0)?;
        Err(error)
    }

    /// Moves something out of the way that cannot be added, and tells of it.
    fn refuse(&mut self, batch: Option<&mut Batch>, name: &OsStr, reason: &str) -> Result<()> {
        let (path, reason) = self.state.refuse(batch, name, reason)?;
        self.commits.done.set_aside += 1;
        self.commits.tell(&Event::SetAside {
            name: &name.to_string_lossy(),
            path: &path,
            reason: &reason,
        });
        Ok(())
    }
}

/// Whether an error is about the rows, and not about where they are to go.
fn is_of_rows(error: &Error) -> bool {
    match error {
        Error::Invalid { .. } | Error::Unsupported { .. } | Error::Limit { .. } | Error::NotFound { .. } => {
            true
        }
        // The file cannot be opened.
        Error::Denied { what } => what.starts_with("reading "),
        Error::Engine(error) => io_kind(error.as_ref()).is_none(),
        _ => false,
    }
}

fn told(error: &Error) -> String {
    match error.hint() {
        Some(hint) => format!("{error}: {hint}"),
        None => error.to_string(),
    }
}
