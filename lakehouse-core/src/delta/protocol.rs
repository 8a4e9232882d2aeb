//! Which tables we read and write: table features (Delta protocol, "Table Features").

use std::collections::BTreeMap;

use super::actions::{Metadata, Protocol};
use super::hidden::GENERATION;
use super::schema::{self, CURRENT_DEFAULT, Column, INVARIANTS, Mapping};
use super::{change_feed, clustering, row_tracking};
use crate::error::{Error, Result};

/// Deletion vectors.
pub(super) const DELETION_VECTORS: &str = "deletionVectors";
/// Timestamps without a zone.
pub(super) const TIMESTAMP_NTZ: &str = "timestampNtz";
/// Generated columns.
pub(super) const GENERATED_COLUMNS: &str = "generatedColumns";
/// Columns whose type became wider.
pub(super) const TYPE_WIDENING: &str = "typeWidening";
/// The same before it was released, with other metadata.
const TYPE_WIDENING_PREVIEW: &str = "typeWidening-preview";
/// Checkpoints of version 2.
pub(super) const V2_CHECKPOINT: &str = "v2Checkpoint";
/// Commit times inside commits.
const IN_COMMIT_TIMESTAMP: &str = "inCommitTimestamp";

/// Names and ids of columns in data files.
pub(super) const COLUMN_MAPPING: &str = "columnMapping";

/// Features that writer versions below 7 imply, and from which version on (Delta protocol, "Valid Feature
/// Names in Table Features").
const IMPLIED: [(i32, &str); 7] = [
    (2, "appendOnly"),
    (2, "invariants"),
    (3, CHECK_CONSTRAINTS),
    (4, change_feed::FEATURE),
    (4, "generatedColumns"),
    (5, COLUMN_MAPPING),
    (6, "identityColumns"),
];

/// CHECK constraints.
pub(super) const CHECK_CONSTRAINTS: &str = "checkConstraints";

/// Begins the table properties that are CHECK constraints; their name follows.
pub(super) const CONSTRAINT: &str = "delta.constraints.";

/// Table property: which kind of checkpoint is written.
pub(super) const CHECKPOINT_POLICY: &str = "delta.checkpointPolicy";

/// Table property: deletion vectors may be written.
pub(super) const ENABLE_VECTORS: &str = "delta.enableDeletionVectors";

/// Table property: columns may become wider.
pub(super) const ENABLE_WIDENING: &str = "delta.enableTypeWidening";

/// Features whose tables are read right.
const READ: [&str; 8] = [
    DELETION_VECTORS,
    COLUMN_MAPPING,
    TIMESTAMP_NTZ,
    "timestampWithoutTimezone",
    V2_CHECKPOINT,
    "vacuumProtocolCheck",
    TYPE_WIDENING,
    TYPE_WIDENING_PREVIEW,
];

/// Features whose tables are written right, some only while they are not in use.
const WRITE: [&str; 20] = [
    DELETION_VECTORS,
    TIMESTAMP_NTZ,
    "timestampWithoutTimezone",
    V2_CHECKPOINT,
    "vacuumProtocolCheck",
    TYPE_WIDENING,
    TYPE_WIDENING_PREVIEW,
    "appendOnly",
    "invariants",
    CHECK_CONSTRAINTS,
    change_feed::FEATURE,
    GENERATED_COLUMNS,
    "identityColumns",
    COLUMN_MAPPING,
    "allowColumnDefaults",
    "domainMetadata",
    IN_COMMIT_TIMESTAMP,
    row_tracking::FEATURE,
    clustering::FEATURE,
    // What it asks for is about cleaning up the log: cleanup.rs.
    "checkpointProtection",
];

/// Why a table cannot be written.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    what: String,
    hint: String,
}

impl From<&Refusal> for Error {
    fn from(refusal: &Refusal) -> Self {
        Self::unsupported(&refusal.what, &refusal.hint)
    }
}

impl Protocol {
    /// Refuses a table that has a reader feature which we do not honour.
    ///
    /// # Errors
    /// [`Error::Unsupported`] naming the feature.
    pub(super) fn check_readable(&self) -> Result<()> {
        let refuse = |what: String| {
            Err(Error::unsupported(
                format!("the Delta table cannot be read: {what}"),
                "read it with a tool that has this feature, or drop the feature from the table",
            ))
        };
        if self.min_reader_version > 3 {
            return refuse(format!("it asks for reader version {}", self.min_reader_version));
        }
        let features = self.reader_features.iter().flatten();
        match features.into_iter().find(|name| !READ.contains(&name.as_str())) {
            Some(name) => refuse(format!("it has the table feature {name}")),
            None => Ok(()),
        }
    }

    /// The table features, those of writers and readers once each.
    pub(super) fn features(&self) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        for feature in self
            .writer_features
            .iter()
            .flatten()
            .chain(self.reader_features.iter().flatten())
        {
            if !all.contains(feature) {
                all.push(feature.clone());
            }
        }
        all
    }

    /// The protocol with one more feature of writers, and of readers too if they need it; those that its numbers
    /// imply are spelled out.
    pub(super) fn with(self, feature: &str, readers: bool) -> Self {
        if self.has(feature) {
            return self;
        }
        let mut writer = self.writer_features.unwrap_or_else(|| {
            let implied = IMPLIED
                .iter()
                .filter(|(from, _)| *from <= self.min_writer_version);
            implied.map(|(_, name)| (*name).to_owned()).collect()
        });
        let mut reader = self
            .reader_features
            .unwrap_or_else(|| match self.min_reader_version {
                2 => vec![COLUMN_MAPPING.to_owned()],
                _ => Vec::new(),
            });
        for features in [Some(&mut writer), readers.then_some(&mut reader)]
            .into_iter()
            .flatten()
        {
            if !features.iter().any(|known| known == feature) {
                features.push(feature.to_owned());
            }
        }
        Self {
            min_reader_version: if reader.is_empty() {
                self.min_reader_version
            } else {
                3
            },
            min_writer_version: 7,
            reader_features: (!reader.is_empty()).then_some(reader),
            writer_features: Some(writer),
        }
    }

    /// Whether a feature is among those of readers and writers.
    pub(super) fn has(&self, feature: &str) -> bool {
        let lists = |features: &Option<Vec<String>>| {
            features
                .as_ref()
                .is_some_and(|f| f.iter().any(|name| name == feature))
        };
        lists(&self.writer_features) || lists(&self.reader_features)
    }
}

/// Why a table cannot be written, if so: a feature that we do not honour, by its name.
pub(super) fn refusal(protocol: &Protocol, metadata: &Metadata, columns: &[Column]) -> Option<Refusal> {
    let refuse = |feature: &str, why: String| {
        Some(Refusal {
            what: format!("the Delta table cannot be written: {why} (table feature {feature})"),
            hint: "write it with a tool that has this feature".into(),
        })
    };
    if protocol.min_writer_version > 7 {
        return Some(Refusal {
            what: format!(
                "the Delta table cannot be written: it asks for writer version {}",
                protocol.min_writer_version
            ),
            hint: "write it with a newer tool".into(),
        });
    }
    if let Some(name) = protocol
        .writer_features
        .iter()
        .flatten()
        .find(|name| !WRITE.contains(&name.as_str()))
    {
        return refuse(name, "it has a feature that is not written".into());
    }
    if let Some(what) = row_tracking::lacking(protocol, metadata) {
        return refuse(row_tracking::FEATURE, what);
    }
    // What older protocols imply by their number, newer ones list; what counts is whether it is in use.
    if let Some(name) = change_feed::taken_name(protocol, metadata, columns) {
        return refuse(
            change_feed::FEATURE,
            format!("column {name} has the name of one of its change data feed"),
        );
    }
    let schema = &metadata.schema_string;
    if let Some(column) = schema::columns_with(schema, "delta.identity.start").first() {
        return refuse("identityColumns", format!("column {column} has generated ids"));
    }
    // Inside of columns nobody computes or checks anything.
    for (key, feature, what) in [
        (INVARIANTS, "invariants", "an invariant"),
        (CURRENT_DEFAULT, "allowColumnDefaults", "a default value"),
        (GENERATION, GENERATED_COLUMNS, "an expression"),
    ] {
        let is_column = |name: &String| columns.iter().any(|column| column.field.name() == name);
        let inside = schema::columns_with(schema, key);
        if let Some(inside) = inside.iter().find(|name| !is_column(name)) {
            return refuse(feature, format!("{inside} has {what}"));
        }
    }
    let unread =
        |column: &&Column| column.metadata.contains_key(INVARIANTS) && schema::invariant(column).is_none();
    columns.iter().find(unread).and_then(|column| {
        let name = column.field.name();
        refuse(
            "invariants",
            format!("the invariant of column {name} is not understood"),
        )
    })
}

/// Whether a table property says `true`.
pub(super) fn is_on(metadata: &Metadata, property: &str) -> bool {
    let value = metadata.configuration.get(property);
    value.is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// Whether columns may become wider: the owner allows it.
pub(super) fn widening(protocol: &Protocol, configuration: &BTreeMap<String, String>) -> bool {
    let value = configuration.get(ENABLE_WIDENING);
    value.is_some_and(|value| value.eq_ignore_ascii_case("true")) && !protocol.has(TYPE_WIDENING_PREVIEW)
}

/// Whether rows may be masked: the feature is there, switched on, and nobody asks for copy-on-write.
pub(super) fn masks(protocol: &Protocol, metadata: &Metadata) -> bool {
    let rewrites = ["write.merge.mode", "write.update.mode", "write.delete.mode"];
    let copy_on_write = rewrites.iter().any(|key| {
        let mode = metadata.configuration.get(*key);
        mode.is_some_and(|mode| mode.eq_ignore_ascii_case("copy-on-write"))
    });
    protocol.has(DELETION_VECTORS) && is_on(metadata, ENABLE_VECTORS) && !copy_on_write
}

/// Whether commits carry their own time.
pub(super) fn in_commit_timestamps(protocol: &Protocol, metadata: &Metadata) -> bool {
    protocol.has(IN_COMMIT_TIMESTAMP) && is_on(metadata, "delta.enableInCommitTimestamps")
}

/// How the table's columns are found in data files.
///
/// # Errors
/// [`Error::Unsupported`] for a mode that the protocol does not have.
pub(super) fn mapping(metadata: &Metadata) -> Result<Mapping> {
    match metadata
        .configuration
        .get("delta.columnMapping.mode")
        .map(String::as_str)
    {
        None | Some("none") => Ok(Mapping::None),
        Some("name") => Ok(Mapping::Name),
        Some("id") => Ok(Mapping::Id),
        Some(other) => Err(Error::unsupported(
            format!("the Delta table maps its columns by {other:?}, which is not known"),
            "read it with a newer tool",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(reader: &[&str], writer: &[&str]) -> Protocol {
        let names = |list: &[&str]| Some(list.iter().map(|s| (*s).to_owned()).collect());
        Protocol {
            min_reader_version: 3,
            min_writer_version: 7,
            reader_features: names(reader),
            writer_features: names(writer),
        }
    }

    fn why(protocol: &Protocol, metadata: &Metadata) -> Option<String> {
        let columns = schema::parse(&metadata.schema_string, mapping(metadata).unwrap()).unwrap();
        refusal(protocol, metadata, &columns).map(|refusal| refusal.what)
    }

    fn metadata(field_metadata: &str, configuration: &[(&str, &str)]) -> Metadata {
        Metadata {
            schema_string: format!(
                r#"{{"type":"struct","fields":[{{"name":"a","type":"long","nullable":true,"metadata":{field_metadata}}}]}}"#
            ),
            configuration: configuration
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect(),
            ..Metadata::default()
        }
    }

    #[test]
    fn reader_features_that_are_not_honoured_are_named() {
        assert!(protocol(&READ, &[]).check_readable().is_ok());
        for name in ["catalogManaged", "variantType", "somethingNew"] {
            let error = protocol(&[name], &[name]).check_readable().unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
        let mut newer = protocol(&[], &[]);
        newer.min_reader_version = 4;
        assert!(newer.check_readable().is_err());
    }

    #[test]
    fn writer_features_that_are_not_honoured_are_named() {
        let plain = metadata("{}", &[]);
        assert_eq!(why(&protocol(&[], &WRITE), &plain), None);
        for name in ["icebergCompatV1", "icebergCompatV2", "somethingNew"] {
            let why = why(&protocol(&[], &[name]), &plain).unwrap();
            assert!(why.contains(name), "{why}");
        }
    }

    #[test]
    fn columns_with_names_of_the_change_feed_refuse_writing_while_it_is_on() {
        let named = |on: &str| {
            let mut metadata = metadata("{}", &[(change_feed::ENABLE, on)]);
            metadata.schema_string = metadata.schema_string.replace("\"a\"", "\"_Commit_version\"");
            metadata
        };
        let with = protocol(&[], &[change_feed::FEATURE]);
        let why_not = why(&with, &named("true")).unwrap();
        assert!(why_not.contains("_Commit_version"), "{why_not}");
        assert_eq!(why(&with, &named("false")), None);
        assert_eq!(
            why(&protocol(&[], &[]), &named("true")),
            None,
            "the feature is not listed"
        );
        let old = Protocol {
            min_reader_version: 1,
            min_writer_version: 4,
            ..Protocol::default()
        };
        assert!(why(&old, &named("true")).is_some());
    }

    #[test]
    fn a_table_that_tracks_rows_without_what_that_takes_is_not_written() {
        let plain = metadata("{}", &[]);
        let why_not = |features: &[&str], metadata| why(&protocol(&[], features), metadata);
        assert!(
            why_not(&["rowTracking"], &plain)
                .unwrap()
                .contains("domainMetadata")
        );
        assert_eq!(why_not(&["rowTracking", "domainMetadata"], &plain), None);
        let enabled = metadata("{}", &[(row_tracking::ENABLE, "true")]);
        let nameless = why_not(&["rowTracking", "domainMetadata"], &enabled).unwrap();
        assert!(nameless.contains("materializedRowIdColumnName"), "{nameless}");
    }

    #[test]
    fn features_in_use_refuse_writing_also_under_old_protocol_numbers() {
        let old = Protocol {
            min_reader_version: 2,
            min_writer_version: 6,
            ..Protocol::default()
        };
        assert_eq!(why(&old, &metadata("{}", &[])), None);
        let cases = [
            (r#"{"delta.invariants":"{}"}"#, vec![], "invariants"),
            (r#"{"delta.identity.start":1}"#, vec![], "identityColumns"),
        ];
        for (field, configuration, feature) in cases {
            let why = why(&old, &metadata(field, &configuration)).unwrap();
            assert!(why.contains(feature), "{why}");
        }
    }

    #[test]
    fn a_feature_that_a_number_implies_is_listed_once() {
        for (reader, writer) in [(1, 2), (1, 5), (2, 5), (2, 6)] {
            let old = Protocol {
                min_reader_version: reader,
                min_writer_version: writer,
                ..Protocol::default()
            };
            let new = old.with(COLUMN_MAPPING, true);
            let count = |features: &Option<Vec<String>>| {
                features
                    .iter()
                    .flatten()
                    .filter(|name| *name == COLUMN_MAPPING)
                    .count()
            };
            assert_eq!(
                (count(&new.reader_features), count(&new.writer_features)),
                (1, 1),
                "{reader} {writer}"
            );
            assert_eq!((new.min_reader_version, new.min_writer_version), (3, 7));
        }
    }

    #[test]
    fn masks_need_feature_and_property_and_no_copy_on_write() {
        let with = protocol(&[DELETION_VECTORS], &[DELETION_VECTORS]);
        let on = (ENABLE_VECTORS, "true");
        assert!(masks(&with, &metadata("{}", &[on])));
        assert!(!masks(&with, &metadata("{}", &[])));
        assert!(!masks(&protocol(&[], &[]), &metadata("{}", &[on])));
        let rewriting = ("write.merge.mode", "copy-on-write");
        assert!(!masks(&with, &metadata("{}", &[on, rewriting])));
    }
}
