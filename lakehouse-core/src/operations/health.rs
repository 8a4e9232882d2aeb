//! The figures of a table that say whether it needs care: sizes of files, masks, partitions, metadata, commits.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use chrono::DateTime;
use futures::TryStreamExt;
use serde_json::{Value, json};

use super::Options;
use super::maintain::{Policy, Step, StepReport, maintain};
use super::settings::Settings;
use crate::error::Result;
use crate::format::Handle;
use crate::model::{At, DataFile, MetadataPart, Prune, Snapshot, Upkeep, Version, is_small_file};
use crate::store::clock;

/// Data files, counted together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Files {
    /// How many.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Their rows, masked ones included.
    pub rows: u64,
    /// Rows that are masked, as far as the metadata tells.
    pub masked_rows: u64,
}

impl Files {
    fn add(&mut self, file: &DataFile) {
        self.files += 1;
        self.bytes += file.bytes;
        self.rows += file.rows;
        self.masked_rows += file.masked_rows().unwrap_or(0);
    }

    /// The share of rows that is masked, 0 to 1.
    pub fn masked_share(&self) -> f64 {
        match self.rows {
            0 => 0.0,
            rows => self.masked_rows as f64 / rows as f64,
        }
    }

    fn to_json(self) -> Value {
        json!({
            "files": self.files, "bytes": self.bytes, "rows": self.rows, "masked_rows": self.masked_rows,
        })
    }
}

/// Files of about one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SizeClass {
    /// Smaller than this, and not smaller than the class before ends; in bytes. `None` for the last.
    pub below: Option<u64>,
    /// The files.
    pub files: Files,
}

/// What was committed on one day.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Day {
    /// `2013-01-31`, UTC.
    pub day: String,
    /// Commits by what they did, in the word of who wrote them.
    pub commits: BTreeMap<String, u64>,
}

/// The figures of one version of a table.
#[derive(Debug, Clone)]
pub struct Health {
    /// The version.
    pub version: Version,
    /// When it was committed, in milliseconds since 1970 UTC.
    pub timestamp_ms: i64,
    /// When these figures were taken, in milliseconds since 1970 UTC.
    pub taken_ms: i64,
    /// All data files.
    pub files: Files,
    /// Files with masks or equality deletes.
    pub masked_files: u64,
    /// The metadata tells of every file how many rows are masked; otherwise there may be more.
    pub masked_exact: bool,
    /// How large data files are meant to be, in bytes.
    pub target_file_bytes: u64,
    /// Files below three quarters of that.
    pub small_files: Files,
    /// Files by size, the smallest first.
    pub sizes: Vec<SizeClass>,
    /// Terms of the partitioning of new files: `day(ts)`.
    pub partitioning: Vec<String>,
    /// Partitions as `day = 2013-01-31, region = eu`, the largest first. One without a name where there are none.
    pub partitions: Vec<(String, Files)>,
    /// The metadata.
    pub upkeep: Upkeep,
    /// How many versions the history of main has.
    pub versions: u64,
    /// Commits of main by day, the oldest first.
    pub days: Vec<Day>,
    /// What compaction would rewrite now.
    pub to_compact: Files,
    /// What maintenance would do now, with its usual policy: its own dry run. Empty where it cannot be done.
    pub maintenance: Vec<StepReport>,
    /// Why it cannot be done, where that is so.
    pub not_maintained: Option<String>,
}

/// Upper ends of the classes of sizes.
const CLASSES: [u64; 9] = [
    16 << 10,
    128 << 10,
    1 << 20,
    8 << 20,
    32 << 20,
    128 << 20,
    256 << 20,
    512 << 20,
    1 << 30,
];

/// Takes the figures of the newest version, and what maintenance would do to it. No data file is opened, unless the
/// metadata lacks its rows or a compaction would look at its notes about the order of rows; all objects are listed.
///
/// # Errors
/// When the metadata cannot be read; [`crate::Error::Invalid`] for a table property that is not a size.
pub async fn health(handle: &Handle) -> Result<Health> {
    let snapshot = handle.format.snapshot(&At::Latest).await?;
    let target = Settings::new(&Options::default(), false).target_file_bytes(&snapshot.properties)?;
    let mut taken = Taken::new();
    let mut listed = handle
        .format
        .files(&snapshot, std::sync::Arc::new(Prune::everything()));
    while let Some(file) = listed.try_next().await? {
        taken.add(&snapshot, &file, target);
    }
    drop(listed);
    let dry_run = Options {
        dry_run: true,
        ..Options::default()
    };
    let planned = maintain(handle, &Policy::default(), &dry_run, &mut |_| {
        ControlFlow::Continue(())
    })
    .await;
    let (maintenance, not_maintained) = match planned {
        Ok(planned) => (planned.steps, None),
        Err(error) => (Vec::new(), Some(error.to_string())),
    };
    let to_compact = maintenance.iter().find(|one| one.step == Step::Compact);
    let to_compact = to_compact.map_or_else(Files::default, |step| Files {
        files: step.figure("files"),
        bytes: step.figure("bytes"),
        rows: step.figure("rows"),
        masked_rows: step.figure("masked_rows"),
    });
    let upkeep = handle.format.upkeep(&snapshot).await?;
    let history = handle.format.history(&At::Latest, None).await?;
    let mut days: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
    for commit in &history {
        let commits = days.entry(day(commit.timestamp_ms)).or_default();
        *commits.entry(commit.operation.to_lowercase()).or_default() += 1;
    }
    let mut partitions: Vec<_> = taken.partitions.into_iter().collect();
    partitions.sort_by(|(a, one), (b, other)| (other.bytes, a).cmp(&(one.bytes, b)));
    Ok(Health {
        version: snapshot.version,
        timestamp_ms: snapshot.timestamp_ms,
        taken_ms: clock::now_ms(),
        files: taken.files,
        masked_files: taken.masked_files,
        masked_exact: taken.masked_exact,
        target_file_bytes: target,
        small_files: taken.small,
        sizes: taken.sizes,
        partitioning: snapshot
            .partition_fields()
            .iter()
            .map(|field| field.term())
            .collect(),
        partitions,
        upkeep,
        versions: history.len() as u64,
        days: days
            .into_iter()
            .map(|(day, commits)| Day { day, commits })
            .collect(),
        to_compact,
        maintenance,
        not_maintained,
    })
}

fn day(ms: i64) -> String {
    DateTime::from_timestamp_millis(ms)
        .map_or_else(|| "?".to_owned(), |time| time.format("%Y-%m-%d").to_string())
}

/// Sums over files so far.
struct Taken {
    files: Files,
    masked_files: u64,
    masked_exact: bool,
    small: Files,
    sizes: Vec<SizeClass>,
    partitions: BTreeMap<String, Files>,
}

impl Taken {
    fn new() -> Self {
        let ends = CLASSES.into_iter().map(Some).chain([None]);
        let class = |below| SizeClass {
            below,
            files: Files::default(),
        };
        Self {
            files: Files::default(),
            masked_files: 0,
            masked_exact: true,
            small: Files::default(),
            sizes: ends.map(class).collect(),
            partitions: BTreeMap::new(),
        }
    }

    fn add(&mut self, snapshot: &Snapshot, file: &DataFile, target: u64) {
        self.files.add(file);
        self.masked_files += u64::from(!file.masks.is_empty() || !file.equality_deletes.is_empty());
        self.masked_exact &= file.masked_rows().is_some();
        if is_small_file(file.bytes, target) {
            self.small.add(file);
        }
        let at = CLASSES.partition_point(|end| *end <= file.bytes);
        self.sizes[at].files.add(file);
        let fields = snapshot.specs.get(&file.spec_id).into_iter().flatten();
        let values = fields.zip(&file.partition);
        let name: Vec<String> = values
            .map(|(field, value)| format!("{} = {}", field.term(), field.text(value)))
            .collect();
        self.partitions.entry(name.join(", ")).or_default().add(file);
    }
}

impl Health {
    /// The figures for machines.
    pub fn to_json(&self) -> Value {
        let sizes = self.sizes.iter().map(|class| {
            let mut value = class.files.to_json();
            value["below_bytes"] = class.below.into();
            value
        });
        let partitions = self.partitions.iter().map(|(name, files)| {
            let mut value = files.to_json();
            value["partition"] = name.as_str().into();
            value
        });
        let part =
            |part: &MetadataPart| json!({"kind": part.kind, "objects": part.objects, "bytes": part.bytes});
        let days = self
            .days
            .iter()
            .map(|day| json!({"day": day.day, "commits": day.commits}));
        json!({
            "version": self.version, "timestamp_ms": self.timestamp_ms, "taken_ms": self.taken_ms,
            "files": self.files.to_json(), "masked_files": self.masked_files,
            "masked_share": self.files.masked_share(), "masked_exact": self.masked_exact,
            "target_file_bytes": self.target_file_bytes, "small_files": self.small_files.to_json(),
            "sizes": sizes.collect::<Value>(), "partitioning": self.partitioning,
            "partitions": partitions.collect::<Value>(),
            "metadata": {
                "read": self.upkeep.read.iter().map(part).collect::<Value>(), "objects": self.upkeep.objects,
                "bytes": self.upkeep.bytes, "checkpoint_ms": self.upkeep.checkpoint_ms,
                "checkpoint_age_ms": self.upkeep.checkpoint_ms.map(|at| self.taken_ms.saturating_sub(at)),
            },
            "versions": self.versions, "days": days.collect::<Value>(), "to_compact": self.to_compact.to_json(),
            "maintenance": self.maintenance.iter().map(StepReport::to_json).collect::<Value>(),
            "not_maintained": self.not_maintained,
        })
    }
}
