//! Deadlines: the time that a run has left, and the token that cancels it earlier. Every wait uses them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The interval at which a wait checks whether it is cancelled.
pub const STOP_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// A token that cancels runs of this process; clones share one flag.
#[derive(Clone, Default)]
pub struct CancelToken(Arc<AtomicBool>);

impl CancelToken {
    /// Cancels this token and its clones.
    pub fn cancel(&self) {
        self.0.store(true, Ordering::SeqCst);
    }

    /// Returns whether [`CancelToken::cancel`] was called.
    pub fn is_cancelled(&self) -> bool {
        self.0.load(Ordering::SeqCst)
    }
}

/// Why a wait ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// The time is over.
    TimedOut,
    /// The process is ending.
    Cancelled,
}

/// A point in time at which a run ends, with the token that cancels it earlier.
#[derive(Clone)]
pub struct Deadline {
    at: Instant,
    cancel: CancelToken,
}

impl Deadline {
    /// Returns a deadline `time` from now.
    pub fn after(time: Duration, cancel: &CancelToken) -> Self {
        // A time that overflows the clock becomes a century.
        let now = Instant::now();
        let at = now.checked_add(time).unwrap_or(now + Duration::from_secs(100 * 365 * 86_400));
        Self { at, cancel: cancel.clone() }
    }

    /// Returns the token that cancels it earlier.
    pub fn cancel_token(&self) -> &CancelToken {
        &self.cancel
    }

    /// Returns the time left.
    ///
    /// # Errors
    /// Returns [`Expired`] if no time is left or the process is ending.
    pub fn remaining(&self) -> Result<Duration, Expired> {
        if self.cancel.is_cancelled() {
            return Err(Expired::Cancelled);
        }
        match self.at.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Expired::TimedOut),
            left => Ok(left),
        }
    }

    /// Returns the time left, but at most the time until the next check for a cancel.
    ///
    /// # Errors
    /// Fails as [`Deadline::remaining`] does.
    pub fn next_wait(&self) -> Result<Duration, Expired> {
        Ok(self.remaining()?.min(STOP_POLL_INTERVAL))
    }

    /// Waits until the deadline. The cancel is a flag that other threads set, such as those of signal handlers. It is
    /// checked after each short sleep.
    ///
    /// # Errors
    /// Returns [`Expired::Cancelled`] as soon as the cancel is seen.
    pub fn wait_out(&self) -> Result<(), Expired> {
        loop {
            match self.next_wait() {
                Ok(wait) => std::thread::sleep(wait),
                Err(Expired::TimedOut) => return Ok(()),
                Err(Expired::Cancelled) => return Err(Expired::Cancelled),
            }
        }
    }
}

/// The interval of the checks of [`wait_while`]. A check costs microseconds.
const CHECK_INTERVAL: Duration = Duration::from_millis(5);

/// Waits while a condition holds, at most `patience`, by repeated checks. It is for events for which no call waits with
/// a time limit: a file lock that becomes free, the end of a thread, or of a process that is not our child.
pub fn wait_while(patience: Duration, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while condition() && begun.elapsed() < patience {
        std::thread::sleep(CHECK_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_ends_by_time_or_by_cancel() {
        let cancel = CancelToken::default();
        assert!(Deadline::after(Duration::MAX, &cancel).remaining().is_ok());
        assert_eq!(Deadline::after(Duration::ZERO, &cancel).remaining(), Err(Expired::TimedOut));
        let deadline = Deadline::after(Duration::from_secs(60), &cancel);
        assert!(deadline.next_wait().is_ok_and(|wait| wait <= STOP_POLL_INTERVAL));
        assert_eq!(Deadline::after(Duration::from_millis(1), &cancel).wait_out(), Ok(()));
        cancel.cancel();
        assert_eq!(deadline.remaining(), Err(Expired::Cancelled));
        assert_eq!(deadline.wait_out(), Err(Expired::Cancelled));
    }
}
