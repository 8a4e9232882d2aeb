//! `lake`: the command line of Lakehouse.

mod commands;
mod exit;
mod input;
mod output;
mod values;

/// A merge lives for a fraction of a second and asks for a few hundred megabytes: with the system's allocator a
/// fifth of that time goes to page faults.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    commands::run()
}
