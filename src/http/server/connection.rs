//! One connection: reads a request and sends the answer, each with a deadline for the whole of it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use super::limits::{Caller, Phase};
use super::unavailable;
use crate::http::request::{self, Head, Method, Refusal};
use crate::http::response::Response;
use crate::http::sockets;
use crate::model::Code;

/// The most bytes of one read: more than most requests have.
const CHUNK_BYTES: usize = 2 * 1024;

/// A client's socket.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
}

/// The answer to a request that does not reach the handler; `None` if the client is gone or has sent nothing.
type End = Option<Response>;

/// What the client has sent so far, kept to send and to log the answer.
#[derive(Default)]
pub(super) struct ReceivedRequest {
    pub(super) head: Option<Head>,
    received: Vec<u8>,
    /// Whether the request is complete and nothing follows it.
    is_all: bool,
}

impl Caller {
    /// Reads one request and returns its answer.
    pub(super) fn answer(&self, request: &mut ReceivedRequest) -> Result<Response, End> {
        let received = &mut request.received;
        let (parsed, bytes_used) = self.read_head(received)?;
        let head = request.head.insert(parsed);
        let request_bytes = bytes_used + head.body_bytes;
        request.is_all = received.len() == request_bytes;
        if let Some(response) = self.slots.handler.before_body(head) {
            return Ok(response);
        }
        if received.len() < request_bytes {
            self.enter(Phase::Body(head.body_bytes)).map_err(closed)?;
            let deadline = Instant::now() + self.limits.timeout;
            if head.expects_continue && received.len() == bytes_used {
                write_by(self.stream(), b"HTTP/1.1 100 Continue\r\n\r\n", deadline).map_err(|_| None)?;
            }
            while received.len() < request_bytes {
                self.read_more(received, deadline)?;
            }
            request.is_all = received.len() == request_bytes;
        }
        // Bytes after the request are not read: each connection has one request, as `Connection: close` says.
        received.truncate(request_bytes);
        received.drain(..bytes_used);
        self.enter(Phase::Answering).map_err(closed)?;
        Ok(self.slots.handler.handle(head, std::mem::take(received), self))
    }

    fn stream(&self) -> &TcpStream {
        &self.connection.stream
    }

    fn read_head(&self, received: &mut Vec<u8>) -> Result<(Head, usize), End> {
        let deadline = Instant::now() + self.limits.timeout;
        loop {
            self.read_more(received, deadline)?;
            if let Some(parsed) = request::parse_head(received).map_err(|refusal| refused(&refusal))? {
                return Ok(parsed);
            }
        }
    }

    /// Appends the bytes that have arrived, at least one.
    fn read_more(&self, received: &mut Vec<u8>, deadline: Instant) -> Result<(), End> {
        let mut chunk = [0; CHUNK_BYTES];
        match read_by(self.stream(), &mut chunk, deadline) {
            Ok(0) => {
                self.check().map_err(closed)?;
                if received.is_empty() {
                    return Err(None);
                }
                Err(refused(&Refusal::new(400, "the request was cut off")))
            }
            Ok(bytes) => {
                // Growing by doubling would take twice the memory.
                received.reserve_exact(bytes);
                received.extend_from_slice(&chunk[..bytes]);
                Ok(())
            }
            // A browser that opened a connection in advance and sent nothing gets no error.
            Err(error) if error.kind() == io::ErrorKind::TimedOut && !received.is_empty() => {
                Err(refused(&Refusal::new(408, "the request did not arrive in time")))
            }
            Err(_) => Err(None),
        }
    }

    /// Sends the answer. If the client still sends, also waits until it closes, because a reset could overtake the
    /// answer. Does not wait for a client that has sent everything and is quiet.
    pub(super) fn send(&self, mut response: Response, request: &ReceivedRequest) {
        let is_head = request.is_head();
        let head = response.head(SystemTime::now());
        if is_head {
            response.body = Vec::new();
        }
        if self.enter(Phase::Sending(response.body.len())).is_err() {
            return self.connection.send_at_once(&response, Some(is_head));
        }
        let (stream, deadline) = (self.stream(), Instant::now() + self.limits.timeout);
        let parts = [head.as_bytes(), &response.body];
        let sent = parts.iter().try_for_each(|part| write_by(stream, part, deadline));
        let is_done = sent.is_err() || request.is_all && !sockets::state_of(stream).is_readable;
        // The kernel holds no bytes back: closing our side, here or by the return, sends the rest.
        if is_done || stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        while let Ok(1..) = read_by(stream, &mut [0; CHUNK_BYTES], deadline) {}
    }
}

fn refused(refusal: &Refusal) -> End {
    Some(Response::from(refusal))
}

fn closed(code: Code) -> End {
    Some(unavailable(code))
}

/// Reads once. Returns [`io::ErrorKind::TimedOut`] at the deadline.
fn read_by(mut stream: &TcpStream, chunk: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(chunk) {
            // Unix returns `WouldBlock` when the time is over. The next round then returns `TimedOut`.
            Err(error) if is_transient(&error) => {}
            other => return other,
        }
    }
}

/// Writes everything, or returns an error at the deadline.
fn write_by(mut stream: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_transient(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl ReceivedRequest {
    /// Whether it is a `HEAD` request, also if its head was refused.
    fn is_head(&self) -> bool {
        let begins = || request::begins_head_request(&self.received);
        self.head.as_ref().map_or_else(begins, |head| head.method == Method::HEAD)
    }
}

impl Connection {
    /// Sends as much of the answer as the socket takes without waiting. Reads first what has arrived: closing a socket
    /// with unread bytes sends a reset, which may overtake the answer. If it is not known
    /// whether this is a `HEAD` request, these bytes show it.
    pub(super) fn send_at_once(&self, response: &Response, is_head: Option<bool>) {
        let attempt = || -> io::Result<()> {
            self.stream.set_nonblocking(true)?;
            let mut chunk = [0; CHUNK_BYTES];
            let bytes_read = (&self.stream).read(&mut chunk).unwrap_or(0);
            let is_head = is_head.unwrap_or_else(|| request::begins_head_request(&chunk[..bytes_read]));
            let bytes = response.to_bytes(is_head, SystemTime::now());
            (&self.stream).write_all(&bytes)?;
            self.stream.shutdown(Shutdown::Write)
        };
        if let Err(error) = attempt() {
            log::debug!("{} did not read its answer: {error}", self.peer);
        }
    }
}
