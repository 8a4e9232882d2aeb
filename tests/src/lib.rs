//! Tests across crates; the families are in `tests/`. Here: the README's Rust example, compiled and run.

#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
