//! Tables on S3 over HTTP: every verb, faults on the wire, servers that must not be trusted, and many processes at
//! once.

mod canary;
mod processes;
mod uploads;
mod vacuum;

use std::time::{Duration, Instant};

use lakehouse_core::model::At;
use lakehouse_core::store::{StorageOptions, Store};
use lakehouse_core::{Error, Merge, Options, Table, TableFormat};
use lakehouse_tests::s3::{Cloud, Lax, Server, Wire};

use crate::verbs::{FORMATS, append, compact_all, content, delete, rows, table_in};

fn options(server: &Server) -> StorageOptions {
    server.options().into_iter().collect()
}

fn store(server: &Server, table: &str) -> Store {
    Store::open_with(&server.url(table), &options(server)).unwrap()
}

/// Sound servers of both kinds.
async fn servers() -> [Server; 2] {
    [
        Server::start(Cloud::S3, Lax::Not).await.unwrap(),
        Server::start(Cloud::Google, Lax::Not).await.unwrap(),
    ]
}

/// Each of them with each format, numbered.
fn every(servers: [Server; 2]) -> impl Iterator<Item = (Server, (usize, (TableFormat, Option<u8>)))> {
    let formats = |server: Server| {
        FORMATS
            .into_iter()
            .enumerate()
            .map(move |format| (server.clone(), format))
    };
    servers.into_iter().flat_map(formats)
}

/// The object that a commit is published by.
fn log_of(format: TableFormat) -> &'static str {
    match format {
        TableFormat::Iceberg => ".metadata.json",
        TableFormat::Delta => "_delta_log/",
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_verb_does_over_http_what_it_does_in_memory() {
    for (server, (at, format)) in every(servers().await) {
        let far = table_in(store(&server, &format!("some folder/t{at}")), format, "region").await;
        let near = table_in(crate::support::memory(&format!("cloud{at}")), format, "region").await;
        for table in [&far, &near] {
            append(table, "(1, 'eu', 1), (2, 'us', 2), (3, 'ap', 3)").await;
            append(table, "(4, 'eu', 4), (5, 'é/ü %', 5)").await;
            let first = table.snapshot(&At::Latest).await.unwrap().version;
            let source = rows("id, region, n", "(2, 'us', 20), (5, 'é/ü %', 50), (6, 'eu', 60)").await;
            let merge = Merge::on("id")
                .when_matched_update_all()
                .when_not_matched_insert_all();
            table.merge(source, &merge, &Options::default()).await.unwrap();
            table
                .update("n = n + 1", Some("region = 'eu'"), &Options::default())
                .await
                .unwrap();
            delete(table, "id = 3").await;
            compact_all(table).await;
            let before = content(table).await;
            table
                .restore(&At::Version(first), &Options::default())
                .await
                .unwrap();
            table
                .restore(&At::Version(-1), &Options::default())
                .await
                .unwrap();
            assert_eq!(content(table).await, before, "{format:?}");
        }
        assert_eq!(content(&far).await, content(&near).await, "{format:?}");
        // Somebody who comes later, by another spelling of the scheme.
        let url = server.url(&format!("some folder/t{at}"));
        let url = url.replace("s3://", "s3a://").replace("gs://", "gcs://");
        let again = Table::open_with(&url, &options(&server)).await.unwrap();
        assert_eq!(content(&again).await, content(&near).await, "{format:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_happens_to_a_commit_on_the_wire_it_lands_once_or_not_at_all() {
    for (server, (at, format)) in every(servers().await) {
        let table = table_in(store(&server, &format!("wire{at}")), format, "").await;
        let mut expected = 0;
        for wire in [
            Wire::CutAfter,
            Wire::CutBefore,
            Wire::Status(500),
            Wire::Status(503),
            Wire::Status(409),
            Wire::StatusAfter(500),
            Wire::StatusAfter(503),
        ] {
            for times in [1, 3] {
                server.fault("PUT", log_of(format.0), times, wire);
                append(&table, &format!("({expected}, 'eu', 1)")).await;
                expected += 1;
                assert!(
                    server.heal() < times,
                    "{format:?} {wire:?}: the fault met no commit"
                );
                let there = content(&table).await;
                assert_eq!(
                    there.len(),
                    expected,
                    "{format:?} {wire:?} {times} times: {there:?}"
                );
                let commits = table.history(None).await.unwrap().len();
                assert!(
                    commits == expected || commits == expected + 1,
                    "{format:?} {wire:?}: {commits} commits of {expected} appends and a create"
                );
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_and_data_files_survive_faults_and_slow_answers() {
    for (server, (at, format)) in every(servers().await) {
        let table = table_in(store(&server, &format!("reads{at}")), format, "").await;
        server.fault("PUT", ".parquet", 2, Wire::CutAfter);
        append(&table, "(1, 'eu', 1), (2, 'us', 2)").await;
        for wire in [Wire::CutBefore, Wire::CutAfter, Wire::Status(503), Wire::Slow] {
            server.fault("GET", &format!("reads{at}"), 2, wire);
            let again = Table::open_in(store(&server, &format!("reads{at}")))
                .await
                .unwrap();
            assert_eq!(content(&again).await.len(), 2, "{format:?} {wire:?}");
        }
        assert_eq!(server.heal(), 0, "{format:?}");
    }
}

#[tokio::test]
async fn a_store_whose_conditional_puts_are_not_right_is_refused_before_anything_is_committed() {
    for (cloud, lax, why) in [
        (Cloud::S3, Lax::IgnoresConditions, "overwrites"),
        (Cloud::S3, Lax::RefusesConditions, "conditional writes"),
        (Cloud::S3, Lax::RemembersNames, "a name whose object was deleted"),
        (Cloud::Google, Lax::IgnoresConditions, "overwrites"),
    ] {
        let server = Server::start(cloud, lax).await.unwrap();
        for (at, (format, version)) in FORMATS.into_iter().enumerate() {
            let definition = lakehouse_core::model::Definition {
                schema: crate::verbs::schema(),
                partition_fields: Vec::new(),
                properties: Default::default(),
                format_version: version,
            };
            let made = Table::create_in(store(&server, &format!("t{at}")), format, &definition).await;
            let error = made.unwrap_err();
            assert!(matches!(error, Error::Unsupported { .. }), "{lax:?}: {error}");
            assert!(error.to_string().contains(why), "{lax:?}: {error}");
            assert!(
                error.hint().unwrap().contains("--unsafe-single-writer"),
                "{lax:?}: {error}"
            );
            assert_eq!(server.keys(), Vec::<String>::new(), "{lax:?} {format:?}");
        }
        let promise = ("unsafe_single_writer".to_owned(), "true".to_owned());
        if lax == Lax::IgnoresConditions {
            let trusting: StorageOptions = server.options().into_iter().chain([promise]).collect();
            for (at, format) in FORMATS.into_iter().enumerate() {
                let store = Store::open_with(&server.url(&format!("alone{at}")), &trusting).unwrap();
                let table = table_in(store, format, "").await;
                append(&table, "(1, 'eu', 1)").await;
                append(&table, "(2, 'eu', 1)").await;
                assert_eq!(content(&table).await.len(), 2, "{format:?}");
            }
        }
    }
}

#[tokio::test]
async fn wrong_keys_and_a_server_that_is_not_there_are_told_soon_and_without_the_secret() {
    let server = Server::start(Cloud::S3, Lax::Not).await.unwrap();
    let wrong: StorageOptions = server
        .options()
        .into_iter()
        .map(|(name, value)| match name.as_str() {
            "aws_secret_access_key" => (name, "canary-secret".to_owned()),
            _ => (name, value),
        })
        .collect();
    let error = Table::open_with("s3://lake/t", &wrong).await.unwrap_err();
    assert!(matches!(error, Error::Denied { .. }), "{error:?}");
    assert!(
        !format!("{error} {error:?}").contains("canary-secret"),
        "{error:?}"
    );
    assert!(!format!("{wrong:?} {:?}", Store::open_with("s3://lake/t", &wrong)).contains("canary-secret"));

    let nothing = Table::open_with("s3://lake/t", &options(&server))
        .await
        .unwrap_err();
    assert!(matches!(nothing, Error::NotFound { .. }), "{nothing:?}");

    let unknown: StorageOptions = [("aws_regoin", "eu")].into_iter().collect();
    let error = Table::open_with("s3://lake/t", &unknown).await.unwrap_err();
    assert!(error.to_string().contains("aws_regoin"), "{error}");

    let gone = Server::start(Cloud::S3, Lax::Not).await.unwrap();
    gone.fault("GET", "", u32::MAX, Wire::Status(400));
    let started = Instant::now();
    let error = Table::open_with("s3://lake/t", &options(&gone))
        .await
        .unwrap_err();
    assert!(matches!(error, Error::Store { .. }), "{error:?}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "what is rejected was asked again and again"
    );
}
