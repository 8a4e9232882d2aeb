//! What is different between any two versions that a program made, against the rows that the model has of both.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use lakehouse_core::model::At;
use lakehouse_core::operations::diff::{CHANGE_TYPE, RowCounts};
use lakehouse_core::{Result, Table};
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::evolution::carry;
use super::reference::{Column, Row};

/// A version: how it is asked for, its columns, its rows.
pub(super) type Version<'a> = (At, &'a [Column], &'a [Row]);

/// Compares two of the versions, in either direction.
pub(super) async fn compare(table: &Table, versions: &[Version<'_>], rng: &mut StdRng) -> Result<(), String> {
    let (from, to) = (versions.choose(rng).unwrap(), versions.choose(rng).unwrap());
    let keyed = rng.random_bool(0.5);
    check(table, from, to, keyed)
        .await
        .map_err(|why| format!("diff from {:?} to {:?}, keyed {keyed}: {why}", from.0, to.0))
}

/// Rows with how often the second version has them more.
type Counted = BTreeMap<Vec<String>, i64>;

async fn check(table: &Table, from: &Version<'_>, to: &Version<'_>, keyed: bool) -> Result<(), String> {
    let wrong = |e: lakehouse_core::Error| format!("{e} ({e:?})");
    let common = common(from.1, to.1);
    let mut expected = Counted::new();
    for ((_, columns, rows), sign) in [(from, -1), (to, 1)] {
        for row in carry(rows, columns, &common) {
            *expected.entry(text(&row)).or_default() += sign;
        }
    }
    expected.retain(|_, count| *count != 0);
    let id = common.iter().position(|column| column.name == "id").unwrap();
    let counts = counts(&expected, keyed.then_some(id));

    let diff = table.diff(&from.0, &to.0).await.map_err(wrong)?;
    let names: Vec<&str> = common.iter().map(|column| column.name).collect();
    if diff.compared.columns != names {
        return Err(format!(
            "compared {:?}, common are {names:?}",
            diff.compared.columns
        ));
    }
    let (added, removed) = expected
        .values()
        .fold((0, 0), |(added, removed), count| match count {
            1.. => (added + count.unsigned_abs(), removed),
            _ => (added, removed + count.unsigned_abs()),
        });
    let bounds = diff.rows;
    let fits = match bounds.exact {
        true => (bounds.added, bounds.removed) == (added, removed),
        false => bounds.added >= added && bounds.removed >= removed,
    };
    let known = |told: Option<u64>, rows: &[Row]| told.is_none_or(|told| told == rows.len() as u64);
    if !fits || !known(bounds.from, from.2) || !known(bounds.to, to.2) {
        return Err(format!("{bounds:?}, and {added} were added, {removed} removed"));
    }
    let rows = diff.rows(keyed.then_some("id"), None).await.map_err(wrong)?;
    let found = rows
        .frame()
        .map_err(wrong)?
        .collect()
        .await
        .map_err(|e| e.to_string())?;
    if counted(&found, id, keyed)? != expected {
        return Err(format!("rows are {found:?}, should be {expected:?}"));
    }
    let told = rows.count().await.map_err(wrong)?;
    if told != counts {
        return Err(format!("counted {told:?}, should be {counts:?}"));
    }
    let files = diff.files;
    let different = files.added.files + files.removed.files + files.masked.files;
    if rows.files_read > different {
        return Err(format!("{} files are read, {files:?}", rows.files_read));
    }
    Ok(())
}

/// The columns of both, as the second version calls them, in the wider type.
fn common(from: &[Column], to: &[Column]) -> Vec<Column> {
    let both = to.iter().filter_map(|new| {
        let old = from.iter().find(|old| old.id == new.id)?;
        let data_type = match (&old.data_type, &new.data_type) {
            (DataType::Int64, _) | (_, DataType::Int64) => DataType::Int64,
            (DataType::Decimal128(old, scale), DataType::Decimal128(new, _)) => {
                DataType::Decimal128(*old.max(new), *scale)
            }
            (_, new) => new.clone(),
        };
        Some(Column {
            data_type,
            ..new.clone()
        })
    });
    both.collect()
}

fn text(row: &[ScalarValue]) -> Vec<String> {
    row.iter().map(|value| format!("{value:?}")).collect()
}

/// What the rows add up to; says which of them are out of place.
fn counted(batches: &[RecordBatch], id: usize, keyed: bool) -> Result<Counted, String> {
    let mut counted = Counted::new();
    let mut before: Option<Vec<String>> = None;
    for batch in batches {
        let types = batch.column_by_name(CHANGE_TYPE).unwrap().as_string::<i32>();
        for at in 0..batch.num_rows() {
            let values = batch.columns()[..batch.num_columns() - 1].iter();
            let row: Vec<ScalarValue> = values
                .map(|column| ScalarValue::try_from_array(column, at).unwrap())
                .collect();
            let row = text(&row);
            let sign = match types.value(at) {
                "insert" => 1,
                "delete" => -1,
                "update_preimage" if keyed => -1,
                "update_postimage" if keyed => 1,
                other => return Err(format!("a row is {other}")),
            };
            let old = before.take();
            match (types.value(at), old) {
                ("update_preimage", None) => before = Some(row.clone()),
                ("update_postimage", Some(old)) if old[id] == row[id] => {}
                ("insert" | "delete", None) => {}
                (change, old) => return Err(format!("{change} {row:?} follows {old:?}")),
            }
            *counted.entry(row).or_default() += sign;
        }
    }
    Ok(counted)
}

fn counts(expected: &Counted, id: Option<usize>) -> RowCounts {
    let mut counts = RowCounts::default();
    // By key, or by row: how many were removed, how many added.
    let mut keys: BTreeMap<&[String], (u64, u64)> = BTreeMap::new();
    for (row, count) in expected {
        let key = id.map_or(&row[..], |id| &row[id..=id]);
        let (removed, added) = keys.entry(key).or_default();
        match count {
            1.. => *added += count.unsigned_abs(),
            _ => *removed += count.unsigned_abs(),
        }
    }
    for (removed, added) in keys.into_values() {
        if (removed, added) == (1, 1) {
            counts.changed += 1;
        } else {
            counts.removed += removed;
            counts.added += added;
            counts.ambiguous_keys += u64::from(removed > 0 && added > 0);
        }
    }
    counts
}
