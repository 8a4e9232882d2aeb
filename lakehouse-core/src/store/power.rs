//! What a power loss would leave: tests record what happens to files on local disk, in its order, and judge it.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// Something that happened to a file or folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Bytes were written to it.
    Written(PathBuf),
    /// All its bytes are on the disk.
    Synced(PathBuf),
    /// The file got a name: the one it had, and the new one.
    Named(PathBuf, PathBuf),
    /// The folder is new.
    Made(PathBuf),
    /// All names in the folder are on the disk.
    FolderSynced(PathBuf),
}

static EVENTS: Mutex<Vec<Event>> = Mutex::new(Vec::new());

pub(super) fn note(event: Event) {
    EVENTS.lock().unwrap_or_else(PoisonError::into_inner).push(event);
}

/// Whether a name makes a version of a table.
fn is_version(name: &Path) -> bool {
    let text = name.to_string_lossy();
    text.ends_with(".metadata.json") || (text.contains("/_delta_log/") && text.ends_with(".json"))
}

/// What would be wrong with tables below a folder, had the power been lost at the worst moment.
fn losses(events: &[Event], below: &Path) -> Vec<String> {
    let mut wrong = Vec::new();
    let mut dirty: HashSet<&Path> = HashSet::new();
    // New names that a power loss takes back, with their folders.
    let mut open: Vec<(&Path, &Path)> = Vec::new();
    for event in events {
        match event {
            Event::Written(file) => {
                if file.starts_with(below) {
                    wrong.extend(
                        open.iter()
                            .filter(|(_, name)| is_version(name))
                            .map(|(_, name)| gone(name)),
                    );
                }
                dirty.insert(file);
            }
            Event::Synced(file) => {
                dirty.remove(file.as_path());
            }
            Event::Named(old, new) if new.starts_with(below) => {
                if dirty.contains(old.as_path()) {
                    wrong.push(format!(
                        "{} has its name before its bytes are safe",
                        new.display()
                    ));
                }
                if is_version(new) {
                    let of_it = open.iter().map(|(_, name)| name.display());
                    wrong.extend(
                        of_it.map(|name| format!("{} is there, and {name} may be gone", new.display())),
                    );
                }
                open.push((new.parent().unwrap(), new));
            }
            Event::Made(folder) if folder.starts_with(below) => open.push((folder.parent().unwrap(), folder)),
            Event::FolderSynced(folder) => open.retain(|(of, _)| of != folder),
            Event::Named(..) | Event::Made(_) => {}
        }
    }
    wrong.extend(
        open.iter()
            .filter(|(_, name)| is_version(name))
            .map(|(_, name)| gone(name)),
    );
    wrong
}

fn gone(version: &Path) -> String {
    format!("{} is acknowledged, and may be gone", version.display())
}

mod tests {
    use object_store::path::Path as Key;
    use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};

    use super::super::local::Local;
    use super::*;

    /// Three commits: data files in folders of their own, a version named so, a hint.
    async fn a_tables_life(root: &Path, versions: &str) {
        for version in 1..4 {
            let store = Local::new(root, &[]).unwrap();
            let key = |name: &str| Key::from(name.replace("{}", &version.to_string()));
            store.put(&key("data/part={}/x"), "rows".into()).await.unwrap();
            let mut upload = store.put_multipart(&key("data/part={}/y")).await.unwrap();
            for part in ["more ", "rows"] {
                upload.put_part(part.into()).await.unwrap();
            }
            upload.complete().await.unwrap();
            // Whoever publishes may have another handle.
            let publisher = Local::new(root, &[]).unwrap();
            let create = PutOptions::from(PutMode::Create);
            let (name, bytes) = (key(versions), "version".into());
            publisher.put_opts(&name, bytes, create).await.unwrap();
            store.put(&key("metadata/hint"), "hint".into()).await.unwrap();
        }
    }

    #[tokio::test]
    async fn no_version_outlives_a_power_loss_without_all_that_it_needs() {
        for versions in [
            "metadata/v{}.metadata.json",
            "_delta_log/0000000000000000000{}.json",
        ] {
            let folder = tempfile::tempdir().unwrap();
            let root = folder.path().join("table");
            a_tables_life(&root, versions).await;
            let events = EVENTS.lock().unwrap_or_else(PoisonError::into_inner).clone();
            assert_eq!(losses(&events, &root), Vec::<String>::new());
            // The judge sees it if any sync is left out.
            let mut tried = 0;
            for (at, event) in events.iter().enumerate() {
                if matches!(event, Event::Synced(path) | Event::FolderSynced(path) if path.starts_with(&root))
                {
                    let mut without = events.clone();
                    without.remove(at);
                    assert_ne!(losses(&without, &root), Vec::<String>::new(), "{event:?}");
                    tried += 1;
                }
            }
            assert!(tried > 20, "{tried} syncs");
        }
    }
}
