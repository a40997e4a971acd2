//! System calls that std lacks: waiting for a connection or a wake-up, a longer backlog, and whether a peer is gone.

#[cfg(unix)]
pub(super) use unix::{Sleeper, Waker, deepen_backlog, ended, is_quiet, notice_silent_ends, pair};
#[cfg(not(unix))]
pub(super) use without_poll::{Sleeper, Waker, deepen_backlog, ended, is_quiet, notice_silent_ends, pair};

/// How much of a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing has ended.
    No,
    /// The peer sends no more: it is gone, or it has sent everything and waits.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only `poll` tells it"))]
    PeerSide,
    /// Both sides have ended: nothing can be sent any more.
    Connection,
}

#[cfg(unix)]
mod unix {
    use std::io::{self, Write as _};
    use std::net::{TcpListener, TcpStream};
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use rustix::net::{RecvFlags, listen, recv, sockopt};

    use super::Ended;

    /// After this time without data, the kernel asks a peer whether it is still there.
    const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
    /// How often the kernel asks again, and the time between.
    const KEEPALIVE_PROBES: u32 = 3;
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

    /// Sets how many connections the kernel holds until they are accepted. The kernel's own settings may limit this.
    pub(in super::super) fn deepen_backlog(listener: &TcpListener, connections_max: u16) -> io::Result<()> {
        Ok(listen(listener, i32::from(connections_max))?)
    }

    /// Returns how much has ended, without waiting.
    pub(in super::super) fn ended(stream: &TcpStream) -> Ended {
        let mut watched = [PollFd::new(stream, PollFlags::RDHUP)];
        // This fails only if the kernel has no memory. The next check then has the result.
        let _ = poll(&mut watched, Some(&Timespec::default()));
        match watched[0].revents() {
            events if events.intersects(PollFlags::HUP | PollFlags::ERR) => Ended::Connection,
            events if events.intersects(PollFlags::RDHUP) => Ended::PeerSide,
            _ => Ended::No,
        }
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

    /// Wakes the [`Sleeper`] permanently: the byte that it writes is never read.
    pub(in super::super) struct Waker(UnixStream);

    /// Sleeps until woken.
    pub(in super::super) struct Sleeper(UnixStream);

    /// Returns a connected pair of descriptors. It is opened in advance, so that a stop works even if no descriptors
    /// are left.
    pub(in super::super) fn pair() -> io::Result<(Waker, Sleeper)> {
        let (waker, sleeper) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        Ok((Waker(waker), Sleeper(sleeper)))
    }

    impl Waker {
        pub(in super::super) fn wake(&self) {
            // The write fails if the socket is full: after thousands of wake-ups, when the sleeper is awake.
            let _ = (&self.0).write(&[1]);
        }
    }

    impl Sleeper {
        /// Returns when a connection is there, when it is woken, or after `timeout`. It may also return without a
        /// reason.
        pub(in super::super) fn sleep(&self, listener: Option<&TcpListener>, timeout: Option<Duration>) {
            let mut watched = Vec::with_capacity(2);
            watched.push(PollFd::new(&self.0, PollFlags::IN));
            watched.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(&mut watched, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // This fails only if the kernel has no memory, and that passes.
                Err(_) => thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

#[cfg(not(unix))]
mod without_poll {
    use std::io;
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::Ended;

    /// Always fails: each connection needs its own thread.
    pub(in super::super) fn pair() -> io::Result<(Waker, Sleeper)> {
        Err(io::Error::new(io::ErrorKind::Unsupported, "the service needs threads, and there are none here"))
    }

    pub(in super::super) fn deepen_backlog(_: &TcpListener, _: u16) -> io::Result<()> {
        Ok(())
    }

    pub(in super::super) fn ended(_: &TcpStream) -> Ended {
        Ended::No
    }

    pub(in super::super) fn is_quiet(_: &TcpStream) -> bool {
        true
    }

    pub(in super::super) fn notice_silent_ends(_: &TcpStream) {}

    pub(in super::super) struct Waker;

    pub(in super::super) struct Sleeper;

    impl Waker {
        pub(in super::super) fn wake(&self) {}
    }

    impl Sleeper {
        pub(in super::super) fn sleep(&self, _: Option<&TcpListener>, _: Option<Duration>) {}
    }
}
