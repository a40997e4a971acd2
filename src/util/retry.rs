//! How often a step that failed is tried again, and after which pauses.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

use crate::util::deadline::{Deadline, Expired};

/// Before the second try, the third and the fourth, which is the last: a restart of a server is lived through, and one
/// that is down for good is told of within seconds.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_millis(1500), Duration::from_secs(4)];
/// The most that a server may ask for by `Retry-After`.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A pause is longer or shorter by up to this share, so that services which lost one server do not come back at once.
const JITTER_PERCENT: u64 = 25;

/// Whether another attempt of a step that failed may help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No: a wrong token, a workspace that does not exist.
    Never,
    /// After a pause, at least as long as the server asks for.
    AfterPause(Option<Duration>),
    /// With a new checkout, since git found this one damaged, or it takes space that the disk does not have.
    NewCheckout,
    /// With an empty folder, since the content of the one that was pulled into may be the cause.
    EmptyFolder,
}

/// The error of a failed attempt.
pub trait Failure {
    /// Whether another attempt may help.
    fn retry(&self) -> Retry;
    /// What failed, for the log.
    fn message(&self) -> &str;
}

/// Why there is no further attempt.
#[derive(Debug)]
pub enum GaveUp<E> {
    /// The error of the last attempt, and how many there were.
    Failed(E, usize),
    /// The process is ending.
    Expired(Expired),
}

/// Does `work`, and does it again after a pause while its error says that this may help.
///
/// # Errors
/// [`GaveUp`]: nothing more may help, or there is no time for another attempt.
pub fn patiently<T, E: Failure>(deadline: &Deadline, mut work: impl FnMut() -> Result<T, E>) -> Result<T, GaveUp<E>> {
    let mut attempts = Attempts { deadline, done: 1 };
    loop {
        let error = match work() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let again = match error.retry() {
            Retry::AfterPause(asked) => attempts.pause(asked, error.message()).map_err(GaveUp::Expired)?,
            Retry::Never | Retry::NewCheckout | Retry::EmptyFolder => false,
        };
        if !again {
            return Err(GaveUp::Failed(error, attempts.done));
        }
    }
}

/// The attempts of one step, of which the last is under way.
struct Attempts<'a> {
    deadline: &'a Deadline,
    done: usize,
}

impl Attempts<'_> {
    /// Waits until it is time for another try; `false`, at once, when there is none left, or no time for it.
    /// `asked` is what the server asks for, and `why` the failure, for the log.
    ///
    /// # Errors
    /// [`Expired`] when the process is ending.
    fn pause(&mut self, asked: Option<Duration>, why: &str) -> Result<bool, Expired> {
        let Some(pause) = PAUSES.get(self.done - 1) else { return Ok(false) };
        let pause = jittered(*pause, random()).max(asked.unwrap_or_default().min(ASKED_PAUSE_MAX));
        match self.deadline.remaining() {
            Ok(left) if left > pause => {}
            Ok(_) | Err(Expired::TimedOut) => return Ok(false),
            Err(Expired::Cancelled) => return Err(Expired::Cancelled),
        }
        log::warn!("trying again in {} ms (try {} of {}): {why}", pause.as_millis(), self.done + 1, PAUSES.len() + 1);
        Deadline::after(pause, self.deadline.cancel_token()).wait_out()?;
        self.done += 1;
        Ok(true)
    }
}

/// `pause` with up to a quarter more or less.
fn jittered(pause: Duration, random: u64) -> Duration {
    let percent = 100 - JITTER_PERCENT + random % (2 * JITTER_PERCENT + 1);
    pause * u32::try_from(percent).unwrap_or(100) / 100
}

/// The standard library seeds its hashers from the system, which is randomness enough for a pause.
fn random() -> u64 {
    RandomState::new().hash_one(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::deadline::CancelToken;

    #[test]
    fn pauses_grow_and_differ() {
        let bounds = |pause| (jittered(pause, 0), jittered(pause, 50));
        let mut before = Duration::ZERO;
        for pause in PAUSES {
            let (shortest, longest) = bounds(pause);
            assert_eq!((shortest, longest), (pause * 75 / 100, pause * 125 / 100));
            assert!(before < shortest, "{pause:?}");
            before = longest;
        }
        let drawn: Vec<_> = (0..8).map(|_| jittered(PAUSES[2], random())).collect();
        assert!(drawn.iter().any(|pause| *pause != drawn[0]), "{drawn:?}");
        assert!(drawn.iter().all(|pause| (3..=5).contains(&pause.as_secs())), "{drawn:?}");
    }

    #[test]
    fn there_is_no_pause_without_time_for_it_and_none_after_an_interrupt() {
        fn first(deadline: &Deadline) -> Attempts<'_> {
            Attempts { deadline, done: 1 }
        }
        let cancel = CancelToken::default();
        let short = Deadline::after(Duration::from_millis(200), &cancel);
        assert_eq!(first(&short).pause(None, "x"), Ok(false));
        let over = Deadline::after(Duration::ZERO, &cancel);
        assert_eq!(first(&over).pause(None, "x"), Ok(false), "what failed is told, and not that the time is over");
        let long = Deadline::after(Duration::from_secs(10), &cancel);
        assert_eq!(first(&long).pause(Some(Duration::MAX), "x"), Ok(false), "thirty seconds at most, and no time");
        assert_eq!(Attempts { deadline: &long, done: 4 }.pause(None, "x"), Ok(false), "the fourth try is the last");
        let mut tries = first(&long);
        assert_eq!((tries.pause(None, "x"), tries.done), (Ok(true), 2));
        cancel.cancel();
        assert_eq!(tries.pause(None, "x"), Err(Expired::Cancelled));
    }
}
