//! What std lacks for sockets: waiting for a connection or a stop, whether a peer is gone, and reads and writes with a
//! common deadline.

use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, TimedOut, WouldBlock};
use std::io::{self, PipeReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::{Duration, Instant};

#[cfg(unix)]
use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// The pause after an error of `accept` or `poll` (for example, no descriptors or no memory are left): long enough not
/// to spin, short enough to continue soon.
const BACKOFF: Duration = Duration::from_millis(100);

/// Calls `admit` with each connection, until the other end of the pipe is written to or closed.
pub(super) fn accept_until_stopped(
    listener: &TcpListener,
    stopped: &PipeReader,
    mut admit: impl FnMut(TcpStream, SocketAddr),
) {
    let mut failing = false;
    while !wait_for_stop(stopped, listener) {
        match listener.accept() {
            Ok((stream, peer)) => {
                failing = false;
                // On some systems (not Linux), the socket inherits the listener's non-blocking mode.
                if stream.set_nonblocking(false).is_ok() {
                    admit(stream, peer);
                }
            }
            // The connection is gone, or is not there yet.
            Err(error) if matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock) => {}
            Err(error) => {
                if !failing {
                    log::warn!("cannot accept connections, retrying: {error}");
                }
                failing = true;
                std::thread::sleep(BACKOFF);
            }
        }
    }
}

/// Waits for a connection or for a stop, and returns whether there is a stop: whether the other end of the pipe was
/// written to or closed. It may also return early.
#[cfg(unix)]
fn wait_for_stop(stopped: &PipeReader, listener: &TcpListener) -> bool {
    let mut watched = [PollFd::new(stopped, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
    if poll(&mut watched, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
        std::thread::sleep(BACKOFF);
    }
    !watched[0].revents().is_empty()
}

/// Without `poll`, there are no threads and no pipes either, so no listener is made that could need this.
#[cfg(not(unix))]
fn wait_for_stop(_: &PipeReader, _: &TcpListener) -> bool {
    true
}

/// The state of a socket at one moment.
#[derive(Default)]
pub(super) struct SocketState {
    /// Whether bytes have arrived that are not read yet, or the peer has ended its side.
    pub(super) is_readable: bool,
    /// Whether the peer sends no more: it is gone, or it has sent everything and waits.
    pub(super) has_peer_ended: bool,
    /// Whether both sides have ended: nothing can be sent any more.
    pub(super) has_ended: bool,
}

/// Returns the state of a socket, without waiting.
#[cfg(unix)]
pub(super) fn state_of(stream: &TcpStream) -> SocketState {
    let mut watched = [PollFd::new(stream, PollFlags::IN | PollFlags::RDHUP)];
    // This fails only if the kernel has no memory. The next call then has the result.
    let _ = poll(&mut watched, Some(&Timespec::default()));
    let events = watched[0].revents();
    SocketState {
        is_readable: events.contains(PollFlags::IN),
        has_peer_ended: events.intersects(PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR),
        has_ended: events.intersects(PollFlags::HUP | PollFlags::ERR),
    }
}

#[cfg(not(unix))]
pub(super) fn state_of(_: &TcpStream) -> SocketState {
    SocketState::default()
}

/// A socket whose reads and writes fail at a deadline; see [`is_timeout`].
pub(super) struct TimedSocket<'a> {
    pub(super) stream: &'a TcpStream,
    pub(super) deadline: Instant,
}

/// Whether the time for a read or a write is over. Unix systems return `WouldBlock` then.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), TimedOut | WouldBlock)
}

impl TimedSocket<'_> {
    fn time_left(&self) -> io::Result<Option<Duration>> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(TimedOut.into()) } else { Ok(Some(left)) }
    }
}

impl Read for TimedSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.stream.set_read_timeout(self.time_left()?)?;
            match self.stream.read(buffer) {
                Err(error) if error.kind() == Interrupted => {}
                other => return other,
            }
        }
    }
}

impl Write for TimedSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.set_write_timeout(self.time_left()?)?;
        self.stream.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
