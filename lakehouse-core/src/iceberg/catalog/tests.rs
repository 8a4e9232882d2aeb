//! What only a catalog can do: answer nothing, late, or wrongly.

use super::{MemoryCatalog, Pointer, Replaced, SwapFault};
use crate::commit::{CommitOptions, Plan, commit};
use crate::error::{Error, Result};
use crate::format::{Format, Handle, Outcome};
use crate::iceberg::Iceberg;
use crate::iceberg::metadata::State;
use crate::iceberg::view::View;
use crate::model::{At, Change, CommitId, DataFile, Definition, OperationKind, Prune, Snapshot, made_up};
use crate::store::{Store, clock};

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema};
use futures::TryStreamExt;
use futures::future::BoxFuture;

fn in_catalog(store: Store) -> Arc<dyn Format> {
    let catalog = MemoryCatalog::named(store.location());
    Arc::new(Iceberg::in_catalog(store, Arc::new(catalog)))
}

crate::conformance::suite!(v2, in_catalog, Some(2));
crate::conformance::suite!(v3, in_catalog, Some(3));

/// Adds one made-up file, which is staged under the operation's id.
struct AddOne(Store);

impl Plan for AddOne {
    fn plan<'a>(&'a mut self, _: Arc<Snapshot>, id: CommitId) -> BoxFuture<'a, Result<Option<Change>>> {
        Box::pin(async move {
            let path = format!("data/{id}.parquet");
            self.0.put(&path, "rows".into()).await?;
            Ok(Some(Change {
                added: vec![made_up::data_file(&path, 4, 1)],
                staged: vec![path],
                ..Change::new(OperationKind::Append, id)
            }))
        })
    }
}

async fn table() -> (Handle, MemoryCatalog) {
    let store = Store::open(&format!("memory://{}/t", clock::new_name())).unwrap();
    let catalog = MemoryCatalog::default();
    let format = Arc::new(Iceberg::in_catalog(store.clone(), Arc::new(catalog.clone())));
    let definition = Definition {
        schema: Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)])),
        partition_fields: Vec::new(),
        properties: BTreeMap::new(),
        format_version: None,
    };
    let made = format.create(&definition, &clock::new_commit_id()).await.unwrap();
    assert!(matches!(made, Outcome::Committed(_)), "{made:?}");
    (Handle { store, format }, catalog)
}

async fn append(handle: &Handle) -> Result<()> {
    let mut plan = AddOne(handle.store.clone());
    commit(handle, &CommitOptions::default(), &mut plan)
        .await
        .map(drop)
}

/// The newest version, and a file staged to be added to it.
async fn staged(handle: &Handle) -> (Arc<Snapshot>, Change) {
    let base = handle.format.snapshot(&At::Latest).await.unwrap();
    let mut plan = AddOne(handle.store.clone());
    let change = plan.plan(Arc::clone(&base), clock::new_commit_id()).await;
    (base, change.unwrap().unwrap())
}

async fn files(handle: &Handle) -> Vec<String> {
    let newest = handle.format.snapshot(&At::Latest).await.unwrap();
    let listed = handle.format.files(&newest, Arc::new(Prune::everything()));
    let listed: Vec<DataFile> = listed.try_collect().await.unwrap();
    listed.into_iter().map(|file| file.path).collect()
}

async fn stored(handle: &Handle, folder: &str) -> Vec<String> {
    let listed = handle.store.list(folder).await.unwrap();
    listed.into_iter().map(|object| object.path).collect()
}

#[tokio::test]
async fn an_answer_that_is_lost_late_or_wrong_makes_one_commit_all_the_same() {
    for fault in [
        SwapFault::Lost,
        SwapFault::Swallowed,
        SwapFault::Late,
        SwapFault::DeniedAfterwards,
    ] {
        let (handle, catalog) = table().await;
        for times in 1..=3 {
            catalog.fail_next(vec![fault; times]);
            append(&handle)
                .await
                .unwrap_or_else(|error| panic!("{fault:?}: {error}"));
            assert_eq!(files(&handle).await.len(), times, "{fault:?}");
            assert!(catalog.met().1 > 0, "{fault:?} was not met");
        }
        assert_eq!(stored(&handle, "data/").await.len(), 3, "{fault:?}");
    }
}

/// The catalog goes away at every request of a commit in turn: with the swap under way the commit is unknown and
/// nothing is deleted; before it, nothing is committed and nothing left behind.
#[tokio::test]
async fn a_catalog_that_goes_away_leaves_the_commit_unknown_and_its_files_alone() {
    let mut unknown = 0;
    for after in 0.. {
        for landed in [false, true] {
            let (handle, catalog) = table().await;
            let metadata = stored(&handle, "metadata/").await;
            if landed {
                catalog.fail_next([SwapFault::Lost]);
            }
            catalog.go_down_after(after);
            let ended = append(&handle).await;
            catalog.heal();
            let found = files(&handle).await;
            let data = stored(&handle, "data/").await;
            match ended {
                Ok(()) => {
                    assert_eq!(found, data, "{after} {landed}");
                    if !landed {
                        assert!(unknown > 0, "no request was the swap");
                        return;
                    }
                }
                Err(Error::CommitUnknown { commit_id, .. }) => {
                    unknown += 1;
                    assert_eq!(data, [format!("data/{commit_id}.parquet")], "{after} {landed}");
                    assert!(found.is_empty() || found == data, "{after} {landed}");
                }
                Err(error) => {
                    assert!(found.is_empty() && data.is_empty(), "{after} {landed}: {error}");
                    assert_eq!(
                        stored(&handle, "metadata/").await,
                        metadata,
                        "{after} {landed}: {error}"
                    );
                }
            }
        }
    }
}

/// The swap of a commit that was published on `base`, asked for once more.
async fn swapped_again(
    store: &Store,
    catalog: &MemoryCatalog,
    base: &Snapshot,
    commit_id: &CommitId,
) -> Result<Replaced> {
    let base = View::of(base)?;
    let number = base.state.number + 1;
    let file = format!("metadata/{number:05}-{commit_id}.metadata.json");
    let ours = State::parse(store, &file, number, &store.get(&file).await?)?;
    let id = ours.metadata.current_snapshot_id().unwrap();
    let landed = |newest: &State| newest.metadata.snapshot_by_id(id).is_some();
    super::swap(catalog, store, Some(&base.state), ours, landed).await
}

/// Our swap was carried out and its answer lost; before we ask again somebody builds upon it and expires our snapshot.
#[tokio::test]
async fn a_commit_whose_snapshot_expired_meanwhile_is_no_loss() {
    let (handle, catalog) = table().await;
    let (base, change) = staged(&handle).await;
    let ours = handle.format.publish(&base, &change).await.unwrap();
    assert!(matches!(ours, Outcome::Committed(_)), "{ours:?}");
    append(&handle).await.unwrap();
    let expire = async |keep_log: bool| {
        let current = catalog.current().await.unwrap().unwrap();
        let key = handle.store.relative(&current).unwrap();
        let mut value: serde_json::Value =
            serde_json::from_slice(&handle.store.get(&key).await.unwrap()).unwrap();
        let newest = value["current-snapshot-id"].clone();
        value["snapshots"]
            .as_array_mut()
            .unwrap()
            .retain(|one| one["snapshot-id"] == newest);
        value["snapshot-log"]
            .as_array_mut()
            .unwrap()
            .retain(|one| one["snapshot-id"] == newest);
        if !keep_log {
            value["metadata-log"] = serde_json::json!([]);
        }
        handle.store.put(&key, value.to_string().into()).await.unwrap();
    };
    let data = stored(&handle, "data/").await;
    // The log of metadata still tells that ours was current once ..
    expire(true).await;
    let metadata = stored(&handle, "metadata/").await;
    let again = swapped_again(&handle.store, &catalog, &base, &change.commit_id).await;
    assert!(matches!(again, Ok(Replaced::Yes(_))), "{again:?}");
    // .. and when it does not, nobody knows, and nothing is deleted.
    expire(false).await;
    let again = swapped_again(&handle.store, &catalog, &base, &change.commit_id).await;
    assert!(matches!(again, Ok(Replaced::Unknown(_))), "{again:?}");
    assert_eq!(stored(&handle, "data/").await, data);
    assert_eq!(stored(&handle, "metadata/").await, metadata);
}

/// Two writers from one base: the answer to the first is lost, and the second builds upon it before anybody looks.
#[tokio::test]
async fn a_commit_that_somebody_built_upon_is_recognised() {
    let (handle, catalog) = table().await;
    let (base, change) = staged(&handle).await;
    catalog.fail_next([SwapFault::DeniedAfterwards]);
    let ours = handle.format.publish(&base, &change).await.unwrap();
    assert!(matches!(ours, Outcome::Committed(_)), "{ours:?}");
    append(&handle).await.unwrap();
    let found = handle.format.find(&change.commit_id, &base).await.unwrap();
    assert!(found.is_some());
    assert_eq!(files(&handle).await.len(), 2);
    let again = handle.format.publish(&base, &change).await.unwrap();
    assert!(matches!(again, Outcome::Lost), "{again:?}");
    assert_eq!(files(&handle).await.len(), 2);
}
