use std::path::{Path, PathBuf};
use std::sync::Arc;

use iceberg::spec::{
    DataContentType, Manifest, ManifestContentType, ManifestList, NestedField, PartitionSpec, Transform, Type,
};

use super::super::manifests::{NewEntry, NewManifest, encode_manifest};
use super::super::values::{Side, encode_bound, partition_scalar};
use super::*;

/// What the crate's own reader finds in a manifest, if it can read it.
fn by_the_crate(bytes: &[u8]) -> iceberg::Result<(ManifestMetadata, Vec<Listed>)> {
    let (entries, metadata) = Manifest::parse_avro(bytes)?.into_parts();
    let listed = entries.into_iter().map(|entry| Listed {
        status: entry.status,
        snapshot_id: entry.snapshot_id,
        sequence: entry.sequence_number,
        file_sequence: entry.file_sequence_number,
        file: entry.data_file.clone(),
    });
    Ok((metadata, listed.collect()))
}

fn avro_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            avro_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "avro") {
            found.push(path);
        }
    }
}

#[test]
fn manifests_and_lists_of_other_writers_are_read_as_the_crate_reads_them() {
    let mut files = Vec::new();
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/foreign");
    avro_files(&fixtures, &mut files);
    let (mut lists, mut manifests) = (0, 0);
    for path in files {
        let bytes = std::fs::read(&path).unwrap();
        let name = path.display().to_string();
        if path.file_name().unwrap().to_str().unwrap().starts_with("snap-") {
            let versions = [FormatVersion::V3, FormatVersion::V2, FormatVersion::V1];
            let expected = versions
                .into_iter()
                .find_map(|version| ManifestList::parse_with_version(&bytes, version).ok())
                .unwrap();
            assert_eq!(
                manifest_list(&bytes, &Limits::default(), &name).unwrap(),
                expected.entries(),
                "{name}"
            );
            lists += 1;
        } else {
            assert_eq!(
                manifest(&bytes, &Limits::default(), &name).unwrap(),
                by_the_crate(&bytes).unwrap(),
                "{name}"
            );
            manifests += 1;
        }
    }
    assert!(
        lists > 10 && manifests > 10,
        "{lists} lists, {manifests} manifests"
    );
}

/// Every type that a partition value can have, with the least, the greatest or an odd value.
fn types() -> Vec<(PrimitiveType, [Literal; 2])> {
    use PrimitiveType as P;
    let decimal = |precision| P::Decimal { precision, scale: 2 };
    let long = |ty| (ty, [Literal::long(i64::MIN), Literal::long(i64::MAX)]);
    vec![
        (P::Boolean, [Literal::bool(false), Literal::bool(true)]),
        (P::Int, [Literal::int(i32::MIN), Literal::int(i32::MAX)]),
        long(P::Long),
        (P::Float, [Literal::float(f32::NAN), Literal::float(-0.0)]),
        (
            P::Double,
            [Literal::double(f64::INFINITY), Literal::double(f64::MIN)],
        ),
        (decimal(9), [Literal::decimal(-12345), Literal::decimal(0)]),
        (
            decimal(38),
            [Literal::decimal(10_i128.pow(38) - 1), Literal::decimal(-1)],
        ),
        (P::Date, [Literal::date(-1), Literal::date(i32::MAX)]),
        long(P::Time),
        long(P::Timestamp),
        long(P::Timestamptz),
        long(P::TimestampNs),
        long(P::TimestamptzNs),
        (
            P::String,
            [Literal::string(""), Literal::string("åland\u{10FFFF}")],
        ),
        (
            P::Uuid,
            [Literal::uuid(uuid::Uuid::nil()), Literal::uuid(uuid::Uuid::max())],
        ),
        (P::Fixed(3), [Literal::fixed([0, 255, 7]), Literal::fixed([0; 3])]),
        (
            P::Binary,
            [Literal::binary(vec![]), Literal::binary(vec![255; 40])],
        ),
    ]
}

fn file(values: &[Option<Literal>], bounds: &[HashMap<i32, Datum>; 2], content: DataContentType) -> DataFile {
    DataFileBuilder::default()
        .content(content)
        .file_path("data/a b.parquet".into())
        .file_format(DataFileFormat::Parquet)
        .partition(values.iter().cloned().collect())
        .partition_spec_id(7)
        .record_count(u64::from(u32::MAX))
        .file_size_in_bytes(1)
        .column_sizes([(1, 10), (2, 0)].into())
        .value_counts([(3, 1 << 40)].into())
        .null_value_counts([(3, 0)].into())
        .nan_value_counts([(4, 2)].into())
        .lower_bounds(bounds[0].clone())
        .upper_bounds(bounds[1].clone())
        .split_offsets(Some(vec![4, 1 << 33]))
        .equality_ids((content == DataContentType::EqualityDeletes).then(|| vec![1, 2]))
        .sort_order_id(3)
        .first_row_id(Some(17))
        .referenced_data_file(Some("data/c.parquet".into()))
        .content_offset(Some(4))
        .content_size_in_bytes(Some(44))
        .build()
        .unwrap()
}

#[tokio::test]
async fn manifests_of_every_type_and_version_are_read_as_the_crate_reads_them() {
    use DataContentType::{Data, EqualityDeletes, PositionDeletes};
    let types = types();
    let fields = types.iter().enumerate().map(|(at, (ty, _))| {
        let (id, name) = (at as i32 + 1, format!("column {at}"));
        Arc::new(NestedField::optional(id, name, Type::Primitive(ty.clone())))
    });
    let schema = Arc::new(Schema::builder().with_fields(fields).build().unwrap());
    let bounds = [0, 1].map(|side| {
        let bounds = types.iter().enumerate().filter_map(|(at, (ty, values))| {
            let value = partition_scalar(Some(&values[side]), ty).unwrap();
            Some((at as i32 + 1, encode_bound(&value, ty, Side::Lower).unwrap()?))
        });
        bounds.collect::<HashMap<_, _>>()
    });
    let kinds = [
        (FormatVersion::V1, ManifestContentType::Data, [Data; 3]),
        (FormatVersion::V2, ManifestContentType::Data, [Data; 3]),
        (FormatVersion::V3, ManifestContentType::Data, [Data; 3]),
        (
            FormatVersion::V2,
            ManifestContentType::Deletes,
            [PositionDeletes, EqualityDeletes, Data],
        ),
        (
            FormatVersion::V3,
            ManifestContentType::Deletes,
            [PositionDeletes, EqualityDeletes, Data],
        ),
    ];
    let (mut unwritten, mut unread) = (Vec::new(), Vec::new());
    for (at, (ty, values)) in types.iter().enumerate() {
        let spec = PartitionSpec::builder(Arc::clone(&schema)).with_spec_id(7);
        let spec = spec
            .add_partition_field(format!("column {at}"), "part", Transform::Identity)
            .unwrap()
            .build()
            .unwrap();
        let rows = [Some(values[0].clone()), Some(values[1].clone()), None];
        for (version, content, kinds) in kinds {
            let entries = rows
                .iter()
                .zip(kinds)
                .filter(|(_, kind)| (*kind == Data) == (content == ManifestContentType::Data));
            let entries: Vec<_> = entries
                .map(|(row, kind)| NewEntry::Added(file(&[row.clone()], &bounds, kind)))
                .collect();
            let written = entries.len();
            let new = NewManifest {
                version,
                content,
                schema: Arc::clone(&schema),
                spec: spec.clone(),
                snapshot_id: 5,
                recorded: "memory:///m.avro".into(),
            };
            let Ok((_, bytes)) = encode_manifest(new, entries).await else {
                unwritten.push(ty.to_string());
                break;
            };
            let found = manifest(&bytes, &Limits::default(), "m.avro").unwrap();
            for (at, entry) in found.1.iter().enumerate() {
                let (expected, got) = (&rows[at], &entry.file.partition()[0]);
                assert_eq!(
                    format!("{got:?}"),
                    format!("{expected:?}"),
                    "{ty} {version:?}: a NaN is one too"
                );
            }
            assert_eq!(found.1.len(), written);
            match by_the_crate(&bytes) {
                Ok(expected) => assert_eq!(found, expected, "{ty} {version:?} {content:?}"),
                Err(_) => unread.push(ty.to_string()),
            }
        }
    }
    // The crate cannot write these: a table cannot be partitioned by their values.
    assert_eq!(unwritten, ["uuid"]);
    unread.dedup();
    assert_eq!(
        unread,
        ["timestamp_ns", "timestamptz_ns"],
        "the crate cannot read these"
    );
}
