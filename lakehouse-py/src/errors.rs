//! One exception per kind of error, all below `LakehouseError`.

use lakehouse_core::Error;
use pyo3::create_exception;
use pyo3::exceptions::PyException;
use pyo3::prelude::*;

create_exception!(
    lakehouse,
    LakehouseError,
    PyException,
    "Base of all errors of this module."
);
create_exception!(
    lakehouse,
    ConflictError,
    LakehouseError,
    "Another writer won; nothing was committed."
);
create_exception!(
    lakehouse,
    CommitUnknownError,
    LakehouseError,
    "The commit may or may not have landed; look before running again."
);
create_exception!(
    lakehouse,
    InvalidError,
    LakehouseError,
    "Input that cannot be used."
);
create_exception!(
    lakehouse,
    UnsupportedError,
    LakehouseError,
    "The table or its format does not offer this."
);
create_exception!(
    lakehouse,
    LimitError,
    LakehouseError,
    "A bound that protects the process was met."
);
create_exception!(lakehouse, DeniedError, LakehouseError, "Access was refused.");
create_exception!(
    lakehouse,
    NotFoundError,
    LakehouseError,
    "A table, version, file or column is not there."
);
create_exception!(
    lakehouse,
    AlreadyExistsError,
    LakehouseError,
    "Something of that name is already there."
);
create_exception!(
    lakehouse,
    StorageError,
    LakehouseError,
    "The object store failed."
);
create_exception!(
    lakehouse,
    QueryError,
    LakehouseError,
    "Planning or running a query failed."
);

/// The exception for an error; its text ends with what to do, where the error knows.
pub(crate) fn raise(error: Error) -> PyErr {
    let mut text = error.to_string();
    if let Some(hint) = error.hint() {
        text.push_str("\nhint: ");
        text.push_str(hint);
    }
    match error {
        Error::Conflict { .. } => ConflictError::new_err(text),
        Error::CommitUnknown { .. } => CommitUnknownError::new_err(text),
        Error::Invalid { .. } => InvalidError::new_err(text),
        Error::Unsupported { .. } => UnsupportedError::new_err(text),
        Error::Limit { .. } => LimitError::new_err(text),
        Error::Denied { .. } => DeniedError::new_err(text),
        Error::NotFound { .. } => NotFoundError::new_err(text),
        Error::AlreadyExists { .. } => AlreadyExistsError::new_err(text),
        Error::Store { .. } => StorageError::new_err(text),
        Error::Engine(_) => QueryError::new_err(text),
        _ => LakehouseError::new_err(text),
    }
}

pub(crate) fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add("LakehouseError", py.get_type::<LakehouseError>())?;
    module.add("ConflictError", py.get_type::<ConflictError>())?;
    module.add("CommitUnknownError", py.get_type::<CommitUnknownError>())?;
    module.add("InvalidError", py.get_type::<InvalidError>())?;
    module.add("UnsupportedError", py.get_type::<UnsupportedError>())?;
    module.add("LimitError", py.get_type::<LimitError>())?;
    module.add("DeniedError", py.get_type::<DeniedError>())?;
    module.add("NotFoundError", py.get_type::<NotFoundError>())?;
    module.add("AlreadyExistsError", py.get_type::<AlreadyExistsError>())?;
    module.add("StorageError", py.get_type::<StorageError>())?;
    module.add("QueryError", py.get_type::<QueryError>())
}
