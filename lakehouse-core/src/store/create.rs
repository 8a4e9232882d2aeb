//! Put-if-absent whose answer is certain (`Store::create`).
//!
//! A store's reply to a conditional put can lie both ways: a lost reply that the client repeats comes
//! back as "already exists" although the object is ours, and some stores answer so while another put is
//! in flight that then fails. So every reply but success is settled by reading the object back. The
//! name is used for one content only, so the same put can be repeated until the answer is certain.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::failure::{Retry, explain, is_certain, scrubbed};
use crate::error::{Error, Result};
use crate::planted::{self, Bug};

/// Puts of one name at most; the pauses between them double.
const ATTEMPTS: u32 = 8;

/// How a put-if-absent ended.
#[derive(Debug)]
pub enum Created {
    /// The object is there and it is ours, byte for byte, whatever the store replied on the way.
    Yes,
    /// Another object has the name.
    Exists,
    /// The store kept failing and the object could not be read back: it may still appear.
    Unknown(Error),
}

/// Repeats the put until it is known who has the name. `mode` is [`PutMode::Create`], or, where nobody else writes
/// and the name was seen to be free, [`PutMode::Overwrite`].
pub(super) async fn until_certain(
    store: &dyn ObjectStore,
    key: &Path,
    bytes: Bytes,
    mode: &PutMode,
    retry: Retry,
    place: &(dyn Fn() -> String + Sync),
) -> Result<Created> {
    let mut attempt = 1;
    // Once a put has ended without an answer, it may land later: then no failure is certain any more.
    let mut in_flight = false;
    loop {
        let options = PutOptions::from(mode.clone());
        let payload = PutPayload::from(bytes.clone());
        let Err(error) = store.put_opts(key, payload, options).await else {
            return Ok(Created::Yes);
        };
        if is_certain(&error) && (!in_flight || planted::is(Bug::LateWriteForgotten)) {
            return Err(explain("create", place(), error));
        }
        let exists = matches!(
            error,
            object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }
        );
        if exists && (planted::is(Bug::ExistsUnread) || (in_flight && planted::is(Bug::LostReplyIsALoss))) {
            return Ok(Created::Exists);
        }
        in_flight |= !exists;
        if in_flight && attempt < ATTEMPTS && planted::is(Bug::LostReplyIsALoss) {
            attempt += 1;
            continue;
        }
        let read = || async { store.get(key).await?.bytes().await };
        let last = match retry.run(read).await {
            Ok(there) if there == bytes => return Ok(Created::Yes),
            Ok(_) => return Ok(Created::Exists),
            // Not there, whatever the put's reply said: put it again.
            Err(object_store::Error::NotFound { .. }) => error,
            Err(unread) => unread,
        };
        let why = scrubbed(&last.to_string());
        tracing::debug!(attempt, why, %key, "the outcome of a create is open; asking again");
        if attempt >= ATTEMPTS {
            return Ok(Created::Unknown(explain("create", place(), last)));
        }
        retry.pause(attempt).await;
        attempt += 1;
    }
}
