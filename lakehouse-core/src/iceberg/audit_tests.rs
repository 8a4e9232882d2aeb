//! What only the bytes of manifests and manifest lists can say, and that it is found.

use std::collections::BTreeMap;

use iceberg::io::FileIO;
use iceberg::spec::{ManifestContentType, ManifestFile, ManifestListWriter};

use super::{Bench, file};
use crate::format::Format;
use crate::iceberg::manifests::{Entry, NewEntry, NewManifest, encode_manifest, read_list, read_manifest};
use crate::iceberg::view::View;
use crate::model::{At, Audit, Code, RowMask, Snapshot};

/// A table with two data manifests, and masks on one file.
async fn masked(version: u8) -> (Bench, std::sync::Arc<Snapshot>) {
    let (bench, base) = Bench::created(version, &[]).await;
    let one = bench
        .append(&base, vec![file("a", 0, 10), file("b", 100, 20)])
        .await;
    let two = bench.append(&one, vec![file("c", 200, 30)]).await;
    let listed = bench.list(&two).await;
    let masked = bench
        .mask(&two, vec![(listed[0].clone(), RowMask::from_iter([1, 2]))])
        .await;
    (bench, masked)
}

/// Writes the manifest list of a version anew, with other manifests.
async fn relist(bench: &Bench, snapshot: &Snapshot, change: impl FnOnce(&mut Vec<ManifestFile>)) {
    let view = View::of(snapshot).unwrap();
    let mut manifests = read_list(&bench.store, &view).await.unwrap();
    change(&mut manifests);
    let of = view.snapshot.as_ref().unwrap();
    let io = FileIO::new_with_memory();
    let output = io.new_output("list.avro").unwrap();
    let target = output.writer().await.unwrap();
    let (id, parent, sequence) = (of.snapshot_id(), of.parent_snapshot_id(), of.sequence_number());
    let mut writer = match snapshot.lineage.is_some() {
        true => ManifestListWriter::v3(target, id, parent, sequence, Some(0)),
        false => ManifestListWriter::v2(target, id, parent, sequence),
    };
    writer.add_manifests(manifests.into_iter()).unwrap();
    writer.close().await.unwrap();
    let bytes = output.to_input_file().read().await.unwrap();
    let key = view.state.paths.relative(of.manifest_list()).unwrap();
    bench.store.put(&key, bytes).await.unwrap();
}

/// What is found, without what needs the data files, which these tables do not have.
async fn found(bench: &Bench) -> Vec<Code> {
    let Audit { findings, .. } = bench.format.audit(&At::Latest).await.unwrap();
    findings.into_iter().map(|finding| finding.code).collect()
}

#[tokio::test]
async fn what_a_list_says_of_a_manifest_and_is_not_so_is_found() {
    type Lie = fn(&mut ManifestFile);
    let lies: [(&str, Code, Lie); 7] = [
        ("added files", Code::ManifestCounts, |list| {
            list.added_files_count = Some(9);
        }),
        ("existing files", Code::ManifestCounts, |list| {
            list.existing_files_count = Some(9);
        }),
        ("deleted rows", Code::ManifestCounts, |list| {
            list.deleted_rows_count = Some(9);
        }),
        ("added rows", Code::ManifestCounts, |list| {
            list.added_rows_count = Some(9);
        }),
        ("least sequence", Code::ManifestSequence, |list| {
            list.min_sequence_number = list.sequence_number + 1;
        }),
        ("upper bound", Code::ManifestBounds, |list| {
            let first = &mut list.partitions.as_mut().unwrap()[0];
            first.upper_bound = first.lower_bound.clone();
        }),
        ("lower bound", Code::ManifestBounds, |list| {
            let first = &mut list.partitions.as_mut().unwrap()[0];
            first.lower_bound = first.upper_bound.clone();
        }),
    ];
    for version in [2, 3] {
        let (bench, snapshot) = masked(version).await;
        assert_eq!(found(&bench).await, [], "v{version}: it is sound");
        let list = read_list(&bench.store, &View::of(&snapshot).unwrap())
            .await
            .unwrap();
        for (what, code, lie) in lies {
            relist(&bench, &snapshot, |manifests| {
                // That of two files, which were added by an older version.
                let two = manifests
                    .iter_mut()
                    .find(|list| list.added_files_count == Some(2) || list.existing_files_count == Some(2));
                lie(two.expect("a manifest of two files"));
            })
            .await;
            let codes = found(&bench).await;
            assert!(
                codes.contains(&code) && codes.iter().all(|found| *found == code),
                "v{version} {what}: {codes:?}"
            );
            relist(&bench, &snapshot, |manifests| manifests.clone_from(&list)).await;
        }
        assert_eq!(found(&bench).await, [], "v{version}: it is sound again");
    }
}

#[tokio::test]
async fn row_ids_of_two_manifests_that_overlap_are_found() {
    let (bench, snapshot) = masked(3).await;
    let audit = bench.format.audit(&At::Latest).await.unwrap();
    assert_eq!(audit.next_row_id, Some(60));
    relist(&bench, &snapshot, |manifests| {
        let data = manifests
            .iter_mut()
            .filter(|list| list.content == ManifestContentType::Data);
        data.for_each(|list| list.first_row_id = Some(5));
    })
    .await;
    let files = bench.list(&bench.newest().await).await;
    let ranges: BTreeMap<_, _> = files
        .iter()
        .map(|file| (file.path.as_str(), file.first_row_id))
        .collect();
    assert_eq!(
        (ranges["data/a.parquet"], ranges["data/c.parquet"]),
        (Some(5), Some(5)),
        "{ranges:?}"
    );
}

/// Adds delete entries to the newest version, made of those that it has.
async fn with_vectors(bench: &Bench, snapshot: &Snapshot, change: impl Fn(Entry) -> Entry) {
    let view = View::of(snapshot).unwrap();
    let list = read_list(&bench.store, &view).await.unwrap();
    let deletes = list
        .into_iter()
        .find(|list| list.content == ManifestContentType::Deletes)
        .unwrap();
    let manifest = read_manifest(&bench.store, &view.state, deletes).await.unwrap();
    let recorded = view.state.paths.absolute("metadata/more.avro");
    let new = NewManifest {
        version: view.metadata().format_version(),
        content: ManifestContentType::Deletes,
        schema: manifest.schema.clone(),
        spec: manifest.spec.clone(),
        snapshot_id: view.version(),
        recorded: recorded.clone(),
    };
    let entries = manifest
        .entries
        .into_iter()
        .map(|entry| NewEntry::Existing(change(entry)));
    let (mut line, bytes) = encode_manifest(new, entries.collect()).await.unwrap();
    line.sequence_number = snapshot.state as i64 - 1;
    bench.store.put("metadata/more.avro", bytes).await.unwrap();
    relist(bench, snapshot, |manifests| manifests.push(line)).await;
}

#[tokio::test]
async fn two_deletion_vectors_of_one_data_file_are_found() {
    let (bench, snapshot) = masked(3).await;
    with_vectors(&bench, &snapshot, |entry| entry).await;
    let codes = found(&bench).await;
    assert!(codes.contains(&Code::MaskTwice), "{codes:?}");
    // It counts in the totals too.
    assert!(
        codes
            .iter()
            .all(|code| [Code::MaskTwice, Code::SummaryTotal].contains(code)),
        "{codes:?}"
    );
}
