//! The steps of a run, and the events that tell how far it is.

use std::time::Duration;

/// A part of a sync, for progress, metrics and the message of a time-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Waiting for another sync of the same workspace.
    Queue,
    /// Bringing the checkout to the remote's tip.
    Fetch,
    /// Asking Windmill who we are.
    Probe,
    /// `wmill sync pull`.
    Pull,
    /// Staging, comparing, guarding, committing.
    Commit,
    /// Pushing, and seeing that it arrived.
    Push,
    /// `wmill sync push`.
    Restore,
}

impl Step {
    /// The step's name in messages and metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Queue => "queue",
            Self::Fetch => "fetch",
            Self::Probe => "probe",
            Self::Pull => "pull",
            Self::Commit => "commit",
            Self::Push => "push",
            Self::Restore => "restore",
        }
    }
}

/// Told as a sync proceeds.
#[derive(Clone, Copy, Debug)]
pub enum Event {
    /// A step begins.
    Started(Step),
    /// Another process has the turn of the workspace.
    Waits,
    /// A step went well, and took so long.
    Ended(Step, Duration),
}
