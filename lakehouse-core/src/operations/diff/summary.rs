//! A comparison for machines.

use serde_json::{Map, Value, json};

use super::{Altered, ColumnDifference, Diff, Difference, FileTotals, RowBounds, RowCounts};
use crate::model::Snapshot;

impl Diff {
    /// What is different as one JSON object: `from`, `to` (version, time), `columns`, `partitioning`, `sort_order`,
    /// `identifier`, `features`, `properties` (`null`, or both values), `files` and `rows` as far as metadata tells,
    /// `compared` and `left_out` columns. Of the versions under `unknown` partitioning, sort order, features and
    /// properties are not known any more: `null` does not say then that they are the same.
    pub fn summary(&self) -> Value {
        let definition = &self.definition;
        let properties = definition.properties.iter();
        let properties: Map<String, Value> = properties
            .map(|(key, both)| (key.clone(), json!({"from": both.from, "to": both.to})))
            .collect();
        json!({
            "from": version(&self.from),
            "to": version(&self.to),
            "columns": definition.columns.iter().map(column).collect::<Vec<_>>(),
            "partitioning": both(&definition.partitioning),
            "sort_order": both(&definition.sort_order),
            "identifier": both(&definition.identifier),
            "features": both(&definition.features),
            "properties": properties,
            "unknown": definition.unknown,
            "files": {
                "added": totals(&self.files.added),
                "removed": totals(&self.files.removed),
                "masked": totals(&self.files.masked),
                "unchanged": totals(&self.files.unchanged),
            },
            "rows": bounds(&self.rows),
            "compared": self.compared.columns,
            "left_out": self.compared.left_out,
        })
    }
}

impl RowCounts {
    /// The same as JSON.
    pub fn summary(&self) -> Value {
        json!({
            "added": self.added, "removed": self.removed, "changed": self.changed,
            "ambiguous_keys": self.ambiguous_keys,
        })
    }
}

fn version(snapshot: &Snapshot) -> Value {
    json!({"version": snapshot.version, "timestamp_ms": snapshot.timestamp_ms})
}

fn both(altered: &Option<Altered<Vec<String>>>) -> Value {
    altered
        .as_ref()
        .map_or(Value::Null, |both| json!({"from": both.from, "to": both.to}))
}

fn totals(totals: &FileTotals) -> Value {
    json!({"files": totals.files, "rows": totals.rows, "bytes": totals.bytes})
}

fn bounds(rows: &RowBounds) -> Value {
    json!({
        "from": rows.from, "to": rows.to, "added": rows.added, "removed": rows.removed, "exact": rows.exact,
    })
}

fn column(different: &ColumnDifference) -> Value {
    let mut value = json!({"column": different.column, "change": different.difference.name()});
    let (from, to) = match &different.difference {
        Difference::Added(data_type) => (None, Some(json!(data_type.to_string()))),
        Difference::Dropped(data_type) => (Some(json!(data_type.to_string())), None),
        Difference::Renamed(from) => (Some(json!(from)), Some(json!(different.column))),
        Difference::Moved => (None, None),
        Difference::Type(both) => (
            Some(json!(both.from.to_string())),
            Some(json!(both.to.to_string())),
        ),
        Difference::Nullable(to) => (Some(json!(!to)), Some(json!(to))),
        Difference::Comment(both) => (Some(json!(both.from)), Some(json!(both.to))),
    };
    value["from"] = from.into();
    value["to"] = to.into();
    value
}
