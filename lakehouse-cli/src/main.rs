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

/// Freed memory goes back to the system after a second, not after ten milliseconds: a merge frees and asks in turn, and
/// a third of its page faults were for memory that it had just given back.
fn keep_freed_memory() {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15; // `mi_option_purge_delay` of mimalloc 2, in milliseconds
    // SAFETY: sets one number of the allocator, which exists from the start of the process.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 1000) }
}

fn main() -> std::process::ExitCode {
    keep_freed_memory();
    commands::run()
}
