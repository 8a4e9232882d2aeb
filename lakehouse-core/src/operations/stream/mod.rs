//! Small commits, one after the other, of rows as they come: each row once, whatever stops and starts again.
//!
//! Every commit is a step of a stream ([`Token::following`]) and says in the table how far the stream has come: `lines.rs`
//! counts lines of its input, `folder.rs` batches of files, which `aside.rs` puts aside before they are read. A step that
//! does not follow the last one is not committed, so that of two runs of one stream one ends. `upkeep.rs` keeps the table
//! as quick as it was: it compacts small files, and lets old versions go.

mod aside;
mod folder;
mod lines;
mod upkeep;

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use tokio::sync::watch;

use super::{Expire, ExpireReport, Options, Report, Rows, append};
use crate::commit::newest;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::Token;
use upkeep::Upkeep;

pub use folder::{Folder, append_folder};
pub use lines::append_lines;

/// How a stream is written.
#[derive(Debug, Clone, Default)]
pub struct Stream {
    /// Its name in the table; without one, what stops is not taken up again where it was.
    pub key: Option<String>,
    /// A commit has at most so many rows.
    pub rows: Option<u64>,
    /// Rows wait for at most so long before they are committed.
    pub time: Option<Duration>,
    /// Small files are compacted after so many commits; never, if `None`.
    pub compact_every: Option<u64>,
    /// Which versions go, as often as files are compacted (every hundred commits, where they are not); none, if `None`.
    pub expire: Option<Expire>,
    /// Once it holds `true`, the stream ends without an error: what is being committed is finished, lines that were read are
    /// committed, nothing more is taken in. Nobody asks, if `None`.
    pub stop: Option<watch::Receiver<bool>>,
}

impl Stream {
    /// Whether it was asked to end.
    fn is_asked_to_end(&self) -> bool {
        self.stop.as_ref().is_some_and(|stop| *stop.borrow())
    }

    /// Waits until it is; for ever, if nobody can ask.
    async fn asked_to_end(&self) {
        if let Some(mut stop) = self.stop.clone() {
            let asked = stop.wait_for(|asked| *asked).await.is_ok();
            if asked {
                return;
            }
        }
        std::future::pending::<()>().await;
    }
}

/// What came of a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Streamed {
    /// Commits made.
    pub commits: u64,
    /// Rows in them.
    pub rows: u64,
    /// Lines of the input that the table had already.
    pub skipped: u64,
    /// Files that were set aside: their rows are not in the table.
    pub set_aside: u64,
}

/// What happens in a stream.
#[derive(Debug)]
pub enum Event<'a> {
    /// Rows were added, or files compacted; or there was nothing to add.
    Report(&'a Report),
    /// Old versions went.
    Expired(&'a ExpireReport),
    /// A file cannot be added, and was moved here.
    SetAside {
        /// Its name in the watched folder.
        name: &'a str,
        /// Where it is now.
        path: &'a Path,
        /// What is wrong with it.
        reason: &'a str,
    },
}

/// Is told of all that happens, and says whether to go on.
pub type Told<'a> = dyn FnMut(&Event<'_>) -> ControlFlow<()> + Send + 'a;

/// How a step ended without an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It was committed now, or had no rows.
    Done,
    /// The table had it.
    Already,
}

/// The commits of a stream.
struct Commits<'a> {
    handle: &'a Handle,
    stream: &'a Stream,
    options: &'a Options,
    told: &'a mut Told<'a>,
    upkeep: Upkeep,
    /// The name in the table, and the last step there, 0 before the first.
    named: Option<(String, u64)>,
    done: Streamed,
    stopped: bool,
}

impl<'a> Commits<'a> {
    /// The stream of this name, where the table has it.
    async fn begin(
        handle: &'a Handle,
        stream: &'a Stream,
        key: Option<&str>,
        options: &'a Options,
        told: &'a mut Told<'a>,
    ) -> Result<Self> {
        let known = match key {
            Some(key) => {
                let newest = newest(handle, options.branch.as_deref()).await?;
                let last = handle.format.last_step(&newest, key).await?;
                Some((key.to_owned(), last.unwrap_or(0)))
            }
            None => None,
        };
        Ok(Self {
            handle,
            stream,
            options,
            told,
            upkeep: Upkeep::new(stream),
            named: known,
            done: Streamed::default(),
            stopped: false,
        })
    }

    /// The last step that the table has of this stream, 0 before the first.
    fn last(&self) -> u64 {
        self.named.as_ref().map_or(0, |(_, last)| *last)
    }

    /// Commits rows as this step, which follows the last one. Where there are none, nothing is committed, and the step is
    /// still to come.
    ///
    /// # Errors
    /// Those of [`append`]; [`Error::Conflict`] when another run of this stream has come further.
    async fn commit(&mut self, rows: Rows, step: u64) -> Result<Step> {
        let options = Options {
            token: self
                .named
                .as_ref()
                .map(|(key, last)| Token::following(key, step, *last)),
            ..self.options.clone()
        };
        let report = append(self.handle, rows, &options).await?;
        let already = report.already.is_some();
        if let Some((_, last)) = self.named.as_mut().filter(|_| report.committed || already) {
            *last = step;
        }
        if already {
            return Ok(Step::Already);
        }
        self.done.rows += report.metric("num_target_rows_inserted");
        self.done.commits += u64::from(report.committed);
        self.tell(&Event::Report(&report));
        if report.committed && !self.is_over() {
            let told = &mut *self.told;
            let stopped = &mut self.stopped;
            let mut tell = |event: &Event<'_>| *stopped |= told(event).is_break();
            self.upkeep
                .after_commit(self.handle, self.options, &mut tell)
                .await;
        }
        Ok(Step::Done)
    }

    /// Whether nothing more is to be taken in.
    fn is_over(&self) -> bool {
        self.stopped || self.stream.is_asked_to_end()
    }

    fn tell(&mut self, event: &Event<'_>) {
        self.stopped |= (self.told)(event).is_break();
    }
}

/// Another run had this step before.
fn overtaken(handle: &Handle, step: u64) -> Error {
    Error::Conflict {
        table: handle.store.location().to_owned(),
        detail: format!("another run of this stream is at work: it committed step {step} before this one"),
    }
}
