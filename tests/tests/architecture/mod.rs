//! Imports run one way: this reads the `use crate::` lines of `lakehouse-core` and the sizes of its files.

use std::fs;
use std::path::{Path, PathBuf};

/// Who may import whom inside `lakehouse-core`. `error` and `planted` are open to all.
const ARROWS: &[(&str, &[&str])] = &[
    ("error", &[]),
    ("planted", &[]),
    ("model", &[]),
    ("store", &["model"]),
    ("format", &["model", "store"]),
    ("iceberg", &["format", "store", "model"]),
    ("delta", &["format", "store", "model"]),
    ("scan", &["format", "store", "model"]),
    ("write", &["format", "store", "model"]),
    ("commit", &["format", "store", "model"]),
    (
        "operations",
        &["commit", "scan", "write", "format", "store", "model"],
    ),
    ("sql", &["operations", "scan", "format", "model"]),
    (
        "table",
        &[
            "sql",
            "operations",
            "commit",
            "scan",
            "write",
            "format",
            "store",
            "model",
            "iceberg",
            "delta",
        ],
    ),
];

const LONGEST_FILE: usize = 600;

fn core() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../lakehouse-core/src")
}

/// Production code: every line up to the first test module.
fn production(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let end = text.find("#[cfg(test)]\nmod ").unwrap_or(text.len());
    text[..end].to_owned()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() && name != "tests" && name != "conformance" {
            found.extend(sources(&path));
        } else if name.ends_with(".rs") && !name.ends_with("tests.rs") && name != "conformance.rs" {
            found.push(path);
        }
    }
    found
}

/// The room that a file is in: the first folder or file below `src`.
fn room(file: &Path) -> String {
    let first = file.strip_prefix(core()).unwrap().components().next().unwrap();
    first
        .as_os_str()
        .to_str()
        .unwrap()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Every room that a text imports through `crate::`, in `use` lines (also grouped ones) and in paths.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let code: String = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join("\n");
    for (start, _) in code.match_indices("crate::") {
        let rest = &code[start + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            let mut depth = 0;
            let mut word = String::new();
            for c in group.chars() {
                match c {
                    '{' => depth += 1,
                    '}' if depth == 0 => break,
                    '}' => depth -= 1,
                    ',' if depth == 0 => {
                        found.push(std::mem::take(&mut word));
                        continue;
                    }
                    _ => {}
                }
                word.push(c);
            }
            found.push(word);
        } else {
            found.push(rest.to_owned());
        }
    }
    found
        .into_iter()
        .map(|path| {
            path.trim()
                .chars()
                .take_while(|c| c.is_alphanumeric() || *c == '_')
                .collect::<String>()
        })
        .filter(|name| !name.is_empty() && name.chars().all(|c| c.is_lowercase() || c == '_'))
        .collect()
}

#[test]
fn imports_run_one_way() {
    let mut wrong = Vec::new();
    for file in sources(&core()) {
        let room = room(&file);
        if room == "lib" {
            continue;
        }
        let (_, allowed) = ARROWS
            .iter()
            .find(|(name, _)| *name == room)
            .unwrap_or_else(|| panic!("{}: no rule says what `{room}` may import", file.display()));
        for target in imports(&production(&file)) {
            let open = target == "error" || target == "planted";
            if target != room && !open && !allowed.contains(&target.as_str()) {
                wrong.push(format!("{}: `{room}` imports `{target}`", file.display()));
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "arrows that the design does not have:\n{}",
        wrong.join("\n")
    );
}

#[test]
fn a_forbidden_arrow_is_seen_in_every_spelling() {
    assert_eq!(imports("use crate::delta::Delta;"), ["delta"]);
    assert_eq!(
        imports("use crate::{error::Result, model::{Snapshot, prune::Prune}, table};"),
        ["error", "model", "table"]
    );
    assert_eq!(imports("let x = crate::iceberg::open();"), ["iceberg"]);
    assert_eq!(
        imports("// use crate::delta::Delta;\nuse crate::Result;"),
        Vec::<String>::new()
    );
}

#[test]
fn files_of_production_code_stay_short() {
    let long: Vec<String> = sources(&core())
        .into_iter()
        .map(|file| (production(&file).lines().count(), file))
        .filter(|(lines, _)| *lines > LONGEST_FILE)
        .map(|(lines, file)| format!("{lines} lines: {}", file.display()))
        .collect();
    assert!(
        long.is_empty(),
        "split where the idea splits:\n{}",
        long.join("\n")
    );
}

#[test]
fn only_store_builds_object_stores() {
    let builders = [
        "LocalFileSystem::",
        "InMemory::new",
        "AmazonS3Builder",
        "GoogleCloudStorageBuilder",
        "MicrosoftAzureBuilder",
    ];
    let wrong: Vec<String> = sources(&core())
        .into_iter()
        .filter(|file| room(file) != "store")
        .filter(|file| builders.iter().any(|builder| production(file).contains(builder)))
        .map(|file| file.display().to_string())
        .collect();
    assert!(
        wrong.is_empty(),
        "object stores are built in store/ only: {wrong:?}"
    );
}
