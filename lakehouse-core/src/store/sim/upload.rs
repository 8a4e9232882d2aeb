//! Uploads in parts that fail.

use async_trait::async_trait;
use futures::FutureExt;
use object_store::{MultipartUpload, PutPayload, PutResult, Result, UploadPart};

use super::{Fault, Faults, Kind, Met, injected, injected_error, not_late, reply};

#[derive(Debug)]
pub(super) struct FaultUpload {
    pub(super) inner: Box<dyn MultipartUpload>,
    pub(super) faults: Faults,
    pub(super) path: String,
    /// The store has given it up.
    pub(super) torn: bool,
}

impl FaultUpload {
    fn meet(&mut self, bytes: u64) -> Result<Met> {
        let met = self.faults.meet(Kind::Put, &self.path, bytes);
        self.torn |= met
            .as_ref()
            .is_err_and(|error| injected(error) == Some(Fault::Torn));
        if self.torn {
            return Err(injected_error(Fault::Torn));
        }
        met
    }
}

#[async_trait]
impl MultipartUpload for FaultUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        match self.meet(data.content_length() as u64) {
            Err(error) => async { Err(error) }.boxed(),
            Ok(Met::Late | Met::Stray) => async { Err(injected_error(Fault::Late)) }.boxed(),
            Ok(met) => {
                let part = self.inner.put_part(data);
                async move { reply(met, part.await) }.boxed()
            }
        }
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let met = not_late(self.meet(0))?;
        reply(met, self.inner.complete().await)
    }

    async fn abort(&mut self) -> Result<()> {
        self.faults.meet(Kind::Delete, &self.path, 0)?;
        self.inner.abort().await
    }
}
