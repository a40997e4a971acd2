//! A server on the loopback address, on a port that the system chooses. It serves one program that we start, as long as
//! that program runs.

use std::io::{self, PipeWriter};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::sockets;

/// How many connections are served at once. wmill opens two; the server is for no other program.
const CONNECTIONS_MAX: usize = 8;
/// How long to wait at the end for connections that are being served. Their program has ended, so they end at once,
/// unless the server waits for an answer of Windmill.
const END_TIME_MAX: Duration = Duration::from_secs(2);
/// How often to check whether they have ended.
const END_WAIT: Duration = Duration::from_millis(1);

/// The server, which ends when it is dropped.
pub struct LoopbackServer {
    address: SocketAddr,
    /// One more reference for each connection that is served.
    connections: Arc<()>,
    /// The accepting thread ends when this is closed. `None` only while the server is dropped.
    running: Option<(PipeWriter, JoinHandle<()>)>,
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
        let (address, (stopped, stop)) = (listener.local_addr()?, io::pipe()?);
        let (serve, connections): (Serve, _) = (Arc::new(serve), Arc::new(()));
        let counted = Arc::downgrade(&connections);
        let accept = move || {
            sockets::accept_until_stopped(&listener, &stopped, |stream, _| {
                if counted.strong_count() <= CONNECTIONS_MAX {
                    serve_aside((stream, counted.upgrade()), &serve);
                }
            });
        };
        let thread = thread::Builder::new().name("loopback".to_owned()).spawn(accept)?;
        Ok(Self { address, connections, running: Some((stop, thread)) })
    }

    /// Returns the URL to which a client appends its paths.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("http://{}/", self.address)
    }

    /// Returns how many connections are being served.
    #[cfg(test)]
    pub fn served(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }

    /// Returns the address on which it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for LoopbackServer {
    fn drop(&mut self) {
        // This closes the pipe.
        if let Some(thread) = self.running.take().map(|(_stop, thread)| thread) {
            let _ = thread.join();
        }
        let begun = Instant::now();
        while Arc::strong_count(&self.connections) > 1 && begun.elapsed() < END_TIME_MAX {
            thread::sleep(END_WAIT);
        }
    }
}

fn serve_aside(connection: (TcpStream, Option<Arc<()>>), serve: &Serve) {
    let connection = Arc::new(connection);
    let (of_thread, serve_it) = (Arc::clone(&connection), Arc::clone(serve));
    if thread::Builder::new().name("loopback".to_owned()).spawn(move || serve_it(&of_thread.0)).is_err() {
        serve(&connection.0);
    }
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::{Read, Write};
    use std::sync::atomic::{AtomicUsize, Ordering};
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

    #[test]
    fn what_is_being_served_ends_before_the_server() {
        let done = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&done);
        let server = LoopbackServer::start(move |mut stream| {
            let _ = stream.read(&mut [0]);
            let _ = stream.write_all(b"x");
            thread::sleep(Duration::from_millis(100));
            counted.fetch_add(1, Ordering::SeqCst);
        });
        let server = server.expect("a server");
        assert!(is_answered(&mut connect(&server)));
        drop(server);
        assert_eq!(done.load(Ordering::SeqCst), 1);
    }
}
