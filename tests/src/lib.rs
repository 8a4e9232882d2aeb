//! Tests across crates: the families are in `tests/`, one binary for all.
