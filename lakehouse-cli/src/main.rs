//! `lake`: the command line of Lakehouse.

mod commands;
mod exit;
mod input;
mod output;
mod values;

fn main() -> std::process::ExitCode {
    commands::run()
}
