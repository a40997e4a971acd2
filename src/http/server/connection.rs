//! One connection: reading, writing and lingering, each until a deadline for the whole of it.
//! Who may stay is decided elsewhere; here it is asked for before each step.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant, SystemTime};

use super::seats::{Phase, Seat};
use super::{Caller, Handler, Weight, wake};
use crate::code::Code;
use crate::http::request::{self, HEAD_BYTES_MAX, Head, Method, Parsed, Refusal};
use crate::http::response::Response;

/// Read at once: more than most requests have.
const CHUNK_BYTES: usize = 2 * 1024;

/// What a refused client may still send before it is cut off. Whoever sends more is not listening.
const LINGER_BYTES_MAX: usize = 1024 * 1024;

/// A client's socket.
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) peer: SocketAddr,
}

/// Why there is no answer of the handler's.
pub(super) enum End {
    /// Nobody is there, or nothing was said: nothing is answered.
    Silent,
    /// The request is not taken.
    Refused(Refusal),
    /// The seat is needed, or the service ends.
    Dismissed(Code),
}

/// What has come from the client, left for whoever sends and logs the answer.
#[derive(Default)]
pub(super) struct Heard {
    pub(super) head: Option<Head>,
    received: Vec<u8>,
    /// The request is whole, and nothing has come behind it.
    is_all: bool,
}

/// Reads one request and has it answered.
pub(super) fn converse(seat: &Seat, heard: &mut Heard) -> Result<Response, End> {
    let (handler, limits) = (&*seat.shared.handler, &seat.shared.limits);
    let received = &mut heard.received;
    let (parsed, bytes_used) = read_head(seat, received, limits.head_timeout)?;
    let head = heard.head.insert(parsed);
    let request_bytes = bytes_used + head.body_bytes;
    heard.is_all = received.len() == request_bytes;
    if let Some(response) = handler.before_body(head) {
        return Ok(response);
    }
    if received.len() < request_bytes {
        seat.enter(Phase::Body(head.body_bytes)).map_err(End::Dismissed)?;
        if head.expects_continue && received.len() == bytes_used {
            let interim = b"HTTP/1.1 100 Continue\r\n\r\n";
            let deadline = Instant::now() + limits.write_timeout;
            write_by(&seat.connection.stream, interim, deadline).map_err(|_| End::Silent)?;
        }
        read_body(seat, received, request_bytes, limits.body_timeout)?;
        heard.is_all = true;
    }
    // What comes after is not read: each connection has one request, and is told so.
    received.truncate(request_bytes);
    received.drain(..bytes_used);
    answer(seat, handler, head, std::mem::take(received))
}

fn answer(seat: &Seat, handler: &dyn Handler, head: &Head, body: Vec<u8>) -> Result<Response, End> {
    let phase = match handler.weight(head) {
        Weight::Light => Phase::Light,
        Weight::Heavy => Phase::Heavy,
    };
    seat.enter(phase).map_err(End::Dismissed)?;
    if phase == Phase::Heavy {
        wake::notice_silent_ends(&seat.connection.stream);
    }
    Ok(handler.handle(head, body, &Caller(seat)))
}

fn read_head(seat: &Seat, received: &mut Vec<u8>, timeout: Duration) -> Result<(Head, usize), End> {
    let deadline = Instant::now() + timeout;
    loop {
        let bytes_before = received.len();
        if wake::is_quiet(&seat.connection.stream) {
            // From now on it may have to leave; what has come already is looked at before that.
            seat.enter(Phase::Head).map_err(End::Dismissed)?;
        }
        read_more(seat, received, CHUNK_BYTES, deadline)?;
        // A head that drips is read again line by line, not byte by byte; what is no HTTP shows at the beginning.
        let is_worth_reading = bytes_before == 0 || received[bytes_before..].contains(&b'\n');
        if !is_worth_reading && received.len() <= HEAD_BYTES_MAX {
            continue;
        }
        match request::parse_head(received).map_err(End::Refused)? {
            Parsed::Complete { head, bytes_used } => return Ok((head, bytes_used)),
            Parsed::Incomplete => {}
        }
    }
}

/// Reads on until `received` holds the whole request.
fn read_body(seat: &Seat, received: &mut Vec<u8>, request_bytes: usize, timeout: Duration) -> Result<(), End> {
    let deadline = Instant::now() + timeout;
    // No more than announced: growing by doubling would take twice the memory that bodies may have together.
    received.reserve_exact(request_bytes - received.len());
    while received.len() < request_bytes {
        read_more(seat, received, request_bytes - received.len(), deadline)?;
    }
    Ok(())
}

/// Appends what is there, at least one byte.
fn read_more(seat: &Seat, received: &mut Vec<u8>, bytes_max: usize, deadline: Instant) -> Result<(), End> {
    let mut chunk = [0; CHUNK_BYTES];
    let chunk = &mut chunk[..bytes_max.min(CHUNK_BYTES)];
    seat.check().map_err(End::Dismissed)?;
    match read_by(&seat.connection.stream, chunk, deadline) {
        Ok(0) => {
            seat.check().map_err(End::Dismissed)?;
            if received.is_empty() {
                return Err(End::Silent);
            }
            Err(End::Refused(Refusal::new(400, "the request was cut off")))
        }
        Ok(bytes) => {
            received.extend_from_slice(&chunk[..bytes]);
            Ok(())
        }
        // A browser that opened a connection in advance is not told off.
        Err(error) if error.kind() == io::ErrorKind::TimedOut && !received.is_empty() => {
            Err(End::Refused(Refusal::new(408, "the request did not arrive in time")))
        }
        Err(_) => Err(End::Silent),
    }
}

/// One read, which ends at the deadline with [`io::ErrorKind::TimedOut`].
fn read_by(mut stream: &TcpStream, chunk: &mut [u8], deadline: Instant) -> io::Result<usize> {
    loop {
        stream.set_read_timeout(Some(time_left(deadline)?))?;
        match stream.read(chunk) {
            // Unix says that it would block when the time is over; the next round finds it over.
            Err(error) if is_passing(&error) => {}
            other => return other,
        }
    }
}

/// Everything, or an error at the deadline.
fn write_by(mut stream: &TcpStream, mut bytes: &[u8], deadline: Instant) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.set_write_timeout(Some(time_left(deadline)?))?;
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if is_passing(&error) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), Interrupted | TimedOut | WouldBlock)
}

fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

impl Heard {
    /// The method that the answer is for, also where the head was refused.
    pub(super) fn method(&self) -> Method {
        self.head.as_ref().map_or_else(|| method_of_refused(&self.received), |head| head.method.clone())
    }
}

fn method_of_refused(received: &[u8]) -> Method {
    if request::begins_head_request(received) { Method::Head } else { Method::Get }
}

impl Connection {
    /// Sends the answer; false where nobody waits for it or the connection has to leave.
    pub(super) fn send(&self, seat: &Seat, response: &Response, method: &Method) -> bool {
        if seat.enter(Phase::Writing).is_err() {
            self.send_at_once(response, Some(method));
            return false;
        }
        let bytes = response.to_bytes(method, SystemTime::now());
        let deadline = Instant::now() + seat.shared.limits.write_timeout;
        // Nothing waits in the kernel for more: the end of our side, which follows, sends what is left.
        write_by(&self.stream, &bytes, deadline).is_ok()
    }

    /// Sends what the socket takes without waiting. What has arrived is read first, since closing on unread bytes
    /// sends a reset, which may overtake the answer; it also tells the method where none is known yet.
    pub(super) fn send_at_once(&self, response: &Response, method: Option<&Method>) {
        let attempt = || -> io::Result<()> {
            self.stream.set_nonblocking(true)?;
            let mut chunk = [0; CHUNK_BYTES];
            let bytes_read = (&self.stream).read(&mut chunk).unwrap_or(0);
            let of_bytes = method_of_refused(&chunk[..bytes_read]);
            let bytes = response.to_bytes(method.unwrap_or(&of_bytes), SystemTime::now());
            (&self.stream).write_all(&bytes)?;
            self.stream.shutdown(Shutdown::Write)
        };
        if let Err(error) = attempt() {
            log::debug!("{} did not take its answer: {error}", self.peer);
        }
    }

    /// Waits for the peer to close, in bounds of time and bytes: while it still sends, a reset could overtake the
    /// answer. Whoever has said all and is quiet is not waited for.
    pub(super) fn linger(&self, seat: &Seat, heard: &Heard) {
        let is_over = heard.is_all && wake::is_quiet(&self.stream);
        if is_over || seat.enter(Phase::Lingering).is_err() || self.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + seat.shared.limits.linger_timeout;
        let mut bytes_read = 0;
        let mut chunk = [0; CHUNK_BYTES];
        while bytes_read < LINGER_BYTES_MAX && seat.check().is_ok() {
            match read_by(&self.stream, &mut chunk, deadline) {
                Ok(0) | Err(_) => return,
                Ok(bytes) => bytes_read += bytes,
            }
        }
    }
}
