//! The queue: one run at a time for each backup; equal requests share one.
//!
//! A run begins when three conditions hold: no other run of its backup is in progress, fewer runs of its kind
//! (configured or not) are in progress than the limit, and no earlier run of its kind waits for room. A backup has a
//! thread while it has runs, so they continue after their clients disconnect.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::backup::run_context::new_run_id;
use crate::model::result_code::Code;
use crate::model::run_result::{SyncResult, TokenUser};
use crate::request::SyncRequest;

/// How many runs of configured backups may be in progress at once. Each starts a `wmill`, which takes 100 MB.
const RUNNING_MAX: usize = 3;
/// The same for all other runs, so that they never make a configured one wait.
const OTHERS_RUNNING_MAX: usize = 2;
/// How many runs of one backup may wait for the running one. Each holds secrets of its request.
const WAITING_MAX: usize = 8;
/// How many other backups may have a run in progress or waiting. Each has a thread. The settings limit the configured
/// backups.
const OTHER_BACKUPS_MAX: usize = 16;
/// How often a wait checks whether its caller is gone.
const CALLER_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// The step of a run that has not begun.
const QUEUE: &str = "queue";

/// Executes the runs, and receives their results.
pub trait Worker: Send + Sync {
    /// Executes the run, and returns its result with the user of its token, if known. It may take minutes, and may
    /// panic.
    fn work(&self, run: &Run) -> (SyncResult, Option<TokenUser>);

    /// Called when a run ends, before its callers get the result. If `begun` is false, the run never had its turn. Must
    /// be quick.
    fn ended(&self, run: &Run, result: &SyncResult, begun: bool, token_user: Option<TokenUser>);

    /// Called when callers have the result, but the run's backup is not free yet.
    fn flush(&self);
}

/// All runs of this process.
pub struct Queue {
    worker: Box<dyn Worker>,
    waiting_time_max: Duration,
    state: Mutex<QueueState>,
    /// Notified whenever a run begins or ends, or the queue closes.
    changed: Condvar,
}

#[derive(Default)]
struct QueueState {
    /// One entry for each backup with a run in progress or waiting. The list is short enough for a linear search.
    backups: Vec<BackupQueue>,
    /// When a run last ended: index 0 is for other runs, index 1 for runs of configured backups.
    last_end: [Option<Instant>; 2],
    is_closed: bool,
    /// Whether a run was ever requested.
    was_used: bool,
}

impl QueueState {
    fn backup(&mut self, id: &str) -> Option<&mut BackupQueue> {
        self.backups.iter_mut().find(|backup| backup.id == id)
    }

    /// Whether one more run may wait or begin.
    fn takes(&self, request: &SyncRequest) -> bool {
        match self.backups.iter().find(|backup| backup.id == request.backup_id()) {
            Some(backup) => backup.runs.len() <= WAITING_MAX,
            None if request.configured => true,
            None => self.first_runs(false).count() < OTHER_BACKUPS_MAX,
        }
    }

    /// Returns the runs of one kind that are in progress or are the next of their backup.
    fn first_runs(&self, configured: bool) -> impl Iterator<Item = &Arc<Run>> {
        self.backups
            .iter()
            .filter_map(|backup| backup.runs.front())
            .filter(move |run| run.request.configured == configured)
    }

    /// Whether the run, which is the next of its backup, may begin.
    fn has_room_for(&self, run: &Run) -> bool {
        let configured = run.request.configured;
        let running_max = if configured { RUNNING_MAX } else { OTHERS_RUNNING_MAX };
        let (begun, waiting): (Vec<_>, Vec<_>) = self.first_runs(configured).partition(|other| other.state().has_begun);
        begun.len() < running_max && !waiting.iter().any(|other| other.since < run.since)
    }

    /// Returns when the waiting time of a run began: when it was requested, or when a run of its kind last ended. So it
    /// may wait for as long as other runs of its kind keep ending.
    fn waits_since(&self, run: &Run) -> Instant {
        self.last_end[usize::from(run.request.configured)].map_or(run.since, |end| end.max(run.since))
    }
}

/// The runs of one backup, in the order of their requests.
struct BackupQueue {
    /// See [`SyncRequest::backup_id`].
    id: String,
    /// The first is in progress, waits for room, or has just ended. The others wait for it.
    runs: VecDeque<Arc<Run>>,
}

impl BackupQueue {
    /// Returns a waiting run with an equal request.
    fn waiting_for(&self, request: &SyncRequest) -> Option<Arc<Run>> {
        self.runs.iter().find(|run| run.state().waits && run.request == *request).cloned()
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
    /// Whether it waits for a run of its backup, for room, or for another process, and so has read nothing yet.
    waits: bool,
    has_begun: bool,
    result: Option<SyncResult>,
}

impl Run {
    fn new(request: SyncRequest) -> Self {
        let state = State { step: QUEUE, waits: false, has_begun: false, result: None };
        Self { id: new_run_id(), request, since: Instant::now(), state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the step of the run.
    pub fn enter(&self, step: &'static str) {
        let mut state = self.state();
        (state.step, state.waits) = (step, false);
    }

    /// Marks the run as waiting for others. Until it enters a step, equal requests share it.
    pub fn wait_for_others(&self) {
        let mut state = self.state();
        (state.step, state.waits) = (QUEUE, true);
    }

    /// Returns the step of the run.
    #[must_use]
    pub fn step(&self) -> &'static str {
        self.state().step
    }

    /// Returns how long ago the run was requested.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX)
    }

    /// Returns a failed result of this run, without a commit and changes.
    #[must_use]
    pub fn failure(&self, code: Code, message: String) -> SyncResult {
        let (workspace, branch) = (self.request.workspace.to_string(), self.request.branch.to_string());
        let result = SyncResult::bare(code, message, self.id.clone(), workspace, branch);
        SyncResult { duration_ms: self.age_ms(), ..result }
    }
}

/// The runs in progress and the waiting runs, at one moment.
pub struct Overview {
    /// The runs in progress, at most one for each backup.
    pub running: Vec<Arc<Run>>,
    /// The runs that wait for the end of others.
    pub waiting: Vec<Arc<Run>>,
}

impl Queue {
    /// Returns an empty queue. `worker` executes the runs; each waits at most `waiting_time_max` for its turn.
    #[must_use]
    pub fn new(worker: Box<dyn Worker>, waiting_time_max: Duration) -> Arc<Self> {
        Arc::new(Self { worker, waiting_time_max, state: Mutex::default(), changed: Condvar::new() })
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        // After a panic, the state is valid: each change is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a run, or lets it wait for the one in progress. If a waiting run has an equal request, returns that run.
    ///
    /// # Errors
    /// [`Code::ShuttingDown`] or [`Code::TooManyRequests`].
    pub fn submit(self: &Arc<Self>, request: SyncRequest) -> Result<Arc<Run>, Code> {
        let mut state = self.state();
        state.was_used = true;
        if state.is_closed {
            return Err(Code::ShuttingDown);
        }
        let id = request.backup_id();
        if let Some(same) = state.backup(&id).and_then(|backup| backup.waiting_for(&request)) {
            log::info!("a request for workspace {} shares the run that waits: {}", request.workspace, same.id);
            return Ok(same);
        }
        if !state.takes(&request) {
            return Err(Code::TooManyRequests);
        }
        let run = Arc::new(Run::new(request));
        if let Some(backup) = state.backup(&id) {
            log::info!("run {} waits for its turn: a sync of workspace {} goes on", run.id, run.request.workspace);
            run.wait_for_others();
            backup.runs.push_back(Arc::clone(&run));
            return Ok(run);
        }
        let (queue, first) = (Arc::clone(self), Arc::clone(&run));
        let thread = std::thread::Builder::new().name("run".to_owned());
        if thread.spawn(move || queue.work_off(first)).is_err() {
            return Err(Code::TooManyRequests);
        }
        state.backups.push(BackupQueue { id, runs: VecDeque::from([Arc::clone(&run)]) });
        Ok(run)
    }

    fn work_off(&self, first: Arc<Run>) {
        let mut next = Some(first);
        while let Some(run) = next {
            if self.wait_for_room(&run) {
                let worked = catch_unwind(AssertUnwindSafe(|| self.worker.work(&run)));
                let panicked = |_| (run.failure(Code::Internal, "internal error; the log has more".to_owned()), None);
                let (mut result, token_user) = worked.unwrap_or_else(panicked);
                result.duration_ms = run.age_ms();
                let mut state = self.state();
                state.last_end[usize::from(run.request.configured)] = Some(Instant::now());
                self.end(&run, result, true, token_user);
                drop(state);
                self.worker.flush();
            }
            next = self.take_next(&run.request.backup_id());
            self.changed.notify_all();
        }
    }

    /// Returns whether the run may begin. If not, it has ended.
    fn wait_for_room(&self, run: &Arc<Run>) -> bool {
        let mut state = self.state();
        while !state.has_room_for(run) {
            run.wait_for_others();
            let left = self.waiting_time_max.saturating_sub(state.waits_since(run).elapsed());
            if state.is_closed {
                self.reject(run);
                return false;
            }
            if left.is_zero() {
                self.give_up(run);
                return false;
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        run.state().has_begun = true;
        // There may be room for the next run too.
        self.changed.notify_all();
        true
    }

    /// Ends a run that had not begun, because the service ends.
    fn reject(&self, run: &Run) {
        log::warn!("run {}: the service is ending; the sync had not begun", run.id);
        let message = "the service is ending; the sync had not begun".to_owned();
        self.end(run, run.failure(Code::ShuttingDown, message), false, None);
    }

    /// Reports the end to the worker, then ends the run for all its callers. The queue's state is locked meanwhile, so
    /// that no caller begins to wait in between.
    fn end(&self, run: &Run, result: SyncResult, begun: bool, token_user: Option<TokenUser>) {
        self.worker.ended(run, &result, begun, token_user);
        let mut state = run.state();
        (state.waits, state.result) = (false, Some(result));
        drop(state);
        self.changed.notify_all();
    }

    /// Ends a run that waited for too long.
    fn give_up(&self, run: &Run) {
        let message = format!(
            "the sync of workspace `{}` was ended in step `queue`: it waited for its turn longer than SYNC_TIMEOUT ({} s)",
            run.request.workspace,
            self.waiting_time_max.as_secs()
        );
        log::error!("run {}: {message}", run.id);
        self.end(run, run.failure(Code::Timeout, message), false, None);
    }

    /// Removes the ended run of a backup, and returns the next one. If there is none, removes the backup's queue. Callers
    /// end their own run when it waits for too long; a run without callers is checked here.
    fn take_next(&self, id: &str) -> Option<Arc<Run>> {
        let mut state = self.state();
        let backup = state.backup(id)?;
        while backup.runs.pop_front().is_some() {
            match backup.runs.front() {
                Some(run) if run.age() < self.waiting_time_max => return Some(Arc::clone(run)),
                Some(run) => self.give_up(run),
                None => {}
            }
        }
        state.backups.retain(|backup| backup.id != id);
        None
    }

    /// Waits until a run ends, and returns its result, or `None` if its caller is gone. `is_gone` is called repeatedly.
    #[must_use]
    pub fn wait(&self, run: &Run, is_gone: &dyn Fn() -> bool) -> Option<SyncResult> {
        let mut state = self.state();
        loop {
            if let Some(result) = run.state().result.clone() {
                return Some(result);
            }
            let mut left = CALLER_POLL_INTERVAL;
            // The thread of the backup ends the first run, and the callers of the others end theirs.
            if let Some(backup) = state.backup(&run.request.backup_id())
                && let Some(place) = backup.runs.iter().skip(1).position(|waiting| waiting.id == run.id)
            {
                left = left.min(self.waiting_time_max.saturating_sub(run.age()));
                if left.is_zero() {
                    backup.runs.remove(place + 1);
                    self.give_up(run);
                    continue;
                }
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
            if is_gone() && run.state().result.is_none() {
                return None;
            }
        }
    }

    /// Refuses new runs and ends those that wait. Runs in progress continue.
    pub fn close(&self) {
        let mut state = self.state();
        state.is_closed = true;
        for run in state.backups.iter_mut().flat_map(|backup| backup.runs.drain(1..)) {
            self.reject(&run);
        }
        self.changed.notify_all();
    }

    /// Waits until no run is in progress, at most `time`. Returns whether this happened.
    #[must_use]
    pub fn wait_until_idle(&self, time: Duration) -> bool {
        let is_busy = |state: &mut QueueState| !state.backups.is_empty();
        let waited = self.changed.wait_timeout_while(self.state(), time, is_busy);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Whether any run was requested so far.
    #[must_use]
    pub fn were_used(&self) -> bool {
        self.state().was_used
    }

    /// Returns the runs in progress and the waiting runs.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let state = self.state();
        let mut overview = Overview { running: Vec::new(), waiting: Vec::new() };
        for run in state.backups.iter().flat_map(|backup| &backup.runs) {
            let state = run.state();
            // A run that has ended keeps its place until the next one takes it.
            if state.result.is_none() {
                let list = if state.has_begun { &mut overview.running } else { &mut overview.waiting };
                list.push(Arc::clone(run));
            }
        }
        overview
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment, Options, Required};
    use crate::model::names::WorkspaceId;
    use crate::request::Draft;

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

    fn backup(run: &Arc<Run>) -> BackupQueue {
        BackupQueue { id: run.request.backup_id(), runs: VecDeque::from([Arc::clone(run)]) }
    }

    #[test]
    fn runs_of_each_kind_get_room_in_the_order_in_which_they_came() {
        let first = Instant::now();
        let ours = ["a", "b", "c", "d", "e"].map(|name| run(name, true, first, 1));
        let others = ["x", "y", "z"].map(|name| run(name, false, first, 0));
        let late = run("late", true, first, 2);
        let all: Vec<_> = ours.iter().chain(&others).chain([&late]).map(backup).collect();
        let state = QueueState { backups: all, ..QueueState::default() };
        let begin = |run: &Arc<Run>| run.state().has_begun = true;
        others[..2].iter().for_each(begin);
        assert!(!state.has_room_for(&others[2]), "two of others go on");
        assert!(state.has_room_for(&ours[0]) && !state.has_room_for(&late), "an earlier one waits");
        ours[..2].iter().for_each(begin);
        assert!(state.has_room_for(&ours[2]));
        begin(&ours[2]);
        assert!(!state.has_room_for(&ours[3]), "three go on");
    }

    struct Idle;

    impl Worker for Idle {
        fn work(&self, run: &Run) -> (SyncResult, Option<TokenUser>) {
            (run.failure(Code::Timeout, String::new()), None)
        }

        fn ended(&self, _: &Run, _: &SyncResult, _: bool, _: Option<TokenUser>) {}

        fn flush(&self) {}
    }

    #[test]
    fn a_run_that_waits_is_shared_until_it_goes_on_or_ends() {
        let queue = Queue::new(Box::new(Idle), Duration::ZERO);
        let run = run("shop", true, Instant::now(), 0);
        let backup = backup(&run);
        let is_shared = || backup.waiting_for(&run.request).is_some();
        assert!(!is_shared(), "it has just begun");
        run.wait_for_others();
        assert!(is_shared());
        run.enter("fetch");
        assert!(!is_shared());
        run.wait_for_others();
        queue.end(&run, run.failure(Code::Timeout, String::new()), true, None);
        assert!(!is_shared(), "nobody gets a result that is older than the request");
    }

    #[test]
    fn a_run_waits_for_room_as_long_as_one_after_the_other_of_its_kind_ends() {
        let first = Instant::now();
        let (ours, others) = (run("ours", true, first, 0), run("others", false, first, 0));
        let mut state = QueueState::default();
        assert_eq!(state.waits_since(&ours), first);
        let end = first + Duration::from_secs(100);
        state.last_end[1] = Some(end);
        assert_eq!((state.waits_since(&ours), state.waits_since(&others)), (end, first));
        assert_eq!(state.waits_since(&run("ours", true, first, 200)), first + Duration::from_secs(200));
    }
}
