//! Encoded bytes until they are stored, in buffers of equal size that are used again.

use std::fmt;
use std::io::{self, Write};
use std::mem::take;
use std::sync::Arc;

use bytes::Bytes;

use super::buffers::Buffers;

/// Bytes of a buffer.
const BUFFER: usize = 1 << 20;

/// What is written to a file and was not taken yet.
pub(super) struct Sink {
    buffers: Arc<Buffers>,
    full: Vec<Bytes>,
    /// Bytes in `full`.
    ready: usize,
    /// Grows up to a buffer: many files are smaller.
    last: Vec<u8>,
}

impl Sink {
    pub(super) fn new(buffers: Arc<Buffers>) -> Self {
        Self {
            buffers,
            full: Vec::new(),
            ready: 0,
            last: Vec::new(),
        }
    }

    /// So many bytes are about to be written: spares the steps of growing.
    pub(super) fn expect(&mut self, bytes: u64) {
        let room = (BUFFER - self.last.len()) as u64;
        self.make_room(bytes.min(room) as usize);
    }

    /// Bytes that [`Sink::take_full`] would return.
    pub(super) fn ready(&self) -> usize {
        self.ready
    }

    /// Bytes of memory held.
    pub(super) fn memory(&self) -> usize {
        self.ready + self.last.capacity()
    }

    /// Takes the full buffers, in order.
    pub(super) fn take_full(&mut self) -> Vec<Bytes> {
        self.ready = 0;
        take(&mut self.full)
    }

    /// Takes everything.
    pub(super) fn take_all(&mut self) -> Vec<Bytes> {
        let mut all = self.take_full();
        let last = take(&mut self.last);
        if last.capacity() == BUFFER {
            all.push(self.buffers.lent(last));
        } else {
            all.push(Bytes::from(last));
        }
        all
    }

    fn make_room(&mut self, bytes: usize) {
        let wanted = self.last.len() + bytes;
        if wanted <= self.last.capacity() {
            return;
        }
        if wanted <= BUFFER / 2 {
            self.last.reserve(bytes);
            return;
        }
        let small = std::mem::replace(&mut self.last, self.buffers.lend(BUFFER));
        self.last.extend_from_slice(&small);
    }
}

impl Write for Sink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(BUFFER - self.last.len());
        self.make_room(taken);
        self.last.extend_from_slice(&bytes[..taken]);
        if self.last.len() == BUFFER {
            let full = take(&mut self.last);
            self.ready += full.len();
            let full = self.buffers.lent(full);
            self.full.push(full);
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("ready", &self.ready)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(sink: &mut Sink, from: usize, sizes: &[usize]) -> Vec<u8> {
        let mut all = Vec::new();
        for size in sizes {
            let bytes: Vec<u8> = (all.len()..all.len() + size)
                .map(|at| ((from + at) % 251) as u8)
                .collect();
            sink.write_all(&bytes).unwrap();
            all.extend(bytes);
        }
        all
    }

    #[test]
    fn bytes_come_out_in_order_whatever_their_pieces_were() {
        for sizes in [
            &[3, 0, 900_000, 200_000, 5][..],
            &[BUFFER],
            &[2 * BUFFER + 7, 1],
            &[BUFFER - 1, 1, 1],
        ] {
            let mut sink = Sink::new(Arc::default());
            let mut all = written(&mut sink, 0, sizes);
            let mut taken = sink.take_full();
            assert_eq!(sink.ready(), 0);
            all.extend(written(&mut sink, all.len(), sizes));
            taken.extend(sink.take_all());
            assert_eq!(taken.concat(), all, "{sizes:?}");
        }
    }

    #[test]
    fn buffers_go_back_when_their_bytes_are_let_go_and_small_files_take_none() {
        let buffers = Arc::<Buffers>::default();
        let free = || buffers.free();
        let mut sink = Sink::new(Arc::clone(&buffers));
        written(&mut sink, 0, &[3 * BUFFER + 1]);
        assert_eq!(free(), 0);
        let taken = sink.take_all();
        let slice = taken[1].slice(5..);
        drop(taken);
        assert_eq!(free(), 2);
        drop(slice);
        assert_eq!(free(), 3);
        written(&mut sink, 0, &[2 * BUFFER]);
        assert_eq!(free(), 1);
        let mut small = Sink::new(Arc::clone(&buffers));
        written(&mut small, 0, &[1_000, 1_000]);
        assert!(small.memory() < BUFFER / 8);
        assert_eq!(free(), 1);
    }

    #[test]
    fn what_is_expected_is_made_room_for_up_to_a_buffer() {
        let mut sink = Sink::new(Arc::default());
        sink.expect(u64::MAX);
        assert_eq!(sink.memory(), BUFFER);
        let mut sink = Sink::new(Arc::default());
        sink.expect(1_000);
        assert!((1_000..2_000).contains(&sink.memory()));
    }
}
