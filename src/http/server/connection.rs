//! One connection: reads a request and sends the answer, each with a deadline for the whole of it.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Instant, SystemTime};

use super::limits::{Caller, Phase};
use super::unavailable;
use crate::http::request::{self, Method};
use crate::http::sockets::{self, TimedSocket};
use crate::http::{Head, Response};
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
        let mut socket = self.socket();
        let (parsed, head_bytes) = loop {
            self.read_more(&mut socket, received)?;
            if let Some(parsed) = request::parse_head(received)? {
                break parsed;
            }
        };
        let head = request.head.insert(parsed);
        let request_bytes = head_bytes + head.body_bytes;
        request.is_all = received.len() == request_bytes;
        if let Some(response) = self.slots.handler.before_body(head) {
            return Ok(response);
        }
        if received.len() < request_bytes {
            self.enter(Phase::Body, head.body_bytes).map_err(unavailable)?;
            socket = self.socket();
            if head.expects_continue && received.len() == head_bytes {
                socket.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").map_err(|_| None)?;
            }
            while received.len() < request_bytes {
                self.read_more(&mut socket, received)?;
            }
            request.is_all = received.len() == request_bytes;
        }
        // Bytes after the request are not read: each connection has one request, as `Connection: close` says.
        received.truncate(request_bytes);
        received.drain(..head_bytes);
        self.enter(Phase::Answering, 0).map_err(unavailable)?;
        Ok(self.slots.handler.handle(head, std::mem::take(received), self))
    }

    /// Returns the socket with a new deadline.
    fn socket(&self) -> TimedSocket<'_> {
        TimedSocket { stream: &self.connection.stream, deadline: Instant::now() + self.limits.timeout }
    }

    /// Appends the bytes that have arrived, at least one.
    fn read_more(&self, socket: &mut TimedSocket<'_>, received: &mut Vec<u8>) -> Result<(), End> {
        let mut chunk = [0; CHUNK_BYTES];
        let refusal = match socket.read(&mut chunk) {
            Ok(0) => {
                self.check().map_err(unavailable)?;
                Response::error(400, Code::RequestInvalid, "the request was cut off")
            }
            Ok(bytes) => {
                // Growing by doubling would take twice the memory.
                received.reserve_exact(bytes);
                received.extend_from_slice(&chunk[..bytes]);
                return Ok(());
            }
            Err(error) if sockets::is_timeout(&error) => {
                Response::error(408, Code::RequestInvalid, "the request did not arrive in time")
            }
            Err(_) => return Err(None),
        };
        // A browser that opened a connection in advance and sent nothing gets no error.
        Err(Some(refusal).filter(|_| !received.is_empty()))
    }

    /// Sends the answer. If the client still sends, also waits until it closes, because a reset could overtake the
    /// answer. Does not wait for a client that has sent everything and is quiet.
    pub(super) fn send(&self, response: Response, request: &ReceivedRequest) {
        let begins = || request::begins_head_request(&request.received);
        let is_head = request.head.as_ref().map_or_else(begins, |head| head.method == Method::HEAD);
        let body_bytes = if is_head { 0 } else { response.body.len() };
        if self.enter(Phase::Sending, body_bytes).is_err() {
            return self.connection.send_at_once(response, Some(is_head));
        }
        let mut socket = self.socket();
        let sent = socket.write_all(&response.into_bytes(is_head, SystemTime::now()));
        let is_done = sent.is_err() || request.is_all && !sockets::state_of(socket.stream).is_readable;
        // The kernel holds no bytes back: closing our side, here or by the return, sends the rest.
        if !is_done && socket.stream.shutdown(Shutdown::Write).is_ok() {
            let _ = io::copy(&mut socket, &mut io::sink());
        }
    }
}

impl Connection {
    /// Sends as much of the answer as the socket takes without waiting. Reads first what has arrived: closing a socket
    /// with unread bytes sends a reset, which may overtake the answer. If it is not known
    /// whether this is a `HEAD` request, these bytes show it.
    pub(super) fn send_at_once(&self, response: Response, is_head: Option<bool>) {
        let attempt = || -> io::Result<()> {
            self.stream.set_nonblocking(true)?;
            let mut chunk = [0; CHUNK_BYTES];
            let bytes_read = (&self.stream).read(&mut chunk).unwrap_or(0);
            let is_head = is_head.unwrap_or_else(|| request::begins_head_request(&chunk[..bytes_read]));
            (&self.stream).write_all(&response.into_bytes(is_head, SystemTime::now()))?;
            self.stream.shutdown(Shutdown::Write)
        };
        if let Err(error) = attempt() {
            log::debug!("{} did not read its answer: {error}", self.peer);
        }
    }
}
