//! Finding the newest metadata file of a table.
//!
//! `version-hint.text` is advice: it may be missing, wrong or late. The newest version is the last of
//! an unbroken row of `vN.metadata.json`, counted from the hint. `vN.gz.metadata.json` is another
//! spelling of the same name.

use bytes::Bytes;

use super::metadata::State;
use crate::error::{Error, Result};
use crate::model::limits::{HINT_BYTES, VERSION};
use crate::planted::{self, Bug};
use crate::store::{Listed, Store};

/// Folder of all metadata.
pub(super) const FOLDER: &str = "metadata/";
/// Key of the hint.
pub(super) const HINT: &str = "metadata/version-hint.text";
/// Versions looked up one by one before listing the folder instead.
const PROBES: u32 = 24;

/// Key of the metadata file of version N, as we write it.
pub(super) fn metadata_key(number: u64) -> String {
    format!("{FOLDER}v{number}.metadata.json")
}

/// Every key that counts as version N.
fn spellings(number: u64) -> [String; 3] {
    [
        metadata_key(number),
        format!("{FOLDER}v{number}.gz.metadata.json"),
        format!("{FOLDER}v{number}.metadata.json.gz"),
    ]
}

/// Whether version N exists in any spelling but ours.
///
/// # Errors
/// When the store fails.
pub(super) async fn taken_elsewise(store: &Store, number: u64) -> Result<bool> {
    let [_, gz, old] = spellings(number);
    let (gz, old) = futures::try_join!(store.head(&gz), store.head(&old))?;
    Ok(gz.is_some() || old.is_some())
}

/// The newest version of the table.
///
/// # Errors
/// [`Error::NotFound`] when there is no table, [`Error::Invalid`] when its metadata is broken.
pub(super) async fn newest(store: &Store) -> Result<State> {
    // One that is too large is no hint: what it says is found out by listing.
    let hint = match store.get_within(HINT, HINT_BYTES).await {
        Err(Error::Limit { .. }) => None,
        hint => hint?,
    };
    if let Some(hint) = hint {
        let hint = String::from_utf8_lossy(&hint).trim().to_owned();
        if let Some(number) = digits(&hint) {
            if let Some(found) = read(store, number).await? {
                if planted::is(Bug::HintTrusted) {
                    return State::parse(store, &found.0, number, &found.1);
                }
                return forward(store, number, found).await;
            }
        } else if let Some(state) = hinted_by_name(store, &hint).await? {
            return Ok(state);
        }
    }
    from_listing(store).await
}

/// Some engines put the name of a catalog's metadata file into the hint.
async fn hinted_by_name(store: &Store, hint: &str) -> Result<Option<State>> {
    let name = hint.strip_suffix(".metadata.json").unwrap_or(hint);
    if name.is_empty() || name.contains(['/', '\\']) || name.chars().any(char::is_control) {
        return Ok(None);
    }
    let file = format!("{FOLDER}{name}.metadata.json");
    let Some(bytes) = store.get_within(&file, store.limits().metadata_bytes).await? else {
        return Ok(None);
    };
    owned_by_catalog(store, &file, number_of_catalog(&file).unwrap_or(0), &bytes).map(Some)
}

async fn read(store: &Store, number: u64) -> Result<Option<(String, Bytes)>> {
    for key in spellings(number) {
        if let Some(bytes) = store.get_within(&key, store.limits().metadata_bytes).await? {
            return Ok(Some((key, bytes)));
        }
    }
    Ok(None)
}

async fn forward(store: &Store, mut number: u64, mut found: (String, Bytes)) -> Result<State> {
    for _ in 0..PROBES {
        match read(store, number + 1).await? {
            Some(next) => found = next,
            None => return State::parse(store, &found.0, number, &found.1),
        }
        number += 1;
    }
    from_listing(store).await
}

async fn from_listing(store: &Store) -> Result<State> {
    let listed = store.list(FOLDER).await?;
    let numbered = listed
        .iter()
        .filter_map(|object| number_of_path(&object.path))
        .max();
    if let Some(mut number) = numbered {
        let vanished = || Error::not_found(metadata_key(number), store.location());
        let mut found = read(store, number).await?.ok_or_else(vanished)?;
        // A listing may be older than the newest object.
        while !planted::is(Bug::StaleListTrusted)
            && let Some(next) = read(store, number + 1).await?
        {
            found = next;
            number += 1;
        }
        return State::parse(store, &found.0, number, &found.1);
    }
    let newest = |object: &Listed| Some((number_of_catalog(&object.path)?, object.modified_ms));
    let Some(file) = listed
        .iter()
        .filter(|o| newest(o).is_some())
        .max_by_key(|o| newest(o))
    else {
        return Err(Error::not_found("an Iceberg table", store.location())
            .with_hint("check the path, or create the table first"));
    };
    let bytes = store
        .get_within(&file.path, store.limits().metadata_bytes)
        .await?;
    let bytes = bytes.ok_or_else(|| Error::not_found(&file.path, store.location()))?;
    owned_by_catalog(
        store,
        &file.path,
        number_of_catalog(&file.path).unwrap_or(0),
        &bytes,
    )
}

fn owned_by_catalog(store: &Store, file: &str, number: u64, bytes: &Bytes) -> Result<State> {
    let mut state = State::parse(store, file, number, bytes)?;
    state.read_only.get_or_insert_with(|| {
        (
            format!("{file} belongs to a catalog, which alone decides what is current"),
            "write through that catalog".to_owned(),
        )
    });
    Ok(state)
}

/// Whether a key is a metadata file of either kind.
pub(super) fn is_metadata(path: &str) -> bool {
    number_of_path(path).is_some() || number_of_catalog(path).is_some()
}

pub(super) fn number_of_path(path: &str) -> Option<u64> {
    let name = path.strip_prefix(FOLDER)?.strip_prefix('v')?;
    let number = name
        .strip_suffix(".gz.metadata.json")
        .or_else(|| name.strip_suffix(".metadata.json.gz"))
        .or_else(|| name.strip_suffix(".metadata.json"))?;
    digits(number)
}

pub(super) fn number_of_catalog(path: &str) -> Option<u64> {
    let name = path.strip_prefix(FOLDER)?;
    let name = name
        .strip_suffix(".metadata.json")
        .or_else(|| name.strip_suffix(".metadata.json.gz"))?;
    digits(name.split_once('-')?.0)
}

fn digits(text: &str) -> Option<u64> {
    let all = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // A number from which one cannot count on is none.
    all.then(|| text.parse().ok())
        .flatten()
        .filter(|number| *number < VERSION)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_metadata_files_are_told_apart() {
        assert_eq!(number_of_path("metadata/v12.metadata.json"), Some(12));
        assert_eq!(number_of_path("metadata/v12.gz.metadata.json"), Some(12));
        assert_eq!(number_of_path("metadata/v+1.metadata.json"), None);
        assert_eq!(number_of_path("metadata/00001-ab.metadata.json"), None);
        assert_eq!(number_of_catalog("metadata/00001-ab-cd.metadata.json"), Some(1));
        assert_eq!(number_of_catalog("metadata/snap-1.avro"), None);
    }
}
