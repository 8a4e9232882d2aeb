//! Deletion vectors: where they are, reading and writing them (Delta protocol, "Deletion Vectors").

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use uuid::Uuid;

use super::actions::Vector;
use super::z85;
use crate::error::{Error, Result};
use crate::model::limits;
use crate::model::{CommitId, DataFile, MaskRef, RowMask, deletion_vector};
use crate::store::{Created, Store, clock};

/// First byte of a deletion vector file.
const FILE_VERSION: u8 = 1;
/// Characters of a UUID in base 85.
const UUID_LENGTH: usize = 20;
/// Masks read at the same time.
const CONCURRENT_READS: usize = 16;

/// The mask that a descriptor points to. [`MaskRef::recorded`] is the storage type followed by the
/// path or data, as recorded; [`MaskRef::bytes`] is the size of the vector without its frame.
///
/// # Errors
/// [`Error::Invalid`] when the descriptor is not one of the protocol; [`Error::Denied`] when it points
/// outside the table.
pub(super) fn mask_ref(vector: &Vector, store: &Store) -> Result<MaskRef> {
    let text = &vector.path_or_inline_dv;
    let broken = |what: &str| {
        Error::invalid(
            format!("the deletion vector {:?} {what}", vector.id()),
            "the Delta log",
        )
    };
    let (path, inline) = match vector.storage_type.as_str() {
        "i" => {
            let mut bytes = z85::decode(text).ok_or_else(|| broken("is not base 85"))?;
            // Base 85 pads to whole groups of four bytes; the descriptor has the true size.
            let size = usize::try_from(vector.size_in_bytes).unwrap_or(usize::MAX);
            if size > bytes.len() {
                return Err(broken("is shorter than its size"));
            }
            bytes.truncate(size);
            (String::new(), Some(bytes))
        }
        "u" => {
            let at = text
                .len()
                .checked_sub(UUID_LENGTH)
                .filter(|at| text.is_char_boundary(*at))
                .ok_or_else(|| broken("has no UUID"))?;
            let (prefix, id) = text.split_at(at);
            let id = z85::decode(id)
                .and_then(|bytes| Uuid::from_slice(&bytes).ok())
                .ok_or_else(|| broken("has no UUID"))?;
            let path = file_name(&id);
            let path = if prefix.is_empty() {
                path
            } else {
                format!("{prefix}/{path}")
            };
            (store.relative(&path)?, None)
        }
        "p" => (store.relative_encoded(text)?, None),
        _ => return Err(broken("has an unknown storage type")),
    };
    let unsigned = |value: i64, what: &str| u64::try_from(value).map_err(|_| broken(what));
    Ok(MaskRef {
        offset: match inline {
            Some(_) => None,
            None => Some(unsigned(vector.offset.unwrap_or(1), "has a negative offset")?),
        },
        path,
        recorded: format!("{}{text}", vector.storage_type),
        bytes: Some(unsigned(vector.size_in_bytes, "has a negative size")?),
        inline,
        rows: Some(unsigned(vector.cardinality, "has a negative cardinality")?),
        shared: false,
    })
}

/// The descriptor that [`mask_ref`] read, or of a mask that [`stage`] wrote.
///
/// # Errors
/// [`Error::Invalid`] for a mask that this format did not make.
pub(super) fn descriptor(file: &DataFile) -> Result<Option<Vector>> {
    let foreign = || Error::invalid("the mask was not made by this table", &file.path);
    let mask = match file.masks.as_slice() {
        [] => return Ok(None),
        [one] => one,
        _ => return Err(foreign()),
    };
    let storage_type = mask.recorded.get(..1).ok_or_else(foreign)?;
    let signed = |value: Option<u64>| value.and_then(|v| i64::try_from(v).ok()).ok_or_else(foreign);
    Ok(Some(Vector {
        storage_type: storage_type.to_owned(),
        path_or_inline_dv: mask.recorded[1..].to_owned(),
        offset: mask.offset.map(|offset| signed(Some(offset))).transpose()?,
        size_in_bytes: signed(mask.bytes)?,
        cardinality: signed(mask.rows)?,
    }))
}

/// Reads the masks of these files, in their order.
pub(super) async fn read(store: &Store, files: &[DataFile]) -> Result<Vec<RowMask>> {
    stream::iter(files.to_vec())
        .map(|file| {
            let store = store.clone();
            async move { read_one(&store, &file).await }
        })
        .buffered(CONCURRENT_READS)
        .try_collect()
        .await
}

async fn read_one(store: &Store, file: &DataFile) -> Result<RowMask> {
    let Some(mask) = file.masks.first() else {
        return Ok(RowMask::new());
    };
    let decoded = if let Some(bytes) = &mask.inline {
        deletion_vector::decode(bytes, &file.path)?
    } else {
        limits::at_most(
            mask.bytes.unwrap_or(0),
            store.limits().mask_bytes,
            "bytes of a deletion vector",
            &mask.path,
        )?;
        let start = mask.offset.unwrap_or(0);
        let end = mask
            .bytes
            .and_then(|bytes| start.checked_add(bytes)?.checked_add(8))
            .ok_or_else(|| Error::invalid("the deletion vector's place is out of range", &mask.path))?;
        let frame = store.get_range(&mask.path, start..end).await?;
        deletion_vector::decode_framed(&frame, &mask.path)?
    };
    deletion_vector::check(&decoded, file.rows, mask.rows, &file.path)?;
    Ok(decoded)
}

/// Writes masks into one new file; returns the data files that refer to it, and its key.
pub(super) async fn stage(
    store: &Store,
    masks: Vec<(DataFile, RowMask)>,
    operation: &CommitId,
) -> Result<(Vec<DataFile>, Vec<String>)> {
    if masks.is_empty() {
        return Ok((Vec::new(), Vec::new()));
    }
    let mut bytes = vec![FILE_VERSION];
    let mut places = Vec::with_capacity(masks.len());
    for (file, mask) in &masks {
        deletion_vector::check(mask, file.rows, None, &file.path)?;
        places.push(bytes.len());
        bytes.extend(deletion_vector::encode_framed(mask)?);
    }
    let ends: Vec<usize> = places[1..].iter().copied().chain([bytes.len()]).collect();
    let id = write(store, bytes.into(), operation).await?;
    let path = file_name(&id);
    let recorded = format!("u{}", z85::encode(id.as_bytes()));
    let files = masks
        .into_iter()
        .zip(places.into_iter().zip(ends))
        .map(|((mut file, mask), (start, end))| {
            file.masks.clear();
            if !mask.is_empty() {
                file.masks.push(MaskRef {
                    path: path.clone(),
                    recorded: recorded.clone(),
                    offset: Some(start as u64),
                    // Without the length field in front and the checksum behind.
                    bytes: Some((end - start - 8) as u64),
                    inline: None,
                    rows: Some(mask.len()),
                    shared: false,
                });
            }
            file
        })
        .collect();
    Ok((files, vec![path]))
}

/// Writes a deletion vector file. It is named by the operation's id, so that whose it is can be seen;
/// by a new one where the operation has written such a file before.
async fn write(store: &Store, bytes: Bytes, operation: &CommitId) -> Result<Uuid> {
    let fresh = || {
        clock::new_commit_id()
            .0
            .parse()
            .map_err(|e| Error::invalid(format!("a new id is not a UUID: {e}"), ""))
    };
    let mut id = match operation.0.parse() {
        Ok(id) => id,
        Err(_) => fresh()?,
    };
    loop {
        match store.create(&file_name(&id), bytes.clone()).await? {
            Created::Yes => return Ok(id),
            Created::Exists => id = fresh()?,
            Created::Unknown(error) => return Err(error),
        }
    }
}

fn file_name(id: &Uuid) -> String {
    format!("deletion_vector_{id}.bin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_protocol_resolves_to_its_path() {
        // Delta protocol, "Derived Fields": the descriptor of its example and the absolute path it has.
        let vector = Vector {
            storage_type: "u".into(),
            path_or_inline_dv: "ab^-aqEH.-t@S}K{vb[*k^".into(),
            offset: Some(4),
            size_in_bytes: 40,
            cardinality: 6,
        };
        let store = crate::delta::tests::memory();
        let mask = mask_ref(&vector, &store).unwrap();
        assert_eq!(
            mask.path,
            "ab/deletion_vector_d2c639aa-8816-431a-aaf6-d3fe2512ff61.bin"
        );
        assert_eq!((mask.offset, mask.bytes, mask.rows), (Some(4), Some(40), Some(6)));
    }

    #[test]
    fn the_inline_example_of_the_protocol_decodes_to_its_rows() {
        let vector = Vector {
            storage_type: "i".into(),
            path_or_inline_dv: "^Bg9^0rr910000000000iXQKl0rr91000f55c8Xg0@@D72lkbi5=-{L".into(),
            offset: None,
            size_in_bytes: 44,
            cardinality: 6,
        };
        let store = crate::delta::tests::memory();
        let mask = mask_ref(&vector, &store).unwrap();
        let rows = deletion_vector::decode(mask.inline.as_ref().unwrap(), "x").unwrap();
        assert_eq!(rows.iter().collect::<Vec<_>>(), [3, 4, 7, 11, 18, 29]);
    }

    #[test]
    fn a_descriptor_that_leaves_the_table_is_refused() {
        let store = crate::delta::tests::memory();
        let mut vector = Vector {
            storage_type: "p".into(),
            path_or_inline_dv: "../other/dv.bin".into(),
            ..Vector::default()
        };
        assert!(mask_ref(&vector, &store).is_err());
        vector.path_or_inline_dv = "s3://elsewhere/dv.bin".into();
        assert!(mask_ref(&vector, &store).is_err());
        vector.storage_type = "q".into();
        assert!(mask_ref(&vector, &store).is_err());
    }
}
