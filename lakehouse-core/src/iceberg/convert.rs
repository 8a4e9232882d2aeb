//! Data files: the neutral noun to a manifest entry's file and back.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iceberg::spec::{
    DataContentType, DataFile as IcebergFile, DataFileBuilder, DataFileFormat, Datum, Literal, PartitionSpec,
    PrimitiveType, Schema, Struct,
};

use super::manifests::{Entry, Manifest};
use super::metadata::broken;
use super::paths::Paths;
use super::types::{Leaf, leaves};
use super::values::{Side, encode_bound, exact_bounds, partition_scalar, to_literal, to_scalar};
use crate::error::{Error, Result};
use crate::model::{ColumnStats, DataFile};
use datafusion::scalar::ScalarValue;

/// Turns entries into data files, for one schema of the reader.
#[derive(Debug, Clone)]
pub(super) struct Reader {
    pub(super) paths: Paths,
    pub(super) columns: Arc<BTreeMap<i32, Leaf>>,
}

impl Reader {
    pub(super) fn new(paths: &Paths, schema: &Schema) -> Result<Self> {
        Ok(Self {
            paths: paths.clone(),
            columns: Arc::new(leaves(schema)?),
        })
    }

    /// The data file of a live entry, its masks not attached yet.
    ///
    /// # Errors
    /// [`Error::Denied`] when it lies outside the table, [`Error::Unsupported`] when it is not Parquet.
    pub(super) fn data_file(&self, manifest: &Manifest, entry: &Entry) -> Result<DataFile> {
        let file = &entry.file;
        if file.file_format() != DataFileFormat::Parquet {
            return Err(Error::unsupported(
                format!(
                    "{} is an {} file; only Parquet is read",
                    file.file_path(),
                    file.file_format()
                ),
                "rewrite the table's files as Parquet with the engine that wrote them",
            ));
        }
        Ok(DataFile {
            path: self.paths.relative(file.file_path())?,
            recorded: file.file_path().to_owned(),
            bytes: file.file_size_in_bytes(),
            rows: file.record_count(),
            spec_id: manifest.list.partition_spec_id,
            partition: partition_of(file, &manifest.types, &manifest.list.manifest_path)?,
            columns: self.statistics(file),
            masks: Vec::new(),
            equality_deletes: Vec::new(),
            sequence: Some(entry.sequence),
            first_row_id: entry.first_row_id,
            split_offsets: file.split_offsets().unwrap_or_default().to_vec(),
            notes: None,
        })
    }

    fn statistics(&self, file: &IcebergFile) -> BTreeMap<String, ColumnStats> {
        let mut found = BTreeMap::new();
        for (id, leaf) in self.columns.iter() {
            let bound = |bounds: &HashMap<i32, Datum>| bound_of(bounds.get(id)?, leaf);
            let stats = ColumnStats {
                values: file.value_counts().get(id).copied(),
                nulls: file.null_value_counts().get(id).copied(),
                nans: file.nan_value_counts().get(id).copied(),
                min: bound(file.lower_bounds()),
                max: bound(file.upper_bounds()),
                exact: exact_bounds(&leaf.primitive),
                bytes: file.column_sizes().get(id).copied(),
            };
            let known = stats.values.is_some()
                || stats.nulls.is_some()
                || stats.min.is_some()
                || stats.max.is_some()
                || stats.bytes.is_some();
            if known {
                found.insert(leaf.name.clone(), stats);
            }
        }
        found
    }
}

/// A bound as a value of the column's type; `None` when it says nothing.
pub(super) fn bound_of(datum: &Datum, leaf: &Leaf) -> Option<ScalarValue> {
    if !becomes(datum.data_type(), &leaf.primitive) {
        return None;
    }
    to_scalar(datum.literal(), datum.data_type(), &leaf.arrow).filter(|value| !is_nan(value))
}

/// Whether a column that was of one type may be of the other now (Iceberg spec, "Schema Evolution"). Bounds of another
/// type are those of a column that the writer took for this one.
fn becomes(before: &PrimitiveType, now: &PrimitiveType) -> bool {
    use PrimitiveType as P;
    match (before, now) {
        (P::Int, P::Long) | (P::Float, P::Double) => true,
        (P::Date, P::Timestamp | P::TimestampNs) => true,
        (
            P::Decimal { precision, scale },
            P::Decimal {
                precision: wider,
                scale: same,
            },
        ) => precision <= wider && scale == same,
        _ => before == now,
    }
}

fn is_nan(value: &ScalarValue) -> bool {
    match value {
        ScalarValue::Float32(Some(v)) => v.is_nan(),
        ScalarValue::Float64(Some(v)) => v.is_nan(),
        _ => false,
    }
}

/// The partition values of an entry's file.
///
/// # Errors
/// [`Error::Invalid`] naming the manifest when a value is not of its field's type.
pub(super) fn partition_of(
    file: &IcebergFile,
    types: &[PrimitiveType],
    manifest: &str,
) -> Result<Vec<ScalarValue>> {
    partition_values(file.partition(), types, manifest)
}

/// The same, of the values alone.
///
/// # Errors
/// As [`partition_of`].
pub(super) fn partition_values(
    values: &Struct,
    types: &[PrimitiveType],
    manifest: &str,
) -> Result<Vec<ScalarValue>> {
    values
        .fields()
        .iter()
        .zip(types)
        .map(|(value, ty)| {
            partition_scalar(value.as_ref(), ty)
                .map_err(|_| broken(manifest, format!("a partition value is not of type {ty}")))
        })
        .collect()
}

/// Partition values for a new entry.
///
/// # Errors
/// [`Error::Invalid`] when they do not fit the spec.
pub(super) fn partition_struct(
    values: &[ScalarValue],
    types: &[PrimitiveType],
    path: &str,
) -> Result<Struct> {
    if values.len() != types.len() {
        return Err(Error::invalid(
            format!(
                "{} partition values for {} partition fields",
                values.len(),
                types.len()
            ),
            path,
        ));
    }
    values
        .iter()
        .zip(types)
        .map(|(value, ty)| to_literal(value, ty))
        .collect::<Result<Vec<Option<Literal>>>>()
        .map(Struct::from_iter)
}

/// A new data file as a manifest entry's file; `sort_order_id` is that of the order of its rows.
///
/// # Errors
/// [`Error::Invalid`] when its partition values or statistics do not fit the table's columns.
pub(super) fn added_file(
    file: &DataFile,
    recorded: String,
    sort_order_id: Option<i32>,
    (spec, types): (&PartitionSpec, &[PrimitiveType]),
    columns: &BTreeMap<i32, Leaf>,
) -> Result<IcebergFile> {
    let (mut sizes, mut values, mut nulls, mut nans) =
        (HashMap::new(), HashMap::new(), HashMap::new(), HashMap::new());
    let (mut lower, mut upper) = (HashMap::new(), HashMap::new());
    for (id, leaf) in columns {
        let Some(stats) = file.columns.get(&leaf.name) else {
            continue;
        };
        let keep = |counts: &mut HashMap<i32, u64>, count: Option<u64>| {
            counts.extend(count.map(|count| (*id, count)));
        };
        keep(&mut sizes, stats.bytes);
        keep(&mut values, stats.values);
        keep(&mut nulls, stats.nulls);
        keep(&mut nans, stats.nans);
        if let Some(min) = &stats.min {
            lower.extend(encode_bound(min, &leaf.primitive, Side::Lower)?.map(|bound| (*id, bound)));
        }
        if let Some(max) = &stats.max {
            upper.extend(encode_bound(max, &leaf.primitive, Side::Upper)?.map(|bound| (*id, bound)));
        }
    }
    let mut offsets = file.split_offsets.clone();
    offsets.sort_unstable();
    let mut entry = DataFileBuilder::default();
    entry
        .content(DataContentType::Data)
        .file_path(recorded)
        .file_format(DataFileFormat::Parquet)
        .partition(partition_struct(&file.partition, types, &file.path)?)
        .partition_spec_id(spec.spec_id())
        .record_count(file.rows)
        .file_size_in_bytes(file.bytes)
        .column_sizes(sizes)
        .value_counts(values)
        .null_value_counts(nulls)
        .nan_value_counts(nans)
        .lower_bounds(lower)
        .upper_bounds(upper)
        .split_offsets((!offsets.is_empty()).then_some(offsets));
    if let Some(id) = sort_order_id {
        entry.sort_order_id(id);
    }
    entry
        .build()
        .map_err(|e| Error::invalid(format!("cannot describe a data file: {e}"), file.path.clone()))
}

/// The same file with its first row id spelled out, as an entry that moves to another manifest needs it.
///
/// # Errors
/// None in practice: every field is copied.
pub(super) fn with_first_row_id(file: &IcebergFile, first_row_id: Option<i64>) -> Result<IcebergFile> {
    if file.first_row_id() == first_row_id {
        return Ok(file.clone());
    }
    built(copied(file).first_row_id(first_row_id), file)
}

/// The same file with its partition values in types that its columns have by now; `None` where one may not become so.
///
/// # Errors
/// None in practice: every field is copied.
pub(super) fn with_partition_types(
    file: &IcebergFile,
    from: &[PrimitiveType],
    to: &[PrimitiveType],
) -> Result<Option<IcebergFile>> {
    if from == to {
        return Ok(Some(file.clone()));
    }
    if from.len() != to.len() || file.partition().iter().len() != to.len() {
        return Ok(None);
    }
    let values = file.partition().iter().zip(from.iter().zip(to));
    let values = values.map(|(value, (from, to))| match value {
        None => Some(None),
        Some(value) => widened(value, from, to).map(Some),
    });
    match values.collect::<Option<Struct>>() {
        Some(partition) => built(copied(file).partition(partition), file).map(Some),
        None => Ok(None),
    }
}

/// A partition value of a column that became wider (Iceberg spec, "Schema Evolution").
fn widened(value: &Literal, from: &PrimitiveType, to: &PrimitiveType) -> Option<Literal> {
    use iceberg::spec::PrimitiveLiteral as L;
    if from == to {
        return Some(value.clone());
    }
    if !becomes(from, to) {
        return None;
    }
    match (value, to) {
        (Literal::Primitive(L::Int(v)), PrimitiveType::Long) => Some(Literal::long(*v)),
        (Literal::Primitive(L::Float(v)), PrimitiveType::Double) => Some(Literal::double(v.0)),
        (value, PrimitiveType::Decimal { .. }) => Some(value.clone()),
        _ => None,
    }
}

fn copied(file: &IcebergFile) -> DataFileBuilder {
    let mut copy = DataFileBuilder::default();
    copy.content(file.content_type())
        .file_path(file.file_path().to_owned())
        .file_format(file.file_format())
        .partition(file.partition().clone())
        .record_count(file.record_count())
        .file_size_in_bytes(file.file_size_in_bytes())
        .column_sizes(file.column_sizes().clone())
        .value_counts(file.value_counts().clone())
        .null_value_counts(file.null_value_counts().clone())
        .nan_value_counts(file.nan_value_counts().clone())
        .lower_bounds(file.lower_bounds().clone())
        .upper_bounds(file.upper_bounds().clone())
        .key_metadata(file.key_metadata().map(<[u8]>::to_vec))
        .split_offsets(file.split_offsets().map(<[i64]>::to_vec))
        .equality_ids(file.equality_ids())
        .first_row_id(file.first_row_id())
        .referenced_data_file(file.referenced_data_file())
        .content_offset(file.content_offset())
        .content_size_in_bytes(file.content_size_in_bytes());
    if let Some(order) = file.sort_order_id() {
        copy.sort_order_id(order);
    }
    copy
}

fn built(copy: &DataFileBuilder, file: &IcebergFile) -> Result<IcebergFile> {
    copy.build()
        .map_err(|e| Error::invalid(format!("cannot copy a manifest entry: {e}"), file.file_path()))
}
