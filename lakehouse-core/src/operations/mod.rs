//! The verbs. An operation turns a snapshot into a change and never names a format.
