//! Files with field ids: a reader that finds an id in a file looks no further, so the table must have the same.

use arrow::array::{ArrayRef, Int64Array, StringArray};
use arrow::datatypes::Field;
use lakehouse_core::model::schema::{FIELD_ID, field_id};

use super::*;

/// Name and field id.
type Column = (&'static str, Option<i32>);

/// A file of bigint columns.
async fn file(store: &Store, path: &str, columns: &[Column]) {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, id)| {
            let field = Field::new(*name, DataType::Int64, true);
            match id {
                Some(id) => field.with_metadata([(FIELD_ID.to_owned(), id.to_string())].into()),
                None => field,
            }
        })
        .collect();
    let schema = Arc::new(Schema::new(fields));
    let arrays: Vec<ArrayRef> = columns
        .iter()
        .enumerate()
        .map(|(number, _)| Arc::new(Int64Array::from(vec![number as i64 * 10])) as ArrayRef)
        .collect();
    let batch = RecordBatch::try_new(Arc::clone(&schema), arrays).unwrap();
    store
        .put(path, parquet(&schema, &[batch], 10).into())
        .await
        .unwrap();
}

#[tokio::test]
async fn ids_of_files_become_those_of_the_table() {
    for format in FORMATS {
        let store = memory("ids");
        // Ids that would be read as other columns if the table gave 1, 2, 3.
        file(
            &store,
            "y=1/a.parquet",
            &[("a", Some(2)), ("b", Some(3)), ("c", Some(1))],
        )
        .await;
        file(
            &store,
            "y=1/b.parquet",
            &[("c", Some(1)), ("d", Some(9)), ("a", Some(2))],
        )
        .await;
        // Without ids: found by the names.
        file(&store, "y=2/c.parquet", &[("b", None), ("a", None)]).await;
        let (table, adopted) = adopt(&store, format).await;
        let ids: Vec<_> = adopted
            .schema
            .fields()
            .iter()
            .map(|f| (f.name().as_str(), field_id(f)))
            .collect();
        if format.0 == TableFormat::Iceberg {
            let expected = [
                ("a", Some(2)),
                ("b", Some(3)),
                ("c", Some(1)),
                ("d", Some(9)),
                ("y", Some(10)),
            ];
            assert_eq!(ids, expected, "{format:?}");
        } else {
            assert!(ids.iter().all(|(_, id)| id.is_none()));
        }
        let rows = "SELECT a, b, c, d, y FROM t";
        assert_eq!(
            ask(&table, rows).await,
            ["0|10|20||1", "10|0|||2", "20||0|10|1"],
            "{format:?}"
        );
        // New columns and new files go on from there.
        let (schema, batches) = query("SELECT 1 AS a, 2 AS b, 3 AS c, 4 AS d, 5 AS e, 6 AS y").await;
        let options = Options::default().schema_mode(lakehouse_core::SchemaMode::Merge);
        table
            .append(Rows::batches(schema, batches), &options)
            .await
            .unwrap();
        table.delete("a = 0", &Options::default()).await.unwrap();
        table
            .compact(&lakehouse_core::Compact::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(
            ask(&table, "SELECT a, b, c, d, y, e FROM t").await,
            ["10|0|||2|", "1|2|3|4|6|5", "20||0|10|1|"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn ids_that_contradict_each_other_are_refused_where_a_table_has_ids() {
    let cases: [(&str, &[Column], &str); 5] = [
        (
            "another column",
            &[("b", Some(1))],
            "field id 1 is column b, in other files a",
        ),
        (
            "another id",
            &[("a", Some(4))],
            "column a has the field id 4, in other files 1",
        ),
        (
            "one lacks",
            &[("a", Some(1)), ("b", None)],
            "column b has no field id",
        ),
        (
            "twice",
            &[("c", Some(5)), ("d", Some(5))],
            "have the same field id 5",
        ),
        (
            "reserved",
            &[("c", Some(2_147_483_540))],
            "which no column can have",
        ),
    ];
    for (what, columns, message) in cases {
        for format in FORMATS {
            let store = memory("contradict");
            file(&store, "a.parquet", &[("a", Some(1))]).await;
            file(&store, "b.parquet", columns).await;
            if format.0 == TableFormat::Delta {
                adopt(&store, format).await;
                continue;
            }
            let error = refusal(&store, format, &adoption(format)).await;
            let text = error.to_string();
            assert!(
                text.contains(message) && text.contains("b.parquet"),
                "{what}: {text}"
            );
            assert!(error.hint().is_some());
        }
    }
}

#[tokio::test]
async fn an_iceberg_table_says_which_column_a_name_is() {
    for format in &FORMATS[..2] {
        let store = memory("mapping");
        put(
            &store,
            "a.parquet",
            "SELECT 1 AS id, named_struct('x', 1, 'y', 'z') AS s, [1, 2] AS l",
        )
        .await;
        let (table, _) = adopt(&store, *format).await;
        let properties = table.snapshot(&At::Latest).await.unwrap().properties.clone();
        let mapping: serde_json::Value =
            serde_json::from_str(&properties["schema.name-mapping.default"]).unwrap();
        let names: Vec<&str> = mapping
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| entry["names"][0].as_str().unwrap())
            .collect();
        assert_eq!(names, ["id", "s", "l"]);
        assert_eq!(mapping[1]["fields"][1]["names"], serde_json::json!(["y"]));
        assert_eq!(mapping[2]["fields"][0]["names"], serde_json::json!(["element"]));
        assert_eq!(ask(&table, "SELECT id, s['y'], l[2] FROM t").await, ["1|z|2"]);
    }
}

/// What other engines do when a column is renamed, or dropped and another of its name added: the files keep the old name.
#[tokio::test]
async fn a_renamed_column_is_found_by_the_mapping_and_a_new_one_of_an_old_name_is_null() {
    const METADATA: &str = "metadata/v1.metadata.json";
    for format in &FORMATS[..2] {
        let store = memory("renamed");
        put(
            &store,
            "a.parquet",
            "SELECT value AS a, CASE WHEN value > 0 THEN 2 END AS b, \
             CASE WHEN value > 0 THEN named_struct('x', 3) END AS s FROM generate_series(1, 1)",
        )
        .await;
        adopt(&store, *format).await;
        let text = String::from_utf8(store.get(METADATA).await.unwrap().to_vec()).unwrap();
        let mut metadata: serde_json::Value = serde_json::from_str(&text).unwrap();
        let fields = &mut metadata["schemas"][0]["fields"];
        fields[0]["name"] = "renamed".into();
        (fields[1]["id"], fields[1]["name"]) = (9.into(), "b".into());
        fields[2]["type"]["fields"][0]["name"] = "y".into();
        let x = fields[2]["type"]["fields"][0]["id"].clone();
        let mapping = serde_json::json!([
            {"field-id": 1, "names": ["a", "renamed"]},
            {"field-id": 3, "names": ["s"], "fields": [{"field-id": x, "names": ["x"]}]},
        ]);
        metadata["last-column-id"] = 9.into();
        metadata["properties"]["schema.name-mapping.default"] = mapping.to_string().into();
        store.put(METADATA, metadata.to_string().into()).await.unwrap();
        let table = Table::open_in(store).await.unwrap();
        let rows = "SELECT renamed, b, s['y'] FROM t";
        assert_eq!(ask(&table, rows).await, ["1||3"], "{format:?}");
        assert_eq!(
            ask(&table, "SELECT s['y'] FROM t WHERE renamed = 1 AND b IS NULL").await,
            ["3"]
        );
        // New files have ids, and columns that come with rows are added to both.
        let (schema, batches) = query("SELECT 5 AS renamed, 6 AS b, 7 AS more").await;
        let options = Options::default().schema_mode(lakehouse_core::SchemaMode::Merge);
        table
            .append(Rows::batches(schema, batches), &options)
            .await
            .unwrap();
        table.delete("renamed = 9", &Options::default()).await.unwrap();
        let rows = "SELECT renamed, b, s['y'], more FROM t";
        assert_eq!(ask(&table, rows).await, ["1||3|", "5|6||7"], "{format:?}");
        table
            .compact(&lakehouse_core::Compact::default(), &Options::default())
            .await
            .unwrap();
        assert_eq!(ask(&table, rows).await, ["1||3|", "5|6||7"], "{format:?}");
    }
}

#[tokio::test]
async fn nested_ids_are_taken_over_too() {
    let id = |field: Field, id: i32| field.with_metadata([(FIELD_ID.to_owned(), id.to_string())].into());
    let member = id(Field::new("x", DataType::Utf8, true), 12);
    let outer = id(
        Field::new("s", DataType::Struct(vec![member.clone()].into()), true),
        7,
    );
    let element = id(Field::new("element", DataType::Int64, true), 3);
    let list = id(Field::new("l", DataType::List(Arc::new(element)), true), 4);
    let schema = Arc::new(Schema::new(vec![outer, list]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["v"]));
    let s: ArrayRef = Arc::new(arrow::array::StructArray::from(vec![(Arc::new(member), texts)]));
    let (_, lists) = query("SELECT [1, 2] AS l").await;
    let l = arrow::compute::cast(lists[0].column(0), schema.field(1).data_type()).unwrap();
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![s, l]).unwrap();
    for format in &FORMATS[..2] {
        let store = memory("nested");
        let bytes = parquet(&schema, std::slice::from_ref(&batch), 10);
        store.put("a.parquet", bytes.into()).await.unwrap();
        let (table, adopted) = adopt(&store, *format).await;
        let DataType::Struct(members) = adopted.schema.field(0).data_type() else {
            panic!("{:?}", adopted.schema)
        };
        assert_eq!(
            (field_id(adopted.schema.field(0)), field_id(&members[0])),
            (Some(7), Some(12))
        );
        assert_eq!(ask(&table, "SELECT s['x'], l[1] FROM t").await, ["v|1"]);
    }
}
