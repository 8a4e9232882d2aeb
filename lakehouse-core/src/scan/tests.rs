//! The scan against a naive evaluation: random files, masks, deletes and queries over a made-up format.

mod differential;
mod fake;
mod plans;
