//! Small commits, one after the other, of rows as they come: each row once, whatever stops and starts again.
//!
//! Every commit is a step of a stream ([`Token::step`]) and says in the table how far the stream has come: `lines.rs`
//! counts lines of its input, `folder.rs` batches of files, which it notes down before it commits them.

mod folder;
mod lines;

use std::ops::ControlFlow;
use std::time::Duration;

use super::{Compact, Options, Report, Rows, append, compact};
use crate::commit::newest;
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::model::Token;

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
}

/// Is told of every commit, and says whether to go on.
pub type Told<'a> = dyn FnMut(&Report) -> ControlFlow<()> + Send + 'a;

/// The commits of a stream.
struct Commits<'a> {
    handle: &'a Handle,
    stream: &'a Stream,
    options: &'a Options,
    told: &'a mut Told<'a>,
    done: Streamed,
    stopped: bool,
}

impl<'a> Commits<'a> {
    fn new(handle: &'a Handle, stream: &'a Stream, options: &'a Options, told: &'a mut Told<'a>) -> Self {
        Self {
            handle,
            stream,
            options,
            told,
            done: Streamed::default(),
            stopped: false,
        }
    }

    /// The last step that the table has of this stream, 0 before the first.
    async fn last_step(&mut self, key: &str) -> Result<u64> {
        let newest = newest(self.handle, self.options.branch.as_deref()).await?;
        Ok(self.handle.format.last_step(&newest, key).await?.unwrap_or(0))
    }

    async fn commit(&mut self, rows: Rows, key: Option<&str>, step: u64) -> Result<()> {
        let options = Options {
            token: key.map(|key| Token::step(key, step)),
            ..self.options.clone()
        };
        let report = append(self.handle, rows, &options).await?;
        if let (Some(token), Some(_)) = (&options.token, report.already) {
            // We began behind what the table had, so that these rows are not those of that step.
            return Err(Error::Conflict {
                table: self.handle.store.location().to_owned(),
                detail: format!("another run of this stream has come further meanwhile (\"{token}\")"),
            });
        }
        self.done.rows += report
            .metrics
            .get("num_target_rows_inserted")
            .copied()
            .unwrap_or(0);
        self.done.commits += u64::from(report.committed);
        self.tell(&report);
        if report.committed
            && self
                .stream
                .compact_every
                .is_some_and(|every| self.done.commits.is_multiple_of(every))
        {
            let options = Options {
                token: None,
                ..self.options.clone()
            };
            // The rows are committed, whatever comes of this: the next one tries again.
            match compact(self.handle, &Compact::default(), &options).await {
                Ok(report) if report.committed => self.tell(&report),
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "small files could not be compacted"),
            }
        }
        Ok(())
    }

    fn tell(&mut self, report: &Report) {
        self.stopped |= (self.told)(report).is_break();
    }
}
