//! How much metadata there is.

use iceberg::spec::ManifestFile;

use super::files::split;
use super::load::FOLDER;
use super::manifests::read_list;
use super::view::View;
use crate::error::Result;
use crate::model::{MetadataPart, Snapshot, Upkeep};
use crate::store::Store;

/// The metadata file, manifest list and manifests of a version, from one listing and the manifest list.
///
/// # Errors
/// When the manifest list cannot be read; those of the store.
pub(super) async fn upkeep(store: &Store, snapshot: &Snapshot) -> Result<Upkeep> {
    let view = View::of(snapshot)?;
    let files = store.list(FOLDER).await?;
    let (data, deletes) = split(read_list(store, &view).await?);
    let bytes_of = |path: &str| files.iter().find(|file| file.path == path).map(|file| file.bytes);
    let manifests = |kind, list: Vec<ManifestFile>| MetadataPart {
        kind,
        objects: list.len() as u64,
        bytes: list
            .iter()
            .map(|one| u64::try_from(one.manifest_length).unwrap_or(0))
            .sum(),
    };
    let list = view
        .snapshot
        .as_ref()
        .map(|of| view.state.paths.relative(of.manifest_list()))
        .transpose()?;
    let one = |kind, path: Option<&str>| MetadataPart {
        kind,
        objects: u64::from(path.is_some()),
        bytes: path.and_then(bytes_of).unwrap_or(0),
    };
    Ok(Upkeep {
        objects: files.len() as u64,
        bytes: files.iter().map(|file| file.bytes).sum(),
        checkpoint_ms: None,
        log: None,
        read: vec![
            one("metadata file", Some(&view.state.file)),
            one("manifest list", list.as_deref()),
            manifests("data manifests", data),
            manifests("delete manifests", deletes),
        ],
    })
}
