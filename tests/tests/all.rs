//! One binary for every family of cross-crate tests.

mod architecture;
mod cli;
mod cloud;
mod costs;
mod crash;
mod faults;
mod fuzz;
mod hostile;
mod interleave;
mod maintain;
mod model;
#[cfg(feature = "planted")]
mod planted;
mod races;
mod readme;
mod soak;
mod support;
mod vacuum;
mod verbs;

#[global_allocator]
static ALLOCATOR: fuzz::alloc::Counting = fuzz::alloc::Counting;
