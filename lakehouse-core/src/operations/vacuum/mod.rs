//! Removes objects below the table root that no retained version needs, and nobody may still need.
//!
//! ```text
//! time      what time it is by the store's clock, by which objects are dated; this machine's clock counts for nothing
//! list      all objects, as hashes
//! look up   what retained versions need, of the newest metadata: what was committed during the listing is seen
//! again     list once more: what was there, is not needed and is old enough goes, a batch at a time; before each batch,
//!           what was committed meanwhile is taken out
//! ```
//!
//! How old is old enough: writers publish no file that they staged longer ago than the lease
//! ([`crate::model::LEASE`]), so that what is twice as old and belongs to no version is nobody's. Other engines know no
//! lease; the defaults wait as long as their own clean-ups do. Nothing is committed, so that a vacuum is in nobody's way.

mod unneeded;

use std::collections::BTreeMap;

use futures::future::BoxFuture;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::error::{Error, Result};
use crate::format::Handle;
pub use crate::model::FLOOR_MS;
use crate::model::{ADOPTED, At, Keep, Kept, Needed, ObjectKind, Version};
use crate::planted::{self, Bug};
use crate::store::{Listed, PAGE, clock};
use crate::write::is_own_name;
use unneeded::Unneeded;

/// Objects that are copied at the same time.
const COPIES: usize = 8;
/// How often the second listing is begun again after the store failed.
const ATTEMPTS: u32 = 3;
/// Folders of others that a report names; the rest is one line.
const FOLDERS: usize = 20;

/// What to remove.
#[derive(Debug, Clone, Default)]
pub struct Vacuum {
    /// An object goes when it is older than this, and no version needs it that was current within this time, in
    /// milliseconds. `None`: what the table says (`delta.deletedFileRetentionDuration`), else 7 days for Delta; Iceberg
    /// keeps every version of its metadata, and 3 days are for files that no version has. Never less than [`FLOOR_MS`].
    pub older_than_ms: Option<i64>,
    /// Versions that are kept whatever their age.
    pub keep_versions: Vec<Version>,
    /// Remove nothing, only say what would go.
    pub dry_run: bool,
    /// A hidden folder below the table root: objects are moved there, with their paths, instead of being deleted.
    pub quarantine: Option<String>,
    /// List every object that goes in [`Vacuumed::objects`].
    pub list: bool,
    /// Of a table that was made of files which were there before ([`ADOPTED`]), also remove data files that no writer of
    /// this crate wrote: those that it was made of, and those that others put beside them.
    pub adopted: bool,
    /// Somebody promised that nobody writes to the table, so that `older_than_ms` may be less than [`FLOOR_MS`].
    pub unsafe_no_writers: bool,
}

/// How many, how large, how old.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Objects.
    pub count: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// When the oldest was written, by the store's clock, in milliseconds since 1970 UTC; `None` for none.
    pub oldest_ms: Option<i64>,
}

impl Tally {
    fn add(&mut self, object: &Listed) {
        self.count += 1;
        self.bytes += object.bytes;
        let oldest = self.oldest_ms.unwrap_or(i64::MAX);
        self.oldest_ms = Some(oldest.min(object.modified_ms));
    }

    fn and(mut self, other: &Self) -> Self {
        self.count += other.count;
        self.bytes += other.bytes;
        self.oldest_ms = self.oldest_ms.into_iter().chain(other.oldest_ms).min();
        self
    }
}

/// An object that went, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Removed {
    /// Its key, size and age.
    pub object: Listed,
    /// What it was.
    pub kind: ObjectKind,
}

/// What a vacuum did.
#[derive(Debug, Clone)]
pub struct Vacuumed {
    /// Nothing was removed because nothing was to be.
    pub dry_run: bool,
    /// The newest version.
    pub version: Version,
    /// Versions that stay readable, and the oldest of them.
    pub versions_kept: u64,
    /// The oldest version that stays readable, but for those that are kept by name.
    pub oldest_kept: Version,
    /// How old objects had to be, in milliseconds.
    pub older_than_ms: i64,
    /// Now by the store's clock, in milliseconds since 1970 UTC. A dry run writes nothing to ask for it: then it is this
    /// machine's, or the time of the newest object if that is later.
    pub now_ms: i64,
    /// Where objects were moved.
    pub quarantine: Option<String>,
    /// What went, or on a dry run would go.
    pub removed: BTreeMap<ObjectKind, Tally>,
    /// Objects that no version needs and that are too young to go.
    pub young: Tally,
    /// Data files that no version needs and that stay because they may be somebody else's: [`Vacuum::adopted`].
    pub adopted: Tally,
    /// Objects that kept versions need, and logs and metadata.
    pub kept: Tally,
    /// Objects that are not the table's: by their hidden folder or file, and under `""` what the format does not write.
    pub left: BTreeMap<String, Tally>,
    /// Every object that went, if [`Vacuum::list`] asked for it.
    pub objects: Vec<Removed>,
}

impl Vacuumed {
    /// All that went, or would go.
    pub fn total(&self) -> Tally {
        self.removed.values().fold(Tally::default(), Tally::and)
    }
}

/// Removes objects that no retained version needs and that are old enough. Readers of retained versions, writers and
/// other vacuums may be at work; a second run finds nothing to do.
///
/// # Errors
/// [`Error::Unsupported`] for a table that this crate does not write (Delta protocol, "VACUUM Protocol Check") or whose
/// owner forbids it; [`Error::Invalid`] for an age below [`FLOOR_MS`] and for a quarantine that is no hidden folder;
/// whatever the store fails with. What was removed until then was not needed either.
pub fn vacuum<'a>(handle: &'a Handle, vacuum: &'a Vacuum) -> BoxFuture<'a, Result<Vacuumed>> {
    Box::pin(run(handle, vacuum))
}

async fn run(handle: &Handle, vacuum: &Vacuum) -> Result<Vacuumed> {
    check(vacuum)?;
    let newest = handle.format.snapshot(&At::Latest).await?;
    handle.format.check_writable(&newest)?;
    // Before the listing: what is written after it is younger than all that is listed.
    let asked_ms = match vacuum.dry_run {
        true => None,
        false => Some(handle.store.clock_ms().await?),
    };
    let mut keep = Keep {
        now_ms: asked_ms.unwrap_or_default(),
        older_than_ms: vacuum.older_than_ms,
        versions: vacuum.keep_versions.clone(),
    };
    let (unneeded, kept) = look(handle, &mut keep, asked_ms.is_none()).await?;
    let now_ms = keep.now_ms;
    handle.format.check_writable(&kept.snapshot)?;
    let least = if vacuum.unsafe_no_writers { 0 } else { FLOOR_MS };
    let older_than_ms = kept.older_than_ms.max(least);
    let mut run = Run {
        handle,
        vacuum,
        keep,
        before_ms: now_ms.saturating_sub(older_than_ms),
        unneeded,
        report: Vacuumed {
            dry_run: vacuum.dry_run,
            version: kept.snapshot.version,
            versions_kept: kept.versions,
            oldest_kept: kept.oldest,
            older_than_ms,
            now_ms,
            quarantine: vacuum.quarantine.clone(),
            removed: BTreeMap::new(),
            young: Tally::default(),
            adopted: Tally::default(),
            kept: Tally::default(),
            left: BTreeMap::new(),
            objects: Vec::new(),
        },
        kept,
    };
    let mut attempt = 1;
    loop {
        match run.sweep().await {
            Err(Error::Store { .. }) if attempt < ATTEMPTS => attempt += 1,
            Err(error) => return Err(error),
            Ok(()) => return Ok(run.report),
        }
    }
}

/// What is there and not needed. The order matters: what a commit takes up that comes before the second step is seen.
async fn look(handle: &Handle, keep: &mut Keep, by_own_clock: bool) -> Result<(Unneeded, Kept)> {
    if planted::is(Bug::VacuumLooksFirst) {
        let mut early = Vec::new();
        let mut tell = |needed: Needed<'_>| {
            if let Needed::Key(key) = needed {
                early.push(key.to_owned());
            }
        };
        let kept = handle.format.needed(keep, &mut tell).await?;
        let mut unneeded = Unneeded::list(&handle.store).await?;
        early.iter().for_each(|key| unneeded.keep(Needed::Key(key)));
        return Ok((unneeded, kept));
    }
    let mut unneeded = Unneeded::list(&handle.store).await?;
    if by_own_clock {
        keep.now_ms = clock::now_ms().max(unneeded.newest_ms());
    }
    let kept = unneeded.without_needed(handle, keep).await?;
    Ok((unneeded, kept))
}

/// # Errors
/// [`Error::Invalid`] for what cannot be done safely.
fn check(vacuum: &Vacuum) -> Result<()> {
    if let Some(older_than_ms) = vacuum.older_than_ms.filter(|_| !vacuum.unsafe_no_writers)
        && older_than_ms < FLOOR_MS
    {
        let hours = FLOOR_MS / 3_600_000;
        return Err(Error::invalid(
            format!("files younger than {hours} hours may be those of a writer that is still at work"),
            "the age of what is to be removed",
        )
        .with_hint(format!(
            "remove what is older than {hours} hours (2d), or, if nobody writes to the table until this is done, say so: \
             --unsafe-no-writers"
        )));
    }
    match &vacuum.quarantine {
        Some(folder) => check_quarantine(folder),
        None => Ok(()),
    }
}

/// A place that no engine and no later vacuum takes for the table's.
fn check_quarantine(folder: &str) -> Result<()> {
    let first = folder.split('/').next().unwrap_or_default();
    let is_own = ["_delta_log", "_delta_index", "_change_data"]
        .iter()
        .any(|own| first.starts_with(own));
    let is_hidden =
        first.starts_with(['.', '_']) && !first.contains('=') && !is_own && !first.starts_with("..");
    let is_plain = folder
        .split('/')
        .all(|part| !part.is_empty() && part != "." && part != "..");
    match is_hidden && is_plain {
        true => Ok(()),
        false => Err(Error::invalid(
            "this is no hidden folder inside of the table",
            format!("quarantine \"{folder}\""),
        )
        .with_hint("write .quarantine or another name that begins with a dot, relative to the table")),
    }
}

/// Whether an object of a table that was made of files which were there before may be one of those, or lie beside them and
/// belong to somebody who does not know of the table. Masks are told by their names, which data files of others may have.
fn may_be_anothers(kind: ObjectKind, key: &str) -> bool {
    let is_data = kind == ObjectKind::Data
        || (kind == ObjectKind::Mask && ![".bin", ".puffin"].iter().any(|ending| key.ends_with(ending)));
    is_data && !is_own_name(key)
}

struct Run<'a> {
    handle: &'a Handle,
    vacuum: &'a Vacuum,
    keep: Keep,
    /// What was written at this time or before is old enough.
    before_ms: i64,
    unneeded: Unneeded,
    kept: Kept,
    report: Vacuumed,
}

impl Run<'_> {
    /// Lists once more, and removes.
    async fn sweep(&mut self) -> Result<()> {
        self.report.young = Tally::default();
        self.report.adopted = Tally::default();
        self.report.kept = Tally::default();
        self.report.left.clear();
        if self.vacuum.dry_run {
            self.report.removed.clear();
            self.report.objects.clear();
        }
        let shares = self.kept.snapshot.properties.contains_key(ADOPTED) && !self.vacuum.adopted;
        let mut objects = self.handle.store.objects();
        let mut batch = Vec::new();
        while let Some(object) = objects.try_next().await? {
            let kind = self.handle.format.kind(&self.kept.snapshot, &object.path);
            match kind {
                ObjectKind::Hidden | ObjectKind::Other => self.leave(kind, &object),
                _ if !kind.is_removable() || !self.unneeded.contains(&object.path) => {
                    self.report.kept.add(&object);
                }
                _ if shares && may_be_anothers(kind, &object.path) => self.report.adopted.add(&object),
                _ if object.modified_ms > self.before_ms => self.report.young.add(&object),
                _ => batch.push(Removed { object, kind }),
            }
            if batch.len() >= PAGE {
                self.remove(std::mem::take(&mut batch)).await?;
            }
        }
        self.remove(batch).await
    }

    fn leave(&mut self, kind: ObjectKind, object: &Listed) {
        let left = &mut self.report.left;
        let hidden = object.path.split_inclusive('/').scan(0, |end, part| {
            *end += part.len();
            Some((part, *end))
        });
        let mut hidden = hidden.filter(|(part, _)| part.starts_with(['.', '_']));
        let folder = match (kind, hidden.next()) {
            (ObjectKind::Hidden, Some((part, end))) if part.ends_with('/') => &object.path[..end],
            (ObjectKind::Hidden, _) => object.path.split_inclusive('/').next().unwrap_or_default(),
            _ => "",
        };
        let folder = match left.contains_key(folder) || left.len() < FOLDERS {
            true => folder,
            false => "",
        };
        left.entry(folder.to_owned()).or_default().add(object);
    }

    async fn remove(&mut self, mut batch: Vec<Removed>) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        if !self.vacuum.dry_run {
            if !planted::is(Bug::VacuumLooksFirst) {
                let later = self
                    .unneeded
                    .without_later(self.handle, &self.keep, self.kept.clone());
                self.kept = later.await?;
                batch.retain(|one| self.unneeded.contains(&one.object.path));
            }
            if let Some(folder) = &self.vacuum.quarantine {
                self.copy(folder, &batch).await?;
            }
            let keys: Vec<String> = batch.iter().map(|one| one.object.path.clone()).collect();
            self.handle.store.delete(&keys).await?;
        }
        for one in batch {
            self.report.removed.entry(one.kind).or_default().add(&one.object);
            if self.vacuum.list {
                self.report.objects.push(one);
            }
        }
        Ok(())
    }

    /// Copies objects to the quarantine. Those that are not there any more went by another hand.
    async fn copy(&self, folder: &str, batch: &[Removed]) -> Result<()> {
        let copies = batch.iter().map(|one| {
            let (store, object) = (self.handle.store.clone(), one.object.clone());
            let to = format!("{folder}/{}", object.path);
            async move {
                match store.copy(&object, &to).await {
                    Err(Error::NotFound { .. }) => Ok(()),
                    copied => copied,
                }
            }
        });
        let copies: Vec<_> = copies.collect();
        let copies = stream::iter(copies);
        copies.buffer_unordered(COPIES).try_collect::<()>().await
    }
}
