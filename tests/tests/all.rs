//! One binary for every family of cross-crate tests.

mod architecture;
mod cli;
mod faults;
mod model;
mod support;
mod verbs;
