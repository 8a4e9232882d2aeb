//! The source files: a schedule, and twelve months of what actually happened.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use lakehouse_core::Rows;

use super::parquet;
use crate::exit::Failure;
use crate::values::show_count;

/// What identifies a flight.
pub(super) const KEY: [&str; 4] = ["time_hour", "carrier", "flight", "origin"];

/// Which report of a flight a row of the feed is: the latest counts.
pub(super) const REPORT: &str = "report";

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// The folder with the flights.
pub(super) struct Feed {
    folder: PathBuf,
    schema: SchemaRef,
    rows: u64,
}

impl Feed {
    pub(super) async fn open(folder: &Path) -> Result<Self, Failure> {
        let context = lakehouse_core::scan::session(None);
        let schedule = parquet(&context, &folder.join("schedule.parquet")).await?;
        // Keys are never NULL, whatever the file says.
        let fields: Vec<Field> = schedule
            .schema()
            .fields()
            .iter()
            .map(|field| {
                let nullable = !KEY.contains(&field.name().as_str());
                Field::new(field.name(), field.data_type().clone(), nullable)
            })
            .collect();
        let rows = schedule.count().await? as u64;
        Ok(Self {
            folder: folder.to_owned(),
            schema: Arc::new(Schema::new(fields)),
            rows,
        })
    }

    pub(super) fn summary(&self) -> String {
        format!("{} flights", show_count(self.rows))
    }

    /// The columns of the table.
    pub(super) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The file with the schedule.
    pub(super) fn schedule(&self) -> PathBuf {
        self.folder.join("schedule.parquet")
    }

    pub(super) fn months(&self) -> usize {
        MONTHS.len()
    }

    pub(super) fn month_name(&self, month: usize) -> &'static str {
        MONTHS[month - 1]
    }

    /// The file with what happened in a month, counted from 1.
    pub(super) fn month_file(&self, month: usize) -> PathBuf {
        self.folder.join(format!("actuals-2013-{month:02}.parquet"))
    }

    /// What happened in a month. Some flights are reported twice, some a month late, and none in order.
    pub(super) fn month(&self, month: usize) -> Result<Rows, Failure> {
        Ok(Rows::file(self.month_file(month), None)?)
    }
}
