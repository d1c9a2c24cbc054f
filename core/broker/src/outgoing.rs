//! Answers on their way out: bytes in memory, and pieces of files that need not come through memory.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncWrite, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use towpath_log::FileSlice;
use towpath_wire::Segments;

use crate::stream::Stream;

/// Pieces of memory that one system call writes.
const SLICES_MAX: usize = 32;
/// Answers of less than this together wait for those of the same burst.
const SMALL_BYTES: usize = 4 * 1024;
/// Bytes of a file that are read at a time where it cannot be sent directly.
const CHUNK_BYTES: usize = 256 * 1024;
/// Bytes that one call of sendfile moves, so that no connection keeps a thread for long.
const SENDFILE_BYTES: usize = 1024 * 1024;

/// One piece of an answer.
#[derive(Debug)]
pub(crate) enum Part {
    /// Bytes in memory.
    Bytes(Bytes),
    /// Bytes in a file.
    File(FileSlice),
}

/// A whole answer, its length in front.
#[derive(Debug, Default)]
pub(crate) struct Frame {
    pub(crate) parts: Vec<Part>,
}

impl From<Segments> for Frame {
    fn from(segments: Segments) -> Self {
        Self { parts: segments.into_vec().into_iter().map(Part::Bytes).collect() }
    }
}

impl Frame {
    /// A whole answer that another node has encoded, its length in front.
    pub(crate) fn from_bytes(bytes: Bytes) -> Self {
        Self { parts: vec![Part::Bytes(bytes)] }
    }

    /// The whole answer in one piece. Answers with pieces of files are not for nodes: they give nothing of these.
    pub(crate) fn into_bytes(self) -> Bytes {
        let mut parts = self.parts.into_iter().filter_map(|part| match part {
            Part::Bytes(bytes) => Some(bytes),
            Part::File(_) => None,
        });
        let first = parts.next().unwrap_or_default();
        let mut joined = BytesMut::from(first);
        parts.for_each(|part| joined.extend_from_slice(&part));
        joined.freeze()
    }

    /// Bytes that the answer holds in memory.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.parts
            .iter()
            .map(|part| match part {
                Part::Bytes(bytes) => bytes.len(),
                Part::File(_) => 0,
            })
            .sum()
    }
}

/// Why an answer could not be written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    #[error("the connection failed")]
    Io(#[from] io::Error),
    #[error("a segment could not be read")]
    Log(#[from] towpath_log::LogError),
    #[error("the client has read nothing for {} s", .0.as_secs())]
    Stalled(Duration),
}

/// What waits to be written.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    parts: VecDeque<Part>,
    memory_bytes: usize,
}

impl Outgoing {
    pub(crate) fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Whether others may join what waits: it is a few bytes, in memory.
    pub(crate) fn is_small(&self) -> bool {
        self.parts.len() < SLICES_MAX
            && self.memory_bytes < SMALL_BYTES
            && self.parts.iter().all(|part| matches!(part, Part::Bytes(_)))
    }

    /// Bytes in memory that wait.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.memory_bytes
    }

    pub(crate) fn push(&mut self, frame: Frame) {
        self.memory_bytes += frame.memory_bytes();
        self.parts.extend(frame.parts.into_iter().filter(|part| match part {
            Part::Bytes(bytes) => !bytes.is_empty(),
            Part::File(slice) => slice.length > 0,
        }));
    }

    /// Writes everything. R10: a client that reads nothing for `stall` ends its connection, and meanwhile nothing is
    /// read from it, so that what it makes us hold is bounded. `progress` is called after each step.
    pub(crate) async fn write_all(
        &mut self,
        stream: &mut Stream,
        stall: Duration,
        mut progress: impl FnMut(),
    ) -> Result<(), WriteError> {
        while !self.parts.is_empty() {
            match tokio::time::timeout(stall, self.write_step(stream)).await {
                Ok(Ok(0)) => return Err(io::Error::from(io::ErrorKind::WriteZero).into()),
                Ok(result) => result?,
                Err(_) => return Err(WriteError::Stalled(stall)),
            };
            progress();
        }
        stream.flush().await?;
        Ok(())
    }

    /// Writes what one call takes.
    async fn write_step(&mut self, stream: &mut Stream) -> Result<usize, WriteError> {
        let Some(Part::File(slice)) = self.parts.front_mut() else { return self.write_memory(stream).await };
        let written = write_file(stream, slice).await?;
        slice.position += written as u64;
        slice.length -= written;
        if slice.length == 0 {
            self.parts.pop_front();
        }
        Ok(written)
    }

    async fn write_memory(&mut self, stream: &mut Stream) -> Result<usize, WriteError> {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let mut count = 0;
        let mut before_file = false;
        for part in &self.parts {
            match part {
                Part::Bytes(bytes) if count < SLICES_MAX => {
                    slices[count] = IoSlice::new(bytes);
                    count += 1;
                }
                Part::Bytes(_) => break,
                Part::File(_) => {
                    before_file = true;
                    break;
                }
            }
        }
        let written = match stream {
            Stream::Tcp(socket) if before_file => send_more(socket, &slices[..count]).await?,
            _ => stream.write_vectored(&slices[..count]).await?,
        };
        self.advance(written);
        Ok(written)
    }

    fn advance(&mut self, mut written: usize) {
        self.memory_bytes = self.memory_bytes.saturating_sub(written);
        while let Some(Part::Bytes(bytes)) = self.parts.front_mut() {
            if written < bytes.len() {
                bytes.advance(written);
                return;
            }
            written -= bytes.len();
            self.parts.pop_front();
            if written == 0 {
                return;
            }
        }
    }
}

/// Writes memory and says that more follows, so that a header does not travel alone before the file's bytes.
async fn send_more(socket: &TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    socket
        .async_io(Interest::WRITABLE, || {
            let sent = rustix::net::sendmsg(
                socket,
                slices,
                &mut rustix::net::SendAncillaryBuffer::default(),
                rustix::net::SendFlags::MORE | rustix::net::SendFlags::NOSIGNAL,
            )?;
            Ok(sent)
        })
        .await
}

/// Writes some of a file: from the page cache to the socket where that is possible.
async fn write_file(stream: &mut Stream, slice: &FileSlice) -> Result<usize, WriteError> {
    if let Stream::Tcp(socket) = stream
        && let Some(file) = slice.sendfile_source()
    {
        let bytes = slice.length.min(SENDFILE_BYTES);
        let sent = socket
            .async_io(Interest::WRITABLE, || {
                let mut position = slice.position;
                Ok(rustix::fs::sendfile(&*socket, &*file, Some(&mut position), bytes)?)
            })
            .await?;
        return Ok(sent);
    }
    let mut chunk = slice.clone();
    chunk.length = chunk.length.min(CHUNK_BYTES);
    let mut bytes = chunk.read()?;
    let length = bytes.len();
    while bytes.has_remaining() {
        let written = stream.write(&bytes).await?;
        if written == 0 {
            return Ok(0);
        }
        bytes.advance(written);
    }
    Ok(length)
}

const _: fn() = || {
    fn writable<T: AsyncWrite>() {}
    writable::<Stream>();
};
