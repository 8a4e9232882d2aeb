//! Small damage to bytes and to JSON.

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use serde_json::{Value, json};

/// Bytes that parsers stumble over.
const PIECES: [&[u8]; 12] = [
    b"\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
    b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    b"\x80\x80\x80\x80\x04",
    b"\0\0\0\0\0\0\0\0",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b"\x19\xfc",
    b"\x19\xf8\xff\xff\xff\xff\x07",
    b"../",
    b"PAR1",
    b"[[[[[[[[",
    b"\x01",
];

/// Damages bytes in one to four places. `keep` leaves the length as it is.
pub(super) fn bytes(rng: &mut StdRng, bytes: &mut Vec<u8>, keep: bool) {
    for _ in 0..rng.random_range(1..=4) {
        if bytes.is_empty() {
            return;
        }
        let at = rng.random_range(0..bytes.len());
        let end = rng.random_range(at..=bytes.len().min(at + 32));
        match rng.random_range(0..if keep { 5 } else { 10 }) {
            0 => bytes[at] ^= 1 << rng.random_range(0..8),
            1 => bytes[at] = rng.random(),
            2 => bytes[at] = *[0, 1, 0x7f, 0x80, 0xff].choose(rng).unwrap(),
            3 | 4 => {
                let piece = PIECES.choose(rng).unwrap();
                let end = bytes.len().min(at + piece.len());
                bytes[at..end].copy_from_slice(&piece[..end - at]);
            }
            5 => drop(bytes.drain(at..end)),
            6 => {
                let copy = bytes[at..end].to_vec();
                bytes.splice(at..at, copy);
            }
            7 => {
                bytes.splice(at..at, PIECES.choose(rng).unwrap().iter().copied());
            }
            8 => bytes.truncate(at),
            _ => {
                let other = rng.random_range(0..bytes.len());
                bytes.swap(at, other);
            }
        }
    }
}

fn value(rng: &mut StdRng) -> Value {
    let nested = |kind: &str| {
        let mut inner = json!("long");
        for _ in 0..60 {
            inner = match kind {
                "list" => {
                    json!({"type": "list", "element-id": 9, "element-required": false, "element": inner})
                }
                _ => json!({"type": "array", "containsNull": true, "elementType": inner}),
            };
        }
        inner
    };
    let texts = [
        "",
        "..",
        "../../x",
        "file:///etc/passwd",
        "s3://b/x",
        "/",
        "%2e%2e/x",
        "a\0b",
        "bucket[0]",
        "bucket[4294967295]",
        "truncate[0]",
        "decimal(99,99)",
        "decimal(38, -1)",
        "decimal(0,0)",
        "decimal(10,38)",
        "fixed[0]",
        "fixed[18446744073709551615]",
        "struct",
        "timestamp_ns",
        "unknown",
        "void",
        "main",
        "-1",
        "1970-01-01",
        "99999999999999999999",
        "+294247-01-10T04:00:54.775807Z",
        "i",
        "u",
        "p",
        "interval 99999999999 weeks",
        "{",
        "\u{0}",
    ];
    match rng.random_range(0..12) {
        0 => json!(0),
        1 => json!(-1),
        2 => json!(i64::MAX),
        3 => json!(i64::MIN),
        4 => json!(u64::MAX),
        5 => json!(*[1e308, -0.5, 2_147_483_648.0, 1e19].choose(rng).unwrap()),
        6 => Value::Null,
        7 => json!(rng.random::<bool>()),
        8 => [
            json!([]),
            json!({}),
            json!([[]]),
            json!([null]),
            json!({"": null}),
        ]
        .choose(rng)
        .unwrap()
        .clone(),
        9 if rng.random_bool(0.3) => nested(["list", "array"].choose(rng).unwrap()),
        10 => json!([i32::MAX, i32::MIN, 1, 2, 1000].choose(rng).unwrap()),
        _ => json!(*texts.choose(rng).unwrap()),
    }
}

/// Changes one value somewhere in a document.
pub(super) fn json(rng: &mut StdRng, document: &mut Value) {
    let deeper = rng.random_bool(0.85);
    match document {
        Value::Object(fields) if deeper && !fields.is_empty() => {
            let names: Vec<String> = fields.keys().cloned().collect();
            let name = names.choose(rng).unwrap().clone();
            match rng.random_range(0..12) {
                0 => drop(fields.shift_remove(&name)),
                1 => {
                    let other = fields[names.choose(rng).unwrap()].clone();
                    fields.insert(name, other);
                }
                _ => json(rng, &mut fields[&name]),
            }
        }
        Value::Array(items) if deeper && !items.is_empty() => {
            let at = rng.random_range(0..items.len());
            match rng.random_range(0..10) {
                0 => drop(items.remove(at)),
                1 => items.push(items[at].clone()),
                2 => items.reverse(),
                _ => json(rng, &mut items[at]),
            }
        }
        // Documents within documents, such as the schema of Delta.
        Value::String(text) if text.starts_with('{') && deeper => {
            if let Ok(mut inner) = serde_json::from_str(text) {
                json(rng, &mut inner);
                *text = inner.to_string();
            }
        }
        Value::Number(number) if rng.random_bool(0.4) => {
            let around = number.as_i64().unwrap_or(0);
            *document = json!(around.wrapping_add(rng.random_range(-2..=2)));
        }
        other => *other = value(rng),
    }
}
