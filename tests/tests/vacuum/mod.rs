//! A vacuum removes what nobody needs, beside writers, readers and other vacuums, whatever the clocks say.

mod aged;
mod cases;
mod simulated;
