//! The native half of the Python module `lakehouse`: no logic, only the way in and out.

mod errors;
mod input;
mod merge;
mod report;
mod runtime;
mod scan;
mod sql;
mod table;

use pyo3::prelude::*;

#[pymodule]
fn _lakehouse(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_class::<table::Table>()?;
    module.add_class::<merge::MergeBuilder>()?;
    module.add_class::<scan::Scan>()?;
    module.add_class::<scan::Schema>()?;
    module.add_function(wrap_pyfunction!(sql::sql, module)?)?;
    errors::register(module)
}
