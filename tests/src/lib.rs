//! Tests across crates: the families are in `tests/`, one binary for all. Here is what they and the Python tests
//! share.

pub mod s3;
