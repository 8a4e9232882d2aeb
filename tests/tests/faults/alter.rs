//! What alters a table: every request fails in turn, in every way.

use lakehouse_core::operations::Alter;

use super::activation::is_about;
use super::*;

#[derive(Debug, Clone, Copy)]
enum Step {
    Columns,
    Required,
    Partitioning,
    Property,
}

impl Step {
    fn change(self) -> Alter {
        let path = |name: &str| name.parse().unwrap();
        let alter = Alter::default();
        match self {
            Self::Columns => alter
                .rename_column(path("n"), "m")
                .add_column("n double")
                .unwrap(),
            Self::Required => alter.nullable(path("n"), false),
            Self::Partitioning => alter.partition_by("bucket(3, id)").unwrap(),
            Self::Property => alter.property("owner", Some("me")),
        }
    }
}

impl Repeated for Step {
    async fn run(self, store: Store) -> Result<bool> {
        let table = Table::open_in(store).await?;
        let options = Options {
            token: Some("once".into()),
            ..Options::default()
        };
        Ok(table.alter(&self.change(), &options).await?.committed)
    }

    /// The table's definition and rows.
    async fn seen(store: &Store) -> Vec<String> {
        let table = Table::open_in(store.clone()).await.unwrap();
        let snapshot = table.snapshot(&At::Latest).await.unwrap();
        let mut seen = rows_of(&table).await.unwrap();
        let columns = snapshot.schema.fields().iter();
        seen.extend(
            columns.map(|field| format!("{} {} {}", field.name(), field.data_type(), field.is_nullable())),
        );
        seen.push(format!("{:?}", snapshot.partition_fields()));
        seen.push(format!("{:?}", snapshot.properties.get("owner")));
        seen
    }
}

fn sweep(format: (TableFormat, Option<u8>), steps: &[Step]) {
    block_on(async {
        let memory = InMemory::new();
        let store = Store::over(Arc::new(memory.clone()), "memory://faults".parse().unwrap());
        prepare(store, format.0, format.1).await;
        for step in steps {
            let healthy = over(&memory);
            let (store, faults) = faulty(&healthy);
            assert!(step.run(store).await.unwrap(), "{step:?}");
            let (after, log) = (Step::seen(&healthy).await, faults.log());
            for fault in FAULTS {
                for at in (1..=faults.requests()).filter(|at| is_about(fault, log[*at as usize - 1].0)) {
                    survives(&memory, *step, &format!("{format:?} {step:?}"), at, fault, &after).await;
                }
            }
        }
    });
}

#[test]
fn an_iceberg_table_that_is_altered_survives_every_single_fault() {
    let steps = [Step::Columns, Step::Required, Step::Partitioning, Step::Property];
    sweep((TableFormat::Iceberg, Some(3)), &steps);
}

#[test]
fn a_delta_table_that_is_altered_survives_every_single_fault() {
    sweep(
        (TableFormat::Delta, None),
        &[Step::Columns, Step::Required, Step::Property],
    );
}
