//! The engine's session: one place for its settings.

use std::num::NonZeroUsize;
use std::sync::Arc;

use datafusion::execution::FunctionRegistry;
use datafusion::execution::memory_pool::{FairSpillPool, MemoryPool, TrackConsumersPool};
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::execution::session_state::{SessionState, SessionStateBuilder};
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::prelude::{SessionConfig, SessionContext};

use super::dialect::Literals;
use super::floats::CompareFloats;
use super::narrowing::KeepNarrowing;
use super::times::{CompareTimes, PreferMicros};
use super::trunc;

/// Memory assumed where the machine does not tell, in bytes.
const UNKNOWN_MACHINE: usize = 4 << 30;

/// Share of the machine's memory that joins, sorts and aggregates may use, in percent.
const MEMORY_SHARE: usize = 60;

/// IN lists up to this length prune row groups. Lists of many thousands overflow the stack of the
/// pruning rewrite, so this stays small; longer key sets are pruned by [`Prune`](crate::model::Prune).
const MAX_PRUNED_IN_LIST: usize = 200;

/// How many memory consumers an out-of-memory error names.
const NAMED_CONSUMERS: NonZeroUsize = NonZeroUsize::new(3).unwrap();

/// A DataFusion session with this crate's settings: filters pushed into the Parquet scan, strings
/// read as `Utf8`, time zone UTC, SQL identifiers as written (`tailNum` is not lower-cased;
/// function names and keywords stay case-insensitive), spilling joins and sorts within the memory
/// limit (bytes; `None` for 60 % of the machine's or container's memory).
pub fn session(memory_limit: Option<usize>) -> SessionContext {
    session_with(memory_limit, config())
}

/// The same with settings of its own: [`config`], changed.
pub fn session_with(memory_limit: Option<usize>, config: SessionConfig) -> SessionContext {
    let limit = memory(memory_limit);
    let pool: Arc<dyn MemoryPool> = Arc::new(TrackConsumersPool::new(
        FairSpillPool::new(limit),
        NAMED_CONSUMERS,
    ));
    let runtime = RuntimeEnvBuilder::new()
        .with_memory_pool(pool)
        .build_arc()
        .unwrap_or_default();
    let state = SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_expr_planners(planners())
        .with_default_features()
        .with_analyzer_rule(Arc::new(KeepNarrowing))
        .with_analyzer_rule(Arc::new(CompareFloats))
        .with_analyzer_rule(Arc::new(CompareTimes))
        .build();
    SessionContext::new_with_state(with_times(state))
}

/// The same state with functions and rewrites for times of any year, in place of the engine's.
pub(super) fn with_times(mut state: SessionState) -> SessionState {
    // Neither fails for a state of the engine's own.
    let _ = state.register_udf(trunc::date_trunc());
    let _ = state.register_function_rewrite(Arc::new(PreferMicros));
    state
}

/// What has a say before the engine's own planning of expressions, in every session.
pub(super) fn planners() -> Vec<Arc<dyn ExprPlanner>> {
    vec![Arc::new(Literals)]
}

/// What a memory limit comes to, in bytes.
pub fn memory(limit: Option<usize>) -> usize {
    limit.unwrap_or_else(|| machine_memory() / 100 * MEMORY_SHARE)
}

/// The settings of every session.
pub fn config() -> SessionConfig {
    let mut config = SessionConfig::new().with_information_schema(true);
    let options = config.options_mut();
    options.execution.time_zone = Some("+00:00".to_owned());
    options.execution.parquet.pushdown_filters = true;
    options.execution.parquet.reorder_filters = true;
    options.execution.parquet.schema_force_view_types = false;
    options.execution.parquet.coerce_int96 = Some("us".to_owned());
    options.execution.parquet.max_in_list_size = MAX_PRUNED_IN_LIST;
    // DataFusion 55.2: with two aggregates, of which one has seen only NULLs so far, the filter that
    // MIN and MAX push into the scan drops rows that the other still needs.
    options.optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    options.sql_parser.enable_ident_normalization = false;
    options.sql_parser.map_string_types_to_utf8view = false;
    config
}

/// Memory of the machine, or of the container if that is less, in bytes.
fn machine_memory() -> usize {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
        let kilobytes: usize = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes << 10)
    });
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match (machine, container) {
        (Some(machine), Some(container)) => machine.min(container),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => UNKNOWN_MACHINE,
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn identifiers_are_taken_as_written_and_functions_in_any_case() {
        let ctx = session(None);
        let rows = ctx
            .sql("SELECT COUNT(tailNum), Upper(MAX(tailNum)) FROM (VALUES ('n1'), ('n2')) AS t(tailNum)")
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&rows)
            .unwrap()
            .to_string();
        assert!(text.contains("| 2 ") && text.contains("N2"), "{text}");
    }

    #[tokio::test]
    async fn zoned_timestamps_are_utc() {
        let rows = session(None)
            .sql("SELECT TIMESTAMP WITH TIME ZONE '2013-01-01T05:00:00' AS t")
            .await
            .unwrap()
            .collect()
            .await
            .unwrap();
        let text = arrow::util::pretty::pretty_format_batches(&rows)
            .unwrap()
            .to_string();
        assert!(text.contains("2013-01-01T05:00:00Z"), "{text}");
    }

    #[tokio::test]
    async fn a_sort_larger_than_the_memory_limit_spills() {
        let ctx = session(Some(100 << 20));
        let query = "SELECT value, repeat('x', 200) AS x FROM generate_series(1, 2000000) ORDER BY value % 1000, value";
        let mut batches = ctx.sql(query).await.unwrap().execute_stream().await.unwrap();
        let mut rows = 0;
        while let Some(batch) = batches.try_next().await.unwrap() {
            rows += batch.num_rows();
        }
        assert_eq!(rows, 2_000_000);
    }
}
