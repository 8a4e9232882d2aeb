//! Rows and schemas on their way out.

use std::sync::Arc;

use arrow::array::{ArrayRef, StructArray};
use arrow::datatypes::{DataType, Field, FieldRef, SchemaRef};
use arrow::error::ArrowError;
use datafusion::physical_plan::SendableRecordBatchStream;
use datafusion::prelude::DataFrame;
use futures::StreamExt;
use lakehouse_core::Error;
use pyo3::prelude::*;
use pyo3::types::PyCapsule;
use pyo3_arrow::ffi::{ArrayIterator, ArrayReader, to_schema_pycapsule, to_stream_pycapsule};
use tokio::runtime::Runtime;

use crate::runtime::{runtime, wait};

/// A planned read of one version. Nothing is read before it is asked for; asking again reads again.
#[pyclass(module = "lakehouse", frozen)]
pub(crate) struct Scan {
    pub(crate) frame: DataFrame,
}

impl Scan {
    fn schema_ref(&self) -> SchemaRef {
        Arc::clone(self.frame.schema().inner())
    }
}

#[pymethods]
impl Scan {
    /// The columns that it yields.
    #[getter]
    fn schema(&self) -> Schema {
        Schema {
            schema: self.schema_ref(),
        }
    }

    /// The rows as an Arrow C stream: any Arrow library takes the object itself.
    #[pyo3(signature = (requested_schema=None))]
    fn __arrow_c_stream__<'py>(
        &self,
        py: Python<'py>,
        requested_schema: Option<Bound<'py, PyCapsule>>,
    ) -> PyResult<Bound<'py, PyCapsule>> {
        let frame = self.frame.clone();
        let stream = wait(
            py,
            async move { frame.execute_stream().await.map_err(Error::from) },
        )?;
        let field = Field::new_struct("", stream.schema().fields().clone(), false);
        let arrays = Arrays {
            stream,
            runtime: runtime(),
        };
        let reader: Box<dyn ArrayReader + Send> = Box::new(ArrayIterator::new(arrays, FieldRef::new(field)));
        Ok(to_stream_pycapsule(py, reader, requested_schema)?)
    }

    /// The rows as a `pyarrow.Table` (needs pyarrow).
    fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("pyarrow")?.call_method1("table", (slf,))
    }

    /// The rows as a `pandas.DataFrame` (needs pandas and pyarrow).
    fn to_pandas<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        Self::to_arrow(slf)?.call_method0("to_pandas")
    }

    /// The rows as a `polars.DataFrame` (needs polars).
    fn to_polars<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("polars")?.call_method1("DataFrame", (slf,))
    }

    /// The number of rows; answered from metadata where that is exact.
    fn count(&self, py: Python<'_>) -> PyResult<usize> {
        let frame = self.frame.clone();
        wait(py, async move { frame.count().await.map_err(Error::from) })
    }

    fn __repr__(&self) -> String {
        let columns: Vec<&str> = self
            .frame
            .schema()
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        format!("Scan({})", columns.join(", "))
    }
}

/// A DataFusion stream as an iterator, for consumers that block.
struct Arrays {
    stream: SendableRecordBatchStream,
    runtime: Arc<Runtime>,
}

impl Iterator for Arrays {
    type Item = Result<ArrayRef, ArrowError>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.runtime.block_on(self.stream.next())?;
        Some(
            batch
                .map(|batch| Arc::new(StructArray::from(batch)) as ArrayRef)
                .map_err(ArrowError::from),
        )
    }
}

/// The columns of a table or result; any Arrow library takes it through `__arrow_c_schema__`.
#[pyclass(module = "lakehouse", frozen)]
pub(crate) struct Schema {
    pub(crate) schema: SchemaRef,
}

#[pymethods]
impl Schema {
    /// Column names in order.
    #[getter]
    fn names(&self) -> Vec<String> {
        self.schema
            .fields()
            .iter()
            .map(|field| field.name().clone())
            .collect()
    }

    fn __arrow_c_schema__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyCapsule>> {
        Ok(to_schema_pycapsule(py, self.schema.as_ref())?)
    }

    /// The schema as a `pyarrow.Schema` (needs pyarrow).
    fn to_arrow<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.py().import("pyarrow")?.call_method1("schema", (slf,))
    }

    fn __len__(&self) -> usize {
        self.schema.fields().len()
    }

    fn __repr__(&self) -> String {
        let columns: Vec<String> = self.schema.fields().iter().map(|field| describe(field)).collect();
        format!("Schema({})", columns.join(", "))
    }
}

fn describe(field: &Field) -> String {
    let kind = match field.data_type() {
        DataType::Timestamp(unit, Some(zone)) => format!("timestamp[{unit:?}, {zone}]"),
        other => other.to_string(),
    };
    format!(
        "{}: {kind}{}",
        field.name(),
        if field.is_nullable() { "" } else { " not null" }
    )
}
