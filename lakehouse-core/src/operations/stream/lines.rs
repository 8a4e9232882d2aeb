//! Lines of JSON from a pipe, committed every so many rows or so often.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write};

use tempfile::TempDir;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::time::{Instant, timeout_at};

use super::{Commits, Event, Step, Stream, Streamed, Told, overtaken};
use crate::error::{Error, Result};
use crate::format::Handle;
use crate::operations::{InputFormat, Options, Rows};

/// Bytes that are asked of the input at once, and how many such blocks may wait.
const BLOCK: usize = 256 << 10;
const BLOCKS_AHEAD: usize = 16;
/// A line may have so many bytes.
const LONGEST_LINE: usize = 64 << 20;
/// A commit has at most so many bytes of lines.
const MOST_BYTES: u64 = 256 << 20;

/// Adds the rows of an input of JSON lines as they come, in commits of so many rows ([`Stream::rows`]) or after so long
/// ([`Stream::time`]), whichever comes first, until the input ends. A stream that has a name ([`Stream::key`]) skips
/// the lines that the table has: its input must start from the beginning each time. Where it is asked to end
/// ([`Stream::stop`]), a line that is not complete yet is left out.
///
/// # Errors
/// Those of [`crate::operations::append`], naming the lines; what was committed before stays. [`Error::Conflict`] when
/// another run of this stream has come further meanwhile. When the input cannot be read.
pub async fn append_lines(
    handle: &Handle,
    input: impl Read + Send + 'static,
    stream: &Stream,
    options: &Options,
    told: &mut Told<'_>,
) -> Result<Streamed> {
    // The loop below is finished with it before this returns.
    let mut told = |event: &Event<'_>| told(event);
    let key = stream.key.as_deref();
    let mut commits = Commits::begin(handle, stream, key, options, &mut told).await?;
    let mut skip = commits.last();
    let (send, mut blocks) = channel(BLOCKS_AHEAD);
    // Not waited for: a read of a pipe ends when something comes.
    drop(tokio::task::spawn_blocking(move || read(input, &send)));
    let most = stream.rows.unwrap_or(u64::MAX);
    let mut taken = 0;
    let mut chunk = Chunk::new()?;
    while !commits.stopped {
        let block = tokio::select! {
            biased;
            () = stream.asked_to_end(), if !blocks.is_closed() => {
                // What was read is committed: who sent it may not send it again.
                blocks.close();
                continue;
            }
            block = next(&mut blocks, chunk.due(stream)) => block?,
        };
        let Some(block) = block else {
            if chunk.lines > 0 {
                taken += chunk.commit(&mut commits, key, taken).await?;
                continue;
            }
            break;
        };
        let mut rest = block.as_slice();
        while !rest.is_empty() && !commits.stopped {
            if taken < skip {
                let (lines, after) = first_lines(rest, skip - taken);
                taken += lines;
                commits.done.skipped += lines;
                rest = after;
                continue;
            }
            // All that is skipped is behind us.
            skip = 0;
            let (lines, after) = first_lines(rest, most - chunk.lines);
            chunk.write(&rest[..rest.len() - after.len()], lines)?;
            rest = after;
            if chunk.lines >= most || chunk.bytes >= MOST_BYTES {
                taken += chunk.commit(&mut commits, key, taken).await?;
            }
        }
    }
    Ok(commits.done)
}

/// The next lines; `None` at the end of the input, or when the time is over.
async fn next(blocks: &mut Receiver<io::Result<Vec<u8>>>, due: Option<Instant>) -> Result<Option<Vec<u8>>> {
    let block = match due {
        Some(due) => timeout_at(due, blocks.recv()).await.unwrap_or(None),
        None => blocks.recv().await,
    };
    block.transpose().map_err(|error| broken(&error))
}

/// Reads whole lines and hands them on, as soon as there are some.
fn read(mut input: impl Read, send: &Sender<io::Result<Vec<u8>>>) {
    let mut buffer = vec![0; BLOCK];
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let count = match input.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return drop(send.blocking_send(Err(error))),
        };
        let fresh = rest.len();
        rest.extend_from_slice(&buffer[..count]);
        if let Some(end) = rest[fresh..].iter().rposition(|byte| *byte == b'\n') {
            let tail = rest.split_off(fresh + end + 1);
            if send
                .blocking_send(Ok(std::mem::replace(&mut rest, tail)))
                .is_err()
            {
                return;
            }
        } else if rest.len() > LONGEST_LINE {
            let what = format!("a line has more than {LONGEST_LINE} bytes");
            return drop(send.blocking_send(Err(io::Error::new(io::ErrorKind::InvalidData, what))));
        }
    }
    if !rest.is_empty() {
        rest.push(b'\n');
        // Nobody may be there any more.
        drop(send.blocking_send(Ok(rest)));
    }
}

/// How many of the first `most` lines there are, and what comes after them.
fn first_lines(bytes: &[u8], most: u64) -> (u64, &[u8]) {
    let mut lines = 0;
    let mut end = 0;
    while lines < most && end < bytes.len() {
        let length = bytes[end..].iter().position(|byte| *byte == b'\n');
        end += length.map_or(bytes.len() - end, |length| length + 1);
        lines += 1;
    }
    (lines, &bytes[end..])
}

/// Lines that wait to be committed: in a file, which can be read again if another commit comes first.
struct Chunk {
    folder: TempDir,
    file: BufWriter<File>,
    lines: u64,
    bytes: u64,
    since: Option<Instant>,
}

impl Chunk {
    fn new() -> Result<Self> {
        let folder = TempDir::with_prefix("lake-").map_err(|error| broken(&error))?;
        let file = File::create(folder.path().join("lines")).map_err(|error| broken(&error))?;
        Ok(Self {
            folder,
            file: BufWriter::new(file),
            lines: 0,
            bytes: 0,
            since: None,
        })
    }

    fn due(&self, stream: &Stream) -> Option<Instant> {
        Some(self.since? + stream.time?)
    }

    fn write(&mut self, bytes: &[u8], lines: u64) -> Result<()> {
        self.file.write_all(bytes).map_err(|error| broken(&error))?;
        self.lines += lines;
        self.bytes += bytes.len() as u64;
        self.since = self.since.or_else(|| Some(Instant::now()));
        Ok(())
    }

    /// Commits the lines, which come after the first `before` of the input, and is empty again; returns how many.
    async fn commit(&mut self, commits: &mut Commits<'_>, key: Option<&str>, before: u64) -> Result<u64> {
        let mut full = std::mem::replace(self, Self::new()?);
        full.file.flush().map_err(|error| broken(&error))?;
        let path = full.folder.path().join("lines");
        let through = before + full.lines;
        let these = format!("lines {} to {through} of the input", before + 1);
        let rows = Rows::file(&path, Some(InputFormat::Ndjson))?;
        let committed = commits.commit(rows, through).await.map_err(|mut error| {
            if let Error::Invalid { place, .. } = &mut error {
                *place = place.replace(&path.display().to_string(), &these);
            }
            let again = match key {
                Some(key) => format!("; mended, they go on with --stream {key} from the first line"),
                None => String::new(),
            };
            let hint = error.hint().map(|hint| format!("{hint}; ")).unwrap_or_default();
            error.with_hint(format!(
                "{hint}{these} were not committed, those before them were{again}"
            ))
        })?;
        match committed {
            Step::Done => Ok(full.lines),
            Step::Already => Err(overtaken(commits.handle, through)),
        }
    }
}

fn broken(error: &io::Error) -> Error {
    Error::invalid(format!("the lines cannot be read: {error}"), "the input")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_off_the_front() {
        assert_eq!(first_lines(b"a\nb\nc\n", 2), (2, b"c\n".as_slice()));
        assert_eq!(first_lines(b"a\n\nc", 9), (3, b"".as_slice()));
        assert_eq!(first_lines(b"a\n", 0), (0, b"a\n".as_slice()));
    }

    #[tokio::test]
    async fn blocks_are_whole_lines_in_whatever_pieces_they_come() {
        struct Pieces(Vec<&'static [u8]>);
        impl Read for Pieces {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let Some(piece) = self.0.pop() else { return Ok(0) };
                buffer[..piece.len()].copy_from_slice(piece);
                Ok(piece.len())
            }
        }
        let (send, mut blocks) = channel(BLOCKS_AHEAD);
        let pieces = Pieces(vec![b"e", b"\nc\nd", b"b", b"a"]);
        tokio::task::spawn_blocking(move || read(pieces, &send))
            .await
            .unwrap();
        let mut all = Vec::new();
        while let Some(block) = blocks.recv().await {
            all.push(String::from_utf8(block.unwrap()).unwrap());
        }
        assert_eq!(all, ["ab\nc\n", "de\n"]);
    }
}
