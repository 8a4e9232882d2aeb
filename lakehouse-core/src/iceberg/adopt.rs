//! A new table whose first version has files in it that were written before, by whoever it was.
//!
//! Such files have no field ids as a rule: the table's name mapping says which column is which (spec, "Column
//! Projection", "Name Mapping Serialization"). Where columns come with ids, these become the table's, for a reader
//! that finds ids in a file looks no further.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema as ArrowSchema};
use iceberg::spec::TableMetadata;
use serde_json::{Value, json};

use super::catalog::Catalog;
use super::create::first_metadata;
use super::metadata::State;
use super::names::{self, NAME_MAPPING};
use super::paths::Paths;
use super::publish::attempt;
use super::view::{View, open};
use crate::error::{Error, Result};
use crate::format::Outcome;
use crate::model::schema::field_id;
use crate::model::{At, Change, CommitId, Definition, Snapshot};
use crate::store::Store;

/// The table before it is made: number 0 of its metadata, without a file.
///
/// # Errors
/// As [`super::create::create`].
pub(super) fn draft(store: &Store, definition: &Definition, commit_id: &CommitId) -> Result<Arc<Snapshot>> {
    let metadata = first_metadata(store, definition, commit_id)?;
    let metadata = completed(&metadata, &definition.schema)?;
    let state = State {
        paths: Paths::new(store, metadata.location()),
        metadata: Arc::new(metadata),
        refs: BTreeMap::new(),
        number: 0,
        file: String::new(),
        named: None,
        read_only: None,
    };
    open(&Arc::new(state), &At::Latest)
}

/// One attempt to make the table with the files that `change` adds.
///
/// # Errors
/// As [`draft`], and when it is certain that nothing became visible.
pub(super) async fn create_with(
    store: &Store,
    catalog: &Catalog,
    definition: &Definition,
    change: &Change,
) -> Result<Outcome> {
    let draft = draft(store, definition, &change.commit_id)?;
    let view = View::of(&draft)?;
    if catalog.is_taken(store, None).await? {
        return Ok(Outcome::Lost);
    }
    let schema = Arc::clone(view.metadata().current_schema());
    attempt(store, catalog, &view, change, schema).await
}

/// The metadata with the field ids that columns come with, and the name mapping. The crate's builder gives ids of
/// its own to every new table.
fn completed(metadata: &TableMetadata, columns: &ArrowSchema) -> Result<TableMetadata> {
    let failed = |e: serde_json::Error| Error::invalid(format!("cannot write table metadata: {e}"), "");
    let mut value = serde_json::to_value(metadata).map_err(failed)?;
    let mut ids = Renumbering::default();
    if let Some(largest) = largest_id(columns.fields()) {
        ids.next = largest + 1;
        ids.fields(&mut value["schemas"][0]["fields"], columns.fields());
        for field in value["partition-specs"][0]["fields"]
            .as_array_mut()
            .into_iter()
            .flatten()
        {
            let source = field["source-id"].as_i64().and_then(|old| ids.given.get(&old));
            if let Some(new) = source {
                field["source-id"] = json!(new);
            }
        }
        value["last-column-id"] = json!(ids.next - 1);
    }
    let renumbered: TableMetadata = serde_json::from_value(value.clone()).map_err(failed)?;
    let mapping = names::first(renumbered.current_schema());
    value["properties"][NAME_MAPPING] = json!(mapping);
    serde_json::from_value(value).map_err(failed)
}

fn largest_id(fields: &[FieldRef]) -> Option<i32> {
    let largest = |field: &FieldRef| field_id(field).max(largest_id(&children(field)));
    fields.iter().filter_map(largest).max()
}

/// The fields inside of a type, in the order in which Iceberg has them.
fn children(field: &Field) -> Vec<FieldRef> {
    match field.data_type() {
        DataType::Struct(fields) => fields.to_vec(),
        DataType::List(element) | DataType::LargeList(element) | DataType::FixedSizeList(element, _) => {
            vec![Arc::clone(element)]
        }
        DataType::Map(entries, _) => children(entries),
        _ => Vec::new(),
    }
}

/// Field ids of a schema as JSON (spec, Appendix C, "Schemas"), changed to those that columns come with.
#[derive(Default)]
struct Renumbering {
    /// The id of the next field that comes without one.
    next: i32,
    /// New ids by old ones.
    given: BTreeMap<i64, i32>,
}

impl Renumbering {
    fn fields(&mut self, json: &mut Value, fields: &[FieldRef]) {
        for (json, field) in json.as_array_mut().into_iter().flatten().zip(fields) {
            self.id(&mut json["id"], field);
            self.inside(&mut json["type"], field);
        }
    }

    fn inside(&mut self, json: &mut Value, field: &Field) {
        let inner = children(field);
        match (json["type"].as_str(), inner.as_slice()) {
            (Some("struct"), members) => self.fields(&mut json["fields"], members),
            (Some("list"), [element]) => {
                self.id(&mut json["element-id"], element);
                self.inside(&mut json["element"], element);
            }
            (Some("map"), [key, value]) => {
                self.id(&mut json["key-id"], key);
                self.id(&mut json["value-id"], value);
                self.inside(&mut json["key"], key);
                self.inside(&mut json["value"], value);
            }
            _ => {}
        }
    }

    fn id(&mut self, json: &mut Value, field: &Field) {
        let new = field_id(field).unwrap_or_else(|| {
            self.next += 1;
            self.next - 1
        });
        if let Some(old) = json.as_i64() {
            self.given.insert(old, new);
        }
        *json = json!(new);
    }
}
