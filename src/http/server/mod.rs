//! The listener: sockets, threads, deadlines, connection limits and shutdown. It hands each request to a
//! [`Handler`].
//!
//! Each connection has a thread and one request. One peer address cannot use all connections, and the callers that wait
//! for a run cannot either. A slow connection is closed if a new one finds no room. So `/health` is always served.

mod connection;
mod limits;

use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::http::{Head, Response, sockets};
use crate::model::Code;
use crate::util::wait_while;
use connection::{Connection, ReceivedRequest};
use limits::Slots;
pub use limits::{Caller, Limits};

/// Answers the requests.
pub trait Handler: Send + Sync {
    /// Returns the answer if the head alone decides it (such as 404, 405, 401 and 415). The body is then not read.
    fn before_body(&self, head: &Head) -> Option<Response>;

    /// Returns the answer to the whole request. It may block after [`Caller::begin_wait`], as long as the caller is not
    /// gone. It runs on a small stack.
    fn handle(&self, head: &Head, body: Vec<u8>, caller: &Caller) -> Response;

    /// Called once for each answer, before it is sent. There is no head if the bytes were invalid or were not read.
    fn answered(&self, _head: Option<&Head>, _status: u16) {}
}

/// The stack of each connection's thread. Memory is used only as far as needed. A sync runs in other threads and in
/// child processes.
const STACK_BYTES: usize = 64 * 1024;

/// The value of each time limit of a connection that the accepting thread serves itself, because no thread can be
/// started. No other connection is accepted meanwhile.
const IN_TURN_TIME_MAX: Duration = Duration::from_millis(250);

/// The most connections that the kernel holds until they are accepted. If there are more, clients try again after a
/// second. A burst of this size is accepted in a few hundredths of a second. After a stop, the clients in it get a 503.
const BACKLOG_MAX: i32 = 1024;

/// A listening socket that is not served yet.
pub struct Server {
    listener: TcpListener,
    stopped: PipeReader,
    stop: Stop,
    /// The limits of its connections.
    pub limits: Limits,
}

/// Stops a [`Server`] from accepting connections, from any thread, any number of times.
#[derive(Clone)]
pub struct Stop(Arc<PipeWriter>);

impl Stop {
    /// Ends the accepting at once, even if it sleeps. Requests that are being answered continue.
    pub fn stop(&self) {
        // The server never reads the byte, so the stop remains.
        let _ = (&*self.0).write(&[1]);
    }
}

impl Server {
    /// Listens on `address` (such as `0.0.0.0:8080`). Connections wait in the kernel until [`Server::run`].
    ///
    /// # Errors
    ///
    /// The address cannot be used; the error names it.
    pub fn bind(address: &str) -> io::Result<Self> {
        let open = || {
            #[expect(clippy::disallowed_methods, reason = "this is the listener")]
            let listener = TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            #[cfg(unix)]
            rustix::net::listen(&listener, BACKLOG_MAX)?;
            // Opened in advance, so that a stop works even if no descriptors are left.
            let (stopped, stop) = io::pipe()?;
            Ok(Self { listener, stopped, stop: Stop(Arc::new(stop)), limits: Limits::default() })
        };
        open()
            .map_err(|error: io::Error| io::Error::new(error.kind(), format!("cannot listen on `{address}`: {error}")))
    }

    /// Returns the address on which it listens, with the port that the system chose for `:0`.
    ///
    /// # Errors
    ///
    /// The system does not return the address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Returns the handle that stops the server.
    pub fn stop_handle(&self) -> Stop {
        self.stop.clone()
    }

    /// Serves until it is stopped. Returns as soon as the listening socket is closed. Clients that are still sending a
    /// request then get a 503 answer. [`Draining`] waits for the answers that are being made.
    pub fn run(self, handler: Arc<dyn Handler>) -> Draining {
        let slots = Slots::new(self.limits, handler);
        sockets::accept_until_stopped(&self.listener, &self.stopped, |stream, peer| {
            admit(&Arc::new(Connection { stream, peer }), &slots);
        });
        for _ in 0..BACKLOG_MAX {
            let Ok((stream, peer)) = self.listener.accept() else { break };
            reject(&Connection { stream, peer }, &slots, Code::ShuttingDown);
        }
        slots.close_unfinished();
        Draining(slots)
    }
}

/// The connections that are still open after the accepting has ended.
pub struct Draining(Arc<Slots>);

impl Draining {
    /// Waits until every answer is sent, at most `timeout`. Returns how many connections are left. It may be called
    /// again.
    pub fn wait(&self, timeout: Duration) -> usize {
        // Each connection has one more reference.
        let left = || Arc::strong_count(&self.0) - 1;
        wait_while(timeout, || left() > 0);
        left()
    }
}

/// Gives the connection a slot and a thread, or rejects it. If no thread can be started, the connection is served
/// before this returns.
fn admit(connection: &Arc<Connection>, slots: &Arc<Slots>) {
    let Some(caller) = slots.open(Arc::clone(connection)) else {
        return reject(connection, slots, Code::TooManyRequests);
    };
    let caller = Arc::new(caller);
    let thread = std::thread::Builder::new().name("connection".to_owned()).stack_size(STACK_BYTES);
    let of_thread = Arc::clone(&caller);
    if let Err(error) = thread.spawn(move || serve(&of_thread)) {
        log::debug!("no thread for a connection, which is served in turn: {error}");
        // The accepting thread serves this connection, and must not wait for a run.
        if let Some(mut caller) = Arc::into_inner(caller) {
            caller.limits = Limits { callers_max: 0, timeout: IN_TURN_TIME_MAX, ..slots.limits };
            serve(&caller);
        }
    }
}

/// Answers 503 from the accepting thread, without waiting.
fn reject(connection: &Connection, slots: &Slots, code: Code) {
    let response = unavailable(code);
    slots.handler.answered(None, response.status);
    connection.send_at_once(response, None);
    log::debug!("{} was refused: {}", connection.peer, code.as_str());
}

fn unavailable(code: Code) -> Response {
    let message = match code {
        Code::ShuttingDown => "the service is shutting down",
        _ => "too many requests at once",
    };
    Response::error(503, code, message)
}

/// Serves one connection, from its first byte to its close.
fn serve(caller: &Caller) {
    let started = Instant::now();
    let mut request = ReceivedRequest::default();
    let outcome = catch_unwind(AssertUnwindSafe(|| caller.answer(&mut request)));
    let head = request.head.as_ref();
    let outcome = outcome.unwrap_or_else(|_| {
        // The panic's own text is in the log.
        log::error!("{}: the handler panicked", describe(head));
        Ok(Response::error(500, Code::Internal, "internal error; the log has more"))
    });
    let (Ok(response) | Err(Some(response))) = outcome else { return };
    // The answer is counted before it is sent, so that the metrics include it as soon as the client has it.
    caller.slots.handler.answered(head, response.status);
    let status = response.status;
    caller.send(response, &request);
    let milliseconds = started.elapsed().as_millis();
    log::debug!("{} {} {status} {milliseconds} ms", caller.connection.peer, describe(head));
}

/// Returns the method and the path for the log, which are printable ASCII. It never contains the query or a header.
fn describe(head: Option<&Head>) -> String {
    head.map_or_else(|| "-".to_owned(), |head| format!("{} {}", head.method, head.path))
}

// With one `cfg` for both conditions, clippy would not see that these are tests.
#[cfg(test)]
#[cfg(unix)]
mod tests;
