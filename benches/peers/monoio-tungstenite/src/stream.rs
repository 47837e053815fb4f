//! What the WebSockets of this peer read from, and what becomes of the control frames that they write by themselves.

use monoio::BufResult;
use monoio::buf::{IoBuf, IoBufMut, IoVecBuf, IoVecBufMut};
use monoio::io::{AsyncReadRent, AsyncWriteRent, AsyncWriteRentExt};
use monoio::net::TcpStream;
use monoio::net::tcp::TcpOwnedReadHalf;
use std::cell::RefCell;
use std::io;
use std::rc::Rc;

/// Frames that wait for a write.
pub type Unsent = Rc<RefCell<Vec<u8>>>;

/// A connection that sends what waits when it is about to be read from: by then, all that was read before is answered.
/// The WebSocket itself does not say whether it has another message, and a read of it that has begun must not be
/// dropped.
pub struct Answering {
    stream: TcpStream,
    unsent: Unsent,
}

impl Answering {
    pub fn new(stream: TcpStream, unsent: Unsent) -> Self {
        Answering { stream, unsent }
    }

    pub async fn send(&mut self) -> io::Result<()> {
        let unsent = self.unsent.take();
        if unsent.is_empty() {
            return Ok(());
        }
        let (result, mut sent) = self.stream.write_all(unsent).await;
        sent.clear();
        self.unsent.replace(sent);
        result.map(drop)
    }
}

impl AsyncReadRent for Answering {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        match self.send().await {
            Ok(()) => self.stream.read(buffer).await,
            Err(error) => (Err(error), buffer),
        }
    }

    async fn readv<T: IoVecBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        match self.send().await {
            Ok(()) => self.stream.readv(buffer).await,
            Err(error) => (Err(error), buffer),
        }
    }
}

impl AsyncWriteRent for Answering {
    async fn write<T: IoBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        match self.send().await {
            Ok(()) => self.stream.write(buffer).await,
            Err(error) => (Err(error), buffer),
        }
    }

    async fn writev<T: IoVecBuf>(&mut self, buffers: T) -> BufResult<usize, T> {
        match self.send().await {
            Ok(()) => self.stream.writev(buffers).await,
            Err(error) => (Err(error), buffers),
        }
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        self.send().await?;
        self.stream.shutdown().await
    }
}

/// The reading half of a connection. What the WebSocket writes by itself goes nowhere: the other half belongs to
/// somebody else, and its owner answers pings.
pub struct Reading(pub TcpOwnedReadHalf);

impl AsyncReadRent for Reading {
    async fn read<T: IoBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        self.0.read(buffer).await
    }

    async fn readv<T: IoVecBufMut>(&mut self, buffer: T) -> BufResult<usize, T> {
        self.0.readv(buffer).await
    }
}

impl AsyncWriteRent for Reading {
    async fn write<T: IoBuf>(&mut self, buffer: T) -> BufResult<usize, T> {
        (Ok(buffer.bytes_init()), buffer)
    }

    async fn writev<T: IoVecBuf>(&mut self, buffers: T) -> BufResult<usize, T> {
        // The crate has no use for it.
        (Err(io::ErrorKind::Unsupported.into()), buffers)
    }

    async fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }

    async fn shutdown(&mut self) -> io::Result<()> {
        Ok(())
    }
}
