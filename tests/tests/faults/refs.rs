//! Tags and branches: every request of every operation on them fails in turn, in every way.

use lakehouse_core::model::{MAIN, RefKind, Retention};
use lakehouse_core::operations::SetRef;

use super::activation::is_about;
use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Tag,
    Branch,
    Replace,
    Drop,
    Forward,
    Append,
    Merge,
}

const STEPS: [Step; 7] = [
    Step::Tag,
    Step::Branch,
    Step::Replace,
    Step::Drop,
    Step::Forward,
    Step::Append,
    Step::Merge,
];

impl Repeated for Step {
    async fn run(self, store: Store) -> Result<bool> {
        let table = Table::open_in(store).await?;
        let on_audit = Options {
            branch: Some("audit".into()),
            token: Some("once".into()),
            ..Options::default()
        };
        let plain = Options::default();
        let set = match self {
            Self::Tag => SetRef {
                at: Some(At::Ref("audit".into())),
                ..SetRef::new(RefKind::Tag, "v2")
            },
            Self::Branch => SetRef::new(RefKind::Branch, "test"),
            Self::Replace => SetRef {
                at: Some(At::Ref("audit".into())),
                replace: true,
                retention: Retention {
                    max_ref_age_ms: Some(1000),
                    ..Retention::default()
                },
                ..SetRef::new(RefKind::Tag, "v1")
            },
            Self::Drop => return Ok(table.drop_ref(RefKind::Tag, "v1", &plain).await?.committed),
            Self::Forward => return Ok(table.fast_forward(MAIN, "audit", &plain).await?.committed),
            Self::Append => return Ok(table.append(rows(100..103, "eu"), &on_audit).await?.committed),
            Self::Merge => {
                let merge = Merge::on("id")
                    .when_matched_update_all()
                    .when_not_matched_insert_all();
                return Ok(table.merge(rows(2..12, "eu"), &merge, &on_audit).await?.committed);
            }
        };
        Ok(table.set_ref(&set, &plain).await?.committed)
    }

    /// Every name, what it is, and the rows there.
    async fn seen(store: &Store) -> Vec<String> {
        let table = Table::open_in(store.clone()).await.unwrap();
        let mut found = Vec::new();
        for (name, one) in table.refs().await.unwrap() {
            let provider = table.provider(&At::Ref(name.clone())).await.unwrap();
            let frame = lakehouse_core::scan::session(None).read_table(provider).unwrap();
            let batches = frame.collect().await.unwrap();
            let text = arrow::util::pretty::pretty_format_batches(&batches)
                .unwrap()
                .to_string();
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            found.push(format!(
                "{name} {:?} {:?} {}",
                one.kind,
                one.retention,
                lines.join("\n")
            ));
        }
        found
    }

    fn was_done(self, error: &Error) -> bool {
        matches!((self, error), (Self::Drop, Error::NotFound { .. }))
    }
}

/// A table with a tag, and a branch with rows that main lacks.
async fn prepared(version: Option<u8>) -> InMemory {
    let memory = InMemory::new();
    let store = Store::over(Arc::new(memory.clone()), "memory://faults".parse().unwrap());
    prepare(store.clone(), TableFormat::Iceberg, version).await;
    let table = Table::open_in(store).await.unwrap();
    let plain = Options::default();
    for (kind, name) in [(RefKind::Tag, "v1"), (RefKind::Branch, "audit")] {
        table.set_ref(&SetRef::new(kind, name), &plain).await.unwrap();
    }
    let on_audit = Options {
        branch: Some("audit".into()),
        ..plain
    };
    table.append(rows(50..52, "us"), &on_audit).await.unwrap();
    memory
}

fn sweep(version: u8, every: usize) {
    block_on(async {
        let memory = prepared(Some(version)).await;
        for (shift, step) in STEPS.into_iter().enumerate() {
            let healthy = over(&memory);
            let (store, faults) = faulty(&healthy);
            assert!(step.run(store).await.unwrap(), "{step:?}");
            let (after, log) = (Step::seen(&healthy).await, faults.log());
            // Requests of rows are those of main, of which each has its turn in `single.rs`.
            let every = match step {
                Step::Append | Step::Merge => 4 * every,
                _ => every,
            };
            for (way, fault) in FAULTS.into_iter().enumerate() {
                let about = (1..=faults.requests()).filter(|at| is_about(fault, log[*at as usize - 1].0));
                for at in about.skip((shift + way) % every).step_by(every) {
                    let case = format!("v{version} {step:?}");
                    survives(&memory, step, &case, at, fault, &after).await;
                }
            }
        }
    });
}

#[test]
fn tags_and_branches_of_version_2_survive_single_faults() {
    sweep(2, 5);
}

#[test]
fn tags_and_branches_of_version_3_survive_every_single_fault() {
    sweep(3, 1);
}
