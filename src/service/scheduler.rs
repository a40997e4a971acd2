//! Starts the configured sync, or its verification, when the schedule says so. What either does, and who else asks for
//! one, it does not know.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::code::Code;
use crate::config::Config;
use crate::deadline::Interrupt;
use crate::ledger::Ledger;
use crate::report::{self, Workspace};
use crate::roster::{Asked, Roster};
use crate::runs::Runs;
use crate::schedule::Schedule;
use crate::sync_request::{Draft, Flags, Purpose};
use crate::work;

/// The clock is looked at this often at least, since it may be set, and a machine may sleep.
const LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// Instances with the same expression shall not strike together: each waits for a random part of a tenth of the time
/// to the next run, and no longer than this.
const DELAY_MAX: Duration = Duration::from_secs(30);
const DELAY_SHARE: u32 = 10;

/// What starts the scheduled syncs.
pub struct Scheduler {
    /// Whose backup.
    pub config: Arc<Config>,
    /// Where the syncs are started.
    pub runs: Arc<Runs>,
    /// Knows when the last one was, and is told of one that cannot be started.
    pub ledger: Arc<Ledger>,
    /// Knows for which workspaces.
    pub roster: Arc<Roster>,
    /// Raised when the process ends.
    pub interrupt: Interrupt,
    /// What is started.
    pub purpose: Purpose,
}

impl Scheduler {
    /// Starts one whenever `schedule` comes true, until no more are taken. One that was missed since the last run,
    /// because no service was there, is made up for at once.
    pub fn follow(&self, schedule: &Schedule) {
        let mut handled = self.last_run().unwrap_or_else(SystemTime::now);
        loop {
            let now = SystemTime::now();
            // Where the clock was set back, what lies ahead now is not handled.
            handled = handled.min(now);
            let Some(due) = schedule.next_after(handled) else { return };
            if let Ok(left) = due.duration_since(now)
                && !left.is_zero()
            {
                std::thread::park_timeout(left.min(LOOK_INTERVAL));
                continue;
            }
            std::thread::park_timeout(random_delay(schedule, due));
            if !self.start() {
                return;
            }
            // However many were missed, one run makes up for them.
            handled = SystemTime::now();
        }
    }

    /// The one that is longest ago, of the configured workspaces that ran at all.
    fn last_run(&self) -> Option<SystemTime> {
        let workspaces =
            self.ledger.history.read(|kept| report::configured_workspaces(&self.config, &self.roster, kept));
        let last = match self.purpose {
            Purpose::Verify => Workspace::last_verify_time,
            Purpose::Sync | Purpose::Restore => Workspace::last_run_time,
        };
        workspaces.iter().filter_map(last).min()
    }

    /// Whether more are taken.
    fn start(&self) -> bool {
        let draft = Draft::from_config(&self.config, Flags { purpose: self.purpose, ..Flags::default() });
        let requests = match work::requests(&self.roster, &self.ledger, &draft, &self.config, &self.interrupt) {
            Ok(Asked::One(request)) => vec![*request],
            Ok(Asked::Several(requests)) => requests,
            Err(error) => {
                log::error!("the scheduled {}: {}", self.purpose.noun(), error.message);
                return true;
            }
        };
        for request in requests {
            let workspace = request.workspace.clone();
            match self.runs.submit(request) {
                Ok(run) => log::info!("run {}: the schedule asks for it", run.id),
                Err(Code::ShuttingDown) => return false,
                Err(code) => {
                    let noun = self.purpose.noun();
                    log::error!("the scheduled {noun} of workspace {workspace} was not taken: {}", code.as_str());
                }
            }
        }
        true
    }
}

fn random_delay(schedule: &Schedule, due: SystemTime) -> Duration {
    let to_next = schedule.next_after(due).and_then(|next| next.duration_since(due).ok()).unwrap_or_default();
    let longest = (to_next / DELAY_SHARE).min(DELAY_MAX);
    // The keys of a hasher are the standard library's only randomness.
    let part = RandomState::new().hash_one(due) % 1_000;
    longest.mul_f64(part as f64 / 1_000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_do_not_strike_together() {
        let due = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_040);
        let delays = |expression| {
            let schedule = Schedule::parse(expression).unwrap();
            (0..100).map(|_| random_delay(&schedule, due)).collect::<Vec<_>>()
        };
        let (minutely, daily) = (delays("* * * * *"), delays("0 3 * * *"));
        assert!(minutely.iter().all(|delay| *delay < Duration::from_secs(6)));
        assert!(daily.iter().all(|delay| *delay < DELAY_MAX));
        assert!(daily.iter().max() > daily.iter().min(), "a hundred equal draws of a thousand");
        assert!(daily.iter().any(|delay| *delay > Duration::from_secs(6)));
    }
}
