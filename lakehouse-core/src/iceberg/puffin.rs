//! Puffin files of deletion vectors (Iceberg spec, "Deletion Vectors"; Puffin spec, `deletion-vector-v1`).

use std::collections::HashMap;

use bytes::Bytes;
use iceberg::io::FileIO;
use iceberg::puffin::{
    Blob, CREATED_BY_PROPERTY, CompressionCodec, DELETION_VECTOR_V1, PuffinReader, PuffinWriter,
};

use crate::error::{Error, Result};
use crate::model::{RowMask, deletion_vector};

/// Field id that deletion vectors are filed under: `_pos` (spec, "Reserved Field IDs").
const ROW_POSITION_ID: i32 = i32::MAX - 2;

/// Where a blob lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) offset: u64,
    pub(super) length: u64,
}

/// One file with a deletion vector per data file (paths as recorded). The extents are in the order given.
///
/// # Errors
/// When a mask is too large for the format.
pub(super) async fn encode(masks: &[(String, &RowMask)]) -> Result<(Bytes, Vec<Extent>)> {
    let failed =
        |e: iceberg::Error| Error::invalid(format!("cannot write a Puffin file: {}", e.message()), "");
    let io = FileIO::new_with_memory();
    let output = io.new_output("deletes.puffin").map_err(failed)?;
    let created_by = concat!("lakehouse ", env!("CARGO_PKG_VERSION")).to_owned();
    let properties = HashMap::from([(CREATED_BY_PROPERTY.to_owned(), created_by)]);
    let mut writer = PuffinWriter::new(&output, properties, false)
        .await
        .map_err(failed)?;
    for (recorded, mask) in masks {
        let blob = Blob::builder()
            .r#type(DELETION_VECTOR_V1.to_owned())
            .fields(vec![ROW_POSITION_ID])
            // Not known before the commit; the spec asks for -1.
            .snapshot_id(-1)
            .sequence_number(-1)
            .data(deletion_vector::encode_framed(mask)?)
            .properties(HashMap::from([
                ("referenced-data-file".to_owned(), recorded.clone()),
                ("cardinality".to_owned(), mask.len().to_string()),
            ]))
            .build();
        writer.add(blob, CompressionCodec::None).await.map_err(failed)?;
    }
    writer.close().await.map_err(failed)?;
    let bytes = io
        .new_input("deletes.puffin")
        .map_err(failed)?
        .read()
        .await
        .map_err(failed)?;
    let reader = PuffinReader::new(output.to_input_file());
    let footer = reader.file_metadata().await.map_err(failed)?;
    let extents = footer.blobs().iter().map(|blob| Extent {
        offset: blob.offset(),
        length: blob.length(),
    });
    Ok((bytes, extents.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_vector_lies_at_its_extent() {
        let masks: Vec<RowMask> = vec![[1, 2, 3].into_iter().collect(), (0..70_000).collect()];
        let named: Vec<_> = masks
            .iter()
            .enumerate()
            .map(|(i, mask)| (format!("f{i}"), mask))
            .collect();
        let (bytes, extents) = encode(&named).await.unwrap();
        assert_eq!(&bytes[..4], b"PFA1");
        for (mask, extent) in masks.iter().zip(extents) {
            let range = extent.offset as usize..(extent.offset + extent.length) as usize;
            assert_eq!(deletion_vector::decode_framed(&bytes[range], "x").unwrap(), *mask);
        }
    }
}
