//! Whether the columns of a version are those of an older one that grew, so that files of the older one can be read with
//! them.

use serde_json::Value;

use super::TYPE_CHANGES;
use super::redefine::widens;
use crate::delta::mapping;
use crate::delta::protocol;
use crate::delta::schema::{self, CURRENT_DEFAULT, Mapping};
use crate::delta::state::State;
use crate::model::schema::COMMENT;

impl State {
    /// Whether the columns of this version are those of an older one, some of them wider or renamed perhaps, and some
    /// that were added or, where names are mapped, dropped: then its files can be read with them.
    pub(in crate::delta) fn has_columns_of(&self, old: &Self) -> bool {
        let read = |state: &Self| serde_json::from_str::<Value>(&state.metadata.schema_string).ok();
        let may_drop = protocol::mapping(&self.metadata).is_ok_and(|mapping| mapping != Mapping::None);
        self.metadata.schema_string == old.metadata.schema_string
            || matches!((read(old), read(self)), (Some(old), Some(new)) if has_grown(&old, &new, may_drop))
    }
}

/// Whether a type has all that an older one has, in the same or a wider type, and beside that only what may be NULL.
fn has_grown(old: &Value, new: &Value, may_drop: bool) -> bool {
    let same = |key: &str| old[key] == new[key];
    match (old["type"].as_str(), new["type"].as_str()) {
        (Some("struct"), Some("struct")) => {
            let (Some(old), Some(new)) = (old["fields"].as_array(), new["fields"].as_array()) else {
                return false;
            };
            let stored = |fields: &[Value], field: &Value| {
                let name = mapping::physical(field);
                let found = fields.iter().find(|other| mapping::physical(other) == name);
                found.cloned()
            };
            let kept = old.iter().all(|field| match stored(new, field) {
                Some(new) => is_kept(field, &new, may_drop),
                None => may_drop,
            });
            let added = new.iter().filter(|field| stored(old, field).is_none());
            kept && added.into_iter().all(|field| field["nullable"] == true)
        }
        (Some("array"), Some("array")) => {
            same("containsNull") && has_grown(&old["elementType"], &new["elementType"], may_drop)
        }
        (Some("map"), Some("map")) => {
            same("valueContainsNull")
                && same("keyType")
                && has_grown(&old["valueType"], &new["valueType"], may_drop)
        }
        _ => {
            let primitive = |value: &Value| schema::primitive(value.as_str()?, "").ok();
            let widened = || Some(widens(&primitive(old)?, &primitive(new)?));
            old == new || widened().unwrap_or(false)
        }
    }
}

/// Whether a field is what it was, or grew.
fn is_kept(old: &Value, new: &Value, may_drop: bool) -> bool {
    let metadata = |field: &Value| {
        let mut metadata = field["metadata"].as_object().cloned().unwrap_or_default();
        for key in [
            TYPE_CHANGES,
            COMMENT,
            CURRENT_DEFAULT,
            mapping::ID,
            mapping::PHYSICAL,
        ] {
            metadata.remove(key);
        }
        metadata
    };
    // Whether values are there that must be by now is looked up before.
    metadata(old) == metadata(new) && has_grown(&old["type"], &new["type"], may_drop)
}
