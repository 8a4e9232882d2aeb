//! The records of manifest lists and manifests, as their Avro has them, by name (Iceberg spec, "Manifests", "Manifest
//! Lists"). Writers of older versions leave fields out or have other names for them; what is unknown is passed over.

use std::collections::{HashMap, HashSet};
use std::fmt;

use iceberg::spec::{
    ByteBuf, DataFile, DataFileBuilder, DataFileFormat, Datum, FieldSummary, FormatVersion, Literal,
    ManifestFile, ManifestMetadata, ManifestStatus, NestedField, PrimitiveType, Schema, Struct, StructType,
};
use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use super::avro;
use super::deletes::{DELETE_PATH_ID, DELETE_POS_ID};
use super::metadata::{SHORT, broken, broken_by, check_paths, columns, rename_void};
use crate::error::Result;
use crate::model::limits::{self, Limit, Limits};
use crate::model::schema::{LAST_UPDATED_FIELD_ID, ROW_ID_FIELD_ID};

/// Columns that every table has, `_file` and `_pos` (Iceberg spec, "Reserved Field IDs"); DuckDB gives the bounds of
/// position deletes their ids.
const FILE_ID: i32 = i32::MAX - 1;
const POSITION_ID: i32 = i32::MAX - 2;

/// A line of a manifest list.
#[derive(Deserialize)]
struct Line {
    manifest_path: String,
    manifest_length: i64,
    partition_spec_id: i32,
    content: Option<i32>,
    sequence_number: Option<i64>,
    min_sequence_number: Option<i64>,
    added_snapshot_id: i64,
    #[serde(alias = "added_data_files_count")]
    added_files_count: Option<u32>,
    #[serde(alias = "existing_data_files_count")]
    existing_files_count: Option<u32>,
    #[serde(alias = "deleted_data_files_count")]
    deleted_files_count: Option<u32>,
    added_rows_count: Option<u64>,
    existing_rows_count: Option<u64>,
    deleted_rows_count: Option<u64>,
    partitions: Option<Vec<FieldSummary>>,
    key_metadata: Option<ByteBuf>,
    first_row_id: Option<u64>,
}

/// Reads a manifest list; `place` names it in errors.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) when it is broken, and the limits of [`avro`].
pub(super) fn manifest_list(bytes: &[u8], limits: &Limits, place: &str) -> Result<Vec<ManifestFile>> {
    let mut lines = Vec::new();
    avro::File::open(bytes, limits, place)?.records(|line: Line| {
        lines.push(ManifestFile {
            content: line
                .content
                .unwrap_or_default()
                .try_into()
                .map_err(|e| broken_by(place, &e))?,
            manifest_path: line.manifest_path,
            manifest_length: line.manifest_length,
            partition_spec_id: line.partition_spec_id,
            sequence_number: line.sequence_number.unwrap_or_default(),
            min_sequence_number: line.min_sequence_number.unwrap_or_default(),
            added_snapshot_id: line.added_snapshot_id,
            added_files_count: line.added_files_count,
            existing_files_count: line.existing_files_count,
            deleted_files_count: line.deleted_files_count,
            added_rows_count: line.added_rows_count,
            existing_rows_count: line.existing_rows_count,
            deleted_rows_count: line.deleted_rows_count,
            partitions: line.partitions,
            key_metadata: line.key_metadata.map(ByteBuf::into_vec),
            first_row_id: line.first_row_id,
        });
        Ok(())
    })?;
    Ok(lines)
}

/// An entry of a manifest, with what it inherits still to be filled in.
#[derive(Debug, PartialEq)]
pub(super) struct Listed {
    pub(super) status: ManifestStatus,
    pub(super) snapshot_id: Option<i64>,
    pub(super) sequence: Option<i64>,
    pub(super) file_sequence: Option<i64>,
    pub(super) file: DataFile,
}

/// An entry as Avro has it.
#[derive(Deserialize)]
pub(super) struct Entry {
    status: i32,
    snapshot_id: Option<i64>,
    sequence_number: Option<i64>,
    file_sequence_number: Option<i64>,
    data_file: File,
}

#[derive(Deserialize)]
struct File {
    content: Option<i32>,
    file_path: String,
    file_format: String,
    partition: Partition,
    record_count: u64,
    file_size_in_bytes: u64,
    column_sizes: Option<ById<i64>>,
    value_counts: Option<ById<i64>>,
    null_value_counts: Option<ById<i64>>,
    nan_value_counts: Option<ById<i64>>,
    lower_bounds: Option<ById<ByteBuf>>,
    upper_bounds: Option<ById<ByteBuf>>,
    key_metadata: Option<ByteBuf>,
    split_offsets: Option<Vec<i64>>,
    equality_ids: Option<Vec<i32>>,
    sort_order_id: Option<i32>,
    first_row_id: Option<i64>,
    referenced_data_file: Option<String>,
    content_offset: Option<i64>,
    content_size_in_bytes: Option<i64>,
}

/// What the header of a manifest says.
pub(super) struct Header<'a> {
    pub(super) metadata: ManifestMetadata,
    /// Types of the partition values.
    pub(super) types: Vec<PrimitiveType>,
    /// Where each of them is among the values of a record; `None` where it has none, which is NULL.
    order: Vec<Option<usize>>,
    /// The columns whose statistics are kept; `None` for all.
    pub(super) wanted: Option<HashSet<i32>>,
    pub(super) place: &'a str,
}

/// Reads a manifest: its header and its entries; `place` names it in errors.
///
/// # Errors
/// As [`manifest_list`].
pub(super) fn manifest(
    bytes: &[u8],
    limits: &Limits,
    place: &str,
) -> Result<(ManifestMetadata, Vec<Listed>)> {
    let (header, file) = open(bytes, limits, place)?;
    let mut entries = Vec::new();
    file.records(|entry: Entry| {
        entries.push(entry.under(&header)?);
        Ok(())
    })?;
    Ok((header.metadata, entries))
}

/// Opens a manifest and reads its header; `place` names it in errors.
///
/// # Errors
/// As [`manifest_list`].
pub(super) fn open<'a>(
    bytes: &'a [u8],
    limits: &'a Limits,
    place: &'a str,
) -> Result<(Header<'a>, avro::File<'a>)> {
    const NOTED: [&str; 6] = [
        "schema",
        "schema-id",
        "partition-spec",
        "partition-spec-id",
        "format-version",
        "content",
    ];
    let failed = |error: iceberg::Error| broken_by(place, &error);
    let file = avro::File::open(bytes, limits, place)?;
    let noted = NOTED.into_iter().filter_map(|key| Some((key, file.header(key)?)));
    let mut noted: HashMap<_, _> = noted.map(|(key, text)| (key.to_owned(), text.to_vec())).collect();
    for text in [noted.get("schema"), noted.get("partition-spec")]
        .into_iter()
        .flatten()
    {
        check_header(text, place)?;
    }
    rename_voids(&mut noted);
    let metadata = ManifestMetadata::parse(&noted).map_err(failed)?;
    let partition = partition_type(&metadata, place)?;
    let header = Header {
        types: partition_types(&metadata, place)?,
        order: order(
            &partition,
            &file.fields(&["data_file", "partition"]).unwrap_or_default(),
            place,
        )?,
        metadata,
        wanted: None,
        place,
    };
    Ok((header, file))
}

impl Entry {
    /// The entry as the header of its manifest says.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) naming the manifest when a value is none of its field.
    pub(super) fn under(self, header: &Header<'_>) -> Result<Listed> {
        // Format version 1 has no sequence numbers.
        let first = matches!(header.metadata.format_version(), FormatVersion::V1);
        let sequence = |number: Option<i64>| if first { Some(0) } else { number };
        Ok(Listed {
            status: self.status.try_into().map_err(|e| broken_by(header.place, &e))?,
            snapshot_id: self.snapshot_id,
            sequence: sequence(self.sequence_number),
            file_sequence: sequence(self.file_sequence_number),
            file: self.data_file.under(header)?,
        })
    }
}

/// The types of the partition values of a manifest's entries.
///
/// # Errors
/// [`Error::Invalid`](crate::Error::Invalid) when its spec does not fit its schema.
pub(super) fn partition_types(metadata: &ManifestMetadata, place: &str) -> Result<Vec<PrimitiveType>> {
    let partition = partition_type(metadata, place)?;
    let types = partition
        .fields()
        .iter()
        .map(|field| field.field_type.as_primitive_type().cloned());
    types
        .collect::<Option<_>>()
        .ok_or_else(|| broken(place, "a partition value is not of a primitive type".into()))
}

fn partition_type(metadata: &ManifestMetadata, place: &str) -> Result<StructType> {
    let partition = metadata.partition_spec().partition_type(metadata.schema());
    partition.map_err(|error| broken_by(place, &error))
}

/// Where the value of each partition field is among those that records have: by the number of the field, where
/// writers note it, by its name, or, since names may be changed to be ones of Avro, by its position.
fn order(partition: &StructType, found: &[(&str, Option<i32>)], place: &str) -> Result<Vec<Option<usize>>> {
    let fields = partition.fields();
    let all = |at: &dyn Fn(&NestedField) -> Option<usize>| -> Vec<Option<usize>> {
        fields.iter().map(|field| at(field)).collect()
    };
    let by_id = all(&|field| found.iter().position(|(_, id)| *id == Some(field.id)));
    if by_id.iter().all(Option::is_some) {
        return Ok(by_id);
    }
    let by_name = all(&|field| found.iter().position(|(name, _)| *name == field.name));
    if by_name.iter().all(Option::is_some) {
        return Ok(by_name);
    }
    if found.len() == fields.len() {
        return Ok((0..fields.len()).map(Some).collect());
    }
    match found.iter().all(|(_, id)| id.is_some()) {
        true => Ok(by_id),
        false => Err(broken(
            place,
            "its entries have another number of partition values than its spec".into(),
        )),
    }
}

/// As in the metadata of the table: a void field does not have the name of a column ([`rename_void`]).
fn rename_voids(noted: &mut HashMap<String, Vec<u8>>) {
    let is_void = |text: &Vec<u8>| text.windows(6).any(|word| word == b"\"void\"");
    let Some(spec) = noted.get("partition-spec").filter(|text| is_void(text)) else {
        return;
    };
    // What is no JSON is refused by whoever reads it.
    let read = |text: &[u8]| serde_json::from_slice::<Value>(text).ok();
    let schema = noted.get("schema").and_then(|text| read(text));
    if let (Some(mut fields), Some(schema)) = (read(spec), schema) {
        rename_void(&mut fields, &columns(&schema).map(str::to_owned).collect());
        noted.insert("partition-spec".to_owned(), fields.to_string().into_bytes());
    }
}

/// The texts in a header are read by the crate, which keeps the whole way to every column.
fn check_header(text: &[u8], place: &str) -> Result<()> {
    const BYTES: Limit = Limit::fixed(4 << 20);
    limits::at_most(
        text.len() as u64,
        BYTES,
        "bytes of schema in the header of a manifest",
        place,
    )?;
    // What is no JSON is refused by whoever reads it.
    match text.len() > SHORT {
        true => serde_json::from_slice(text).map_or(Ok(()), |value| check_paths(&value, place)),
        false => Ok(()),
    }
}

impl File {
    fn under(self, header: &Header<'_>) -> Result<DataFile> {
        let failed = |error: iceberg::Error| broken_by(header.place, &error);
        let wanted = |id: &i32| header.wanted.as_ref().is_none_or(|wanted| wanted.contains(id));
        let counts = |counts| counted(counts, wanted);
        let bounds = |bounds| bounded(bounds, header.metadata.schema(), wanted);
        let mut file = DataFileBuilder::default();
        file.content(self.content.unwrap_or_default().try_into().map_err(failed)?)
            .file_format(self.file_format.parse::<DataFileFormat>().map_err(failed)?)
            .partition(self.partition.under(header)?)
            .file_path(self.file_path)
            .record_count(self.record_count)
            .file_size_in_bytes(self.file_size_in_bytes)
            .column_sizes(counts(self.column_sizes))
            .value_counts(counts(self.value_counts))
            .null_value_counts(counts(self.null_value_counts))
            .nan_value_counts(counts(self.nan_value_counts))
            .lower_bounds(bounds(self.lower_bounds))
            .upper_bounds(bounds(self.upper_bounds))
            .key_metadata(self.key_metadata.map(ByteBuf::into_vec))
            .split_offsets(self.split_offsets)
            .equality_ids(self.equality_ids)
            .first_row_id(self.first_row_id)
            .partition_spec_id(header.metadata.partition_spec().spec_id())
            .referenced_data_file(self.referenced_data_file)
            .content_offset(self.content_offset)
            .content_size_in_bytes(self.content_size_in_bytes);
        if let Some(id) = self.sort_order_id {
            file.sort_order_id(id);
        }
        file.build()
            .map_err(|error| broken(header.place, error.to_string()))
    }
}

/// Counts are not negative: what is, says nothing.
fn counted(counts: Option<ById<i64>>, wanted: impl Fn(&i32) -> bool) -> HashMap<i32, u64> {
    let counts = counts.into_iter().flat_map(|ById(counts)| counts);
    counts
        .filter(|(id, _)| wanted(id))
        .filter_map(|(id, count)| Some((id, u64::try_from(count).ok()?)))
        .collect()
}

/// Bounds of columns that the schema does not have say nothing, nor do those that are no values of the column's type.
fn bounded(
    bounds: Option<ById<ByteBuf>>,
    schema: &Schema,
    wanted: impl Fn(&i32) -> bool,
) -> HashMap<i32, Datum> {
    let bounds = bounds.into_iter().flat_map(|ById(bounds)| bounds);
    bounds
        .filter(|(id, _)| wanted(id))
        .filter_map(|(id, bytes)| {
            let ty = match id {
                DELETE_PATH_ID | FILE_ID => &PrimitiveType::String,
                DELETE_POS_ID | POSITION_ID | ROW_ID_FIELD_ID | LAST_UPDATED_FIELD_ID => &PrimitiveType::Long,
                id => schema.field_by_id(id)?.field_type.as_primitive_type()?,
            };
            Some((id, bound(&bytes, ty)?))
        })
        .collect()
}

/// A bound of a column of this type; `None` when it is no value of it.
pub(super) fn bound(bytes: &[u8], ty: &PrimitiveType) -> Option<Datum> {
    // The crate takes any bytes for a boolean, and none for a decimal of 0.
    let sound = match ty {
        PrimitiveType::Boolean => bytes.len() == 1,
        PrimitiveType::Decimal { .. } => !bytes.is_empty(),
        _ => true,
    };
    Datum::try_from_bytes(bytes, ty.clone()).ok().filter(|_| sound)
}

/// A map from column ids, which Avro has as an array of pairs: its own maps have texts as keys.
struct ById<T>(Vec<(i32, T)>);

#[derive(Deserialize)]
struct Pair<T> {
    key: i32,
    value: T,
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for ById<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        let pairs = Vec::<Pair<T>>::deserialize(deserializer)?;
        Ok(Self(
            pairs.into_iter().map(|pair| (pair.key, pair.value)).collect(),
        ))
    }
}

/// The values of a partition, as they come.
pub(super) struct Partition(Vec<Raw>);

/// A partition value as Avro has it.
#[derive(Debug, Default)]
enum Raw {
    #[default]
    Null,
    Boolean(bool),
    Number(i64),
    Float(f32),
    Double(f64),
    Text(String),
    Bytes(Vec<u8>),
}

impl Partition {
    /// The values as the header of the manifest says.
    ///
    /// # Errors
    /// [`Error::Invalid`](crate::Error::Invalid) when one is not of its field's type.
    pub(super) fn under(mut self, header: &Header<'_>) -> Result<Struct> {
        let literals = header.order.iter().zip(&header.types).map(|(at, ty)| {
            let value = at.and_then(|at| self.0.get_mut(at)).map(std::mem::take);
            value
                .unwrap_or_default()
                .literal(ty)
                .ok_or_else(|| broken(header.place, format!("a partition value is not of type {ty}")))
        });
        Ok(Struct::from_iter(literals.collect::<Result<Vec<_>>>()?))
    }
}

impl Raw {
    /// The value, which may be NULL, in a type; `None` when it is none of this type.
    fn literal(self, ty: &PrimitiveType) -> Option<Option<Literal>> {
        use PrimitiveType as P;
        Some(Some(match (ty, self) {
            (_, Self::Null) => return Some(None),
            (P::Boolean, Self::Boolean(value)) => Literal::bool(value),
            (P::Int, Self::Number(value)) => Literal::int(i32::try_from(value).ok()?),
            (P::Date, Self::Number(value)) => Literal::date(i32::try_from(value).ok()?),
            (
                P::Long | P::Time | P::Timestamp | P::Timestamptz | P::TimestampNs | P::TimestamptzNs,
                Self::Number(value),
            ) => Literal::long(value),
            (P::Float, Self::Float(value)) => Literal::float(value),
            (P::Double, Self::Float(value)) => Literal::double(value),
            (P::Double, Self::Double(value)) => Literal::double(value),
            (P::String, Self::Text(value)) => Literal::string(value),
            (P::String, Self::Bytes(value)) => Literal::string(String::from_utf8(value).ok()?),
            (P::Binary, Self::Text(value)) => Literal::binary(value.into_bytes()),
            (P::Uuid, Self::Text(value)) => Literal::uuid(value.parse().ok()?),
            (P::Uuid | P::Fixed(_) | P::Binary | P::Decimal { .. }, Self::Bytes(bytes)) => {
                Datum::try_from_bytes(&bytes, ty.clone()).ok()?.into()
            }
            _ => return None,
        }))
    }
}

impl<'de> Deserialize<'de> for Partition {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Values;
        impl<'de> Visitor<'de> for Values {
            type Value = Partition;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a record of partition values")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<Partition, A::Error> {
                let mut values = Vec::new();
                while let Some((_, value)) = map.next_entry::<IgnoredAny, Raw>()? {
                    values.push(value);
                }
                Ok(Partition(values))
            }
        }
        deserializer.deserialize_map(Values)
    }
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Any;
        impl Visitor<'_> for Any {
            type Value = Raw;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a partition value")
            }

            fn visit_unit<E>(self) -> std::result::Result<Raw, E> {
                Ok(Raw::Null)
            }

            fn visit_bool<E>(self, value: bool) -> std::result::Result<Raw, E> {
                Ok(Raw::Boolean(value))
            }

            fn visit_i64<E>(self, value: i64) -> std::result::Result<Raw, E> {
                Ok(Raw::Number(value))
            }

            fn visit_f32<E>(self, value: f32) -> std::result::Result<Raw, E> {
                Ok(Raw::Float(value))
            }

            fn visit_f64<E>(self, value: f64) -> std::result::Result<Raw, E> {
                Ok(Raw::Double(value))
            }

            fn visit_str<E>(self, value: &str) -> std::result::Result<Raw, E> {
                Ok(Raw::Text(value.to_owned()))
            }

            fn visit_bytes<E>(self, value: &[u8]) -> std::result::Result<Raw, E> {
                Ok(Raw::Bytes(value.to_vec()))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

#[cfg(test)]
#[path = "entries_tests.rs"]
mod tests;
