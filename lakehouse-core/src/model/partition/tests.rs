use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryArray, Date32Array, Date64Array, Decimal128Array, DictionaryArray, FixedSizeBinaryArray,
    Int8Array, Int16Array, Int32Array, Int64Array, LargeStringArray, StringArray, StringViewArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, TimestampMillisecondArray, TimestampNanosecondArray,
    TimestampSecondArray, UInt32Array, UInt64Array,
};
use arrow::datatypes::{DataType, Int32Type, TimeUnit};
use chrono::{Datelike, NaiveDate};
use datafusion::scalar::ScalarValue;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn applied(transform: Transform, column: impl Into<ArrayRef>) -> Vec<ScalarValue> {
    let result = transform.apply(&column.into()).unwrap();
    (0..result.len())
        .map(|i| ScalarValue::try_from_array(&result, i).unwrap())
        .collect()
}

fn array<A: arrow::array::Array + 'static>(a: A) -> ArrayRef {
    Arc::new(a)
}

fn iceberg(buckets: u32) -> Transform {
    Transform::Bucket {
        buckets,
        hash: BucketHash::Iceberg,
    }
}

fn spark(buckets: u32) -> Transform {
    Transform::Bucket {
        buckets,
        hash: BucketHash::Spark,
    }
}

#[test]
fn calendar_agrees_with_chrono_for_four_thousand_years() {
    let first = NaiveDate::from_ymd_opt(-500, 1, 1).unwrap();
    let epoch = NaiveDate::default();
    let mut date = first;
    while date.year() < 3_600 {
        let days = (date - epoch).num_days();
        assert_eq!(
            calendar::year_month(days),
            (i64::from(date.year()), i64::from(date.month())),
            "{date}"
        );
        if date.day() == 1 {
            assert_eq!(month_start(months_of_day(days)), days, "{date}");
        }
        date = date.succ_opt().unwrap();
    }
}

#[test]
fn instants_before_1970_are_rounded_down_in_every_unit() {
    // 1969-12-31T23:59:59.999
    let columns: Vec<ArrayRef> = vec![
        array(TimestampSecondArray::from(vec![-1])),
        array(TimestampMillisecondArray::from(vec![-1])),
        array(TimestampMicrosecondArray::from(vec![-1]).with_timezone("UTC")),
        array(TimestampNanosecondArray::from(vec![-1])),
    ];
    for column in columns {
        assert_eq!(
            applied(Transform::Year, Arc::clone(&column)),
            [ScalarValue::Int32(Some(-1))]
        );
        assert_eq!(
            applied(Transform::Month, Arc::clone(&column)),
            [ScalarValue::Int32(Some(-1))]
        );
        assert_eq!(
            applied(Transform::Day, Arc::clone(&column)),
            [ScalarValue::Date32(Some(-1))]
        );
        assert_eq!(applied(Transform::Hour, column), [ScalarValue::Int32(Some(-1))]);
    }
    assert_eq!(
        applied(Transform::Day, array(Date64Array::from(vec![-1]))),
        [ScalarValue::Date32(Some(-1))]
    );
    assert_eq!(
        applied(Transform::Month, array(Date32Array::from(vec![-32]))),
        [ScalarValue::Int32(Some(-2))]
    );
}

#[test]
fn truncate_follows_the_examples_of_the_spec() {
    // Iceberg spec, "Truncate Transform Details".
    let ten = Transform::Truncate(10);
    assert_eq!(
        applied(ten, array(Int32Array::from(vec![Some(1), Some(-1), None]))),
        [
            ScalarValue::Int32(Some(0)),
            ScalarValue::Int32(Some(-10)),
            ScalarValue::Int32(None)
        ]
    );
    assert_eq!(
        applied(
            Transform::Truncate(50),
            array(
                Decimal128Array::from(vec![1065, -1065])
                    .with_precision_and_scale(9, 2)
                    .unwrap()
            )
        ),
        [
            ScalarValue::Decimal128(Some(1050), 9, 2),
            ScalarValue::Decimal128(Some(-1100), 9, 2)
        ]
    );
    assert_eq!(
        applied(
            Transform::Truncate(3),
            array(StringArray::from(vec!["iceberg", "中文字x", "ab"]))
        ),
        [
            ScalarValue::from("ice"),
            ScalarValue::from("中文字"),
            ScalarValue::from("ab")
        ]
    );
    assert_eq!(
        applied(
            Transform::Truncate(3),
            array(BinaryArray::from(vec![&[1u8, 2, 3, 4, 5][..]]))
        ),
        [ScalarValue::Binary(Some(vec![1, 2, 3]))]
    );
}

#[test]
fn buckets_of_every_type_that_holds_a_value_agree() {
    // 2017239379 & 0x7fffffff mod 16 = 3 (hash of 34 in the spec).
    let columns: Vec<ArrayRef> = vec![
        array(Int8Array::from(vec![34])),
        array(Int16Array::from(vec![34])),
        array(Int32Array::from(vec![34])),
        array(Int64Array::from(vec![34])),
        array(UInt32Array::from(vec![34])),
        array(UInt64Array::from(vec![34])),
        array(Date32Array::from(vec![34])),
        array(Time64MicrosecondArray::from(vec![34])),
        array(TimestampMicrosecondArray::from(vec![34])),
        array(TimestampNanosecondArray::from(vec![34_999])),
    ];
    for column in columns {
        let what = column.data_type().clone();
        assert_eq!(
            applied(iceberg(16), column),
            [ScalarValue::Int32(Some(2_017_239_379 % 16))],
            "{what}"
        );
    }
    let strings: Vec<ArrayRef> = vec![
        array(StringArray::from(vec!["iceberg"])),
        array(LargeStringArray::from(vec!["iceberg"])),
        array(StringViewArray::from(vec!["iceberg"])),
        array(BinaryArray::from(vec![&b"iceberg"[..]])),
        array(FixedSizeBinaryArray::try_from_iter([b"iceberg"].into_iter()).unwrap()),
        array(
            vec![Some("iceberg")]
                .into_iter()
                .collect::<DictionaryArray<Int32Type>>(),
        ),
    ];
    for column in strings {
        let what = column.data_type().clone();
        assert_eq!(
            applied(iceberg(100), column),
            [ScalarValue::Int32(Some(1_210_000_089 % 100))],
            "{what}"
        );
    }
}

#[test]
fn null_has_no_iceberg_bucket_but_a_spark_bucket() {
    let column = array(Int32Array::from(vec![None, Some(1)]));
    assert_eq!(
        applied(iceberg(8), Arc::clone(&column))[0],
        ScalarValue::Int32(None)
    );
    // hash(NULL) is the seed 42; hash(1) is -559580957, and pmod is never negative.
    assert_eq!(
        applied(spark(16), column),
        [
            ScalarValue::Int32(Some(42 % 16)),
            ScalarValue::Int32(Some((-559_580_957i32).rem_euclid(16)))
        ]
    );
}

#[test]
fn transforms_that_are_not_defined_for_a_type_are_refused() {
    for (transform, source) in [
        (Transform::Hour, DataType::Date32),
        (Transform::Day, DataType::Utf8),
        (Transform::Truncate(3), DataType::Float64),
        (Transform::Truncate(0), DataType::Int32),
        (iceberg(4), DataType::Boolean),
        (iceberg(0), DataType::Int32),
        (iceberg(4), DataType::Float64),
        (
            Transform::Identity,
            DataType::Struct(arrow::datatypes::Fields::empty()),
        ),
    ] {
        let error = transform.result_type(&source).unwrap_err();
        assert!(error.to_string().contains(&transform.to_string()), "{error}");
        assert!(error.hint().is_some());
    }
    assert_eq!(spark(4).result_type(&DataType::Float64).unwrap(), DataType::Int32);
}

/// Random values of every type that a transform with bounds takes.
fn random_columns(rng: &mut StdRng) -> Vec<ArrayRef> {
    let n = 50;
    let micros = |rng: &mut StdRng| rng.random_range(-4_000_000_000_000_000i64..4_000_000_000_000_000);
    let text = |rng: &mut StdRng| {
        let alphabet = ['a', 'b', 'é', '\u{d7ff}', char::MAX, '中', '\u{0}'];
        (0..rng.random_range(0..6))
            .map(|_| alphabet[rng.random_range(0..alphabet.len())])
            .collect::<String>()
    };
    let bytes = |rng: &mut StdRng| {
        (0..rng.random_range(0..5))
            .map(|_| [0u8, 1, 0xfe, 0xff][rng.random_range(0..4)])
            .collect::<Vec<_>>()
    };
    vec![
        array((0..n).map(|_| Some(rng.random::<i8>())).collect::<Int8Array>()),
        array((0..n).map(|_| Some(rng.random::<i16>())).collect::<Int16Array>()),
        array(
            (0..n)
                .map(|i| Some(if i < 5 { i32::MIN + i } else { rng.random() }))
                .collect::<Int32Array>(),
        ),
        array(
            (0..n)
                .map(|i| {
                    Some(if i < 5 {
                        i64::MAX - i64::from(i)
                    } else {
                        rng.random()
                    })
                })
                .collect::<Int64Array>(),
        ),
        array((0..n).map(|_| Some(rng.random::<u64>())).collect::<UInt64Array>()),
        array(
            (0..n)
                .map(|_| Some(rng.random_range(-900_000..900_000)))
                .collect::<Date32Array>(),
        ),
        array(
            (0..n)
                .map(|_| Some(micros(rng)))
                .collect::<TimestampMicrosecondArray>(),
        ),
        array(
            (0..n)
                .map(|_| Some(micros(rng) / 1_000))
                .collect::<TimestampMillisecondArray>(),
        ),
        array(
            (0..n)
                .map(|_| Some(micros(rng)))
                .collect::<TimestampNanosecondArray>()
                .with_timezone("UTC"),
        ),
        array(
            (0..n)
                .map(|_| Some(i128::from(rng.random::<i64>())))
                .collect::<Decimal128Array>()
                .with_precision_and_scale(38, 4)
                .unwrap(),
        ),
        array((0..n).map(|_| Some(text(rng))).collect::<StringArray>()),
        array((0..n).map(|_| Some(bytes(rng))).collect::<BinaryArray>()),
    ]
}

#[test]
fn every_value_lies_within_the_bounds_of_its_partition() {
    let mut rng = StdRng::seed_from_u64(7);
    let mut checked = 0;
    for column in (0..20).flat_map(|_| random_columns(&mut rng)).collect::<Vec<_>>() {
        for transform in [
            Transform::Identity,
            Transform::Year,
            Transform::Month,
            Transform::Day,
            Transform::Hour,
            Transform::Truncate(1),
            Transform::Truncate(3),
            Transform::Truncate(1_000),
        ] {
            if transform.result_type(column.data_type()).is_err() {
                continue;
            }
            let partitions = transform.apply(&column).unwrap();
            for row in 0..column.len() {
                let value = ScalarValue::try_from_array(&column, row).unwrap();
                let partition = ScalarValue::try_from_array(&partitions, row).unwrap();
                let (min, max) = transform.range(&partition, column.data_type());
                assert!(
                    min.is_none_or(|min| min <= value),
                    "{transform}: {partition} above {value}"
                );
                assert!(
                    max.is_none_or(|max| max >= value),
                    "{transform}: {partition} below {value}"
                );
                checked += 1;
            }
        }
    }
    assert!(checked > 10_000);
}

#[test]
fn bounds_of_a_day_end_just_before_the_next() {
    let source = DataType::Timestamp(TimeUnit::Microsecond, None);
    let (min, max) = Transform::Day
        .bounds(&ScalarValue::Date32(Some(1)), &source)
        .unwrap();
    assert_eq!(min, ScalarValue::TimestampMicrosecond(Some(86_400_000_000), None));
    assert_eq!(
        max,
        ScalarValue::TimestampMicrosecond(Some(2 * 86_400_000_000 - 1), None)
    );
    let (min, max) = Transform::Truncate(2)
        .bounds(&ScalarValue::from("ab"), &DataType::Utf8)
        .unwrap();
    assert_eq!((min, max), (ScalarValue::from("ab"), ScalarValue::from("ac")));
    assert_eq!(
        iceberg(4).bounds(&ScalarValue::Int32(Some(1)), &DataType::Int32),
        None
    );
}

#[test]
fn partitioning_is_read_as_people_write_it() {
    let parsed = |text: &str| -> Vec<(String, Transform)> {
        parse_partitioning(text)
            .unwrap()
            .into_iter()
            .map(|f| (f.source, f.transform))
            .collect()
    };
    assert_eq!(
        parsed("day(time_hour), bucket(4, carrier), region, truncate(name, 3)"),
        [
            ("time_hour".to_owned(), Transform::Day),
            ("carrier".to_owned(), iceberg(4)),
            ("region".to_owned(), Transform::Identity),
            ("name".to_owned(), Transform::Truncate(3)),
        ]
    );
    assert_eq!(
        parsed("YEARS(a), months(b), days(\"C d\"), hour(e.f), year, identity(g)"),
        [
            ("a".to_owned(), Transform::Year),
            ("b".to_owned(), Transform::Month),
            ("C d".to_owned(), Transform::Day),
            ("e.f".to_owned(), Transform::Hour),
            ("year".to_owned(), Transform::Identity),
            ("g".to_owned(), Transform::Identity),
        ]
    );
    assert!(parsed(" ").is_empty());
}

#[test]
fn partitioning_that_is_not_understood_names_the_term() {
    for (text, named) in [
        ("day(ts), week(ts)", "week(ts)"),
        ("bucket(0, id)", "bucket(0, id)"),
        ("bucket(id)", "bucket(id)"),
        ("a + 1", "a + 1"),
        ("a b", "'b' is left over"),
        ("day(ts", "day(ts"),
        ("a, a", "'a' is given twice"),
        ("bucket(-1, id)", "bucket(-1, id)"),
        ("bucket(99999999999, id)", "bucket(99999999999, id)"),
    ] {
        let error = parse_partitioning(text).unwrap_err();
        assert!(error.to_string().contains(named), "{text}: {error}");
        assert!(error.hint().is_some(), "{text}");
    }
}

#[test]
fn transforms_are_read_as_they_are_written() {
    for transform in [
        Transform::Identity,
        Transform::Year,
        Transform::Month,
        Transform::Day,
        Transform::Hour,
        iceberg(16),
        Transform::Truncate(7),
        Transform::Void,
    ] {
        assert_eq!(transform.to_string().parse::<Transform>().unwrap(), transform);
    }
    for text in ["bucket[0]", "bucket[x]", "bucket", "days", "truncate[-1]", ""] {
        assert!(text.parse::<Transform>().is_err(), "{text}");
    }
}

fn field(name: &str, transform: Transform) -> PartitionField {
    PartitionField {
        source: name.to_owned(),
        transform,
        name: name.to_owned(),
        field_id: 1000,
        zone_slack_days: 0,
    }
}

#[test]
fn folders_spell_values_for_people_and_escape_the_rest() {
    let fields = [
        field("y", Transform::Year),
        field("m", Transform::Month),
        field("d", Transform::Day),
        field("h", Transform::Hour),
        field("b/c", Transform::Identity),
        field("n", Transform::Identity),
        field("t", Transform::Identity),
    ];
    let values = [
        ScalarValue::Int32(Some(43)),
        ScalarValue::Int32(Some(-1)),
        ScalarValue::Date32(Some(15_706)),
        ScalarValue::Int32(Some(-1)),
        ScalarValue::from("../é=%"),
        ScalarValue::Utf8(None),
        ScalarValue::TimestampMicrosecond(Some(1_500_000), Some("UTC".into())),
    ];
    assert_eq!(
        partition_folder(&fields, &values),
        "y=2013/m=1969-12/d=2013-01-01/h=1969-12-31-23/b%2Fc=..%2F%C3%A9%3D%25/n=null/t=1970-01-01T00%3A00%3A01.500%2B00%3A00"
    );
    assert_eq!(partition_folder(&[], &[]), "");
}

#[test]
fn folders_of_long_values_stay_short_and_whole() {
    for length in 60..70 {
        let value = ScalarValue::from("é".repeat(length));
        let folder = partition_folder(&[field("c", Transform::Identity)], &[value]);
        assert!(folder.len() <= 200);
        assert!(
            percent_encoding::percent_decode_str(&folder)
                .collect::<Vec<u8>>()
                .starts_with(b"c=")
        );
        let tail = &folder[folder.rfind('%').unwrap()..];
        assert_eq!(tail.len(), 3, "{folder}");
    }
}
