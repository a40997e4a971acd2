//! System calls that std lacks: waiting for a connection or a wake-up, a longer backlog, and whether a peer is gone.

#[cfg(unix)]
pub(super) use unix::{Sleeper, Waker, deepen_backlog, ended, is_quiet, notice_silent_ends, pair};
#[cfg(not(unix))]
pub(super) use without_poll::{Sleeper, Waker, deepen_backlog, ended, is_quiet, notice_silent_ends, pair};

/// How much of a connection has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// Nothing.
    No,
    /// The peer sends no more: it is gone, or it has said all and waits.
    #[cfg_attr(not(unix), expect(dead_code, reason = "only `poll` tells it"))]
    PeerSide,
    /// All of it: nothing can be sent any more.
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

    /// A peer that says nothing for this long is asked by its kernel's means whether it is still there.
    const KEEPALIVE_IDLE: Duration = Duration::from_secs(20);
    /// And asked again so often, so long after.
    const KEEPALIVE_PROBES: u32 = 3;
    const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);

    /// Lets the kernel hold so many connections until they are accepted, or as many as its own settings permit.
    pub(in super::super) fn deepen_backlog(listener: &TcpListener, connections_max: u16) -> io::Result<()> {
        Ok(listen(listener, i32::from(connections_max))?)
    }

    /// Looks, without waiting.
    pub(in super::super) fn ended(stream: &TcpStream) -> Ended {
        let mut watched = [PollFd::new(stream, PollFlags::RDHUP)];
        // It can fail only for want of kernel memory; the next look tells.
        let _ = poll(&mut watched, Some(&Timespec::default()));
        match watched[0].revents() {
            events if events.intersects(PollFlags::HUP | PollFlags::ERR) => Ended::Connection,
            events if events.intersects(PollFlags::RDHUP) => Ended::PeerSide,
            _ => Ended::No,
        }
    }

    /// Whether nothing has come that is still to be read. It waits for nothing.
    pub(in super::super) fn is_quiet(stream: &TcpStream) -> bool {
        let received = recv(stream, &mut [0_u8; 1][..], RecvFlags::DONTWAIT | RecvFlags::PEEK);
        matches!(received, Err(rustix::io::Errno::AGAIN) | Ok((0, _)))
    }

    /// Has the kernel notice where a peer goes without a word: a machine switched off, a container that was killed.
    pub(in super::super) fn notice_silent_ends(stream: &TcpStream) {
        // Without it, the connection is free again when the answer is ready.
        let _ = sockopt::set_tcp_keepidle(stream, KEEPALIVE_IDLE)
            .and_then(|()| sockopt::set_tcp_keepintvl(stream, KEEPALIVE_INTERVAL))
            .and_then(|()| sockopt::set_tcp_keepcnt(stream, KEEPALIVE_PROBES))
            .and_then(|()| sockopt::set_socket_keepalive(stream, true));
    }

    /// Wakes the [`Sleeper`], for good: the byte that it writes is never read.
    pub(in super::super) struct Waker(UnixStream);

    /// Sleeps until woken.
    pub(in super::super) struct Sleeper(UnixStream);

    /// A connected pair of descriptors, opened beforehand: a stop needs none when none are left.
    pub(in super::super) fn pair() -> io::Result<(Waker, Sleeper)> {
        let (waker, sleeper) = UnixStream::pair()?;
        waker.set_nonblocking(true)?;
        Ok((Waker(waker), Sleeper(sleeper)))
    }

    impl Waker {
        pub(in super::super) fn wake(&self) {
            // Full means that it was woken thousands of times, and so that it is awake.
            let _ = (&self.0).write(&[1]);
        }
    }

    impl Sleeper {
        /// Returns when a connection is there, when woken, after `timeout`, or for no reason.
        pub(in super::super) fn sleep(&self, listener: Option<&TcpListener>, timeout: Option<Duration>) {
            let mut watched = Vec::with_capacity(2);
            watched.push(PollFd::new(&self.0, PollFlags::IN));
            watched.extend(listener.map(|listener| PollFd::new(listener, PollFlags::IN)));
            let timeout = timeout.and_then(|timeout| Timespec::try_from(timeout).ok());
            match poll(&mut watched, timeout.as_ref()) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                // It can fail only for want of kernel memory, which passes.
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

    /// Each connection needs a thread of its own.
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
