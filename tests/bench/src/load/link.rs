//! One connection that speaks Kafka's protocol in whole frames.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, Bytes, BytesMut};
use rustix::io::Errno;
use rustix::net::{SendFlags, send};
use towpath_wire::Request;
use towpath_wire::frame::{self, decode_response, encode_request};

/// Where the correlation id stands in a request frame.
const CORRELATION_AT: std::ops::Range<usize> = 8..12;
const FRAME_BYTES_MAX: usize = 128 << 20;
const OUTBOX_BYTES_MAX: usize = 512 << 20;
/// The name by which brokers know the load.
pub(super) const CLIENT_ID: &str = "towpath-bench";
const TIMEOUT: Duration = Duration::from_secs(60);

/// A connection.
#[derive(Debug)]
pub(crate) struct Link {
    stream: TcpStream,
    inbox: BytesMut,
    /// What the socket has not taken yet.
    outbox: BytesMut,
    read_bytes: usize,
    sent: i32,
    received: i32,
}

impl Link {
    /// Connects; one read takes at most `read_bytes`.
    pub(crate) fn connect(address: SocketAddr, read_bytes: usize) -> Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)
            .with_context(|| format!("cannot connect to {address}"))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(TIMEOUT))?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        Ok(Self { stream, inbox: BytesMut::new(), outbox: BytesMut::new(), read_bytes, sent: 0, received: 0 })
    }

    /// The socket, to wait for.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Requests whose responses have not been taken.
    pub(crate) fn in_flight(&self) -> i32 {
        self.sent - self.received
    }

    /// Sends a whole request frame with the next correlation id. Only with few requests under way: it waits for the
    /// broker, which may wait for its responses to be read.
    pub(crate) fn send(&mut self, frame: &mut [u8]) -> Result<()> {
        self.number(frame)?;
        self.stream.write_all(frame).context("cannot send")
    }

    fn number(&mut self, frame: &mut [u8]) -> Result<()> {
        let Some(id) = frame.get_mut(CORRELATION_AT) else { bail!("a frame without a header") };
        id.copy_from_slice(&self.sent.to_be_bytes());
        self.sent += 1;
        Ok(())
    }

    /// Sends a whole request frame without ever waiting: what the socket does not take is kept for
    /// [`Link::send_queued`].
    pub(crate) fn queue(&mut self, frame: &mut [u8]) -> Result<()> {
        self.number(frame)?;
        if self.outbox.len() + frame.len() > OUTBOX_BYTES_MAX {
            bail!("the broker is too slow: {} requests are under way", self.in_flight());
        }
        self.outbox.extend_from_slice(frame);
        self.send_queued()
    }

    /// Whether something waits for the socket.
    pub(crate) fn has_queued(&self) -> bool {
        !self.outbox.is_empty()
    }

    /// Sends what the socket takes.
    pub(crate) fn send_queued(&mut self) -> Result<()> {
        while !self.outbox.is_empty() {
            match send(&self.stream, &self.outbox, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(sent) => self.outbox.advance(sent),
                Err(Errno::AGAIN) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error).context("cannot send"),
            }
        }
        Ok(())
    }

    /// One read from the socket, which waits for something if nothing is there.
    pub(crate) fn fill(&mut self) -> Result<()> {
        let old = self.inbox.len();
        // All of a large frame in few reads.
        let missing = match frame::announced_length(&self.inbox, FRAME_BYTES_MAX)? {
            Some(length) => (length + frame::LENGTH_BYTES).saturating_sub(old),
            None => 0,
        };
        self.inbox.resize(old + missing.max(self.read_bytes), 0);
        let rest = self.inbox.get_mut(old..).unwrap_or_default();
        let read = self.stream.read(rest).context("no answer")?;
        self.inbox.truncate(old + read);
        if read == 0 {
            bail!("the broker closed the connection");
        }
        Ok(())
    }

    /// The next response that has been read whole, without its length; responses come in the requests' order.
    pub(crate) fn take(&mut self) -> Result<Option<Bytes>> {
        let Some(frame) = frame::take_frame(&mut self.inbox, FRAME_BYTES_MAX)? else { return Ok(None) };
        let id = frame.first_chunk::<4>().map(|id| i32::from_be_bytes(*id));
        if id != Some(self.received) {
            bail!("a response has the correlation id {id:?} instead of {}", self.received);
        }
        self.received += 1;
        Ok(Some(frame))
    }

    /// Sends a request in the given version, and waits for its answer; nothing else may be under way.
    pub(crate) fn ask<R: Request>(&mut self, request: &R, version: i16) -> Result<R::Response> {
        let frame = encode_request(request, version, 0, Some(CLIENT_ID))?;
        self.send(&mut frame.into_bytes().to_vec())?;
        let (_, response) = decode_response::<R>(self.receive()?, version)?;
        Ok(response)
    }

    /// Waits for the next response.
    pub(crate) fn receive(&mut self) -> Result<Bytes> {
        loop {
            if let Some(frame) = self.take()? {
                return Ok(frame);
            }
            self.fill()?;
        }
    }
}
