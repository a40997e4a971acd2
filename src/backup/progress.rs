//! The steps of a run, and the events that report its progress.

use std::time::Duration;

/// A part of a run, for progress, metrics and the message of a time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waiting for another sync of the same workspace.
    Queue,
    /// Fetching the remote's tip.
    Fetch,
    /// Asking Windmill about the token, and reading the export.
    Probe,
    /// `wmill sync pull`.
    Pull,
    /// Staging, comparing, guarding, committing.
    Commit,
    /// Pushing, and checking that the commit arrived.
    Push,
    /// `wmill sync push`.
    Restore,
}

impl Step {
    /// Returns the step's name in messages and metrics.
    pub fn as_str(self) -> &'static str {
        ["queue", "fetch", "probe", "pull", "commit", "push", "restore"][self as usize]
    }
}

/// An event in the course of a run.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A step begins.
    Started(Step),
    /// Another run holds the lock, so this run waits.
    Waits,
    /// A step succeeded, and took this long.
    Ended(Step, Duration),
}
