//! An eventfd that ends a driver's wait from any thread.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;

/// Ends the wait of the driver it came from. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Waker {
    eventfd: Arc<File>,
}

impl Waker {
    pub(super) fn new() -> io::Result<Self> {
        // SAFETY: takes two integers and touches no memory of ours.
        let fd = unsafe { libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: eventfd has just made this descriptor, and nobody else owns it.
        let eventfd = unsafe { File::from_raw_fd(fd) };
        Ok(Self { eventfd: Arc::new(eventfd) })
    }

    /// Wakes it. Cost: one system call, so ask first whether it sleeps.
    pub fn wake(&self) {
        // The counter overflows after 2⁶⁴ − 2 wake-ups; a full counter means that one is on its way already.
        let _ = (&*self.eventfd).write(&1u64.to_ne_bytes());
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        self.eventfd.as_raw_fd()
    }
}
