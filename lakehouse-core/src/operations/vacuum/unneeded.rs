//! The objects that no kept version needs, as hashes of their keys: 64 bits for each, however long the key is.
//!
//! Two keys with one hash, or in one spelling, are kept as soon as one of them is needed: the error is on the safe side.

use std::collections::{BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use futures::TryStreamExt;
use percent_encoding::percent_decode_str;

use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::objects::checksummed;
use crate::model::{At, Keep, Kept, Needed, Snapshot, Version};
use crate::store::Store;

/// How often something is read again whose reading failed or met a change.
const ATTEMPTS: u32 = 3;

/// What is not needed, as far as is known.
#[derive(Debug, Default)]
pub(super) struct Unneeded {
    keys: HashSet<u64>,
    /// Names of files that the metadata places outside of the table.
    outside: HashSet<u64>,
    /// Folders of other tables that lie inside of this one: what is in them is theirs.
    tables: BTreeSet<String>,
    newest_ms: Option<i64>,
}

impl Unneeded {
    /// Everything that is there.
    pub(super) async fn list(store: &Store) -> Result<Self> {
        let mut attempt = 1;
        loop {
            match Self::list_once(store).await {
                Err(Error::Store { .. }) if attempt < ATTEMPTS => attempt += 1,
                listed => return listed,
            }
        }
    }

    async fn list_once(store: &Store) -> Result<Self> {
        let mut listed = Self::default();
        let mut objects = store.objects();
        while let Some(object) = objects.try_next().await? {
            listed.keys.insert(hash(&owner(&object.path)));
            listed.newest_ms = listed.newest_ms.max(Some(object.modified_ms));
            listed.tables.extend(other_table(&object.path).map(str::to_owned));
        }
        Ok(listed)
    }

    /// When the newest object was written, by the store's clock, in milliseconds since 1970 UTC.
    pub(super) fn newest_ms(&self) -> i64 {
        self.newest_ms.unwrap_or(i64::MIN)
    }

    /// Takes out what the kept versions need.
    ///
    /// # Errors
    /// Those of [`crate::format::Format::needed`]; a log or metadata that is cleaned up at the same time is read again.
    pub(super) async fn without_needed(&mut self, handle: &Handle, keep: &Keep) -> Result<Kept> {
        let mut attempt = 1;
        loop {
            let mut tell = |needed: Needed<'_>| self.keep(needed);
            match handle.format.needed(keep, &mut tell).await {
                // Whatever was told already may stay all the same.
                Err(Error::NotFound { .. } | Error::Store { .. }) if attempt < ATTEMPTS => attempt += 1,
                kept => return kept,
            }
        }
    }

    /// Takes out what was committed since `seen`, and tells what is newest now.
    pub(super) async fn without_later(&mut self, handle: &Handle, keep: &Keep, seen: Kept) -> Result<Kept> {
        let newest = handle.format.snapshot(&At::Latest).await?;
        if newest.state == seen.snapshot.state {
            return Ok(seen);
        }
        match self.without_changes(handle, &seen.snapshot, &newest).await {
            Ok(()) => Ok(Kept {
                snapshot: newest,
                ..seen
            }),
            // It cannot be told what they did: all of it is read again.
            Err(_) => self.without_needed(handle, keep).await,
        }
    }

    /// Takes out what was committed since to the one line of versions that a table without branches has.
    ///
    /// # Errors
    /// When it cannot be told so: there are branches, or versions of none.
    async fn without_changes(&mut self, handle: &Handle, seen: &Snapshot, newest: &Snapshot) -> Result<()> {
        if newest.capabilities.refs {
            let known: HashSet<Version> = versions(handle, seen).await?;
            for version in versions(handle, newest).await?.difference(&known) {
                if !handle.format.is_ancestor(newest, *version, newest.version)? {
                    return Err(Error::unsupported("this version is not one of main", ""));
                }
            }
        }
        for change in handle.format.changes(seen, newest).await? {
            let masked = change.masked.iter().map(|(_, after)| after);
            for file in change.added.iter().chain(masked).chain(&change.change_files) {
                file.objects().for_each(|(key, _)| self.keep(Needed::Key(key)));
            }
        }
        Ok(())
    }

    /// Takes out one object.
    pub(super) fn keep(&mut self, needed: Needed<'_>) {
        match needed {
            Needed::Key(key) => {
                self.keys.remove(&hash(key));
            }
            Needed::Outside(recorded) => {
                self.outside.insert(hash(name(recorded)));
            }
        }
    }

    /// Whether an object was there when all were listed, and is needed by nobody. One with the name of a file outside of the
    /// table may be that file: places have more spellings than are known.
    pub(super) fn contains(&self, key: &str) -> bool {
        let owner = owner(key);
        let lies_in = |table: &String| {
            key.strip_prefix(table.as_str())
                .is_some_and(|rest| rest.starts_with('/'))
        };
        !self.tables.iter().any(lies_in)
            && self.keys.contains(&hash(&owner))
            && (self.outside.is_empty() || !self.outside.contains(&hash(name(&owner))))
    }
}

async fn versions(handle: &Handle, snapshot: &Snapshot) -> Result<HashSet<Version>> {
    let versions = handle.format.versions(snapshot).await?;
    Ok(versions.into_iter().map(|one| one.version).collect())
}

/// The folder of another table, if this object shows that there is one: its log, or its metadata.
fn other_table(key: &str) -> Option<&str> {
    if let Some((table, _)) = key.split_once("/_delta_log/") {
        return Some(table);
    }
    let (table, file) = key.rsplit_once("/metadata/")?;
    file.ends_with(".metadata.json").then_some(table)
}

/// The object that a checksum belongs to, and stays with; of any other the object itself.
fn owner(key: &str) -> String {
    checksummed(key).unwrap_or_else(|| key.to_owned())
}

fn name(key: &str) -> &str {
    key.rsplit('/').next().unwrap_or(key)
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    canonical(key).hash(&mut hasher);
    hasher.finish()
}

/// One text for all spellings of a key that some engine or file system may take for the same: no escapes, small letters, and
/// without letters that have several spellings (`é` is one character or two).
fn canonical(key: &str) -> String {
    let mut decoded = key.to_owned();
    while let Ok(next) = percent_decode_str(&decoded).decode_utf8() {
        if next == decoded {
            break;
        }
        decoded = next.into_owned();
    }
    let mut text = String::with_capacity(decoded.len());
    for letter in decoded.chars() {
        let combines = matches!(letter, '\u{300}'..='\u{36f}');
        if letter.is_ascii() {
            text.push(letter.to_ascii_lowercase());
        } else if combines && text.ends_with(|before: char| before.is_ascii_alphanumeric()) {
            text.pop();
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_key_are_one() {
        for (one, other) in [
            ("p=a b/x.parquet", "p=a%20b/x.parquet"),
            ("p=a%2520b/x", "p=a%20b/x"),
            ("P=A/x", "p=a/x"),
            ("p=Z\u{fc}rich/x", "p=Zu\u{308}rich/x"),
            ("p=%C3%BC/x", "p=u\u{308}/x"),
        ] {
            assert_eq!(canonical(one), canonical(other));
        }
        for (one, other) in [("p=a/x", "p=a/y"), ("p=a/x", "p=b/x"), ("p=%/x", "p=/x")] {
            assert_ne!(canonical(one), canonical(other));
        }
    }

    #[test]
    fn what_lies_in_another_table_is_that_tables() {
        for (key, table) in [
            ("a/_delta_log/00000000000000000000.json", Some("a")),
            ("a/b/metadata/v1.metadata.json", Some("a/b")),
            ("_delta_log/00000000000000000000.json", None),
            ("metadata/v1.metadata.json", None),
            ("a/metadata/x.parquet", None),
        ] {
            assert_eq!(other_table(key), table, "{key}");
        }
        let mut unneeded = Unneeded::default();
        unneeded.tables.insert("a/b".to_owned());
        for key in ["a/b/x.parquet", "a/bc.parquet", "a/y.parquet"] {
            unneeded.keys.insert(hash(key));
        }
        let left = ["a/b/x.parquet", "a/bc.parquet", "a/y.parquet"].map(|key| unneeded.contains(key));
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn what_was_not_listed_or_is_needed_is_not_unneeded() {
        let mut unneeded = Unneeded::default();
        for key in ["data/a", "data/b", "data/c"] {
            unneeded.keys.insert(hash(key));
        }
        unneeded.keep(Needed::Key("data/b"));
        unneeded.keep(Needed::Outside("s3://else/where/c"));
        let left = ["data/a", "data/b", "data/c", "data/d"].map(|key| unneeded.contains(key));
        assert_eq!(left, [true, false, false, false]);
        assert!(unneeded.contains("data/.a.crc") && !unneeded.contains("data/.b.crc"));
    }
}
