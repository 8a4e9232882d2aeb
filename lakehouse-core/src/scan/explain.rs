//! The Parquet scan with a word on what was pruned, shown by EXPLAIN, and with an error where it panics.

use std::any::Any;
use std::collections::BTreeSet;
use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use datafusion::common::Statistics;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source::{DataSource, OpenArgs};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::projection::ProjectionExprs;
use datafusion::physical_expr::{EquivalenceProperties, LexOrdering, Partitioning, PhysicalExpr};
use datafusion::physical_expr_common::sort_expr::PhysicalSortExpr;
use datafusion::physical_plan::execution_plan::SchedulingType;
use datafusion::physical_plan::filter_pushdown::{FilterPushdownPropagation, PushedDown};
use datafusion::physical_plan::metrics::ExecutionPlanMetricsSet;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayFormatType, SortOrderPushdownResult};
use futures::StreamExt;

use super::nan;
use crate::error::Error;

/// What was planned, for people.
#[derive(Debug, Default)]
pub(super) struct Planned {
    pub(super) files: u64,
    pub(super) all_files: u64,
    pub(super) skipped_by_partition: u64,
    pub(super) skipped_by_statistics: u64,
    pub(super) masked_rows: u64,
    /// Columns that may hold NaN.
    pub(super) nans: BTreeSet<String>,
    /// Columns whose members have defaults that files may lack.
    pub(super) defaults: BTreeSet<String>,
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "files={}/{} skipped_by_partition={} skipped_by_statistics={} masked_rows={}",
            self.files,
            self.all_files,
            self.skipped_by_partition,
            self.skipped_by_statistics,
            self.masked_rows,
        )
    }
}

/// The same rows. The decoder panics at some damaged pages: that is an error of the file, not the end of the process.
fn contained(rows: SendableRecordBatchStream) -> SendableRecordBatchStream {
    let schema = rows.schema();
    let rows = AssertUnwindSafe(rows).catch_unwind().map(|row| {
        row.unwrap_or_else(|_| {
            let error = Error::invalid("a data file is damaged: its pages cannot be decoded", "")
                .with_hint("restore the file from a backup, or read a version of the table without it");
            Err(error.into())
        })
    });
    Box::pin(RecordBatchStreamAdapter::new(schema, rows))
}

/// Delegates everything to the Parquet scan inside.
#[derive(Debug)]
pub(super) struct Explained {
    scan: Arc<dyn DataSource>,
    planned: Arc<Planned>,
}

impl Explained {
    pub(super) fn new(scan: Arc<dyn DataSource>, planned: Arc<Planned>) -> Self {
        Self { scan, planned }
    }

    fn again(&self, scan: Arc<dyn DataSource>) -> Arc<dyn DataSource> {
        Arc::new(Self::new(scan, Arc::clone(&self.planned)))
    }
}

impl DataSource for Explained {
    fn open(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.scan.open(partition, context).map(contained)
    }

    fn open_with_args(&self, args: OpenArgs) -> Result<SendableRecordBatchStream> {
        self.scan.open_with_args(args).map(contained)
    }

    fn fmt_as(&self, t: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match t {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "{}, ", self.planned)?,
            DisplayFormatType::TreeRender => writeln!(f, "{}", self.planned)?,
        }
        self.scan.fmt_as(t, f)
    }

    fn repartitioned(
        &self,
        target_partitions: usize,
        repartition_file_min_size: usize,
        output_ordering: Option<LexOrdering>,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        let scan = self
            .scan
            .repartitioned(target_partitions, repartition_file_min_size, output_ordering)?;
        Ok(scan.map(|scan| self.again(scan)))
    }

    fn output_partitioning(&self) -> Partitioning {
        self.scan.output_partitioning()
    }

    fn eq_properties(&self) -> EquivalenceProperties {
        self.scan.eq_properties()
    }

    fn scheduling_type(&self) -> SchedulingType {
        self.scan.scheduling_type()
    }

    fn partition_statistics(&self, partition: Option<usize>) -> Result<Arc<Statistics>> {
        self.scan.partition_statistics(partition)
    }

    fn with_fetch(&self, limit: Option<usize>) -> Option<Arc<dyn DataSource>> {
        self.scan.with_fetch(limit).map(|scan| self.again(scan))
    }

    fn fetch(&self) -> Option<usize> {
        self.scan.fetch()
    }

    fn metrics(&self) -> ExecutionPlanMetricsSet {
        self.scan.metrics()
    }

    fn try_swapping_with_projection(
        &self,
        projection: &ProjectionExprs,
    ) -> Result<Option<Arc<dyn DataSource>>> {
        let scan = self.scan.try_swapping_with_projection(projection)?;
        Ok(scan.map(|scan| self.again(scan)))
    }

    fn try_pushdown_filters(
        &self,
        filters: Vec<Arc<dyn PhysicalExpr>>,
        config: &ConfigOptions,
    ) -> Result<FilterPushdownPropagation<Arc<dyn DataSource>>> {
        // A member that a file lacks is its default where the struct around it is there: the Parquet reader cannot filter by
        // whole structs, and would leave such a filter out.
        let mut stays = Vec::with_capacity(filters.len());
        let mut given = Vec::with_capacity(filters.len());
        for filter in &filters {
            stays.push(nan::names_one(filter, &self.planned.defaults)?);
            if stays.last() == Some(&false) {
                given.push(nan::guard(filter, &self.planned.nans)?);
            }
        }
        let pushed = self.scan.try_pushdown_filters(given, config)?;
        let mut told = pushed.filters.into_iter();
        let told = stays.into_iter().map(|stays| match stays {
            true => PushedDown::No,
            false => told.next().unwrap_or(PushedDown::No),
        });
        Ok(FilterPushdownPropagation {
            filters: told.collect(),
            updated_node: pushed.updated_node.map(|scan| self.again(scan)),
        })
    }

    fn try_pushdown_sort(
        &self,
        order: &[PhysicalSortExpr],
    ) -> Result<SortOrderPushdownResult<Arc<dyn DataSource>>> {
        let pushed = self.scan.try_pushdown_sort(order)?;
        Ok(pushed.map(|scan| self.again(scan)))
    }

    fn with_preserve_order(&self, preserve_order: bool) -> Option<Arc<dyn DataSource>> {
        let scan = self.scan.with_preserve_order(preserve_order)?;
        Some(self.again(scan))
    }

    fn apply_expressions(
        &self,
        f: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        self.scan.apply_expressions(f)
    }

    fn with_new_state(&self, state: Arc<dyn Any + Send + Sync>) -> Option<Arc<dyn DataSource>> {
        self.scan.with_new_state(state).map(|scan| self.again(scan))
    }

    fn create_sibling_state(&self, config: &ConfigOptions) -> Option<Arc<dyn Any + Send + Sync>> {
        self.scan.create_sibling_state(config)
    }
}
