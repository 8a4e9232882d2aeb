//! The sizes of many objects in few requests.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt, TryStreamExt, stream};

use super::{PAGE, Store, elsewhere, explain};
use crate::error::Result;

/// Objects looked up at the same time.
const CONCURRENT: usize = 16;

impl Store {
    /// The sizes in bytes of those of these objects that are there. They are listed, unless that takes more requests
    /// than looking up each: a listing that meets too many others is given up. What a listing does not have is looked
    /// up, since listings may be late.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn sizes(&self, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, u64>> {
        let mut found = match wanted.len() {
            0 | 1 => BTreeMap::new(),
            _ => self.listed_sizes(wanted).await?,
        };
        let left: Vec<String> = wanted
            .iter()
            .filter(|path| !found.contains_key(*path))
            .cloned()
            .collect();
        let looked_up: Vec<_> = stream::iter(left)
            .map(|path| async move { self.head(&path).await })
            .buffer_unordered(CONCURRENT)
            .try_collect()
            .await?;
        found.extend(
            looked_up
                .into_iter()
                .flatten()
                .map(|object| (object.path, object.bytes)),
        );
        Ok(found)
    }

    async fn listed_sizes(&self, wanted: &BTreeSet<String>) -> Result<BTreeMap<String, u64>> {
        let own = || wanted.iter().filter(|path| !elsewhere::is_taken(path));
        let folder = common_folder(own().map(String::as_str));
        let most = (PAGE as u64).saturating_mul(own().count() as u64);
        let prefix = match folder.is_empty() {
            true => None,
            false => Some(self.key(&folder)?),
        };
        let list = || async {
            let mut sizes = BTreeMap::new();
            let mut met = 0;
            let mut objects = self.inner.list(prefix.as_ref());
            while let Some(object) = objects.try_next().await? {
                let path = object.location.to_string();
                if wanted.contains(&path) {
                    sizes.insert(path, object.size);
                }
                met += 1;
                if met >= most {
                    break;
                }
            }
            Ok(sizes)
        };
        match self.retry.run(list).await {
            Err(object_store::Error::NotFound { .. }) => Ok(BTreeMap::new()),
            listed => listed.map_err(|error| explain("list", self.place(&folder), error)),
        }
    }
}

/// The deepest folder that all of these lie in, without a slash behind it.
fn common_folder<'a>(mut paths: impl Iterator<Item = &'a str>) -> String {
    let folder_of = |path: &'a str| path.rsplit_once('/').map_or("", |(folder, _)| folder);
    let Some(first) = paths.next() else {
        return String::new();
    };
    let mut common: Vec<&str> = folder_of(first).split('/').collect();
    for path in paths {
        let other = folder_of(path).split('/');
        let same = common.iter().zip(other).take_while(|(a, b)| *a == b).count();
        common.truncate(same);
    }
    common.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_is_the_deepest_folder_of_all() {
        let folder = |paths: &[&str]| common_folder(paths.iter().copied());
        assert_eq!(folder(&["a/b/1", "a/b/2", "a/bc/3"]), "a");
        assert_eq!(folder(&["a/b/1", "a/b/2"]), "a/b");
        assert_eq!(folder(&["a/b/1", "2"]), "");
        assert_eq!(folder(&[]), "");
    }
}
