//! Receive buffers in memory of our own: one that stays hot, further ones while a loop keeps that.

/// Buffers at most. A loop that recycles at once needs one; one that keeps them all waits for their return.
pub(super) const BUFFERS_MAX: usize = 64;

/// Buffers by number.
pub(super) struct BufferPool {
    buffers: Vec<Box<[u8]>>,
    /// Numbers of those at home. The last one back is the next one out: it is still in the cache.
    free: Vec<u16>,
    bytes_each: usize,
}

impl BufferPool {
    pub(super) const fn new(bytes_each: usize) -> Self {
        Self { buffers: Vec::new(), free: Vec::new(), bytes_each }
    }

    /// How many there are to take.
    pub(super) const fn available(&self) -> usize {
        BUFFERS_MAX - self.buffers.len() + self.free.len()
    }

    /// Lends a buffer, unless all are out.
    pub(super) fn take(&mut self) -> Option<u16> {
        self.free.pop().or_else(|| {
            let id = self.buffers.len();
            (id < BUFFERS_MAX).then(|| {
                self.buffers.push(vec![0; self.bytes_each].into_boxed_slice());
                id as u16
            })
        })
    }

    /// All bytes of a lent buffer.
    pub(super) fn bytes(&mut self, id: u16) -> &mut [u8] {
        &mut self.buffers[usize::from(id)]
    }

    /// Takes a buffer back.
    pub(super) fn put(&mut self, id: u16) {
        debug_assert!(!self.free.contains(&id), "buffer {id} comes back though it is not out");
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
            let id = pool.take().expect("it is at home");
            assert_eq!((id, pool.bytes(id).len(), pool.buffers.len()), (0, 8, 1));
            pool.put(id);
        }
        assert_eq!(pool.available(), BUFFERS_MAX);
    }

    #[test]
    fn whoever_keeps_buffers_gets_others_up_to_the_bound() {
        let mut pool = BufferPool::new(1);
        let lent: Vec<u16> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(lent, (0..BUFFERS_MAX as u16).collect::<Vec<_>>());
        assert_eq!(pool.available(), 0);
        for id in &lent {
            pool.bytes(*id)[0] = *id as u8;
        }
        pool.put(3);
        assert_eq!((pool.available(), pool.take()), (1, Some(3)));
        assert!(lent.iter().all(|id| pool.bytes(*id) == [*id as u8]));
    }
}
