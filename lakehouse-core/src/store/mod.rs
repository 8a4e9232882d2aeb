//! The only place that builds object stores. A [`Store`] is confined to one table: every key is
//! relative to the table root.

mod after;
pub mod clock;
mod cloud;
mod create;
mod elsewhere;
mod failure;
mod fetched;
mod folder;
mod guard;
mod links;
mod local;
mod location;
mod memory;
mod names;
mod options;
#[cfg(test)]
mod power;
mod probe;
mod profile;
pub mod sim;
mod sizes;
mod sweep;

#[cfg(test)]
mod location_tests;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::ops::Range;
use std::path::{Path as FsPath, PathBuf};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use tokio::sync::OnceCell;
use url::Url;

pub use create::Created;
pub(crate) use guard::Bound;
pub use local::is_left_over;
pub use location::Location;
pub use options::StorageOptions;

use crate::error::{Error, Result};
use crate::model::limits::{self, Limit, Limits};
use crate::planted::{self, Bug};
use cloud::{Cloud, Opened};
use elsewhere::{Elsewhere, Place};
use failure::{Retry, explain};
use location::Root;

/// Objects that one request lists or deletes, in S3 and in the other clouds.
pub const PAGE: usize = 1000;

/// Objects below one table root.
#[derive(Clone)]
pub struct Store {
    inner: Arc<dyn ObjectStore>,
    root: Arc<Root>,
    local: Option<PathBuf>,
    /// Places outside of the root that the metadata may name files in.
    elsewhere: Vec<Place>,
    retry: Retry,
    creates: Creates,
    /// Parquet files whose footers can be parsed, by key ([`guard`]).
    sound: Arc<Mutex<HashMap<String, Listed>>>,
    limits: Arc<Limits>,
}

/// How names are taken that nobody else may have.
#[derive(Clone)]
enum Creates {
    /// By conditional puts of the store itself.
    Inner,
    /// By those of a client that sends each request once; of a foreign store only after it was probed.
    Once {
        store: cloud::Lazy,
        probed: Option<Arc<OnceCell<()>>>,
    },
    /// By looking first: somebody promised that there is no other writer.
    Unsafe(cloud::Lazy),
}

/// One object of a listing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Key below the table root.
    pub path: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Last change by the store's clock, in milliseconds since 1970 UTC.
    pub modified_ms: i64,
}

impl Store {
    /// The store of a table at a path (`t`, `/data/t`), or at a URL: `s3://bucket/t`, `gs://bucket/t`,
    /// `az://container/t`, `abfss://container@account.dfs.core.windows.net/t`, `file://`, `memory://`. The folder
    /// need not exist: it lists as empty, and the first object written makes it. Cloud storage is set up by the
    /// environment; nothing is asked of it yet.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a scheme that is not known, [`Error::Invalid`] for a location that
    /// cannot be a table and for settings that cannot be.
    pub fn open(location: &str) -> Result<Self> {
        Self::open_with(location, &StorageOptions::new())
    }

    /// The same; cloud storage is set up by `options` and, where they say nothing, by the environment.
    ///
    /// # Errors
    /// As [`Store::open`]; [`Error::Invalid`] for options that are not known.
    pub fn open_with(location: &str, options: &StorageOptions) -> Result<Self> {
        Self::at(&Location::parse(location)?, options)
    }

    /// The same, from a parsed location.
    ///
    /// # Errors
    /// As [`Store::open_with`].
    pub fn at(location: &Location, options: &StorageOptions) -> Result<Self> {
        let mut store = Self::alone(location, options)?;
        for place in options.allow_locations()? {
            elsewhere::check_place(&place)?;
            let place = Self::alone(&place, &options.without_locations())?;
            store.elsewhere.push(Place {
                root: place.root,
                store: place.inner,
            });
        }
        if !store.elsewhere.is_empty() {
            store.inner = Arc::new(Elsewhere {
                own: store.inner,
                places: store.elsewhere.clone(),
            });
        }
        Ok(store)
    }

    fn alone(location: &Location, options: &StorageOptions) -> Result<Self> {
        let url = &location.0;
        cloud::check_names(options)?;
        let limits = Arc::new(options.limits()?);
        if url.scheme() == "memory" {
            return Ok(Self {
                limits,
                ..Self::over(memory::named(url.as_str()), url.clone())
            });
        }
        if let Some(cloud) = Cloud::of(url.scheme()) {
            let Opened {
                patient,
                once,
                foreign,
            } = cloud.open(url, options)?;
            return Ok(Self {
                retry: Retry::CLIENTS,
                creates: match options.unsafe_single_writer() {
                    true => Creates::Unsafe(once),
                    false => Creates::Once {
                        store: once,
                        probed: foreign.then(Arc::default),
                    },
                },
                limits,
                ..Self::over(patient, url.clone())
            });
        }
        let folder = location.local_path()?;
        if folder.exists() && !folder.is_dir() {
            return Err(
                Error::invalid("this is a file, not a table", folder.display().to_string())
                    .with_hint("name the table's folder"),
            );
        }
        let mut root = Root::new(url);
        // Writers may have recorded the folder's real path where the user names a link to it.
        if let Ok(real) = std::fs::canonicalize(&folder) {
            root.also_known_as(&real);
        }
        Ok(Self {
            inner: Arc::new(local::Local::new(&folder, &options.allow_links())?),
            root: Arc::new(root),
            local: Some(folder),
            elsewhere: Vec::new(),
            retry: Retry::NEAR,
            creates: Creates::Inner,
            sound: Arc::default(),
            limits,
        })
    }

    /// A store over any object store whose keys are relative to the table root (tests, faults).
    /// `root` is what metadata shall name as the table's location.
    pub fn over(inner: Arc<dyn ObjectStore>, root: Url) -> Self {
        Self {
            inner,
            root: Arc::new(Root::new(&root)),
            local: None,
            elsewhere: Vec::new(),
            retry: Retry::NEAR,
            creates: Creates::Inner,
            sound: Arc::default(),
            limits: Arc::default(),
        }
    }

    /// The same table through another object store, made from the one underneath: how tests put
    /// failures below everything else.
    #[must_use]
    pub fn layered(&self, layer: impl Fn(Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore>) -> Self {
        let over = |store: &cloud::Lazy| {
            store.get().map_or_else(
                |_| store.clone(),
                |store| cloud::Lazy::from(layer(Arc::clone(store))),
            )
        };
        Self {
            inner: layer(Arc::clone(&self.inner)),
            creates: match &self.creates {
                Creates::Inner => Creates::Inner,
                Creates::Once { store, probed } => Creates::Once {
                    store: over(store),
                    probed: probed.clone(),
                },
                Creates::Unsafe(store) => Creates::Unsafe(over(store)),
            },
            ..self.clone()
        }
    }

    /// The table's location, without a trailing slash, percent-encoded as URLs are.
    pub fn root(&self) -> &Url {
        self.root.url()
    }

    /// The table's location as Iceberg spells it: a URL whose path is *not* percent-encoded
    /// (`file:///tmp/my table`), without a trailing slash.
    pub fn location(&self) -> &str {
        self.root.verbatim()
    }

    /// The table's folder, if it is on local disk.
    pub fn local_path(&self) -> Option<&FsPath> {
        self.local.as_deref()
    }

    /// How much of the table's files is read.
    pub fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The object store itself, for the engine's Parquet readers and writers.
    pub fn object_store(&self) -> &Arc<dyn ObjectStore> {
        &self.inner
    }

    /// The key of a path found in Iceberg metadata: an absolute URL or path below the root, spelled
    /// verbatim (nothing is percent-decoded), or a path relative to the root.
    ///
    /// # Errors
    /// [`Error::Denied`] when it leads out of the table, [`Error::Invalid`] when it cannot be a key.
    pub fn relative(&self, recorded: &str) -> Result<String> {
        self.or_elsewhere(recorded, self.root.relative(recorded), |root| {
            root.relative(recorded)
        })
    }

    /// The key of a path found in a Delta log (protocol, "Add File": a percent-encoded URL, relative to
    /// the root or absolute). It is decoded once.
    ///
    /// # Errors
    /// As [`Store::relative`].
    pub fn relative_encoded(&self, recorded: &str) -> Result<String> {
        self.or_elsewhere(recorded, self.root.relative_encoded(recorded), |root| {
            root.relative_encoded(recorded)
        })
    }

    /// The key of a path found in the metadata of a table that may have been copied: what lies below
    /// `recorded_root`, the location that the metadata names, is looked for below the actual root.
    /// Both are spelled verbatim. Either may be a URL, an absolute path, or relative to a place that is
    /// no longer known.
    ///
    /// # Errors
    /// As [`Store::relative`].
    pub fn relative_to(&self, recorded_root: &str, recorded: &str) -> Result<String> {
        self.or_elsewhere(recorded, self.root.relative_to(recorded_root, recorded), |root| {
            root.relative(recorded)
        })
    }

    /// A key below the table's root or, where that was denied to an absolute path, one in a place that the user allows.
    fn or_elsewhere(
        &self,
        recorded: &str,
        own: Result<String>,
        of: impl Fn(&Root) -> Result<String>,
    ) -> Result<String> {
        match own {
            Ok(key) if elsewhere::is_taken(&key) && !self.elsewhere.is_empty() => Err(Error::Denied {
                what: format!("the metadata names \"{recorded}\", which no file of a table may be called"),
            }),
            Err(denied @ Error::Denied { .. }) if location::is_absolute(recorded) => {
                for (number, place) in self.elsewhere.iter().enumerate() {
                    match of(&place.root) {
                        Err(Error::Denied { .. }) => {}
                        found => return Ok(elsewhere::key(number, &found?)),
                    }
                }
                Err(denied)
            }
            own => own,
        }
    }

    /// The path of a file for people: its key, or the whole path of one outside of the table.
    pub fn shown(&self, path: &str) -> String {
        match elsewhere::split(&self.elsewhere, path) {
            Some((place, key)) => format!("{}/{key}", place.root.verbatim()),
            None => path.to_owned(),
        }
    }

    /// Whether `recorded_root`, the location that the metadata names, is this store's root. If not, the
    /// table was copied.
    pub fn is_root(&self, recorded_root: &str) -> bool {
        self.root.is_root(recorded_root)
    }

    /// Reads a whole object.
    ///
    /// # Errors
    /// [`Error::NotFound`] when it is not there.
    pub async fn get(&self, path: &str) -> Result<Bytes> {
        self.get_opt(path).await?.ok_or_else(|| self.absent(path))
    }

    /// Reads a whole object, `None` if it is not there.
    pub async fn get_opt(&self, path: &str) -> Result<Option<Bytes>> {
        let key = self.key(path)?;
        let read = || async { self.inner.get(&key).await?.bytes().await };
        self.absent_is_none("read", path, self.retry.run(read).await)
    }

    /// The same, of an object that is not to have more bytes than the limit: those that are larger are not read.
    ///
    /// # Errors
    /// [`Error::Limit`] when it is larger.
    pub async fn get_within(&self, path: &str, limit: Limit) -> Result<Option<Bytes>> {
        let key = self.key(path)?;
        let read = || async {
            let found = self.inner.get(&key).await?;
            if found.meta.size > limit.most() {
                return Ok(Err(found.meta.size));
            }
            found.bytes().await.map(Ok)
        };
        match self.absent_is_none("read", path, self.retry.run(read).await)? {
            Some(Ok(bytes)) => Ok(Some(bytes)),
            Some(Err(size)) => Err(limits::over(&format!("a file of {size} bytes"), limit, path)),
            None => Ok(None),
        }
    }

    /// Reads a range of bytes.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the object is not there, [`Error::Invalid`] when it ends before the range.
    pub async fn get_range(&self, path: &str, range: Range<u64>) -> Result<Bytes> {
        if range.start >= range.end {
            return Ok(Bytes::new());
        }
        let key = self.key(path)?;
        // A bounded range that starts behind the end is an error of its own kind in every store.
        let read = || async { self.inner.get_range(&key, range.clone()).await };
        let bytes = self
            .absent_is_none("read", path, self.retry.run(read).await)?
            .ok_or_else(|| self.absent(path))?;
        let wanted = range.end - range.start;
        if bytes.len() as u64 != wanted {
            return Err(self.cut_short(path, range.start, wanted, bytes.len() as u64));
        }
        Ok(bytes)
    }

    fn cut_short(&self, path: &str, start: u64, wanted: u64, there: u64) -> Error {
        let what = format!(
            "the object is cut short: {wanted} bytes from {start} on were asked for, {there} are there"
        );
        Error::invalid(what, self.place(path))
    }

    /// Size and time of an object, `None` if it is not there.
    pub async fn head(&self, path: &str) -> Result<Option<Listed>> {
        let key = self.key(path)?;
        let options = GetOptions {
            head: true,
            ..GetOptions::default()
        };
        let read = || async { Ok(self.inner.get_opts(&key, options.clone()).await?.meta) };
        let meta = self.absent_is_none("look up", path, self.retry.run(read).await)?;
        Ok(meta.map(|meta| Listed {
            path: path.to_owned(),
            ..listed(meta)
        }))
    }

    /// Writes an object under a name that nobody else uses (staged files, hints). On local disk the
    /// file is synced before this returns, and its folder before the next [`Store::create`] publishes.
    pub async fn put(&self, path: &str, bytes: Bytes) -> Result<()> {
        self.put_all(path, vec![bytes]).await
    }

    /// The same with bytes in pieces, one after the other.
    pub async fn put_all(&self, path: &str, pieces: Vec<Bytes>) -> Result<()> {
        let (key, bytes) = (self.key(path)?, PutPayload::from_iter(pieces));
        let write = || async { self.inner.put(&key, bytes.clone()).await };
        let written = self.retry.run(write).await;
        written.map_err(|error| explain("write", self.place(path), error))?;
        Ok(())
    }

    /// Writes an object if none of that name exists, and is certain of the answer: see [`Created`].
    ///
    /// # Errors
    /// When it is certain that nothing was written (no permission, disk full, a name that cannot be).
    pub async fn create(&self, path: &str, bytes: Bytes) -> Result<Created> {
        let key = self.key(path)?;
        let (store, retry, mode) = match &self.creates {
            Creates::Inner if planted::is(Bug::CreateOverwrites) => {
                (&self.inner, self.retry, PutMode::Overwrite)
            }
            Creates::Inner => (&self.inner, self.retry, PutMode::Create),
            Creates::Once { store, probed } => {
                let store = store.get()?;
                if let Some(probed) = probed {
                    let probe = || probe::probe(store.as_ref(), self.location(), Retry::FAR);
                    probed.get_or_try_init(probe).await?;
                }
                (store, Retry::FAR, PutMode::Create)
            }
            Creates::Unsafe(store) => match self.get_opt(path).await? {
                Some(there) if there == bytes => return Ok(Created::Yes),
                Some(_) => return Ok(Created::Exists),
                None => (store.get()?, Retry::FAR, PutMode::Overwrite),
            },
        };
        let place = || self.place(path);
        create::until_certain(store.as_ref(), &key, bytes, &mode, retry, &place).await
    }

    /// Objects whose key starts with `prefix` (a folder that ends with `/`, the start of a name, or
    /// empty for all), in key order.
    pub async fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.list_from(prefix, None).await
    }

    /// The same, only keys greater than `after`.
    pub async fn list_after(&self, prefix: &str, after: &str) -> Result<Vec<Listed>> {
        self.list_from(prefix, Some(after)).await
    }

    async fn list_from(&self, prefix: &str, after: Option<&str>) -> Result<Vec<Listed>> {
        let folder = match prefix.rfind('/') {
            Some(slash) => Some(self.key(&prefix[..slash])?),
            None => None,
        };
        let after = match after {
            Some(after) if !after.is_empty() => Some(self.key(after.trim_end_matches('/'))?),
            _ => None,
        };
        let list = || async {
            let objects = match &after {
                Some(after) => self.inner.list_with_offset(folder.as_ref(), after),
                None => self.inner.list(folder.as_ref()),
            };
            objects.try_collect::<Vec<ObjectMeta>>().await
        };
        let found = match self.retry.run(list).await {
            Err(object_store::Error::NotFound { .. }) => Vec::new(),
            other => other.map_err(|error| explain("list", self.place(prefix), error))?,
        };
        let mut found: Vec<Listed> = found.into_iter().map(listed).collect();
        found.retain(|object| object.path.starts_with(prefix));
        found.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        Ok(found)
    }

    /// Deletes objects; those that are not there are no error. All are tried; the first failure is
    /// reported.
    pub async fn delete(&self, paths: &[String]) -> Result<()> {
        let mut left = paths
            .iter()
            .map(|path| self.key(path))
            .collect::<Result<Vec<_>>>()?;
        let mut attempt = 0;
        while !left.is_empty() {
            let keys = futures::stream::iter(left.clone()).map(Ok).boxed();
            let answers: Vec<_> = self.inner.delete_stream(keys).collect().await;
            // Answers come in the order of the keys, but a request for many keys that fails has one answer.
            let in_order = answers.len() == left.len();
            let mut done: HashSet<Path> = HashSet::new();
            let mut first = None;
            let mut hopeless = false;
            for (index, answer) in answers.into_iter().enumerate() {
                match answer {
                    Ok(_) | Err(object_store::Error::NotFound { .. }) if in_order => {
                        done.insert(left[index].clone());
                    }
                    Ok(key) => {
                        done.insert(key);
                    }
                    Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => {
                        hopeless |= !failure::is_transient(&error);
                        first.get_or_insert(error);
                    }
                }
            }
            let mut failed = left;
            failed.retain(|key| !done.contains(key));
            attempt += 1;
            if hopeless || (attempt >= self.retry.attempts && !failed.is_empty()) {
                let error = first.unwrap_or_else(|| object_store::Error::Generic {
                    store: "store",
                    source: "no answer".into(),
                });
                return Err(explain("delete", self.place(failed[0].as_ref()), error));
            }
            if !failed.is_empty() {
                self.retry.pause(attempt).await;
            }
            left = failed;
        }
        Ok(())
    }

    /// An object is not there.
    pub(crate) fn absent(&self, path: &str) -> Error {
        Error::not_found(self.shown(path), self.location())
    }

    /// Where an object is, for messages.
    fn place(&self, path: &str) -> String {
        match &self.local {
            _ if elsewhere::is_taken(path) => self.shown(path),
            Some(folder) => folder.join(path).display().to_string(),
            None => format!("{}/{path}", self.location()),
        }
    }

    fn key(&self, path: &str) -> Result<Path> {
        location::check_key(path).map_err(|why| {
            Error::invalid(
                format!("\"{path}\" cannot name an object: {why}"),
                self.location(),
            )
        })?;
        Path::parse(path).map_err(|error| explain("name", self.place(path), error.into()))
    }

    fn absent_is_none<T>(
        &self,
        action: &'static str,
        path: &str,
        result: object_store::Result<T>,
    ) -> Result<Option<T>> {
        match result {
            Ok(value) => Ok(Some(value)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(explain(action, self.place(path), error)),
        }
    }
}

/// Without the client, which knows secrets.
impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Store").field(&self.location()).finish()
    }
}

fn listed(meta: ObjectMeta) -> Listed {
    Listed {
        path: meta.location.into(),
        bytes: meta.size,
        modified_ms: meta.last_modified.timestamp_millis(),
    }
}
