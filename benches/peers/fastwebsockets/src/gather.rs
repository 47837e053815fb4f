//! A stream that writes when it is about to wait for more to read.
//!
//! The crate gives each frame to the stream at once; over a bare socket that is a system call for each. Here small ones
//! wait in a buffer until all that was read is answered. A frame longer than the buffer passes it by.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use tokio::io::{AsyncRead, AsyncWrite, BufWriter, ReadBuf};
use tokio::net::TcpStream;

/// As much as a batch of short messages needs.
pub const GATHERED_BYTES_MAX: usize = 16 << 10;

pub struct Gather(BufWriter<TcpStream>);

impl Gather {
    pub fn new(stream: TcpStream) -> Self {
        Gather(BufWriter::with_capacity(GATHERED_BYTES_MAX, stream))
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut BufWriter<TcpStream>> {
        Pin::new(&mut self.get_mut().0)
    }
}

impl AsyncRead for Gather {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut inner = self.inner();
        let read = inner.as_mut().poll_read(cx, buffer);
        if read.is_pending() {
            ready!(inner.poll_flush(cx))?;
        }
        read
    }
}

impl AsyncWrite for Gather {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.inner().poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
