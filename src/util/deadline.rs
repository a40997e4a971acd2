//! How long a run may still take, and whether it was told to end before that.
//! Everything that waits asks here; it does not know what is being waited for.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a wait looks whether it was told to end.
pub const STOP_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Tells every run of this process to end; clones share the one flag.
#[derive(Clone, Default)]
pub struct Interrupt {
    flag: Arc<AtomicBool>,
    /// That of what this is a part of.
    outer: Option<Arc<Self>>,
}

impl Interrupt {
    /// For a part of what this one interrupts: it can be ended alone, and ends with the whole.
    #[must_use]
    pub fn of_a_part(&self) -> Self {
        Self { flag: Arc::default(), outer: Some(Arc::new(self.clone())) }
    }

    /// Tells all who hold a clone to end.
    pub fn raise(&self) {
        self.flag.store(true, Ordering::SeqCst);
    }

    /// Whether [`Interrupt::raise`] was called.
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.flag.load(Ordering::SeqCst) || self.outer.as_ref().is_some_and(|outer| outer.is_raised())
    }
}

/// Why a wait was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expired {
    /// The time is over.
    TimedOut,
    /// The process is ending.
    Interrupted,
}

/// A point in time at which a run ends, with the interrupt that ends it earlier.
#[derive(Clone)]
pub struct Deadline {
    at: Instant,
    interrupt: Interrupt,
}

impl Deadline {
    /// A deadline `time` from now.
    #[must_use]
    pub fn after(time: Duration, interrupt: &Interrupt) -> Self {
        // A time that overflows the clock is as good as a century.
        let now = Instant::now();
        let at = now.checked_add(time).unwrap_or(now + Duration::from_secs(100 * 365 * 86_400));
        Self { at, interrupt: interrupt.clone() }
    }

    /// What ends it earlier.
    #[must_use]
    pub fn interrupt(&self) -> &Interrupt {
        &self.interrupt
    }

    /// The time left.
    ///
    /// # Errors
    /// [`Expired`] when there is none, or the process is ending.
    pub fn remaining(&self) -> Result<Duration, Expired> {
        if self.interrupt.is_raised() {
            return Err(Expired::Interrupted);
        }
        match self.at.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(Expired::TimedOut),
            left => Ok(left),
        }
    }

    /// The time left, but at most until the next look at the interrupt.
    ///
    /// # Errors
    /// As [`Deadline::remaining`].
    pub fn next_wait(&self) -> Result<Duration, Expired> {
        Ok(self.remaining()?.min(STOP_POLL_INTERVAL))
    }

    /// Waits until its time has come, as a pause does.
    ///
    /// # Errors
    /// [`Expired::Interrupted`], as soon as that is seen.
    pub fn wait_out(&self) -> Result<(), Expired> {
        loop {
            match self.next_wait() {
                Ok(wait) => std::thread::sleep(wait),
                Err(Expired::TimedOut) => return Ok(()),
                Err(Expired::Interrupted) => return Err(Expired::Interrupted),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_ends_by_time_or_by_interrupt() {
        let interrupt = Interrupt::default();
        assert!(Deadline::after(Duration::MAX, &interrupt).remaining().is_ok());
        assert_eq!(Deadline::after(Duration::ZERO, &interrupt).remaining(), Err(Expired::TimedOut));
        let deadline = Deadline::after(Duration::from_secs(60), &interrupt);
        assert!(deadline.next_wait().is_ok_and(|wait| wait <= STOP_POLL_INTERVAL));
        assert_eq!(Deadline::after(Duration::from_millis(1), &interrupt).wait_out(), Ok(()));
        interrupt.raise();
        assert_eq!(deadline.remaining(), Err(Expired::Interrupted));
        assert_eq!(deadline.wait_out(), Err(Expired::Interrupted));
    }

    #[test]
    fn a_part_ends_alone_and_with_the_whole() {
        let whole = Interrupt::default();
        let (first, second) = (whole.of_a_part(), whole.of_a_part());
        first.raise();
        assert_eq!((whole.is_raised(), first.is_raised(), second.is_raised()), (false, true, false));
        whole.raise();
        assert!(second.is_raised());
    }
}
