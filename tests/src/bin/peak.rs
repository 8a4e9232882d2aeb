//! Runs a command and says what it took: `peak FILE COMMAND ..` writes `KILOBYTES MILLISECONDS CODE` to FILE, where
//! the milliseconds are of processor time and a command that a signal ended has the code -SIGNAL.
//!
//! A process of its own, and a small one: Linux counts the memory of whoever started a process into that one's peak.

#[cfg(unix)]
#[expect(
    clippy::zombie_processes,
    reason = "it is waited for by wait4, which tells more"
)]
fn main() {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Command, ExitStatus};

    let mut words = std::env::args_os().skip(1);
    let file = words.next().expect("a file for the numbers");
    let child = Command::new(words.next().expect("a command"))
        .args(words)
        .spawn()
        .expect("the command starts");
    let pid = libc::pid_t::try_from(child.id()).expect("a process id");
    let mut status = 0;
    // SAFETY: plain numbers, for which zero is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: both pointers are to variables of this function, and nobody else waits for the child.
    while unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) } != pid {}
    let status = ExitStatus::from_raw(status);
    let code = status.code().unwrap_or_else(|| -status.signal().unwrap_or(0));
    let ms = |time: libc::timeval| time.tv_sec * 1000 + time.tv_usec / 1000;
    let cpu = ms(usage.ru_utime) + ms(usage.ru_stime);
    std::fs::write(file, format!("{} {cpu} {code}", usage.ru_maxrss)).expect("the numbers can be written");
}

#[cfg(not(unix))]
fn main() {}
