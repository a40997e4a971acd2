//! Sleeping until a connection or a wake-up comes. It knows neither what the connection is nor why it is woken.

#[cfg(unix)]
pub(super) use unix::{Sleeper, Waker, pair};
#[cfg(not(unix))]
pub(super) use without_poll::{Sleeper, Waker, pair};

#[cfg(unix)]
mod unix {
    use std::io::{self, Write as _};
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;
    use std::thread;
    use std::time::Duration;

    use rustix::event::{PollFd, PollFlags, Timespec, poll};

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
    use std::net::TcpListener;
    use std::thread;
    use std::time::Duration;

    /// Without `poll`, a stop is seen after this long.
    const NAP: Duration = Duration::from_millis(20);

    pub(in super::super) struct Waker;

    pub(in super::super) struct Sleeper;

    pub(in super::super) fn pair() -> io::Result<(Waker, Sleeper)> {
        Ok((Waker, Sleeper))
    }

    impl Waker {
        pub(in super::super) fn wake(&self) {}
    }

    impl Sleeper {
        pub(in super::super) fn sleep(&self, _listener: Option<&TcpListener>, timeout: Option<Duration>) {
            thread::sleep(timeout.unwrap_or(NAP).min(NAP));
        }
    }
}
