//! What people and metadata write as text: conditions, and paths of files.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, TimeUnit};
use lakehouse_core::Error;
use lakehouse_core::model::parse_partitioning;
use lakehouse_core::scan::{
    columns_of, parse_assignments, parse_columns, parse_expression, parse_names, parse_predicate,
};
use lakehouse_core::store::Store;
use object_store::memory::InMemory;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

const WORDS: [&str; 72] = [
    "id",
    "name",
    "d",
    "ts",
    "x",
    "flag",
    "price",
    "\"id\"",
    "target.id",
    "source.x",
    "nobody",
    "1",
    "-1",
    "0",
    "0.5",
    "1e400",
    "99999999999999999999999999999999999999999",
    "'a'",
    "''",
    "'1970-01-01'",
    "NULL",
    "TRUE",
    "FALSE",
    "=",
    "<>",
    "<",
    ">=",
    "<=>",
    "+",
    "-",
    "*",
    "/",
    "%",
    "||",
    "AND",
    "OR",
    "NOT",
    "IS NULL",
    "IS NOT NULL",
    "IS DISTINCT FROM",
    "IN (1, 2)",
    "IN (",
    "BETWEEN 1 AND 2",
    "LIKE 'a%'",
    "ILIKE '%'",
    "SIMILAR TO '('",
    "~ '['",
    "CASE WHEN",
    "THEN",
    "ELSE",
    "END",
    "CAST(",
    "AS INT)",
    "AS DECIMAL(38, 38))",
    "::date",
    "::timestamp",
    "DATE '2020-01-01'",
    "TIMESTAMP '1970-01-01T00:00:00Z'",
    "INTERVAL '1' day",
    "INTERVAL 'x'",
    "coalesce(",
    "concat(name, ",
    "substr(name, -1, ",
    "date_trunc('day', ",
    "(",
    ")",
    "[",
    "]",
    ",",
    "EXISTS (SELECT 1)",
    "sum(x)",
    "$1",
];

/// Text that is almost a condition: some deep, some long, some both.
pub(super) fn expression(rng: &mut StdRng) -> String {
    let word = |rng: &mut StdRng| *WORDS.choose(rng).unwrap();
    let many = *[20, 200, 3000].choose(rng).unwrap();
    match rng.random_range(0..10) {
        0 => {
            let (open, close) = *[
                ("(", ")"),
                ("NOT ", ""),
                ("- ", ""),
                ("CASE WHEN ", " THEN 1 END"),
                ("[", "]"),
                ("abs(", ")"),
            ]
            .choose(rng)
            .unwrap();
            let depth = rng.random_range(1..10_000);
            format!("{}{}{}", open.repeat(depth), word(rng), close.repeat(depth))
        }
        1 => {
            let operator = *[" OR ", " AND ", " + ", " || ", ", ", " = ", "::int", " IS NULL"]
                .choose(rng)
                .unwrap();
            let terms = rng.random_range(1..many);
            vec![*["id = 1", "x", "name", "flag", "1"].choose(rng).unwrap(); terms].join(operator)
        }
        _ => {
            let count = rng.random_range(1..12);
            let words: Vec<&str> = (0..count).map(|_| word(rng)).collect();
            let mut text = words.join(" ").into_bytes();
            if rng.random_bool(0.2) {
                super::mutate::bytes(rng, &mut text, false);
            }
            String::from_utf8_lossy(&text).into_owned()
        }
    }
}

/// Everything that takes such text apart.
pub(super) fn parse(text: &str) -> Result<(), String> {
    let utc = || Some("UTC".into());
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("name", DataType::Utf8, true),
        Field::new("d", DataType::Date32, true),
        Field::new("ts", DataType::Timestamp(TimeUnit::Microsecond, utc()), true),
        Field::new("x", DataType::Float64, true),
        Field::new("flag", DataType::Boolean, true),
        Field::new("price", DataType::Decimal128(9, 2), true),
    ]);
    let columns = columns_of(&schema, None).unwrap();
    if let Ok(condition) = parse_predicate(text, &columns) {
        // A condition is an expression too, and means the same each time.
        if parse_expression(text, &columns).ok() != Some(condition) && !text.contains("now()") {
            return Err("a condition that is another expression".into());
        }
    }
    let _ = parse_assignments(text, &schema, &columns);
    let _ = parse_assignments(&format!("name = {text}"), &schema, &columns);
    let _ = parse_names(text);
    let _ = parse_partitioning(text);
    let _ = parse_columns(text);
    Ok(())
}

/// A root and a path as metadata may spell it, on two lines: the second recorded root may be another than the first.
pub(super) fn location(rng: &mut StdRng) -> String {
    let parts = [
        "a",
        "data",
        "t",
        "t-evil",
        "..",
        ".",
        "",
        "%2e%2e",
        "%2E.",
        "%252e%252e",
        "%2f",
        "a%2F..",
        "a b",
        "ü",
        "%c3%bc",
        "%ff",
        "%00",
        "\u{1}",
        "a\\b",
        "%5c",
        "x=1",
        "a:b",
        "?q",
        "#f",
        "..a",
        "...",
        "~",
        "%",
        "%4",
        "t%",
        "T",
        "b",
    ];
    let places = [
        "",
        "",
        "",
        "/",
        "//",
        "s3://b/t/",
        "s3a://b/t/",
        "S3://b/t/",
        "s3://b/t-evil/",
        "s3://c/t/",
        "s3://b",
        "s3:/b/t/",
        "s3://b@c/t/",
        "s3://b/../b/t/",
        "file:///b/t/",
        "http://b/t/",
        "/b/t/",
        "s3://b/t//",
        "s3://b:80/t/",
        "b/t/",
    ];
    let mut text = (*places.choose(rng).unwrap()).to_owned();
    let count = rng.random_range(0..5);
    let chosen: Vec<&str> = (0..count).map(|_| *parts.choose(rng).unwrap()).collect();
    text.push_str(&chosen.join("/"));
    text
}

/// Whether a path is inside of `s3://b/t`, by a rule of its own, and under which key.
fn key(text: &str, decode: bool) -> Option<String> {
    let lower = text.to_ascii_lowercase();
    let schemes = ["s3://", "s3a://", "s3n://"];
    let spelled = match schemes.iter().find(|scheme| lower.starts_with(**scheme)) {
        Some(scheme) => text[scheme.len()..].strip_prefix("b/").map(str::to_owned),
        // Any other scheme, or an absolute path of this machine.
        None if text.starts_with('/') => return None,
        None => match text.split_once(':') {
            Some((scheme, rest))
                if rest.starts_with('/')
                    && scheme.chars().all(|c| c.is_ascii_alphanumeric())
                    && !scheme.is_empty() =>
            {
                return None;
            }
            _ => Some(format!("t/{text}")),
        },
    }?;
    let path = match decode {
        true => percent_encoding::percent_decode_str(&spelled)
            .decode_utf8()
            .ok()?
            .into_owned(),
        false => spelled,
    };
    let key = path.strip_prefix("t/")?;
    let bad = |part: &str| {
        matches!(part, "" | "." | "..") || part.chars().any(|c| c == '\\' || c.is_ascii_control())
    };
    (!key.split('/').any(bad)).then(|| key.to_owned())
}

/// Compares the resolver with that rule.
pub(super) fn resolve(text: &str) -> Result<(), String> {
    let store = Store::over(Arc::new(InMemory::new()), "s3://b/t".parse().unwrap());
    let agree = |what: &str, found: Result<String, Error>, wanted: Option<String>| match (found, wanted) {
        (Ok(found), Some(wanted)) if found == wanted => Ok(()),
        (Err(Error::Denied { .. } | Error::Invalid { .. }), None) => Ok(()),
        (found, wanted) => Err(format!("{what} of {text:?}: {found:?}, and should be {wanted:?}")),
    };
    agree("relative", store.relative(text), key(text, false))?;
    // A URL has no query; in a relative path these are letters.
    let url = text.contains(":/") || text.starts_with('/');
    let encoded = match url && text.contains(['?', '#']) {
        true => None,
        false => key(text, true),
    };
    agree("relative_encoded", store.relative_encoded(text), encoded)?;
    // A table that was moved: what lay below its old place lies below its new one, nothing else does.
    let moved = store.relative_to(
        "s3://old/place",
        &text.replacen("s3://b/t/", "s3://old/place/", 1),
    );
    let leads_out = |found: &String| found.split('/').any(|part| matches!(part, "" | "." | ".."));
    match moved {
        Ok(found) if leads_out(&found) => Err(format!("relative_to of {text:?}: {found:?}")),
        _ => Ok(()),
    }
}
