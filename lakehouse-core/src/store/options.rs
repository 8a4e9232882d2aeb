//! What a user sets about storage.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use super::location::Location;
use crate::error::Result;
use crate::model::limits::Limits;

/// The option that gives up the protection against a second writer.
pub(super) const UNSAFE_SINGLE_WRITER: &str = "unsafe_single_writer";

/// The option that names folders outside of a table on local disk that links in it may lead to.
pub(super) const ALLOW_LINKS: &str = "allow_links";

/// The option that names places outside of the table that its metadata may name files in.
pub(super) const ALLOW_LOCATIONS: &str = "allow_locations";

/// Settings of cloud stores under the names that delta-rs and `object_store` use (`aws_region`,
/// `AWS_ENDPOINT_URL`, `google_service_account` ..), in any case. They come before the environment. Values may be
/// secrets: they are never shown.
///
/// `unsafe_single_writer=true` is for stores that cannot refuse to overwrite an object: whoever sets it promises
/// that nobody else writes to the table. `allow_links=FOLDER` (several as in `PATH`) is for tables on local disk of which
/// parts are links to other places; `allow_locations=s3://other/folder` (several with blanks between them) for tables
/// whose metadata names files in other places, which are read and never written. `max_metadata_bytes=128MB` and the like
/// are for tables that are larger than what is read of one that nobody vouches for ([`Limits`]).
#[derive(Clone, Default, PartialEq, Eq)]
pub struct StorageOptions(BTreeMap<String, String>);

impl StorageOptions {
    /// No settings: all come from the environment.
    pub fn new() -> Self {
        Self::default()
    }

    /// Names in lower case, with their values.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// Where links in a table on local disk may lead besides the table.
    pub(super) fn allow_links(&self) -> Vec<PathBuf> {
        let folders = self.0.get(ALLOW_LINKS).map(std::env::split_paths);
        folders
            .into_iter()
            .flatten()
            .filter(|folder| !folder.as_os_str().is_empty())
            .collect()
    }

    /// Where files that the table's metadata names may be besides the table.
    ///
    /// # Errors
    /// As [`Location::parse`].
    pub(super) fn allow_locations(&self) -> Result<Vec<Location>> {
        let places = self.0.get(ALLOW_LOCATIONS).map_or("", String::as_str);
        places.split_whitespace().map(Location::parse).collect()
    }

    /// The same for a place of these.
    pub(super) fn without_locations(&self) -> Self {
        let mut options = self.clone();
        options.0.remove(ALLOW_LOCATIONS);
        options
    }

    /// How much of the table's files is read.
    ///
    /// # Errors
    /// As [`Limits::set`].
    pub(super) fn limits(&self) -> Result<Limits> {
        let mut limits = Limits::default();
        for (name, value) in self.iter().filter(|(name, _)| name.starts_with(Limits::PREFIX)) {
            limits.set(name, value)?;
        }
        Ok(limits)
    }

    /// Whether the user promises to be the only writer.
    pub(super) fn unsafe_single_writer(&self) -> bool {
        let value = self.0.get(UNSAFE_SINGLE_WRITER);
        value.is_some_and(|value| value.eq_ignore_ascii_case("true") || value == "1")
    }
}

impl<K: AsRef<str>, V: Into<String>> FromIterator<(K, V)> for StorageOptions {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(options: I) -> Self {
        let named = options.into_iter();
        Self(
            named
                .map(|(name, value)| (name.as_ref().to_ascii_lowercase(), value.into()))
                .collect(),
        )
    }
}

impl fmt::Debug for StorageOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_never_shown() {
        let options: StorageOptions = [("AWS_SECRET_ACCESS_KEY", "hush")].into_iter().collect();
        let shown = format!("{options:?}");
        assert!(
            shown.contains("aws_secret_access_key") && !shown.contains("hush"),
            "{shown}"
        );
    }
}
