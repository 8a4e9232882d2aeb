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
                .map(|(row, kind)| NewEntry::Added(file(std::slice::from_ref(row), &bounds, kind)))
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

#[test]
fn partition_values_are_found_by_number_then_by_name_then_by_position() {
    let field = |id, name: &str| {
        Arc::new(NestedField::optional(
            id,
            name,
            Type::Primitive(PrimitiveType::Int),
        ))
    };
    let two = StructType::new(vec![field(1000, "a"), field(1001, "b-c")]);
    let none = StructType::new(Vec::new());
    let found = |spec: &StructType, fields: &[(&str, Option<i32>)]| order(spec, fields, "m.avro").ok();
    for (fields, expected) in [
        (
            vec![("b-c", Some(1001)), ("a", Some(1000))],
            Some(vec![Some(1), Some(0)]),
        ),
        (
            vec![("b_x2Dc", Some(1001)), ("a", Some(1000)), ("more", None)],
            Some(vec![Some(1), Some(0)]),
        ),
        (vec![("b-c", None), ("a", None)], Some(vec![Some(1), Some(0)])),
        (vec![("a", None), ("b_x2Dc", None)], Some(vec![Some(0), Some(1)])),
        (
            vec![("r1000", Some(7)), ("r1001", Some(8))],
            Some(vec![Some(0), Some(1)]),
        ),
        (vec![("b_x2Dc", Some(1001))], Some(vec![None, Some(0)])),
        (vec![("a", None)], None),
    ] {
        assert_eq!(found(&two, &fields), expected, "{fields:?}");
    }
    assert_eq!(
        found(&none, &[("dummy", None)]),
        Some(vec![]),
        "a record needs a field in some writers"
    );
    assert_eq!(found(&none, &[]), Some(vec![]));
}

#[test]
fn bounds_that_are_no_values_of_their_column_are_left_out() {
    let decimal = PrimitiveType::Decimal {
        precision: 9,
        scale: 2,
    };
    let types = [
        PrimitiveType::Boolean,
        decimal,
        PrimitiveType::Long,
        PrimitiveType::Int,
    ];
    let fields = (1..)
        .zip(types)
        .map(|(id, ty)| Arc::new(NestedField::optional(id, format!("c{id}"), Type::Primitive(ty))));
    let schema = Schema::builder().with_fields(fields).build().unwrap();
    let given = |bytes: &[u8]| {
        let all = (1..=5).chain([FILE_ID]).map(|id| (id, ByteBuf::from(bytes)));
        let mut known: Vec<i32> = bounded(Some(ById(all.collect())), &schema, |_| true)
            .into_keys()
            .collect();
        known.sort_unstable();
        known
    };
    assert_eq!(given(&[]), [FILE_ID]);
    assert_eq!(given(&[1]), [1, 2, FILE_ID]);
    assert_eq!(
        given(&[1, 0, 0, 0]),
        [2, 3, 4, FILE_ID],
        "what was an int is a long"
    );
    assert_eq!(given(&[0; 8]), [2, 3, FILE_ID]);
    assert_eq!(given(&[0xff]), [1, 2]);
}

#[test]
fn fields_that_version_1_has_not_may_be_null() {
    let schema = r#"{"type":"record","name":"manifest_file","fields":[
        {"name":"manifest_path","type":"string"},
        {"name":"manifest_length","type":"long"},
        {"name":"partition_spec_id","type":"int"},
        {"name":"content","type":["null","int"]},
        {"name":"sequence_number","type":["null","long"]},
        {"name":"added_snapshot_id","type":["null","long"]},
        {"name":"added_data_files_count","type":["null","int"]}]}"#;
    let mut file = b"Obj\x01\x02".to_vec();
    for text in ["avro.schema", schema] {
        let length = text.len() as u64 * 2;
        file.extend(match length < 128 {
            true => vec![length as u8],
            false => vec![length as u8 | 0x80, (length >> 7) as u8],
        });
        file.extend(text.as_bytes());
    }
    file.push(0);
    file.extend([7; 16]);
    let line = [&[2, b'm'][..], &[2], &[0], &[0], &[0], &[2, 10], &[2, 6]].concat();
    file.extend([2, line.len() as u8 * 2]);
    file.extend(line);
    file.extend([7; 16]);
    let found = manifest_list(&file, &Limits::default(), "snap.avro").unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!((found[0].sequence_number, found[0].added_snapshot_id), (0, 5));
    assert_eq!(
        (found[0].content, found[0].added_files_count),
        (ManifestContentType::Data, Some(3))
    );
}
