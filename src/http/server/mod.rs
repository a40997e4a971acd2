//! The listener: sockets, threads, deadlines, connection limits and shutdown. It hands each request to a
//! [`Handler`].
//!
//! Each connection has a thread and one request. One peer address never gets all connections, callers that wait for a
//! run never do, and a slow connection closes when a new one finds no room: so `/health` is always served.

mod connection;
mod limits;
mod wake;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::http::request::Head;
use crate::http::response::Response;
use crate::model::result_code::Code;
use connection::{Connection, Conversation, End, ReceivedRequest};
pub use limits::Limits;
use limits::{OpenSlot, Slots};
use wake::{Sleeper, Waker};

/// What answers the requests.
pub trait Handler: Send + Sync {
    /// The answer where the head alone decides it (404, 405, 401, 415); the body is then not read.
    fn before_body(&self, head: &Head) -> Option<Response>;

    /// The answer to the whole request. May block after [`Caller::begin_wait`], as long as the caller is not gone; runs
    /// on a small stack.
    fn handle(&self, head: &Head, body: Vec<u8>, caller: &Caller<'_>) -> Response;

    /// Told once for each answer, before it is sent; without a head where the bytes were none or were not read.
    fn answered(&self, _head: Option<&Head>, _status: u16) {}
}

/// The client that waits for an answer.
pub struct Caller<'a>(&'a Conversation<'a>);

impl Caller<'_> {
    /// To be called before the answer waits for anything longer than a moment.
    ///
    /// # Errors
    ///
    /// [`Code::TooManyRequests`]: as many callers as may wait do so, or there is no thread to wait in.
    pub fn begin_wait(&self) -> Result<(), Code> {
        if self.0.in_turn { Err(Code::TooManyRequests) } else { self.0.slot.begin_wait() }
    }

    /// Whether the client has gone. Asked repeatedly while the answer waits.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.0.slot.is_client_gone()
    }
}

/// Reserved for each connection's thread, touched as far as needed. A sync runs elsewhere or in child processes.
const STACK_BYTES: usize = 64 * 1024;

/// Each deadline of a connection that the accepting thread serves itself because no thread can be started. No other
/// connection is accepted meanwhile.
const IN_TURN_TIME_MAX: Duration = Duration::from_millis(250);

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
    slots: Arc<Slots>,
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

    /// Serves until it is stopped. Returns as soon as nothing more is accepted and the socket is closed; clients
    /// that were still sending a request have then been told so, and those whose answers are being made are in
    /// [`Draining`].
    #[must_use]
    pub fn run(self, handler: Arc<dyn Handler>) -> Draining {
        let limits = self.limits;
        let shared = Arc::new(Shared { handler, slots: Arc::new(Slots::new(limits)), limits });
        self.accept_until_stopped(&shared);
        for _ in 0..BACKLOG_MAX {
            let Ok((stream, peer)) = self.listener.accept() else { break };
            reject(&Connection { stream, peer }, &shared, Code::ShuttingDown);
        }
        shared.slots.close_unfinished();
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
        self.shared.slots.wait_until_empty(timeout)
    }
}

/// Gives the connection a slot and a thread, or turns it away. Where no thread is to be had, it is served before this
/// returns.
fn admit(connection: &Arc<Connection>, shared: &Arc<Shared>) {
    // Where `accept` hands the listener's own mode down (not on Linux).
    if connection.stream.set_nonblocking(false).is_err() {
        return;
    }
    let Some(slot) = shared.slots.open(connection) else {
        return reject(connection, shared, Code::TooManyRequests);
    };
    let slot = Arc::new(slot);
    let thread = std::thread::Builder::new().name("connection".to_owned()).stack_size(STACK_BYTES);
    let (of_thread, limits) = ((Arc::clone(shared), Arc::clone(&slot)), shared.limits);
    if let Err(error) = thread.spawn(move || serve(&of_thread.0, &of_thread.1, limits, false)) {
        log::debug!("no thread for a connection, which is served in turn: {error}");
        // A slow one gives its thread to the next.
        slot.close_another();
        let (head_timeout, body_timeout, write_timeout) = (IN_TURN_TIME_MAX, IN_TURN_TIME_MAX, IN_TURN_TIME_MAX);
        serve(shared, &slot, Limits { head_timeout, body_timeout, write_timeout, ..limits }, true);
    }
}

/// Answers 503 from the accepting thread, without waiting for anything.
fn reject(connection: &Connection, shared: &Shared, code: Code) {
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
fn serve(shared: &Shared, slot: &OpenSlot, limits: Limits, in_turn: bool) {
    let started = Instant::now();
    let mut request = ReceivedRequest::default();
    let conversation = Conversation { slot, handler: &*shared.handler, limits, in_turn };
    let outcome = catch_unwind(AssertUnwindSafe(|| conversation.answer(&mut request)));
    let head = request.head.as_ref();
    let outcome = outcome.unwrap_or_else(|_| {
        // The panic's own text is in the log.
        log::error!("{}: the handler panicked", describe(head));
        Ok(Response::error(500, Code::Internal, "internal error; the log says where"))
    });
    let response = match outcome {
        Ok(response) => response,
        Err(End::Refused(refusal)) => Response::from(&refusal),
        Err(End::Closed(code)) => unavailable(code),
        Err(End::Silent) => return,
    };
    // A client that has its answer finds it counted.
    shared.handler.answered(head, response.status);
    conversation.send(&response, &request);
    let (status, milliseconds) = (response.status, started.elapsed().as_millis());
    log::debug!("{} {} {status} {milliseconds} ms", slot.connection.peer, describe(head));
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
