//! System calls on sockets that std lacks: waiting for a connection or a stop, a longer backlog, and whether a peer is
//! gone.

use std::io::{self, PipeReader};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

#[cfg(unix)]
pub(super) use unix::{deepen_backlog, has_ended, has_peer_ended, is_quiet, notice_silent_ends, wait_for_stop};
#[cfg(not(unix))]
pub(super) use without_poll::{deepen_backlog, has_ended, has_peer_ended, is_quiet, notice_silent_ends, wait_for_stop};

/// The pause after an error of `accept` (for example, no descriptors are left): long enough not to spin, short enough
/// to continue soon.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(100);

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
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                if !failing {
                    log::warn!("cannot accept connections, retrying: {error}");
                }
                failing = true;
                std::thread::sleep(ACCEPT_BACKOFF);
            }
        }
    }
}

/// Whether an error of `accept` is about one connection, which is gone or not there yet, and not about the listener.
fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionReset, Interrupted, WouldBlock};
    matches!(error.kind(), ConnectionAborted | ConnectionReset | Interrupted | WouldBlock)
}

#[cfg(unix)]
mod unix {
    use std::io::{self, PipeReader};
    use std::net::{TcpListener, TcpStream};
    use std::thread;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::{RecvFlags, listen, recv, sockopt};

    /// After this time without data, the kernel asks a peer whether it is still there.
    const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
    /// How often the kernel asks again, and the time between.
    const KEEPALIVE_PROBES: u32 = 3;
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
    /// The pause after a `poll` for which the kernel has no memory: that passes.
    const POLL_BACKOFF: Duration = Duration::from_millis(100);

    /// Sets how many connections the kernel holds until they are accepted. The kernel's own settings may limit this.
    pub(in super::super) fn deepen_backlog(listener: &TcpListener, connections_max: u16) -> io::Result<()> {
        Ok(listen(listener, i32::from(connections_max))?)
    }

    /// Returns what has ended, without waiting.
    fn ends(stream: &TcpStream) -> PollFlags {
        let mut watched = [PollFd::new(stream, PollFlags::RDHUP)];
        // This fails only if the kernel has no memory. The next check then has the result.
        let _ = poll(&mut watched, Some(&Timespec::default()));
        watched[0].revents()
    }

    /// Whether both sides have ended: nothing can be sent any more.
    pub(in super::super) fn has_ended(stream: &TcpStream) -> bool {
        ends(stream).intersects(PollFlags::HUP | PollFlags::ERR)
    }

    /// Whether the peer sends no more: it is gone, or it has sent everything and waits.
    pub(in super::super) fn has_peer_ended(stream: &TcpStream) -> bool {
        !ends(stream).is_empty()
    }

    /// Whether no unread bytes have arrived. It does not wait.
    pub(in super::super) fn is_quiet(stream: &TcpStream) -> bool {
        let received = recv(stream, &mut [0_u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(received, Err(rustix::io::Errno::AGAIN) | Ok((0, _)))
    }

    /// Makes the kernel notice a peer that disappears silently: a machine switched off, a container that was killed.
    pub(in super::super) fn notice_silent_ends(stream: &TcpStream) {
        // If this fails, the connection becomes free only when the answer is ready.
        let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)
            .and_then(|()| sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL))
            .and_then(|()| sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES))
            .and_then(|()| sockopt::set_socket_keepalive(stream, true));
    }

    /// Waits for a connection or for a stop, and returns whether there is a stop: whether the other end of the pipe was
    /// written to or closed. It may also return without a reason.
    pub(in super::super) fn wait_for_stop(stopped: &PipeReader, listener: &TcpListener) -> bool {
        let mut watched = [PollFd::new(stopped, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
        if poll(&mut watched, None).is_err_and(|error| error != rustix::io::Errno::INTR) {
            thread::sleep(POLL_BACKOFF);
        }
        !watched[0].revents().is_empty()
    }
}

/// Without `poll`, there are no threads and no pipes either, so no listener is made that could need these.
#[cfg(not(unix))]
mod without_poll {
    use std::io::{self, PipeReader};
    use std::net::{TcpListener, TcpStream};

    pub(in super::super) fn deepen_backlog(_: &TcpListener, _: u16) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn has_ended(_: &TcpStream) -> bool {
        false
    }

    pub(in super::super) fn has_peer_ended(_: &TcpStream) -> bool {
        false
    }

    pub(in super::super) fn is_quiet(_: &TcpStream) -> bool {
        true
    }

    pub(in super::super) fn notice_silent_ends(_: &TcpStream) {}

    pub(in super::super) fn wait_for_stop(_: &PipeReader, _: &TcpListener) -> bool {
        true
    }
}
