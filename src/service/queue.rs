//! The queue: one run at a time for each backup; equal requests share one.
//!
//! A run begins when three conditions hold: no other run of its backup is in progress, fewer runs of its kind
//! (configured or not) are in progress than the limit, and no earlier run of its kind waits for room. Each run has a
//! thread that does its work, so it continues after its clients disconnect.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use miniserde::Serialize;
use miniserde::ser::Fragment;

use crate::backup::{Env, Event, new_run_id, sync, verify};
use crate::model::{Code, SyncResult, run_result};
use crate::request::{Purpose, SyncRequest};
use crate::service::Service;
use crate::util::{lock, time};

/// The most simultaneous runs of configured backups. Each starts a `wmill`, which takes 100 MB.
const RUNNING_MAX: usize = 3;
/// The most simultaneous other runs. They have their own limit, so that they never make a configured run wait.
const OTHERS_RUNNING_MAX: usize = 2;
/// The most runs of one backup that wait for the running one. Each has a thread, and holds secrets of its request.
const WAITING_MAX: usize = 8;
/// The most runs in total if one more would only wait. A container or a unit may limit threads to 512.
const RUNS_MAX: usize = 128;
/// The most other backups with a run in progress or waiting. The settings limit the configured backups.
const OTHER_BACKUPS_MAX: usize = 16;
/// The interval at which a wait checks whether its caller is gone.
const CALLER_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The step of a run that has not begun.
const QUEUE: &str = "queue";

/// All runs of this process.
#[derive(Default)]
pub struct Queue {
    state: Mutex<QueueState>,
    /// Notified whenever a run begins or ends, or the queue closes.
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    /// The runs that are in progress or wait, in the order of their requests. The list is short enough for a linear
    /// search.
    runs: Vec<Arc<Run>>,
    /// When a run last ended: index 0 is for other runs, index 1 for runs of configured backups.
    last_end: [Option<Instant>; 2],
    is_closed: bool,
}

impl QueueState {
    /// Returns a waiting run with an equal request.
    fn waiting_for(&self, request: &SyncRequest) -> Option<&Arc<Run>> {
        self.runs.iter().find(|run| lock(&run.state).waits && run.request == *request)
    }

    /// Whether one more run of a backup may wait or begin.
    fn takes(&self, request: &SyncRequest) -> bool {
        let backup_id = request.backup_id();
        match self.runs.iter().filter(|run| run.request.backup_id() == backup_id).count() {
            0 => request.configured || self.first_runs(false).count() < OTHER_BACKUPS_MAX,
            count => count <= WAITING_MAX && self.runs.len() < RUNS_MAX,
        }
    }

    /// Returns the runs of one kind that are in progress or are the next of their backup.
    fn first_runs(&self, configured: bool) -> impl Iterator<Item = &Arc<Run>> {
        let mut backups = BTreeSet::new();
        let firsts = self.runs.iter().filter(move |run| backups.insert(run.request.backup_id()));
        firsts.filter(move |run| run.request.configured == configured)
    }

    /// Whether the run may begin. A run that had to wait does not begin after the service was asked to end.
    fn may_begin(&self, run: &Run) -> bool {
        let configured = run.request.configured;
        let running_max = if configured { RUNNING_MAX } else { OTHERS_RUNNING_MAX };
        let (begun, waiting): (Vec<_>, Vec<_>) =
            self.first_runs(configured).partition(|first| lock(&first.state).has_begun);
        let is_next = waiting.first().is_some_and(|next| next.id == run.id);
        is_next && begun.len() < running_max && !(self.is_closed && lock(&run.state).waits)
    }

    /// Returns when the waiting time of a run began: when it was requested, or, for the next run of its backup, when a
    /// run of its kind last ended. So it can wait as long as other runs of its kind keep ending.
    fn waits_since(&self, run: &Run) -> Instant {
        let is_first = self.first_runs(run.request.configured).any(|first| first.id == run.id);
        let last_end = self.last_end[usize::from(run.request.configured)].filter(|_| is_first);
        last_end.map_or(run.since, |end| end.max(run.since))
    }
}

/// One run that waits, is in progress, or has ended.
pub struct Run {
    /// The id of the run.
    pub id: String,
    /// The request.
    pub request: SyncRequest,
    since: Instant,
    state: Mutex<State>,
}

struct State {
    step: &'static str,
    /// Whether it waits for a run of its backup, for room, or for another process. It has then read nothing yet.
    waits: bool,
    has_begun: bool,
    result: Option<SyncResult>,
}

impl Run {
    fn new(request: SyncRequest) -> Self {
        let state = State { step: QUEUE, waits: false, has_begun: false, result: None };
        Self { id: new_run_id(), request, since: Instant::now(), state: Mutex::new(state) }
    }

    /// Sets the step of the run.
    pub fn enter(&self, step: &'static str) {
        let mut state = lock(&self.state);
        (state.step, state.waits) = (step, false);
    }

    /// Marks the run as waiting for others. Until it enters a step, equal requests share it.
    pub fn wait_for_others(&self) {
        let mut state = lock(&self.state);
        (state.step, state.waits) = (QUEUE, true);
    }

    /// Returns how many milliseconds ago the run was requested.
    fn age_ms(&self) -> u64 {
        time::millis(self.since.elapsed())
    }

    /// Returns a failed result of this run, without a commit and changes.
    fn failure(&self, code: Code, message: String) -> SyncResult {
        let (workspace, branch) = (self.request.workspace.to_string(), self.request.branch.to_string());
        SyncResult::bare(code, message, self.id.clone(), workspace, branch)
    }
}

/// A run in `running` or `waiting` of `/status`.
impl Serialize for Run {
    fn begin(&self) -> Fragment<'_> {
        run_result::object(vec![
            ("run_id", Box::new(&self.id)),
            ("workspace", Box::new(self.request.workspace.to_string())),
            ("configured", Box::new(self.request.configured)),
            ("dry_run", Box::new(self.request.flags.dry_run)),
            ("verify", Box::new(self.request.flags.purpose == Purpose::Verify)),
            ("step", Box::new(lock(&self.state).step)),
            ("elapsed_ms", Box::new(self.age_ms())),
        ])
    }
}

impl Service {
    /// Starts a run, or queues it behind the one in progress. If a waiting run has an equal request, returns that run.
    ///
    /// # Errors
    /// [`Code::ShuttingDown`] or [`Code::TooManyRequests`].
    pub fn submit(self: &Arc<Self>, request: SyncRequest) -> Result<Arc<Run>, Code> {
        let mut state = lock(&self.queue.state);
        if state.is_closed {
            return Err(Code::ShuttingDown);
        }
        if let Some(same) = state.waiting_for(&request) {
            log::info!("a request for workspace {} shares the run that waits: {}", request.workspace, same.id);
            return Ok(Arc::clone(same));
        }
        let run = Arc::new(Run::new(request));
        if !state.takes(&run.request) {
            return Err(Code::TooManyRequests);
        }
        if state.runs.iter().any(|other| other.request.backup_id() == run.request.backup_id()) {
            log::info!("run {} waits for its turn: a sync of workspace {} is running", run.id, run.request.workspace);
            run.wait_for_others();
        }
        let (service, own) = (Arc::clone(self), Arc::clone(&run));
        let thread = std::thread::Builder::new().name("run".to_owned());
        thread.spawn(move || service.execute(&own)).map_err(|_| Code::TooManyRequests)?;
        state.runs.push(Arc::clone(&run));
        Ok(run)
    }

    /// Does the whole run, in its thread.
    fn execute(&self, run: &Run) {
        if self.wait_for_turn(run) {
            let worked = catch_unwind(AssertUnwindSafe(|| self.work(run)));
            let panicked = |_| run.failure(Code::Internal, "internal error; the log has more".to_owned());
            let mut state = lock(&self.queue.state);
            state.last_end[usize::from(run.request.configured)] = Some(Instant::now());
            self.end(run, worked.unwrap_or_else(panicked), true);
            drop(state);
            // The run frees its place, even after a panic.
            let _ = catch_unwind(AssertUnwindSafe(|| self.recorder.flush()));
        }
        lock(&self.queue.state).runs.retain(|other| other.id != run.id);
        self.queue.changed.notify_all();
    }

    /// Executes the run, and returns its result. It may take minutes, and may panic.
    fn work(&self, run: &Run) -> SyncResult {
        let progress = |event| match event {
            Event::Started(step) => run.enter(step.as_str()),
            Event::Waits => run.wait_for_others(),
            Event::Ended(step, time) if run.request.flags.purpose == Purpose::Sync && !run.request.flags.dry_run => {
                self.recorder.metrics.count_step(step.as_str(), time);
            }
            Event::Ended(..) => {}
        };
        let history = &self.recorder.history;
        let last_token_user = |workspace: &str, destination: &str| history.token_user(workspace, destination);
        let env = Env::new(&self.config, &self.cancel, &last_token_user);
        let env = Env { progress: &progress, ..env };
        match run.request.flags.purpose {
            Purpose::Sync => sync::run(&run.request, &env, &run.id),
            Purpose::Verify => verify::run(&run.request, &env, &run.id),
            Purpose::Restore => run.failure(Code::Internal, "a service makes no restores".to_owned()),
        }
    }

    /// Returns whether the run may begin. If not, it has ended.
    fn wait_for_turn(&self, run: &Run) -> bool {
        let mut state = lock(&self.queue.state);
        while !state.may_begin(run) {
            run.wait_for_others();
            let left = self.config.sync_timeout.saturating_sub(state.waits_since(run).elapsed());
            if state.is_closed || left.is_zero() {
                let (code, message) = if state.is_closed {
                    (Code::ShuttingDown, "the service is shutting down; the sync had not begun".to_owned())
                } else {
                    let message = format!(
                        "the sync of workspace `{}` was ended in step `queue`: it waited for its turn longer than \
                         SYNC_TIMEOUT ({} s)",
                        run.request.workspace,
                        self.config.sync_timeout.as_secs()
                    );
                    (Code::Timeout, message)
                };
                log::error!("run {}: {message}", run.id);
                // A run that was refused because the service is ending does not count for the backup.
                self.end(run, run.failure(code, message), code != Code::ShuttingDown);
                return false;
            }
            state = self.queue.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        lock(&run.state).has_begun = true;
        // There may be room for the next run too.
        self.queue.changed.notify_all();
        true
    }

    /// Records the end, then ends the run for all its callers. If `counts` is false, the run does not change the status
    /// of the backup. The caller has locked the queue's state, so that no one begins to wait for the run meanwhile.
    fn end(&self, run: &Run, result: SyncResult, counts: bool) {
        let result = SyncResult { duration_ms: run.age_ms(), ..result };
        self.recorder.record(&run.request, &result, counts);
        let mut state = lock(&run.state);
        (state.waits, state.result) = (false, Some(result));
        drop(state);
        self.queue.changed.notify_all();
    }
}

impl Queue {
    /// Waits until a run ends, and returns its result, or `None` if its caller is gone. `is_gone` is called repeatedly.
    pub fn wait(&self, run: &Run, is_gone: &dyn Fn() -> bool) -> Option<SyncResult> {
        let mut state = lock(&self.state);
        loop {
            if let Some(result) = lock(&run.state).result.clone() {
                return Some(result);
            }
            if is_gone() {
                return None;
            }
            let waited = self.changed.wait_timeout(state, CALLER_POLL_INTERVAL);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Refuses new runs and ends those that wait. Runs in progress continue.
    pub fn close(&self) {
        lock(&self.state).is_closed = true;
        self.changed.notify_all();
    }

    /// Waits until no run is in progress, at most `time`. Returns whether this happened.
    pub fn wait_until_idle(&self, time: Duration) -> bool {
        let is_busy = |state: &mut QueueState| !state.runs.is_empty();
        let waited = self.changed.wait_timeout_while(lock(&self.state), time, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Whether there is or was a run.
    pub fn was_used(&self) -> bool {
        let state = lock(&self.state);
        !state.runs.is_empty() || state.last_end.iter().any(Option::is_some)
    }

    /// Returns the runs in progress, at most one for each backup, and those that wait for others.
    pub fn overview(&self) -> (Vec<Arc<Run>>, Vec<Arc<Run>>) {
        // A run that has ended keeps its place until it is saved.
        let active: Vec<_> =
            lock(&self.state).runs.iter().filter(|run| lock(&run.state).result.is_none()).cloned().collect();
        active.into_iter().partition(|run| lock(&run.state).has_begun)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment, Options, Required};
    use crate::model::WorkspaceId;
    use crate::request::Draft;

    impl Service {
        /// Returns a service without settings, whose history is in memory only.
        pub(in crate::service) fn for_test() -> Self {
            let environment = Environment::new([("DATA_DIR".into(), "/nowhere".into())]);
            let config = Config::new(&Options::default(), &environment, Required::Serve).expect("settings");
            Self::new(config)
        }
    }

    /// Returns a run of this workspace, requested this many seconds after `first`.
    fn run(workspace: &str, configured: bool, first: Instant, seconds: u64) -> Arc<Run> {
        let settings = [
            ("WINDMILL_TOKEN", "wm"),
            ("GIT_REMOTE_URL", "https://h/x"),
            ("GIT_TOKEN", "git"),
            ("SYNC_API_TOKEN", "api"),
        ];
        let environment = Environment::new(settings.map(|(name, value)| (name.into(), value.into())));
        let config = Config::new(&Options::default(), &environment, Required::Sync).expect("settings");
        let workspace = WorkspaceId::parse(workspace).expect("a name");
        let body = br#"{"windmill_token":"own"}"#;
        let request = Draft::from_json(body, &config).ok().and_then(|draft| draft.request(&workspace).ok());
        let request = SyncRequest { configured, ..request.expect("a request") };
        Arc::new(Run { since: first + Duration::from_secs(seconds), ..Run::new(request) })
    }

    #[test]
    fn runs_of_each_kind_begin_in_the_order_of_their_requests() {
        let first = Instant::now();
        let ours = ["a", "b", "c", "d", "e"].map(|name| run(name, true, first, 1));
        let others = ["x", "y", "z"].map(|name| run(name, false, first, 0));
        let late = run("late", true, first, 2);
        let runs: Vec<_> = ours.iter().chain(&others).chain([&late]).cloned().collect();
        let state = QueueState { runs, ..QueueState::default() };
        let begin = |run: &Arc<Run>| lock(&run.state).has_begun = true;
        others[..2].iter().for_each(begin);
        assert!(!state.may_begin(&others[2]), "two of others go on");
        assert!(state.may_begin(&ours[0]) && !state.may_begin(&late), "an earlier one waits");
        ours[..2].iter().for_each(begin);
        assert!(state.may_begin(&ours[2]));
        begin(&ours[2]);
        assert!(!state.may_begin(&ours[3]), "three go on");
    }

    #[test]
    fn a_run_that_would_wait_is_refused_if_very_many_are_queued() {
        let (first, waits) = (Instant::now(), run("shop", true, Instant::now(), 0));
        let mut state = QueueState { runs: vec![run("shop", true, first, 0)], ..QueueState::default() };
        assert!(state.takes(&waits.request));
        state.runs.extend((1..RUNS_MAX).map(|number| run(&format!("w{number}"), true, first, 0)));
        assert!(!state.takes(&waits.request));
        let new = run("new", true, first, 0);
        assert!(state.takes(&new.request), "a backup has room for its first run");
    }

    #[test]
    fn a_waiting_run_is_shared_until_it_continues_or_ends() {
        let run = run("shop", true, Instant::now(), 0);
        let state = QueueState { runs: vec![Arc::clone(&run)], ..QueueState::default() };
        let is_shared = || state.waiting_for(&run.request).is_some();
        assert!(!is_shared(), "it has just begun");
        run.wait_for_others();
        assert!(is_shared());
        run.enter("fetch");
        assert!(!is_shared());
        run.wait_for_others();
        Service::for_test().end(&run, run.failure(Code::Timeout, String::new()), true);
        assert!(!is_shared(), "nobody gets a result that is older than the request");
    }

    #[test]
    fn a_run_waits_as_long_as_runs_of_its_kind_keep_ending() {
        let first = Instant::now();
        let (ours, others) = (run("ours", true, first, 0), run("others", false, first, 0));
        let late = run("ours", true, first, 1);
        let runs = [&ours, &others, &late].map(Arc::clone).into();
        let mut state = QueueState { runs, ..QueueState::default() };
        assert_eq!(state.waits_since(&ours), first);
        let end = first + Duration::from_secs(100);
        state.last_end[1] = Some(end);
        assert_eq!((state.waits_since(&ours), state.waits_since(&others)), (end, first));
        assert_eq!(state.waits_since(&late), first + Duration::from_secs(1), "another run of its backup comes first");
        state.runs = vec![run("ours", true, first, 200)];
        assert_eq!(state.waits_since(&state.runs[0]), first + Duration::from_secs(200));
    }
}
