//! What ends a driver's wait from any thread: an eventfd, or what a simulated kernel has in its place.
#![allow(unsafe_code)]

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::sync::Arc;
#[cfg(feature = "simulation")]
use std::sync::atomic::{AtomicBool, Ordering};

/// Ends the wait of the driver it came from. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Waker(Bell);

#[derive(Clone, Debug)]
enum Bell {
    Eventfd(Arc<File>),
    #[cfg(feature = "simulation")]
    Simulated(Arc<AtomicBool>),
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
        Ok(Self(Bell::Eventfd(Arc::new(eventfd))))
    }

    /// Wakes it. Cost: one system call, so ask first whether it sleeps.
    pub fn wake(&self) {
        match &self.0 {
            // The counter overflows after 2⁶⁴ − 2 wake-ups; a full counter means that one is on its way already.
            Bell::Eventfd(eventfd) => drop((&**eventfd).write(&1u64.to_ne_bytes())),
            #[cfg(feature = "simulation")]
            Bell::Simulated(rung) => rung.store(true, Ordering::SeqCst),
        }
    }
}

#[cfg(feature = "simulation")]
impl Waker {
    pub(super) fn simulated() -> Self {
        Self(Bell::Simulated(Arc::default()))
    }

    /// Whether it has been rung and nobody has taken notice.
    pub(super) fn has_rung(&self) -> bool {
        matches!(&self.0, Bell::Simulated(rung) if rung.load(Ordering::SeqCst))
    }

    /// Takes notice.
    pub(super) fn take_rung(&self) -> bool {
        matches!(&self.0, Bell::Simulated(rung) if rung.swap(false, Ordering::SeqCst))
    }
}

impl AsRawFd for Waker {
    fn as_raw_fd(&self) -> RawFd {
        match &self.0 {
            Bell::Eventfd(eventfd) => eventfd.as_raw_fd(),
            #[cfg(feature = "simulation")]
            Bell::Simulated(_) => unreachable!("a simulated bell has no descriptor"),
        }
    }
}
