//! Every cell of the conflict table, with files that overlap and files that do not.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use datafusion::prelude::{col, lit};
use datafusion::scalar::ScalarValue;

use super::conflict::{self, Isolation, Verdict, base_gone, refs_changed, still_fits};
use crate::model::{
    Capabilities, Change, ColumnStats, CommitId, DataFile, MaskRef, OperationKind, Prune, Ref, RefChange,
    RefKind, Retention, Snapshot, made_up,
};

pub(super) fn schema() -> SchemaRef {
    Arc::new(Schema::new(vec![Field::new("id", DataType::Int64, true)]))
}

/// A version of a table, with Iceberg's abilities or Delta's.
pub(super) fn snapshot(state: u64, append_over_schema_change: bool) -> Snapshot {
    let made_up = made_up::snapshot(schema(), vec![Vec::new()]);
    Snapshot {
        version: state as i64,
        state,
        capabilities: Capabilities {
            refs: false,
            append_over_schema_change,
            ..made_up.capabilities
        },
        ..made_up
    }
}

/// A file of ten rows whose ids lie in the range.
pub(super) fn file(path: &str, ids: std::ops::Range<i64>) -> DataFile {
    let id = ColumnStats {
        values: Some(10),
        nulls: Some(0),
        min: Some(ScalarValue::Int64(Some(ids.start))),
        max: Some(ScalarValue::Int64(Some(ids.end - 1))),
        exact: true,
        ..ColumnStats::default()
    };
    DataFile {
        columns: BTreeMap::from([("id".into(), id)]),
        ..made_up::data_file(path, 100, 10)
    }
}

pub(super) fn masked(file: &DataFile, rows: u64) -> DataFile {
    let mask = MaskRef {
        path: format!("{}.mask", file.path),
        recorded: String::new(),
        offset: None,
        bytes: None,
        inline: None,
        rows: Some(rows),
        shared: false,
    };
    DataFile {
        masks: vec![mask],
        ..file.clone()
    }
}

pub(super) fn change(operation: OperationKind, id: &str) -> Change {
    Change::new(operation, CommitId(id.into()))
}

/// The file that `mine` concerns, and what it reads: ids 0 to 9.
fn a() -> DataFile {
    file("a", 0..10)
}

/// A file that `mine` does not concern.
fn b() -> DataFile {
    file("b", 10..20)
}

fn reading(mut change: Change) -> Change {
    let prune = Prune::matching(col("id").lt(lit(10_i64)), schema()).unwrap();
    change.read = Some(Arc::new(prune));
    change
}

fn masking(mut change: Change, file: DataFile) -> Change {
    let after = masked(&file, 3);
    change.masked.push((file, after));
    change
}

fn replacing(mut change: Change, file: DataFile, new: DataFile) -> Change {
    change.removed.push(file);
    change.added.push(new);
    change
}

fn adding(mut change: Change, new: DataFile) -> Change {
    change.added.push(new);
    change
}

fn altering(operation: OperationKind, id: &str) -> Change {
    let mut alter = change(operation, id);
    alter.metadata.schema = true;
    alter
}

fn mine(row: &str) -> Change {
    use OperationKind as K;
    match row {
        "append" => adding(change(K::Append, "mine"), file("m", 0..10)),
        "append after a read" => reading(mine("append")),
        "delete" => reading(masking(change(K::Delete, "mine"), a())),
        "update" => reading(adding(masking(change(K::Update, "mine"), a()), file("m", 0..10))),
        "merge" => reading(adding(masking(change(K::Merge, "mine"), a()), file("m", 0..10))),
        "overwrite" => reading(replacing(change(K::Overwrite, "mine"), a(), file("m", 0..10))),
        "compact" => replacing(change(K::Compact, "mine"), a(), file("m", 0..10)),
        "alter" => altering(K::Alter, "mine"),
        "restore" => {
            let mut restore = change(K::Restore, "mine");
            restore.restore = Some(1);
            restore
        }
        other => panic!("no such row: {other}"),
    }
}

/// `same`: the winner concerns the same file, or adds rows among those that were read.
fn winner(column: &str, same: bool) -> Change {
    use OperationKind as K;
    let (old, new) = if same {
        (a(), file("w", 0..10))
    } else {
        (b(), file("w", 10..20))
    };
    match column {
        "append" => adding(change(K::Append, "w"), new),
        "delete" => masking(change(K::Delete, "w"), old),
        "update" => adding(masking(change(K::Update, "w"), old), new),
        "merge" => adding(masking(change(K::Merge, "w"), old), new),
        "overwrite" => replacing(change(K::Overwrite, "w"), old, new),
        "compact" => replacing(change(K::Compact, "w"), old, new),
        "schema" => altering(K::Other, "w"),
        other => panic!("no such column: {other}"),
    }
}

fn verdict(base: &Snapshot, mine: &Change, winner: &Change, isolation: Isolation) -> String {
    match conflict::check(base, mine, winner, isolation).unwrap() {
        Verdict::Compatible => "ok".into(),
        Verdict::Replan(why) => why.split(':').next().unwrap().into(),
        Verdict::Conflict(_) => "conflict".into(),
    }
}

/// Checks one cell on a table with Iceberg's abilities: what happens when the files are the same, and
/// when they are not.
#[track_caller]
fn check(cell: &str, same: &str, apart: &str) {
    check_at(cell, Isolation::Serializable, same, apart);
}

#[track_caller]
fn check_at(cell: &str, isolation: Isolation, same: &str, apart: &str) {
    let (row, column) = cell.split_once(" / ").unwrap();
    for (overlap, expected) in [(true, same), (false, apart)] {
        let found = verdict(
            &snapshot(1, true),
            &mine(row),
            &winner(column, overlap),
            isolation,
        );
        assert_eq!(found, expected, "{cell}, {isolation:?}, same files: {overlap}");
    }
}

#[test]
fn every_cell_of_the_table_when_files_overlap_and_when_not() {
    check("append / append", "ok", "ok");
    check("append / delete", "ok", "ok");
    check("append / update", "ok", "ok");
    check("append / merge", "ok", "ok");
    check("append / overwrite", "ok", "ok");
    check("append / compact", "ok", "ok");
    check("append / schema", "ok", "ok");

    check("append after a read / append", "R3", "ok");
    check("append after a read / delete", "R1", "ok");
    check("append after a read / update", "R1", "ok");
    check("append after a read / merge", "R1", "ok");
    check("append after a read / overwrite", "R1", "ok");
    check("append after a read / compact", "ok", "ok");
    check("append after a read / schema", "R4", "R4");

    for row in ["delete", "update", "merge"] {
        check(&format!("{row} / append"), "R3", "ok");
        check(&format!("{row} / delete"), "R2", "ok");
        check(&format!("{row} / update"), "R2", "ok");
        check(&format!("{row} / merge"), "R2", "ok");
        check(&format!("{row} / overwrite"), "R1", "ok");
        check(&format!("{row} / compact"), "R1", "ok");
        check(&format!("{row} / schema"), "R4", "R4");
    }

    check("overwrite / append", "R3", "ok");
    check("overwrite / delete", "R2", "ok");
    check("overwrite / update", "R2", "ok");
    check("overwrite / merge", "R2", "ok");
    check("overwrite / overwrite", "R1", "ok");
    check("overwrite / compact", "R1", "ok");
    check("overwrite / schema", "R4", "R4");

    check("compact / append", "ok", "ok");
    check("compact / delete", "R2", "ok");
    check("compact / update", "R2", "ok");
    check("compact / merge", "R2", "ok");
    check("compact / overwrite", "R1", "ok");
    check("compact / compact", "R1", "ok");
    check("compact / schema", "ok", "ok");

    check("alter / append", "ok", "ok");
    check("alter / delete", "ok", "ok");
    check("alter / update", "ok", "ok");
    check("alter / merge", "ok", "ok");
    check("alter / overwrite", "ok", "ok");
    check("alter / compact", "ok", "ok");
    check("alter / schema", "R4", "R4");

    for column in [
        "append",
        "delete",
        "update",
        "merge",
        "overwrite",
        "compact",
        "schema",
    ] {
        check(&format!("restore / {column}"), "conflict", "conflict");
    }
}

#[test]
fn snapshot_isolation_ignores_added_rows_except_for_a_merge_that_inserts() {
    let level = Isolation::Snapshot;
    check_at("append after a read / append", level, "ok", "ok");
    check_at("append after a read / delete", level, "ok", "ok");
    check_at("delete / append", level, "ok", "ok");
    check_at("update / append", level, "ok", "ok");
    check_at("overwrite / append", level, "ok", "ok");
    check_at("merge / append", level, "R3", "ok");
    // What touches the same file stays a conflict.
    check_at("delete / delete", level, "R2", "ok");
    check_at("delete / overwrite", level, "R1", "ok");
    check_at("merge / compact", level, "R1", "ok");

    let mut only_updates = mine("merge");
    only_updates.metrics.insert("rows_inserted".into(), 0);
    let found = verdict(&snapshot(1, true), &only_updates, &winner("append", true), level);
    assert_eq!(found, "ok");
}

#[test]
fn where_the_format_does_not_append_over_a_schema_change_everything_is_planned_again() {
    let delta = snapshot(1, false);
    for row in [
        "append",
        "append after a read",
        "delete",
        "merge",
        "overwrite",
        "compact",
    ] {
        let found = verdict(
            &delta,
            &mine(row),
            &winner("schema", false),
            Isolation::Serializable,
        );
        assert_eq!(found, "R4", "{row}");
        let mut properties = change(OperationKind::Other, "w");
        properties.metadata.properties = true;
        let found = verdict(&delta, &mine(row), &properties, Isolation::Serializable);
        assert_eq!(found, "R4", "{row} / properties");
    }
}

#[test]
fn changed_properties_are_no_conflict_where_the_format_does_not_mind() {
    let mut properties = change(OperationKind::Other, "w");
    properties.metadata.properties = true;
    for row in ["append", "delete", "merge", "overwrite", "compact"] {
        let found = verdict(
            &snapshot(1, true),
            &mine(row),
            &properties,
            Isolation::Serializable,
        );
        assert_eq!(found, "ok", "{row}");
    }
}

#[test]
fn rows_that_an_update_moves_from_another_file_into_what_was_read_are_a_conflict() {
    let moved = adding(masking(change(OperationKind::Update, "w"), b()), file("w", 0..10));
    for row in ["append after a read", "delete", "merge", "overwrite"] {
        let found = verdict(&snapshot(1, true), &mine(row), &moved, Isolation::Serializable);
        assert_eq!(found, "R3", "{row}");
    }
}

#[test]
fn an_alter_that_read_every_row_conflicts_with_added_rows() {
    let mut tighten = mine("alter");
    tighten.read = Some(Arc::new(Prune::everything()));
    let found = verdict(
        &snapshot(1, true),
        &tighten,
        &winner("append", false),
        Isolation::Serializable,
    );
    assert_eq!(found, "R3");
}

#[test]
fn what_a_restore_brings_back_is_never_published_over() {
    let mut restore = change(OperationKind::Restore, "w");
    restore.masked.push((masked(&a(), 5), masked(&a(), 2)));
    let blind_to_a = reading(masking(change(OperationKind::Delete, "mine"), b()));
    let found = verdict(&snapshot(1, true), &blind_to_a, &restore, Isolation::Serializable);
    assert_eq!(found, "R1");
    let mut whole = change(OperationKind::Restore, "w");
    whole.restore = Some(1);
    let base = snapshot(1, true);
    assert_eq!(verdict(&base, &mine("delete"), &whole, Isolation::Snapshot), "R1");
    assert_eq!(
        verdict(&base, &mine("append"), &whole, Isolation::Serializable),
        "ok"
    );
}

#[test]
fn the_same_idempotency_key_is_a_conflict_of_its_own() {
    let (mut mine, mut winner) = (mine("append"), winner("append", false));
    mine.token = Some("k".into());
    winner.token = Some("other".into());
    let base = snapshot(1, true);
    assert_eq!(verdict(&base, &mine, &winner, Isolation::Serializable), "ok");
    winner.token = Some("k".into());
    assert_eq!(
        verdict(&base, &mine, &winner, Isolation::Serializable),
        "conflict"
    );
}

#[test]
fn a_lost_base_stops_what_read_it_and_lets_blind_appends_pass() {
    assert_eq!(base_gone(&mine("append"), "gone"), Verdict::Compatible);
    for row in [
        "append after a read",
        "delete",
        "merge",
        "overwrite",
        "compact",
        "alter",
    ] {
        let verdict = base_gone(&mine(row), "gone");
        assert_eq!(verdict, Verdict::Conflict("R5: gone".into()), "{row}");
    }
}

#[test]
fn files_no_longer_fit_when_a_required_column_or_their_partitioning_is_new() {
    let base = snapshot(1, true);
    let append = mine("append");
    let mut newest = snapshot(2, true);
    assert!(still_fits(&base, &newest, &append));
    let id = Field::new("id", DataType::Int64, true);
    let optional = Field::new("note", DataType::Utf8, true);
    newest.schema = Arc::new(Schema::new(vec![id.clone(), optional]));
    assert!(still_fits(&base, &newest, &append));
    let required = Field::new("note", DataType::Utf8, false);
    newest.schema = Arc::new(Schema::new(vec![id.clone(), required]));
    assert!(!still_fits(&base, &newest, &append), "a required column is new");
    newest.schema = Arc::new(Schema::new(vec![id.with_nullable(false)]));
    assert!(!still_fits(&base, &newest, &append), "a column became required");
    newest.schema = schema();
    newest.specs = BTreeMap::from([(1, Vec::new())]);
    assert!(
        !still_fits(&base, &newest, &append),
        "the files' partitioning is gone"
    );
}

#[test]
fn a_conflict_names_the_rule_the_winner_and_the_file() {
    let base = snapshot(1, true);
    let found = conflict::check(
        &base,
        &mine("delete"),
        &winner("compact", true),
        Isolation::Serializable,
    );
    assert_eq!(
        found.unwrap(),
        Verdict::Replan("R1: a concurrent compact removed a".into())
    );
}

#[test]
fn rows_that_bring_columns_are_planned_again_over_a_changed_schema_and_judged_as_rows_otherwise() {
    let bringing = |row: &str| {
        let mut change = mine(row);
        change.set_schema(schema());
        change
    };
    let mut properties = change(OperationKind::Other, "w");
    properties.metadata.properties = true;
    for iceberg in [true, false] {
        let base = snapshot(1, iceberg);
        let found =
            |row: &str, winner: &Change| verdict(&base, &bringing(row), winner, Isolation::Serializable);
        for row in ["append", "append after a read", "merge", "overwrite"] {
            assert_eq!(found(row, &winner("schema", false)), "R4", "{row}");
            for other in ["append", "delete", "overwrite", "compact"] {
                for overlaps in [false, true] {
                    let winner = winner(other, overlaps);
                    let plain = verdict(&base, &mine(row), &winner, Isolation::Serializable);
                    assert_eq!(found(row, &winner), plain, "{row} / {other}");
                }
            }
            let expected = if iceberg { "ok" } else { "R4" };
            assert_eq!(found(row, &properties), expected, "{row} / properties");
        }
        assert!(matches!(
            base_gone(&bringing("append"), "gone"),
            Verdict::Conflict(_)
        ));
    }
    let mut only = change(OperationKind::Append, "mine");
    only.set_schema(schema());
    assert!(!only.is_empty() && only.is_without_files());
}

#[test]
fn a_change_of_a_tag_meets_only_changes_of_that_tag() {
    let at = |version| Ref {
        kind: RefKind::Tag,
        version,
        retention: Retention::default(),
    };
    let with = |refs: &[(&str, i64)]| {
        let mut snapshot = snapshot(7, true);
        snapshot.refs = refs
            .iter()
            .map(|(name, n)| ((*name).to_owned(), at(*n)))
            .collect();
        snapshot
    };
    let moves = |name: &str| {
        let mut change = Change::new(OperationKind::Refs, CommitId("mine".into()));
        let refs = RefChange {
            before: Some(at(1)),
            after: Some(at(9)),
        };
        change.refs.insert(name.to_owned(), refs);
        change
    };
    let base = with(&[("a", 1), ("b", 1)]);
    for (newest, fires) in [
        (with(&[("a", 1), ("b", 1)]), false),
        (with(&[("a", 1), ("b", 2), ("c", 3)]), false),
        (with(&[("a", 1)]), false),
        (with(&[("a", 2), ("b", 1)]), true),
        (with(&[("b", 1)]), true),
    ] {
        let fired = refs_changed(&base, &newest, &moves("a"));
        assert_eq!(fired.is_some(), fires, "{:?}: {fired:?}", newest.refs);
    }
    let rows = Change::new(OperationKind::Append, CommitId("mine".into()));
    assert_eq!(refs_changed(&base, &with(&[]), &rows), None);
}
