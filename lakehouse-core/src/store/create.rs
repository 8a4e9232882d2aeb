//! Put-if-absent whose answer is certain (`Store::create`).

use crate::error::Error;

/// How a put-if-absent ended.
#[derive(Debug)]
pub enum Created {
    /// The object is there and it is ours, byte for byte, whatever the store replied on the way.
    Yes,
    /// Another object has the name.
    Exists,
    /// The store kept failing and the object could not be read back: it may still appear.
    Unknown(Error),
}
