use std::time::Duration;

use clap::Args;
use lakehouse_core::Options;
use lakehouse_core::model::ColumnPath;
use lakehouse_core::operations::{self, Clustering, CompactStrategy, RowOrder};
use lakehouse_core::scan::parse_sort_order;

use super::WriteArgs;
use super::storage::StorageArgs;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values;

/// Rewrite small files and files with masked rows into good ones.
///
/// Rows do not change. They stay in the order in which they lie, unless the table has a sort order, is clustered, or one
/// is asked for: then files whose ranges overlap are rewritten too, sorted together, within the memory limit on disk.
/// Each file is closed at the target size. A second run finds nothing to do. Files are rewritten in
/// groups, each commits on its own (small ones together): what is done stays done if the rest fails or is
/// interrupted, and the run can be repeated. Writers need not stop: rows that they delete or update meanwhile are
/// masked in the new files. Row groups without masked rows are copied, not decoded, if they have half of the rows or bytes
/// that one may have; smaller ones are joined.
#[derive(Debug, Args)]
#[command(after_long_help = r#"Example:
  lake compact flights --target-file-size 256MB --where "time_hour >= '2013-06-01'"
  lake compact flights --max-bytes 20GB --max-time 30m
  lake compact flights --sort-by "time_hour desc nulls first, carrier"
  lake compact flights --hilbert carrier,distance"#)]
pub(super) struct Compact {
    /// Path or URL of the table
    table: String,
    /// Size of the new files; below three quarters of it a file is small [default: the table's setting, else 512MB]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    target_file_size: Option<u64>,
    /// Only files that may hold rows for which this is true
    #[arg(long = "where", value_name = "EXPR", allow_hyphen_values = true)]
    predicate: Option<String>,
    /// Which files: small ones that can be joined (small-files); those of which many rows are masked (masked-files);
    /// both, and any small file with a masked row (auto); or, in partitions where there is anything to do (a masked
    /// row, files of an older partitioning), every file (all)
    #[arg(long, value_name = "STRATEGY", value_parser = CompactStrategy::NAMES, default_value = "auto")]
    strategy: String,
    /// Fewer small files of a partition are left alone, at least 2 [default: 2, if that makes fewer files]
    #[arg(long, value_name = "N")]
    min_input_files: Option<usize>,
    /// Share of masked rows, 0 to 1, from which on a file is rewritten however large it is [default: 0.05]
    #[arg(long, value_name = "RATIO")]
    delete_ratio_threshold: Option<f64>,
    /// Bytes of files that are rewritten and committed together, as one group [default: 4GB, or 8 files of the target
    /// size; smaller groups share commits of 1GB]. Files that overlap in the order of rows are split into several groups
    /// only if this or --max-bytes is given: they are sorted one by one and then merged
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    max_rewrite: Option<u64>,
    /// Rewrite at most so many bytes of files: the groups that win the most for it come first
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    max_bytes: Option<u64>,
    /// Begin no group after this time: 30m, 2h; the one at hand is finished
    #[arg(long, value_name = "TIME", value_parser = values::parse_duration)]
    max_time: Option<i64>,
    /// Work on so many groups at the same time, in commits of their own that share the memory [default: 1; more pay
    /// where the store takes long to answer]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    max_concurrent_groups: Option<u16>,
    /// Put rows in the order of columns: best for filters on the first [default: the table's own order]
    #[arg(long, value_name = "ORDER", group = "order")]
    sort_by: Option<String>,
    /// Put rows along the Z-order curve through columns: filters on any of them skip files
    #[arg(long, value_name = "COLUMNS", group = "order", value_delimiter = ',')]
    zorder: Vec<ColumnPath>,
    /// Put rows along the Hilbert curve through columns: the same, with files that overlap less
    #[arg(long, value_name = "COLUMNS", group = "order", value_delimiter = ',')]
    hilbert: Vec<ColumnPath>,
    /// Leave rows in the order in which they lie, whatever order the table says
    #[arg(long, group = "order")]
    unordered: bool,
    /// Memory for sorting; what does not fit goes to disk [default: 60% of the machine's]
    #[arg(long, value_name = "SIZE", value_parser = values::parse_size)]
    memory_limit: Option<u64>,
    #[command(flatten)]
    storage: StorageArgs,
    #[command(flatten)]
    write: WriteArgs,
}

impl Compact {
    /// The order of rows.
    fn order(&self) -> Result<RowOrder, Failure> {
        let names = |columns: &[ColumnPath]| columns.iter().map(ColumnPath::dotted).collect();
        Ok(if self.unordered {
            RowOrder::AsItIs
        } else if let Some(order) = &self.sort_by {
            RowOrder::By(Clustering::Sort(parse_sort_order(order)?))
        } else if !self.zorder.is_empty() {
            RowOrder::By(Clustering::ZOrder(names(&self.zorder)))
        } else if !self.hilbert.is_empty() {
            RowOrder::By(Clustering::Hilbert(names(&self.hilbert)))
        } else {
            RowOrder::OfTable
        })
    }
}

pub(super) async fn compact(args: Compact, ui: &Ui) -> Result<(), Failure> {
    let table = args.storage.open(&args.table).await?;
    let working = ui.progress(format!("compact {}", args.table));
    let what = operations::Compact {
        target_file_bytes: args.target_file_size,
        predicate: args.predicate.clone(),
        order: args.order()?,
        strategy: args.strategy.parse()?,
        min_input_files: args.min_input_files,
        delete_ratio_threshold: args.delete_ratio_threshold,
        max_rewrite: args.max_rewrite,
        max_bytes: args.max_bytes,
        max_time: args
            .max_time
            .map(|most| Duration::from_millis(most.unsigned_abs())),
        max_concurrent_groups: args.max_concurrent_groups.map(usize::from),
    };
    let options = Options {
        memory_limit: args
            .memory_limit
            .map(|limit| usize::try_from(limit).unwrap_or(usize::MAX)),
        ..args.write.options()
    };
    let report = table.compact(&what, &options).await?;
    drop(working);
    ui.report(&args.table, &report)
}
