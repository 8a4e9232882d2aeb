//! What plans say and what is read: pruning, counts from metadata, dynamic filters, errors.
