//! The retries of a failed step, and the pauses before them.

use std::time::Duration;

use crate::util::{Deadline, Expired};

/// The pauses before the second, third and fourth try, which is the last. Together they are long enough for a restart
/// of a server, and a server that stays down is reported within seconds.
const PAUSES: [Duration; 3] = [Duration::from_millis(500), Duration::from_millis(1500), Duration::from_secs(4)];
/// The longest pause that a server may ask for by `Retry-After`.
const ASKED_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Whether another attempt of a failed step may help, and what has to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// No attempt helps: for example, the token is wrong or the workspace does not exist.
    Never,
    /// Another attempt after a pause, which is at least as long as the server asks for.
    AfterPause(Option<Duration>),
    /// Another attempt with a new checkout, because this one is damaged, or because it takes disk space that is needed.
    NewCheckout,
    /// Another attempt with an empty folder, because the content of the folder of the pull may be the cause.
    EmptyFolder,
}

/// The error of a failed attempt.
pub trait Failure: From<Expired> {
    /// Returns what failed, in words, and whether another attempt may help.
    fn parts(&mut self) -> (&mut String, Retry);
}

/// Does `work`, and repeats it after a pause as long as the error is transient.
///
/// # Errors
/// Returns the last error if another attempt does not help, or if no attempt or no time for one is left, and
/// [`Expired`] if the process is ending.
pub fn patiently<T, E: Failure>(deadline: &Deadline, mut work: impl FnMut() -> Result<T, E>) -> Result<T, E> {
    let mut attempts = 1;
    loop {
        let mut error = match work() {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        let (message, retry) = error.parts();
        let again = match retry {
            Retry::AfterPause(asked) => pause(deadline, attempts, asked, message)?,
            Retry::Never | Retry::NewCheckout | Retry::EmptyFolder => false,
        };
        if !again {
            if attempts > 1 && !message.is_empty() {
                message.push_str(&format!(" (tried {attempts} times)"));
            }
            return Err(error);
        }
        attempts += 1;
    }
}

/// Waits before another try, if `attempts` were made. Returns `false` at once if no try or no time for one is left.
/// `asked` is the pause that the server asks for, and `why` the failure, for the log.
///
/// # Errors
/// Returns [`Expired::Cancelled`] if the process is ending.
fn pause(deadline: &Deadline, attempts: usize, asked: Option<Duration>, why: &str) -> Result<bool, Expired> {
    let Some(pause) = PAUSES.get(attempts - 1) else { return Ok(false) };
    let pause = (*pause).max(asked.unwrap_or_default().min(ASKED_PAUSE_MAX));
    match deadline.remaining() {
        Ok(left) if left > pause => {}
        Ok(_) | Err(Expired::TimedOut) => return Ok(false),
        Err(Expired::Cancelled) => return Err(Expired::Cancelled),
    }
    log::warn!("trying again in {} ms (try {} of {}): {why}", pause.as_millis(), attempts + 1, PAUSES.len() + 1);
    Deadline::after(pause, deadline.cancel_token()).wait_out()?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::util::CancelToken;

    #[test]
    fn there_is_no_pause_without_time_or_after_a_cancel() {
        let cancel = CancelToken::default();
        let short = Deadline::after(Duration::from_millis(200), &cancel);
        assert_eq!(pause(&short, 1, None, "x"), Ok(false));
        let over = Deadline::after(Duration::ZERO, &cancel);
        assert_eq!(pause(&over, 1, None, "x"), Ok(false), "the last error is reported, not the timeout");
        let long = Deadline::after(Duration::from_secs(10), &cancel);
        assert_eq!(pause(&long, 1, Some(Duration::MAX), "x"), Ok(false), "thirty seconds at most, and no time");
        assert_eq!(pause(&long, 4, None, "x"), Ok(false), "the fourth try is the last");
        assert_eq!(pause(&long, 1, None, "x"), Ok(true));
        cancel.cancel();
        assert_eq!(pause(&long, 2, None, "x"), Err(Expired::Cancelled));
    }
}
