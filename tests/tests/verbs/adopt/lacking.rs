//! Partition columns that only the names of folders have: their values come from the metadata, whatever a scan asks for
//! beside them.

use super::*;

/// A table of files that lack the column `part`, which has the values 1 and 2.
async fn lacking(format: Format, data_type: &str) -> Table {
    let store = memory("lacking");
    for (part, from) in [(1, 0), (2, 10)] {
        let sql = format!("SELECT value AS id FROM generate_series({from}, {from} + 2)");
        put(&store, &format!("part={part}/a.parquet"), &sql).await;
    }
    let adoption = Adoption {
        schema: Some(scan::parse_columns(&format!("part {data_type}")).unwrap()),
        ..adoption(format)
    };
    let made = Table::adopt_in(store, format.0, &adoption, false).await;
    made.unwrap().0
}

/// All rows, read with their positions; the metadata are believed, or only where a file lacks a column.
async fn read(table: &Table, believed: bool) -> Vec<String> {
    let snapshot = table.snapshot(&At::Latest).await.unwrap();
    let metadata = MetadataColumns {
        position: true,
        ..MetadataColumns::default()
    };
    let mut rows = SnapshotTable::new(table.handle().clone(), snapshot).with_metadata_columns(metadata);
    if !believed {
        rows = rows.without_statistics();
    }
    let frame = scan::session(None).read_table(Arc::new(rows)).unwrap();
    lines(&frame.collect().await.unwrap())
}

#[tokio::test]
async fn a_scan_with_positions_has_them_too() {
    for format in FORMATS {
        for (data_type, one, two) in [("int", "1", "2"), ("double", "1.0", "2.0"), ("string", "1", "2")] {
            let table = lacking(format, data_type).await;
            for believed in [true, false] {
                let expected: Vec<String> = (0..3)
                    .map(|at| format!("{at}|{one}|{at}"))
                    .chain((0..3).map(|at| format!("{}|{two}|{at}", at + 10)))
                    .collect();
                let mut found = read(&table, believed).await;
                found.sort_by_key(|line| line.split('|').next().unwrap().parse::<i64>().unwrap());
                assert_eq!(found, expected, "{format:?}, {data_type}, believed: {believed}");
            }
        }
    }
}

#[tokio::test]
async fn rows_are_changed_by_them() {
    for format in FORMATS {
        let table = lacking(format, "double").await;
        let options = Options::default();
        table.delete("part = 1.0 AND id = 1", &options).await.unwrap();
        table
            .update("id = id + 100", Some("part = 2.0 AND id = 10"), &options)
            .await
            .unwrap();
        assert_eq!(
            ask(&table, "SELECT id, part FROM t ORDER BY id").await,
            ["0|1.0", "110|2.0", "11|2.0", "12|2.0", "2|1.0"],
            "{format:?}"
        );
    }
}

#[tokio::test]
async fn a_file_of_sparks_that_lacks_its_partition_column_is_read_without_statistics_of_it() {
    let fixture = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../fixtures/spark/iceberg_imported/table"
    );
    let table = Table::open(fixture).await.unwrap();
    for believed in [true, false] {
        let found = read(&table, believed).await;
        let groups: Vec<&str> = found.iter().map(|line| line.split('|').nth(3).unwrap()).collect();
        assert_eq!(groups, ["1", "1", "1", "2"], "believed: {believed}: {found:?}");
    }
}
