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
use object_store::{Error as StoreError, GetOptions, GetRange, GetResultPayload, ObjectStoreExt};

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
    /// The same of a range of an object.
    ///
    /// # Errors
    /// As [`Store::get_range`].
    pub(crate) async fn fetch_range(&self, path: &str, range: Range<u64>) -> Result<Fetched> {
        let key = self.key(path)?;
        let options = GetOptions {
            range: Some(GetRange::Bounded(range.clone())),
            ..GetOptions::default()
        };
        let ask = || async {
            let found = self.inner.get_opts(&key, options.clone()).await?;
            Ok(match found.payload {
                GetResultPayload::File(file, _) => From::File(file, found.range),
                GetResultPayload::Stream(pieces) => From::Pieces(pieces.try_collect().await?),
            })
        };
        let found = self.absent_is_none("read", path, self.retry.run(ask).await)?;
        let from = found.ok_or_else(|| self.absent(path))?;
        let there = match &from {
            From::File(_, range) => range.end - range.start,
            From::Pieces(pieces) => pieces.iter().map(|piece| piece.len() as u64).sum(),
        };
        let wanted = range.end - range.start;
        if there != wanted {
            return Err(self.cut_short(path, range.start, wanted, there));
        }
        let place = self.place(path);
        Ok(Fetched { place, from })
    }

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
        self.bytes_in(Vec::new())
    }

    /// The same in an empty buffer.
    ///
    /// # Errors
    /// See [`Fetched::bytes`].
    pub(crate) fn bytes_in(self, mut bytes: Vec<u8>) -> Result<Vec<u8>> {
        match self.from {
            From::File(mut file, range) => {
                let length = range.end - range.start;
                bytes.reserve_exact(usize::try_from(length).unwrap_or_default());
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
            From::Pieces(pieces) => {
                bytes.reserve_exact(pieces.iter().map(Bytes::len).sum());
                pieces.iter().for_each(|piece| bytes.extend_from_slice(piece));
                Ok(bytes)
            }
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
            let fetched = store.fetch_range("a", 7..200_000).await.unwrap();
            let buffer = Vec::with_capacity(1 << 20);
            let at = buffer.as_ptr();
            let read = fetched.bytes_in(buffer).unwrap();
            assert!(
                read == bytes[7..200_000] && read.as_ptr() == at,
                "in the buffer that is there"
            );
            for beyond in [299_999..300_001, 300_000..300_010] {
                assert!(store.fetch_range("a", beyond).await.is_err());
            }
            let absent = store.fetch_range("b", 0..1).await;
            assert!(matches!(absent, Err(Error::NotFound { .. })));
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
