//! How functions of our own are declared to the engine.

use std::fmt::Debug;
use std::hash::Hash;
use std::marker::PhantomData;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::internal_err;
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// A function of values of any type that gives the same for the same values.
pub(super) trait Function: Debug + Eq + Hash + Send + Sync + 'static {
    /// What plans call it.
    const NAME: &'static str;
    /// How many values it takes.
    const TAKES: usize = 1;

    /// The field of what it gives: by default that of its only value.
    ///
    /// # Errors
    /// Values of types that it does not take.
    fn gives(given: &[FieldRef]) -> Result<FieldRef> {
        match given {
            [one] => Ok(Arc::clone(one)),
            _ => internal_err!("{} takes one value", Self::NAME),
        }
    }

    /// What it makes of these values.
    ///
    /// # Errors
    /// As the function has them.
    fn call(given: ScalarFunctionArgs) -> Result<ColumnarValue>;
}

/// Such a function as the engine knows it.
pub(super) fn declared<F: Function>() -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(Declared::<F> {
        signature: Signature::any(F::TAKES, Volatility::Immutable),
        function: PhantomData,
    }))
}

/// Whether this is a call of that function.
pub(super) fn calls<F: Function>(call: &ScalarFunction) -> bool {
    call.func.inner().is::<Declared<F>>()
}

/// The function of one value.
pub(super) fn call_of(function: &Arc<ScalarUDF>, value: Expr) -> Expr {
    Expr::ScalarFunction(ScalarFunction::new_udf(Arc::clone(function), vec![value]))
}

/// The only value that a function was given.
///
/// # Errors
/// None where the engine keeps to [`Function::TAKES`].
pub(super) fn only(mut given: ScalarFunctionArgs) -> Result<ColumnarValue> {
    match given.args.pop() {
        Some(one) => Ok(one),
        None => internal_err!("a function of one value was called without any"),
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Declared<F> {
    signature: Signature,
    function: PhantomData<F>,
}

impl<F: Function> ScalarUDFImpl for Declared<F> {
    fn name(&self) -> &'static str {
        F::NAME
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let fields: Vec<FieldRef> = types
            .iter()
            .map(|data_type| Arc::new(Field::new("value", data_type.clone(), true)))
            .collect();
        Ok(F::gives(&fields)?.data_type().clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        F::gives(args.arg_fields)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        F::call(args)
    }
}
