//! The real binary: what it prints on both streams, its exit codes, and what it leaves behind.

mod adopt;
mod alter;
mod bad_input;
mod behaviour;
mod check;
mod demo;
mod diff;
mod expire;
pub(crate) mod lab;
mod maintain;
mod refs;
#[cfg(unix)]
mod stopped;
mod vacuum;
mod verbs;
