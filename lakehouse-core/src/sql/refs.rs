//! A tag or branch as the last part of a table's name: `t.branch_audit`, `'path/to/t.tag_v1'`. The spelling is that
//! of Iceberg's Spark catalogs (Iceberg documentation, "Spark Queries", time travel; "Spark Writes", writing to
//! branches).
//!
//! A table that is really called so comes first. Whatever looks like such a name and is none is an error: it is never
//! taken for the table itself.

use super::files;
use super::session::{Place, Session};
use super::statement::Named;
use super::travel::Travel;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{At, RefKind};
use datafusion::common::TableReference;

/// What stands between a table and the name of its tag or branch.
const MARKS: [(&str, RefKind); 2] = [(".branch_", RefKind::Branch), (".tag_", RefKind::Tag)];

/// A table at one of its tags or branches.
#[derive(Debug)]
pub(super) struct NamedRef {
    pub(super) handle: Handle,
    pub(super) kind: RefKind,
    pub(super) name: String,
}

/// Every way to take a name apart into a table and a tag or branch, the longest table first.
fn splits(name: &str) -> Vec<(&str, RefKind, &str)> {
    let mut splits: Vec<(&str, RefKind, &str)> = MARKS
        .iter()
        .flat_map(|(mark, kind)| {
            let found = name.match_indices(mark);
            found.map(|(at, _)| (&name[..at], *kind, &name[at + mark.len()..]))
        })
        .collect();
    splits.sort_by_key(|(table, ..)| std::cmp::Reverse(table.len()));
    splits
}

impl Session {
    /// The tag or branch that a name stands for; `None` where it stands for a table or file of its own, or for nothing.
    ///
    /// # Errors
    /// [`Error::NotFound`] when the table has no such tag or branch; [`Error::Invalid`] when a version is named too, or
    /// it is a tag and not a branch; [`Error::Unsupported`] when what is named has no tags and branches.
    pub(super) async fn named_ref(&self, named: &Named, travels: &[Travel]) -> Result<Option<NamedRef>> {
        let travel = travels.iter().find(|travel| travel.name == named.name);
        let (whole, quoted) = match travel {
            Some(travel) => (travel.table.as_str(), travel.quoted),
            None => (named.name.as_str(), named.quoted),
        };
        let splits = splits(whole);
        if splits.is_empty() || self.is_named(whole)? {
            return Ok(None);
        }
        let is_there = !quoted || files::is_file(whole) || self.opener().table(whole).await?.is_some();
        if is_there {
            return Ok(None);
        }
        for (table, kind, name) in splits {
            let Some(handle) = self.table_of(table, whole).await? else {
                continue;
            };
            if travel.is_some() {
                return Err(Error::invalid(
                    format!("{whole} names a {} and a version", kind.name()),
                    "the query",
                )
                .with_hint(format!("write {table} AS OF .., or {whole} alone")));
            }
            check(&handle, kind, name, whole).await?;
            let name = name.to_owned();
            return Ok(Some(NamedRef { handle, kind, name }));
        }
        Ok(None)
    }

    /// The table of this name or at this place.
    async fn table_of(&self, table: &str, whole: &str) -> Result<Option<Handle>> {
        let without = |what: &str| {
            Error::unsupported(
                format!("{whole}: {table} is {what}, which has no tags and branches"),
                "name a table",
            )
        };
        let place = match self.place_of(table) {
            Some(place) => place,
            None if table.is_empty() => return Ok(None),
            None => Place::At(table.to_owned(), true),
        };
        if let Place::At(file, _) = &place
            && files::is_file(file)
        {
            return Err(without("a file"));
        }
        let found = self.open_table(&place).await?;
        // A table that the query names by its place is known by that name, too.
        if found.is_none() && self.context().table_exist(TableReference::bare(table))? {
            return Err(without("no versioned table"));
        }
        Ok(found)
    }
}

/// Refuses what is no tag or branch of the table, or one of the other kind.
async fn check(handle: &Handle, kind: RefKind, name: &str, whole: &str) -> Result<()> {
    let word = kind.name();
    let newest = handle.format.snapshot(&At::Latest).await?;
    if !newest.capabilities.refs {
        return Err(Error::unsupported(
            format!(
                "{whole}: this {} table has no tags and branches",
                handle.format.name()
            ),
            "name versions by number or time: t VERSION AS OF 3, t TIMESTAMP AS OF '2026-01-31'",
        ));
    }
    match newest.refs.get(name) {
        Some(found) if found.kind == kind => Ok(()),
        Some(found) => Err(Error::invalid(
            format!("{whole}: \"{name}\" is a {}, not a {word}", found.kind.name()),
            handle.store.location(),
        )
        .with_hint(format!("write {}_{name}", found.kind.name()))),
        None => {
            let known = newest.refs.iter().filter(|(_, one)| one.kind == kind);
            let known: Vec<&str> = known.map(|(name, _)| name.as_str()).collect();
            let known = match known.as_slice() {
                [] => format!("the table has no {word}"),
                known => format!("it has {}", known.join(", ")),
            };
            Err(
                Error::not_found(format!("{word} \"{name}\" of {whole}"), handle.store.location())
                    .with_hint(known),
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_taken_apart_at_every_mark_the_longest_table_first() {
        use RefKind::{Branch, Tag};
        assert_eq!(splits("t.branch_audit"), [("t", Branch, "audit")]);
        assert_eq!(splits("a/b.c/t.tag_v1.2"), [("a/b.c/t", Tag, "v1.2")]);
        assert_eq!(
            splits("x.branch_y/t.tag_z"),
            [("x.branch_y/t", Tag, "z"), ("x", Branch, "y/t.tag_z")]
        );
        assert_eq!(splits("t.branch_"), [("t", Branch, "")]);
        for other in [
            "t",
            "t.branch",
            "branch_x",
            "t.tags_x",
            "t.Branch_x",
            "t/branch_x",
            "tbranch_x",
        ] {
            assert_eq!(splits(other), [], "{other}");
        }
    }
}
