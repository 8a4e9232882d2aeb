//! A vacuum removes what nobody needs, beside writers, readers and other vacuums, whatever the clocks say.

mod adopted;
mod after;
pub(crate) mod aged;
mod cases;
mod clocks;
mod simulated;
