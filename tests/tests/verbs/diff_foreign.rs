//! Versions of tables that other engines wrote, side by side, against a naive difference of what each of them reads as:
//! equality deletes, position deletes, vectors, renamed and widened columns, partition specs that followed one another.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use arrow::array::{Array, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::Schema;
use arrow::row::{RowConverter, SortField};
use arrow::util::display::array_value_to_string;
use lakehouse_core::model::schema::same_column;
use lakehouse_core::model::{At, Version};
use lakehouse_core::operations::diff::{CHANGE_TYPE, Diff, Difference};
use lakehouse_core::{Result, Table, scan};

/// Every table below the folders of fixtures that other engines wrote.
fn tables() -> Vec<PathBuf> {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures");
    let mut tables: Vec<PathBuf> = ["foreign", "spark"]
        .iter()
        .flat_map(|engine| std::fs::read_dir(fixtures.join(engine)).unwrap())
        .map(|entry| entry.unwrap().path().join("table"))
        .filter(|path| path.is_dir())
        .collect();
    tables.sort();
    tables
}

type Counted = BTreeMap<String, i64>;

/// Adds rows of these columns, which `types` names in the same order.
fn add(
    counted: &mut Counted,
    batch: &RecordBatch,
    columns: &[&str],
    sign: impl Fn(usize) -> i64,
    types: &Schema,
) {
    let fields = columns.iter().zip(types.fields());
    let columns = fields.map(|(name, field)| {
        let values = batch.column_by_name(name).unwrap();
        if !field.data_type().is_nested() {
            let values = cast(values, field.data_type()).unwrap();
            let text = |row| array_value_to_string(&values, row).unwrap();
            return (0..values.len()).map(text).collect();
        }
        // Members may have other names: what counts is what they hold.
        let converter = RowConverter::new(vec![SortField::new(values.data_type().clone())]).unwrap();
        let rows = converter.convert_columns(std::slice::from_ref(values)).unwrap();
        rows.iter().map(|row| format!("{:?}", row.data())).collect()
    });
    let columns: Vec<Vec<String>> = columns.collect();
    for row in 0..batch.num_rows() {
        let values: Vec<&str> = columns.iter().map(|column| column[row].as_str()).collect();
        *counted.entry(values.join("|")).or_default() += sign(row);
    }
}

/// The columns that both versions have whole and in one type: inside of some, members are missing or narrower.
fn whole(diff: &Diff) -> Vec<&str> {
    let columns = diff.compared.columns.iter().map(String::as_str);
    let of_other_types = diff.definition.columns.iter();
    let of_other_types = of_other_types.filter(|column| matches!(column.difference, Difference::Type(_)));
    let of_other_types: Vec<&str> = of_other_types.map(|column| column.column.as_str()).collect();
    let is_whole = |name: &&str| {
        let inside = format!("{name}.");
        let left_out = diff.compared.left_out.iter().map(String::as_str);
        !left_out
            .chain(of_other_types.iter().copied())
            .any(|path| path.starts_with(&inside))
    };
    columns.filter(is_whole).collect()
}

async fn naive(table: &Table, diff: &Diff, types: &Schema) -> Result<Counted> {
    let mut counted = Counted::new();
    for (snapshot, sign) in [(&diff.from, -1), (&diff.to, 1)] {
        let names = whole(diff).into_iter().map(|name| {
            let field = diff.to.schema.field_with_name(name).unwrap();
            let own = snapshot
                .schema
                .fields()
                .iter()
                .find(|own| same_column(own, field));
            own.unwrap().name().as_str()
        });
        let names: Vec<&str> = names.collect();
        let rows = scan::session(None).read_table(table.provider(&At::Version(snapshot.version)).await?)?;
        for batch in rows.collect().await? {
            add(&mut counted, &batch, &names, |_| sign, types);
        }
    }
    counted.retain(|_, count| *count != 0);
    Ok(counted)
}

async fn compare(table: &Table, from: Version, to: Version) -> Result<bool> {
    let diff = table.diff(&At::Version(from), &At::Version(to)).await?;
    let rows = diff.rows(None, None).await?;
    let frame = rows.frame()?;
    let names = whole(&diff);
    let shown = frame.schema().inner();
    let types: Vec<_> = names
        .iter()
        .map(|name| shown.field_with_name(name).unwrap().clone())
        .collect();
    let types = Schema::new(types);
    let mut found = Counted::new();
    for batch in frame.collect().await? {
        let changes = batch.column_by_name(CHANGE_TYPE).unwrap().clone();
        let sign = |row| match array_value_to_string(&changes, row).unwrap().as_str() {
            "insert" => 1,
            "delete" => -1,
            other => panic!("{other}"),
        };
        add(&mut found, &batch, &names, sign, &types);
    }
    found.retain(|_, count| *count != 0);
    let expected = naive(table, &diff, &types).await?;
    let place = table.location();
    assert_eq!(found, expected, "{place}: {from} to {to}");
    let (added, removed) = expected
        .values()
        .fold((0, 0), |(added, removed), count| match count {
            1.. => (added + count.unsigned_abs(), removed),
            _ => (added, removed + count.unsigned_abs()),
        });
    if names.len() < diff.compared.columns.len() {
        return Ok(!expected.is_empty());
    }
    let bounds = diff.rows;
    match bounds.exact {
        true => assert_eq!(
            (bounds.added, bounds.removed),
            (added, removed),
            "{place}: {from} to {to}"
        ),
        false => assert!(
            bounds.added >= added && bounds.removed >= removed,
            "{place}: {bounds:?}"
        ),
    }
    Ok(!expected.is_empty())
}

#[tokio::test]
async fn versions_that_other_engines_wrote_differ_as_their_rows_do() {
    let (mut pairs, mut different, mut unread) = (0, 0, Vec::new());
    for path in tables() {
        let name = path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_str()
            .unwrap()
            .to_owned();
        let Ok(table) = Table::open(path.to_str().unwrap()).await else {
            unread.push(name);
            continue;
        };
        let Ok(history) = table.history(None).await else {
            unread.push(name);
            continue;
        };
        let versions: Vec<Version> = history.iter().map(|commit| commit.version).collect();
        let neighbours = versions.windows(2).map(|pair| (pair[1], pair[0]));
        let ends = versions
            .first()
            .zip(versions.last())
            .map(|(new, old)| (*new, *old));
        for (from, to) in neighbours.chain(ends) {
            match compare(&table, from, to).await {
                Ok(differ) => {
                    pairs += 1;
                    different += u32::from(differ);
                }
                // What cannot be read cannot be compared, and says so.
                Err(_) => unread.push(format!("{name} {from} {to}")),
            }
        }
    }
    assert!(
        pairs > 120 && different > 80,
        "{pairs} pairs, {different} different, not read {unread:?}"
    );
    unread.retain(|name| {
        !["iceberg_orc", "iceberg_avro", "variant"]
            .iter()
            .any(|known| name.contains(known))
    });
    assert!(unread.len() < 12, "{unread:?}");
}
