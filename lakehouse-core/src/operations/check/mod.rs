//! Whether a table is what its metadata says. The format looks at its own metadata ([`Format::audit`]); what is the
//! same in every format is looked at here:
//!
//! ```text
//! files    each is there once, with the recorded size and rows; partition values, sequence numbers, ranges of row ids
//! masks    positions within their files, as many as recorded
//! deep     the data itself: decoded, and compared with statistics, partitions, constraints, row ids
//! ```
//!
//! Nothing is written. Damage is found, not failed on; what the store itself refuses is an error.
//!
//! [`Format::audit`]: crate::format::Format::audit

mod columns;
mod deep;
mod files;
mod masks;

use std::collections::{BTreeSet, HashSet};
use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use futures::{StreamExt, TryStreamExt, stream};

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::{At, Audit, Code, DataFile, Finding, NeededObject, Prune, Severity, Snapshot, Version};
use crate::scan::read_footer;
use crate::store::clock;
use deep::Deep;
use files::Present;

/// Footers of data files are read unless there are more files than this: each takes a request or two.
const MOST_FOOTERS: usize = 1000;
/// Footers read at the same time.
const CONCURRENT_FOOTERS: usize = 16;
/// Files whose masks are read together.
const MASKED: usize = 64;

/// Is told how many files of how many have been read.
pub type Progress = Arc<dyn Fn(u64, u64) + Send + Sync>;

/// What to check.
#[derive(Clone)]
pub struct Check {
    /// The version.
    pub at: At,
    /// Every version in the history of main, of the tags and of the branches instead; a file that several have is
    /// looked at once.
    pub all_versions: bool,
    /// Read the data of every file too.
    pub deep: bool,
    /// Who is told how far it is.
    pub progress: Option<Progress>,
}

impl Default for Check {
    fn default() -> Self {
        Self {
            at: At::Latest,
            all_versions: false,
            deep: false,
            progress: None,
        }
    }
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Check")
            .field("at", &self.at)
            .field("all_versions", &self.all_versions)
            .field("deep", &self.deep)
            .finish_non_exhaustive()
    }
}

/// What a check found, and how much it looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Checked {
    /// The newest version that was checked; `None` where it cannot be loaded.
    pub version: Option<Version>,
    /// How many versions.
    pub versions: u64,
    /// Different data files of these versions.
    pub files: u64,
    /// Their rows as recorded, masked ones included.
    pub rows: u64,
    /// Their bytes as recorded.
    pub bytes: u64,
    /// The data was read.
    pub deep: bool,
    /// Errors first, then by code and path.
    pub findings: Vec<Finding>,
}

impl Checked {
    /// How many findings there are of one kind.
    pub fn count(&self, severity: Severity) -> usize {
        self.findings
            .iter()
            .filter(|finding| finding.severity == severity)
            .count()
    }

    /// The report for machines.
    pub fn to_json(&self) -> Value {
        let findings = self.findings.iter().map(|finding| {
            json!({
                "severity": finding.severity.name(), "code": finding.code.name(), "path": finding.path,
                "what": finding.what, "todo": finding.todo,
            })
        });
        json!({
            "version": self.version, "versions": self.versions, "files": self.files, "rows": self.rows,
            "bytes": self.bytes, "deep": self.deep, "clean": self.is_clean(),
            "errors": self.count(Severity::Error), "warnings": self.count(Severity::Warning),
            "notes": self.count(Severity::Note), "findings": findings.collect::<Value>(),
        })
    }

    /// Whether nothing is wrong: there may be notes.
    pub fn is_clean(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.severity == Severity::Note)
    }
}

/// Checks a table. Memory is taken for the names of a version's files, for a few files' rows at a time, and, in a deep
/// check of a table with row ids, for a bitmap of these.
///
/// # Errors
/// [`Error::NotFound`] when there is no such version, [`Error::Unsupported`] when it cannot be read at all; those of
/// the store.
pub fn check<'a>(handle: &'a Handle, check: &'a Check) -> BoxFuture<'a, Result<Checked>> {
    // Boxed here, for those who ask whether it is `Send`: see `Format`.
    Box::pin(checked(handle, check))
}

/// What a repair did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Repaired {
    /// What was found before and is repaired, or would be in a dry run.
    pub repaired: Vec<Finding>,
    /// What a check finds afterwards; in a dry run, what it found.
    pub checked: Checked,
}

/// Checks a table and repairs what can be without touching a row or a version: hints and pointers that are missing or lie
/// ([`Code::is_advice`]). What cannot be repaired is found again afterwards, and says how to go on.
///
/// # Errors
/// As [`check`]; when the repair cannot be written.
pub fn repair<'a>(handle: &'a Handle, wanted: &'a Check, dry_run: bool) -> BoxFuture<'a, Result<Repaired>> {
    Box::pin(async move {
        let before = checked(handle, wanted).await?;
        let advice = before.findings.iter().filter(|finding| finding.code.is_advice());
        let mut advice: Vec<Finding> = advice.cloned().collect();
        // Hints lead to the newest version: where that cannot be loaded, there is nothing to lead to.
        let loaded = handle.format.snapshot(&At::Latest).await.is_ok();
        if dry_run || advice.is_empty() || !loaded {
            return Ok(Repaired {
                repaired: if loaded { advice } else { Vec::new() },
                checked: before,
            });
        }
        handle.format.repoint().await?;
        let after = checked(handle, wanted).await?;
        advice.retain(|finding| !after.findings.contains(finding));
        Ok(Repaired {
            repaired: advice,
            checked: after,
        })
    })
}

async fn checked(handle: &Handle, check: &Check) -> Result<Checked> {
    let mut run = Run {
        handle,
        check,
        checked: Checked {
            deep: check.deep,
            ..Checked::default()
        },
        findings: BTreeSet::new(),
        present: Present::default(),
        seen: HashSet::new(),
        promised: None,
    };
    let mut newest = true;
    for at in versions(handle, check).await? {
        let audit = handle.format.audit(&at).await?;
        if newest {
            run.checked.version = audit.snapshot.as_ref().map(|snapshot| snapshot.version);
            newest = false;
            if let (true, Some(snapshot)) = (check.all_versions, &audit.snapshot) {
                run.promised = run.promised_by(snapshot).await?;
            }
        }
        run.version(audit).await?;
    }
    let Run {
        mut checked,
        findings,
        ..
    } = run;
    checked.findings = settled(findings.into_iter().collect());
    Ok(checked)
}

/// The versions to check, the newest first.
async fn versions(handle: &Handle, check: &Check) -> Result<Vec<At>> {
    if !check.all_versions {
        return Ok(vec![check.at.clone()]);
    }
    // Where the newest cannot be loaded, there is no history either.
    let Ok(newest) = handle.format.snapshot(&At::Latest).await else {
        return Ok(vec![At::Latest]);
    };
    let mut known: HashSet<Version> = HashSet::from([newest.version]);
    let mut all = vec![At::Latest];
    let heads = newest.refs.keys().map(|name| At::Ref(name.clone()));
    for head in [At::Latest].into_iter().chain(heads) {
        let history = match handle.format.history(&head, None).await {
            Ok(history) => history,
            // The audit of the newest version tells of a tag or branch that names nothing.
            Err(Error::NotFound { .. } | Error::Invalid { .. }) => continue,
            Err(error) => return Err(error),
        };
        let new = history.into_iter().filter(|commit| known.insert(commit.version));
        all.extend(new.map(|commit| At::Version(commit.version)));
    }
    Ok(all)
}

/// A check while it goes on.
struct Run<'a> {
    handle: &'a Handle,
    check: &'a Check,
    checked: Checked,
    findings: BTreeSet<Finding>,
    present: Present,
    /// Data files with their masks that were looked at as files of another version.
    seen: HashSet<String>,
    /// Where files may go before their versions.
    promised: Option<Promised>,
}

/// Which files are to be there.
struct Promised {
    /// Those of this version and later ones.
    since: Version,
    /// Objects of the newest version.
    newest: HashSet<String>,
}

impl Run<'_> {
    async fn promised_by(&mut self, newest: &Arc<Snapshot>) -> Result<Option<Promised>> {
        let format = &self.handle.format;
        let since = match format.files_kept_since(newest, clock::now_ms()).await {
            Ok(since) => since,
            // Then nothing is promised to go.
            Err(Error::Invalid { .. } | Error::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let Some(since) = since else {
            return Ok(None);
        };
        let files = self.list(newest).await?;
        let objects = files.iter().flat_map(DataFile::objects);
        let newest = objects.map(|(path, _)| path.to_owned()).collect();
        Ok(Some(Promised { since, newest }))
    }

    async fn version(&mut self, audit: Audit) -> Result<()> {
        self.checked.versions += 1;
        self.findings.extend(audit.findings);
        let needed = audit.needed;
        let Some(snapshot) = audit.snapshot else {
            return self.look_up(None, needed, &[]).await;
        };
        let files = self.list(&snapshot).await?;
        self.look_up(Some(snapshot.version), needed, &files).await?;
        files::twice(&files, &mut self.findings);
        files::row_ids(
            &files,
            audit.next_row_id,
            audit.row_ids_required,
            &mut self.findings,
        );
        let mut new = Vec::new();
        for file in files {
            if self
                .seen
                .insert(format!("{} {:?} {}", file.recorded, file.masks, file.rows))
            {
                self.checked.files += 1;
                self.checked.rows += file.rows;
                self.checked.bytes += file.bytes;
                new.push(file);
            }
        }
        for file in &new {
            files::partition(&snapshot, file, &mut self.findings);
            files::sequence(file, audit.sequence, &mut self.findings);
        }
        // What is damaged as a whole is not looked into.
        new.retain(|file| self.present.is_as_recorded(&file.path, file.bytes));
        let readable: Vec<&DataFile> = new
            .iter()
            .filter(|file| !file.masks.is_empty() && self.present.has_masks(file))
            .collect();
        for files in readable.chunks(MASKED) {
            self.findings
                .extend(masks::check(self.handle, &snapshot, files).await?);
        }
        if !self.check.deep && new.len() > MOST_FOOTERS {
            self.findings.insert(Finding::new(
                Code::FootersSkipped,
                "",
                format!("the footers of {} data files were not read", new.len()),
                "lake check --deep reads them, and all else in them",
            ));
            return Ok(());
        }
        let sound = self.footers(&new).await?;
        match self.check.deep {
            true => self.deep(&snapshot, audit.sequence, &sound).await,
            false => Ok(()),
        }
    }

    /// The data files of a version, without their statistics, as far as they can be listed.
    async fn list(&mut self, snapshot: &Arc<Snapshot>) -> Result<Vec<DataFile>> {
        let mut listed = self.handle.format.files(snapshot, Arc::new(Prune::everything()));
        let mut files = Vec::new();
        loop {
            match listed.try_next().await {
                Ok(Some(mut file)) => {
                    file.columns.clear();
                    files.push(file);
                }
                Ok(None) => return Ok(files),
                Err(error) => {
                    let todo =
                        "restore the file from a backup, or the table to a version that does not need it";
                    self.findings
                        .insert(Finding::of(Code::MetadataUnreadable, error, "", todo)?);
                    return Ok(files);
                }
            }
        }
    }

    /// Looks whether objects are there: those of the metadata, data files, masks, equality deletes.
    async fn look_up(
        &mut self,
        version: Option<Version>,
        needed: Vec<NeededObject>,
        files: &[DataFile],
    ) -> Result<()> {
        let mut wanted: BTreeSet<String> = needed.iter().map(|needed| needed.path.clone()).collect();
        for file in files {
            wanted.extend(file.objects().map(|(path, _)| path.to_owned()));
        }
        self.present.look_up(&self.handle.store, wanted).await?;
        let store = &self.handle.store;
        for needed in &needed {
            self.findings
                .extend(self.present.judge(store, &needed.path, needed.bytes, needed.code));
        }
        let may_go = |path: &str| {
            let promised = self.promised.as_ref();
            promised.is_some_and(|promised| !promised.newest.contains(path))
        };
        let mut gone = BTreeSet::new();
        for file in files {
            for (path, bytes) in file.objects() {
                match self.present.judge(store, path, bytes, Code::FileMissing) {
                    Some(found) if found.code == Code::FileMissing && may_go(path) => {
                        gone.insert(found.path);
                    }
                    found => self.findings.extend(found),
                }
            }
        }
        if let (Some(version), Some(first), Some(promised)) = (version, gone.first(), &self.promised) {
            let is_over = version < promised.since;
            self.findings
                .insert(files::gone(version, is_over, gone.len(), first));
        }
        Ok(())
    }

    /// Compares rows with footers; returns the paths of files that have a readable footer, with its number of rows.
    async fn footers(&mut self, files: &[DataFile]) -> Result<Vec<(String, u64)>> {
        let store = &self.handle.store;
        let mut sound = Vec::with_capacity(files.len());
        let mut footers = stream::iter(files.to_vec())
            .map(|file| async move {
                let footer = read_footer(store, &file.path, file.bytes).await;
                (file, footer)
            })
            .buffered(CONCURRENT_FOOTERS);
        while let Some((file, footer)) = footers.next().await {
            match footer {
                Ok(footer) => {
                    let rows = u64::try_from(footer.file_metadata().num_rows()).unwrap_or(0);
                    if rows != file.rows {
                        self.findings.insert(Finding::new(
                            Code::RowCount,
                            &file.path,
                            format!("it has {rows} rows, the metadata says {}", file.rows),
                            files::MADE_ANEW,
                        ));
                    }
                    sound.push((file.path.clone(), rows));
                }
                Err(error) => {
                    let finding = Finding::of(Code::FileUnreadable, error, &file.path, files::LOST)?;
                    self.findings.insert(finding);
                }
            }
        }
        Ok(sound)
    }

    /// Reads the data of these files. They are listed once more, now with their statistics.
    async fn deep(
        &mut self,
        snapshot: &Arc<Snapshot>,
        sequence: Option<i64>,
        sound: &[(String, u64)],
    ) -> Result<()> {
        let deep = &Deep::new(self.handle, snapshot, sequence, &mut self.findings)?;
        let all = sound.len() as u64;
        let sound: std::collections::HashMap<&str, u64> =
            sound.iter().map(|(path, rows)| (path.as_str(), *rows)).collect();
        let listed = self.handle.format.files(snapshot, Arc::new(Prune::everything()));
        let threads = std::thread::available_parallelism().map_or(2, usize::from);
        let files = listed.filter_map(|file| {
            // What cannot be listed was told before.
            let file = file
                .ok()
                .and_then(|file| Some((*sound.get(file.path.as_str())?, file)));
            async move { file }
        });
        let mut reading = files
            .map(|(rows, file)| deep.file(file, rows))
            .buffer_unordered(threads)
            .boxed();
        let mut done = 0;
        while let Some(found) = reading.next().await {
            self.findings.extend(found?);
            done += 1;
            if let Some(progress) = &self.check.progress {
                progress(done, all);
            }
        }
        Ok(())
    }
}

/// Findings without those that others explain: what is missing or has another size cannot be read either.
fn settled(mut findings: Vec<Finding>) -> Vec<Finding> {
    const WHOLE: [Code; 2] = [Code::FileMissing, Code::FileSize];
    const UNREADABLE: [Code; 6] = [
        Code::MetadataUnreadable,
        Code::ManifestUnreadable,
        Code::CheckpointUnreadable,
        Code::LogEntry,
        Code::FileUnreadable,
        Code::MaskUnreadable,
    ];
    let of = |codes: &[Code]| -> HashSet<String> {
        let found = findings.iter().filter(|finding| codes.contains(&finding.code));
        found.map(|finding| finding.path.clone()).collect()
    };
    let (whole, specific) = (of(&WHOLE), of(&UNREADABLE[1..]));
    findings.retain(|finding| {
        let explained = whole.contains(&finding.path) && UNREADABLE.contains(&finding.code);
        let again = finding.code == Code::MetadataUnreadable && specific.contains(&finding.path);
        !explained && !again
    });
    findings
}
