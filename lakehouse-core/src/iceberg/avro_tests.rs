use std::io::Write;

use super::*;

const SYNC_MARK: [u8; SYNC] = [7; SYNC];

fn file(schema: &str, codec: &str, blocks: &[(u64, Vec<u8>)]) -> Bytes {
    let header = HashMap::from([("avro.schema".to_owned(), schema.as_bytes())]);
    let mut out = without_codec(&header, &[]);
    // The codec goes in as a second block of the header's map, before its end.
    out.pop();
    put_varint(&mut out, 1);
    for text in ["avro.codec", codec] {
        put_varint(&mut out, text.len() as u64);
        out.extend(text.bytes());
    }
    out.push(0);
    out.extend(SYNC_MARK);
    for (count, bytes) in blocks {
        put_varint(&mut out, *count);
        put_varint(&mut out, bytes.len() as u64);
        out.extend(bytes);
        out.extend(SYNC_MARK);
    }
    out.into()
}

fn deflate(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn snappy(bytes: &[u8]) -> Vec<u8> {
    let mut out = snap::raw::Encoder::new().compress_vec(bytes).unwrap();
    out.extend(crc32fast::hash(bytes).to_be_bytes());
    out
}

fn zstandard(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 3).unwrap()
}

type Compress = fn(&[u8]) -> Vec<u8>;
const CODECS: [(&str, Compress); 4] = [
    ("null", <[u8]>::to_vec),
    ("deflate", deflate),
    ("snappy", snappy),
    ("zstandard", zstandard),
];

fn refused(file: &Bytes) -> String {
    checked(file, "metadata/m.avro").unwrap_err().to_string()
}

#[test]
fn every_codec_goes_on_to_the_decoder_without_compression() {
    let schema = r#"{"type":"record","name":"r","fields":[
        {"name":"a","type":["null","string"]},
        {"name":"b","type":{"type":"array","items":{"type":"fixed","name":"f","size":2}}},
        {"name":"c","type":{"type":"map","values":"f"}}]}"#;
    // "hi"; two of two bytes, in a block with its size; one entry "k".
    let record = [2, 4, b'h', b'i', 3, 8, 1, 2, 3, 4, 0, 2, 2, b'k', 9, 9, 0];
    let plain = checked(
        &file(schema, "null", &[(2, record.repeat(2)), (1, record.to_vec())]),
        "m",
    )
    .unwrap();
    let body = plain.len() - 3 * record.len();
    for (codec, compress) in CODECS {
        let blocks = [(2, compress(&record.repeat(2))), (1, compress(&record))];
        let found = checked(&file(schema, codec, &blocks), "m").unwrap();
        let again = checked(&found, "m").unwrap();
        assert_eq!(found, again, "{codec}");
        assert!(found.len() >= body - 40, "{codec}");
        assert!(
            found.windows(record.len()).filter(|at| *at == record).count() == 3,
            "{codec}"
        );
        // Every cut and every changed byte ends in an answer.
        let whole = file(schema, codec, &blocks);
        for at in 0..whole.len() {
            let _ = checked(&whole.slice(..at), "m");
            let mut changed = whole.to_vec();
            changed[at] ^= 0x55;
            let _ = checked(&changed.into(), "m");
        }
    }
}

#[test]
fn a_block_that_grows_beyond_the_limit_is_refused_in_every_codec() {
    let bomb = vec![0; AVRO_BLOCK_BYTES as usize + 1];
    for (codec, compress) in CODECS {
        let error = refused(&file(r#""bytes""#, codec, &[(1, compress(&bomb))]));
        assert!(
            error.contains("67108864") && error.contains("metadata/m.avro"),
            "{codec}: {error}"
        );
    }
    // One byte less is only no sound record.
    let error = refused(&file(r#""string""#, "zstandard", &[(1, zstandard(&bomb[1..]))]));
    assert!(error.contains("goes on after"), "{error}");
    let error = refused(&file(r#""string""#, "bzip2", &[]));
    assert!(error.contains("bzip2"), "{error}");
}

#[test]
fn counts_and_lengths_beyond_the_bytes_present_are_refused() {
    let long = |value: u64| {
        let mut out = Vec::new();
        put_varint(&mut out, value);
        out
    };
    let array = r#"{"type":"array","items":"null"}"#;
    let nested = format!(
        r#"{}"null"{}"#,
        r#"{"type":"array","items":"#.repeat(100),
        "}".repeat(100)
    );
    for (schema, count, block, expected) in [
        (r#""string""#, 1, long(1 << 40), "ends too early"),
        (r#""bytes""#, 1, vec![1], "negative"),
        (array, 1, long(1 << 40), "more elements"),
        (
            r#"{"type":"map","values":"long"}"#,
            1,
            long(1 << 30),
            "more elements",
        ),
        (r#""null""#, 1 << 50, vec![], "more records"),
        (r#""long""#, 1, vec![0xff; 11], "too long"),
        (r#"["null","long"]"#, 1, vec![4], "no such variant"),
        (r#""nobody""#, 1, vec![0], "does not define"),
        (
            r#"{"type":"record","name":"r","fields":[{"name":"r","type":"r"}]}"#,
            1,
            vec![0],
            "nested too deeply",
        ),
        (&nested, 1, vec![0], "nested too deeply"),
        (
            r#"{"type":"record","name":"a.r","fields":[{"name":"x","type":"long"},{"name":"y","type":"b.q"}]}"#,
            1,
            vec![0],
            "does not define",
        ),
        ("{", 1, vec![0], "schema"),
        ("\"a\\u0000b\"", 1, vec![0], "none of Avro"),
    ] {
        let error = refused(&file(schema, "null", &[(count, block)]));
        assert!(error.contains(expected), "{schema}: {error}");
    }
}

#[test]
fn records_that_take_no_bytes_cannot_multiply() {
    // Each level holds the one below twice: 2^40 values in nothing.
    let mut schema = r#"{"type":"record","name":"r0","fields":[]}"#.to_owned();
    for level in 1..40 {
        schema = format!(
            r#"{{"type":"record","name":"r{level}","fields":[{{"name":"a","type":{schema}}},{{"name":"b","type":"r{}"}}]}}"#,
            level - 1
        );
    }
    let error = refused(&file(&schema, "null", &[(1, vec![0])]));
    assert!(error.contains("values in an Avro file"), "{error}");
}
