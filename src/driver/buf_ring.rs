//! Provided buffers: a pool that the kernel takes receive buffers from by itself (Linux 5.19).
//!
//! ```text
//!  entries   [addr,len,id][addr,len,id] …      a ring in shared memory; its tail stands in the first entry
//!  memory    [buffer 0][buffer 1] …            count × bytes_each in one piece, or a block for each
//! ```
//! The kernel reads entries up to the tail; we write entries behind it and then move it (release). A buffer that
//! the kernel handed out is ours until [`BufRing::recycle`] puts it behind the tail again. A block may have been replaced by
//! another one meanwhile: entries name addresses.
#![allow(unsafe_code)]

use super::block::{self, BLOCK_SHARES, Blocks};
use crate::base::fault::{Fault, planted};
use bytes::BytesMut;
use io_uring::Submitter;
use io_uring::types::BufRingEntry;
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

/// Which of a ring's pools a receive is served from. The number is that of its buffer group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pool {
    /// Many short buffers, for connections of which many speak at one time.
    Standard,
    /// A few long ones, for those that send much. They are few because a ring hands them out in turns: all of them have to
    /// stay in the cache.
    Bulk,
}

impl Pool {
    pub(super) const ALL: [Self; 2] = [Self::Standard, Self::Bulk];
}

/// Sizes of a pool.
#[derive(Clone, Copy, Debug)]
pub(super) struct PoolConfig {
    /// Buffers: a power of two, at most 32 768.
    pub(super) count: u16,
    pub(super) bytes_each: u32,
}

impl PoolConfig {
    /// Bytes of all its buffers.
    pub(super) const fn bytes(self) -> u64 {
        self.count as u64 * self.bytes_each as u64
    }
}

/// A ring's pools.
#[derive(Debug)]
pub(super) struct Pools([BufRing; Pool::ALL.len()]);

impl Pools {
    pub(super) fn new(standard: PoolConfig, bulk: PoolConfig) -> io::Result<Self> {
        let pieces = Mapping::new(usize::from(standard.count) * standard.bytes_each as usize)?;
        let mut blocks = Blocks::new(bulk.bytes_each as usize);
        // Whether they will ever be used is not known: the system backs none that was not.
        let at = (0..bulk.count).map(|_| blocks.take()).collect();
        Ok(Self([
            BufRing::new(standard, Memory::Pieces(pieces))?,
            BufRing::new(bulk, Memory::Blocks { at, others: blocks })?,
        ]))
    }

    pub(super) const fn of(&mut self, pool: Pool) -> &mut BufRing {
        &mut self.0[pool as usize]
    }

    /// Registers them with a ring. The owner of both drops the ring first.
    pub(super) fn register(&self, submitter: &Submitter<'_>) -> io::Result<()> {
        Pool::ALL.into_iter().try_for_each(|pool| self.0[pool as usize].register(submitter, pool as u16))
    }

    /// Shows the kernel what has come back since the last time.
    pub(super) fn publish(&self) {
        self.0.iter().for_each(BufRing::publish);
    }

    /// Buffers that the kernel has not.
    #[cfg(feature = "simulation")]
    pub(super) fn out(&self) -> usize {
        self.0.iter().map(BufRing::out).sum()
    }
}

/// A pool of receive buffers, registered with one ring.
#[derive(Debug)]
pub(super) struct BufRing {
    entries: Mapping,
    memory: Memory,
    count: u16,
    bytes_each: u32,
    tail: u16,
    /// Buffers that the kernel handed out and that have not come back.
    lent: u16,
    /// The next entry that a simulated kernel takes.
    #[cfg(feature = "simulation")]
    head: u16,
}

/// Where a pool's buffers lie.
#[derive(Debug)]
enum Memory {
    /// In one piece, one behind the other.
    Pieces(Mapping),
    /// In blocks, by number; where one was taken, an empty one. And the blocks that have no number.
    Blocks { at: Vec<BytesMut>, others: Blocks },
}

impl Memory {
    /// Where a buffer begins.
    fn start_of(&mut self, id: u16, bytes_each: u32) -> NonNull<u8> {
        match self {
            // SAFETY: id < count, so the buffer lies inside the mapping of count × bytes_each bytes.
            Self::Pieces(mapping) => unsafe { mapping.start.add(usize::from(id) * bytes_each as usize) },
            Self::Blocks { at, .. } => NonNull::from(at[usize::from(id)].spare_capacity_mut()).cast(),
        }
    }
}

impl BufRing {
    /// Maps a pool.
    fn new(PoolConfig { count, bytes_each }: PoolConfig, memory: Memory) -> io::Result<Self> {
        assert!(count.is_power_of_two() && bytes_each > 0);
        let entries = Mapping::new(usize::from(count) * size_of::<BufRingEntry>())?;
        let mut ring = Self {
            entries,
            memory,
            count,
            bytes_each,
            tail: 0,
            lent: 0,
            #[cfg(feature = "simulation")]
            head: 0,
        };
        for id in 0..count {
            ring.push(id);
        }
        ring.publish();
        Ok(ring)
    }

    /// Registers it with a ring as buffer group `group`.
    fn register(&self, submitter: &Submitter<'_>, group: u16) -> io::Result<()> {
        let address = self.entries.start.as_ptr() as u64;
        // SAFETY: `address` is a page-aligned mapping of `count` entries that lives as long as `self`, which outlives the
        // registration (field order in `SystemRing`).
        unsafe { submitter.register_buf_ring_with_flags(address, self.count, group, 0) }
    }

    /// Notes that the kernel has handed out a buffer.
    pub(super) fn lend(&mut self, id: u16) {
        assert!(id < self.count, "the kernel handed out buffer {id} of {}", self.count);
        self.lent += 1;
    }

    /// The first `len` bytes of a lent buffer.
    pub(super) fn bytes(&mut self, id: u16, len: u32) -> &mut [u8] {
        assert!(id < self.count && len <= self.bytes_each);
        let start = self.memory.start_of(id, self.bytes_each);
        match &mut self.memory {
            // SAFETY: the bytes are mapped and initialised (anonymous memory), the kernel does not write to a buffer that
            // it has handed out, and `&mut self` keeps any other slice of the pool from existing.
            Memory::Pieces(_) => unsafe { std::slice::from_raw_parts_mut(start.as_ptr(), len as usize) },
            Memory::Blocks { at, .. } => {
                let block = &mut at[usize::from(id)];
                // SAFETY: the kernel has handed it out with so many bytes.
                unsafe { block::received(block, len as usize) };
                block
            }
        }
    }

    /// The block of a lent buffer with its first `len` bytes, if it is one and they are a large share of it. What is left of it
    /// comes back by [`BufRing::recycle_rest`].
    pub(super) fn take(&mut self, id: u16, len: u32) -> Option<BytesMut> {
        assert!(id < self.count && len <= self.bytes_each);
        let Memory::Blocks { at, .. } = &mut self.memory else { return None };
        if (len as usize) * BLOCK_SHARES < self.bytes_each as usize {
            return None;
        }
        let mut block = std::mem::take(&mut at[usize::from(id)]);
        // SAFETY: the kernel has handed it out with so many bytes.
        unsafe { block::received(&mut block, len as usize) };
        Some(block)
    }

    /// Takes a buffer back whose block was taken.
    pub(super) fn recycle_rest(&mut self, id: u16, rest: BytesMut) {
        if let Memory::Blocks { others, .. } = &mut self.memory {
            others.put(rest);
        }
        self.recycle(id);
    }

    /// Takes a buffer back; the kernel sees it after [`BufRing::publish`].
    pub(super) fn recycle(&mut self, id: u16) {
        assert!(self.lent > 0 && id < self.count, "buffer {id} comes back though none is out");
        self.lent -= 1;
        if let Memory::Blocks { at, others } = &mut self.memory {
            let block = &mut at[usize::from(id)];
            block.clear();
            // It was taken.
            if block.capacity() < self.bytes_each as usize {
                *block = others.take();
            }
        }
        // Whoever reads it from now on shall notice.
        #[cfg(feature = "simulation")]
        self.wipe(id);
        self.push(id);
        if planted(Fault::BufferReturnedTwice) {
            self.push(id);
        }
    }

    /// Buffers that nobody has, as far as we have been told.
    pub(super) const fn free(&self) -> usize {
        (self.count - self.lent) as usize
    }

    fn push(&mut self, id: u16) {
        let slot = usize::from(self.tail & (self.count - 1));
        // SAFETY: the start of `count` entries.
        let first = self.entries.start.cast::<BufRingEntry>();
        // SAFETY: slot < count, so it lies inside the mapping.
        let mut entry = unsafe { first.add(slot) };
        // SAFETY: mapped and zeroed at the start, so it is initialised; the kernel does not read entries behind the
        // tail, and the tail (in another field of the first entry) is not touched by the three setters.
        let entry = unsafe { entry.as_mut() };
        entry.set_addr(self.memory.start_of(id, self.bytes_each).as_ptr() as u64);
        entry.set_len(self.bytes_each);
        entry.set_bid(id);
        self.tail = self.tail.wrapping_add(1);
    }

    fn publish(&self) {
        let first = self.entries.start.cast::<BufRingEntry>().as_ptr();
        // SAFETY: `first` is the address of the first entry of an initialised ring.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: the tail is a valid, aligned u16 that lives as long as the mapping; we only write it atomically, and
        // the kernel only reads it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entries are written before the kernel can see them.
        tail.store(self.tail, Ordering::Release);
    }
}

/// The kernel's part of it, where that is simulated.
#[cfg(feature = "simulation")]
impl BufRing {
    /// Takes the next buffer that the kernel was given and shown.
    pub(super) fn hand_out(&mut self) -> Option<u16> {
        let first = self.entries.start.cast::<BufRingEntry>();
        // SAFETY: `first` is the address of the first entry of an initialised ring.
        let tail = unsafe { BufRingEntry::tail(first.as_ptr()) };
        // SAFETY: a valid, aligned u16 that only this thread writes.
        let tail = unsafe { *tail };
        if self.head == tail {
            return None;
        }
        let slot = usize::from(self.head & (self.count - 1));
        // SAFETY: slot < count, so it lies inside the mapping of `count` initialised entries.
        let entry = unsafe { first.add(slot) };
        // SAFETY: as above; nobody writes to it meanwhile.
        let id = unsafe { entry.as_ref() }.bid();
        self.head = self.head.wrapping_add(1);
        Some(id)
    }

    fn wipe(&mut self, id: u16) {
        self.room(id).fill(0xdd);
        if let Memory::Blocks { at, .. } = &mut self.memory {
            at[usize::from(id)].clear();
        }
    }

    /// Bytes of each buffer.
    pub(super) const fn bytes_each(&self) -> usize {
        self.bytes_each as usize
    }

    /// All bytes of a buffer that was handed out.
    pub(super) fn room(&mut self, id: u16) -> &mut [u8] {
        if let Memory::Blocks { at, .. } = &mut self.memory {
            at[usize::from(id)].resize(self.bytes_each as usize, 0);
        }
        self.bytes(id, self.bytes_each)
    }

    const fn out(&self) -> usize {
        (self.count - self.tail.wrapping_sub(self.head)) as usize
    }
}

/// Anonymous memory, page-aligned and zeroed, taken from the system at the start.
#[derive(Debug)]
struct Mapping {
    start: NonNull<u8>,
    bytes: usize,
}

impl Mapping {
    fn new(bytes: usize) -> io::Result<Self> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        // SAFETY: asks for new memory wherever there is room; no memory of ours is touched.
        let start = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protection, flags, -1, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let start = NonNull::new(start.cast::<u8>()).expect("a mapping does not start at address 0");
        Ok(Self { start, bytes })
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly what mmap gave, and nobody uses it after its owner.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}
