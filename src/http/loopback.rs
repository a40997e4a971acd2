//! A server on the loopback address, on a port that the system chooses. It serves one program that we start, as long as
//! that program runs.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// How many connections are served at once. wmill opens two; the server is for no other program.
const CONNECTIONS_MAX: usize = 8;
/// How often the server checks whether it should end, if nothing wakes it.
const ACCEPT_WAIT: Duration = Duration::from_millis(200);
/// The pause after an error of `accept`: long enough not to spin, short enough to continue soon.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// The server, which ends when it is dropped. Connections that are served at that time end by themselves.
pub struct LoopbackServer {
    address: SocketAddr,
    is_over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

/// The function that is called with each connection.
type Serve = Arc<dyn Fn(&TcpStream) + Send + Sync>;

impl LoopbackServer {
    /// Starts the server. Each connection has its own thread, so that a silent one does not block the others. If no
    /// thread can be started, the accepting thread serves the connection.
    ///
    /// # Errors
    /// The socket or the thread cannot be created.
    pub fn start(serve: impl Fn(&TcpStream) + Send + Sync + 'static) -> io::Result<Self> {
        #[expect(clippy::disallowed_methods, reason = "`http` alone binds")]
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let (address, is_over) = (listener.local_addr()?, Arc::new(AtomicBool::new(false)));
        let (ends, serve): (_, Serve) = (Arc::clone(&is_over), Arc::new(serve));
        let accepts = move || accept_until(&ends, &listener, &serve);
        let thread = thread::Builder::new().name("loopback".to_owned()).spawn(accepts)?;
        Ok(Self { address, is_over, thread: Some(thread) })
    }

    /// Returns the URL to which a client appends its paths.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Returns the address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LoopbackServer {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // A connection wakes the thread at once. Without one, it wakes after `ACCEPT_WAIT`.
        let _ = TcpStream::connect_timeout(&self.address, ACCEPT_WAIT);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn accept_until(is_over: &AtomicBool, listener: &TcpListener, serve: &Serve) {
    let connections = Arc::new(AtomicUsize::new(0));
    while !is_over.load(Ordering::SeqCst) {
        wait_for(listener, ACCEPT_WAIT);
        let accepted = listener.accept().and_then(|(stream, _)| stream.set_nonblocking(false).map(|()| stream));
        match accepted {
            Ok(stream) if !is_over.load(Ordering::SeqCst) => take(stream, &connections, serve),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => {
                log::debug!("a connection was not accepted: {error}");
                // Without descriptors or memory, the next accept would fail at once too.
                thread::sleep(ACCEPT_BACKOFF);
            }
        }
    }
}

fn take(stream: TcpStream, connections: &Arc<AtomicUsize>, serve: &Serve) {
    let Some(slot) = Slot::take(connections) else { return };
    let connection = Arc::new((stream, slot));
    let (served, serve_it) = (Arc::clone(&connection), Arc::clone(serve));
    if thread::Builder::new().name("loopback".to_owned()).spawn(move || serve_it(&served.0)).is_err() {
        serve(&connection.0);
    }
}

/// The place of one connection that is served.
struct Slot(Arc<AtomicUsize>);

impl Slot {
    /// Takes a place, or returns `None` if all are taken. Only one thread calls this, so no other thread can take a
    /// place between the check and the increment.
    fn take(connections: &Arc<AtomicUsize>) -> Option<Self> {
        if connections.load(Ordering::SeqCst) >= CONNECTIONS_MAX {
            return None;
        }
        connections.fetch_add(1, Ordering::SeqCst);
        Some(Self(Arc::clone(connections)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(unix)]
fn wait_for(listener: &TcpListener, wait: Duration) {
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    // If this fails, the `accept` that follows returns the error, or that no connection is there.
    let _ = poll(&mut [PollFd::new(listener, PollFlags::IN)], Timespec::try_from(wait).ok().as_ref());
}

/// Does nothing: without threads, the server does not start.
#[cfg(not(unix))]
fn wait_for(_: &TcpListener, _: Duration) {}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::time::Instant;

    use super::*;

    /// Starts a server that waits for a byte and sends it back. It counts the connections that it serves.
    fn echo() -> (LoopbackServer, Arc<AtomicUsize>) {
        let served = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&served);
        let server = LoopbackServer::start(move |mut stream| {
            counted.fetch_add(1, Ordering::SeqCst);
            let mut byte = [0];
            if stream.read_exact(&mut byte).is_ok() {
                let _ = stream.write_all(&byte);
            }
        });
        (server.expect("a server"), served)
    }

    fn connect(server: &LoopbackServer) -> TcpStream {
        let stream = TcpStream::connect(server.address()).expect("a connection");
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        stream
    }

    fn is_answered(stream: &mut TcpStream) -> bool {
        let mut byte = [0];
        stream.write_all(b"x").and_then(|()| stream.read_exact(&mut byte)).is_ok()
    }

    #[track_caller]
    fn eventually(mut is_so: impl FnMut() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !is_so() {
            assert!(Instant::now() < deadline, "not in 20 s");
            thread::yield_now();
        }
    }

    #[test]
    fn so_many_connections_are_served_and_one_more_is_closed() {
        let (server, served) = echo();
        let mut all: Vec<_> = (0..CONNECTIONS_MAX).map(|_| connect(&server)).collect();
        eventually(|| served.load(Ordering::SeqCst) == CONNECTIONS_MAX);
        assert!(!is_answered(&mut connect(&server)));
        assert!(all.iter_mut().all(is_answered));
        // The places become free a moment after the answers.
        eventually(|| is_answered(&mut connect(&server)));
    }

    #[test]
    fn a_dropped_server_accepts_no_more() {
        let (server, _) = echo();
        assert!(is_answered(&mut connect(&server)));
        let address = server.address();
        drop(server);
        assert!(TcpStream::connect(address).is_err());
    }
}
