//! Row groups that are copied while it is still being found out which rows go.
//!
//! Copying waits for the disk, finding out takes the processors: one after the other they take nearly as long as both. Where
//! so many rows are about to change that their files will be written anew, row groups are copied in the background, to files
//! of their own: those of which statistics prove that no row changes, and those of which so few rows are likely to
//! change that they may be masked in the new file, which is done once they are known. If it turns out otherwise, what was
//! copied is thrown away; the decision itself is made as ever, when it is known which rows go.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::task::JoinSet;

use super::decide::Decider;
use super::work::Work;
use crate::error::Result;
use crate::format::Handle;
use crate::model::{DataFile, Prune, RowMask, Snapshot};
use crate::planted::{self, Bug};
use crate::scan::read_footer;
use crate::write::{CopySource, TableWriter, Written};

/// Less is copied in the time that it would take to sync one more file: a new file is worth so many bytes, or a quarter of
/// the size that files shall have if that is less.
const LEAST_BYTES: u64 = 16 << 20;
/// Footers that are held at once, in bytes of memory.
const FOOTERS: usize = 64 << 20;

/// What is guessed of the rows that will go.
pub(super) struct Guess {
    /// How many they are.
    pub(super) rows: u64,
    /// Which part of a file's rows they are, by what is known of the file.
    pub(super) share: Box<dyn Fn(&DataFile) -> f64 + Send + Sync>,
}

/// Copying that is under way.
pub(super) struct Ahead {
    running: JoinSet<Ended>,
    /// It is not wanted any more.
    stop: Arc<AtomicBool>,
}

/// How copying ended, and what must be deleted if that is of no use.
struct Ended {
    copies: Result<Copies>,
    staged: Vec<String>,
}

/// What was copied.
#[derive(Default)]
struct Copies {
    written: Written,
    /// By path of the old file.
    groups: HashMap<String, Vec<Moved>>,
    bytes_read: u64,
}

/// A row group: the positions of its rows, the new file and the position of the first row there.
struct Moved {
    rows: Range<u64>,
    path: String,
    start: u64,
}

/// What is copied from.
struct Job {
    handle: Handle,
    snapshot: Arc<Snapshot>,
    prune: Arc<Prune>,
    guess: Guess,
    decider: Decider,
    files: Vec<DataFile>,
    least_bytes: u64,
    writer: TableWriter,
    stop: Arc<AtomicBool>,
}

impl Work {
    /// Begins to copy the row groups of these files that cannot hold a row that `prune` asks for, and those that are
    /// likely to hold few, if rewriting the files will pay by this guess.
    ///
    /// # Errors
    /// When a property of the table says what cannot be done.
    pub(super) fn copy_ahead(&mut self, prune: &Arc<Prune>, guess: Guess, files: &[DataFile]) -> Result<()> {
        let decider = Decider::new(self.options.strategy, &self.snapshot, self.change.operation)?;
        let rows = files.iter().map(|file| file.rows).sum();
        // Nothing is written twice for a trial, and what is held here beside the join would not be in the memory limit.
        let may = !self.options.dry_run && self.options.memory_limit.is_none() && prune.is_selective();
        if !may || !decider.may_rewrite(rows, guess.rows) {
            return Ok(());
        }
        let writer = self.new_writer()?;
        let unmasked = |file: &&DataFile| {
            let plain = file.masks.is_empty() && file.equality_deletes.is_empty();
            plain && writer.may_copy(file)
        };
        let files: Vec<DataFile> = files.iter().filter(unmasked).cloned().collect();
        let target = self.settings.target_file_bytes(&self.snapshot.properties)?;
        let least_bytes = LEAST_BYTES.min(target / 4);
        if files.iter().map(|file| file.bytes).sum::<u64>() < least_bytes {
            return Ok(());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let job = Job {
            handle: self.handle.clone(),
            snapshot: Arc::clone(&self.snapshot),
            prune: Arc::clone(prune),
            guess,
            decider,
            files,
            least_bytes,
            writer,
            stop: Arc::clone(&stop),
        };
        let mut running = JoinSet::new();
        running.spawn(job.run());
        self.ahead = Some(Ahead { running, stop });
        Ok(())
    }

    /// Of these files, which are going to be written anew without the hidden rows, the rows that were copied ahead: they are
    /// part of the change from now on, but for the hidden ones. Nothing, if that is of no use.
    pub(super) async fn take_ahead(
        &mut self,
        files: &[DataFile],
        hidden: &[RowMask],
        decider: Decider,
    ) -> Vec<RowMask> {
        let mut taken = vec![RowMask::new(); files.len()];
        let Some(ahead) = self.ahead.take() else {
            return taken;
        };
        let Some(Ended { copies, staged }) = ahead.end(false).await else {
            return taken;
        };
        let fitting = copies
            .ok()
            .and_then(|copies| Some((copies.hidden(files, hidden)?, copies)));
        let fitting =
            fitting.filter(|(gone, copies)| *gone == 0 || decider.may_keep(copies.written.rows, *gone));
        let Some((gone, copies)) = fitting else {
            delete_staged(&self.handle, &staged).await;
            return taken;
        };
        for ((file, hidden), taken) in files.iter().zip(hidden).zip(&mut taken) {
            for moved in copies.groups.get(&file.path).into_iter().flatten() {
                self.mask_anew(moved.path.clone(), &hidden.moved(moved.rows.clone(), moved.start));
                taken.insert_range(moved.rows.clone());
            }
        }
        let (rows, groups) = (copies.written.rows - gone, copies.groups.values().map(Vec::len));
        self.count("num_target_row_groups_copied", groups.sum::<usize>() as u64);
        self.count("num_target_rows_copied", rows);
        self.count("num_output_rows", rows);
        self.count("bytes_read", copies.bytes_read);
        self.count("bytes_copied", copies.bytes_read);
        self.change.staged.extend(staged);
        self.change.added.extend(copies.written.files);
        taken
    }

    /// Masks rows of a new file.
    pub(super) fn mask_anew(&mut self, path: String, masked: &RowMask) {
        if !masked.is_empty() && !planted::is(Bug::NewMaskForgotten) {
            self.masked_anew.entry(path).or_default().union(masked);
        }
    }

    /// Ends copying ahead, if it is under way, and removes what it wrote.
    pub(super) async fn drop_ahead(&mut self) {
        if let Some(ahead) = self.ahead.take()
            && let Some(ended) = ahead.end(true).await
        {
            delete_staged(&self.handle, &ended.staged).await;
        }
    }
}

/// Deletes files that nothing was published about.
pub(super) async fn delete_staged(handle: &Handle, staged: &[String]) {
    // What cannot be deleted now is unreferenced, and the next clean-up finds it.
    if !staged.is_empty()
        && let Err(error) = handle.store.delete(staged).await
    {
        tracing::warn!(%error, "staged files could not be removed");
    }
}

impl Ahead {
    /// Waits until nothing is written any more.
    async fn end(mut self, stop: bool) -> Option<Ended> {
        self.stop.fetch_or(stop, Ordering::Relaxed);
        self.running.join_next().await?.ok()
    }
}

impl Copies {
    /// How many of the rows are hidden; `None` if one of their files is not among these.
    fn hidden(&self, files: &[DataFile], hidden: &[RowMask]) -> Option<u64> {
        let mut gone = 0;
        for (path, groups) in &self.groups {
            let at = files.iter().position(|file| file.path == *path)?;
            let of = |moved: &Moved| hidden[at].hidden_in(moved.rows.clone());
            gone += groups.iter().map(of).sum::<u64>();
        }
        Some(gone)
    }
}

/// A row group that may be copied.
struct Candidate {
    source: usize,
    group: usize,
    rows: u64,
    /// Which part of its rows is likely to go.
    share: f64,
}

impl Job {
    async fn run(mut self) -> Ended {
        let mut copies = self.copy().await;
        let staged = match &mut copies {
            Ok(copies) => {
                let finished = self.writer.finish().await;
                let staged = self.writer.staged();
                match finished {
                    Ok(written) => copies.written = written,
                    Err(error) => {
                        return Ended {
                            copies: Err(error),
                            staged,
                        };
                    }
                }
                staged
            }
            Err(_) => self.writer.abandon().await,
        };
        if let Err(error) = &copies {
            tracing::debug!(%error, "row groups could not be copied ahead; they are copied later");
        }
        Ended { copies, staged }
    }

    async fn copy(&mut self) -> Result<Copies> {
        let mut copies = Copies::default();
        let (mut sources, mut candidates) = (Vec::new(), Vec::new());
        let mut memory = 0;
        for file in std::mem::take(&mut self.files) {
            if memory >= FOOTERS || self.is_stopped() {
                break;
            }
            let footer = read_footer(&self.handle.store, &file.path, file.bytes).await?;
            if let Some(source) = self.writer.source(&file, footer) {
                candidates.extend(self.candidates(&source, sources.len())?);
                memory += source.memory();
                sources.push(source);
            }
        }
        let chosen = self.chosen(candidates);
        let bytes = |one: &Candidate| sources[one.source].bytes_of(one.group);
        if chosen.iter().map(bytes).sum::<u64>() < self.least_bytes {
            return Ok(copies);
        }
        for one in chosen {
            if self.is_stopped() {
                break;
            }
            let source = &sources[one.source];
            let copied = self.writer.copy(source, one.group).await?;
            copies.bytes_read += copied.bytes_read;
            let moved = copies.groups.entry(source.path().to_owned()).or_default();
            moved.push(Moved {
                rows: source.positions(one.group),
                path: copied.path,
                start: copied.start,
            });
        }
        Ok(copies)
    }

    /// The row groups of a file that may be copied.
    fn candidates(&self, source: &CopySource, number: usize) -> Result<Vec<Candidate>> {
        let (groups, parts): (Vec<usize>, Vec<DataFile>) = self.writer.as_files(source).into_iter().unzip();
        let kept = self.prune.keep_files(&self.snapshot, &parts)?;
        let candidates = groups.into_iter().zip(&parts).zip(kept);
        let candidates = candidates.map(|((group, part), kept)| Candidate {
            source: number,
            group,
            rows: part.rows,
            // Only of what is pruned it is certain that no row goes.
            share: if kept {
                (self.guess.share)(part).max(f64::MIN_POSITIVE)
            } else {
                0.0
            },
        });
        Ok(candidates.collect())
    }

    /// Those that lose no row, and of the others as many as may stay with masked rows, those that lose the least first; in
    /// the order of their rows.
    fn chosen(&self, mut candidates: Vec<Candidate>) -> Vec<Candidate> {
        candidates.sort_by(|one, other| one.share.total_cmp(&other.share));
        let (mut rows, mut gone) = (0, 0.0);
        let stays = |one: &Candidate| {
            rows += one.rows;
            gone += one.share * one.rows as f64;
            one.share == 0.0 || self.decider.may_stay(rows, gone as u64)
        };
        let mut chosen: Vec<Candidate> = candidates.into_iter().take_while(stays).collect();
        chosen.sort_by_key(|one| (one.source, one.group));
        chosen
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }
}
