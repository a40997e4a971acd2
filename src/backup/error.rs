//! Why a step of a run failed, and what may help against it. What a tool's failure means is for others to say.

use std::time::Duration;

use crate::code::Code;
use crate::retry::Tries;

/// Why a step failed.
#[derive(Debug)]
pub struct Fault {
    /// What to call it.
    pub code: Code,
    /// What was tried, on what, and why it failed.
    pub message: String,
    /// What may help.
    pub remedy: Remedy,
}

/// What may help against a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remedy {
    /// Nothing that we can do.
    None,
    /// To try again, after the time that a server asks for.
    Time(Option<Duration>),
    /// A new checkout.
    NewCheckout,
}

impl Fault {
    /// A failure against which nothing helps.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), remedy: Remedy::None }
    }

    /// Says how often it was tried.
    #[must_use]
    pub fn after(mut self, tries: &Tries<'_>) -> Self {
        if tries.count() > 1 {
            self.message = format!("{} (tried {} times)", self.message, tries.count());
        }
        self
    }
}
