//! Change feeds: rows that say themselves what happened.

use std::str::FromStr;
use std::sync::Arc;

use arrow::array::{Array, AsArray, BooleanArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use super::debezium::Envelope;
use crate::error::{Error, Result};
use crate::scan::unknown_column;

/// Column of the source that says which rows are deletes.
pub(super) const DELETED: &str = "__lakehouse_deleted";

/// How a change feed says what each of its rows is. Inserts and updates both write the row whether its
/// key is there or not, so that a feed can be played twice.
///
/// ```
/// use lakehouse_core::operations::Cdc;
/// let cdc: Cdc = "op=kind, sequence=lsn, delete=X".parse()?;
/// assert!(matches!(&cdc, Cdc::Columns(columns) if columns.delete.as_deref() == Some("X")));
/// assert_eq!("debezium".parse::<Cdc>()?, Cdc::Debezium);
/// # Ok::<(), lakehouse_core::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cdc {
    /// Columns beside those of the row.
    Columns(CdcColumns),
    /// Debezium's envelope: the row is in `after`, or for deletes in `before`; `op` tells what happened and
    /// `ts_ms` when. Records without content are skipped.
    Debezium,
}

/// The columns of a change feed, and its words for what happened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CdcColumns {
    /// The column that tells what happened. It is stored if the table has it.
    pub op: String,
    /// The column by which the newest row of a key is found. It is stored if the table has it.
    pub sequence: Option<String>,
    /// The word for an insert; `I`, `c`, `r` (a row of a first load) and `insert` without one.
    pub insert: Option<String>,
    /// The word for an update; `U`, `u` and `update` without one.
    pub update: Option<String>,
    /// The word for a delete; `D`, `d` and `delete` without one.
    pub delete: Option<String>,
}

/// What a row of a feed says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Op {
    Insert,
    Update,
    Delete,
}

/// The words of feeds that do not say which are theirs. The last of each is known in any case.
const WORDS: [(Op, &[&str], &str); 3] = [
    (Op::Insert, &["I", "c", "r"], "insert"),
    (Op::Update, &["U", "u"], "update"),
    (Op::Delete, &["D", "d"], "delete"),
];

impl FromStr for Cdc {
    type Err = Error;

    /// `op=COL[,sequence=COL][,insert=I][,update=U][,delete=D]`, or `debezium`.
    fn from_str(text: &str) -> Result<Self> {
        if text.trim().eq_ignore_ascii_case("debezium") {
            return Ok(Self::Debezium);
        }
        let wrong = |what: String| {
            Error::invalid(what, format!("change feed {text:?}"))
                .with_hint("write op=COL[,sequence=COL][,insert=I][,update=U][,delete=D], or debezium")
        };
        let mut columns = CdcColumns::default();
        let mut op = None;
        for part in text.split(',') {
            let (name, value) = part
                .split_once('=')
                .ok_or_else(|| wrong(format!("{:?} is not NAME=VALUE", part.trim())))?;
            let (name, value) = (name.trim(), value.trim());
            if value.is_empty() {
                return Err(wrong(format!("{name} is empty")));
            }
            let slot = match name {
                "op" => &mut op,
                "sequence" => &mut columns.sequence,
                "insert" => &mut columns.insert,
                "update" => &mut columns.update,
                "delete" => &mut columns.delete,
                other => return Err(wrong(format!("{other:?} is not known"))),
            };
            if slot.replace(value.to_owned()).is_some() {
                return Err(wrong(format!("{name} is given twice")));
            }
        }
        columns.op = op.ok_or_else(|| wrong("the column that tells what happened is missing".to_owned()))?;
        Ok(Self::Columns(columns))
    }
}

/// How the rows of a feed are read.
pub(super) enum Reader {
    Columns(CdcColumns, SchemaRef),
    Debezium(Envelope),
}

impl Reader {
    /// # Errors
    /// [`Error::Invalid`] when the source lacks a column that the feed must have.
    pub(super) fn new(cdc: &Cdc, source: &Schema) -> Result<Self> {
        let columns = match cdc {
            Cdc::Debezium => return Ok(Self::Debezium(Envelope::new(source)?)),
            Cdc::Columns(columns) => columns,
        };
        for name in std::iter::once(&columns.op).chain(&columns.sequence) {
            if source.field_with_name(name).is_err() {
                let known = source.fields().iter().map(|f| f.name().clone());
                return Err(unknown_column(
                    name,
                    known,
                    "the source, column of the change feed",
                ));
            }
        }
        columns.check_words()?;
        let mut fields = source.fields().to_vec();
        fields.push(Arc::new(Field::new(DELETED, DataType::Boolean, false)));
        Ok(Self::Columns(columns.clone(), Arc::new(Schema::new(fields))))
    }

    /// The columns of the rows that [`Reader::read`] gives.
    pub(super) fn schema(&self) -> SchemaRef {
        match self {
            Self::Columns(_, schema) => Arc::clone(schema),
            Self::Debezium(envelope) => envelope.schema(),
        }
    }

    /// Columns that belong to the feed: one that the table lacks is not missed.
    pub(super) fn own(&self) -> Own {
        match self {
            Self::Columns(columns, _) => Own {
                op: columns.op.clone(),
                sequence: columns.sequence.clone(),
            },
            Self::Debezium(envelope) => envelope.own(),
        }
    }

    /// The rows of a batch that `before` rows preceded, with the column [`DELETED`].
    ///
    /// # Errors
    /// [`Error::Invalid`] for a row that does not say what happened, by its value and number.
    pub(super) fn read(&self, batch: &RecordBatch, before: u64) -> Result<RecordBatch> {
        match self {
            Self::Columns(columns, schema) => {
                let mut arrays = batch.columns().to_vec();
                arrays.push(Arc::new(columns.deletes(batch, before)?));
                Ok(RecordBatch::try_new(Arc::clone(schema), arrays)?)
            }
            Self::Debezium(envelope) => envelope.read(batch, before),
        }
    }
}

/// The columns by which a feed tells what happened and when.
#[derive(Debug, Clone)]
pub(super) struct Own {
    pub(super) op: String,
    pub(super) sequence: Option<String>,
}

impl CdcColumns {
    fn given(&self, op: Op) -> Option<&str> {
        match op {
            Op::Insert => self.insert.as_deref(),
            Op::Update => self.update.as_deref(),
            Op::Delete => self.delete.as_deref(),
        }
    }

    fn check_words(&self) -> Result<()> {
        let given: Vec<&str> = WORDS.iter().filter_map(|(op, ..)| self.given(*op)).collect();
        match (1..given.len()).find(|at| given[..*at].contains(&given[*at])) {
            Some(at) => Err(Error::invalid(
                format!("{:?} cannot stand for two things", given[at]),
                "change feed",
            )),
            None => Ok(()),
        }
    }

    /// What a word stands for: one that was given, else one that feeds use.
    fn meaning(&self, word: &str) -> Option<Op> {
        let given = WORDS.iter().find(|(op, ..)| self.given(*op) == Some(word));
        given
            .or_else(|| {
                WORDS.iter().find(|(op, usual, long)| {
                    self.given(*op).is_none() && (usual.contains(&word) || word.eq_ignore_ascii_case(long))
                })
            })
            .map(|(op, ..)| *op)
    }

    fn deletes(&self, batch: &RecordBatch, before: u64) -> Result<BooleanArray> {
        let column = batch
            .column_by_name(&self.op)
            .ok_or_else(|| unknown_column(&self.op, [], "the source, column of the change feed"))?;
        let words = cast(column, &DataType::Utf8)?;
        let words = words.as_string::<i32>();
        let mut deletes = Vec::with_capacity(words.len());
        for (row, word) in words.iter().enumerate() {
            let meaning = word.and_then(|word| self.meaning(word));
            let Some(meaning) = meaning else {
                return Err(self.unknown_word(word, before + row as u64 + 1));
            };
            deletes.push(meaning == Op::Delete);
        }
        Ok(deletes.into())
    }

    fn unknown_word(&self, word: Option<&str>, row: u64) -> Error {
        let known: Vec<String> = WORDS
            .iter()
            .map(|(op, usual, long)| match self.given(*op) {
                Some(given) => format!("{long} is {given:?}"),
                None => format!("{long} is {} or {long:?}", quoted(usual)),
            })
            .collect();
        let what = match word {
            Some(word) => format!("{word:?} is none of the feed's words for what happened"),
            None => "it does not say what happened: NULL".to_owned(),
        };
        Error::invalid(what, format!("column {} of row {row}", self.op)).with_hint(format!(
            "{}; say which word stands for what: insert=.., update=.., delete=..",
            known.join("; ")
        ))
    }
}

fn quoted(words: &[&str]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    words.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_feed_is_described_in_one_line() {
        let cdc: Cdc = " op = kind , sequence=lsn,insert=N".parse().unwrap();
        let expected = CdcColumns {
            op: "kind".to_owned(),
            sequence: Some("lsn".to_owned()),
            insert: Some("N".to_owned()),
            ..CdcColumns::default()
        };
        assert_eq!(cdc, Cdc::Columns(expected));
        for (wrong, why) in [
            ("", "NAME=VALUE"),
            ("sequence=a", "missing"),
            ("op=a,op=b", "twice"),
            ("op=a,sort=b", "not known"),
            ("op=", "empty"),
        ] {
            let error = wrong.parse::<Cdc>().unwrap_err().to_string();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn words_are_taken_as_written() {
        let usual = CdcColumns::default();
        for (word, meaning) in [
            ("I", Some(Op::Insert)),
            ("c", Some(Op::Insert)),
            ("r", Some(Op::Insert)),
            ("INSERT", Some(Op::Insert)),
            ("u", Some(Op::Update)),
            ("U", Some(Op::Update)),
            ("d", Some(Op::Delete)),
            ("Delete", Some(Op::Delete)),
            ("x", None),
            ("t", None),
            ("", None),
        ] {
            assert_eq!(usual.meaning(word), meaning, "{word:?}");
        }
        let own = CdcColumns {
            insert: Some("D".to_owned()),
            delete: Some("1".to_owned()),
            ..CdcColumns::default()
        };
        assert_eq!(own.meaning("D"), Some(Op::Insert));
        assert_eq!(own.meaning("1"), Some(Op::Delete));
        assert_eq!(own.meaning("d"), None);
        assert_eq!(own.meaning("I"), None);
        assert_eq!(own.meaning("U"), Some(Op::Update));
        let twice = CdcColumns {
            update: Some("D".to_owned()),
            ..own
        };
        assert!(twice.check_words().is_err());
    }
}
