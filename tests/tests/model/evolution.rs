//! Columns that come, go and change, and partitionings that follow one another.

use arrow::datatypes::DataType;
use datafusion::scalar::ScalarValue;
use lakehouse_core::model::{ColumnPath, Place};
use lakehouse_core::operations::Alter;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::program::{Evolving, pick};
use super::reference::{Column, Row};

/// One change of a table's definition.
#[derive(Debug, Clone)]
pub(super) enum Evolution {
    Add(Column),
    Drop(&'static str),
    Rename(&'static str, &'static str),
    Widen(&'static str, DataType),
    First(&'static str),
    PartitionBy(&'static str),
}

impl Evolution {
    /// The columns afterwards.
    pub(super) fn apply(&self, columns: &[Column]) -> Vec<Column> {
        let mut columns = columns.to_vec();
        let at = |columns: &[Column], name: &str| columns.iter().position(|c| c.name == name).unwrap();
        match self {
            Self::Add(column) => columns.push(column.clone()),
            Self::Drop(name) => {
                columns.remove(at(&columns, name));
            }
            Self::Rename(old, new) => {
                let at = at(&columns, old);
                columns[at].name = new;
            }
            Self::Widen(name, data_type) => {
                let at = at(&columns, name);
                columns[at].data_type = data_type.clone();
            }
            Self::First(name) => {
                let column = columns.remove(at(&columns, name));
                columns.insert(0, column);
            }
            Self::PartitionBy(_) => {}
        }
        columns
    }

    /// As the library is asked for it.
    pub(super) fn spelled(&self) -> Alter {
        let path = |name: &str| -> ColumnPath { name.parse().unwrap() };
        let alter = Alter::default();
        match self {
            Self::Add(column) => alter
                .add_column(&format!("{} {}", column.name, sql(&column.data_type)))
                .unwrap(),
            Self::Drop(name) => alter.drop_column(path(name)),
            Self::Rename(old, new) => alter.rename_column(path(old), new),
            Self::Widen(name, data_type) => alter.widen(&format!("{name} {}", sql(data_type))).unwrap(),
            Self::First(name) => alter.move_column(path(name), Place::First),
            Self::PartitionBy(fields) => alter.partition_by(fields).unwrap(),
        }
    }
}

fn sql(data_type: &DataType) -> String {
    match data_type {
        DataType::Int32 => "int".to_owned(),
        DataType::Int64 => "bigint".to_owned(),
        DataType::Float64 => "double".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Utf8 => "text".to_owned(),
        DataType::Date32 => "date".to_owned(),
        DataType::Decimal128(digits, scale) => format!("decimal({digits}, {scale})"),
        other => panic!("no SQL for {other}"),
    }
}

/// Rows of the columns `from` as the columns `to` have them: each column is known by its id, not by its name.
pub(super) fn carry(rows: &[Row], from: &[Column], to: &[Column]) -> Vec<Row> {
    let value = |row: &Row, column: &Column| match from.iter().position(|old| old.id == column.id) {
        Some(at) => row[at].cast_to(&column.data_type).unwrap(),
        None => ScalarValue::try_new_null(&column.data_type).unwrap(),
    };
    rows.iter()
        .map(|row| to.iter().map(|column| value(row, column)).collect())
        .collect()
}

/// A table's definition while a program is made up.
pub(super) struct Evolver {
    pub(super) columns: Vec<Column>,
    pub(super) partitioning: &'static str,
    pub(super) next: u32,
}

impl Evolver {
    /// A change that the table can go through, if the one that came to mind is.
    pub(super) fn step(&mut self, rng: &mut StdRng, evolving: Evolving) -> Option<Evolution> {
        let evolution = self.random(rng, evolving)?;
        self.columns = evolution.apply(&self.columns);
        if let Evolution::PartitionBy(fields) = evolution {
            self.partitioning = fields;
        }
        Some(evolution)
    }

    fn random(&mut self, rng: &mut StdRng, evolving: Evolving) -> Option<Evolution> {
        // Names come back, for columns that are others.
        const NAMES: [&str; 8] = ["n", "x", "d", "price", "alpha", "beta", "gamma", "delta"];
        let partitioned = |name: &str| {
            let mut words = self.partitioning.split(|c: char| !c.is_ascii_alphanumeric());
            words.any(|word| word == name)
        };
        let free: Vec<&str> = NAMES
            .into_iter()
            .filter(|name| !self.columns.iter().any(|c| c.name == *name) && !partitioned(name))
            .collect();
        let changeable: Vec<&Column> = self
            .columns
            .iter()
            .filter(|c| !matches!(c.name, "id" | "region" | "flag" | "ts") && !partitioned(c.name))
            .collect();
        let chosen = changeable.choose(rng).copied();
        match rng.random_range(0..if evolving == Evolving::Partitioning { 9 } else { 6 }) {
            0 | 1 => {
                let types = [
                    DataType::Int32,
                    DataType::Int64,
                    DataType::Float64,
                    DataType::Utf8,
                    DataType::Date32,
                    DataType::Decimal128(9, 2),
                ];
                let column = Column {
                    id: self.next,
                    name: free.choose(rng).copied()?,
                    data_type: types.choose(rng)?.clone(),
                    nullable: true,
                };
                self.next += 1;
                Some(Evolution::Add(column))
            }
            2 => Some(Evolution::Drop(chosen?.name)),
            3 => Some(Evolution::Rename(chosen?.name, free.choose(rng).copied()?)),
            4 => {
                let column = chosen?;
                let wider = match column.data_type {
                    DataType::Int32 => DataType::Int64,
                    DataType::Decimal128(digits, scale) if digits < 15 => {
                        DataType::Decimal128(digits + 3, scale)
                    }
                    _ => return None,
                };
                Some(Evolution::Widen(column.name, wider))
            }
            5 => Some(Evolution::First(self.columns.choose(rng)?.name)),
            _ => {
                let mut known = vec![
                    "",
                    "bucket(3, id)",
                    "bucket(5, id)",
                    "region",
                    "region, bucket(2, id)",
                ];
                for column in &self.columns {
                    known.extend::<&[&str]>(match (column.name, &column.data_type) {
                        ("ts", _) => &["day(ts)", "hour(ts), region", "month(ts)"],
                        ("d", DataType::Date32) => &["day(d)", "year(d)", "d"],
                        ("n", DataType::Int32 | DataType::Int64) => &["n", "truncate(4, n)"],
                        ("alpha", DataType::Utf8) => &["truncate(1, alpha)", "alpha"],
                        ("beta", DataType::Decimal128(..)) => &["truncate(50, beta)"],
                        _ => &[],
                    });
                }
                let new = pick(rng, &known);
                (new != self.partitioning).then_some(Evolution::PartitionBy(new))
            }
        }
    }
}
