//! What a clean-up asks of a store: all objects one after the other, what time it is there, copies.

use std::future::ready;
use std::path::{Path, PathBuf};

use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::ObjectStoreExt;

use super::failure::explain;
use super::{Listed, Store, clock, elsewhere, listed};
use crate::error::{Error, Result};
use crate::model::Needed;
use crate::planted::{self, Bug};

/// Names of the objects that [`Store::clock_ms`] writes.
const PROBE: &str = ".lake-clock-";

/// Whether [`Store::clock_ms`] left this behind.
pub(super) fn is_probe(name: &str) -> bool {
    name.starts_with(PROBE) || name.starts_with(super::probe::PREFIX)
}

/// Links on the way to the files of a table on local disk.
struct Links {
    /// As it is named, and as it is without links.
    root: PathBuf,
    real: PathBuf,
    /// The folder that was looked at last, and whether no link leads to it.
    last: Option<(PathBuf, bool)>,
}

impl Links {
    /// `None` where there is no folder.
    fn of(root: &Path) -> Option<Self> {
        Some(Self {
            root: root.to_owned(),
            real: std::fs::canonicalize(root).ok()?,
            last: None,
        })
    }

    /// Whether a file is where its key says. What went meanwhile is not.
    fn are_not_on_the_way(&mut self, key: &str) -> Result<bool> {
        let below = Path::new(key);
        let folder = below.parent().unwrap_or(Path::new(""));
        let known = self.last.as_ref().filter(|(last, _)| last == folder);
        let plain = match known {
            Some((_, plain)) => *plain,
            None => {
                let plain = self.is_real(folder, key)?;
                self.last = Some((folder.to_owned(), plain));
                plain
            }
        };
        let Ok(found) = std::fs::symlink_metadata(self.root.join(below)) else {
            return Ok(false);
        };
        Ok(plain && (!found.is_symlink() || self.is_real(below, key)?))
    }

    fn is_real(&self, below: &Path, key: &str) -> Result<bool> {
        match std::fs::canonicalize(self.root.join(below)) {
            Ok(real) if real == self.real.join(below) => Ok(true),
            Ok(real) if real.starts_with(&self.real) => Err(Error::unsupported(
                format!(
                    "{key} lies behind a link to another place of the table, {}: it has two names, and under one of them it \
                     would be taken for a file that nobody needs",
                    real.display()
                ),
                "put the folder or file itself where the link is",
            )),
            _ => Ok(false),
        }
    }
}

impl Store {
    /// Every object below the table root, in no order. Nothing is asked again: whoever meets an error starts over. On local
    /// disk, what lies behind links that lead out of the table is left out.
    ///
    /// # Errors
    /// [`Error::Unsupported`] when a link leads from one place of the table to another: what is there has two names.
    pub fn objects(&self) -> BoxStream<'static, Result<Listed>> {
        let store = self.clone();
        let mut links = self.local_path().and_then(Links::of);
        let objects = self.inner.list(None);
        objects
            .filter_map(move |object| {
                let object = match object {
                    Ok(meta) => Ok(listed(meta)),
                    Err(error) => Err(explain("list", store.place(""), error)),
                };
                let own = match (&object, &mut links) {
                    (Ok(object), Some(links)) => links.are_not_on_the_way(&object.path),
                    _ => Ok(true),
                };
                ready(match own {
                    Ok(true) => Some(object),
                    Ok(false) => None,
                    Err(error) => Some(Err(error)),
                })
            })
            .boxed()
    }

    /// How an object is told that a version needs. What is elsewhere by its path may be here by another name of that place.
    pub(crate) fn needed<'a>(&self, key: &'a str) -> Needed<'a> {
        match !self.elsewhere.is_empty() && elsewhere::is_taken(key) {
            true => Needed::Outside(key),
            false => Needed::Key(key),
        }
    }

    /// Now by the store's own clock, by which it dates objects, in milliseconds since 1970 UTC: when an object was changed
    /// that is written for that, and deleted. Some stores count in seconds; it is never later than now. Ages of objects
    /// are told by this clock alone.
    ///
    /// # Errors
    /// When nothing can be written.
    pub async fn clock_ms(&self) -> Result<i64> {
        if planted::is(Bug::VacuumByLocalClock) {
            return Ok(clock::now_ms());
        }
        let key = format!("{PROBE}{}", clock::new_commit_id());
        self.put(&key, "what time is it?".into()).await?;
        let found = self.head(&key).await;
        if let Err(error) = self.delete(std::slice::from_ref(&key)).await {
            tracing::warn!(%error, key, "what was written to learn the store's time is left behind");
        }
        let found = found?.ok_or_else(|| self.absent(&key))?;
        Ok(found.modified_ms)
    }

    /// Copies an object, inside of the store, and looks whether as many bytes arrived.
    ///
    /// # Errors
    /// [`Error::AlreadyExists`] when another object of another size has that name; [`Error::NotFound`] when there is
    /// nothing to copy; [`Error::Invalid`] when the copy is not complete.
    pub async fn copy(&self, object: &Listed, to: &str) -> Result<()> {
        let (source, target) = (self.key(&object.path)?, self.key(to)?);
        if self
            .head(to)
            .await?
            .is_some_and(|there| there.bytes != object.bytes)
        {
            return Err(Error::AlreadyExists {
                what: format!("{}, of another size than {}", self.place(to), object.path),
            });
        }
        let copy = || async { self.inner.copy(&source, &target).await };
        let copied = self.absent_is_none("copy", &object.path, self.retry.run(copy).await)?;
        copied.ok_or_else(|| self.absent(&object.path))?;
        match self.head(to).await? {
            Some(there) if there.bytes == object.bytes => Ok(()),
            found => {
                let bytes = found.map_or(0, |found| found.bytes);
                let what = format!("of {} bytes, {bytes} were copied", object.bytes);
                Err(Error::invalid(what, self.place(to)).with_hint("the original is where it was"))
            }
        }
    }
}
