//! Local disk: `object_store`'s reading, our own writing, which is durable.
//!
//! A file is written under a temporary name in its own folder, synced, and then given its name: by a
//! hard link where the name must be new, by a rename otherwise. Folders are synced before anything is
//! published that may refer to their files: [`PutMode::Create`] does so first, for all that this process
//! wrote. A file that a crash leaves behind is called `.lake-ID.tmp`; nothing reads it.

use std::collections::HashSet;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Seek, SeekFrom, Write};
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use super::after::{files_after, name_in};
use super::clock;
use super::links::{self, Bounds};
use super::names::{open_folder, sync_folders, sync_open, unsynced};
#[cfg(test)]
use super::power;
use super::sweep;
use crate::planted::{self, Bug};

/// One folder as an object store. The folder need not exist.
#[derive(Debug)]
pub(super) struct Local {
    files: LocalFileSystem,
    prefix: Path,
    folder: PathBuf,
    bounds: Bounds,
    /// Files that are in the folder, not behind a link that leads out of it: each is looked at once.
    inside: Mutex<HashSet<Path>>,
}

/// So many are remembered.
const MOST_INSIDE: usize = 10_000;

impl Local {
    /// `links` are places outside of it that links in it may lead to.
    pub(super) fn new(folder: &FsPath, links: &[PathBuf]) -> crate::Result<Self> {
        let prefix = Path::from_absolute_path(folder)
            .map_err(|error| crate::Error::invalid(error.to_string(), folder.display().to_string()))?;
        Ok(Self {
            files: LocalFileSystem::new(),
            prefix,
            folder: folder.to_owned(),
            bounds: Bounds::new(folder, links),
            inside: Mutex::default(),
        })
    }

    fn full(&self, location: &Path) -> Path {
        self.prefix.parts().chain(location.parts()).collect()
    }

    fn file(&self, location: &Path) -> Result<PathBuf> {
        self.files.path_to_filesystem(&self.full(location))
    }

    async fn check_file(&self, location: &Path) -> Result<()> {
        let inside = || self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if inside().contains(location) {
            return Ok(());
        }
        let (file, bounds) = (self.file(location)?, self.bounds.clone());
        if blocking(move || links::check_file(&bounds, &file)).await? {
            let mut inside = inside();
            if inside.len() >= MOST_INSIDE {
                inside.clear();
            }
            inside.insert(location.clone());
        }
        Ok(())
    }

    /// A listing of a folder, after a look at the links in it.
    fn once_checked<T: Send + 'static>(
        &self,
        folder: &Path,
        listing: BoxStream<'static, Result<T>>,
    ) -> BoxStream<'static, Result<T>> {
        let (folder, bounds) = (self.files.path_to_filesystem(folder), self.bounds.clone());
        let checked = async move {
            let folder = folder?;
            blocking(move || links::check_folder(&bounds, &folder)).await?;
            Ok::<_, Error>(listing)
        };
        futures::stream::once(checked).try_flatten().boxed()
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "local disk ({})", self.folder.display())
    }
}

/// The key of a path below `prefix`.
fn strip_path(prefix: &Path, path: Path) -> Path {
    let rest = path.prefix_match(prefix).map(Iterator::collect);
    rest.unwrap_or(path)
}

fn strip(prefix: &Path, mut meta: ObjectMeta) -> ObjectMeta {
    meta.location = strip_path(prefix, meta.location);
    meta
}

#[async_trait]
impl ObjectStore for Local {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => {
                return Err(Error::NotImplemented {
                    operation: "replacing an object on condition".into(),
                    implementer: self.to_string(),
                });
            }
        };
        let target = self.file(location)?;
        let (folder, bounds) = (self.folder.clone(), self.bounds.clone());
        blocking(move || {
            links::check_parent(&bounds, &target)?;
            let mut temporary = Temporary::new(&target)?;
            for part in payload {
                temporary.write(&part)?;
            }
            if create && !planted::is(Bug::LocalNameReplaced) {
                sync_folders(&folder, || temporary.sync())?;
                temporary.link()
            } else {
                temporary.sync()?;
                temporary.rename()
            }
        })
        .await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        _opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let target = self.file(location)?;
        let bounds = self.bounds.clone();
        let temporary = blocking(move || {
            links::check_parent(&bounds, &target)?;
            Temporary::new(&target)
        });
        let temporary = temporary.await?;
        Ok(Box::new(Upload {
            temporary: Arc::new(Mutex::new(Some(temporary))),
            syncing: Arc::default(),
            length: 0,
        }))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        self.check_file(location).await?;
        let mut result = self.files.get_opts(&self.full(location), options).await?;
        result.meta = strip(&self.prefix, result.meta);
        Ok(result)
    }

    async fn get_ranges(&self, location: &Path, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.check_file(location).await?;
        self.files.get_ranges(&self.full(location), ranges).await
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let prefix = self.prefix.clone();
        let full = locations.map_ok(move |location| prefix.parts().chain(location.parts()).collect::<Path>());
        let (bounds, files) = (self.bounds.strict(), LocalFileSystem::new());
        let full = full.and_then(move |location| {
            let target = files.path_to_filesystem(&location);
            let bounds = bounds.clone();
            async move {
                let target = target?;
                blocking(move || links::check_parent(&bounds, &target)).await?;
                Ok(location)
            }
        });
        let prefix = self.prefix.clone();
        self.files
            .delete_stream(full.boxed())
            .map_ok(move |location| strip_path(&prefix, location))
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let full = prefix.map_or_else(|| self.prefix.clone(), |prefix| self.full(prefix));
        let root = self.prefix.clone();
        let objects = self.files.list(Some(&full));
        let objects = objects.map_ok(move |meta| strip(&root, meta));
        self.once_checked(&full, objects.boxed())
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let full = prefix.map_or_else(|| self.prefix.clone(), |prefix| self.full(prefix));
        let root = self.prefix.clone();
        let objects = self.files.list_with_offset(Some(&full), &self.full(offset));
        let objects = objects.map_ok(move |meta| strip(&root, meta));
        let general = self.once_checked(&full, objects.boxed());
        let inside = prefix.and_then(|prefix| Some((prefix.clone(), name_in(prefix, offset)?)));
        let (Some((prefix, after)), Ok(folder)) = (inside, self.files.path_to_filesystem(&full)) else {
            return general;
        };
        let bounds = self.bounds.clone();
        let quick = blocking(move || files_after(&bounds, &folder, &prefix, &after));
        let listing = async move {
            Ok::<_, Error>(match quick.await? {
                Some(found) => futures::stream::iter(found).map(Ok).boxed(),
                None => general,
            })
        };
        futures::stream::once(listing).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let full = prefix.map_or_else(|| self.prefix.clone(), |prefix| self.full(prefix));
        let found = self.files.list_with_delimiter(Some(&full)).await?;
        let folders = found
            .common_prefixes
            .into_iter()
            .map(|folder| strip_path(&self.prefix, folder));
        Ok(ListResult {
            common_prefixes: folders.collect(),
            objects: found
                .objects
                .into_iter()
                .map(|meta| strip(&self.prefix, meta))
                .collect(),
        })
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let target = self.file(to)?;
        self.files
            .copy_opts(&self.full(from), &self.full(to), options)
            .await?;
        blocking(move || {
            let synced = File::open(&target).and_then(|file| file.sync_all());
            synced.map_err(|error| failed(&target, error))?;
            unsynced(target.parent());
            Ok(())
        })
        .await
    }
}

/// A file that has no name yet that anybody looks for; removed when dropped.
#[derive(Debug)]
struct Temporary {
    file: Arc<File>,
    path: PathBuf,
    target: PathBuf,
}

impl Temporary {
    fn new(target: &FsPath) -> Result<Self> {
        let folder = target.parent().unwrap_or(FsPath::new("/"));
        let path = folder.join(format!(".lake-{}.tmp", clock::new_name()));
        let open = || OpenOptions::new().write(true).create_new(true).open(&path);
        let file = match open() {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                create_folder(folder)?;
                open()
            }
            other => other,
        };
        Ok(Self {
            file: Arc::new(file.map_err(|error| failed(target, error))?),
            path,
            target: target.to_owned(),
        })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = (&*self.file).write_all(bytes);
        #[cfg(test)]
        power::note(power::Event::Written(self.path.clone()));
        written.map_err(|error| failed(&self.target, error))
    }

    /// Gives the file, which was synced, its name unless another has it. The name is durable then.
    fn link(self) -> Result<PutResult> {
        // Opened first: a failure here must not find the name given already.
        let folder = match self.target.parent() {
            Some(folder) => open_folder(folder)?,
            None => None,
        };
        std::fs::hard_link(&self.path, &self.target).map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => Error::AlreadyExists {
                path: self.target.display().to_string(),
                source: error.into(),
            },
            _ => failed(&self.target, error),
        })?;
        #[cfg(test)]
        power::note(power::Event::Named(self.path.clone(), self.target.clone()));
        if let (Some(folder), Some(path)) = (folder, self.target.parent()) {
            sync_open(&folder, path).map_err(|error| unsure(&self.target, &error))?;
        }
        Ok(DONE)
    }

    /// Gives the file, which was synced, its name, whoever had it. The name is durable with the next commit.
    fn rename(self) -> Result<PutResult> {
        std::fs::rename(&self.path, &self.target).map_err(|error| failed(&self.target, error))?;
        #[cfg(test)]
        power::note(power::Event::Named(self.path.clone(), self.target.clone()));
        unsynced(self.target.parent());
        Ok(DONE)
    }

    /// Puts all that was written on the disk.
    fn sync(&self) -> Result<()> {
        self.file
            .sync_all()
            .map_err(|error| failed(&self.target, error))?;
        #[cfg(test)]
        power::note(power::Event::Synced(self.path.clone()));
        Ok(())
    }
}

/// What is told of a file that was put: nothing.
const DONE: PutResult = PutResult {
    e_tag: None,
    version: None,
};

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename it is gone already; otherwise there is nobody left to tell.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A file written in parts, each at its own offset.
#[derive(Debug)]
struct Upload {
    temporary: Arc<Mutex<Option<Temporary>>>,
    /// Held while the parts written so far are synced.
    syncing: Arc<Mutex<()>>,
    length: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let offset = self.length;
        self.length += data.content_length() as u64;
        let (temporary, syncing) = (Arc::clone(&self.temporary), Arc::clone(&self.syncing));
        blocking(move || {
            let (file, target) = {
                let mut temporary = temporary.lock().unwrap_or_else(PoisonError::into_inner);
                let temporary = temporary.as_mut().ok_or_else(ended)?;
                let sought = (&*temporary.file).seek(SeekFrom::Start(offset));
                sought.map_err(|error| failed(&temporary.target, error))?;
                data.into_iter().try_for_each(|part| temporary.write(&part))?;
                (Arc::clone(&temporary.file), temporary.target.clone())
            };
            // While other parts are made and written, so that little is left to wait for at the end; what a sync
            // that is under way leaves out is the next one's, or the end's.
            match syncing.try_lock() {
                Ok(_alone) => file.sync_data().map_err(|error| failed(&target, error)),
                Err(_) => Ok(()),
            }
        })
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let temporary = Arc::clone(&self.temporary);
        blocking(move || {
            let mut temporary = temporary.lock().unwrap_or_else(PoisonError::into_inner);
            let temporary = temporary.take().ok_or_else(ended)?;
            temporary.sync()?;
            temporary.rename()
        })
        .await
    }

    async fn abort(&mut self) -> Result<()> {
        let mut temporary = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        temporary.take().map(drop).ok_or_else(ended)
    }
}

fn ended() -> Error {
    failed(
        FsPath::new(""),
        io::Error::new(ErrorKind::InvalidInput, "the upload has ended"),
    )
}

/// Makes a folder and those above it, and remembers where new names appeared.
fn create_folder(folder: &FsPath) -> Result<()> {
    let missing = folder.ancestors().take_while(|ancestor| !ancestor.exists());
    let missing: Vec<PathBuf> = missing.map(FsPath::to_owned).collect();
    std::fs::create_dir_all(folder).map_err(|error| failed(folder, error))?;
    for made in &missing {
        #[cfg(test)]
        power::note(power::Event::Made(made.clone()));
        unsynced(made.parent());
    }
    Ok(())
}

/// The file has its name, and nobody knows whether that will last. Without the system's own reason: a full disk says
/// elsewhere that nothing was written.
fn unsure(path: &FsPath, error: &io::Error) -> Error {
    tracing::warn!(%error, path = %path.display(), "a new name could not be synced to disk");
    Error::Generic {
        store: "local disk",
        source: format!(
            "{} has its name, but that could not be synced: {error}",
            path.display()
        )
        .into(),
    }
}

pub(super) fn failed(path: &FsPath, error: io::Error) -> Error {
    match error.kind() {
        ErrorKind::PermissionDenied => Error::PermissionDenied {
            path: path.display().to_string(),
            source: error.into(),
        },
        _ => Error::Generic {
            store: "local disk",
            source: error.into(),
        },
    }
}

/// Runs work that waits for the disk where it holds up nobody.
async fn blocking<T, F>(work: F) -> Result<T>
where
    T: Send + 'static,
    F: FnOnce() -> Result<T> + Send + 'static,
{
    match tokio::runtime::Handle::try_current() {
        Ok(runtime) => runtime.spawn_blocking(work).await?,
        Err(_) => work(),
    }
}

/// Whether a crash left this behind: a file that was being written and has no name yet, or what was written to try
/// out the store.
pub fn is_left_over(path: &str) -> bool {
    let name = path.rsplit('/').next().unwrap_or(path);
    (name.starts_with(".lake-") && name.ends_with(".tmp")) || sweep::is_probe(name)
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::super::failure::is_certain;
    use super::super::names::waiting;
    use super::*;

    #[test]
    fn a_name_that_is_given_and_not_synced_is_no_failure_that_says_nothing_was_written() {
        for kind in [
            ErrorKind::StorageFull,
            ErrorKind::QuotaExceeded,
            ErrorKind::PermissionDenied,
        ] {
            let error = || io::Error::from(kind);
            let path = FsPath::new("/table/metadata/v2.metadata.json");
            assert!(is_certain(&failed(path, error())), "{kind:?}");
            assert!(!is_certain(&unsure(path, &error())), "{kind:?}");
        }
    }

    #[tokio::test]
    async fn parts_that_are_written_at_the_same_time_come_out_in_their_places() {
        let folder = tempfile::tempdir().unwrap();
        let store = Local::new(folder.path(), &[]).unwrap();
        let name = Path::from("data/x");
        let part = |number: u8| vec![number; 50_000 + usize::from(number)];
        let mut upload = store.put_multipart(&name).await.unwrap();
        let parts: Vec<_> = (0..40)
            .map(|number| upload.put_part(part(number).into()))
            .collect();
        futures::future::try_join_all(parts).await.unwrap();
        upload.complete().await.unwrap();
        let stored = store.get(&name).await.unwrap().bytes().await.unwrap();
        assert_eq!(stored, (0..40).flat_map(part).collect::<Vec<u8>>());
    }

    #[tokio::test]
    async fn a_commit_syncs_every_folder_that_got_a_name_before_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("t");
        let store = Local::new(&root, &[]).unwrap();
        store.put(&Path::from("data/a/x"), "1".into()).await.unwrap();
        let mut upload = store.put_multipart(&Path::from("data/b/y")).await.unwrap();
        upload.complete().await.unwrap();
        let names = ["", "data", "data/a", "data/b"].map(|name| root.join(name).components().collect());
        assert_eq!(waiting(&root), names.to_vec() as Vec<PathBuf>);
        assert!(
            waiting(folder.path()).contains(&folder.path().to_owned()),
            "the table's folder is new too"
        );
        // Whoever publishes: here another handle on the same table.
        let publisher = Local::new(&root, &[]).unwrap();
        let options = PutOptions::from(PutMode::Create);
        let log = Path::from("log/1");
        publisher.put_opts(&log, "1".into(), options).await.unwrap();
        assert_eq!(waiting(folder.path()), Vec::<PathBuf>::new());
    }
}
