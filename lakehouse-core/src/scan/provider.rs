//! One version of a table as a DataFusion table.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::Statistics;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode, TreeNodeRecursion};
use datafusion::common::{Column, DataFusionError};
use datafusion::config::TableParquetOptions;
use datafusion::datasource::TableType;
use datafusion::datasource::listing::PartitionedFile;
use datafusion::datasource::object_store::ObjectStoreUrl;
use datafusion::datasource::physical_plan::parquet::ParquetRowSelection;
use datafusion::datasource::physical_plan::{FileGroup, FileScanConfigBuilder, ParquetSource};
use datafusion::datasource::source::DataSourceExec;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown};
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::projection::ProjectionExec;
use datafusion::scalar::ScalarValue;
use futures::future::BoxFuture;
use object_store::ObjectMeta;
use object_store::path::Path;

use super::columns::{ColumnsById, find};
use super::explain::{Explained, Planned};
use super::layout::{Layout, full_schema, recorded};
use super::nan;
use super::plan::{self, Listing};
use super::reader::Readers;
use super::statistics;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::schema::has_defaults_inside;
use crate::model::{DataFile, Prune, PruneCounts, RowMask, Snapshot};

/// The engine wants an object store by name for every scan. Ours read through the table's own store, so
/// the one of this name is empty.
const STORE_NAME: &str = "lakehouse://tables";

/// Which metadata columns follow the table's own, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct MetadataColumns {
    /// `_file` (Utf8): the data file's `path`.
    pub file: bool,
    /// `_pos` (Int64): the row's position in the file, masked rows counted.
    pub position: bool,
    /// `_row_id` and `_last_updated_sequence_number` (Int64): NULL where the table has no row ids.
    pub lineage: bool,
}

/// One version of a table as a DataFusion [`TableProvider`](datafusion::catalog::TableProvider):
/// pruned by partition and statistics, masked rows never decoded, columns found by field id or
/// physical name, exact row counts from metadata.
#[derive(Debug)]
pub struct SnapshotTable {
    handle: Handle,
    snapshot: Arc<Snapshot>,
    metadata: MetadataColumns,
    keys: Option<Arc<Prune>>,
    files: Option<Arc<Vec<DataFile>>>,
    /// By path, the rows that are not read of `files`.
    hidden: Option<Arc<HashMap<String, RowMask>>>,
    /// What the metadata says of values is not told to the engine, which would take it for the values.
    unbelieving: bool,
    report: Arc<ScanReport>,
}

/// What a scan did, filled while it is planned and run.
#[derive(Debug, Default)]
pub struct ScanReport {
    /// Data files that were planned to be read.
    pub files_scanned: AtomicU64,
    /// Bytes of these files.
    pub bytes_planned: AtomicU64,
    /// Data files skipped, by whatever means.
    pub files_skipped: AtomicU64,
}

impl SnapshotTable {
    /// Every row and column of `snapshot`.
    pub fn new(handle: Handle, snapshot: Arc<Snapshot>) -> Self {
        Self {
            handle,
            snapshot,
            metadata: MetadataColumns::default(),
            keys: None,
            files: None,
            hidden: None,
            unbelieving: false,
            report: Arc::default(),
        }
    }

    /// Appends metadata columns to the schema.
    #[must_use]
    pub fn with_metadata_columns(mut self, columns: MetadataColumns) -> Self {
        self.metadata = columns;
        self
    }

    /// Lists files through this prune (a merge's keys, an operation's predicate) in addition to the
    /// filters that the engine pushes down.
    #[must_use]
    pub fn with_prune(mut self, prune: Arc<Prune>) -> Self {
        self.keys = Some(prune);
        self
    }

    /// Reads exactly these files of the version instead of listing them.
    #[must_use]
    pub fn with_files(mut self, files: Vec<DataFile>) -> Self {
        self.files = Some(Arc::new(files));
        self
    }

    /// Reads exactly these files of the version, without these rows of them. The masks of the version do
    /// not count: who calls this has read them (see [`read_file_masks`](super::read_file_masks)).
    #[must_use]
    pub fn with_hidden_rows(self, files: Vec<(DataFile, RowMask)>) -> Self {
        let (files, masks): (Vec<DataFile>, Vec<RowMask>) = files.into_iter().unzip();
        let paths = files.iter().map(|file| file.path.clone());
        let hidden = Some(Arc::new(paths.zip(masks).collect()));
        Self {
            hidden,
            ..self.with_files(files)
        }
    }

    /// Reads what is in the files, whatever statistics and partition values say of it. Only identity partition columns
    /// that files do not store come from the metadata all the same.
    #[must_use]
    pub fn without_statistics(mut self) -> Self {
        self.unbelieving = true;
        self
    }

    /// What the scans of this table did so far.
    pub fn report(&self) -> Arc<ScanReport> {
        Arc::clone(&self.report)
    }
}

/// A file of the scan and what is hidden of it.
struct Part {
    file: DataFile,
    mask: RowMask,
}

impl SnapshotTable {
    /// The part of the engine's filters that can be judged by files: what is on the table's columns.
    fn filter_prune(&self, filters: &[Expr]) -> Result<Option<Prune>> {
        let own: HashSet<&str> = self
            .snapshot
            .schema
            .fields()
            .iter()
            .map(|f| f.name().as_str())
            .collect();
        let mut usable = Vec::new();
        for filter in filters {
            if on_columns(filter, &own)? {
                usable.push(unqualified(filter.clone())?);
            }
        }
        let Some(predicate) = conjunction(usable) else {
            return Ok(None);
        };
        Prune::matching(predicate, Arc::clone(&self.snapshot.schema)).map(Some)
    }

    /// The files to read with their masks; files without a visible row are left out. What is known of other columns
    /// than `columns` and those of the filters is left out, too.
    async fn parts(
        &self,
        filters: &[Expr],
        enough: Option<usize>,
        columns: &[&str],
    ) -> Result<(Vec<Part>, Planned)> {
        let told = |prune: Prune| prune.telling_of(columns.iter().map(|&name| name.to_owned()));
        let by_filter = self.filter_prune(filters)?.map(told).map(Arc::new);
        let mut prunes: Vec<&Arc<Prune>> = self.keys.iter().chain(&by_filter).collect();
        let listing = match &self.files {
            Some(files) => {
                let mut listing = Listing::default();
                let mut files = files.as_ref().clone();
                for prune in &prunes {
                    files = plan::narrow(&self.snapshot, Some(prune), files, &mut listing.excluded)?;
                }
                // These prunes counted what they skipped.
                listing.excluded = 0;
                listing.files = files;
                listing
            }
            None => {
                let everything = Arc::new(told(Prune::everything()));
                let second = (prunes.len() > 1).then(|| prunes.remove(1));
                let first = prunes.first().map_or(everything, |prune| Arc::clone(prune));
                plan::list(
                    &self.handle,
                    &self.snapshot,
                    first,
                    second.map(Arc::as_ref),
                    enough,
                )
                .await?
            }
        };
        let mut planned = Planned::default();
        for prune in self.keys.iter().chain(&by_filter) {
            planned.count(prune.counts());
        }
        let masks = match &self.hidden {
            Some(hidden) => {
                let of = |file: &DataFile| hidden.get(&file.path).cloned().unwrap_or_default();
                listing.files.iter().map(of).collect()
            }
            None => plan::read_file_masks(&self.handle, &self.snapshot, &listing.files).await?,
        };
        let listed = masks.len() as u64;
        let mut parts = Vec::with_capacity(masks.len());
        for (file, mask) in listing.files.into_iter().zip(masks) {
            planned.masked_rows += mask.len();
            if mask.len() < file.rows {
                parts.push(Part { file, mask });
            }
        }
        planned.nans = nan::columns(&self.snapshot, parts.iter().map(|part| &part.file));
        let fields = self.snapshot.schema.fields().iter();
        let defaulted = fields.filter(|field| has_defaults_inside(field.data_type()));
        planned.defaults = defaulted.map(|field| field.name().clone()).collect();
        planned.files = parts.len() as u64;
        planned.all_files = listed + planned.skipped_by_partition + planned.skipped_by_statistics;
        Ok((parts, planned))
    }

    fn fill_report(&self, parts: &[Part], planned: &Planned) {
        let add = |to: &AtomicU64, count: u64| to.fetch_add(count, Ordering::Relaxed);
        add(&self.report.files_scanned, planned.files);
        add(&self.report.files_skipped, planned.all_files - planned.files);
        add(
            &self.report.bytes_planned,
            parts.iter().map(|part| part.file.bytes).sum(),
        );
    }

    /// Boxed here, not by the trait: see [`crate::format::Format`].
    fn plan<'a>(
        &'a self,
        state: &'a dyn Session,
        projection: Option<&'a Vec<usize>>,
        filters: &'a [Expr],
        limit: Option<usize>,
    ) -> BoxFuture<'a, Result<Arc<dyn ExecutionPlan>>> {
        Box::pin(async move {
            let every: Vec<usize>;
            let projection = match projection {
                Some(projection) => projection,
                None => {
                    every = (0..self.schema().fields().len()).collect();
                    &every
                }
            };
            let layout = Layout::new(&self.snapshot, self.metadata, projection)?;
            let enough = limit.filter(|_| filters.is_empty());
            let schema = self.schema();
            let columns = projection.iter().map(|at| schema.field(*at).name().as_str());
            let columns: Vec<&str> = columns.collect();
            let (parts, planned) = self.parts(filters, enough, &columns).await?;
            self.fill_report(&parts, &planned);

            let recorded = recorded(&self.snapshot, parts.iter().map(|part| &part.file));
            let readers = Readers::new(self.handle.store.clone());
            let mut files = Vec::with_capacity(parts.len());
            for part in parts {
                let values = recorded.get(&part.file.path);
                let lacking = self.lacking(&layout, &readers, &part.file, values).await?;
                files.push(self.partitioned_file(&layout, part, &lacking)?);
            }
            let whole = total(&layout, &files)?;
            let groups = balanced(files, state.config().target_partitions());

            let url = ObjectStoreUrl::parse(STORE_NAME)?;
            state
                .runtime_env()
                .register_object_store(url.as_ref(), Arc::clone(self.handle.store.object_store()));
            let options = TableParquetOptions {
                global: state.config_options().execution.parquet.clone(),
                ..TableParquetOptions::default()
            };
            let source = ParquetSource::new(layout.table.clone())
                .with_table_parquet_options(options)
                .with_parquet_file_reader_factory(Arc::new(readers));
            let (raw, made) = layout.projection()?;
            let config = FileScanConfigBuilder::new(url, Arc::new(source))
                .with_file_groups(groups)
                .with_statistics(whole)
                .with_expr_adapter(Some(Arc::new(ColumnsById {
                    recorded: Arc::new(recorded),
                })))
                .with_projection_indices(Some(raw))?
                .with_limit(enough)
                .build();
            let scan = DataSourceExec::new(Arc::new(Explained::new(Arc::new(config), Arc::new(planned))));
            let scan: Arc<dyn ExecutionPlan> = Arc::new(scan);
            Ok(match made {
                Some(made) => Arc::new(ProjectionExec::try_new(made, scan)?),
                None => scan,
            })
        })
    }

    /// The recorded values of partition columns that a file does not store, where the engine cannot find them by itself:
    /// in a scan with positions the columns of a file are given to the adapter without the file's name
    /// (DataFusion 55.2, `append_fields`). What statistics say to be one value it takes from these.
    async fn lacking(
        &self,
        layout: &Layout,
        readers: &Readers,
        file: &DataFile,
        recorded: Option<&Vec<(String, ScalarValue)>>,
    ) -> Result<Vec<(usize, ScalarValue)>> {
        let columns = layout.table.file_schema();
        let mut lacking = Vec::new();
        if layout.table.virtual_columns().is_empty() {
            return Ok(lacking);
        }
        for (name, value) in recorded.into_iter().flatten() {
            let Some((at, field)) = columns.fields().find(name) else {
                continue;
            };
            if self.unbelieving || !statistics::is_constant(value, field) {
                lacking.push((at, value.cast_to(field.data_type())?));
            }
        }
        if !lacking.is_empty() {
            let stored = readers.schema(&file.path, file.bytes).await?;
            lacking.retain(|(at, _)| find(columns.field(*at), stored.fields()).is_none());
        }
        Ok(lacking)
    }

    fn partitioned_file(
        &self,
        layout: &Layout,
        part: Part,
        lacking: &[(usize, ScalarValue)],
    ) -> Result<PartitionedFile> {
        let Part { file, mask } = part;
        let location = Path::parse(&file.path)
            .map_err(|e| Error::invalid(format!("this cannot be an object's name: {e}"), &file.path))?;
        let values = layout.values(&self.snapshot, &file)?;
        let mut statistics = match self.unbelieving {
            true => Statistics::new_unknown(layout.table.table_schema()),
            false => statistics::of_file(&self.snapshot, &layout.table, &file, &values, mask.len()),
        };
        for (at, value) in lacking {
            let visible = usize::try_from(file.rows - mask.len()).unwrap_or(usize::MAX);
            statistics.column_statistics[*at] = statistics::constant(value, visible);
        }
        let mut made = PartitionedFile::new_from_meta(ObjectMeta {
            location,
            last_modified: chrono::DateTime::UNIX_EPOCH,
            size: file.bytes,
            e_tag: None,
            version: None,
        })
        .with_partition_values(values);
        made.statistics = Some(Arc::new(statistics));
        if !mask.is_empty() {
            let visible = plan::selection(&mask, file.rows);
            made = made.with_extension(ParquetRowSelection::new(visible));
        }
        Ok(made)
    }
}

impl Planned {
    fn count(&mut self, counts: &PruneCounts) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        self.skipped_by_partition +=
            read(&counts.skipped_by_partition) + read(&counts.files_in_skipped_manifests);
        self.skipped_by_statistics += read(&counts.skipped_by_statistics);
    }
}

/// Statistics of all files together.
fn total(layout: &Layout, files: &[PartitionedFile]) -> Result<Statistics> {
    let schema = layout.table.table_schema();
    if files.is_empty() {
        let mut none = Statistics::new_unknown(schema);
        none.num_rows = datafusion::common::stats::Precision::Exact(0);
        return Ok(none);
    }
    let each = files.iter().filter_map(|file| file.statistics.as_deref());
    Ok(Statistics::try_merge_iter(each, schema)?)
}

/// Spreads files over at most `partitions` groups of about the same size, largest first.
fn balanced(mut files: Vec<PartitionedFile>, partitions: usize) -> Vec<FileGroup> {
    let count = partitions.min(files.len()).max(1);
    files.sort_by_key(|file| std::cmp::Reverse(file.object_meta.size));
    let mut groups = vec![(0, Vec::new()); count];
    for file in files {
        if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.object_meta.size.max(1);
            group.push(file);
        }
    }
    groups
        .into_iter()
        .map(|(_, group)| FileGroup::new(group))
        .collect()
}

/// Whether a filter speaks of these columns only, and can be judged without running a query.
fn on_columns(filter: &Expr, columns: &HashSet<&str>) -> Result<bool> {
    let mut usable = !filter.is_volatile();
    filter.apply(|node| {
        usable &= match node {
            Expr::Column(column) => columns.contains(column.name.as_str()),
            Expr::InSubquery(_) | Expr::Exists(_) | Expr::ScalarSubquery(_) | Expr::SetComparison(_) => false,
            Expr::OuterReferenceColumn(..) | Expr::Placeholder(_) => false,
            _ => true,
        };
        Ok(if usable {
            TreeNodeRecursion::Continue
        } else {
            TreeNodeRecursion::Stop
        })
    })?;
    Ok(usable)
}

fn unqualified(filter: Expr) -> Result<Expr> {
    let plain = filter
        .transform_up(|node| match node {
            Expr::Column(column) if column.relation.is_some() => Ok(Transformed::yes(Expr::Column(
                Column::new_unqualified(column.name),
            ))),
            other => Ok(Transformed::no(other)),
        })
        .data()?;
    Ok(plain)
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        full_schema(&self.snapshot, self.metadata)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    fn supports_filters_pushdown(
        &self,
        filters: &[&Expr],
    ) -> datafusion::error::Result<Vec<TableProviderFilterPushDown>> {
        // They prune files here; the rows are filtered inside the Parquet scan, where the physical
        // optimizer puts them.
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> datafusion::error::Result<Arc<dyn ExecutionPlan>> {
        self.plan(state, projection, filters, limit)
            .await
            .map_err(DataFusionError::from)
    }
}
