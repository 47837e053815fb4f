//! What one submission sends: bytes of its own and shared parts, in order.
//!
//! ```text
//!  owned   [ 22 bytes: frames | 131 bytes ]          one buffer, used again and again
//!  parts     Owned(0..22)  Shared(Bytes)  Owned(22..153)
//! ```

use crate::base::limits::{
    SEND_BATCH_BYTES_KEPT, SEND_BATCHES_BYTES_KEPT, SEND_BATCHES_KEPT, SEND_BYTES_MAX, SEND_BYTES_MORE, SEND_PARTS_MAX,
    SEND_SHARED_BYTES_MIN,
};
use bytes::Bytes;

/// Bytes to send to one link, in order. Kept and used again: emptying it keeps its memory.
#[derive(Debug, Default)]
pub struct Batch {
    owned: Vec<u8>,
    parts: Vec<Part>,
    len: usize,
    /// Where the next byte to send lies: in this part, this far into it.
    at: (usize, usize),
    /// Bytes sent since the loop was last told of them.
    untold: usize,
    ends_stream: bool,
}

#[derive(Debug)]
enum Part {
    /// These bytes of `owned`.
    Owned {
        start: usize,
        end: usize,
    },
    Shared(Bytes),
}

impl Batch {
    /// Appends what `write` appends to the buffer it is given, and answers what it answers.
    #[inline]
    pub fn append<T>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        let start = self.owned.len();
        let answer = write(&mut self.owned);
        let end = self.owned.len();
        self.len += end - start;
        match self.parts.last_mut() {
            _ if end == start => {}
            Some(Part::Owned { end: last_end, .. }) => *last_end = end,
            _ => self.parts.push(Part::Owned { start, end }),
        }
        answer
    }

    /// Appends shared bytes: by reference if they are large or the first, else as a copy beside their neighbours.
    #[inline]
    pub fn push_shared(&mut self, bytes: &Bytes) {
        self.push_joined(bytes, |_, _| None);
    }

    /// Like [`Batch::push_shared`]. Where the last part is shared and small too, `join` may answer both in one piece,
    /// which takes its place.
    #[inline]
    pub fn push_joined(&mut self, bytes: &Bytes, join: impl FnOnce(&Bytes, &Bytes) -> Option<Bytes>) {
        if bytes.is_empty() {
            return;
        }
        if bytes.len() < SEND_SHARED_BYTES_MIN && !self.parts.is_empty() {
            if let Some(Part::Shared(last)) = self.parts.last_mut()
                && let Some(joined) = join(last, bytes)
            {
                self.len += bytes.len();
                *last = joined;
                return;
            }
            self.unshare_small_head();
            self.append(|owned| owned.extend_from_slice(bytes));
            return;
        }
        self.len += bytes.len();
        self.parts.push(Part::Shared(bytes.clone()));
    }

    /// A small shared part that stands alone is referenced; once a second one follows, both are copied together.
    fn unshare_small_head(&mut self) {
        if let [Part::Shared(head)] = &self.parts[..]
            && head.len() < SEND_SHARED_BYTES_MIN
        {
            self.owned.extend_from_slice(head);
            self.parts[0] = Part::Owned { start: 0, end: self.owned.len() };
        }
    }

    /// Bytes not sent yet.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Bytes of its own, those sent already among them.
    pub const fn owned_len(&self) -> usize {
        self.owned.len()
    }

    /// Whether there is nothing to send.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of memory this keeps when it is emptied.
    fn capacity(&self) -> usize {
        self.owned.capacity() + self.parts.capacity() * size_of::<Part>()
    }

    /// Empties it; what was shared is let go.
    fn clear(&mut self) {
        self.owned.clear();
        self.parts.clear();
        self.len = 0;
        self.at = (0, 0);
        self.untold = 0;
        self.ends_stream = false;
    }

    /// Only the end of our side of the stream follows, as soon as this has left ([`Driver::close`](super::Driver::close),
    /// [`Driver::shutdown`](super::Driver::shutdown)): it travels with the last bytes, which saves a segment. Where it does not
    /// follow, those are held back for 200 ms at most.
    pub const fn end_stream(&mut self) {
        self.ends_stream = true;
    }

    /// How it is sent. MSG_NOSIGNAL: an error instead of SIGPIPE. MSG_MORE: the kernel keeps the last segment for what follows
    /// (tcp(7)), and adds the end of the stream to it.
    pub(super) const fn flags(&self) -> libc::c_int {
        libc::MSG_NOSIGNAL | if self.ends_stream { libc::MSG_MORE } else { 0 }
    }

    /// The parts that are not sent yet, in order.
    pub fn remaining(&self) -> impl Iterator<Item = &[u8]> {
        let (first, offset) = self.at;
        self.parts.iter().enumerate().skip(first).map(move |(index, part)| {
            let bytes = match part {
                Part::Owned { start, end } => &self.owned[*start..*end],
                Part::Shared(bytes) => bytes,
            };
            if index == first { &bytes[offset..] } else { bytes }
        })
    }

    /// Bytes that the next submission carries: some parts, and not too much at once.
    pub(super) fn submission_len(&self) -> usize {
        self.remaining().take(SEND_PARTS_MAX).map(<[u8]>::len).sum::<usize>().min(self.at_once(SEND_BYTES_MAX))
    }

    /// Bytes that leave at once where `most` should, at most: all that are left, if they are little more.
    pub(super) const fn at_once(&self, most: usize) -> usize {
        if self.len <= most + SEND_BYTES_MORE { self.len } else { most }
    }

    /// Moves past `count` sent bytes.
    ///
    /// # Panics
    /// If fewer were left: the kernel cannot send what it was not given.
    pub fn advance(&mut self, mut count: usize) {
        assert!(count <= self.len, "{count} bytes sent of {}", self.len);
        self.len -= count;
        self.untold += count;
        while count > 0 {
            let left = self.remaining().next().map_or(0, <[u8]>::len);
            if count < left {
                self.at.1 += count;
                return;
            }
            count -= left;
            self.at = (self.at.0 + 1, 0);
        }
    }

    /// Bytes to send until the loop is told of progress.
    pub(super) const fn bytes_until_told(&self) -> usize {
        SEND_BYTES_MAX.saturating_sub(self.untold)
    }

    /// Whether the loop is to be told of progress now. Answers yes once for each [`SEND_BYTES_MAX`] at least, however
    /// many submissions they took: what a peer must take in a given time is the same for any shape of a batch.
    pub(super) fn take_progress(&mut self) -> bool {
        let is_due = self.bytes_until_told() == 0;
        if is_due {
            self.untold = 0;
        }
        is_due
    }
}

/// Emptied batches that wait to be used again: a busy loop allocates none, an idle connection owns none.
#[derive(Debug, Default)]
pub struct BatchPool {
    #[expect(clippy::vec_box, reason = "boxes go to the driver and come back; a session holds one pointer")]
    batches: Vec<Box<Batch>>,
    /// Bytes of memory that these keep.
    bytes: usize,
}

impl BatchPool {
    /// An empty batch.
    #[inline]
    pub fn take(&mut self) -> Box<Batch> {
        let batch = self.batches.pop().unwrap_or_default();
        self.bytes -= batch.capacity();
        batch
    }

    /// Keeps a batch's memory, unless there are enough or it has grown too large to keep.
    #[inline]
    pub fn put(&mut self, mut batch: Box<Batch>) {
        batch.clear();
        let capacity = batch.capacity();
        let has_room = self.batches.len() < SEND_BATCHES_KEPT && self.bytes + capacity <= SEND_BATCHES_BYTES_KEPT;
        if has_room && capacity <= SEND_BATCH_BYTES_KEPT {
            self.bytes += capacity;
            self.batches.push(batch);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flat(batch: &Batch) -> Vec<u8> {
        batch.remaining().flatten().copied().collect()
    }

    #[test]
    fn parts_keep_their_order_and_neighbours_join() {
        let large = Bytes::from(vec![b'L'; SEND_SHARED_BYTES_MIN]);
        let mut batch = Batch::default();
        batch.append(|out| out.extend_from_slice(b"ab"));
        batch.append(|out| out.extend_from_slice(b"cd"));
        batch.push_shared(&large);
        batch.push_shared(&Bytes::from_static(b"ef"));
        batch.append(|out| out.extend_from_slice(b"gh"));
        assert_eq!(batch.remaining().count(), 3);
        assert_eq!(flat(&batch), [b"abcd", &large[..], b"efgh"].concat());
        assert_eq!(batch.len(), 8 + large.len());
        batch.clear();
        assert!(batch.is_empty() && batch.remaining().next().is_none());
    }

    #[test]
    fn small_shared_parts_are_referenced_alone_and_copied_together() {
        let mut batch = Batch::default();
        batch.push_shared(&Bytes::from_static(b"one"));
        assert_eq!(batch.capacity(), 4 * size_of::<Part>());
        batch.push_shared(&Bytes::from_static(b"two"));
        batch.push_shared(&Bytes::new());
        assert_eq!(batch.remaining().count(), 1);
        assert_eq!(flat(&batch), b"onetwo");
    }

    #[test]
    fn a_pool_keeps_memory_within_bounds_and_no_bytes() {
        let mut pool = BatchPool::default();
        let filled = |bytes: usize| {
            let mut batch = Box::new(Batch::default());
            batch.append(|out| out.resize(bytes, 7));
            batch
        };
        pool.put(filled(100));
        assert!(pool.take().is_empty());
        pool.put(filled(SEND_BATCH_BYTES_KEPT + 1));
        assert_eq!(pool.batches.len(), 0);
        for _ in 0..=SEND_BATCHES_KEPT {
            pool.put(filled(1));
        }
        assert_eq!(pool.batches.len(), SEND_BATCHES_KEPT);
        // Long ones are kept as far as all together stay short.
        let mut pool = BatchPool::default();
        for _ in 0..SEND_BATCHES_KEPT {
            pool.put(filled(SEND_BATCH_BYTES_KEPT / 2));
        }
        assert!(pool.bytes <= SEND_BATCHES_BYTES_KEPT && pool.bytes > SEND_BATCHES_BYTES_KEPT / 2, "{}", pool.bytes);
        let kept = pool.batches.len();
        let taken: Vec<_> = (0..kept).map(|_| pool.take()).collect();
        assert_eq!((taken.len(), pool.bytes), (kept, 0));
    }

    #[test]
    fn progress_is_told_once_for_as_many_bytes_however_they_left() {
        let mut batch = Batch::default();
        batch.append(|out| out.resize(3 * SEND_BYTES_MAX, 7));
        let told: Vec<bool> = [1, SEND_BYTES_MAX - 2, 1, SEND_BYTES_MAX - 1, 2, SEND_BYTES_MAX - 1]
            .into_iter()
            .map(|count| {
                batch.advance(count);
                batch.take_progress()
            })
            .collect();
        assert_eq!(told, [false, false, true, false, true, false]);
        assert_eq!(batch.bytes_until_told(), 1);
        batch.clear();
        assert_eq!(batch.bytes_until_told(), SEND_BYTES_MAX);
    }

    #[test]
    fn every_short_send_leaves_the_rest() {
        let mut whole = Batch::default();
        whole.append(|out| out.extend_from_slice(b"head"));
        let expected = {
            whole.push_shared(&Bytes::from(vec![7; SEND_SHARED_BYTES_MIN]));
            whole.append(|out| out.extend_from_slice(b"tail"));
            flat(&whole)
        };
        let mut sent = 0;
        for step in [1, 3, 1, SEND_SHARED_BYTES_MIN - 2, 1, 0, 4] {
            whole.advance(step);
            sent += step;
            assert_eq!(flat(&whole), expected[sent..]);
            assert_eq!(whole.len(), expected.len() - sent);
        }
        assert!(whole.is_empty());
    }
}
