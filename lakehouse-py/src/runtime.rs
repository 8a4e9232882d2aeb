//! One tokio runtime per process; waiting for a future without holding the GIL.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lakehouse_core::Result;
use pyo3::prelude::*;
use tokio::runtime::Runtime;

use crate::errors::raise;

/// How often a waiting call looks for Ctrl-C.
const TICK: Duration = Duration::from_millis(100);

/// The runtime and the process it belongs to: its threads do not survive a fork.
static RUNTIME: Mutex<Option<(u32, Arc<Runtime>)>> = Mutex::new(None);

/// The runtime of this process.
pub(crate) fn runtime() -> Arc<Runtime> {
    let mut slot = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = std::process::id();
    match slot.as_ref() {
        Some((owner, runtime)) if *owner == process => Arc::clone(runtime),
        _ => {
            // A runtime inherited through a fork has no threads left to join: it is left alone.
            if let Some(inherited) = slot.take() {
                std::mem::forget(inherited);
            }
            let runtime = Arc::new(Runtime::new().expect("a tokio runtime starts"));
            *slot = Some((process, Arc::clone(&runtime)));
            runtime
        }
    }
}

/// Runs a future to its end, detached from the interpreter. Ctrl-C drops the future, which stops it.
pub(crate) fn wait<F, T>(py: Python<'_>, future: F) -> PyResult<T>
where
    F: Future<Output = Result<T>> + Send,
    T: Send,
{
    let runtime = runtime();
    py.detach(|| {
        runtime.block_on(async {
            tokio::pin!(future);
            let mut tick = tokio::time::interval(TICK);
            loop {
                tokio::select! {
                    outcome = &mut future => return outcome.map_err(raise),
                    _ = tick.tick() => Python::attach(|py| py.check_signals())?,
                }
            }
        })
    })
}
