//! `lake`: the command line of Lakehouse.

mod commands;
mod exit;
mod input;
mod output;
mod values;

/// A merge lives for a fraction of a second and asks for a few hundred megabytes: with the system's allocator a
/// fifth of that time goes to page faults. Without huge pages: they cost nothing while the machine has some ready, but
/// clearing fresh ones took half of a merge's processor time where the memory of a virtual machine had to be fetched
/// first.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    commands::run()
}
