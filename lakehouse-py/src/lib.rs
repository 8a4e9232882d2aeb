//! The native half of the Python module `lakehouse`: no logic, only the way in and out.

mod alter;
mod diff;
mod errors;
mod input;
mod kept;
mod merge;
mod order;
mod refs;
mod report;
mod runtime;
mod scan;
mod sql;
mod table;

use pyo3::prelude::*;

/// That of `lake`, for the same reasons; the interpreter and other modules keep theirs.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[pymodule]
fn _lakehouse(module: &Bound<'_, PyModule>) -> PyResult<()> {
    const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15; // `mi_option_purge_delay` of mimalloc 2, in milliseconds
    // SAFETY: sets one number of the allocator, which exists once the module is loaded.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 1000) }
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<table::Table>()?;
    module.add_class::<merge::MergeBuilder>()?;
    module.add_class::<diff::Diff>()?;
    module.add_class::<scan::Scan>()?;
    module.add_class::<scan::Schema>()?;
    module.add_function(wrap_pyfunction!(sql::sql, module)?)?;
    errors::register(module)
}
