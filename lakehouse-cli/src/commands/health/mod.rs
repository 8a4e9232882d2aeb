//! The health of a table: as text, for machines, and as a page.

mod page;

use std::path::Path;

use lakehouse_core::Table;
use lakehouse_core::operations::health::Health;

use super::maintain::what;
use crate::exit::Failure;
use crate::output::Ui;
use crate::values::{show_bytes, show_count, show_time};

/// Partitions that are printed, largest first.
const LISTED: usize = 20;

/// Prints the figures, or writes them as a page to a file.
pub(super) async fn health(name: &str, table: &Table, html: Option<&Path>, ui: &Ui) -> Result<(), Failure> {
    let health = table.health().await?;
    if let Some(file) = html {
        std::fs::write(file, page::page(name, table.format(), &health))
            .map_err(Failure::io("write", file))?;
    }
    if ui.json {
        let mut report = health.to_json();
        report["table"] = name.into();
        report["format"] = table.format().into();
        report["html"] = html.map(|file| file.display().to_string()).into();
        return ui.json(&report);
    }
    if let Some(file) = html {
        return ui.line(&format!("wrote {}", file.display()));
    }
    let mut pairs = vec![("table", name.to_owned()), ("version", version(&health))];
    pairs.extend(facts(&health));
    ui.pairs(&pairs)?;
    let sizes = health.sizes.iter().zip(page::class_names(&health));
    let sizes: Vec<_> = sizes
        .filter(|(class, _)| class.files.files > 0)
        .map(|(class, name)| vec![name, show_count(class.files.files), show_bytes(class.files.bytes)])
        .collect();
    ui.table(&["file size", "files", "bytes"], &sizes)?;
    if !health.partitioning.is_empty() {
        let partitions = health.partitions.iter().take(LISTED).map(|(name, files)| {
            vec![
                name.clone(),
                show_count(files.files),
                show_count(files.rows),
                show_count(files.masked_rows),
                show_bytes(files.bytes),
            ]
        });
        ui.table(
            &["partition", "files", "rows", "masked", "bytes"],
            &partitions.collect::<Vec<_>>(),
        )?;
        let more = health.partitions.len().saturating_sub(LISTED);
        if more > 0 {
            ui.line(&format!(
                "and {} smaller ones (all of them with --json)",
                show_count(more as u64)
            ))?;
        }
    }
    ui.table(&["maintain would", ""], &maintenance(&health))?;
    let read = health.upkeep.read.iter();
    let read: Vec<_> = read
        .map(|part| {
            vec![
                part.kind.to_owned(),
                show_count(part.objects),
                show_bytes(part.bytes),
            ]
        })
        .collect();
    ui.table(&["read to plan a scan", "objects", "bytes"], &read)?;
    let days = health.days.iter().rev().take(LISTED).map(|day| {
        let words = day.commits.iter().map(|(kind, count)| format!("{count} {kind}"));
        vec![day.day.clone(), words.collect::<Vec<_>>().join(", ")]
    });
    ui.table(&["day", "commits"], &days.collect::<Vec<_>>())
}

/// What maintenance would do, step by step.
fn maintenance(health: &Health) -> Vec<Vec<String>> {
    if let Some(why) = &health.not_maintained {
        return vec![vec!["nothing".to_owned(), why.clone()]];
    }
    let steps = health.maintenance.iter();
    steps
        .map(|report| vec![report.step.name().to_owned(), what(report)])
        .collect()
}

fn version(health: &Health) -> String {
    format!("{} of {} UTC", health.version, show_time(health.timestamp_ms))
}

/// Headline figures.
fn facts(health: &Health) -> Vec<(&'static str, String)> {
    let files = &health.files;
    let about = if health.masked_exact { "" } else { "at least " };
    let (smallest, largest) = (health.partitions.last(), health.partitions.first());
    let read = health.upkeep.read.iter();
    let (objects, bytes) = read.fold((0, 0), |(n, sum), part| (n + part.objects, sum + part.bytes));
    let mut facts = vec![
        (
            "files",
            format!(
                "{} of {}, {} on average",
                show_count(files.files),
                show_bytes(files.bytes),
                show_bytes(files.bytes / files.files.max(1))
            ),
        ),
        (
            "small files",
            format!(
                "{} of {}, below three quarters of {}",
                show_count(health.small_files.files),
                show_bytes(health.small_files.bytes),
                show_bytes(health.target_file_bytes)
            ),
        ),
        (
            "masked rows",
            format!(
                "{about}{} of {} ({:.1} %), in {} files",
                show_count(files.masked_rows),
                show_count(files.rows),
                files.masked_share() * 100.0,
                show_count(health.masked_files)
            ),
        ),
        (
            "compact would rewrite",
            format!(
                "{} files of {}",
                show_count(health.to_compact.files),
                show_bytes(health.to_compact.bytes)
            ),
        ),
    ];
    if let (false, Some((_, smallest)), Some((_, largest))) =
        (health.partitioning.is_empty(), smallest, largest)
    {
        facts.push((
            "partitions",
            format!(
                "{} by {}, of {} to {}",
                show_count(health.partitions.len() as u64),
                health.partitioning.join(", "),
                show_bytes(smallest.bytes),
                show_bytes(largest.bytes)
            ),
        ));
    }
    facts.push((
        "metadata",
        format!(
            "{} objects of {} to plan a scan",
            show_count(objects),
            show_bytes(bytes)
        ),
    ));
    facts.push((
        "all metadata",
        format!(
            "{} objects of {}",
            show_count(health.upkeep.objects),
            show_bytes(health.upkeep.bytes)
        ),
    ));
    if let Some(at) = health.upkeep.checkpoint_ms {
        facts.push((
            "checkpoint",
            format!("{} old", age(health.taken_ms.saturating_sub(at))),
        ));
    }
    facts.push(("versions", show_count(health.versions)));
    facts
}

/// A time that went by, in the largest unit of which there are two; of seconds one is enough.
fn age(ms: i64) -> String {
    let seconds = ms.max(0) / 1000;
    let units = [("days", 86_400), ("hours", 3_600), ("minutes", 60)];
    let fits = units.into_iter().find(|(_, unit)| seconds >= 2 * unit);
    let (name, unit) = match fits {
        Some(fits) => fits,
        None if seconds == 1 => ("second", 1),
        None => ("seconds", 1),
    };
    format!("{} {name}", seconds / unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_told_in_the_largest_unit_of_which_there_are_two() {
        let day = 86_400_000;
        for (ms, text) in [
            (-5, "0 seconds"),
            (1_999, "1 second"),
            (119_999, "119 seconds"),
            (120_000, "2 minutes"),
            (day, "24 hours"),
            (9 * day, "9 days"),
        ] {
            assert_eq!(age(ms), text);
        }
    }
}
