use std::sync::Arc;

use arrow::array::Int32Builder;
use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, DictionaryArray,
    Float32Array, Float64Array, Int8Array, Int32Array, Int64Array, LargeStringArray, ListArray, MapArray,
    MapBuilder, MapFieldNames, NullArray, RecordBatch, StringArray, StringBuilder, StringViewArray,
    StructArray, TimestampMicrosecondArray, TimestampNanosecondArray, UInt64Array,
};
use arrow::buffer::NullBuffer;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Field, Fields, Int32Type, Int64Type, Schema, TimeUnit,
    TimestampMicrosecondType,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::*;

fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(n, a)| (n, a, true))).unwrap()
}

fn array<A: Array + 'static>(a: A) -> ArrayRef {
    Arc::new(a)
}

/// One column, to a nullable column of the type.
fn cast_one(column: ArrayRef, to: DataType) -> Result<ArrayRef> {
    let schema = Schema::new(vec![Field::new("c", to, true)]);
    Ok(Arc::clone(
        conform(&batch(vec![("c", column)]), &schema)?.column(0),
    ))
}

#[track_caller]
fn refused(column: ArrayRef, to: DataType, parts: &[&str]) {
    let error = cast_one(column, to).unwrap_err().to_string();
    for part in parts {
        assert!(error.contains(part), "'{part}' is not in: {error}");
    }
}

fn micros(zone: Option<&str>) -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, zone.map(Into::into))
}

#[test]
fn columns_are_matched_by_name_and_put_into_the_tables_order() {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, false),
        Field::new("Name", DataType::Utf8, true),
        Field::new("note", DataType::Utf8, true),
    ]);
    let given = batch(vec![
        ("name", array(StringArray::from(vec!["a", "b"]))),
        ("ID", array(Int32Array::from(vec![1, 2]))),
    ]);
    let fitted = conform(&given, &schema).unwrap();
    assert_eq!(*fitted.schema(), schema);
    assert_eq!(fitted.column(0).as_primitive::<Int64Type>().values(), &[1, 2]);
    assert_eq!(fitted.column(1).as_string::<i32>().value(1), "b");
    assert_eq!(fitted.column(2).null_count(), 2);
}

#[test]
fn an_exact_name_wins_over_one_in_other_case_and_two_in_other_case_are_refused() {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int32, true),
        Field::new("ID", DataType::Int32, true),
    ]);
    let given = batch(vec![
        ("ID", array(Int32Array::from(vec![1]))),
        ("id", array(Int32Array::from(vec![2]))),
    ]);
    let fitted = conform(&given, &schema).unwrap();
    assert_eq!(fitted.column(0).as_primitive::<Int32Type>().value(0), 2);
    assert_eq!(fitted.column(1).as_primitive::<Int32Type>().value(0), 1);

    let schema = Schema::new(vec![Field::new("id", DataType::Int32, true)]);
    let given = batch(vec![
        ("ID", array(Int32Array::from(vec![1]))),
        ("Id", array(Int32Array::from(vec![2]))),
    ]);
    let error = conform(&given, &schema).unwrap_err().to_string();
    assert!(error.contains("'ID'") && error.contains("'Id'"), "{error}");
}

#[test]
fn an_extra_column_is_named_and_the_tables_columns_are_listed() {
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int32, true),
        Field::new("v", DataType::Int32, true),
    ]);
    let given = batch(vec![
        ("id", array(Int32Array::from(vec![1]))),
        ("vv", array(Int32Array::from(vec![1]))),
    ]);
    let error = conform(&given, &schema).unwrap_err();
    assert!(error.to_string().contains("'vv' is not in the table"), "{error}");
    assert!(error.hint().unwrap().contains("id, v"));
}

#[test]
fn a_null_or_missing_required_column_is_named_with_its_row() {
    let schema = Schema::new(vec![Field::new("id", DataType::Int32, false)]);
    let given = batch(vec![("id", array(Int32Array::from(vec![Some(1), None])))]);
    let error = conform_at(&given, &schema, 100).unwrap_err().to_string();
    assert!(
        error.contains("'id' is NULL") && error.contains("row 102"),
        "{error}"
    );
    let nothing = RecordBatch::new_empty(Arc::new(Schema::empty()));
    let error = conform(&nothing, &schema).unwrap_err().to_string();
    assert!(error.contains("'id' is missing"), "{error}");
    let given = batch(vec![("id", array(NullArray::new(3)))]);
    let error = conform(&given, &schema).unwrap_err().to_string();
    assert!(
        error.contains("'id' is NULL") && error.contains("row 1)"),
        "{error}"
    );
}

#[test]
fn numbers_fit_exactly_or_are_refused_by_row_and_value() {
    refused(
        array(Int64Array::from(vec![1, 300])),
        DataType::Int8,
        &["'c' has '300'", "row 2", "Int8"],
    );
    refused(
        array(Float64Array::from(vec![1.0, 2.5])),
        DataType::Int64,
        &["'2.5'", "row 2"],
    );
    refused(
        array(Float64Array::from(vec![f64::NAN])),
        DataType::Int64,
        &["'NaN'", "row 1"],
    );
    refused(
        array(UInt64Array::from(vec![u64::MAX])),
        DataType::Int64,
        &["18446744073709551615"],
    );
    refused(
        array(Int64Array::from(vec![(1 << 53) + 1])),
        DataType::Float64,
        &["9007199254740993"],
    );
    refused(
        array(Float64Array::from(vec![1e300])),
        DataType::Float32,
        &["row 1"],
    );
    let decimals = Decimal128Array::from(vec![1050, 1055])
        .with_precision_and_scale(10, 2)
        .unwrap();
    refused(
        array(decimals.clone()),
        DataType::Decimal128(10, 1),
        &["'10.55'", "row 2"],
    );
    refused(
        array(decimals.slice(0, 1)),
        DataType::Decimal128(2, 1),
        &["'10.50'"],
    );
    refused(array(decimals), DataType::Int32, &["'10.50'"]);
    refused(
        array(BooleanArray::from(vec![true])),
        DataType::Int32,
        &["Boolean", "Int32"],
    );
    refused(
        array(Int32Array::from(vec![1])),
        DataType::Utf8,
        &["Int32", "Utf8"],
    );

    let whole = cast_one(
        array(Float64Array::from(vec![Some(-0.0), Some(1e15), None])),
        DataType::Int64,
    )
    .unwrap();
    assert_eq!(
        whole.as_primitive::<Int64Type>().iter().collect::<Vec<_>>(),
        [Some(0), Some(1_000_000_000_000_000), None]
    );
    let near = cast_one(array(Float64Array::from(vec![0.1])), DataType::Float32).unwrap();
    assert_eq!(near.as_primitive::<arrow::datatypes::Float32Type>().value(0), 0.1);
    let money = cast_one(
        array(Float64Array::from(vec![12.34])),
        DataType::Decimal128(10, 2),
    )
    .unwrap();
    assert_eq!(money.as_primitive::<Decimal128Type>().value(0), 1234);
}

#[test]
fn integers_fit_a_narrower_type_exactly_when_they_are_in_its_range() {
    let mut rng = StdRng::seed_from_u64(1);
    for _ in 0..2_000 {
        let value: i64 = rng.random::<i64>() >> rng.random_range(0..64);
        let column = array(Int64Array::from(vec![value]));
        let fits = |to: DataType| cast_one(Arc::clone(&column), to).is_ok();
        assert_eq!(fits(DataType::Int8), i8::try_from(value).is_ok(), "{value}");
        assert_eq!(fits(DataType::Int16), i16::try_from(value).is_ok(), "{value}");
        assert_eq!(fits(DataType::Int32), i32::try_from(value).is_ok(), "{value}");
        assert_eq!(fits(DataType::UInt32), u32::try_from(value).is_ok(), "{value}");
        assert_eq!(
            fits(DataType::Float64),
            (value as f64) as i128 == i128::from(value),
            "{value}"
        );
        assert_eq!(
            fits(DataType::Decimal128(9, 0)),
            value.abs() < 1_000_000_000,
            "{value}"
        );
    }
}

#[test]
fn text_is_read_as_the_tables_type_or_refused_with_its_row() {
    let text = |v: &[&str]| array(StringArray::from(v.to_vec()));
    let stamps = cast_one(
        text(&[
            "2013-01-01 05:00:00",
            "2013-01-01T05:00:00.000001Z",
            "9999-12-31T00:00:00",
        ]),
        micros(None),
    )
    .unwrap();
    let stamps = stamps.as_primitive::<TimestampMicrosecondType>();
    assert_eq!(stamps.value(0), 1_357_016_400_000_000);
    assert_eq!(stamps.value(1), stamps.value(0) + 1);
    let zoned = cast_one(text(&["2013-01-01T05:00:00+02:00"]), micros(Some("UTC"))).unwrap();
    assert_eq!(
        zoned.as_primitive::<TimestampMicrosecondType>().value(0),
        1_357_009_200_000_000
    );
    refused(
        text(&["2013-01-01", "yesterday"]),
        micros(None),
        &["'yesterday'", "row 2"],
    );
    refused(text(&["2013-01-01T00:00:00.0000001"]), micros(None), &["row 1"]);

    let dates = cast_one(text(&["1970-01-02", "1970-01-03T00:00:00"]), DataType::Date32).unwrap();
    assert_eq!(dates.as_primitive::<Date32Type>().values(), &[1, 2]);
    refused(
        text(&["1970-01-02", "1970-01-03T10:00:00"]),
        DataType::Date32,
        &["row 2"],
    );

    let decimals = cast_one(
        text(&["12.30", "-1.23e1", "+.5", "0.000", "7.000"]),
        DataType::Decimal128(5, 2),
    )
    .unwrap();
    assert_eq!(
        decimals.as_primitive::<Decimal128Type>().values(),
        &[1230, -1230, 50, 0, 700]
    );
    for wrong in [
        "1.234",
        "1000.00",
        "",
        ".",
        "1,5",
        "1e-3",
        "--1",
        "1e",
        "99999999999999999999999999999999999999999",
    ] {
        refused(text(&["1", wrong]), DataType::Decimal128(5, 2), &["row 2"]);
    }
    refused(text(&["1.5"]), DataType::Int32, &["'1.5'"]);
    refused(text(&["99999999999"]), DataType::Int32, &["'99999999999'"]);
    let uuid = cast_one(
        text(&["f79c3e09-677c-4bbd-a479-3f349cb785e7"]),
        DataType::FixedSizeBinary(16),
    )
    .unwrap();
    assert_eq!(
        uuid.as_fixed_size_binary().value(0)[..4],
        [0xf7, 0x9c, 0x3e, 0x09]
    );
    refused(text(&["f79c"]), DataType::FixedSizeBinary(16), &["'f79c'"]);
}

#[test]
fn long_values_are_cut_in_the_message() {
    let error = cast_one(array(StringArray::from(vec!["é".repeat(5_000)])), DataType::Int32).unwrap_err();
    assert!(error.to_string().len() < 400, "{error}");
}

#[test]
fn every_form_of_text_and_dictionaries_arrive_as_utf8() {
    let forms: Vec<ArrayRef> = vec![
        array(LargeStringArray::from(vec!["x"])),
        array(StringViewArray::from(vec!["x"])),
        array(BinaryArray::from(vec![&b"x"[..]])),
        array(vec!["x"].into_iter().collect::<DictionaryArray<Int32Type>>()),
    ];
    for form in forms {
        let fitted = cast_one(form, DataType::Utf8).unwrap();
        assert_eq!(fitted.as_string::<i32>().value(0), "x");
    }
    refused(
        array(BinaryArray::from(vec![&[0xffu8][..]])),
        DataType::Utf8,
        &["row 1"],
    );
}

#[test]
fn timestamps_change_unit_only_without_loss() {
    let exact = array(TimestampNanosecondArray::from(vec![Some(-1_000), None]));
    let fitted = cast_one(exact, micros(None)).unwrap();
    assert_eq!(fitted.as_primitive::<TimestampMicrosecondType>().value(0), -1);
    refused(
        array(TimestampNanosecondArray::from(vec![-1_000, -1_001])),
        micros(None),
        &["row 2"],
    );
    refused(
        array(TimestampMicrosecondArray::from(vec![i64::MAX])),
        DataType::Timestamp(TimeUnit::Nanosecond, None),
        &["row 1"],
    );
    refused(
        array(TimestampMicrosecondArray::from(vec![1])),
        DataType::Date32,
        &["row 1"],
    );
    let midnight = array(Date32Array::from(vec![2]));
    assert_eq!(
        cast_one(midnight, micros(Some("UTC")))
            .unwrap()
            .as_primitive::<TimestampMicrosecondType>()
            .value(0),
        172_800_000_000
    );
    let paris = array(TimestampMicrosecondArray::from(vec![5]).with_timezone("Europe/Paris"));
    assert_eq!(
        cast_one(Arc::clone(&paris), micros(Some("UTC")))
            .unwrap()
            .as_primitive::<TimestampMicrosecondType>()
            .value(0),
        5
    );
    refused(paris, micros(None), &["Europe/Paris"]);
}

fn point(x: ArrayRef, y: ArrayRef, nulls: Option<NullBuffer>) -> StructArray {
    let fields: Fields = vec![
        Field::new("x", x.data_type().clone(), true),
        Field::new("y", y.data_type().clone(), true),
    ]
    .into();
    StructArray::new(fields, vec![x, y], nulls)
}

fn point_type(x_nullable: bool) -> DataType {
    DataType::Struct(
        vec![
            Field::new("y", DataType::Int64, true),
            Field::new("x", DataType::Int32, x_nullable),
            Field::new("z", DataType::Utf8, true),
        ]
        .into(),
    )
}

#[test]
fn structs_are_fitted_inside() {
    let given = point(
        array(Int64Array::from(vec![1, 2])),
        array(Int8Array::from(vec![3, 4])),
        None,
    );
    let fitted = cast_one(array(given), point_type(true)).unwrap();
    let fitted = fitted.as_struct();
    assert_eq!(fitted.column(0).as_primitive::<Int64Type>().values(), &[3, 4]);
    assert_eq!(fitted.column(1).as_primitive::<Int32Type>().values(), &[1, 2]);
    assert_eq!(fitted.column(2).null_count(), 2);

    let given = point(
        array(Int64Array::from(vec![1, 1 << 40])),
        array(Int8Array::from(vec![3, 4])),
        None,
    );
    refused(array(given), point_type(true), &["'c.x'", "row 2"]);
    // What lies below a NULL struct does not exist, and need not fit.
    let nulls = NullBuffer::from(vec![true, false]);
    let given = point(
        array(Int64Array::from(vec![1, 1 << 40])),
        array(Int8Array::from(vec![3, 4])),
        Some(nulls),
    );
    let fitted = cast_one(array(given), point_type(false)).unwrap();
    assert!(fitted.is_null(1) && fitted.is_valid(0));
    let given = point(
        array(Int64Array::from(vec![Some(1), None])),
        array(Int8Array::from(vec![3, 4])),
        None,
    );
    refused(array(given), point_type(false), &["'c.x' is NULL", "row 2"]);
    refused(
        array(Int32Array::from(vec![1])),
        point_type(true),
        &["Int32", "a struct"],
    );
}

#[test]
fn elements_of_lists_are_fitted_and_refused_by_the_row_that_holds_them() {
    let list_of = |t: DataType| DataType::List(Arc::new(Field::new("element", t, true)));
    let given = ListArray::from_iter_primitive::<Int64Type, _, _>(vec![
        Some(vec![Some(1), Some(2)]),
        None,
        Some(vec![]),
        Some(vec![Some(3), Some(1 << 40)]),
    ]);
    let fitted = cast_one(array(given.slice(0, 3)), list_of(DataType::Int32)).unwrap();
    assert_eq!(
        fitted
            .as_list::<i32>()
            .value(0)
            .as_primitive::<Int32Type>()
            .values(),
        &[1, 2]
    );
    assert!(fitted.is_null(1));
    refused(
        array(given.clone()),
        list_of(DataType::Int32),
        &["'c.element'", "row 4"],
    );
    let large = arrow::compute::cast(
        &given,
        &DataType::LargeList(Arc::new(Field::new("item", DataType::Int64, true))),
    )
    .unwrap();
    assert!(cast_one(large, list_of(DataType::Int64)).is_ok());
}

#[test]
fn maps_are_fitted_whatever_their_entries_are_called() {
    let names = MapFieldNames {
        entry: "entries".into(),
        key: "keys".into(),
        value: "values".into(),
    };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), Int32Builder::new());
    builder.keys().append_value("a");
    builder.values().append_value(7);
    builder.append(true).unwrap();
    let entries = Field::new(
        "key_value",
        DataType::Struct(
            vec![
                Field::new("key", DataType::Utf8, false),
                Field::new("value", DataType::Int64, true),
            ]
            .into(),
        ),
        false,
    );
    let fitted = cast_one(array(builder.finish()), DataType::Map(Arc::new(entries), false)).unwrap();
    let fitted: &MapArray = fitted.as_map();
    assert_eq!(fitted.values().as_primitive::<Int64Type>().value(0), 7);
}

#[test]
fn floats_survive_as_they_are() {
    let given = array(Float32Array::from(vec![
        Some(f32::NAN),
        Some(f32::INFINITY),
        None,
        Some(-0.0),
    ]));
    let fitted = cast_one(given, DataType::Float64).unwrap();
    let fitted = fitted.as_primitive::<arrow::datatypes::Float64Type>();
    assert!(fitted.value(0).is_nan() && fitted.value(1).is_infinite() && fitted.is_null(2));
    assert!(fitted.value(3).is_sign_negative());
}
