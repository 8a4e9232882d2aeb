use std::collections::BTreeMap;
use std::fmt;
use std::io::Write;

use iceberg::spec::ByteBuf;
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::*;
use crate::error::Error;

const SYNC_MARK: [u8; SYNC as usize] = [7; SYNC as usize];

/// A number that is not negative, zigzag.
fn put_varint(out: &mut Vec<u8>, value: u64) {
    let mut left = value << 1;
    while left >= 0x80 {
        out.push(left as u8 | 0x80);
        left >>= 7;
    }
    out.push(left as u8);
}

fn put_text(out: &mut Vec<u8>, text: &[u8]) {
    put_varint(out, text.len() as u64);
    out.extend(text);
}

fn file(schema: &str, codec: &str, blocks: &[(u64, Vec<u8>)]) -> Vec<u8> {
    let mut out = MAGIC.to_vec();
    // The header's map in two blocks.
    for (key, value) in [("avro.schema", schema), ("avro.codec", codec)] {
        put_varint(&mut out, 1);
        put_text(&mut out, key.as_bytes());
        put_text(&mut out, value.as_bytes());
    }
    out.push(0);
    out.extend(SYNC_MARK);
    for (count, bytes) in blocks {
        put_varint(&mut out, *count);
        put_text(&mut out, bytes);
        out.extend(SYNC_MARK);
    }
    out
}

fn read<T: DeserializeOwned>(file: &[u8]) -> Result<Vec<T>> {
    read_within(file, &Limits::default())
}

fn read_within<T: DeserializeOwned>(file: &[u8], limits: &Limits) -> Result<Vec<T>> {
    let mut records = Vec::new();
    File::open(file, limits, "metadata/m.avro")?.records(|record| {
        records.push(record);
        Ok(())
    })?;
    Ok(records)
}

/// Takes every value there is.
struct All;

impl<'de> Deserialize<'de> for All {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(Self)
    }
}

impl<'de> Visitor<'de> for All {
    type Value = Self;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("anything")
    }

    fn visit_unit<E>(self) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_bool<E>(self, _: bool) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_i64<E>(self, _: i64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_f64<E>(self, _: f64) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_str<E>(self, _: &str) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_bytes<E>(self, _: &[u8]) -> std::result::Result<Self, E> {
        Ok(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> std::result::Result<Self, A::Error> {
        while seq.next_element::<Self>()?.is_some() {}
        Ok(self)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Self, A::Error> {
        while map.next_entry::<String, Self>()?.is_some() {}
        Ok(self)
    }
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

/// Why a file is refused: the same, whether its values are asked for or passed over.
fn refused(file: &[u8]) -> String {
    let error = read::<All>(file).err().expect("it is refused").to_string();
    let passed_over = read::<IgnoredAny>(file).unwrap_err().to_string();
    assert_eq!(error, passed_over);
    error
}

#[derive(Debug, PartialEq, Deserialize)]
struct Record {
    a: Option<String>,
    b: Vec<ByteBuf>,
    c: BTreeMap<String, ByteBuf>,
    d: f64,
    e: f32,
    missing: Option<i64>,
    f: bool,
    h: u8,
}

#[test]
fn records_are_read_in_every_codec_by_name_whatever_else_is_there() {
    let schema = r#"{"type":"record","name":"r","fields":[
        {"name":"f","type":"boolean"},
        {"name":"a","type":["null","string"]},
        {"name":"passed_over","type":{"type":"map","values":["string",{"type":"array","items":"r"}]}},
        {"name":"b","type":{"type":"array","items":{"type":"fixed","name":"f","size":2}}},
        {"name":"c","type":{"type":"map","values":"f"}},
        {"name":"g","type":{"type":"enum","name":"s","symbols":["x","y"]}},
        {"name":"d","type":"double"},
        {"name":"e","type":["float","null"]},
        {"name":"h","type":"int"}]}"#;
    let record = [
        &[1][..],                     // true
        &[2, 4, b'h', b'i'],          // "hi"
        &[2, 2, b'k', 0, 2, b'v', 0], // {"k": "v"}
        &[3, 8, 1, 2, 3, 4, 0],       // two of two bytes, in a block with its size
        &[2, 2, b'k', 9, 9, 0],       // {"k": [9, 9]}
        &[2],                         // y
        &1.5_f64.to_le_bytes(),
        &[0],
        &(-2.5_f32).to_le_bytes(),
        &[14], // 7
    ]
    .concat();
    let expected = || Record {
        a: Some("hi".into()),
        b: vec![ByteBuf::from([1, 2]), ByteBuf::from([3, 4])],
        c: [("k".to_owned(), ByteBuf::from([9, 9]))].into(),
        d: 1.5,
        e: -2.5,
        missing: None,
        f: true,
        h: 7,
    };
    for (codec, compress) in CODECS {
        let blocks = [(2, compress(&record.repeat(2))), (1, compress(&record))];
        let whole = file(schema, codec, &blocks);
        assert_eq!(
            read::<Record>(&whole).unwrap(),
            [expected(), expected(), expected()],
            "{codec}"
        );
        assert_eq!(read::<IgnoredAny>(&whole).unwrap().len(), 3, "{codec}");
        // Every cut and every changed byte ends in an answer.
        for at in 0..whole.len() {
            let _ = read::<Record>(&whole[..at]);
            let mut changed = whole.clone();
            changed[at] ^= 0x55;
            let (taken, passed_over) = (
                read::<All>(&changed).is_ok(),
                read::<IgnoredAny>(&changed).is_ok(),
            );
            assert!(passed_over || !taken, "{codec}: byte {at}");
        }
    }
}

#[test]
fn a_block_that_grows_beyond_the_limit_is_refused_in_every_codec() {
    let bomb = vec![0; Limits::default().avro_block_bytes.most() as usize + 1];
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
fn each_limit_lets_through_what_it_says_and_not_one_more() {
    let block = [&[18], [b'x'; 9].as_slice()].concat().repeat(10);
    for (codec, compress) in CODECS {
        let blocks = [(10, compress(&block)), (10, compress(&block))];
        let file = file(r#""string""#, codec, &blocks);
        for (option, most) in [
            ("max_avro_block_bytes", 100),
            ("max_avro_bytes", 200),
            ("max_avro_values", 20),
        ] {
            let read = |most: u64| {
                let mut limits = Limits::default();
                limits.set(option, &most.to_string()).unwrap();
                read_within::<String>(&file, &limits)
            };
            read(most).unwrap();
            let error = read(most - 1).unwrap_err();
            assert!(matches!(error, Error::Limit { .. }), "{codec} {option}: {error}");
            assert!(
                error.hint().unwrap().ends_with(option),
                "{codec} {option}: {error}"
            );
        }
    }
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
        (
            &format!(r#"{{"type":"fixed","name":"{}","size":1}}"#, "x".repeat(2000)),
            1,
            vec![0],
            "none of Avro",
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
    let error = read::<IgnoredAny>(&file(&schema, "null", &[(1, vec![0])]))
        .unwrap_err()
        .to_string();
    assert!(error.contains("values in an Avro file"), "{error}");
}
