//! Secrets are canaries: they go into every operation by every way that there is, and must come out nowhere, however
//! much is logged: not in answers, errors, logs, nor in what is stored.

use std::process::{Command, Output};

use lakehouse_core::store::Store;
use lakehouse_tests::s3::{Cloud, Lax, SECRET_KEY, Server, Wire};

use crate::cli::lab::lake;

const TOKEN: &str = "canary-session-token";
const PASSWORD: &str = "canary-password";
const SIGNATURE: &str = "canary-signature";

/// How secrets are given.
#[derive(Debug, Clone, Copy)]
enum Way {
    Environment,
    Options,
    Profile,
}

fn run(words: &[&str], way: Way, settings: &[(String, String)], home: &std::path::Path) -> Output {
    let mut command = Command::new(lake());
    command.args(words).env("LAKE_LOG", "trace").env("HOME", home);
    match way {
        Way::Environment => {
            command.envs(
                settings
                    .iter()
                    .map(|(name, value)| (name.to_ascii_uppercase(), value)),
            );
        }
        Way::Options => {
            for (name, value) in settings {
                command.args(["--storage-option", &format!("{name}={value}")]);
            }
        }
        Way::Profile => {
            let mut profile = "[default]\n".to_owned();
            for (name, value) in settings {
                if name.starts_with("aws_access") || name.starts_with("aws_se") {
                    profile += &format!("{name} = {value}\n");
                } else {
                    command.env(name.to_ascii_uppercase(), value);
                }
            }
            std::fs::create_dir_all(home.join(".aws")).unwrap();
            std::fs::write(home.join(".aws/credentials"), profile).unwrap();
        }
    }
    command.output().unwrap()
}

fn assert_silent(what: &str, text: &[u8]) {
    let text = String::from_utf8_lossy(text);
    for canary in [SECRET_KEY, TOKEN, PASSWORD, SIGNATURE] {
        if let Some(at) = text.find(canary) {
            let from = text[..at].rfind('\n').map_or(0, |line| line + 1);
            let to = text[at..].find('\n').map_or(text.len(), |end| at + end);
            panic!("{what}: {canary} is in {:?}", &text[from..to]);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn secrets_come_out_nowhere_whatever_is_run_and_however_much_is_logged() {
    let server = Server::start(Cloud::S3, Lax::Not).await.unwrap();
    let mut settings = server.options();
    settings.push(("aws_session_token".to_owned(), TOKEN.to_owned()));
    let home = tempfile::tempdir().unwrap();
    let rows = home.path().join("rows.csv");
    std::fs::write(&rows, "id,name\n5,e\n").unwrap();
    let rows = rows.display().to_string();
    let mut logged = 0;
    for (at, way) in [Way::Environment, Way::Options, Way::Profile]
        .into_iter()
        .enumerate()
    {
        for format in ["iceberg", "delta"] {
            let table = &server.url(&format!("canary{at}-{format}"));
            let insert = format!("INSERT INTO '{table}' VALUES (1, 'a'), (2, 'b'), (3, 'c')");
            let source = "SELECT * FROM (VALUES (2, 'x'), (4, 'y')) AS s(id, name)";
            let select = format!("SELECT count(*) FROM '{table}'");
            let missing = server.url("missing");
            let create = [
                "create",
                table,
                "--schema",
                "id bigint, name string",
                "--format",
                format,
            ];
            let update = format!("UPDATE '{table}' SET name = 'u' WHERE id = 2");
            let delete = format!("DELETE FROM '{table}' WHERE id = 5");
            let merge =
                format!("MERGE INTO '{table}' t USING ({source}) s ON t.id = s.id WHEN MATCHED THEN DELETE");
            let verbs: [&[&str]; 21] = [
                &create,
                &["query", &insert],
                &["merge", table, source, "--on", "id"],
                &["merge", table, source, "--on", "id", "--dry-run"],
                &["update", table, "--set", "name = 'z'", "--where", "id = 1"],
                &["delete", table, "--where", "id = 3"],
                &["append", table, &rows],
                &["overwrite", table, &rows, "--where", "id = 5"],
                &["query", &update],
                &["query", &delete],
                &["query", &merge],
                &["compact", table],
                &["vacuum", table],
                &["query", &select],
                &["history", table],
                &["files", table],
                &["show", table],
                &["restore", table, "--version", "-1"],
                // These fail.
                &create,
                &["merge", table, source, "--on", "no_such_column"],
                &["show", &missing],
            ];
            for (number, words) in verbs.into_iter().enumerate() {
                for json in [false, true] {
                    let fails = number >= verbs.len() - 3;
                    let words: Vec<&str> = words.iter().copied().chain(json.then_some("--json")).collect();
                    let out = run(&words, way, &settings, home.path());
                    let what = format!("{way:?} {words:?}");
                    // The second time there may be nothing left to do it to.
                    assert!(out.status.code().is_some(), "{what}: {out:?}");
                    assert!(json || out.status.success() != fails, "{what}: {out:?}");
                    logged += out.stderr.len();
                    assert_silent(&what, &out.stdout);
                    assert_silent(&what, &out.stderr);
                }
            }
            for wire in [Wire::Status(400), Wire::Status(403)] {
                server.fault("GET", "", 1000, wire);
                server.fault("HEAD", "", 1000, wire);
                let out = run(&["show", table], way, &settings, home.path());
                server.heal();
                assert!(!out.status.success(), "{wire:?}: {out:?}");
                assert_silent(&format!("{way:?} {wire:?}"), &[out.stdout, out.stderr].concat());
            }
        }
    }
    assert!(logged > 1_000_000, "hardly anything was logged: {logged} bytes");
    let store = Store::open_with("s3://lake", &settings.into_iter().collect()).unwrap();
    let objects = store.list("").await.unwrap();
    assert!(objects.len() > 50);
    for object in objects {
        assert_silent(&object.path, &store.get(&object.path).await.unwrap());
    }
}

/// Nothing listens there: the errors name the place, which may hold a secret itself.
#[test]
fn secrets_in_places_are_cut_out_of_errors() {
    let home = tempfile::tempdir().unwrap();
    let set = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    let nowhere = "http://127.0.0.1:9";
    let aws = |endpoint: &str| {
        vec![
            set("aws_endpoint_url", endpoint),
            set("aws_access_key_id", "user"),
            set("aws_secret_access_key", PASSWORD),
            set("aws_session_token", TOKEN),
            set("aws_region", "eu-west-1"),
        ]
    };
    let azure = |name: &str, value: &str| {
        vec![
            set("azure_storage_account_name", "devstoreaccount1"),
            set(name, value),
            set("azure_storage_endpoint", nowhere),
            set("allow_http", "true"),
        ]
    };
    let sas = format!("sv=2024-01-01&se=2030-01-01&sr=c&sp=rwdl&sig={SIGNATURE}");
    let cases = [
        ("s3://bucket/t", aws(nowhere)),
        (
            "s3://bucket/t",
            aws(&format!("http://user:{PASSWORD}@127.0.0.1:9")),
        ),
        ("az://box/t", azure("azure_storage_sas_key", &sas)),
        ("s3://bucket/t", {
            let mut proxied = aws("http://127.0.0.2:9");
            proxied.push(set("proxy_url", &format!("http://user:{PASSWORD}@127.0.0.1:9")));
            proxied
        }),
        // "canary-password" in base64, which a key must be.
        (
            "az://box/t",
            azure("azure_storage_account_key", "Y2FuYXJ5LXBhc3N3b3Jk"),
        ),
        (
            "gs://bucket/t",
            vec![
                set(
                    "google_service_account_key",
                    &format!("{{\"private_key\": \"{PASSWORD}\"}}"),
                ),
                set("google_base_url", nowhere),
            ],
        ),
    ];
    for (place, settings) in cases {
        let quick = settings
            .iter()
            .cloned()
            .chain([set("timeout", "1s"), set("connect_timeout", "1s")]);
        let select = format!("SELECT * FROM '{place}'");
        let tries: [(Way, Vec<_>, &[&str]); 2] = [
            (Way::Options, quick.collect(), &["show", place]),
            (Way::Environment, settings.clone(), &["query", &select]),
        ];
        for (way, settings, words) in tries {
            let out = run(words, way, &settings, home.path());
            let what = format!("{place} {way:?}");
            assert!(!out.status.success(), "{what}: {out:?}");
            let text = [out.stdout, out.stderr].concat();
            assert_silent(&what, &text);
            assert!(!String::from_utf8_lossy(&text).contains("Y2FuYXJ5"), "{what}");
        }
    }
}
