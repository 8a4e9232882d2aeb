//! Whether a store really refuses to overwrite: asked before the first commit to a store that nobody vouches for.
//!
//! Some servers take the condition of a put and ignore it; then two writers publish one version, and the second
//! erases what the first was told is safe.

use object_store::path::Path;
use object_store::{Error as StoreError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::clock;
use super::failure::{Retry, explain, scrubbed, status};
use crate::error::{Error, Result};

/// Names of probes: hidden from engines that list folders.
pub(super) const PREFIX: &str = ".lake-probe-";

/// Creates an object twice, deletes it, creates it again.
///
/// # Errors
/// [`Error::Unsupported`] when the second create succeeds or the last one fails.
pub(super) async fn probe(store: &dyn ObjectStore, place: &str, retry: Retry) -> Result<()> {
    let key = Path::from(format!("{PREFIX}{}", clock::new_commit_id().0));
    let create = |content: &'static str| {
        let key = &key;
        async move {
            let options = PutOptions::from(PutMode::Create);
            store
                .put_opts(key, PutPayload::from_static(content.as_bytes()), options)
                .await
        }
    };
    let refused = |why: &str| {
        Error::unsupported(
            format!("the store at {place} cannot hold a table safely: {why}"),
            "use a store with conditional writes (If-None-Match), or --unsafe-single-writer if nobody else ever \
             writes to this table",
        )
    };
    let result = async {
        // A repeated create may meet its own first attempt: that is a refusal too, and what is asked for.
        match retry.run(|| create("first")).await {
            Ok(_) | Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            Err(StoreError::NotImplemented { .. } | StoreError::NotSupported { .. }) => {
                return Err(refused("it does not know conditional writes"));
            }
            Err(error) if status(&error.to_string()) == Some(501) => {
                return Err(refused("it does not know conditional writes"));
            }
            Err(error) => return Err(explain("write to", place.to_owned(), error)),
        }
        match retry.run(|| create("second")).await {
            Ok(_) => {
                return Err(refused(
                    "it overwrites an object that was to be created only if absent",
                ));
            }
            Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {}
            Err(error) => return Err(explain("write to", place.to_owned(), error)),
        }
        // Whoever may not delete cannot be asked the last question.
        if retry.run(|| store.delete(&key)).await.is_ok() {
            match retry.run(|| create("third")).await {
                Ok(_) => {}
                Err(StoreError::AlreadyExists { .. } | StoreError::Precondition { .. }) => {
                    // Or it was ours, and only its reply was lost.
                    let read = || async { store.get(&key).await?.bytes().await };
                    if retry.run(read).await.ok().as_deref() != Some(b"third") {
                        return Err(refused("it refuses a name whose object was deleted"));
                    }
                }
                Err(error) => return Err(explain("write to", place.to_owned(), error)),
            }
        }
        Ok(())
    }
    .await;
    if let Err(error) = store.delete(&key).await {
        let error = scrubbed(&error.to_string());
        tracing::debug!(error, %key, "a probe could not be deleted");
    }
    result
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::store::Store;
    use crate::store::sim::{Fault, faulty};

    #[tokio::test]
    async fn a_store_that_refuses_to_overwrite_passes_and_keeps_nothing() {
        let store = InMemory::new();
        probe(&store, "here", Retry::NEAR).await.unwrap();
        assert!(store.list_with_delimiter(None).await.unwrap().objects.is_empty());
    }

    #[tokio::test]
    async fn a_lost_reply_to_the_probe_is_no_verdict_against_the_store() {
        for at in 1..=5 {
            for fault in [Fault::FailBefore, Fault::FailAfter] {
                let over = Store::over(Arc::new(InMemory::new()), "memory://probe".parse().unwrap());
                let (store, faults) = faulty(&over);
                faults.fail_at(at, fault);
                probe(store.object_store().as_ref(), "here", Retry::NEAR)
                    .await
                    .unwrap();
            }
        }
    }
}
