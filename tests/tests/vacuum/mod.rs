//! A vacuum removes what nobody needs, beside writers, readers and other vacuums, whatever the clocks say.

pub(crate) mod aged;
mod cases;
mod simulated;
