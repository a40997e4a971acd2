//! The listener: sockets, threads, deadlines, seats and the end of it all. The one place that opens a listening socket.
//! What a request means it does not know; it hands the head to a [`Handler`], then the body, and sends what comes back.
//!
//! Each connection has a seat, a thread and one request. A seat is held for seconds by whoever is slow, and for as long
//! as it takes by a heavy request whose answer is being made; when all of those are taken, callers that went away give
//! theirs up. Heavy requests never get all seats, and of the others one that is slow leaves when a
//! newcomer finds none: so `/health` is always let in. Where there are no threads, connections are served one by one.

mod connection;
mod crew;
mod seats;
mod wake;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::http::request::Head;
use crate::http::response::Response;
use connection::{Connection, Heard};
use crew::Crew;
use seats::{Seat, Seats};
use wake::{Sleeper, Waker};

/// What answers the requests.
pub trait Handler: Send + Sync {
    /// Whether the request may wait for minutes. Asked after [`Handler::before_body`] let it pass.
    fn weight(&self, head: &Head) -> Weight;

    /// The answer where the head alone decides it (404, 405, 401, 415); the body is then not read.
    fn before_body(&self, head: &Head) -> Option<Response>;

    /// The answer to the whole request. May block, as long as `caller` is not dismissed; runs on a small stack.
    fn handle(&self, head: &Head, body: Vec<u8>, caller: &Caller<'_>) -> Response;

    /// Told after a caller was dismissed whose answer is being made: who blocks in [`Handler::handle`] looks again.
    fn look_again(&self) {}

    /// Told once for each answer, before it is sent; without a head where the bytes were none or were not read.
    fn answered(&self, _head: Option<&Head>, _status: u16) {}
}

/// Who waits for an answer.
pub struct Caller<'a>(&'a Seat);

impl Caller<'_> {
    /// Whether its seat is given to another: it had ended its side, and so is gone in all likelihood. Nobody waits any
    /// more until it has taken its answer.
    #[must_use]
    pub fn is_dismissed(&self) -> bool {
        self.0.check().is_err()
    }
}

/// How long an answer may take to make.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weight {
    /// No time at all: `/health` and its like.
    Light,
    /// As long as a sync.
    Heavy,
}

/// Every limit of the listener; those on the request's bytes are in [`crate::http::request`].
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Seats, and so threads and descriptors. With slow clients in all of them the process has to stay under 6 MB.
    pub connections_max: usize,
    /// Of these, seats whose heavy request is being answered: room for 50 callers at once, and then 32 seats remain.
    pub heavy_max: usize,
    /// Bodies on their way, together; 96 bodies at their longest would be 6 MB.
    pub bodies_bytes_max: usize,
    /// From the connection to the end of the head. A client sends it in one piece.
    pub head_timeout: Duration,
    /// From the end of the head to the end of the body, 64 KiB at most.
    pub body_timeout: Duration,
    /// For the whole answer; the largest is a page of some tens of kilobytes.
    pub write_timeout: Duration,
    /// For a seat, where all are taken by those who have just come or are about to leave. Either takes microseconds of
    /// work, and on a busy machine as long as it is busy; nobody is accepted meanwhile.
    pub room_timeout: Duration,
    /// For a client that was refused while it was sending, to close its side, so that no reset overtakes the answer.
    pub linger_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections_max: 96,
            heavy_max: 64,
            bodies_bytes_max: 1024 * 1024,
            head_timeout: Duration::from_secs(5),
            body_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(10),
            room_timeout: Duration::from_millis(500),
            linger_timeout: Duration::from_secs(2),
        }
    }
}

/// Reserved for each connection's thread, touched as far as needed. A sync runs elsewhere or in child processes.
const STACK_BYTES: usize = 256 * 1024;

/// Dismissed connections that have not left yet while others have their seats. Each is a thread on its way out.
const LEAVING_MAX: usize = 32;

/// After an error of `accept` (no descriptors left, say), so that it neither spins nor stays away.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

/// Connections that the kernel holds until they are accepted. Beyond that it lets clients try again after a second; a
/// burst of this size is accepted in a few hundredths of one. After a stop they are told of it.
const BACKLOG_MAX: u16 = 1024;

/// What `Retry-After` says.
const RETRY_AFTER_SECONDS: u32 = 5;

/// A listening socket, not yet served.
pub struct Server {
    listener: TcpListener,
    sleeper: Sleeper,
    stop: Stop,
    limits: Limits,
}

/// Ends a [`Server`]'s accepting, from any thread, any number of times.
#[derive(Clone)]
pub struct Stop(Arc<StopState>);

struct StopState {
    requested: AtomicBool,
    waker: Waker,
}

impl Stop {
    /// Accepting ends at once, also where it sleeps; what is being answered goes on.
    pub fn stop(&self) {
        self.0.requested.store(true, Ordering::SeqCst);
        self.0.waker.wake();
    }

    fn is_requested(&self) -> bool {
        self.0.requested.load(Ordering::SeqCst)
    }
}

/// What all connections share.
struct Shared {
    handler: Arc<dyn Handler>,
    seats: Seats,
    crew: Arc<Crew>,
    limits: Limits,
}

impl Server {
    /// Listens on `address` (`0.0.0.0:8080`); connections wait in the kernel until [`Server::run`].
    ///
    /// # Errors
    ///
    /// The address cannot be listened on; the error names it.
    pub fn bind(address: &str) -> io::Result<Self> {
        let open = || {
            #[expect(clippy::disallowed_methods, reason = "this is the listener")]
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            wake::deepen_backlog(&listener, BACKLOG_MAX)?;
            let (waker, sleeper) = wake::pair()?;
            let stop = Stop(Arc::new(StopState { requested: AtomicBool::new(false), waker }));
            Ok(Self { listener, sleeper, stop, limits: Limits::default() })
        };
        open()
            .map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on `{address}`: {error}")))
    }

    /// The same with other limits.
    #[must_use]
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Where it listens, with the port that the system chose for `:0`.
    ///
    /// # Errors
    ///
    /// The system does not tell.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// What ends it.
    #[must_use]
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Serves until it is stopped. Returns as soon as nothing more is accepted and the socket is closed; whoever was
    /// still sending a request has then been told so, and those whose answers are being made are in [`Draining`].
    #[must_use]
    pub fn run(self, handler: Arc<dyn Handler>) -> Draining {
        let limits = self.limits;
        let shared = Arc::new(Shared { handler, seats: Seats::new(limits), crew: Arc::default(), limits });
        self.accept_until_stopped(&shared);
        for _ in 0..BACKLOG_MAX {
            let Ok((stream, peer)) = self.listener.accept() else { break };
            turn_away(&Connection { stream, peer }, &shared, Code::ShuttingDown);
        }
        shared.seats.dismiss_unfinished();
        Draining { shared }
    }

    fn accept_until_stopped(&self, shared: &Arc<Shared>) {
        let mut failing = false;
        while !self.stop.is_requested() {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    failing = false;
                    admit(&Arc::new(Connection { stream, peer }), shared);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.sleeper.sleep(Some(&self.listener), None);
                }
                Err(error) if is_of_the_peer(&error) => {}
                Err(error) => {
                    if !failing {
                        log::warn!("cannot accept connections, will go on trying: {error}");
                    }
                    failing = true;
                    self.sleeper.sleep(None, Some(ACCEPT_BACKOFF));
                }
            }
        }
    }
}

/// Errors of `accept` that tell of one connection that is gone, and nothing of the listener.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted)
}

/// The time after the accepting.
pub struct Draining {
    shared: Arc<Shared>,
}

impl Draining {
    /// Waits until every answer is sent, `timeout` at most, and says how many connections are left. May be called
    /// again.
    #[must_use]
    pub fn wait(&self, timeout: Duration) -> usize {
        self.shared.seats.wait_until_empty(timeout)
    }
}

/// Gives the connection a seat and a thread, or turns it away.
fn admit(connection: &Arc<Connection>, shared: &Arc<Shared>) {
    // Where `accept` hands the listener's own mode down (not on Linux).
    if connection.stream.set_nonblocking(false).is_err() {
        return;
    }
    if !shared.seats.take(connection) {
        return turn_away(connection, shared, Code::TooManyRequests);
    }
    let seat = Seat { shared: Arc::clone(shared), connection: Arc::clone(connection) };
    if let Err(error) = shared.crew.hand(seat) {
        log::warn!("no thread for a connection: {error}");
        turn_away(connection, shared, Code::TooManyRequests);
    }
}

/// Answers 503 from the accepting thread, without waiting for anything.
fn turn_away(connection: &Connection, shared: &Shared, code: Code) {
    let response = unavailable(code);
    shared.handler.answered(None, response.status);
    connection.send_at_once(&response, None);
    log::debug!("{} was turned away: {}", connection.peer, code.as_str());
}

fn unavailable(code: Code) -> Response {
    let message = match code {
        Code::ShuttingDown => "the service is ending",
        _ => "too many requests at once",
    };
    Response::unavailable(code, message, RETRY_AFTER_SECONDS)
}

/// One connection, from its first byte to its close.
fn serve(seat: &Seat) {
    let started = Instant::now();
    let mut heard = Heard::default();
    let outcome = connection::converse(seat, &mut heard);
    let head = heard.head.as_ref();
    let response = match outcome {
        Ok(response) => response,
        Err(connection::End::Refused(refusal)) => Response::from(&refusal),
        Err(connection::End::Dismissed(code)) => unavailable(code),
        Err(connection::End::Silent) => return,
    };
    // Whoever has the answer finds it counted.
    seat.shared.handler.answered(head, response.status);
    let sent = seat.connection.send(seat, &response, &heard.method());
    let (status, milliseconds) = (response.status, started.elapsed().as_millis());
    log::debug!("{} {} {status} {milliseconds} ms", seat.connection.peer, describe(head));
    if sent {
        seat.connection.linger(seat, &heard);
    }
}

/// Method and path for the log, fit to be printed; never the query or a header.
fn describe(head: Option<&Head>) -> String {
    head.map_or_else(
        || "-".to_owned(),
        |head| format!("{} {}", head.method.as_str(), head.path).escape_debug().to_string(),
    )
}

// In one `cfg`, clippy would not take it for tests.
#[cfg(test)]
#[cfg(unix)]
mod tests;
