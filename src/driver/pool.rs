//! Receive buffers in memory of our own: one that stays hot, further ones while a loop keeps that.

use super::block::{BLOCK_SHARES, Blocks};
use bytes::BytesMut;

/// Buffers at most. A loop that recycles at once needs one; one that keeps them all waits for their return.
pub(super) const BUFFERS_MAX: usize = 64;

/// Buffers by number.
pub(super) struct BufferPool {
    /// Those that are out; at the numbers of others, empty ones.
    out: Vec<BytesMut>,
    /// Numbers of those at home.
    free: Vec<u16>,
    home: Blocks,
    bytes_each: usize,
}

impl BufferPool {
    pub(super) const fn new(bytes_each: usize) -> Self {
        Self { out: Vec::new(), free: Vec::new(), home: Blocks::new(bytes_each), bytes_each }
    }

    /// Bytes of each.
    pub(super) const fn bytes_each(&self) -> usize {
        self.bytes_each
    }

    /// How many there are to take.
    pub(super) const fn available(&self) -> usize {
        BUFFERS_MAX - self.out.len() + self.free.len()
    }

    /// Lends a buffer, unless all are out.
    pub(super) fn lend(&mut self) -> Option<u16> {
        let id = self.free.pop().or_else(|| {
            let id = self.out.len();
            (id < BUFFERS_MAX).then(|| {
                self.out.push(BytesMut::new());
                id as u16
            })
        })?;
        self.out[usize::from(id)] = self.home.take();
        Some(id)
    }

    /// A lent buffer, which the bytes that are received are put into.
    pub(super) fn buffer(&mut self, id: u16) -> &mut BytesMut {
        &mut self.out[usize::from(id)]
    }

    /// A lent buffer for good, if what is in it is no small part of it. What is left of it comes back by
    /// [`BufferPool::put_rest`].
    pub(super) fn take(&mut self, id: u16) -> Option<BytesMut> {
        let buffer = &mut self.out[usize::from(id)];
        (buffer.len() * BLOCK_SHARES >= self.bytes_each).then(|| std::mem::take(buffer))
    }

    /// Takes a buffer back.
    pub(super) fn put(&mut self, id: u16) {
        let buffer = std::mem::take(&mut self.out[usize::from(id)]);
        self.put_rest(id, buffer);
    }

    /// Takes a buffer back that was taken.
    pub(super) fn put_rest(&mut self, id: u16, rest: BytesMut) {
        debug_assert!(!self.free.contains(&id), "buffer {id} comes back though it is not out");
        self.home.put(rest);
        self.free.push(id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_buffer_serves_whoever_gives_it_back() {
        let mut pool = BufferPool::new(8);
        for _ in 0..3 {
            let id = pool.lend().expect("it is at home");
            assert_eq!((id, pool.buffer(id).capacity(), pool.out.len()), (0, 8, 1));
            pool.put(id);
        }
        assert_eq!(pool.available(), BUFFERS_MAX);
    }

    #[test]
    fn whoever_keeps_buffers_gets_others_up_to_the_bound() {
        let mut pool = BufferPool::new(1);
        let lent: Vec<u16> = std::iter::from_fn(|| pool.lend()).collect();
        assert_eq!(lent, (0..BUFFERS_MAX as u16).collect::<Vec<_>>());
        assert_eq!(pool.available(), 0);
        for id in &lent {
            pool.buffer(*id).extend_from_slice(&[*id as u8]);
        }
        pool.put(3);
        assert_eq!((pool.available(), pool.lend()), (1, Some(3)));
        assert!(lent.iter().filter(|id| **id != 3).all(|id| pool.buffer(*id)[..] == [*id as u8]));
    }
}
