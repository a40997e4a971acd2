//! Which syncs run, which wait, and who shares one: one at a time for each workspace, and none lost.
//!
//! A run has a thread of its own, so that it goes on when its client is gone. It does not know what a sync does.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::code::Code;
use crate::names::WorkspaceId;
use crate::outcome::{Changed, SyncResult};
use crate::sync_request::SyncRequest;
use crate::task::new_run_id;

/// Runs that may wait at one time, over all workspaces; each may hold secrets of its request.
const WAITING_RUNS_MAX: usize = 32;
/// The same of runs of the configured backups in one workspace, which others do not crowd out. Requests that differ in
/// author or flags make different ones.
const WAITING_CONFIGURED_MAX: usize = 8;
/// Syncs that may go on at one time; each takes a `wmill` with 100 MB. Further ones of other workspaces wait.
const RUNNING_MAX: usize = 3;
/// Of these, with other settings than the configured ones, so that they never keep the configured ones waiting.
const RUNNING_OTHERS_MAX: usize = 2;

/// What a run is at that has not begun.
const QUEUE: &str = "queue";
/// Workspaces with a run of other settings that goes on or waits for room; each has a thread.
const LANES_MAX: usize = 8;

/// Does the work of the runs, and is told how they ended.
pub trait Worker: Send + Sync {
    /// Does it. May take minutes.
    fn work(&self, run: &Run) -> SyncResult;

    /// Told of each end before anybody else is; where `begun` is false, the run never had its turn. Must be quick.
    fn ended(&self, run: &Run, result: &SyncResult, begun: bool);

    /// Called when callers know the result and the run's workspace is not free yet.
    fn settle(&self);
}

/// All runs of this process.
pub struct Runs {
    worker: Box<dyn Worker>,
    waiting_time_max: Duration,
    board: Mutex<Board>,
    /// Told whenever a run ends or the board closes.
    ended: Condvar,
}

#[derive(Default)]
struct Board {
    /// One for each workspace in which a run goes on; few enough to look through.
    lanes: Vec<Lane>,
    /// Runs at work, configured or not: those of the lanes that have begun.
    working: Vec<bool>,
    /// When a run last ended.
    last_end: Option<Instant>,
    is_closed: bool,
    /// Whether a run was ever asked for.
    was_used: bool,
}

impl Board {
    fn lane(&mut self, workspace: &WorkspaceId) -> Option<&mut Lane> {
        self.lanes.iter_mut().find(|lane| lane.workspace == *workspace)
    }

    /// Whether one more may wait or begin. What the service is there for is not crowded out by what a neighbour asks.
    fn takes(&self, request: &SyncRequest) -> bool {
        let lane = self.lanes.iter().find(|lane| lane.workspace == request.workspace);
        match lane {
            Some(lane) if request.configured => {
                lane.waiting.iter().filter(|run| run.request.configured).count() < WAITING_CONFIGURED_MAX
            }
            None if request.configured => true,
            Some(_) => self.lanes.iter().map(|lane| lane.waiting.len()).sum::<usize>() < WAITING_RUNS_MAX,
            None => self.lanes.iter().filter(|lane| !lane.running.request.configured).count() < LANES_MAX,
        }
    }

    /// Whether the run may begin. The configured ones come first, in the order in which they came, so that none waits
    /// for others without end.
    fn has_room_for(&self, run: &Run) -> bool {
        let others = self.working.iter().filter(|is_configured| !**is_configured).count();
        let is_before = |other: &Run| other.request.configured && !other.state().has_begun && other.since < run.since;
        self.working.len() < RUNNING_MAX
            && (run.request.configured || others < RUNNING_OTHERS_MAX)
            && !self.lanes.iter().any(|lane| is_before(&lane.running))
    }

    /// When a run's wait began that can still end by itself: a configured one, whose workspace is free, waits for the
    /// others as long as one after the other ends.
    fn waits_since(&self, run: &Run) -> Instant {
        let last_end = self.last_end.filter(|_| run.request.configured);
        last_end.map_or(run.since, |end| end.max(run.since))
    }
}

/// The runs of one workspace: at most one goes on, the others wait in the order in which they came.
struct Lane {
    workspace: WorkspaceId,
    running: Arc<Run>,
    waiting: Vec<Arc<Run>>,
}

impl Lane {
    /// A run that waits and asks for the same.
    fn waiting_for(&self, request: &SyncRequest) -> Option<Arc<Run>> {
        let first = Some(&self.running).filter(|run| run.state().waits);
        first.into_iter().chain(&self.waiting).find(|run| run.request == *request).cloned()
    }

    /// Behind all that are as much ours as it is.
    fn enqueue(&mut self, run: &Arc<Run>) {
        let others = self.waiting.iter().position(|waiting| !waiting.request.configured);
        let place = others.filter(|_| run.request.configured).unwrap_or(self.waiting.len());
        self.waiting.insert(place, Arc::clone(run));
    }
}

/// One run, waiting, going on, or ended.
pub struct Run {
    /// Its name.
    pub id: String,
    /// What was asked for.
    pub request: SyncRequest,
    since: Instant,
    state: Mutex<State>,
}

struct State {
    step: &'static str,
    /// Whether it waits for a run of its workspace, for room, or for another process, and so has looked at nothing yet.
    waits: bool,
    has_begun: bool,
    result: Option<SyncResult>,
}

impl Default for State {
    fn default() -> Self {
        Self { step: QUEUE, waits: false, has_begun: false, result: None }
    }
}

impl Run {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says what the run is at.
    pub fn enter(&self, step: &'static str) {
        let mut state = self.state();
        (state.step, state.waits) = (step, false);
    }

    /// Says that it waits for others to end; until it enters a step, whoever asks for the same shares it.
    pub fn wait_for_others(&self) {
        let mut state = self.state();
        (state.step, state.waits) = (QUEUE, true);
    }

    /// What it is at.
    #[must_use]
    pub fn step(&self) -> &'static str {
        self.state().step
    }

    /// How long ago it was asked for.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.since.elapsed()
    }

    fn age_ms(&self) -> u64 {
        u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX)
    }

    /// Its result where it failed before it began.
    #[must_use]
    pub fn failure(&self, code: Code, message: String) -> SyncResult {
        SyncResult {
            code,
            message,
            run_id: self.id.clone(),
            workspace: self.request.workspace.to_string(),
            branch: self.request.branch.to_string(),
            commit: None,
            changed: Changed::default(),
            warnings: Vec::new(),
            duration_ms: self.age_ms(),
        }
    }
}

/// What goes on and what waits, at one moment.
pub struct Overview {
    /// The runs that go on, one for each workspace at most.
    pub running: Vec<Arc<Run>>,
    /// Those that wait for the end of others.
    pub waiting: Vec<Arc<Run>>,
}

impl Runs {
    /// No runs yet; `worker` will do them, and each waits for its turn for at most `waiting_time_max`.
    #[must_use]
    pub fn new(worker: Box<dyn Worker>, waiting_time_max: Duration) -> Arc<Self> {
        Arc::new(Self { worker, waiting_time_max, board: Mutex::default(), ended: Condvar::new() })
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        // A panic while the board is held leaves it as it was: each change is one step.
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a run, or lets it wait for the one that goes on; a run that waits and asks for the same is shared.
    ///
    /// # Errors
    /// [`Code::ShuttingDown`] or [`Code::TooManyRequests`].
    pub fn submit(self: &Arc<Self>, request: SyncRequest) -> Result<Arc<Run>, Code> {
        let mut board = self.board();
        board.was_used = true;
        if board.is_closed {
            return Err(Code::ShuttingDown);
        }
        let workspace = request.workspace.clone();
        if let Some(same) = board.lane(&workspace).and_then(|lane| lane.waiting_for(&request)) {
            log::info!("a request for workspace {workspace} shares the run that waits: {}", same.id);
            return Ok(same);
        }
        if !board.takes(&request) {
            return Err(Code::TooManyRequests);
        }
        let run = Arc::new(Run { id: new_run_id(), request, since: Instant::now(), state: Mutex::default() });
        match board.lane(&workspace) {
            // Something goes on in this workspace; its thread takes the waiting ones up.
            Some(lane) => {
                log::info!("run {} waits for its turn: a sync of workspace {workspace} goes on", run.id);
                run.wait_for_others();
                lane.enqueue(&run);
                // A run of others that waits for room gives way to one of ours.
                self.ended.notify_all();
            }
            None => {
                let (runs, first) = (Arc::clone(self), Arc::clone(&run));
                let thread = std::thread::Builder::new().name("run".to_owned());
                if thread.spawn(move || runs.work_off(first)).is_err() {
                    return Err(Code::TooManyRequests);
                }
                board.lanes.push(Lane { workspace, running: Arc::clone(&run), waiting: Vec::new() });
            }
        }
        Ok(run)
    }

    fn work_off(&self, first: Arc<Run>) {
        let mut next = Some(first);
        while let Some(run) = next {
            if self.wait_for_room(&run) {
                let mut result = self.worker.work(&run);
                result.duration_ms = run.age_ms();
                let mut board = self.board();
                let place = board.working.iter().position(|is_configured| *is_configured == run.request.configured);
                place.map(|place| board.working.swap_remove(place));
                board.last_end = Some(Instant::now());
                self.end(&run, result, true);
                drop(board);
                self.worker.settle();
            }
            next = self.take_next(&run.request.workspace);
            self.ended.notify_all();
        }
    }

    /// Whether the run may begin; otherwise it has ended, or has gone back among those that wait.
    fn wait_for_room(&self, run: &Arc<Run>) -> bool {
        let mut board = self.board();
        while !board.has_room_for(run) {
            run.wait_for_others();
            if let Some(lane) = board.lane(&run.request.workspace)
                && !run.request.configured
                && lane.waiting.iter().any(|waiting| waiting.request.configured)
            {
                lane.enqueue(run);
                return false;
            }
            let left = self.waiting_time_max.saturating_sub(board.waits_since(run).elapsed());
            if board.is_closed {
                self.turn_away(run);
                return false;
            }
            if left.is_zero() {
                self.give_up(run);
                return false;
            }
            board = self.ended.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        board.working.push(run.request.configured);
        run.state().has_begun = true;
        // There may be room for the one behind it too.
        self.ended.notify_all();
        true
    }

    /// How a run ends that had not begun when the service was told to end.
    fn turn_away(&self, run: &Run) {
        log::warn!("run {}: the service is ending; the sync had not begun", run.id);
        let message = "the service is ending; the sync had not begun".to_owned();
        self.end(run, run.failure(Code::ShuttingDown, message), false);
    }

    /// Whoever waits for the run sees its end; the worker saw it before. Called while the board is held, so that
    /// nobody begins to wait between the end and the telling of it.
    fn end(&self, run: &Run, result: SyncResult, begun: bool) {
        self.worker.ended(run, &result, begun);
        let mut state = run.state();
        (state.waits, state.result) = (false, Some(result));
        drop(state);
        self.ended.notify_all();
    }

    /// How a run ends that waited for too long.
    fn give_up(&self, run: &Run) {
        let message = format!(
            "the sync of workspace `{}` was ended in step `queue`: it waited for its turn longer than SYNC_TIMEOUT ({} s)",
            run.request.workspace,
            self.waiting_time_max.as_secs()
        );
        log::error!("run {}: {message}", run.id);
        self.end(run, run.failure(Code::Timeout, message), false);
    }

    /// The first that waits; where none does, the lane goes. Whoever waits for a run's end sees to it that it does not
    /// wait for too long; a run that nobody waits for is looked at here.
    fn take_next(&self, workspace: &WorkspaceId) -> Option<Arc<Run>> {
        let mut board = self.board();
        let lane = board.lane(workspace)?;
        while !lane.waiting.is_empty() {
            let run = lane.waiting.remove(0);
            if run.age() < self.waiting_time_max {
                lane.running = Arc::clone(&run);
                return Some(run);
            }
            self.give_up(&run);
        }
        board.lanes.retain(|lane| lane.workspace != *workspace);
        None
    }

    /// Waits for a run's end, or until its caller is gone; that is asked again after [`Runs::look_again`].
    #[must_use]
    pub fn wait(&self, run: &Run, is_gone: &dyn Fn() -> bool) -> Option<SyncResult> {
        let mut board = self.board();
        loop {
            if let Some(result) = run.state().result.clone() {
                return Some(result);
            }
            if is_gone() {
                return None;
            }
            let lane = board.lane(&run.request.workspace);
            let place = lane.and_then(|lane| {
                let place = lane.waiting.iter().position(|waiting| waiting.id == run.id)?;
                Some((lane, place))
            });
            let Some((lane, place)) = place else {
                board = self.ended.wait(board).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = self.waiting_time_max.saturating_sub(run.age());
            if left.is_zero() {
                lane.waiting.remove(place);
                self.give_up(run);
                continue;
            }
            board = self.ended.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Has everybody who waits see whether its caller is gone.
    pub fn look_again(&self) {
        // With the board, so that nobody is between asking and waiting.
        let _board = self.board();
        self.ended.notify_all();
    }

    /// Takes no more runs and ends those that wait; what goes on goes on.
    pub fn close(&self) {
        let mut board = self.board();
        board.is_closed = true;
        for run in board.lanes.iter_mut().flat_map(|lane| lane.waiting.drain(..)) {
            self.turn_away(&run);
        }
        self.ended.notify_all();
    }

    /// Waits until no run goes on, at most `time`; whether that came true.
    #[must_use]
    pub fn wait_until_idle(&self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        let mut board = self.board();
        while !board.lanes.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            board = self.ended.wait_timeout(board, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Whether any run was asked for so far.
    #[must_use]
    pub fn were_used(&self) -> bool {
        self.board().was_used
    }

    /// What goes on and what waits now.
    #[must_use]
    pub fn overview(&self) -> Overview {
        let board = self.board();
        let mut overview = Overview { running: Vec::new(), waiting: Vec::new() };
        for lane in &board.lanes {
            let (has_begun, has_ended) = {
                let state = lane.running.state();
                (state.has_begun, state.result.is_some())
            };
            // One that has ended keeps its lane until the next takes it over.
            match (has_begun, has_ended) {
                (_, true) => {}
                (true, false) => overview.running.push(Arc::clone(&lane.running)),
                (false, false) => overview.waiting.push(Arc::clone(&lane.running)),
            }
            overview.waiting.extend(lane.waiting.iter().cloned());
        }
        overview
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Config, Environment, Need, Options};
    use crate::sync_request::Draft;

    /// A run of this workspace, asked for so many seconds after the first.
    fn run(workspace: &str, configured: bool, first: Instant, seconds: u64) -> Arc<Run> {
        let settings = [("WINDMILL_TOKEN", "wm"), ("GIT_REMOTE_URL", "https://h/x"), ("GIT_TOKEN", "git")];
        let environment = Environment::new(settings.map(|(name, value)| (name.into(), value.into())));
        let config = Config::new(&Options::default(), &environment, Need::Sync).expect("settings");
        let workspace = WorkspaceId::parse(workspace).expect("a name");
        let body = br#"{"windmill_token":"own"}"#;
        let request = Draft::from_json(body, &config).ok().and_then(|draft| draft.request(&workspace).ok());
        let request = SyncRequest { configured, ..request.expect("a request") };
        Arc::new(Run {
            id: String::new(),
            request,
            since: first + Duration::from_secs(seconds),
            state: Mutex::default(),
        })
    }

    fn lane(run: &Arc<Run>) -> Lane {
        Lane { workspace: run.request.workspace.clone(), running: Arc::clone(run), waiting: Vec::new() }
    }

    #[test]
    fn configured_runs_get_room_in_the_order_in_which_they_came_and_before_others() {
        let first = Instant::now();
        let (early, late) = (run("early", true, first, 1), run("late", true, first, 2));
        let (others_early, others_late) = (run("a", false, first, 0), run("b", false, first, 3));
        let lanes = [&early, &late, &others_early, &others_late].map(lane).into();
        let mut board = Board { lanes, working: vec![true; 3], ..Board::default() };
        assert!(!board.has_room_for(&early), "three go on");
        board.working.pop();
        assert!(board.has_room_for(&early) && !board.has_room_for(&late) && !board.has_room_for(&others_late));
        early.state().has_begun = true;
        assert!(board.has_room_for(&late));
        late.state().has_begun = true;
        assert!(board.has_room_for(&others_late));
        board.working = vec![false, false];
        assert!(!board.has_room_for(&others_early), "two of others go on");
    }

    struct Idle;

    impl Worker for Idle {
        fn work(&self, run: &Run) -> SyncResult {
            run.failure(Code::Timeout, String::new())
        }

        fn ended(&self, _: &Run, _: &SyncResult, _: bool) {}

        fn settle(&self) {}
    }

    #[test]
    fn a_run_that_waits_is_shared_until_it_goes_on_or_ends() {
        let runs = Runs::new(Box::new(Idle), Duration::ZERO);
        let run = run("shop", true, Instant::now(), 0);
        let lane = lane(&run);
        let is_shared = || lane.waiting_for(&run.request).is_some();
        assert!(!is_shared(), "it has just begun");
        run.wait_for_others();
        assert!(is_shared());
        run.enter("fetch");
        assert!(!is_shared());
        run.wait_for_others();
        runs.end(&run, run.failure(Code::Timeout, String::new()), true);
        assert!(!is_shared(), "nobody gets a result that is older than the request");
    }

    #[test]
    fn a_configured_run_waits_for_room_as_long_as_one_after_the_other_ends() {
        let first = Instant::now();
        let (ours, others) = (run("ours", true, first, 0), run("others", false, first, 0));
        let mut board = Board::default();
        assert_eq!(board.waits_since(&ours), first);
        let end = first + Duration::from_secs(100);
        board.last_end = Some(end);
        assert_eq!((board.waits_since(&ours), board.waits_since(&others)), (end, first));
        assert_eq!(board.waits_since(&run("ours", true, first, 200)), first + Duration::from_secs(200));
    }
}
