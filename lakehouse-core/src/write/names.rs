//! Names of data files.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::model::CommitId;

/// Numbers files within this process. Several writers may work under one commit id, and a plan may be
/// made again under it: no two of them may ever use one name.
static NEXT_FILE: AtomicU64 = AtomicU64::new(0);

/// The key of the next file of a commit, below a partition's folder.
pub(super) fn next(prefix: &str, folder: &str, commit: &CommitId) -> String {
    let number = NEXT_FILE.fetch_add(1, Ordering::Relaxed);
    let slash = if folder.is_empty() { "" } else { "/" };
    format!("{prefix}{folder}{slash}{number:05}-{commit}.parquet")
}

/// Whether a data file has a name that only we give, or one of position deletes of ours: it has the id of a
/// commit in it, a UUID of version 7, behind a number or a word.
pub fn is_own_name(key: &str) -> bool {
    const ID: usize = 36;
    let name = key.rsplit('/').next().unwrap_or(key);
    let Some((first, rest)) = name.split_once('-') else {
        return false;
    };
    let is_ours = first == "deletes" || (first.len() >= 5 && first.bytes().all(|byte| byte.is_ascii_digit()));
    let id = rest.get(..ID).and_then(|id| uuid::Uuid::try_parse(id).ok());
    is_ours && id.is_some_and(|id| id.get_version_num() == 7)
}

#[cfg(test)]
mod tests {
    use super::is_own_name;

    #[test]
    fn names_of_others_are_not_ours() {
        for ours in [
            "data/p=1/00000-019adf00-0000-7000-8000-000000000000.parquet",
            "123456-019adf00-0000-7000-8000-000000000000.parquet",
            "data/deletes-019adf00-0000-7000-8000-000000000000-1f-0.parquet",
        ] {
            assert!(is_own_name(ours), "{ours}");
        }
        for theirs in [
            "raw/a.parquet",
            "part-00000-89da0401-7f3c-4bdc-9f4f-07868d048146-c000.snappy.parquet",
            "data/00000-204-8f414805-edbb-4bfc-b5c5-2452fb7802d4-0-00001.parquet",
            "019adf00-0000-7000-8000-000000000000.parquet",
            "00000-89da0401-7f3c-4bdc-9f4f-07868d048146.parquet",
            "part-019adf00-0000-7000-8000-000000000000.parquet",
        ] {
            assert!(!is_own_name(theirs), "{theirs}");
        }
    }
}
