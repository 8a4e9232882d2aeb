//! What a version has beside its data files: applications, domains, removed files that are still remembered (Delta protocol,
//! "Action Reconciliation").

use std::collections::{BTreeMap, HashMap};

use super::super::actions::{self, Action, DomainMetadata, FileKey, RemoveFile, Txn};
use super::super::kernel::Replay;
use super::super::listing::{Sidecar, sidecars_of};
use super::super::log;
use super::super::parts::Part;
use super::super::properties::{applications_ms, files_ms};
use super::super::state::State;
use super::file;
use crate::error::{Error, Result};
use crate::planted::{self, Bug};
use crate::store::Store;

/// What checkpoints still tell of what is no more, as the table says when they are written.
#[derive(Debug, Clone, Copy)]
pub(in crate::delta) struct Remembered {
    /// How long tombstones are kept, in milliseconds.
    tombstones_ms: i64,
    /// The same of applications; `None` for ever.
    applications_ms: Option<i64>,
}

impl Remembered {
    /// As this version of the table says.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it says so in words that cannot be read.
    pub(in crate::delta) fn by(state: &State) -> Result<Self> {
        let properties = &state.metadata.configuration;
        Ok(Self {
            tombstones_ms: files_ms(properties)?,
            applications_ms: applications_ms(properties)?,
        })
    }
}

/// The actions of a version that are not live files, after reconciliation (Delta protocol, "Action
/// Reconciliation").
#[derive(Debug, Default)]
pub(super) struct Reconciled {
    tombstones: HashMap<FileKey, RemoveFile>,
    applications: BTreeMap<String, Txn>,
    domains: BTreeMap<String, DomainMetadata>,
}

impl Reconciled {
    /// Reads the last checkpoint and the log entries since.
    pub(super) async fn load(store: &Store, replay: &Replay) -> Result<Self> {
        let mut small = Self::default();
        let start = match replay.checkpoint() {
            None => 0,
            Some((version, _)) if planted::is(Bug::CheckpointWithoutTheLast) => version + 1,
            Some((version, _)) => {
                let mut named = Vec::new();
                for (key, bytes) in replay.checkpoint_files() {
                    named.extend(small.load_part(store, &key, bytes).await?);
                }
                for (key, bytes) in named {
                    small.load_part(store, &key, bytes).await?;
                }
                version + 1
            }
        };
        for version in start..=replay.version() {
            let entry = log::read(store, version)
                .await?
                .ok_or_else(|| Error::invalid("the log entry is missing", log::commit_key(version)))?;
            // Within one commit a file's removal and its new mask may come in any order.
            let (removes, rest): (Vec<_>, Vec<_>) = entry.into_iter().partition(|row| row.remove.is_some());
            removes.into_iter().chain(rest).for_each(|row| small.apply(row));
        }
        Ok(small)
    }

    /// What a file of a checkpoint says; its list of data files is passed over. The files that it names, with their sizes
    /// in bytes.
    async fn load_part(&mut self, store: &Store, key: &str, bytes: u64) -> Result<Vec<(String, u64)>> {
        if key.ends_with(".json") {
            let rows = actions::parse(&store.get(key).await?, key)?;
            let rows = rows.into_iter().filter(|row| row.add.is_none());
            rows.for_each(|row| self.apply(row));
            return sidecars_of(store, key, bytes).await;
        }
        let part = Part::open(store, key, bytes).await?;
        part.rows(&["remove", "txn", "domainMetadata"], |batch| {
            let rows = file::decode_filled(batch, key)?;
            rows.into_iter().for_each(|row| self.apply(row));
            Ok(())
        })
        .await?;
        let sidecars = part.sidecars().await?;
        let named = |sidecar: Sidecar| Ok((sidecar.key(store)?, sidecar.size_in_bytes));
        sidecars.into_iter().map(named).collect()
    }

    fn apply(&mut self, action: Action) {
        if let Some(remove) = action.remove {
            self.tombstones.insert(remove.key(), remove);
        }
        if let Some(add) = action.add {
            self.tombstones.remove(&add.key());
        }
        if let Some(txn) = action.txn {
            self.applications.insert(txn.app_id.clone(), txn);
        }
        if let Some(domain) = action.domain_metadata {
            self.domains.insert(domain.domain.clone(), domain);
        }
    }

    /// The actions that are not about data files, and those that tell of removed ones, at this time.
    pub(super) fn into_actions(
        self,
        state: &State,
        remembered: Remembered,
        now: i64,
    ) -> (Vec<Action>, Vec<Action>) {
        let oldest_tombstone = now.saturating_sub(remembered.tombstones_ms);
        // Without the property, and without a time, applications are remembered for ever.
        let oldest_application = remembered
            .applications_ms
            .map_or(i64::MIN, |kept| now.saturating_sub(kept));
        let protocol = Action {
            protocol: Some(state.protocol.clone()),
            ..Action::default()
        };
        let meta_data = Action {
            meta_data: Some(state.metadata.clone()),
            ..Action::default()
        };
        let applications = self
            .applications
            .into_values()
            .filter(|txn| txn.last_updated.is_none_or(|time| time >= oldest_application))
            .map(|txn| Action {
                txn: Some(txn),
                ..Action::default()
            });
        let domains = self
            .domains
            .into_values()
            .filter(|domain| !domain.removed)
            .map(|domain| Action {
                domain_metadata: Some(domain),
                ..Action::default()
            });
        let tombstones = self
            .tombstones
            .into_values()
            .filter(|remove| remove.deletion_timestamp.unwrap_or(0) >= oldest_tombstone)
            .map(|remove| Action {
                remove: Some(remove),
                ..Action::default()
            });
        let others = [protocol, meta_data]
            .into_iter()
            .chain(applications)
            .chain(domains)
            .collect();
        (others, tombstones.collect())
    }
}
