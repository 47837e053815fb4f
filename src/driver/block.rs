//! Memory that may leave the driver with what was received in it: long receive buffers, and rooms.
//!
//! A block is lent like any buffer, or taken. Of one that was taken parts may be split off and shared
//! ([`BytesMut::split_to`], [`BytesMut::freeze`]); what is left of it comes back, and serves again once nobody shares its memory.
//! A room is the loop's own memory: a message that is too long for a block is received straight behind what has come of it.
#![allow(unsafe_code)]

use bytes::BytesMut;
use socket2::Socket;
use std::collections::VecDeque;
use std::io;
use std::ptr::NonNull;

/// Blocks that rest until nobody shares them, at most. Of one more the pool lets go: it belongs to whoever shares it.
const RESTING_MAX: usize = 32;
/// Of these, so many are looked at for one that is free. The oldest is, unless its reader is slow.
const RESTING_LOOKED_AT: usize = 4;

/// A part of a block that is taken rather than lent is at least so large a share of it: so whoever keeps one message keeps at
/// most so many times its memory.
pub const BLOCK_SHARES: usize = 4;

/// Blocks of one length that serve no receive at the moment.
#[derive(Debug)]
pub(super) struct Blocks {
    resting: VecDeque<BytesMut>,
    bytes_each: usize,
}

impl Blocks {
    pub(super) const fn new(bytes_each: usize) -> Self {
        Self { resting: VecDeque::new(), bytes_each }
    }

    /// An empty block: one that has served before, or a new one.
    pub(super) fn take(&mut self) -> BytesMut {
        for _ in 0..self.resting.len().min(RESTING_LOOKED_AT) {
            let Some(mut block) = self.resting.pop_front() else { break };
            if block.try_reclaim(self.bytes_each) {
                return block;
            }
            self.resting.push_back(block);
        }
        BytesMut::with_capacity(self.bytes_each)
    }

    /// Takes back what is left of a block.
    pub(super) fn put(&mut self, mut rest: BytesMut) {
        rest.clear();
        if rest.try_reclaim(self.bytes_each) {
            // Nobody shares it. It is the next one out: it is still in the cache.
            return self.resting.push_front(rest);
        }
        if self.resting.len() == RESTING_MAX {
            self.resting.pop_front();
        }
        self.resting.push_back(rest);
    }
}

/// Receives into an empty block.
pub(super) fn receive(socket: &Socket, block: &mut BytesMut) -> io::Result<usize> {
    debug_assert!(block.is_empty());
    let count = socket.recv(block.spare_capacity_mut())?;
    // SAFETY: the call has written so many bytes at the start of what was spare, and that is all of it.
    unsafe { block.set_len(count) };
    Ok(count)
}

/// Notes that the kernel has written so many bytes into an empty block.
///
/// # Safety
/// It has, and does not write to the block any more.
pub(super) unsafe fn received(block: &mut BytesMut, count: usize) {
    assert!(count <= block.capacity());
    // SAFETY: within the capacity; the caller vouches for the bytes.
    unsafe { block.set_len(count) };
}

/// Memory that is received into: behind what stands in it already.
#[derive(Debug, Default)]
pub struct Room {
    bytes: Vec<u8>,
    /// So many bytes at most, which it has capacity for.
    most: usize,
}

impl Room {
    /// Room behind these bytes for at most `most` more, as far as there is capacity for them: 1 at least.
    ///
    /// # Panics
    /// If that is none: to receive nothing is to hear that the stream has ended.
    pub const fn behind(bytes: Vec<u8>, most: usize) -> Self {
        let spare = bytes.capacity() - bytes.len();
        assert!(most > 0 && spare > 0, "a room has room");
        Self { bytes, most: if most < spare { most } else { spare } }
    }

    /// The bytes that were there, and those that were received.
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Receives.
    pub(super) fn receive(&mut self, socket: &Socket) -> io::Result<usize> {
        let most = self.most;
        let count = socket.recv(&mut self.bytes.spare_capacity_mut()[..most])?;
        // SAFETY: the call has written so many bytes.
        unsafe { self.received(count) };
        Ok(count)
    }

    pub(super) const fn len(&self) -> usize {
        self.most
    }

    /// What the kernel is given of it.
    pub(super) fn target(&mut self) -> RoomTarget {
        let most = self.most.min(i32::MAX as usize) as u32;
        RoomTarget { start: NonNull::from(self.bytes.spare_capacity_mut()).cast(), len: most }
    }

    /// Notes that the kernel has written so many bytes.
    ///
    /// # Safety
    /// It has, behind those that were there, and does not write to it any more.
    pub(super) unsafe fn received(&mut self, count: usize) {
        assert!(count <= self.most);
        self.most -= count;
        // SAFETY: within the capacity; the caller vouches for the bytes.
        unsafe { self.bytes.set_len(self.bytes.len() + count) };
    }
}

/// Where the kernel writes: memory that whoever submits it keeps as it is until the completion has come.
#[derive(Clone, Copy, Debug)]
pub(super) struct RoomTarget {
    pub(super) start: NonNull<u8>,
    pub(super) len: u32,
}

impl RoomTarget {
    /// Writes as the kernel does.
    #[cfg(feature = "simulation")]
    pub(super) fn write(self, bytes: &[u8]) {
        assert!(bytes.len() <= self.len as usize);
        // SAFETY: the rule that whoever submits it keeps: the memory is there, so long, and nobody looks at it.
        unsafe { self.start.copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(blocks: &mut Blocks) -> BytesMut {
        let mut block = blocks.take();
        block.extend_from_slice(&[7; 100]);
        block
    }

    #[test]
    fn a_block_serves_again_once_nobody_shares_it() {
        let mut blocks = Blocks::new(100);
        let mut block = filled(&mut blocks);
        let address = block.as_ptr();
        let shared = block.split_to(60).freeze();
        blocks.put(block);
        let other = filled(&mut blocks);
        assert_ne!(other.as_ptr(), address, "it is shared");
        assert_eq!(shared, [7; 60][..]);
        drop(shared);
        let again = blocks.take();
        assert_eq!((again.as_ptr(), again.len(), again.capacity()), (address, 0, 100));
        // The last one back is the next one out.
        let address = other.as_ptr();
        blocks.put(again);
        blocks.put(other);
        assert_eq!(blocks.take().as_ptr(), address);
    }

    #[test]
    fn the_pool_lets_go_of_what_is_shared_for_long() {
        let mut blocks = Blocks::new(100);
        let shared: Vec<_> = (0..2 * RESTING_MAX)
            .map(|_| {
                let mut block = filled(&mut blocks);
                let part = block.split_to(50).freeze();
                blocks.put(block);
                part
            })
            .collect();
        assert_eq!(blocks.resting.len(), RESTING_MAX);
        assert!(shared.iter().all(|part| part == &[7; 50][..]));
    }
}
