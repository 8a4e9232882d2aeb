//! Objects that are put together on the thread that needs their bytes, and lets them go.
//!
//! The allocator of our programs (mimalloc 2) gives what one thread asked for and another one freed back to the first,
//! and for more than 128 KiB that one looks at it seldom: of a thousand objects read on one thread and decoded on
//! another all bytes stayed.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::{Error as StoreError, GetResultPayload, ObjectStoreExt};

use super::{Store, explain};
use crate::error::{Error, Result};
use crate::model::limits::{self, Limit};

/// An object that is there, to be read.
pub(crate) struct Fetched {
    place: String,
    from: From,
}

enum From {
    /// A file on this machine, open, and which bytes of it.
    File(File, Range<u64>),
    /// What came over the network.
    Pieces(Vec<Bytes>),
}

impl Store {
    /// An object whose bytes are taken later, `None` if it is not there.
    ///
    /// # Errors
    /// As [`Store::get_within`].
    pub(crate) async fn fetch_within(&self, path: &str, limit: Limit) -> Result<Option<Fetched>> {
        let key = self.key(path)?;
        let ask = || async {
            let found = self.inner.get(&key).await?;
            if found.meta.size > limit.most() {
                return Ok(Err(found.meta.size));
            }
            Ok(Ok(match found.payload {
                GetResultPayload::File(file, _) => From::File(file, found.range),
                GetResultPayload::Stream(pieces) => From::Pieces(pieces.try_collect().await?),
            }))
        };
        match self.absent_is_none("read", path, self.retry.run(ask).await)? {
            Some(Ok(from)) => Ok(Some(Fetched {
                place: self.place(path),
                from,
            })),
            Some(Err(size)) => Err(limits::over(&format!("a file of {size} bytes"), limit, path)),
            None => Ok(None),
        }
    }
}

impl Fetched {
    /// Its bytes. Reads a file of this machine: not for async threads.
    ///
    /// # Errors
    /// Those of reading, and [`Error::Invalid`] when the file has become shorter.
    pub(crate) fn bytes(self) -> Result<Vec<u8>> {
        match self.from {
            From::File(mut file, range) => {
                let length = range.end - range.start;
                let mut bytes = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
                let read = file
                    .seek(SeekFrom::Start(range.start))
                    .and_then(|_| file.take(length).read_to_end(&mut bytes));
                match read {
                    Ok(read) if read as u64 == length => Ok(bytes),
                    Ok(read) => Err(Error::invalid(
                        format!("the file is cut short: it had {length} bytes and now has {read}"),
                        self.place,
                    )),
                    Err(error) => {
                        let source = Box::new(error);
                        Err(explain(
                            "read",
                            self.place,
                            StoreError::Generic {
                                store: "LocalFileSystem",
                                source,
                            },
                        ))
                    }
                }
            }
            From::Pieces(pieces) => Ok(pieces.concat()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;

    #[tokio::test]
    async fn bytes_are_those_that_were_put_and_what_is_absent_or_too_large_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let local = Store::open(folder.path().to_str().unwrap()).unwrap();
        let memory = Store::over(Arc::new(InMemory::new()), "memory://fetched".parse().unwrap());
        for store in [local, memory] {
            let limit = Limit::fixed(300_000);
            assert!(store.fetch_within("a", limit).await.unwrap().is_none());
            let bytes: Vec<u8> = (0..300_000_u32).map(|at| (at % 251) as u8).collect();
            store.put("a", bytes.clone().into()).await.unwrap();
            let fetched = store.fetch_within("a", limit).await.unwrap().unwrap();
            assert!(fetched.bytes().unwrap() == bytes);
            let refused = store.fetch_within("a", Limit::fixed(299_999)).await;
            assert!(matches!(refused, Err(Error::Limit { .. })));
        }
    }

    #[tokio::test]
    async fn a_file_that_shrinks_before_it_is_read_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path().to_str().unwrap()).unwrap();
        store.put("a", Bytes::from_static(b"0123456789")).await.unwrap();
        let fetched = store.fetch_within("a", Limit::fixed(100)).await.unwrap().unwrap();
        std::fs::write(folder.path().join("a"), "0123").unwrap();
        let error = fetched.bytes().unwrap_err().to_string();
        assert!(
            error.contains("10 bytes and now has 4") && error.contains("a"),
            "{error}"
        );
    }
}
