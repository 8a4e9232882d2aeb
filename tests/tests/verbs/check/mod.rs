//! What a check finds: nothing in sound tables, whoever wrote them, and of one thing that is damaged exactly that.

mod clean;
mod damage;
mod logs;
mod metadata;

use lakehouse_core::Table;
use lakehouse_core::model::{At, Finding, Severity};
use lakehouse_core::operations::check::{Check, Checked};
use lakehouse_core::store::Store;

/// Checks the newest version anew, as another process would.
pub(crate) async fn checked(store: &Store, deep: bool) -> Checked {
    let table = Table::open_in(store.clone()).await.unwrap();
    let check = Check {
        deep,
        ..Check::default()
    };
    table.check(&check).await.unwrap()
}

/// Every version, with their data.
pub(crate) async fn checked_all(table: &Table) -> Checked {
    let check = Check {
        at: At::Latest,
        all_versions: true,
        deep: true,
        progress: None,
    };
    table.check(&check).await.unwrap()
}

/// What is worse than a note, for messages.
pub(crate) fn wrong(checked: &Checked) -> Vec<&Finding> {
    let findings = checked.findings.iter();
    findings
        .filter(|finding| finding.severity != Severity::Note)
        .collect()
}
